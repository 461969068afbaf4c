"""Hard budgets before calls of models by their names: what is held, what is refused, what is let go."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.classifier.bundle import Bundle
from serving.ledger.budgets import Budget
from serving.ledger.sqlite.store import SqliteLedger
from serving.tiers import PICO_PER_USD
from tests.gateway import MODELS, client_of, gateway
from tests.stand_in.server import StandIn
from tests.test_gateway import ask, events
from tests.test_gateway_faults import eventually

# A call of `small` holds 1,000 tokens out at 3 USD a million, and its few tokens in: $0.003 and a little.
HELD = 0.003


def limited(folder: Path, limit_usd: float) -> None:
    """A hard budget of a day for all."""
    budget = Budget(
        scope="tenant", value="default", period="day", limit_pico_usd=int(limit_usd * PICO_PER_USD), hard=True
    )
    with closing(SqliteLedger(folder / "ledger.db")) as ledger:
        ledger.set_budget(budget)


def held(folder: Path) -> int:
    with closing(SqliteLedger(folder / "ledger.db")) as ledger:
        (status,) = ledger.budget_status(datetime.now(UTC))
    return status.reserved_pico_usd


def test_a_call_that_may_cost_more_than_is_left_does_not_go_out(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    limited(tmp_path, HELD / 2)
    with gateway(tmp_path, bundle, stand_in) as url, client_of(url) as through:
        with pytest.raises(openai.RateLimitError, match=r"expected to cost 0\.003 USD.*it never can"):
            ask(through)
        assert stand_in.attempts.total() == 0
        ask(through, max_completion_tokens=5)
    assert held(tmp_path) == 0


def test_what_is_held_is_let_go_whatever_comes_of_the_call(tmp_path: Path, bundle: Bundle) -> None:
    limited(tmp_path, 1)
    stand_in = StandIn(models=MODELS)
    with gateway(tmp_path, bundle, stand_in) as url, client_of(url) as through:
        ask(through)
        list(ask(through, stream=True))
        with pytest.raises(openai.NotFoundError):
            ask(through, model="absent")
        with pytest.raises(openai.BadRequestError):
            ask(through, temperature=3)
    assert held(tmp_path) == 0


@pytest.mark.parametrize("model", ["auto", "small"])
def test_what_is_held_is_let_go_where_a_client_leaves_before_the_call(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    limited(tmp_path, 1)
    reserve, were_held = SqliteLedger.reserve, []

    def late(*told: Any) -> Future[Any]:
        """Held, but not said to be: as where the disk is slow."""
        reserve(*told).result()
        were_held.append(held(tmp_path))
        return Future()

    monkeypatch.setattr(SqliteLedger, "reserve", late)
    with gateway(tmp_path, bundle, stand_in) as url, client_of(url) as through:
        with pytest.raises(openai.APITimeoutError):
            ask(through.with_options(timeout=0.5), model=model)
        assert [amount > 0 for amount in were_held] == [True]
        assert eventually(lambda: held(tmp_path) == 0)
        assert stand_in.attempts.total() == 0


def test_calls_at_once_hold_beside_each_other(tmp_path: Path, bundle: Bundle) -> None:
    limited(tmp_path, 3.5 * HELD)
    stand_in = StandIn(models=MODELS, latency_s=1.0)
    with gateway(tmp_path, bundle, stand_in) as url, client_of(url) as through, ThreadPoolExecutor(8) as pool:

        def outcome(_: int) -> str:
            try:
                ask(through)
            except openai.RateLimitError:
                return "refused"
            return "answered"

        found = list(pool.map(outcome, range(8)))
        assert found.count("answered") == 3
        ask(through)  # all three cost less than was held for them
    assert [event.status for event in events(tmp_path)] == ["ok"] * 4


def test_what_a_client_left_stays_held_since_nobody_knows_what_it_cost(tmp_path: Path, bundle: Bundle) -> None:
    limited(tmp_path, 1)
    stand_in = StandIn(models=MODELS, latency_s=5)
    with gateway(tmp_path, bundle, stand_in) as url, client_of(url) as through:
        with pytest.raises(openai.APITimeoutError):
            ask(through.with_options(timeout=0.3))
        assert eventually(lambda: [event.status for event in events(tmp_path)] == ["cancelled"])
    assert held(tmp_path) > 0


def test_as_many_answers_as_are_asked_for_are_held(tmp_path: Path, bundle: Bundle, stand_in: StandIn) -> None:
    limited(tmp_path, 3.5 * HELD)
    with gateway(tmp_path, bundle, stand_in) as url, client_of(url) as through:
        ask(through, n=3)
        with pytest.raises(openai.RateLimitError, match="it never can"):
            ask(through, n=4)
