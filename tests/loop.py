"""The whole loop in a folder of its own: a first router, a thousand requests, the report, and the next router.

python -m tests.loop              prints what `tierwise report` says of them
python -m tests.loop --gateway    the same through the gateway
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from openai import OpenAI

from tests.server import Server, environment, serving, tierwise
from tests.traffic import SAMPLE_LOG, TIERS, GatewayLoop, Loop, provider, requests, stand_in

_EXPLORATION: Final = "0.4"  # a log of one tier an answer has nothing to compare
_FOLLOWED_WITHIN_S: Final = 30.0


def run(folder: Path, *arguments: str) -> str:
    """What `tierwise` with these arguments says on stdout, in `folder` and its state; it must succeed."""
    found = subprocess.run(
        [tierwise(), *arguments],
        cwd=folder,
        env=environment(TIERWISE_HOME=str(folder / "state")),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def first_router(folder: Path, config: Path | None) -> None:
    """Train one on the sample log, and promote it."""
    run(folder, "train", "--logs", str(SAMPLE_LOG), "--promote", *_with(config))


@contextmanager
def in_service(folder: Path, **settings: str) -> Iterator[Server]:
    """A service in `folder`, which has a first router."""
    (folder / "tierwise.toml").write_text(TIERS, "utf-8")
    with serving(folder / "state", folder, TIERWISE_EXPLORATION=_EXPLORATION, **settings) as service:
        yield service


def send_all(service: Server) -> set[str]:
    """A thousand requests with call, record and feedback; gives the routers that decided them."""
    with stand_in() as provider:
        loop = Loop(service.client, provider)
        return {loop.send(i, payload) for i, payload in enumerate(requests())}


@contextmanager
def in_front_of_a_provider(folder: Path, **settings: str) -> Iterator[Server]:
    """The same with a provider behind it that is none."""
    with provider() as url:
        upstreams = json.dumps([{"name": "stand-in", "base_url": url, "key_env": "STAND_IN_KEY"}])
        told = {"TIERWISE_UPSTREAMS": upstreams, "STAND_IN_KEY": "made-up"}
        with in_service(folder, **told, **settings) as service:
            yield service


def send_all_through(service: Server) -> set[str]:
    """A thousand requests to `auto` with feedback; gives the routers that decided them."""
    url = f"{service.client.base_url}/v1"
    with OpenAI(base_url=url, api_key="any", http_client=httpx.Client(trust_env=False)) as client:
        loop = GatewayLoop(service.client, service.client, client)
        return {loop.send(i, payload) for i, payload in enumerate(requests())}


def retrain(folder: Path, config: Path | None) -> str:
    """What training on the ledger prints."""
    return run(folder, "train", "--logs", "ledger", "--promote", "--force", *_with(config))


def answers_with(service: Server, version: str) -> bool:
    """Whether the running service decides by that version before long."""
    end = time.monotonic() + _FOLLOWED_WITHIN_S
    while time.monotonic() < end:
        if service.route("Is this the new router?")["router"].startswith(f"{version}@"):
            return True
        time.sleep(0.1)
    return False


def _with(config: Path | None) -> list[str]:
    return [] if config is None else ["--config", str(config)]


def main() -> None:
    """Print the report of a thousand requests, and how the training on them went."""
    with tempfile.TemporaryDirectory(prefix="tierwise-") as name:
        folder = Path(name)
        through = sys.argv[1:] == ["--gateway"]
        first_router(folder, None)
        with (in_front_of_a_provider if through else in_service)(folder) as service:
            (send_all_through if through else send_all)(service)
            print(run(folder, "report"))
            print(retrain(folder, None))
            if not answers_with(service, "2"):
                sys.exit("the service did not take over version 2")
            print("the service answers with version 2")


if __name__ == "__main__":
    main()
