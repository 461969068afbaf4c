"""Commands that need nothing but a base install: serve, route."""

import os
import socket
import sys

import click

from serving.errors import ConfigurationError, InputError
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

    check_model_names((model for tier in settings.tiers or () for model in tier.models), PriceBook(settings.prices))
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


COMMANDS = (serve, route, bento)
