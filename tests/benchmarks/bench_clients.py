"""Which HTTP client calls a provider at the least CPU? aiohttp, httpx, and the `openai` package's own in raw mode.

Each asks the stand-in, in a process of its own, for the same answer, whole and as a stream, many at once. What is
counted is the CPU time of the process that asks.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp
import httpx
import openai
import uvloop

from tests.benchmarks.figures import Figure
from tests.server import free_port

CALLS: Final = 400
WARM: Final = 40
AT_ONCE: Final = 16
ROUNDS: Final = 3
ASKED: Final = {"model": "small", "messages": [{"role": "user", "content": "Is the invoice of March due?"}]}
HEADERS: Final = {"authorization": "Bearer made-up", "content-type": "application/json"}
_READY_WITHIN_S: Final = 30.0

Call = Callable[[], Awaitable[object]]


def measure(_home: Path) -> Iterator[Figure]:
    """The least of three rounds for each, in turns, and how many times as much as aiohttp."""
    port = free_port()
    stand_in = subprocess.Popen([sys.executable, "-m", "tests.stand_in", "--port", str(port)], stdout=subprocess.PIPE)
    try:
        assert stand_in.stdout is not None
        stand_in.stdout.readline()  # it says where it is
        found = uvloop.run(_measured(f"http://127.0.0.1:{port}/v1"))
    finally:
        stand_in.terminate()
        stand_in.wait(_READY_WITHIN_S)
    for name, cpu_ms in found.items():
        yield Figure("clients", f"CPU of a call, {name}", cpu_ms, "ms")
        least = found["aiohttp, stream" if name.endswith("stream") else "aiohttp"]
        if cpu_ms != least:
            yield Figure("clients", f"the same ÷ aiohttp, {name}", cpu_ms / least, "×")


async def _measured(url: str) -> dict[str, float]:
    async with AsyncExitStack() as open_clients:
        calls = await _calls(url, open_clients)
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                found[name].append(await _cpu_ms(call))
    return {name: min(values) for name, values in found.items()}


async def _calls(url: str, open_clients: AsyncExitStack) -> dict[str, Call]:
    address = f"{url}/chat/completions"
    whole, streamed = (json.dumps(ASKED | extra).encode() for extra in ({}, {"stream": True}))
    by_aiohttp = await open_clients.enter_async_context(aiohttp.ClientSession(headers=HEADERS))
    by_httpx = await open_clients.enter_async_context(httpx.AsyncClient(headers=HEADERS, trust_env=False))
    own = await open_clients.enter_async_context(httpx.AsyncClient(trust_env=False))
    by_openai = openai.AsyncOpenAI(base_url=url, api_key="made-up", max_retries=0, http_client=own)

    async def aiohttp_call(body: bytes) -> None:
        async with by_aiohttp.post(address, data=body) as response:
            async for _ in response.content.iter_any():
                pass

    async def httpx_call(body: bytes) -> None:
        async with by_httpx.stream("POST", address, content=body) as response:
            async for _ in response.aiter_raw():
                pass

    async def openai_whole() -> None:
        await by_openai.chat.completions.with_raw_response.create(**ASKED)  # type: ignore[call-overload]

    async def openai_stream() -> None:
        create = by_openai.chat.completions.with_streaming_response.create
        async with create(**ASKED, stream=True) as response:  # type: ignore[call-overload]
            async for _ in response.iter_bytes():
                pass

    return {
        "aiohttp": lambda: aiohttp_call(whole),
        "httpx": lambda: httpx_call(whole),
        "openai": openai_whole,
        "aiohttp, stream": lambda: aiohttp_call(streamed),
        "httpx, stream": lambda: httpx_call(streamed),
        "openai, stream": openai_stream,
    }


async def _cpu_ms(call: Call) -> float:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turn:
            await call()

    await asyncio.gather(*[one() for _ in range(WARM)])
    began = time.process_time()
    await asyncio.gather(*[one() for _ in range(CALLS)])
    return 1e3 * (time.process_time() - began) / CALLS
