"""Commands that need nothing but a base install: serve, route."""

import os
import sys

import click

from serving.chat import read_conversation
from serving.routing.policy import Policy
from serving.routing.promoted import PromotedRouter
from serving.routing.router import DEFAULT_POLICY
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
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    # A folder of its own: two servers on one BENTOML_HOME wipe each other's metrics.
    os.environ.setdefault("BENTOML_HOME", str(settings.home.resolve() / "bentoml"))
    address = ["--host", settings.host, "--port", str(settings.port)]
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Tierwise", *address]
    os.execve(sys.executable, command, os.environ)


@click.command()
@click.argument("text")
@click.option("--policy", help="quality:TARGET, share:MAX_SHARE or value:USD.")
def route(text: str, policy: str | None) -> None:
    """Decide for one prompt, without a server; prints JSON. TEXT `-` reads stdin."""
    settings = read_settings()
    prompt = sys.stdin.read() if text == "-" else text
    conversation = read_conversation(prompt=prompt)
    default = Policy.parse(settings.policy, default=DEFAULT_POLICY)
    promoted = PromotedRouter(settings.home, tiers=settings.ladder, memo_size=1)
    promoted.refresh()
    if promoted.problem:
        click.echo(f"tierwise: {promoted.problem}", err=True)
    click.echo(promoted.router.decide(conversation, Policy.parse(policy, default=default)).model_dump_json())


def _check(settings: Settings) -> None:
    """What would otherwise fail in every worker, again and again. Raises TierwiseError."""
    policy = Policy.parse(settings.policy, default=DEFAULT_POLICY)
    promoted = PromotedRouter(settings.home, tiers=settings.ladder)
    promoted.router.accepts(policy)
    if not (settings.home / "served").exists():
        click.echo(
            "tierwise: no router is promoted yet, features alone will decide; run: tierwise train --promote",
            err=True,
        )


COMMANDS = (serve, route)
