"""MLflow's traces, out of the ledger and into a log."""

import json
import stat
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner
from mlflow.entities import Trace

from serving.ledger.feedback import Feedback
from serving.ledger.sqlite.store import SqliteLedger
from serving.ledger.usage import Usage
from tests.ledger_events import event
from tests.test_from_ledger import TEXT, decision
from training.cli import tierwise
from training.logs.mlflow_traces import TraceReport, rows_of, trace_of
from training.logs.rows import request_of
from training.registry import Registry

NOW = datetime(2026, 11, 27, 9, 30, 0, 123_456, tzinfo=UTC)
REQUEST = {"messages": [{"role": "user", "content": TEXT}], "tools": None, "response_format": None}


def run(*arguments: object) -> str:
    found = CliRunner().invoke(tierwise, list(map(str, arguments)))
    assert found.exit_code == 0, found.output
    return found.stdout


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def given(id_: str, seconds: float = 0, **said: object) -> Feedback:
    return Feedback.model_validate({"id": id_, "time": NOW + timedelta(seconds=seconds), **said})


@pytest.fixture
def ledger(state: Path) -> Path:
    """Four decisions: judged twice; escalated after a wasted call; edited, without a tier or price; failed."""
    store = SqliteLedger(state / "ledger.db")
    for i in range(4):
        store.log(decision(id=f"dec-{i}", request_id=f"own-{i}", time=NOW, session_id="s", request=json.dumps(REQUEST)))
    one = {"decision_id": "dec-1", "tier": "low"}
    store.record([
        event("a", time=NOW, decision_id="dec-0", tier="low"),
        event("b", time=NOW, wasted=True, **one),
        event("c", time=NOW + timedelta(seconds=2), model="large-1", **{**one, "tier": "high"}),
        event("judge", kind="judge", time=NOW, **one),
        event("d", time=NOW, decision_id="dec-2", tier=None, cost=None, usage=Usage(input_tokens=7)),
        event("e", time=NOW, decision_id="dec-3", tier="low", status="error", error="overloaded"),
    ])  # fmt: skip
    store.give(given("dec-0", acceptable=True))
    store.give(given("own-0", 5, acceptable=False, comment="too long"))
    store.give(given("b", kind="escalate"))
    store.give(given("dec-1", 3, score=0.75))
    store.give(given("dec-2", kind="edit")).result()
    store.close()
    return state


@pytest.mark.usefixtures("ledger")
def test_what_goes_out_comes_back_as_the_same_requests_and_outcomes() -> None:
    assert run("export", "traces", "traces.jsonl") == "4 traces in traces.jsonl\n"
    said = run("import", "mlflow", "traces.jsonl", "log.jsonl")
    assert "4 read, 1 rejected, 0 without an outcome" in said
    assert "traces.jsonl, line 4: call: failed" in said
    rows = lines(Path("log.jsonl"))
    assert [row["messages"] for row in rows] == [REQUEST["messages"]] * 4
    first, wasted, kept, edited = rows
    assert first | {"id": ""} == {
        "id": "", "time": NOW.isoformat(), "messages": REQUEST["messages"], "model": "small-1", "tier": "low",
        "metadata": {"team": "support", "session_id": "s"}, "propensity": 0.8, "latency_s": 0.12, "acceptable": False,
        "usage": {"input_tokens": 100, "output_tokens": 20}, "cost_usd": "0.001000000007",
    }  # fmt: skip
    assert (wasted["feedback"], wasted["propensity"]) == ({"kind": "escalate"}, 0.8)
    assert (kept["model"], kept["tier"], kept["score"]) == ("large-1", "high", 0.75)
    assert "propensity" not in kept
    assert edited["feedback"] == {"kind": "edit"}
    assert edited["usage"] == {"input_tokens": 7}
    assert not {"cost_usd", "tier"} & edited.keys()
    assert stat.S_IMODE(Path("log.jsonl").stat().st_mode) == 0o600


@pytest.mark.usefixtures("ledger")
def test_mlflow_reads_every_trace() -> None:
    run("export", "traces", "traces.jsonl")
    traces = [Trace.from_json(line) for line in Path("traces.jsonl").read_text(encoding="utf-8").splitlines()]
    trace = traces[1]
    assert [span.name for span in trace.data.spans] == ["request", "route", "call", "judge", "call"]
    assert [str(span.span_type) for span in trace.data.spans][2:4] == ["CHAT_MODEL", "EVALUATOR"]
    assert trace.data.spans[1].get_attribute("tierwise.probabilities") == {"low": 0.7, "high": 0.9}
    assert trace.info.execution_duration == 2_120
    assert {one.feedback.value for one in trace.info.assessments if one.feedback} == {"escalate", 0.75}
    assert [one.info.state.value for one in traces] == ["OK"] * 3 + ["ERROR"]


def test_an_experiment_holds_each_trace_once_however_often_it_is_written(ledger: Path) -> None:
    run("export", "traces", "traces.jsonl")
    run("import", "mlflow", "traces.jsonl", "from_file.jsonl")
    for _ in range(2):
        assert run("export", "traces", "experiment:traffic") == "4 traces in experiment:traffic\n"
    run("import", "mlflow", "experiment:traffic", "from_store.jsonl")
    by_id = {row["id"]: row for row in lines(Path("from_store.jsonl"))}
    assert by_id == {row["id"]: row for row in lines(Path("from_file.jsonl"))}
    found = mlflow.MlflowClient(Registry(ledger).uri).search_traces([Registry(ledger).experiment_id("traffic")])
    assert sorted(len(trace.info.assessments) for trace in found) == [0, 1, 2, 2]


def test_without_stored_text_a_trace_tells_everything_else(state: Path) -> None:
    store = SqliteLedger(state / "ledger.db")
    store.log(decision(time=NOW))
    store.record([event("a", time=NOW, decision_id="dec-1", tier="low")]).result()
    store.close()
    run("export", "traces", "traces.jsonl")
    (trace,) = [Trace.from_json(line) for line in Path("traces.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [span.inputs for span in trace.data.spans] == [None, None, None]
    found = CliRunner().invoke(tierwise, ["import", "mlflow", "traces.jsonl", "log.jsonl"])
    assert found.exit_code == 1
    assert "holds no text of a request" in found.stderr
    assert not Path("log.jsonl").exists()


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")  # of mlflow on its own code, once
def test_a_trace_that_mlflow_made_becomes_a_row(state: Path) -> None:
    registry = Registry(state)
    experiment = registry.experiment_id("bot")
    root = mlflow.start_span_no_context("chain", span_type="CHAIN", tags={"team": "billing"}, experiment_id=experiment)
    call = mlflow.start_span_no_context(
        "Completions", span_type="CHAT_MODEL", parent_span=root,
        inputs={"model": "small-1", "messages": [{"role": "user", "content": "Is it due?"}]},
        attributes={"mlflow.chat.tokenUsage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}},
    )  # fmt: skip
    call.end(outputs={"model": "small-1-2026", "choices": [{"message": {"role": "assistant", "content": "Yes."}}]})
    root.end()
    mlflow.flush_trace_async_logging()
    mlflow.log_feedback(trace_id=root.trace_id, name="correct", value="yes")
    mlflow.log_feedback(trace_id=root.trace_id, name="polite", value=True)
    said = run("import", "mlflow", "experiment:bot", "log.jsonl")
    assert "1 without an outcome" in said
    assert "not read: correct (1), polite (1)" in said
    run("import", "mlflow", "experiment:bot", "log.jsonl", "--outcome", "correct")
    (row,) = lines(Path("log.jsonl"))
    assert (row["id"], row["model"], row["response"]) == (root.trace_id, "small-1-2026", "Yes.")
    assert (row["metadata"], row["acceptable"]) == ({"team": "billing"}, True)
    assert row["usage"] == {"input_tokens": 9, "output_tokens": 3}


def span(id_: int, inputs: object, outputs: object = "Yes.", **changes: Any) -> dict[str, Any]:
    attributes = {
        "mlflow.traceRequestId": "tr-1", "mlflow.spanType": "CHAT_MODEL", "mlflow.llm.model": "small-1",
        "mlflow.spanInputs": inputs, "mlflow.spanOutputs": outputs,
    }  # fmt: skip
    return {
        "trace_id": "nNXpjhg/Ul3k83rbMsfTlw==", "span_id": b64encode(id_.to_bytes(8)).decode(),
        "parent_span_id": None, "name": "call",
        "start_time_unix_nano": 10**18, "end_time_unix_nano": 10**18 + 5 * 10**8, "events": [],
        "status": {"code": "STATUS_CODE_OK", "message": ""},
        "attributes": {key: json.dumps(value) for key, value in attributes.items()}, **changes,
    }  # fmt: skip


def text_of(*spans: dict[str, Any], assessments: tuple[dict[str, Any], ...] = ()) -> str:
    info = {
        "trace_id": "tr-1", "request_time": "2026-11-27T09:30:00Z", "state": "OK", "assessments": list(assessments),
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
    }  # fmt: skip
    return json.dumps({"info": info, "data": {"spans": list(spans)}})


def assessed(value: object, **changes: Any) -> dict[str, Any]:
    return {
        "assessment_name": "acceptable", "source": {"source_type": "HUMAN", "source_id": "ann"},
        "create_time": "2026-11-27T09:31:00Z", "last_update_time": "2026-11-27T09:31:00Z",
        "feedback": {"value": value}, "valid": True, **changes,
    }  # fmt: skip


FORMS = (
    ({"messages": [{"role": "user", "content": "Is it due?"}]}, {"choices": [{"message": {"content": "Yes."}}]}),
    ({"input": "Is it due?"}, {"output": [{"type": "reasoning"}, {"type": "message", "content":
        [{"type": "output_text", "text": "Yes."}]}]}),
    ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Is it due?"}]}]}, "Yes."),
    ({"system": "Be brief.", "messages": [{"role": "user", "content": "Is it due?"}]},
        {"content": [{"type": "text", "text": "Yes."}]}),
    ({"prompt": "Is it due?"}, {"choices": [{"text": "Yes."}]}),
    ([[{"type": "system", "content": "Be brief."}, {"type": "human", "content": "Is it due?"}]],
        {"generations": [[{"text": "Yes."}]]}),
    ({"contents": "Is it due?"}, {"content": "Yes."}),
    ("Is it due?", [{"type": "text", "text": "Yes."}]),
)  # fmt: skip


@pytest.mark.parametrize(("inputs", "outputs"), FORMS)
def test_requests_and_answers_are_found_in_the_forms_of_several_apis(inputs: object, outputs: object) -> None:
    (row,) = rows_of(trace_of(text_of(span(1, inputs, outputs))), "acceptable", TraceReport())
    assert isinstance(row, dict)
    read = request_of(row)
    assert read.conversation.last_user_text == "Is it due?"
    assert read.outcomes[0].response == "Yes."
    assert read.conversation.system_chars == (9 if "Be brief." in json.dumps(inputs) else 0)


JUDGED = (
    (True, {"acceptable": True}), ("No", {"acceptable": False}), (0.5, {"score": 0.5}), (1, {"score": 1}),
    ("regenerate", {"feedback": {"kind": "regenerate"}}),
)  # fmt: skip


@pytest.mark.parametrize(("value", "outcome"), JUDGED)
def test_an_assessment_says_whether_or_how_good(value: object, outcome: dict[str, object]) -> None:
    text = text_of(span(1, "Is it due?"), assessments=(assessed(value),))
    (row,) = rows_of(trace_of(text), "acceptable", TraceReport())
    assert isinstance(row, dict)
    assert {name: row[name] for name in outcome} == outcome
    assert not {"acceptable", "score", "feedback"} & row.keys() - outcome.keys()


def test_a_latency_that_was_never_told_is_unknown_and_not_0() -> None:
    at_once = span(1, "Is it due?", end_time_unix_nano=10**18)
    (row,) = rows_of(trace_of(text_of(at_once)), "acceptable", TraceReport())
    assert isinstance(row, dict)
    assert row["latency_s"] is None


def test_of_calls_within_each_other_the_inner_one_counts_and_of_several_each() -> None:
    outer = span(1, "Outer")
    inner = span(2, "Inner", parent_span_id=outer["span_id"])
    other = span(3, "Other")
    report = TraceReport()
    text = text_of(outer, inner, other, assessments=(assessed(True), assessed(False, span_id="0000000000000003")))
    rows = [row for row in rows_of(trace_of(text), "acceptable", report) if isinstance(row, dict)]
    assert [row["prompt"] for row in rows] == ["Inner", "Other"]
    assert [row.get("acceptable") for row in rows] == [None, False]
    assert len({row["id"] for row in rows}) == 2
    assert report.about_several_calls == 1


def test_what_cannot_be_read_is_set_aside_with_its_line(state: Path) -> None:
    bad = [
        "{", "[]", '{"info": {}, "data": {}}', text_of(), text_of(span(1, {"temperature": 1})),
        text_of(span(1, "Is it due?", attributes={"mlflow.traceRequestId": '"tr-1"', "mlflow.spanType": '"LLM"',
                                                  "mlflow.spanInputs": '"Is it due?"'})),
        text_of(span(1, "Is it due?"), assessments=(assessed("splendid"),)),
    ]  # fmt: skip
    Path("traces.jsonl").write_text("\n".join([*bad, text_of(span(1, "Is it due?"))]), encoding="utf-8")
    said = run("import", "mlflow", "traces.jsonl", "log.jsonl")
    assert "1 read, 7 rejected" in said
    rejects = lines(state / "rejects" / "traces.jsonl")
    assert [one["line"] for one in rejects] == [1, 2, 3, 4, 5, 6, 7]
    reasons = ("is not JSON", "must be a JSON object", "is no trace", "no span of type", "no text of a request",
               "neither `model` nor `tier`", "is no outcome")  # fmt: skip
    assert all(reason in one["reason"] for reason, one in zip(reasons, rejects, strict=True))
    assert len(lines(Path("log.jsonl"))) == 1


ODD: tuple[dict[str, Any], ...] = (
    {"mlflow.spanOutputs": {"choices": [{"message": None}]}}, {"mlflow.spanOutputs": {"choices": [{"message": "Yes"}]}},
    {"mlflow.chat.tokenUsage": 12}, {"mlflow.chat.tokenUsage": "many"}, {"mlflow.chat.tokenUsage": [1]},
    {"mlflow.llm.cost": 3}, {"mlflow.llm.cost": [1]}, {"mlflow.spanOutputs": {"content": [{"type": ["text"]}]}},
    {"mlflow.spanInputs": [{"type": ["human"], "content": "hi"}]}, {"mlflow.spanInputs": {"messages": [[]]}},
)  # fmt: skip


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_trace_costs_its_row_at_most(odd: dict[str, Any]) -> None:
    strange = span(1, "Is it due?")
    strange["attributes"] |= {name: json.dumps(value) for name, value in odd.items()}
    late = span(1, "Is it due?", start_time_unix_nano=10**22)
    bare = json.loads(text_of(span(1, "Is it due?")))
    bare["info"] |= {"tags": None, "trace_metadata": None}
    texts = [text_of(strange), text_of(late), json.dumps(bare), text_of(span(1, "Is it due?"))]
    Path("traces.jsonl").write_text("\n".join(texts), encoding="utf-8")
    said = run("import", "mlflow", "traces.jsonl", "log.jsonl")
    assert "line 2" in said
    assert 2 <= len(lines(Path("log.jsonl"))) <= 3


@pytest.mark.usefixtures("state")
def test_the_last_assessment_counts_that_is_one() -> None:
    def at(second: int, value: object, **changes: Any) -> dict[str, Any]:
        return assessed(value, last_update_time=f"2026-11-27T09:31:{second:02}Z", **changes)

    failed = at(9, None, feedback={"value": None, "error": {"error_code": "RATE_LIMIT", "error_message": "slow down"}})
    given = (at(5, True), at(3, False), at(7, False, valid=False), failed)
    Path("traces.jsonl").write_text(text_of(span(1, "Is it due?"), assessments=given), encoding="utf-8")
    run("import", "mlflow", "traces.jsonl", "log.jsonl")
    assert [row["acceptable"] for row in lines(Path("log.jsonl"))] == [True]


@pytest.mark.usefixtures("state")
def test_what_cannot_be_imported_leaves_the_file_that_was_there() -> None:
    trace = text_of(span(1, "Is it due?"))
    for name in ("log.jsonl", "traces.jsonl"):
        Path(name).write_text(trace, encoding="utf-8")
        Path(name).chmod(0o644)
    for source in ("none.jsonl", "experiment:none"):
        assert CliRunner().invoke(tierwise, ["import", "mlflow", source, "log.jsonl"]).exit_code == 1
    assert Path("log.jsonl").read_text(encoding="utf-8") == trace
    assert "1 read" in run("import", "mlflow", "traces.jsonl", "traces.jsonl")  # onto itself: read to its end first
    assert lines(Path("traces.jsonl"))[0]["prompt"] == "Is it due?"
    assert stat.S_IMODE(Path("traces.jsonl").stat().st_mode) == 0o600
    assert not list(Path().glob(".*"))


@pytest.mark.usefixtures("ledger")
def test_of_the_last_days_alone() -> None:
    store = SqliteLedger(Path("../state/ledger.db"))
    store.log(decision(id="dec-old", request_id=None, time=datetime.now(UTC) - timedelta(days=40)))
    store.log(decision(id="dec-new", request_id=None, time=datetime.now(UTC)))
    store.close()
    assert run("export", "traces", "traces.jsonl", "--days", "1").startswith(
        f"{1 + 4 * (NOW.date() == datetime.now(UTC).date())} "
    )


@pytest.mark.usefixtures("ledger")
def test_a_trace_fits_the_columns_of_mlflows_store() -> None:
    store = SqliteLedger(Path("../state/ledger.db"))
    said = json.dumps({"messages": [{"role": "user", "content": "long " * 1_000}]})
    store.log(decision(id="dec-long", request_id="r" * 200, time=NOW, request=said))
    store.close()
    run("export", "traces", "traces.jsonl")
    infos = [json.loads(line)["info"] for line in Path("traces.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(len(info.get("request_preview", "")) for info in infos) == 1_000
    assert max(len(info.get("client_request_id", "")) for info in infos) <= 50


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["export", "traces", "experiment:"], "experiment:: names no experiment"),
        (["import", "mlflow", "none.jsonl", "log.jsonl"], "none.jsonl: cannot be read: No such file"),
        (["import", "mlflow", "experiment:none", "log.jsonl"], "none: there is no such experiment"),
        (["import", "mlflow", "traces.jsonl", "log.csv"], "must end in .jsonl"),
        (["export", "traces", "traces.parquet"], "must end in .jsonl, or be experiment:NAME"),
        (["export", "traces", "no/where/traces.jsonl"], "cannot be written"),
    ],
)
@pytest.mark.usefixtures("ledger")
def test_a_file_that_cannot_be_is_refused(arguments: list[str], what: str) -> None:
    found = CliRunner().invoke(tierwise, arguments)
    assert found.exit_code == 1
    assert what in found.output
