"""Who is asked when: what a call that waits for its turn is, and is not."""

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from serving.attempts import Attempts
from serving.attribution import NOBODY
from serving.candidates import Candidate
from serving.errors import UpstreamError
from serving.job import Call, Job
from serving.upstream.breaker import Breakers


def test_a_call_whose_turn_never_comes_is_no_attempt_and_no_failure_of_the_model() -> None:
    breakers = Breakers(1, 60, 60)
    nobody: Any = None  # neither the ledger nor a provider is to be asked
    busy: Any = SimpleNamespace(turn=asyncio.Semaphore(0))

    async def ask() -> None:
        call = Call(Job("/chat/completions", {}, "small", None, NOBODY, None), None, None, None, 0.05)
        async with AsyncExitStack() as stack:
            await Attempts(nobody, breakers, nobody).first(call, [Candidate("small", None, busy)], stack)

    with pytest.raises(UpstreamError, match=r"no model answered within 0\.05 s"):
        asyncio.run(ask())
    assert breakers.out() == {}
    assert breakers.admit("small") is not None
