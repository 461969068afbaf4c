"""The web application in this process, over a router with the fake encoder, and requests to it."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette

from serving.classifier.bundle import Bundle
from serving.http.app import build_app
from serving.http.metrics import Metrics
from serving.routing.policy import DEFAULT_POLICY
from serving.routing.promoted import PromotedRouter
from serving.settings import Settings
from tests.factories import fake_home, put_in_service


@dataclass(frozen=True)
class Client:
    """Requests to an application in this process."""

    app: Starlette
    promoted: PromotedRouter

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> httpx.Response:
        """The answer to one request."""

        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, content=body, headers=headers)

        return asyncio.run(sent())

    def get(self, path: str) -> httpx.Response:
        """The answer to a GET."""
        return self.request("GET", path)

    def post(self, path: str, payload: object) -> httpx.Response:
        """The answer to a POST of `payload` as JSON."""
        return self.request("POST", path, json.dumps(payload).encode())

    def metrics(self) -> str:
        """What /metrics says."""
        return self.get("/metrics").text


@contextlib.contextmanager
def application(folder: Path, bundle: Bundle, settings: Settings) -> Iterator[Client]:
    """A client of the application that serves `bundle` as version 7 from a state folder made in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        home = fake_home(folder, bundle, patch)
        put_in_service(home, bundle, "7")
        promoted = PromotedRouter(home)
        promoted.refresh()
        metrics = Metrics()
        yield Client(build_app(settings, promoted, DEFAULT_POLICY, metrics), promoted)
        for collector in vars(metrics).values():  # a second Metrics in this process could not register otherwise
            REGISTRY.unregister(collector)


def refused(response: httpx.Response, status: int = 400) -> dict[str, object]:
    """The error of a refusal, which must have the shape of every error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return dict(body["error"])
