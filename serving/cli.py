"""Commands that need nothing but a base install: serve, check, route."""

import os
import socket
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from serving.budget_cli import budget
from serving.check_cli import check
from serving.errors import ConfigurationError, InputError
from serving.keys_cli import check_keys, keys
from serving.ledger.report import DIMENSIONS, MOST_DAYS, Dimension
from serving.settings import Settings, read_settings


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.")
def serve(host: str | None, port: int | None) -> None:
    """Run the service in the foreground."""
    for name, value in (("TIERWISE_HOST", host), ("TIERWISE_PORT", port)):
        if value is not None:
            os.environ[name] = str(value)
    settings = read_settings()
    _check(settings)
    _use_own_bentoml_home(settings, f"bentoml/port-{settings.port}")  # servers of one folder share their metrics
    address = ["--host", settings.host, "--port", str(settings.port)]
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Tierwise", *address]
    os.execve(sys.executable, command, os.environ)


@click.command()
@click.argument("text")
@click.option("--policy", help="quality:TARGET, share:MAX_SHARE or value:USD.")
@click.option("--team", help="Who asks, for pins.")
@click.option("--feature", help="What for, for pins.")
@click.option("--task", help="Kind of task, for pins.")
@click.option("--explain", is_flag=True, help="With scores, features that moved it, and nearest training prompts.")
def route(
    text: str, policy: str | None, team: str | None, feature: str | None, task: str | None, explain: bool
) -> None:
    """Decide for one prompt, without a server; prints JSON. TEXT `-` reads stdin.

    As the service would for the first request of a session, without exploration.
    """
    from serving.attribution import Attribution
    from serving.chat import read_conversation
    from serving.routing.policy import DEFAULT_POLICY, Policy
    from serving.routing.promoted import PromotedRouter
    from serving.routing.rules import Rules

    settings = read_settings()
    default = Policy.parse(settings.policy, default=DEFAULT_POLICY)
    try:
        asked = Policy.parse(policy, default=default)
    except InputError as error:
        raise click.BadParameter(str(error), param_hint="--policy") from None
    conversation = read_conversation(prompt=_stdin() if text == "-" else text)
    promoted = PromotedRouter(settings.home, tiers=settings.ladder, policy=default, pins=settings.pins, memo_size=1)
    promoted.refresh()
    if promoted.problem:
        click.echo(f"tierwise: {promoted.problem}", err=True)
    who = Attribution(team or None, feature or None, task or None)
    rules = Rules(pins=settings.pins, max_top_share=settings.max_top_share)
    router = promoted.router
    decision = (router.explain if explain else router.decide)(conversation, asked, who, rules)
    click.echo(decision.model_dump_json(indent=2 if explain else None))


def _stdin() -> str:
    """What is on stdin, as UTF-8 whatever the locale says. Raises InputError when it is not."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"stdin is not UTF-8 at byte {error.start + 1}", where="prompt") from None


def _check(settings: Settings) -> None:
    """What would otherwise fail in every worker, again and again, or quietly cost the promoted router.

    Raises TierwiseError.
    """
    from serving.ledger.prices import PriceBook, check_model_names
    from serving.routing.policy import DEFAULT_POLICY, Policy
    from serving.routing.promoted import check_settings, is_promoted, promoted_manifest
    from serving.upstream.attempt import check_upstreams

    models = [model for tier in settings.tiers or () for model in tier.models]
    check_model_names(models, PriceBook(settings.prices))
    check_upstreams(settings.upstreams, models)
    check_keys(settings)
    for meant in settings.aliases.values():
        if meant.startswith("auto:"):
            Policy.parse(meant.removeprefix("auto:"), default=DEFAULT_POLICY)
    policy = Policy.parse(settings.policy, default=DEFAULT_POLICY)
    if is_promoted(settings.home):
        if manifest := promoted_manifest(settings.home):  # a damaged bundle: workers serve without it and say so
            check_settings(manifest, settings.ladder, policy, settings.pins)
    else:
        click.echo("no router is promoted yet, so features alone decide; run: tierwise train --promote", err=True)
    with socket.socket() as probe:  # before BentoML empties the folder of another server's metrics
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another with --port"
            ) from None


@click.command()
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=7, show_default=True, help="Today included, in UTC.")
@click.option("--by", type=click.Choice(DIMENSIONS), help="A table of this alone.")
@click.option("--tenant", help="Of one tenant.  [default: of all]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--csv", "as_csv", is_flag=True, help="Lines of days, or of --by.")
def report(days: int, by: Dimension | None, tenant: str | None, as_json: bool, as_csv: bool) -> None:
    """What was spent and saved, from the ledger in TIERWISE_HOME."""
    from serving.ledger.report import make_report
    from serving.ledger.report_text import report_csv, report_json, report_text
    from serving.ledger.sqlite.store import SqliteLedger

    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two forms; take one")
    with closing(SqliteLedger(_existing_ledger())) as ledger:
        found = make_report(ledger, days, datetime.now(UTC).date(), by=by, tenant=tenant)
    click.echo((report_json if as_json else report_csv if as_csv else report_text)(found), nl=as_json)


@click.command()
@click.option("--request", help="Id of a decision, of a provider's answer, or of your own.")
@click.option("--session", help="A session_id.")
@click.option("--user", help="A user.")
@click.option("--tenant", help="Of one tenant.  [default: of all]")
def forget(request: str | None, session: str | None, user: str | None, tenant: str | None) -> None:
    """Delete what the ledger in TIERWISE_HOME knows of a request, a session or a user; money stays, under no name."""
    from serving.ledger.request_log import UNWRITTEN_S, Forgettable
    from serving.ledger.sqlite.store import SqliteLedger

    named: dict[Forgettable, str | None] = {"request": request, "session": session, "user": user}
    given = [(what, value) for what, value in named.items() if value]
    if len(given) != 1:
        raise click.UsageError("give one of --request, --session and --user")
    with closing(SqliteLedger(_existing_ledger())) as ledger:
        gone = ledger.forget(*given[0], tenant=tenant)
        time.sleep(UNWRITTEN_S)  # what a service had decided just before is written by then
        late = ledger.forget(*given[0], tenant=tenant)
    decisions, feedback, events = (sum(pair) for pair in zip(gone, late, strict=True))
    click.echo(f"deleted {decisions:,} decisions and {feedback:,} lines of feedback; "
               f"took the names from {events:,} events")  # fmt: skip


def _existing_ledger() -> Path:
    """Raises InputError where there is none: to look makes none."""
    path = read_settings().home / "ledger.db"
    if not path.exists():
        raise InputError(f"{path}: there is no ledger; a service makes it, in its TIERWISE_HOME")
    return path


@click.command()
def bento() -> None:
    """Build a bento with the promoted router inside; prints its tag."""
    settings = read_settings()
    _use_own_bentoml_home(settings, "bentoml")
    from serving.bento import build_bento

    click.echo(build_bento(settings.home))


def _use_own_bentoml_home(settings: Settings, folder: str) -> None:
    """Under our state, and without tracking. To be called before bentoml is imported."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    os.environ.setdefault("BENTOML_HOME", str(settings.home.resolve() / folder))


COMMANDS = (serve, check, route, report, budget, keys, forget, bento)
