"""How long work is shown: a bar on a terminal, a plain line now and then elsewhere. Always on stderr."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import click

_LINE_EVERY_S: Final = 10.0


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of items done since the last call."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
            yield bar.update
        return
    started = said = time.monotonic()
    done = 0

    def advance(items: int) -> None:
        nonlocal done, said
        done += items
        now = time.monotonic()
        if now - said >= _LINE_EVERY_S and done < total:
            said = now
            left = (now - started) / done * (total - done)
            click.echo(f"{label}: {done} of {total}, about {left:.0f} s left", err=True)

    yield advance
    click.echo(f"{label}: {done} of {total} in {time.monotonic() - started:.0f} s", err=True)
