"""What calls cost, against figures worked by hand from what providers publish."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as ListedUsage
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, TieredPrices
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ConfigurationError
from serving.ledger.events import Cost
from serving.ledger.price_list import Listed
from serving.ledger.prices import PriceBook, check_model_names
from serving.ledger.usage import Usage
from serving.price_entry import PriceEntry
from serving.tiers import Tier

LATE = datetime(2026, 11, 20, tzinfo=UTC)
LISTED = PriceBook()

# USD a million tokens: in, read from the cache where the model has such a price, out. They were written down from what
# the providers publish, not from the list that they check. Then pico-USD of 10,000 tokens in, 4,000 of them cached
# where there is a price for it, and 1,000 out: for gpt-4o 6,000 × 2.5 + 4,000 × 1.25 + 1,000 × 10 = 30,000 millionths.
PUBLISHED = (
    ("openai", "gpt-4o", "2.5", "1.25", "10", 30_000_000_000),
    ("openai", "gpt-4o-mini", "0.15", "0.075", "0.6", 1_800_000_000),
    ("openai", "gpt-4.1", "2", "0.5", "8", 22_000_000_000),
    ("openai", "gpt-4.1-mini", "0.4", "0.1", "1.6", 4_400_000_000),
    ("openai", "gpt-4.1-nano", "0.1", "0.025", "0.4", 1_100_000_000),
    ("openai", "o1", "15", "7.5", "60", 180_000_000_000),
    ("openai", "o3", "2", "0.5", "8", 22_000_000_000),
    ("openai", "o3-mini", "1.1", "0.55", "4.4", 13_200_000_000),
    ("openai", "o4-mini", "1.1", "0.275", "4.4", 12_100_000_000),
    ("openai", "gpt-5", "1.25", "0.125", "10", 18_000_000_000),
    ("openai", "gpt-5-mini", "0.25", "0.025", "2", 3_600_000_000),
    ("openai", "gpt-5-nano", "0.05", "0.005", "0.4", 720_000_000),
    ("openai", "gpt-3.5-turbo", "0.5", None, "1.5", 6_500_000_000),
    ("openai", "gpt-4", "30", None, "60", 360_000_000_000),
    ("openai", "gpt-4-turbo", "10", None, "30", 130_000_000_000),
    ("openai", "gpt-5.1", "1.25", "0.125", "10", 18_000_000_000),
    ("openai", "o1-pro", "150", None, "600", 2_100_000_000_000),
    ("anthropic", "claude-opus-4-1", "15", "1.5", "75", 171_000_000_000),
    ("anthropic", "claude-opus-4-0", "15", "1.5", "75", 171_000_000_000),
    ("anthropic", "claude-opus-4-5", "5", "0.5", "25", 57_000_000_000),
    ("anthropic", "claude-sonnet-4-0", "3", "0.3", "15", 34_200_000_000),
    ("anthropic", "claude-sonnet-4-5", "3", "0.3", "15", 34_200_000_000),
    ("anthropic", "claude-3-7-sonnet-latest", "3", "0.3", "15", 34_200_000_000),
    ("anthropic", "claude-3-5-haiku-latest", "0.8", "0.08", "4", 9_120_000_000),
    ("anthropic", "claude-haiku-4-5", "1", "0.1", "5", 11_400_000_000),
    ("anthropic", "claude-3-haiku-20240307", "0.25", "0.03", "1.25", 2_870_000_000),
    ("anthropic", "claude-3-opus-latest", "15", "1.5", "75", 171_000_000_000),
    ("google", "gemini-2.5-pro", "1.25", "0.125", "10", 18_000_000_000),
    ("google", "gemini-2.5-flash", "0.3", "0.03", "2.5", 4_420_000_000),
    ("google", "gemini-2.5-flash-lite", "0.1", "0.01", "0.4", 1_040_000_000),
    ("google", "gemini-2.0-flash", "0.1", "0.025", "0.4", 1_100_000_000),
    ("google", "gemini-2.0-flash-lite", "0.075", None, "0.3", 1_050_000_000),
    ("google", "gemini-1.5-flash", "0.075", None, "0.3", 1_050_000_000),
    ("google", "gemini-1.5-pro", "1.25", None, "5", 17_500_000_000),
    ("mistral", "mistral-large-latest", "2", None, "6", 26_000_000_000),
    ("mistral", "codestral-latest", "0.3", None, "0.9", 3_900_000_000),
    ("groq", "llama-3.3-70b-versatile", "0.59", None, "0.79", 6_690_000_000),
    ("groq", "llama-3.1-8b-instant", "0.05", None, "0.08", 580_000_000),
    ("x-ai", "grok-3", "3", "0.75", "15", 36_000_000_000),
    ("x-ai", "grok-3-mini", "0.3", "0.075", "0.5", 2_600_000_000),
    ("x-ai", "grok-4", "3", "0.75", "15", 36_000_000_000),
    ("cohere", "command-r", "0.15", None, "0.6", 2_100_000_000),
    ("cohere", "command-r-plus", "2.5", None, "10", 35_000_000_000),
    ("cohere", "command-a", "2.5", None, "10", 35_000_000_000),
    ("cohere", "command-r7b", "0.0375", None, "0.15", 525_000_000),
)  # fmt: skip


@pytest.mark.parametrize(("provider", "model", "into", "cached", "out", "pico_usd"), PUBLISHED)
def test_a_call_costs_what_its_provider_publishes(
    provider: str, model: str, into: str, cached: str | None, out: str, pico_usd: int
) -> None:
    read = None if cached is None else 4_000
    usage = Usage(input_tokens=10_000, cached_input_tokens=read, output_tokens=1_000, reasoning_tokens=600)
    cost = LISTED.cost(model, usage, LATE, provider=provider)
    assert cost is not None
    assert cost.pico_usd == pico_usd
    assert cost.source.startswith("genai-prices ")
    by_hand = (10_000 - (read or 0)) * Decimal(into) + (read or 0) * Decimal(cached or 0) + 1_000 * Decimal(out)
    assert by_hand * 10**6 == pico_usd  # no slip in the table


LONG = (
    # 300,000 in and 1,000 out, all at the price beyond 200,000: 6 and 22.5; 2.5 and 15.
    ("anthropic", "claude-sonnet-4-5", 1_822_500_000_000),
    ("google", "gemini-2.5-pro", 765_000_000_000),
    ("google", "gemini-1.5-pro", 760_000_000_000),  # beyond 128,000: 2.5 and 10
)


@pytest.mark.parametrize(("provider", "model", "pico_usd"), LONG)
def test_a_long_context_costs_the_price_of_long_contexts(provider: str, model: str, pico_usd: int) -> None:
    cost = LISTED.cost(model, Usage(input_tokens=300_000, output_tokens=1_000), LATE, provider=provider)
    assert cost is not None
    assert cost.pico_usd == pico_usd


# Half of the standard price: 10,000 in and 1,000 out.
BATCHES = (
    ("openai", "gpt-4o", 17_500_000_000), ("openai", "gpt-4.1", 14_000_000_000), ("openai", "gpt-5", 11_250_000_000),
    ("openai", "o4-mini", 7_700_000_000), ("anthropic", "claude-opus-4-5", 37_500_000_000),
    ("anthropic", "claude-sonnet-4-5", 22_500_000_000), ("anthropic", "claude-haiku-4-5", 7_500_000_000),
    ("google", "gemini-2.5-pro", 11_250_000_000), ("google", "gemini-2.5-flash", 2_750_000_000),
)  # fmt: skip


@pytest.mark.parametrize(("provider", "model", "pico_usd"), BATCHES)
def test_a_batch_costs_its_own_price(provider: str, model: str, pico_usd: int) -> None:
    usage = Usage(input_tokens=10_000, output_tokens=1_000)
    cost = LISTED.cost(model, usage, LATE, provider=provider, processing="batch")
    assert cost is not None
    assert cost.pico_usd == pico_usd


def test_a_batch_of_a_model_without_a_price_for_batches_is_unknown_and_not_the_standard_price() -> None:
    usage = Usage(input_tokens=10_000, output_tokens=1_000)
    assert LISTED.cost("gemini-2.0-flash", usage, LATE, provider="google") is not None
    assert LISTED.cost("gemini-2.0-flash", usage, LATE, provider="google", processing="batch") is None


def test_cache_writes_cost_more_and_more_so_for_an_hour() -> None:
    """claude-haiku-4-5: 1 in, 1.25 written for five minutes, 2 for an hour, 5 out:
    4,000 × 1 + 2,000 × 1.25 + 4,000 × 2 + 1,000 × 5 = 19,500 millionths."""
    usage = Usage(input_tokens=10_000, cache_write_tokens=6_000, cache_write_1h_tokens=4_000, output_tokens=1_000)
    assert LISTED.cost("claude-haiku-4-5", usage, LATE) == Cost(
        pico_usd=19_500_000_000,
        source=LISTED.cost("gpt-4o", usage, LATE).source,  # type: ignore[union-attr]
    )


def test_the_price_is_that_of_the_day() -> None:
    """o3 cost 10 and 40 until it became 2 and 8 on 10 June 2025."""
    usage = Usage(input_tokens=1_000, output_tokens=1_000)
    before = LISTED.cost("o3", usage, datetime(2025, 6, 1, tzinfo=UTC))
    after = LISTED.cost("o3", usage, LATE)
    assert before is not None
    assert after is not None
    assert (before.pico_usd, after.pico_usd) == (50_000_000_000, 10_000_000_000)
    assert after.dated == "2025-06-10"


@pytest.mark.parametrize("model", ["my-own-model", "claude-haiku", "", "x" * 300, "gpt-4o\x00"])
def test_a_name_that_no_list_has_costs_something_unknown(model: str) -> None:
    assert LISTED.cost(model, Usage(input_tokens=1, output_tokens=1), LATE) is None


def test_unknown_usage_costs_something_unknown() -> None:
    assert LISTED.cost("gpt-4o", None, LATE) is None
    assert LISTED.cost("gpt-4o", Usage(output_tokens=5), LATE) is None


def test_an_answer_whose_tokens_were_not_told_costs_something_unknown_and_an_embedding_has_none() -> None:
    assert LISTED.cost("gpt-4o", Usage(input_tokens=10), LATE) is None
    assert PriceBook([entry()]).cost("mine", Usage(input_tokens=10), LATE) is None
    embedded = LISTED.cost("text-embedding-3-small", Usage(input_tokens=1_000), LATE, provider="openai")
    assert embedded is not None
    assert embedded.pico_usd == 20_000_000  # .02 a million


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gpt-4o-realtime-preview", "gpt-4o"])
def test_tokens_that_cannot_be_told_apart_cost_something_unknown_or_known_and_never_fail(model: str) -> None:
    usage = Usage(input_tokens=10, cached_input_tokens=5, input_audio_tokens=5, output_tokens=1)
    cost = LISTED.cost(model, usage, LATE)
    assert cost is None or cost.pico_usd > 0


def test_audio_without_a_price_for_audio_costs_something_unknown() -> None:
    assert LISTED.cost("gpt-4o", Usage(input_tokens=10, input_audio_tokens=5, output_tokens=1), LATE) is None


def entry(**changes: object) -> PriceEntry:
    return PriceEntry.model_validate({"model": "Mine", "usd_per_mtok_in": 1, "usd_per_mtok_out": "2.5"} | changes)


def test_a_price_of_the_settings_wins_and_names_its_source() -> None:
    book = PriceBook([entry(model="gpt-4o", usd_per_mtok_cached_in=0.25)])
    usage = Usage(input_tokens=100, cached_input_tokens=40, output_tokens=10)
    assert book.cost("GPT-4o", usage, LATE, provider="openai") == Cost(
        pico_usd=60 * 1_000_000 + 40 * 250_000 + 10 * 2_500_000, source="tierwise.toml"
    )
    assert book.cost("gpt-4o", usage, LATE, processing="batch") is None


def test_a_price_of_one_provider_is_not_that_of_another() -> None:
    book = PriceBook([entry(provider="here"), entry(provider="there", usd_per_mtok_in=9)])
    usage = Usage(input_tokens=10, output_tokens=0)
    costs = [book.cost("mine", usage, LATE, provider=provider) for provider in ("here", "there", None)]
    assert [None if cost is None else cost.pico_usd for cost in costs] == [10_000_000, 90_000_000, None]


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_parts_of_a_call_add_up_to_its_cost(fresh: int, read: int, written: int, out: int) -> None:
    if fresh + read + written > 10**9:
        return
    book = PriceBook([entry(usd_per_mtok_cached_in="0.1", usd_per_mtok_cache_write="1.25")])

    def cost(**tokens: int) -> int:
        found = book.cost("mine", Usage(**tokens), LATE)
        assert found is not None
        return found.pico_usd

    whole = cost(input_tokens=fresh + read + written, cached_input_tokens=read, cache_write_tokens=written,
                 output_tokens=out)  # fmt: skip
    assert whole == sum(
        (cost(input_tokens=fresh, output_tokens=0), cost(input_tokens=read, cached_input_tokens=read, output_tokens=0),
         cost(input_tokens=written, cache_write_tokens=written, output_tokens=0),
         cost(input_tokens=0, output_tokens=out))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"usd_per_mtok_out": None}, "has no price"),
        ({"usd_per_mtok_batch_in": 1}, "has one price for batches"),
        ({"usd_per_mtok_in": -1}, "must be ≥ 0"),
        ({"usd_per_mtok": 1}, "Extra inputs"),
    ],
)
def test_a_price_that_cannot_be_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        entry(**changes)


def test_a_family_of_models_is_refused_with_the_names_of_its_members() -> None:
    check_model_names(["gpt-4o", "claude-haiku-4-5", "my-own-model", "small"], LISTED)
    with pytest.raises(ConfigurationError, match=r"'claude-haiku' is a family of models.*claude-haiku-4-5"):
        check_model_names(["gpt-4o", "claude-haiku"], LISTED)
    check_model_names(["claude-haiku"], PriceBook([entry(model="claude-haiku")]))


@pytest.mark.parametrize("model", ["sonar-pro", "gemini-2.5-flash-image", "gpt-image-1"])
def test_a_price_by_what_usage_does_not_count_is_unknown(model: str) -> None:
    assert PriceBook().cost(model, Usage(input_tokens=10, output_tokens=10), LATE) is None


@pytest.mark.parametrize(
    "model", ["openai/gpt-4o", "azure/gpt-4o", "anthropic/claude-haiku-4-5", "text-embedding-3-small"]
)
def test_a_name_with_its_provider_or_of_one_price_needs_no_provider(model: str) -> None:
    cost = PriceBook().cost(model, Usage(input_tokens=1_000_000, output_tokens=0), LATE)
    usd = {"openai/gpt-4o": "2.5", "azure/gpt-4o": "2.5", "anthropic/claude-haiku-4-5": "1"}.get(model, "0.02")
    assert cost is not None
    assert cost.pico_usd == Decimal(usd) * 10**12


def test_a_price_of_batches_has_its_own_date() -> None:
    usage, at = Usage(input_tokens=1000, output_tokens=10), datetime(2026, 11, 1, tzinfo=UTC)
    cost = PriceBook().cost("claude-haiku-4-5", usage, at, processing="batch")
    assert cost is not None
    assert cost.dated == "2026-10-14"


# 10,000 in and 1,000 out: OpenAI's flex is half the standard price, its priority 1.75 or 2 times.
SERVICE_TIERS = (
    ("o3", "flex", 14_000_000_000), ("gpt-5", "flex", 11_250_000_000), ("gpt-5", "default", 22_500_000_000),
    ("gpt-4.1", "priority", 49_000_000_000), ("gpt-5", "priority", 45_000_000_000),
)  # fmt: skip


@pytest.mark.parametrize(("model", "tier", "pico_usd"), SERVICE_TIERS)
def test_a_service_tier_has_its_own_price_and_the_event_says_which(model: str, tier: str, pico_usd: int) -> None:
    cost = LISTED.cost(model, Usage(input_tokens=10_000, output_tokens=1_000), LATE, processing=tier)
    assert cost is not None
    assert cost.pico_usd == pico_usd
    assert cost.source.endswith(f", {tier}")


def test_a_service_tier_without_a_price_is_unknown_and_not_the_standard_price() -> None:
    usage = Usage(input_tokens=10_000, output_tokens=1_000)
    assert LISTED.cost("gpt-4", usage, LATE, processing="flex") is None
    assert LISTED.cost("claude-haiku-4-5", usage, LATE, processing="priority") is None
    assert PriceBook([entry()]).cost("mine", usage, LATE, processing="flex") is None


def shapes(model: ModelInfo, rng: random.Random) -> Iterator[Usage]:
    """Usage at random, and on both sides of where a long context begins."""
    prices = vars(model.get_prices(LATE)).values()
    starts = {tier.start for price in prices if isinstance(price, TieredPrices) for tier in price.tiers}
    for total in (rng.randrange(1_000), rng.randrange(1_000_000), *(start + i for start in starts for i in (0, 1))):
        read = rng.choice([0, rng.randint(0, total)])
        written = rng.choice([0, rng.randint(0, total - read)])
        yield Usage(
            input_tokens=total, cached_input_tokens=read, cache_write_tokens=written,
            cache_write_1h_tokens=rng.choice([0, rng.randint(0, written)]), output_tokens=rng.randrange(100_000),
        )  # fmt: skip


def test_every_model_costs_what_the_arithmetic_of_the_list_says() -> None:
    rng = random.Random(0)
    compared = long = 0
    for provider, model in ((of, one) for of in get_snapshot().providers for one in of.models):
        for usage in shapes(model, rng):
            ours = Listed(provider, model).cost(usage, LATE, None)
            if ours is None:
                continue
            listed = ListedUsage(
                input_tokens=usage.input_tokens, cache_read_tokens=usage.cached_input_tokens or None,
                cache_write_tokens=usage.cache_write_tokens or None,
                cache_write_1h_tokens=usage.cache_write_1h_tokens or None, output_tokens=usage.output_tokens,
            )  # fmt: skip
            theirs = model.calc_price(listed, provider, genai_request_timestamp=LATE).total_price
            assert ours.pico_usd == int((theirs * 10**12).to_integral_value()), (provider.id, model.id, usage)
            compared, long = compared + 1, long + (usage.input_tokens in (200_001, 128_001, 272_001))
    assert compared > 3_000
    assert long > 10


def test_a_model_that_no_list_has_costs_what_its_tier_does() -> None:
    tiers = (Tier(name="economy", models=("in-house-7b",), input_pico_usd=2, output_pico_usd=3),)
    prices = PriceBook(ladder=lambda: tiers)
    assert prices.cost("In-House-7b", Usage(input_tokens=10, output_tokens=4), LATE) == Cost(
        pico_usd=32, source="ladder"
    )
    assert prices.cost("in-house-7b", Usage(input_tokens=10), LATE) is None
    assert prices.cost("in-house-7b", Usage(input_tokens=10, output_tokens=4), LATE, processing="batch") is None
    assert prices.cost("another", Usage(input_tokens=10, output_tokens=4), LATE) is None
