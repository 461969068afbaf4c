"""Conversations that keep their tier for the provider's cache, and leave it where another gains more."""

import random
from pathlib import Path

import pytest

from serving.attribution import NOBODY, Attribution, Pin
from serving.chat import Conversation, read_conversation
from serving.classifier.bundle import Bundle
from serving.errors import ConfigurationError
from serving.ledger.cached_price import UNKNOWN, cached_share
from serving.ledger.prices import PriceBook
from serving.price_entry import PriceEntry
from serving.routing.policy import Policy
from serving.routing.prefix import prefixes, sent_share
from serving.routing.rules import Cached, Choice, Rules
from serving.routing.sessions import Sessions
from serving.settings import read_settings
from tests.quality.conversations import SCENES, play
from tests.test_routing import router

NAMES = ("low", "middle", "top")
BEST_LOW = (0.7, 0.6, 0.5)
BEST_TOP = (0.5, 0.6, 0.7)
SESSION = Attribution(team="search", session_id="s-1")
FIRST = Cached(None, "a", (0.0, 0.0, 0.0))


def rules(folder: Path, **options: object) -> Rules:
    return Rules(sessions=Sessions(folder / "sessions.db", ttl_s=3600, most=1000), **options)  # type: ignore[arg-type]


def choose(
    over: Rules,
    scores: tuple[float, ...],
    cached: Cached,
    who: Attribution = SESSION,
    eligible: tuple[bool, ...] = (True, True, True),
) -> Choice:
    return over.choose(NAMES, scores, eligible, who, cached=cached)


def worth(low: float, before: str | None = "a") -> Cached:
    return Cached(before, "b", (low, 2 * low, 20 * low))


def test_a_session_is_left_for_a_tier_that_gains_more_than_the_cache_is_worth(tmp_path: Path) -> None:
    over = rules(tmp_path)
    assert choose(over, BEST_LOW, FIRST) == Choice(0, 1.0, None)
    assert choose(over, BEST_TOP, worth(0.25)) == Choice(0, 1.0, "sticky")  # .5 + .25 against .7
    assert choose(over, BEST_TOP, worth(0.15)) == Choice(2, 1.0, "switched")  # .65 against .7
    assert choose(over, BEST_LOW, worth(0.02)) == Choice(2, 1.0, "sticky")  # .5 + .4 against .7
    assert choose(over, BEST_LOW, worth(0.005)) == Choice(0, 1.0, "switched")


def test_without_a_known_worth_a_session_keeps_its_tier_whatever_is_gained(tmp_path: Path) -> None:
    over = rules(tmp_path)
    choose(over, BEST_LOW, FIRST)
    assert choose(over, (0.0, 0.0, 1.0), Cached("a", "b", None)).rule == "sticky"


def test_a_conversation_without_a_session_is_known_by_what_was_sent_before(tmp_path: Path) -> None:
    over = rules(tmp_path, by_prefix=True)
    who = Attribution(team="search")
    choose(over, BEST_LOW, Cached(None, "a", None), who)
    assert choose(over, BEST_TOP, Cached("a", "b", None), who) == Choice(0, 1.0, "sticky")
    assert choose(over, BEST_TOP, Cached("b", "c", None), who) == Choice(0, 1.0, "sticky")
    assert choose(over, BEST_TOP, Cached("a", "b2", None), who) == Choice(0, 1.0, "sticky")  # the turn was edited
    assert choose(over, BEST_TOP, Cached(None, "a", None), who) == Choice(2, 1.0, None)  # begins alike, and anew
    assert choose(over, BEST_TOP, Cached("examples", "d", None), who) == Choice(2, 1.0, None)  # nobody sent those
    assert choose(over, BEST_TOP, Cached("a", "b", None), Attribution(team="sales")).rule is None


def test_a_conversation_is_not_known_by_what_was_sent_unless_that_is_wanted(tmp_path: Path) -> None:
    over = rules(tmp_path)
    choose(over, BEST_LOW, Cached(None, "a", None), NOBODY)
    assert choose(over, BEST_TOP, Cached("a", "b", None), NOBODY) == Choice(2, 1.0, None)


def test_pins_eligibility_and_the_cap_stand_above_a_switch(tmp_path: Path) -> None:
    over = rules(tmp_path, pins=[Pin(task="faq", tier="middle")], max_top_share=0.01, top_burst=1)
    choose(over, BEST_LOW, FIRST)
    pinned = Attribution(team="search", session_id="s-1", task="faq")
    assert choose(over, BEST_TOP, worth(0.0), pinned).rule == "pinned"
    assert choose(over, BEST_TOP, worth(0.0), eligible=(True, True, False)) == Choice(1, 1.0, "switched")
    assert choose(over, BEST_TOP, worth(0.0)) == Choice(2, 1.0, "switched")  # the one of the burst
    assert choose(over, BEST_TOP, worth(0.0)) == Choice(1, 1.0, "capped")
    assert choose(over, (0.5, 0.4, 0.7), worth(0.0)) == Choice(0, 1.0, "switched")


def test_around_a_switch_is_explored_and_what_stays_has_its_first_propensity(tmp_path: Path) -> None:
    over = rules(tmp_path, exploration=0.3, generator=random.Random(3))
    seen = set()
    for number in range(300):
        who = Attribution(session_id=str(number))
        first = choose(over, BEST_LOW, FIRST, who)
        assert first.propensity == pytest.approx(0.8 if first.tier == 0 else 0.1)
        second = choose(over, BEST_TOP, worth(0.0), who)
        if first.tier == 2:
            assert second == Choice(2, first.propensity, "sticky")
        else:
            assert second.propensity == pytest.approx(0.8 if second.tier == 2 else 0.1)
            assert second.rule == ("switched" if second.tier == 2 else "exploration")
        seen.add((first.tier, second.tier))
    assert seen == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 2)}


SYSTEM = {"role": "system", "content": "Rules of the house. " * 400}
ONE, TWO = {"role": "user", "content": "Is it due?"}, {"role": "user", "content": "And paid?"}
SAID = {"role": "assistant", "content": "It is."}


def talk(*messages: dict[str, object], **options: object) -> Conversation:
    return read_conversation(messages=list(messages), **options)


def test_what_came_before_an_answer_is_what_was_sent_for_it() -> None:
    first, second = talk(SYSTEM, ONE), talk(SYSTEM, ONE, SAID, TWO)
    assert prefixes(first).before is None
    assert prefixes(second).before == prefixes(first).so_far
    assert (first.total_bytes, second.total_bytes, sent_share(first)) == (8010, 8025, 0)
    assert sent_share(second) == 8010 / 8025
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    result = {"role": "tool", "content": "paid", "tool_call_id": "1"}
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    third = talk(SYSTEM, ONE, SAID, TWO, call, result, tools=tools)
    assert prefixes(third).before == prefixes(talk(SYSTEM, ONE, SAID, TWO, tools=tools)).so_far
    assert prefixes(third).before != prefixes(second).so_far  # other tools are another prefix
    others = [talk(ONE, TWO), talk(TWO, ONE), talk(ONE), talk(ONE | {"name": "ann"}), talk(SAID, ONE)]
    assert len({prefixes(other).so_far for other in others}) == 5
    assert (prefixes(others[-1]).before, sent_share(others[-1])) == (None, 0)  # a greeting answers nothing


def test_the_router_weighs_the_cache_by_price_and_what_was_sent(bundle: Bundle) -> None:
    asked: list[tuple[float, ...] | None] = []

    class Watched(Rules):
        def choose(self, *args: object, **options: object) -> Choice:
            asked.append(options["cached"].worth)  # type: ignore[attr-defined]
            return super().choose(*args, **options)  # type: ignore[arg-type]

    over, deciding = Watched(cached_price=lambda _: 0.25), router(bundle)
    second = talk(SYSTEM, ONE, SAID, TWO)
    deciding.decide(second, Policy("value", 0.01), rules=over)
    (found,) = asked
    assert found is not None
    tokens = second.total_chars / 4 * 8010 / 8025
    expected = [tokens * tier.input_pico_usd / 1e12 * 0.75 / 0.01 for tier in deciding.tiers if tier.input_pico_usd]
    assert found == pytest.approx(expected, rel=0.01)
    deciding.decide(talk(ONE, SAID, TWO), Policy("value", 0.01), rules=over)
    assert asked[-1] == [0, 0, 0]  # so little is never cached
    deciding.decide(second, Policy("share", 0.5), rules=over)
    assert asked[-1] is None  # where costs do not count, the cache does not
    deciding.decide(second, Policy("value", 0.01), rules=Watched())
    assert asked[-1] is None


def test_a_conversation_that_comes_back_with_its_answer_keeps_its_tier(bundle: Bundle, tmp_path: Path) -> None:
    over, deciding = rules(tmp_path, by_prefix=True), router(bundle)
    first = deciding.decide(talk(SYSTEM, ONE), Policy("value", 1e-6), rules=over)
    assert first.tier == "economy"
    dear = Policy("value", 1e6)
    again = deciding.decide(talk(SYSTEM, ONE, SAID, TWO), dear, rules=over)
    assert (again.tier, again.reason) == ("economy", "sticky")
    assert deciding.decide(talk(SYSTEM, TWO, SAID, TWO), dear, rules=over).reason != "sticky"
    switching = rules(tmp_path, by_prefix=True, cached_price=lambda _: 0.1)
    left = deciding.decide(talk(SYSTEM, ONE, SAID, TWO), dear, rules=switching)
    assert (left.tier != "economy", left.reason) == (True, "switched")
    kept = deciding.decide(talk(SYSTEM, ONE, SAID, TWO, SAID, ONE), dear, rules=switching)
    assert (kept.tier, kept.reason) == (left.tier, "sticky")


def test_a_cached_token_costs_what_prices_say_and_half_where_they_say_nothing() -> None:
    own = PriceEntry.model_validate(
        {"model": "mine", "usd_per_mtok_in": 2, "usd_per_mtok_out": 8, "usd_per_mtok_cached_in": 0.5}
    )
    prices = PriceBook([own])
    assert cached_share(prices, "mine") == 0.25
    assert cached_share(prices, "gpt-4.1") == 0.25
    assert cached_share(prices, "nobody's model") == UNKNOWN == 0.5
    free = PriceEntry.model_validate({"model": "free", "usd_per_mtok_in": 0, "usd_per_mtok_out": 0})
    assert cached_share(PriceBook([free]), "free") == UNKNOWN


@pytest.mark.parametrize("name", ["session_by_prefix", "session_switch"])
def test_what_needs_sessions_is_refused_without_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tierwise.toml").write_text(f"{name} = true", "utf-8")
    with pytest.raises(ConfigurationError, match="needs session_ttl_s"):
        read_settings()
    (tmp_path / "tierwise.toml").write_text(f"{name} = true\nsession_ttl_s = 600", "utf-8")
    assert getattr(read_settings(), name)


def test_on_made_up_conversations_switching_is_worth_at_least_as_much_as_either_extreme() -> None:
    for scene in (scene for scene in SCENES if scene.cache == "own"):
        anew, sticky, switching = (
            play(scene, way, n=100).net_usd for way in ("each turn anew", "always sticky", "switching")
        )
        assert switching >= max(anew, sticky) - 1e-9
