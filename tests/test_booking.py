"""What an attempt comes to in the ledger, whatever the provider told of its usage."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.attribution import NOBODY
from serving.booking import Attempt, Booking
from serving.ledger.access import LedgerAccess
from serving.ledger.events import Event
from serving.ledger.prices import PriceBook
from serving.ledger.sqlite.migrations import connect
from serving.ledger.sqlite.store import SqliteLedger
from serving.upstream.events import seen_in

SENT = "Is it due?"  # 3 tokens, as tests/test_token_estimate.py has it


@pytest.fixture
def access(tmp_path: Path) -> Iterator[LedgerAccess]:
    found = LedgerAccess(tmp_path / "ledger.db")
    yield found
    found.close()


@pytest.fixture
def booking(access: LedgerAccess) -> Booking:
    return Booking(access, PriceBook(), lambda _: None)


async def begun(booking: Booking, *, embeds: bool = False) -> Attempt:
    return await booking.begin(
        "key-1", "gpt-4o", tier=None, provider="openai", who=NOBODY, decision_id=None, request_id=None,
        sent=lambda: SENT, embeds=embeds, top=None, held=None,
    )  # fmt: skip


def booked(tmp_path: Path) -> Event:
    now = datetime.now(UTC)
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        (event,) = ledger.events(now - timedelta(hours=1), now + timedelta(hours=1))
    return event


def answered(booking: Booking, answer: dict[str, Any], *, embeds: bool = False) -> None:
    async def run() -> None:
        attempt = await begun(booking, embeds=embeds)
        await booking.answered(attempt, seen_in(answer)).on_disk()

    asyncio.run(run())


SAID = {"choices": [{"message": {"role": "assistant", "content": "Yes, on"}}]}  # 3 tokens
TOLD = (
    ({"prompt_tokens": 100, "completion_tokens": 7}, (100, 7, False)),
    (None, (3, 3, True)),
    ({"prompt_tokens": 100}, (100, 3, True)),
    ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 50}}, (3, 3, True)),  # contradicts itself
)  # fmt: skip


@pytest.mark.parametrize(("usage", "expected"), TOLD)
def test_what_a_provider_does_not_tell_is_estimated_and_never_nothing(
    booking: Booking, tmp_path: Path, usage: dict[str, Any] | None, expected: tuple[int, int, bool]
) -> None:
    answered(booking, {**SAID, "usage": usage})
    event = booked(tmp_path)
    assert event.usage is not None
    assert (event.usage.input_tokens, event.usage.output_tokens, event.usage_estimated) == expected
    assert event.cost is not None
    assert event.cost.pico_usd == expected[0] * 2_500_000 + expected[1] * 10_000_000


def test_an_answer_of_the_responses_api_is_estimated_by_its_items(booking: Booking, tmp_path: Path) -> None:
    text = {"type": "message", "content": [{"type": "output_text", "text": "Yes, on"}]}
    call = {"type": "function_call", "name": "a", "arguments": "{}"}
    answered(booking, {"output": [text, call]})
    event = booked(tmp_path)
    assert event.usage is not None
    assert event.usage.output_tokens == 4  # of "Yes, ona{}", 2 words, 6 letters, 3 marks: 1.60 + .42 + 1.74 = 3.76


def test_embeddings_have_nothing_that_comes_out(booking: Booking, tmp_path: Path) -> None:
    answered(booking, {"data": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}}, embeds=True)
    event = booked(tmp_path)
    assert event.usage is not None
    assert (event.usage.input_tokens, event.usage.output_tokens, event.usage_estimated) == (9, 0, False)


def test_a_client_that_leaves_while_the_attempt_is_written_down_leaves_no_open_attempt(
    access: LedgerAccess, booking: Booking, tmp_path: Path
) -> None:
    access.store()

    async def run() -> None:
        with closing(connect(tmp_path / "ledger.db")) as other:
            other.execute("BEGIN IMMEDIATE")  # so that the write takes a while
            beginning = asyncio.ensure_future(begun(booking))
            await asyncio.sleep(0.05)
            beginning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await beginning
            other.execute("ROLLBACK")

    asyncio.run(run())
    access.close()
    event = booked(tmp_path)
    assert (event.status, event.cost and event.cost.pico_usd) == ("cancelled", 0)
