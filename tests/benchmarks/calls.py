"""What is called in benchmarks of the gateway: processes beside it, and many calls at once."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import aiohttp
import psutil

AT_ONCE: Final = 16
_READY_WITHIN_S: Final = 90.0  # a gateway of LiteLLM's takes half a minute


async def load(url: str, model: str, calls: int, *, stream: bool = False, key: str = "any", fresh: bool = False) -> int:
    """Make so many calls; gives how many events a stream has. fresh: each with a prompt that was not sent before."""
    turn, events, first = asyncio.Semaphore(AT_ONCE), 0, time.time_ns()

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal events
        text = "Is the invoice of March paid?" + (f" It has the number {first + number}." if fresh else "")
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
        async with turn, session.post(f"{url}/chat/completions", json=body) as response:
            came = await response.read()
            assert response.status == 200, came
            events = came.count(b"data: ")

    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        await asyncio.gather(*[one(session, number) for number in range(calls)])
    return events


async def paced(url: str, model: str, calls: int, rate: float) -> list[float]:
    """Milliseconds of each of so many calls, which begin at that rate whether or not others are answered."""
    body = {"model": model, "messages": [{"role": "user", "content": "Is the invoice of March paid?"}]}
    times: list[float] = []

    async def one(session: aiohttp.ClientSession, at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        began = time.perf_counter()
        async with session.post(f"{url}/chat/completions", json=body) as response:
            await response.read()
            assert response.status == 200
        times.append(1e3 * (time.perf_counter() - began))

    begun = time.perf_counter() + 0.1
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*[one(session, begun + number / rate) for number in range(calls)])
    return times


@contextlib.contextmanager
def module(name: str, *options: str, ready: str) -> Iterator[psutil.Process]:
    """`python -m` of it, until the end of the block; ready: what answers when it is."""
    with command([sys.executable, "-m", name, *options], ready=ready) as process:
        yield process


@contextlib.contextmanager
def command(arguments: Sequence[str], *, ready: str, **variables: str) -> Iterator[psutil.Process]:
    """The same of any command, with more variables."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | variables
    )
    try:
        end = time.monotonic() + _READY_WITHIN_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(arguments[:3])} did not start")
            time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(_READY_WITHIN_S)


@contextlib.contextmanager
def told(settings: Mapping[str, str]) -> Iterator[None]:
    """The settings of a service that is started in the block."""
    new = {**settings, "STAND_IN_KEY": "made-up-for-the-stand-in"}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1):
            return True
    except HTTPError:
        return True
    except (URLError, OSError):
        return False
