"""What is kept of a decision, what is not, and how it goes."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.classifier.bundle import Bundle
from serving.classifier.features import FEATURE_NAMES
from serving.errors import ConfigurationError
from serving.ledger.feedback import Feedback
from serving.ledger.request_log import Forgettable
from serving.ledger.sqlite.request_log import EVENT_NAMED
from serving.ledger.sqlite.store import SqliteLedger
from serving.redaction import load_redaction
from serving.settings import Settings
from tests.application import Client, application, refused
from tests.ledger_events import event

SECRET = "my secret plan for the harbour"
WHO = {"team": "support", "feature": "summary", "task": "t", "session_id": "s-1"}


def without_the_harbour(text: str) -> str:
    """A redaction."""
    return text.replace("harbour", "[place]")


def failing(text: str) -> str:
    """A redaction with a defect whose message would tell the text."""
    raise ValueError(text)


@pytest.fixture
def client(request: pytest.FixtureRequest, tmp_path: Path, bundle: Bundle) -> Iterator[Client]:
    settings = Settings.model_validate({"home": tmp_path, **getattr(request, "param", {})})
    with application(tmp_path / "app", bundle, settings) as client:
        client.post("/ledger/events", {"model": "gpt-4o", "key": "first"})  # opens the ledger
        yield client


def route(client: Client, **changes: object) -> str:
    payload = {"prompt": SECRET, "metadata": WHO, "user": "ann", "request_id": "own-1"} | changes
    answer = client.post("/route", payload)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def give(client: Client, id_: str, **said: object) -> Any:
    answer = client.post("/v1/feedback", {"id": id_, **said})
    assert answer.status_code == 200, answer.text
    return answer.json()["matched"]


def kept(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        return ledger.execute(query).fetchall()


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("ledger.db*"))


def logged(folder: Path) -> Any:
    ledger = SqliteLedger(folder / "ledger.db")
    found = list(ledger.logged())
    ledger.close()
    return found


def test_a_decision_is_kept_with_what_it_saw_and_without_text(client: Client, tmp_path: Path, bundle: Bundle) -> None:
    id_ = route(client)
    give(client, id_, acceptable=True)  # written after it
    ((decision, calls, (feedback,)),) = logged(tmp_path)
    assert (decision.id, decision.user, decision.request_id, decision.team) == (id_, "ann", "own-1", "support")
    assert (decision.policy, decision.propensity) == ("quality:0.95", 1.0)
    assert set(decision.probabilities) == {tier.name for tier in bundle.tiers}
    assert len(decision.embedding) == bundle.manifest.encoder.dimension
    assert len(np.frombuffer(decision.features, np.float32)) == len(FEATURE_NAMES)
    assert (decision.request, calls, feedback.acceptable) == (None, (), True)
    assert SECRET.encode() not in everything(tmp_path)


def test_a_decision_is_written_though_nothing_comes_after_it(client: Client, tmp_path: Path) -> None:
    id_ = route(client)
    deadline = time.monotonic() + 10
    while not kept(tmp_path, "SELECT id FROM decisions") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kept(tmp_path, "SELECT id FROM decisions") == [(id_,)]


@pytest.mark.parametrize("client", [{"store_text": True}], indirect=True)
def test_text_is_kept_where_it_is_wanted(client: Client, tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "plan"}}
    give(client, route(client, tools=[tool]), kind="edit", comment="too long")
    ((decision, _, (feedback,)),) = logged(tmp_path)
    assert json.loads(decision.request) == {"prompt": SECRET, "tools": [tool]}
    assert (feedback.kind, feedback.comment) == ("edit", "too long")


@pytest.mark.parametrize(
    "client", [{"store_text": True, "redact": "tests.test_request_log:without_the_harbour"}], indirect=True
)
def test_text_goes_through_the_redaction_before_it_is_stored(client: Client, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": SECRET}]}]
    id_ = route(client, prompt=None, messages=messages)
    give(client, id_, kind="regenerate", comment="not that harbour")
    ((decision, _, (feedback,)),) = logged(tmp_path)
    assert json.loads(decision.request)["messages"][0]["content"][0]["text"] == "my secret plan for the [place]"
    assert feedback.comment == "not that [place]"
    assert b"harbour" not in everything(tmp_path)


@pytest.mark.parametrize(
    "client", [{"store_text": True, "redact": "tests.test_request_log:without_the_harbour"}], indirect=True
)
def test_text_under_a_name_of_the_form_is_redacted_like_any_other(client: Client, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"role": {"description": SECRET}, "type": {"enum": ["harbour"]}}}
    tool = {"type": "function", "function": {"name": "plan", "parameters": schema}}
    give(client, route(client, tools=[tool], response_format={"type": "text", "role": SECRET}), acceptable=True)
    ((decision, _, _),) = logged(tmp_path)
    assert json.loads(decision.request)["tools"][0]["type"] == "function"
    assert b"harbour" not in everything(tmp_path)


@pytest.mark.parametrize("client", [{"store_text": True, "redact": "tests.test_request_log:failing"}], indirect=True)
def test_what_the_redaction_could_not_see_is_not_stored(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    give(client, route(client), acceptable=False)
    ((decision, _, _),) = logged(tmp_path)
    assert decision.request is None
    assert 'tierwise_request_log_failures_total{cause="redaction"} 1.0' in client.metrics()
    assert "ValueError" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("path", ["nowhere:scrub", "tests.test_request_log:missing", "json", "tests.factories:CONFIG"])
def test_a_redaction_that_is_none_is_refused_at_the_start(path: str) -> None:
    with pytest.raises(ConfigurationError, match="redact: "):
        load_redaction(path)


@pytest.mark.parametrize("client", [{"log_decisions": False}], indirect=True)
def test_the_log_can_be_turned_off(client: Client, tmp_path: Path) -> None:
    assert give(client, route(client), acceptable=True) is None
    assert logged(tmp_path) == []


def test_each_request_of_a_batch_is_kept(client: Client, tmp_path: Path) -> None:
    answer = client.post("/route/batch", {"requests": [{"prompt": "one"}, {"prompt": ""}, {"prompt": "two"}]})
    ids = [item["id"] for item in answer.json()["data"] if "id" in item]
    give(client, ids[-1], acceptable=True)
    assert [decision.id for decision, _, _ in logged(tmp_path)] == ids


def test_feedback_finds_its_answer_by_any_id(client: Client) -> None:
    id_ = route(client)
    call = {"model": "gpt-4o", "decision_id": id_, "completion_id": "chatcmpl-7", "key": "k-7"}
    assert client.post("/ledger/events", call).status_code == 200
    found = [give(client, name, acceptable=True) for name in (id_, "own-1", "chatcmpl-7", "k-7", "nobody's")]
    assert found == ["decision", "decision", "call", "call", None]
    assert 'tierwise_feedback_total{matched="nothing",said="acceptable"} 1.0' in client.metrics()


def test_feedback_before_its_call_was_told_counts_once_it_is(client: Client, tmp_path: Path) -> None:
    id_ = route(client)
    assert give(client, "chatcmpl-8", score=0.2) is None
    client.post("/ledger/events", {"model": "gpt-4o", "decision_id": id_, "completion_id": "chatcmpl-8"})
    give(client, "chatcmpl-8", score=0.9)
    ((_, (call,), feedback),) = logged(tmp_path)
    assert call.completion_id == "chatcmpl-8"
    assert [one.score for one in feedback] == [0.2, 0.9]


def test_feedback_on_a_request_of_several_decisions_is_about_the_last_that_was_answered(
    client: Client, tmp_path: Path
) -> None:
    first, second, third = (route(client, prompt=text) for text in ("one", "two", "three"))
    client.post("/ledger/events", {"model": "gpt-4o", "decision_id": second})
    give(client, "own-1", acceptable=True)
    assert [(one.decision.id, len(one.feedback)) for one in logged(tmp_path)] == [(first, 0), (second, 1), (third, 0)]


def test_feedback_finds_calls_by_their_indexes(client: Client, tmp_path: Path) -> None:
    give(client, "nobody's", acceptable=True)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger:
        plan = ledger.execute(f"EXPLAIN QUERY PLAN {EVENT_NAMED}", {"tenant": "default", "id": "a"}).fetchall()
    assert not [step for *_, step in plan if step.startswith("SCAN")]


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        ({"acceptable": True}, "id"),
        ({"id": "a"}, "body"),
        ({"id": "a", "acceptable": True, "score": 1.0}, "body"),
        ({"id": "a", "acceptable": 1}, "acceptable"),
        ({"id": "a", "score": 1.5}, "score"),
        ({"id": "a", "kind": "like"}, "kind"),
        ({"id": "a" * 257, "acceptable": True}, "id"),
        ({"id": "a", "acceptable": True, "model": "m"}, "model"),
        ({"id": "a", "acceptable": True, "comment": "nul \0"}, "comment"),
    ],
)
def test_feedback_that_cannot_be_read_is_refused_by_its_field(
    client: Client, payload: dict[str, object], where: str
) -> None:
    assert refused(client.post("/v1/feedback", payload))["param"] == where


@pytest.mark.parametrize("field", ["user", "request_id"])
def test_a_name_that_is_too_long_is_refused(client: Client, field: str) -> None:
    error = refused(client.post("/route", {"prompt": "one", field: "x" * 257}))
    assert (error["param"], "at most 256" in str(error["message"])) == (field, True)


@pytest.mark.parametrize(("what", "value"), [("request", "own-1"), ("session", "s-1"), ("user", "ann")])
@pytest.mark.parametrize("client", [{"store_text": True}], indirect=True)
def test_what_is_forgotten_is_gone_from_every_file_and_money_stays(
    client: Client, tmp_path: Path, what: Forgettable, value: str
) -> None:
    id_ = route(client)
    other = route(client, prompt="of somebody else", user="bob", request_id="own-2", metadata={})
    for decision, user, key in ((id_, "ann", "k-1"), (other, "bob", "k-2")):
        call = {"model": "gpt-4o", "cost_usd": "0.5", "decision_id": decision, "key": key, "user": user}
        client.post("/ledger/events", call)
        give(client, decision, acceptable=False, comment=f"comment of {user}")
    ledger = SqliteLedger(tmp_path / "ledger.db")
    forgotten = ledger.forget(what, value)
    ledger.close()
    assert tuple(forgotten) == (1, 1, 1)
    ((left, _, (feedback,)),) = logged(tmp_path)
    assert (left.id, feedback.comment) == (other, "comment of bob")
    assert SECRET.encode() not in everything(tmp_path)
    assert b"comment of ann" not in everything(tmp_path)
    assert kept(tmp_path, "SELECT key, user FROM events WHERE key > 'k'") == [("k-1", None), ("k-2", "bob")]
    users = kept(tmp_path, "SELECT value, events, cost_pico FROM rollups WHERE dimension = 'user' ORDER BY value")
    half = 500_000_000_000
    if what == "user":
        assert users == [("", 2, half), ("bob", 1, half)]
    assert sum(cost for _, _, cost in users) == 2 * half
    assert client.get("/ledger/report").json()["total_cost_usd"] == 1


def test_a_user_with_more_events_than_go_at_once_is_forgotten_in_all_of_them(tmp_path: Path) -> None:
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        ledger.record([event(f"e{i}", user="ann") for i in range(2_500)]).result()
        ledger.record([event("e", user="bob", tenant="other")]).result()
        assert tuple(ledger.forget("user", "ann", tenant="other")) == (0, 0, 0)
        assert tuple(ledger.forget("user", "ann")) == (0, 0, 2_500)
    assert kept(tmp_path, "SELECT DISTINCT user FROM events ORDER BY user") == [(None,), ("bob",)]
    assert kept(tmp_path, "SELECT value, events FROM rollups WHERE dimension = 'user' ORDER BY value") == [
        ("", 2_500), ("bob", 1),
    ]  # fmt: skip


def test_a_session_is_forgotten_with_the_sums_of_its_users(tmp_path: Path) -> None:
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        ledger.record([event("e", user="ann", session_id="s-1")]).result()
        ledger.forget("session", "s-1")
    assert kept(tmp_path, "SELECT value FROM rollups WHERE dimension = 'user'") == [("",)]


def test_feedback_on_a_forgotten_request_goes_though_its_decision_was_not_kept(tmp_path: Path) -> None:
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        ledger.record([event("e", decision_id="dec-9", user="ann")]).result()
        for tenant in ("default", "other"):
            given = {"id": "dec-9", "acceptable": True, "tenant": tenant, "time": datetime.now(UTC)}
            ledger.give(Feedback.model_validate(given)).result()
        assert tuple(ledger.forget("user", "ann")) == (0, 1, 1)
    assert kept(tmp_path, "SELECT tenant FROM feedback") == [("other",)]


def test_old_decisions_and_feedback_expire_and_events_stay(client: Client, tmp_path: Path) -> None:
    give(client, route(client), acceptable=True)
    ledger = SqliteLedger(tmp_path / "ledger.db")
    assert ledger.expire(datetime.now(UTC) - timedelta(days=1)) == 0
    assert ledger.expire(datetime.now(UTC) + timedelta(seconds=1)) == 2
    ledger.close()
    assert logged(tmp_path) == []
    assert kept(tmp_path, "SELECT key FROM events") == [("first",)]
