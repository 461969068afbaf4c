"""`tierwise keys`: who may call, and for what."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import click
from pydantic import ValidationError

from serving.api_key import SCOPES, ApiKey, Scope, digest_of, new_id, new_secret
from serving.attribution import DEFAULT_TENANT
from serving.errors import ConfigurationError, InputError
from serving.ledger.sqlite.store import SqliteLedger
from serving.settings import Settings, read_settings


@click.group()
def keys() -> None:
    """Keys of clients. A running service follows within two seconds."""


@keys.command()
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose calls they are.")
@click.option("--name", help="What people call it.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, default=("call",), show_default=True,
              help="What it opens; may be repeated.")  # fmt: skip
@click.option("--model", "models", multiple=True, help="What it may ask for, `auto` or a model; may be repeated. [any]")
@click.option("--requests-per-minute", type=click.IntRange(1))
@click.option("--tokens-per-minute", type=click.IntRange(1))
def create(
    tenant: str, name: str | None, scopes: tuple[Scope, ...], models: tuple[str, ...], requests_per_minute: int | None,
    tokens_per_minute: int | None,
) -> None:  # fmt: skip
    """Make a key and print it, this once: only its hash is kept."""
    secret = new_secret()
    try:
        key = ApiKey(
            id=new_id(), name=name, tenant=tenant, scopes=scopes, models=models or None, created=datetime.now(UTC),
            requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"--{first['loc'][0]}: {first['msg']}") from None
    with closing(SqliteLedger(read_settings().home / "ledger.db")) as ledger:
        ledger.add_key(key, digest_of(secret))
    click.echo(f"{_line(key)}; keep it, it is not shown again:", err=True)
    click.echo(secret)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def list_keys(as_json: bool) -> None:
    """All keys, revoked ones as well; by their ids, which open nothing."""
    with _ledger() as ledger:
        found = list(ledger.keys().values())
    if as_json:
        click.echo(json.dumps({"keys": [key.model_dump(mode="json") for key in found]}))
        return
    for key in found:
        click.echo(_line(key))
    if not found:
        click.echo("there are no keys; see: tierwise keys create --help", err=True)


@keys.command()
@click.argument("id_", metavar="ID")
def revoke(id_: str) -> None:
    """From now on the key opens nothing. What it spent stays in the ledger."""
    with _ledger() as ledger:
        if not ledger.revoke_key(id_, datetime.now(UTC)):
            raise InputError(f"there is no key {id_!r} that opens anything; see: tierwise keys list")
    click.echo(f"{id_} is revoked")


def check_keys(settings: Settings) -> None:
    """Raises ConfigurationError where the service would answer nobody, since all need a key and there is none."""
    if not settings.needs_keys:
        return
    path = settings.home / "ledger.db"
    if path.exists():
        with closing(SqliteLedger(path)) as ledger:
            if any(key.revoked is None for key in ledger.keys().values()):
                return
    raise ConfigurationError(
        f"whoever calls {settings.host} needs a key, and there is none; make one: tierwise keys create --tenant NAME"
    )


@contextmanager
def _ledger() -> Iterator[SqliteLedger]:
    """Raises InputError where there is none: to look at keys makes no ledger."""
    path = read_settings().home / "ledger.db"
    if not path.exists():
        raise InputError(f"{path}: there is no ledger, and no key; make one: tierwise keys create")
    with closing(SqliteLedger(path)) as ledger:
        yield ledger


def _line(key: ApiKey) -> str:
    rates = ((key.requests_per_minute, "requests"), (key.tokens_per_minute, "tokens"))
    parts = [
        f"{key.id} of tenant {key.tenant!r}" + (f", {key.name!r}" if key.name else ""),
        f"may {', '.join(key.scopes)}",
        *(() if key.models is None else (f"models {', '.join(key.models)}",)),
        *(f"{rate:,} {of} a minute" for rate, of in rates if rate is not None),
        *(() if key.revoked is None else (f"revoked {key.revoked:%Y-%m-%d}",)),
    ]
    return "; ".join(parts)
