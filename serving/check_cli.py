"""`tierwise check`: what is wrong with the settings, the router, the providers and the ledger."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from serving.errors import TierwiseError
from serving.settings import read_settings

if TYPE_CHECKING:
    from serving.checking import Finding


@click.command()
@click.option("--call", is_flag=True, help="Also send each upstream a request of one token, which no ledger records.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(call: bool, as_json: bool) -> None:
    """Try the settings, the router, the ledger and every upstream, and say what is wrong: exit status 1 where anything
    is. A line for each finding: ok, warning or error."""
    found = []
    for one in _findings(call):
        found.append(one)
        if not as_json:
            click.echo(f"{one.level:<8} {one.about}: {one.message}")
    right = all(one.level != "error" for one in found)
    if as_json:
        from pydantic_core import to_json

        click.echo(to_json({"object": "check", "ok": right, "findings": found}).decode())
    if not right:
        sys.exit(1)


def _findings(call: bool) -> "Iterator[Finding]":
    from serving.checking import Finding, check

    try:
        settings = read_settings()
    except TierwiseError as error:
        yield Finding(level="error", about="settings", message=str(error))
        return
    yield from check(settings, call=call)
