"""Ladders and prices: from files, and from what a log itself shows."""

import json
from pathlib import Path

import pytest

from serving.errors import InputError
from serving.tiers import Tier
from training.logs.ladder import Ladder, read_ladder, read_prices
from training.logs.ladder_of_log import LadderCollector, PriceEstimate
from training.logs.rows import request_of

TABLES = {
    "_about": "two exams",
    "finals": {"economy": ["small"], "premium": ["big", "huge"], "acceptable_from": 0.7},
    "mocks": {"cheap": ["small"], "dear": ["big"]},
}


def written(tmp_path: Path, content: object, name: str = "ladder.json") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def collected(*rows: dict[str, object]) -> LadderCollector:
    collector = LadderCollector()
    for i, row in enumerate(rows):
        collector.see(request_of({"id": i, "prompt": "x" * 400} | row))
    return collector


def test_a_ladder_is_read_from_json_with_prices_in_pico_usd_per_token(tmp_path):
    path = written(
        tmp_path,
        '{"acceptable_from": 0.8, "tiers": ['
        '{"name": "economy", "models": ["small"], "usd_per_mtok_in": 0.15, "usd_per_mtok_out": 0.6},'
        '{"name": "premium", "models": ["big", "huge"]}]}',
    )

    assert read_ladder(path) == Ladder(
        tiers=(
            Tier(name="economy", models=("small",), input_pico_usd=150_000, output_pico_usd=600_000),
            Tier(name="premium", models=("big", "huge")),
        ),
        acceptable_from=0.8,
    )


def test_a_ladder_is_read_from_toml(tmp_path):
    path = written(
        tmp_path,
        """
        [[tiers]]
        name = "economy"
        models = ["small"]
        usd_per_mtok_in = 0.1
        usd_per_mtok_out = 0.4

        [[tiers]]
        name = "premium"
        models = ["big"]
        """,
        "ladder.toml",
    )

    ladder = read_ladder(path)

    assert ladder.names == ("economy", "premium")
    assert ladder.tiers[0].input_pico_usd == 100_000


def test_a_ladder_file_says_what_a_tier_can_take(tmp_path):
    path = written(
        tmp_path,
        '{"tiers": [{"name": "economy", "models": ["small"], "context_window": 8000, "vision": false},'
        '{"name": "premium", "models": ["big"], "tools": true, "json_mode": true}]}',
    )

    economy, premium = read_ladder(path).tiers

    assert (economy.context_window, economy.tools, economy.vision, economy.json_mode) == (8000, None, False, None)
    assert (premium.context_window, premium.tools, premium.vision, premium.json_mode) == (None, True, None, True)


def test_a_context_window_of_no_tokens_is_refused(tmp_path):
    path = written(tmp_path, '{"tiers": [{"name": "economy", "models": ["small"], "context_window": 0}]}')

    with pytest.raises(InputError, match=r"tiers\[?\.?0.*context_window"):
        read_ladder(path)


def test_a_file_of_several_ladders_gives_that_of_the_table(tmp_path):
    path = written(tmp_path, TABLES)

    finals = read_ladder(path, "finals")

    assert (finals.names, finals.acceptable_from) == (("economy", "premium"), 0.7)
    assert (finals.tier_of("huge"), finals.tier_of("small"), finals.tier_of("other")) == ("premium", "economy", None)
    assert read_ladder(path, "mocks").names == ("cheap", "dear")


@pytest.mark.parametrize("table", [None, "retakes", "_about"])
def test_a_file_of_several_ladders_without_the_one_meant_lists_them(tmp_path, table):
    with pytest.raises(InputError, match="there are ladders for finals, mocks"):
        read_ladder(written(tmp_path, TABLES), table)


def test_the_only_ladder_of_a_file_needs_no_name(tmp_path):
    assert read_ladder(written(tmp_path, {"mocks": TABLES["mocks"]})).names == ("cheap", "dear")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"tiers": [{"name": "economy", "models": ["small"]}]}, "tiers"),
        ({"tiers": [{"name": "a", "models": ["m"]}, {"name": "a", "models": ["n"]}]}, "the tier 'a' twice"),
        ({"tiers": [{"name": "a", "models": ["m"]}, {"name": "b", "models": ["m"]}]}, "the model 'm' twice"),
        ({"tiers": [{"name": "a", "models": []}, {"name": "b", "models": ["m"]}]}, "models"),
        ({"tiers": [{"name": "a", "model": ["m"]}]}, r"tiers\[0\]"),
        ({"tiers": [{"name": "a", "models": ["m"], "usd_per_mtok_in": 1}]}, "has one price"),
        ({"tiers": [{"name": "a", "models": ["m"], "usd_per_mtok_in": -1, "usd_per_mtok_out": 1}]}, "must be ≥ 0"),
        ({"exam": ["small"]}, "exam: must be an object of tiers"),
        ({"exam": {"economy": "small"}}, "tiers"),
        ({"exam": {"economy": ["s"], "premium": ["b"], "acceptable_from": 2}}, "acceptable_from"),
        ({}, "there are ladders for no table"),
        ([], "must be an object"),
        ("{", "cannot be read"),
    ],
)
def test_a_file_that_is_no_ladder_is_refused_naming_it(tmp_path, content, fault):
    with pytest.raises(InputError, match=rf"ladder\.json: .*{fault}"):
        read_ladder(written(tmp_path, content))


def test_a_ladder_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_ladder(tmp_path / "none.json")


def test_prices_fill_tiers_that_have_none_from_their_first_model_with_one(tmp_path):
    prices = read_prices(
        written(
            tmp_path,
            "model,usd_per_mtok_in,usd_per_mtok_out,source\nsmall,9,9,x\nhuge,2.5,10,page\nlast,7,7,\n",
            "prices.csv",
        )
    )
    ladder = Ladder(
        tiers=(
            Tier(name="economy", models=("small",), input_pico_usd=1, output_pico_usd=2),
            Tier(name="standard", models=("unknown",)),
            Tier(name="premium", models=("big", "huge", "last")),
        ),
        acceptable_from=0.9,
    )

    priced = ladder.with_prices(prices)

    assert [(tier.input_pico_usd, tier.output_pico_usd) for tier in priced.tiers] == [
        (1, 2),
        (None, None),
        (2_500_000, 10_000_000),
    ]
    assert priced.acceptable_from == 0.9


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("model,usd_per_mtok_in\nsmall,1\n", "needs the column 'usd_per_mtok_out'"),
        ("model,usd_per_mtok_in,usd_per_mtok_out\nsmall,1,free\n", "line 2: price 'free' is not a number"),
        ("model,usd_per_mtok_in,usd_per_mtok_out\nsmall,1\n", "line 2: price None is not a number"),
        ("model,usd_per_mtok_in,usd_per_mtok_out\ns,1,2\ns,1,2\ns,1,3\n", "line 4: 's' has another price"),
    ],
)
def test_prices_that_cannot_be_read_are_refused_naming_the_line(tmp_path, rows, fault):
    with pytest.raises(InputError, match=fault):
        read_prices(written(tmp_path, rows, "prices.csv"))


def test_a_log_with_the_usual_tiers_shows_its_ladder():
    collector = collected(
        {"tier": "premium", "model": "big"},
        {"tier": "economy", "model": "rare"},
        {"tier": "economy", "model": "small"},
        {"tier": "economy", "model": "small"},
    )

    assert collector.ladder() == Ladder(
        tiers=(Tier(name="economy", models=("small", "rare")), Tier(name="premium", models=("big",)))
    )


def test_other_tiers_are_ordered_by_the_median_cost_of_a_token():
    usage = {"input_tokens": 50, "output_tokens": 50}
    collector = collected(
        *({"tier": "gold", "model": "big", "usage": usage, "cost_usd": cost} for cost in ("0.01", "0.02", "0.03")),
        *({"tier": "tin", "model": "small", "usage": usage, "cost_usd": cost} for cost in ("0.001", "0.002", "9")),
    )

    assert collector.ladder().names == ("tin", "gold")


def test_a_model_logged_under_two_tiers_stays_where_it_answered_most():
    collector = collected(
        {"tier": "economy", "model": "small"},
        {"tier": "premium", "model": "small"},
        {"tier": "premium", "model": "small"},
        {"tier": "economy", "model": "tiny"},
    )

    assert [tier.models for tier in collector.ladder().tiers] == [("tiny",), ("small",)]


@pytest.mark.parametrize(
    "rows",
    [
        [{"model": "small"}, {"model": "big"}],
        [{"tier": "economy", "model": "small"}],
        [{"tier": "tin", "model": "small"}, {"tier": "gold", "model": "big"}],
        [{"tier": "economy"}, {"tier": "premium", "model": "big"}],
    ],
)
def test_a_log_that_does_not_show_its_ladder_asks_for_one(rows):
    with pytest.raises(InputError, match="--ladder"):
        collected(*rows).ladder()


LADDER = Ladder(tiers=(Tier(name="economy", models=("small",)), Tier(name="premium", models=("big",))))


def answers(count: int, **fields: object) -> list[dict[str, object]]:
    """Answers of the economy tier at 2 USD per million input tokens and 8 USD per million output tokens."""
    return [
        {
            "tier": "economy",
            "usage": {"input_tokens": 100 + i, "output_tokens": 7 * i},
            "cost_usd": f"0.{(100 + i) * 2 + 7 * i * 8:06}",
        }
        | fields
        for i in range(count)
    ]


def test_prices_are_estimated_from_recorded_costs_and_said_to_be():
    ladder, estimates = collected(*answers(20)).priced(LADDER)

    assert estimates == (PriceEstimate("economy", 2_000_000, 8_000_000, rows=20, tokens="recorded"),)
    assert ladder.tiers[0].input_pico_usd == 2_000_000
    assert not ladder.tiers[1].priced
    assert "estimated from 20 recorded costs (tokens: recorded)" in str(estimates[0])


def test_prices_are_not_estimated_from_fewer_than_twenty_costs():
    assert collected(*answers(19)).priced(LADDER) == (LADDER, ())


def test_a_price_that_is_known_is_not_estimated():
    priced = LADDER.with_prices({"small": (1, 1), "big": (2, 2)})

    assert collected(*answers(20)).priced(priced) == (priced, ())


def test_an_estimated_price_is_never_negative():
    falling = [
        {"tier": "economy", "usage": {"input_tokens": 100, "output_tokens": i}, "cost_usd": f"{0.01 - i / 1e5:.6f}"}
        for i in range(1, 31)
    ]

    _, (estimate,) = collected(*falling).priced(LADDER)

    assert estimate.output_pico_usd == 0
    # The mean cost of a token of input: .01 - 15.5e-5 USD over 100 tokens.
    assert estimate.input_pico_usd == 98_450_000


def test_answers_of_one_shape_show_one_price_for_both_ways():
    same = answers(1, usage={"input_tokens": 30, "output_tokens": 10}, cost_usd="0.000080") * 20

    _, (estimate,) = collected(*same).priced(LADDER)

    assert (estimate.input_pico_usd, estimate.output_pico_usd) == (2_000_000, 2_000_000)


def test_without_tokens_four_characters_count_as_one():
    rows = [
        {"tier": "economy", "response": "y" * 4 * i, "cost_usd": f"0.{100 * 2 + i * 8:06}"}  # prompts are 100 tokens
        for i in range(20)
    ]

    _, (estimate,) = collected(*rows).priced(LADDER)

    assert estimate == PriceEstimate("economy", 2_000_000, 8_000_000, rows=20, tokens="characters / 4")
