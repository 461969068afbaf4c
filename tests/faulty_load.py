"""Many calls at once to a provider that fails one in ten in every way it can, and clients that leave: who got what."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Final

import aiohttp

from serving.classifier.bundle import Bundle
from serving.ledger.events import Event
from tests.gateway import MODELS, gateway
from tests.stand_in.faults import FAULTS, Plan
from tests.stand_in.server import StandIn
from tests.test_gateway import events

AT_ONCE: Final = 16
SHARE: Final = 0.1
LEAVES_EVERY: Final = 50  # a stream is left after its first events
LEFT: Final = "other"  # the model whose streams are left: how far it came by then only it knows
_UPSTREAM: Final = {"name": "stand-in", "key_env": "PROVIDER_KEY", "timeout_s": 2.0}
_TEAM: Final = "load"


def calls_with_faults(folder: Path, bundle: Bundle, calls: int) -> tuple[Counter[str], StandIn, list[Event]]:
    """Make so many calls, half of them streams; gives how they ended, the provider with its own counts, and what is in
    the ledger. An end is `answer`, `left`, or the code of the one error that a client got."""
    stand_in = StandIn(models=MODELS, plan=Plan(SHARE, FAULTS), between_s=0.0005, keep_asked=0)
    with gateway(folder, bundle, stand_in, _UPSTREAM) as url:
        ends = asyncio.run(_load(f"{url}/chat/completions", calls))
    return ends, stand_in, events(folder)


async def _load(url: str, calls: int) -> Counter[str]:
    ends, waiting = Counter[str](), iter(range(calls))

    async def client(session: aiohttp.ClientSession) -> None:
        for number in waiting:
            ends[await _end(session, url, number)] += 1

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        await asyncio.gather(*[client(session) for _ in range(AT_ONCE)])
    return ends


async def _end(session: aiohttp.ClientSession, url: str, number: int) -> str:
    """How the call ends, which must be in one way."""
    stream, leaves = number % 2 == 0, number % LEAVES_EVERY == 0
    body = {
        "model": LEFT if leaves else ("auto", "small", "auto:share:0.5")[number % 3],
        "messages": [{"role": "user", "content": f"Is invoice {number % 97} due?"}],
        "stream": stream,
        "metadata": {"team": _TEAM},
    }
    async with session.post(url, json=body) as response:
        if response.status == 200 and leaves:
            await response.content.readuntil(b"\n\n")
            response.close()
            return "left"
        came = await response.read()
    if response.status != 200:
        error = json.loads(came)["error"]
        return str(error["code"])
    if not stream:
        assert json.loads(came)["choices"][0]["finish_reason"] == "stop"
        return "answer"
    *_, last, rest = came.split(b"\n\n")
    assert rest == b"", came[-300:]
    if last == b"data: [DONE]":
        assert b'"error"' not in came
        return "answer"
    return str(json.loads(last.removeprefix(b"data: "))["error"]["code"])
