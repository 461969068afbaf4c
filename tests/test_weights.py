"""Models that share a tier's calls by weight: how often each is first, what a session keeps, what is refused."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from pydantic import ValidationError

from serving.attribution import NOBODY, Attribution, Pin
from serving.classifier.bundle import Bundle
from serving.errors import InputError
from serving.routing.rules import Rules
from serving.settings import Settings
from serving.tiers import Tier
from serving.upstream.weights import drawn
from tests.gateway import TIERS, client_of, gateway
from tests.stand_in.server import StandIn
from tests.test_gateway_faults import auto
from training.logs.ladder import read_ladder

ABC = ("a", "b", "c")
PINNED = Rules(pins=(Pin(team="search", tier="economy"),))


def shares(orders: list[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    return {order: count / len(orders) for order, count in Counter(orders).items()}


@given(
    weights=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6), seed=st.integers(), session=st.none() | st.text()
)
def test_every_model_is_drawn_once(weights: list[float], seed: int, session: str | None) -> None:
    models = [f"model-{i}" for i in range(len(weights))]
    order = drawn(models, weights, Attribution(session_id=session), random.Random(seed))
    assert sorted(order) == sorted(models)


def test_each_is_next_with_its_share_of_what_is_left() -> None:
    chance = random.Random(7)
    found = shares([drawn(ABC, (3, 2, 1), NOBODY, chance) for _ in range(60_000)])
    expected = {  # a first: 3 of 6, then b: 2 of the 3 that are left; and so on
        ("a", "b", "c"): 3 / 6 * 2 / 3, ("a", "c", "b"): 3 / 6 * 1 / 3, ("b", "a", "c"): 2 / 6 * 3 / 4,
        ("b", "c", "a"): 2 / 6 * 1 / 4, ("c", "a", "b"): 1 / 6 * 3 / 5, ("c", "b", "a"): 1 / 6 * 2 / 5,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=0.006)  # three standard errors of a share of a third


def test_sessions_are_shared_alike_and_each_keeps_its_order() -> None:
    chance = random.Random(7)
    sessions = [Attribution(team="search", session_id=f"s-{i}") for i in range(20_000)]
    orders = [drawn(ABC, (3, 2, 1), who, chance) for who in sessions]
    assert [drawn(ABC, (3, 2, 1), who, chance) for who in sessions] == orders
    assert shares([order[:1] for order in orders]) == pytest.approx(
        {("a",): 3 / 6, ("b",): 2 / 6, ("c",): 1 / 6}, abs=0.011
    )
    other_team = [drawn(ABC, (3, 2, 1), Attribution("legal", session_id=who.session_id), chance) for who in sessions]
    assert other_team != orders


def test_a_model_taken_away_moves_no_session_between_the_others() -> None:
    for i in range(1_000):
        who = Attribution(session_id=f"s-{i}")
        three = drawn(ABC, (3, 2, 1), who, random.Random(0))
        assert drawn(("a", "c"), (3, 1), who, random.Random(0)) == tuple(model for model in three if model != "b")


def tiers(*weights: object) -> list[dict[str, Any]]:
    """The ladder of tests/gateway.py, with weights of the two models of its first tier."""
    return [{**tier, **({"weights": weights} if i == 0 else {})} for i, tier in enumerate(TIERS)]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1,), "has 2 models and weights for 1; give each model one"), ((1, 2, 3), "has 2 models and weights for 3"),
        ((1, 0), "greater than 0"), ((1, -1), "greater than 0"), ((1, float("inf")), "finite"),
        ((1, float("nan")), "finite"), ((1, "x"), "valid number"),
    ],
)  # fmt: skip
def test_weights_that_make_no_sense_are_refused(weights: tuple[object, ...], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate({"tiers": tiers(*weights)})


def test_weights_are_of_the_service_alone(tmp_path: Path) -> None:
    chosen = Settings.model_validate({"tiers": tiers(3, 1)})
    assert chosen.weights == {"economy": (3, 1)}
    assert chosen.ladder == Settings.model_validate({"tiers": TIERS}).ladder
    assert "weights" not in Tier.model_fields  # which bundles hold, and thresholds are bound to
    ladder = tmp_path / "ladder.toml"
    ladder.write_text('[[tiers]]\nname = "low"\nmodels = ["a", "b"]\nweights = [3, 1]\n'
                      '[[tiers]]\nname = "high"\nmodels = ["c"]\n')  # fmt: skip
    with pytest.raises(InputError, match="weights"):
        read_ladder(ladder)


def in_economy(through: OpenAI, session: str | None = None) -> str:
    """The model that answers a call of a team that is pinned to the tier of two models."""
    headers = {"x-tierwise-team": "search"} | ({} if session is None else {"x-tierwise-session-id": session})
    return str(auto(through, extra_headers=headers).parse().model)


def test_the_model_drawn_is_asked_first_and_the_other_when_it_fails(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    with gateway(tmp_path, bundle, stand_in, rules=PINNED, tiers=tiers(1, 1e9)) as url, client_of(url) as client:
        assert in_economy(client) == "small-twin"
        stand_in.plan.order("small-twin", "server_error", "server_error")
        assert in_economy(client) == "small"


def test_a_session_stays_with_its_model_and_sessions_are_spread(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    with gateway(tmp_path, bundle, stand_in, rules=PINNED, tiers=tiers(1, 1)) as url, client_of(url) as client:
        answered = {session: {in_economy(client, session) for _ in range(4)} for session in map(str, range(8))}
    assert all(len(models) == 1 for models in answered.values())
    assert set.union(*answered.values()) == {"small", "small-twin"}
