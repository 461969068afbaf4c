"""The service's application on a port of loopback, in this process, in front of a stand-in provider."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from openai import OpenAI
from prometheus_client import REGISTRY

from serving.classifier.bundle import Bundle
from serving.http.app import build_app
from serving.http.metrics import Metrics
from serving.http.tracing import Tracing
from serving.routing.policy import DEFAULT_POLICY
from serving.routing.promoted import PromotedRouter
from serving.routing.rules import Rules
from serving.settings import Settings
from tests.factories import fake_home, put_in_service
from tests.stand_in.server import StandIn, running

TIERS = tuple(
    {"name": name, "models": models, "usd_per_mtok_in": price, "usd_per_mtok_out": 3 * price}
    for name, models, price in (
        ("economy", ("small", "small-twin"), 1), ("standard", ("medium",), 4), ("premium", ("large",), 10),
    )
)  # fmt: skip
PRICES = [
    {"model": model, "usd_per_mtok_in": tier["usd_per_mtok_in"], "usd_per_mtok_out": tier["usd_per_mtok_out"]}
    for tier in TIERS
    for model in tier["models"]  # type: ignore[attr-defined]
]
MODELS = ("small", "small-twin", "medium", "large", "other")
KEY = "sk-the-provider's-own"


@contextlib.contextmanager
def gateway(
    folder: Path,
    bundle: Bundle,
    stand_in: StandIn,
    upstream: dict[str, object] | None = None,
    rules: Rules | None = None,
    traces: Tracing | None = None,
    **settings: object,
) -> Iterator[str]:
    """The base URL of a service over `bundle`, whose models a stand-in serves; its ledger is in `folder`.

    upstream: another entry than the usual one, at the stand-in where it does not say.
    """
    with running(stand_in) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROVIDER_KEY", KEY)
        home = fake_home(folder / "app", bundle, patch)
        put_in_service(home, bundle, "7")
        entry = {"base_url": url, **(upstream or {"name": "stand-in", "key_env": "PROVIDER_KEY", "timeout_s": 5})}
        told = {"home": folder, "tiers": TIERS, "prices": PRICES, "upstreams": [entry], **settings}
        chosen = Settings.model_validate(told)
        promoted = PromotedRouter(home, tiers=chosen.ladder)
        metrics = Metrics()
        app = build_app(chosen, promoted, DEFAULT_POLICY, metrics, rules or Rules(pins=chosen.pins), traces)
        try:
            with _served(app) as port:
                yield f"http://127.0.0.1:{port}/v1"
        finally:
            for collector in vars(metrics).values():  # a second Metrics in this process could not register otherwise
                REGISTRY.unregister(collector)


@contextlib.contextmanager
def _served(app: object) -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)  # type: ignore
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        end = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server ended before it began"
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(10)


def client_of(url: str) -> OpenAI:
    """The official client, which tries nothing twice by itself."""
    return OpenAI(base_url=url, api_key="tw-any", max_retries=0, timeout=20, http_client=httpx.Client(trust_env=False))
