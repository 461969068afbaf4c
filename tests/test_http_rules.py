"""What a client sees of the operator's rules: pins, sessions, the cap, and tiers that cannot take a request."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from serving.attribution import Pin
from serving.classifier.bundle import Bundle
from serving.http.app import build_app
from serving.http.metrics import Metrics
from serving.routing.policy import DEFAULT_POLICY
from serving.routing.promoted import PromotedRouter
from serving.routing.rules import NO_RULES, Rules
from serving.routing.sessions import Sessions
from serving.settings import Settings
from tests.application import Client, refused
from tests.factories import TIERS, fake_home, put_in_service
from tests.test_http import LONG, SECRET, SETTINGS, sample, user

SEES = user([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}])


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    made = Metrics()
    yield made
    for collector in vars(made).values():  # a second Metrics in this process could not register otherwise
        REGISTRY.unregister(collector)


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[PromotedRouter]:
    """A router whose economy tier sees nothing, and whose two lower tiers have little room."""
    tiers = (
        TIERS[0].model_copy(update={"context_window": 1000, "vision": False}),
        TIERS[1].model_copy(update={"context_window": 4000}),
        TIERS[2].model_copy(update={"context_window": 20_000, "json_mode": False}),
    )
    with pytest.MonkeyPatch.context() as patch:
        home = fake_home(tmp_path_factory.mktemp("home"), bundle, patch)
        put_in_service(home, bundle, "7")
        router = PromotedRouter(home, tiers=tiers)
        router.refresh()
        yield router


def client(promoted: PromotedRouter, metrics: Metrics, rules: Rules, settings: Settings = SETTINGS) -> Client:
    return Client(build_app(settings, promoted, DEFAULT_POLICY, metrics, rules), promoted)


def sticky(path: Path, metrics: Metrics) -> Rules:
    return Rules(sessions=Sessions(path, ttl_s=60, most=1000, on_failure=metrics.session_failures.inc))


def decided(client: Client, **body: object) -> tuple[str, str, float]:
    decision = client.post("/route", {"prompt": LONG, **body}).json()
    return decision["tier"], decision["reason"], decision["propensity"]


def test_a_pin_is_followed_by_the_metadata_of_a_request(promoted: PromotedRouter, metrics: Metrics) -> None:
    one = client(promoted, metrics, Rules(pins=[Pin(team="search", task="faq", tier="economy")]))
    pinned = {"team": "search", "task": "faq", "trace": 7}
    assert decided(one, policy="value:100", metadata=pinned) == ("economy", "pinned", 1.0)
    assert decided(one, policy="value:100", metadata={"team": "search"}) == ("premium", "policy", 1.0)


def test_a_session_keeps_its_tier_over_workers_and_in_batches(
    promoted: PromotedRouter, metrics: Metrics, tmp_path: Path
) -> None:
    path = tmp_path / "sessions.db"
    one, other = (client(promoted, metrics, sticky(path, metrics)) for _ in range(2))
    session = {"metadata": {"session_id": "s-1"}}
    assert decided(one, policy="value:100", **session) == ("premium", "policy", 1.0)
    assert decided(other, policy="value:0.0000001", **session) == ("premium", "sticky", 1.0)
    batch = {"requests": [{"prompt": "hello", **session}, {"prompt": "hello", "policy": "value:0.0000001"}]}
    data = other.post("/route/batch", batch).json()["data"]
    assert [(item["tier"], item["reason"]) for item in data] == [("premium", "sticky"), ("economy", "policy")]


def test_sessions_that_cannot_be_kept_are_counted_and_cost_no_decision(
    promoted: PromotedRouter, metrics: Metrics, tmp_path: Path
) -> None:
    (tmp_path / "no folder").write_text("")
    one = client(promoted, metrics, sticky(tmp_path / "no folder" / "sessions.db", metrics))
    before = sample(one.metrics(), "tierwise_session_failures_total")
    assert decided(one, policy="value:100", metadata={"session_id": SECRET}) == ("premium", "policy", 1.0)
    after = one.metrics()
    assert sample(after, "tierwise_session_failures_total") - before == 2  # not found, not kept
    assert SECRET not in after


def test_the_top_share_holds_under_any_policy(promoted: PromotedRouter, metrics: Metrics) -> None:
    one = client(promoted, metrics, Rules(max_top_share=0.0))
    for policy in ("value:100", "share:1"):
        assert decided(one, policy=policy) == ("standard", "capped", 1.0)


def test_an_explored_decision_says_so_and_how_probable_it_was(promoted: PromotedRouter, metrics: Metrics) -> None:
    one = client(promoted, metrics, Rules(exploration=0.6))
    found = {decided(one, policy="value:0.0000001") for _ in range(60)}
    assert {(tier, reason) for tier, reason, _ in found} == {
        ("economy", "policy"), ("standard", "exploration"), ("premium", "exploration")
    }  # fmt: skip
    assert {tier: propensity for tier, _, propensity in found} == pytest.approx(
        {"economy": 0.6, "standard": 0.2, "premium": 0.2}
    )


def test_a_tier_that_cannot_take_a_request_is_passed_over(promoted: PromotedRouter, metrics: Metrics) -> None:
    one = client(promoted, metrics, Rules())
    body = {"messages": SEES, "policy": "value:0.0000001"}
    assert one.post("/route", body).json()["reason"] == "eligibility"
    assert one.post("/route", body).json()["tier"] == "standard"
    assert decided(one, policy="value:0.0000001", max_tokens=3900)[:2] == ("premium", "eligibility")


def test_a_client_is_told_why_no_tier_can_take_its_request(promoted: PromotedRouter, metrics: Metrics) -> None:
    one = client(promoted, metrics, Rules())
    body = {"messages": SEES, "response_format": {"type": "json_object"}, "max_tokens": 5000}
    error = refused(one.post("/route", body))
    assert (error["param"], error["type"]) == ("request", "invalid_request_error")
    assert error["message"] == (
        "request: no tier can take it: it needs vision and JSON mode and at least 5,003 tokens of context; "
        "economy lacks vision and room, with 1,000 tokens; standard lacks room, with 4,000 tokens; "
        "premium lacks JSON mode"
    )
    (item,) = one.post("/route/batch", {"requests": [body]}).json()["data"]
    assert item["error"]["param"] == "requests[0].request"


def test_reasons_are_a_closed_set_of_labels(promoted: PromotedRouter, metrics: Metrics) -> None:
    one = client(promoted, metrics, Rules(pins=[Pin(team="search", tier="economy")]))
    before = one.metrics()
    one.post("/route", {"prompt": LONG, "metadata": {"team": "search", "task": SECRET, "session_id": SECRET}})
    after = one.metrics()
    series = 'tierwise_decisions_total{reason="pinned",tier="economy"}'
    assert sample(after, series) - sample(before, series) == 1
    assert SECRET not in after


def test_a_decision_is_explained_when_asked_for_and_only_then(promoted: PromotedRouter, metrics: Metrics) -> None:
    one = client(promoted, metrics, NO_RULES)
    assert "explanation" not in one.post("/route", {"prompt": LONG, "explain": False}).json()
    explained = one.post("/route", {"prompt": LONG, "explain": True}).json()
    assert [score["tier"] for score in explained["explanation"]["scores"]] == ["economy", "standard", "premium"]
    assert len(explained["explanation"]["nearest"]) == 5


def test_a_batch_is_not_explained(promoted: PromotedRouter, metrics: Metrics) -> None:
    batch = {"requests": [{"prompt": LONG, "explain": True}, {"prompt": LONG, "explain": False}]}
    asked, not_asked = client(promoted, metrics, NO_RULES).post("/route/batch", batch).json()["data"]
    assert asked["error"]["param"] == "requests[0].explain"
    assert not_asked["object"] == "routing.decision"


def test_what_explain_must_be_is_said(promoted: PromotedRouter, metrics: Metrics) -> None:
    error = refused(client(promoted, metrics, NO_RULES).post("/route", {"prompt": LONG, "explain": "yes"}))
    assert (error["param"], error["message"]) == ("explain", "explain: must be true or false, not str")


def test_an_operator_can_switch_explanations_off(promoted: PromotedRouter, metrics: Metrics) -> None:
    one = client(promoted, metrics, NO_RULES, Settings(explain=False))
    assert refused(one.post("/route", {"prompt": LONG, "explain": True}))["param"] == "explain"
    assert one.post("/route", {"prompt": LONG, "explain": False}).status_code == 200


def test_whoever_is_not_on_this_machine_is_told_why_only_if_an_operator_says_so() -> None:
    assert Settings().explains
    assert not Settings(host="0.0.0.0").explains
    assert Settings(host="0.0.0.0", explain=True).explains


def test_the_scores_of_a_capped_decision_have_the_surcharge_taken_off(
    promoted: PromotedRouter, metrics: Metrics
) -> None:
    rules = Rules(max_top_share=0.01, top_burst=1)
    one = client(promoted, metrics, rules)
    for _ in range(3):
        answer = one.post("/route", {"prompt": LONG, "policy": "value:100", "explain": True}).json()
    assert answer["reason"] == "capped"
    best = max(answer["explanation"]["scores"], key=lambda score: score["score"])
    assert best["tier"] == answer["tier"]
