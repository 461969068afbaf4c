"""Calls through a service whose worker is killed again and again: what clients got, and what the ledger has of it."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from serving.ledger.events import Event
from serving.ledger.sqlite.store import SqliteLedger
from tests import server
from tests.server import Server
from tests.stand_in.server import StandIn, running

AT_ONCE: Final = 16
_LATENCY_S: Final = 0.02
_TRY_AGAIN_S: Final = 0.1
_BACK_WITHIN_S: Final = 60.0
_MODELS: Final = ("small", "large")
_TIERS: Final = json.dumps([
    {"name": name, "models": [model], "usd_per_mtok_in": price, "usd_per_mtok_out": price}
    for name, model, price in (("economy", "small", 1), ("standard", "middle", 2), ("premium", "large", 3))
])  # fmt: skip


@dataclass
class Outcome:
    """answers: ids of those that came whole. broken: calls that were under way when the worker died. kills: process
    ids. events: all that the ledger has."""

    answers: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    kills: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def killed_under_load(home: Path, folder: Path, calls: int, kills: int) -> Outcome:
    """Send so many calls, half of them streams, and kill the worker so many times meanwhile, evenly spread.

    home: of a promoted router with the tiers economy, standard and premium; its ledger is new.
    """
    found = Outcome()
    with running(StandIn(models=("small", "middle", "large"), latency_s=_LATENCY_S)) as url:
        upstreams = json.dumps([{"name": "stand-in", "base_url": url, "key_env": "STAND_IN_KEY"}])
        told = {"TIERWISE_UPSTREAMS": upstreams, "TIERWISE_TIERS": _TIERS, "STAND_IN_KEY": "made-up"}
        with server.serving(home, folder, TIERWISE_LOG_REQUESTS="false", **told) as service:
            asyncio.run(_load(service, calls, kills, found))
            service.route("is it back?")
    now = datetime.now(UTC)
    with closing(SqliteLedger(home / "ledger.db")) as ledger:
        found.events = list(ledger.events(now - timedelta(hours=2), now + timedelta(hours=1)))
    return found


async def _load(service: Server, calls: int, kills: int, found: Outcome) -> None:
    url, waiting = f"{service.client.base_url}/v1/chat/completions", iter(range(calls))
    killing = [round((i + 1) * calls / (kills + 1)) for i in range(kills)]

    async def client(session: aiohttp.ClientSession) -> None:
        for number in waiting:
            if killing and number >= killing[0]:
                killing.pop(0)
                found.kills.append(await asyncio.to_thread(_kill, service))
            await _call(session, url, number, found)

    # A connection of its own for each call: one that was kept may lead to a worker that is no more.
    connector = aiohttp.TCPConnector(limit=AT_ONCE, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=90)) as session:
        await asyncio.gather(*[client(session) for _ in range(AT_ONCE)])


async def _call(session: aiohttp.ClientSession, url: str, number: int, found: Outcome) -> None:
    """One call. Where nobody listens it is made again; where it breaks off, or is refused, that is its end."""
    body = {
        "model": "auto" if number % 2 else "small",
        "messages": [{"role": "user", "content": f"Is invoice {number % 50} due?"}],
        "stream": number % 4 < 2,
    }
    end = time.monotonic() + _BACK_WITHIN_S
    while time.monotonic() < end:
        try:
            async with session.post(url, json=body) as response:
                came = await response.read()
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(_TRY_AGAIN_S)
            continue
        except (aiohttp.ClientError, ConnectionError) as error:
            found.broken[type(error).__name__] += 1
            return
        if response.status != 200:
            found.broken[f"status {response.status}"] += 1
            return
        ids = set(_ids(came, stream=body["stream"] is True))
        assert len(ids) == 1, came[-300:]
        found.answers += ids
        return
    raise AssertionError(f"nobody listened for {_BACK_WITHIN_S:g} s")


def _ids(came: bytes, *, stream: bool) -> Iterator[str]:
    """The id of an answer, which must be whole."""
    if not stream:
        yield json.loads(came)["id"]
        return
    *events, last, rest = came.split(b"\n\n")
    assert (last, rest) == (b"data: [DONE]", b""), came[-300:]
    for event in events:
        said: dict[str, Any] = json.loads(event.removeprefix(b"data: "))
        yield said["id"]


def _kill(service: Server) -> int:
    """SIGKILL for the process that answers: the child that holds most memory."""
    worker = max(
        psutil.Process(service.process.pid).children(recursive=True), key=lambda child: child.memory_info().rss
    )
    worker.kill()
    return worker.pid
