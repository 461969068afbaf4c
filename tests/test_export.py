"""Events and decisions as tables for other tools."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from serving.ledger.feedback import Feedback
from serving.ledger.sqlite.store import SqliteLedger
from tests.factories import FakeEncoder
from tests.ledger_events import event
from tests.test_from_ledger import TEXT, decision
from training.cli import tierwise

NOW = datetime.now(UTC)


@pytest.fixture
def written(state: Path) -> Path:
    ledger = SqliteLedger(state / "ledger.db")
    ledger.log(decision(time=NOW))
    ledger.record([event("a", time=NOW, decision_id="dec-1"), event("b", time=NOW, usage=None, cost=None)])
    ledger.record([event("old", time=NOW - timedelta(days=40))])
    ledger.give(Feedback(id="a", time=NOW, score=0.5, comment='naïve, "quoted"')).result()
    ledger.close()
    return state.parent


def export(*arguments: object) -> str:
    found = CliRunner().invoke(tierwise, ["export", *map(str, arguments)])
    assert found.exit_code == 0, found.output
    return found.stdout


def test_events_come_out_as_they_went_in(written: Path) -> None:
    out = written / "events.parquet"
    assert export("events", out) == f"3 events in {out}\n"
    old, a, b = pq.read_table(out).to_pylist()
    assert (old["key"], a["key"], a["time"], a["cost_pico_usd"]) == ("old", "a", NOW, 1_000_000_007)
    assert (a["input_tokens"], a["cached_input_tokens"], a["team"], a["wasted"]) == (100, 40, "search", False)
    assert (b["input_tokens"], b["cost_pico_usd"], b["price_source"]) == (None, None, None)


def test_of_the_last_days_alone(written: Path) -> None:
    out = written / "events.csv"
    assert export("events", out, "--days", 1) == f"2 events in {out}\n"
    with out.open(encoding="utf-8", newline="") as file:
        a, b = csv.DictReader(file)
    assert (a["key"], a["cost_pico_usd"], a["cached"], b["cost_pico_usd"]) == ("a", "1000000007", "false", "")
    assert datetime.fromisoformat(a["time"]) == NOW


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_decisions_come_with_what_they_saw_and_what_became_of_them(written: Path, form: str) -> None:
    out = written / f"decisions.{form}"
    export("decisions", out)
    if form == "parquet":
        (row,) = pq.read_table(out).to_pylist()
    else:
        with out.open(encoding="utf-8", newline="") as file:
            (row,) = csv.DictReader(file)
        row |= {name: json.loads(row[name]) for name in ("embedding", "features")}
    assert float(np.array(row["embedding"]) @ FakeEncoder().embed(TEXT).vector) > 0.9999
    assert json.loads(row["probabilities"]) == {"low": 0.7, "high": 0.9}
    assert json.loads(row["calls"]) == ["a"]
    (feedback,) = json.loads(row["feedback"])
    assert (feedback["score"], feedback["comment"]) == (0.5, 'naïve, "quoted"')


def test_what_cannot_be_written_is_refused(written: Path) -> None:
    for out, what in (("events.xlsx", "must end in"), ("nowhere/events.csv", "cannot be written")):
        found = CliRunner().invoke(tierwise, ["export", "events", str(written / out)])
        assert (found.exit_code, what in found.stderr) == (1, True), found.output
