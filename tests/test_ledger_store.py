"""The ledger in SQLite: what is written, what is summed, and what happens when it cannot be."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import LedgerError
from serving.ledger.events import SAVINGS, Cost
from serving.ledger.sqlite import writer
from serving.ledger.sqlite.migrations import MIGRATIONS, connect, migrate
from serving.ledger.sqlite.rollups import DIMENSIONS, Rollups
from serving.ledger.sqlite.store import SqliteLedger
from serving.ledger.store import LedgerStore, Totals
from tests.ledger_events import NOON, event, random_event

DAY = date(2026, 3, 1)
ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    store = SqliteLedger(tmp_path / "ledger.db")
    yield store
    store.close()


def total(store: LedgerStore, **asked: str) -> Totals:
    (found,) = store.totals("total", DAY, DAY + timedelta(days=9), **asked)
    return found


def test_what_was_recorded_is_read_back_as_it_was(ledger: SqliteLedger) -> None:
    first = event("a", saved={"routing": -5, "cache": 7}, error="timeout", request_id="r-1", wasted=True)
    second = event("b", time=NOON + timedelta(microseconds=1), usage=None, cost=None, team=None)
    assert ledger.record([second, first]).result() == (True, True)
    assert list(ledger.events(*ALWAYS)) == [first, second]


def test_a_repeated_key_changes_nothing(ledger: SqliteLedger) -> None:
    ledger.record([event("a")]).result()
    again = event("a", cost=Cost(pico_usd=5, source="list"), status="error")
    assert ledger.record([again, event("b")]).result() == (False, True)
    assert total(ledger).cost_pico_usd == 2 * 1_000_000_007
    assert [found.status for found in ledger.events(*ALWAYS)] == ["ok", "ok"]


def test_the_same_key_of_another_tenant_is_another_event(ledger: SqliteLedger) -> None:
    assert ledger.record([event("a"), event("a", tenant="globex")]).result() == (True, True)
    assert total(ledger, tenant="globex").events == 1


def test_what_was_started_counts_as_unknown_until_it_is_settled(ledger: SqliteLedger) -> None:
    begun = event("a", status="started", usage=None, cost=None, model=None, latency_ms=None)
    assert ledger.record([begun]).result() == (True,)
    assert ledger.record([begun]).result() == (False,)
    waiting = total(ledger)
    assert (waiting.requests, waiting.unpriced, waiting.unmetered, waiting.cost_pico_usd) == (1, 1, 1, 0)
    assert ledger.record([event("a", time=NOON + timedelta(days=2))]).result() == (True,)
    settled = total(ledger)
    assert (settled.requests, settled.unpriced, settled.unmetered) == (1, 0, 0)
    assert settled.cost_pico_usd == 1_000_000_007
    assert [(t.day, t.value, t.events) for t in ledger.totals("model", DAY, DAY, daily=True) if t.events] == [
        (DAY, "small-1", 1)  # it stays on the day it was started
    ]


def test_requests_are_counted_once_however_many_attempts_they_took(ledger: SqliteLedger) -> None:
    hit = event("3", kind="cache_hit", cost=None, usage=None)
    embedding = event("5", kind="embedding", usage={"input_tokens": 9})
    ledger.record([event("1", wasted=True), event("2"), hit, event("4", kind="judge"), embedding]).result()
    found = total(ledger)
    assert (found.requests, found.events, found.unpriced, found.unmetered) == (2, 5, 0, 0)
    assert found.spent_on_saving_pico_usd == 3 * 1_000_000_007  # the wasted attempt, the judge, the embedding


def test_sums_pass_64_bits_and_stay_exact(ledger: SqliteLedger) -> None:
    amount = 2**62 - 1
    ledger.record([event(str(i), cost=Cost(pico_usd=amount, source="list"), saved={"cache": -amount})
                   for i in range(5)]).result()  # fmt: skip
    ledger.record([event("last", saved={"cache": 3})]).result()
    found = total(ledger)
    assert found.cost_pico_usd == 5 * amount + 1_000_000_007
    assert found.saved_pico_usd[SAVINGS.index("cache")] == -5 * amount + 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_sums_of_every_dimension_are_those_of_the_events(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    store = SqliteLedger(tmp_path_factory.mktemp("ledger") / "ledger.db")
    sent = [random_event(f"k{rng.randrange(40)}", rng) for _ in range(60)]
    for i in range(0, 60, 7):
        store.record(sent[i : i + 7]).result()
    kept = list(store.events(*ALWAYS))
    cost = sum(one.cost.pico_usd for one in kept if one.cost)
    for dimension in DIMENSIONS:
        parts = store.totals(dimension, DAY, DAY + timedelta(days=9), daily=True)
        assert sum(part.cost_pico_usd for part in parts) == cost
        assert sum(part.events for part in parts) == len(kept) == len({(one.tenant, one.key) for one in sent})
        assert sum(part.saved_pico_usd[0] for part in parts) == sum(one.saved.get("routing", 0) for one in kept)
        assert sum(part.unpriced for part in parts) == sum(one.cost is None and one.kind != "cache_hit" for one in kept)
        if dimension not in ("total",):
            assert {part.value for part in parts if part.events} == {getattr(one, dimension) for one in kept}
    store.close()


def test_many_at_once_share_commits_and_all_are_kept(ledger: SqliteLedger) -> None:
    def produce(i: int) -> None:
        for j in range(20):
            assert ledger.record([event(f"{i}-{j}")]).result() == (True,)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(produce, range(16)))
    assert total(ledger).events == 320


def test_two_processes_worth_of_stores_write_one_file(tmp_path: Path) -> None:
    first, second = SqliteLedger(tmp_path / "ledger.db"), SqliteLedger(tmp_path / "ledger.db")
    waiting = [store.record([event(f"{i}")]) for i in range(50) for store in (first, second)]
    assert sum(future.result()[0] for future in waiting) == 50
    assert total(first) == total(second)
    first.close()
    second.close()


def test_while_it_cannot_be_written_it_says_so_and_then_goes_on(
    ledger: SqliteLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "_TRY_AGAIN_S", 0.05)
    ledger._connection.execute("PRAGMA busy_timeout = 20")
    other = connect(tmp_path / "ledger.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="cannot be written: database is locked"):
        ledger.record([event("lost", user="somebody private")]).result()
    assert ledger.problem == "the ledger cannot be written: database is locked"
    assert "somebody private" not in caplog.text
    other.execute("ROLLBACK")
    other.close()
    deadline = datetime.now(UTC) + timedelta(seconds=5)
    while ledger.problem and datetime.now(UTC) < deadline:
        pass
    assert ledger.problem is None  # without a new event to try it on
    assert ledger.record([event("kept")]).result() == (True,)
    assert [one.key for one in ledger.events(*ALWAYS)] == ["kept"]


def test_a_write_that_is_refused_takes_no_other_with_it(ledger: SqliteLedger) -> None:
    def refused(_: Rollups) -> None:
        raise OverflowError("too large")

    other = connect(ledger._path)
    other.execute("BEGIN IMMEDIATE")  # so that all three wait for one commit
    waiting = [ledger.record([event("1")]), ledger._writer.submit(refused), ledger.record([event("2")])]
    other.execute("ROLLBACK")
    other.close()
    with pytest.raises(LedgerError, match="too large"):
        waiting[1].result()
    assert (waiting[0].result(), waiting[2].result()) == ((True,), (True,))
    assert ledger.problem is None


def test_a_closed_ledger_has_written_what_it_was_given_and_takes_nothing_more(tmp_path: Path) -> None:
    store = SqliteLedger(tmp_path / "ledger.db")
    waiting = [store.record([event(str(i))]) for i in range(200)]
    store.close()
    assert all(future.result() == (True,) for future in waiting)
    with pytest.raises(LedgerError, match="is closed"):
        store.record([event("late")]).result()


def test_a_ledger_that_does_not_keep_up_takes_no_more(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(writer, "_MOST_WAITING", 5)
    other = connect(tmp_path / "ledger.db")
    other.execute("BEGIN IMMEDIATE")
    waiting = [ledger.record([event(str(i))]) for i in range(10)]
    other.execute("ROLLBACK")
    other.close()
    refused = [future for future in waiting if future.exception()]
    assert refused
    assert all("does not keep up: 5 writes wait" in str(future.exception()) for future in refused)
    assert total(ledger).events == 10 - len(refused)


def test_a_file_of_an_earlier_version_is_brought_up_to_date_and_keeps_its_rows(ledger: SqliteLedger) -> None:
    ledger.record([event("old")]).result()
    later = (*MIGRATIONS, "ALTER TABLE events ADD COLUMN colour TEXT DEFAULT 'red'; CREATE INDEX c ON events (colour)")
    for _ in range(2):  # the second time there is nothing to do
        migrate(ledger._path, later)
    with closing(connect(ledger._path)) as file:
        assert file.execute("SELECT key, colour FROM events").fetchall() == [("old", "red")]
        assert file.execute("PRAGMA user_version").fetchone() == (len(later),)
    with pytest.raises(LedgerError, match=r"has schema \d+, and this version of Tierwise knows \d+; update Tierwise"):
        SqliteLedger(ledger._path)


def test_a_migration_that_fails_leaves_the_file_as_it_was(ledger: SqliteLedger) -> None:
    with pytest.raises(LedgerError, match="cannot be prepared: no such table: absent"):
        migrate(ledger._path, (*MIGRATIONS, "CREATE TABLE extra (a); DROP TABLE absent"))
    with closing(connect(ledger._path)) as file:
        assert file.execute("SELECT name FROM sqlite_master WHERE name = 'extra'").fetchall() == []


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("a shopping list, longer than the header of a database" * 20)
    with pytest.raises(LedgerError, match="file is not a database; check the disk"):
        SqliteLedger(tmp_path / "ledger.db")


def test_a_dimension_that_is_not_kept_is_refused(ledger: SqliteLedger) -> None:
    with pytest.raises(ValueError, match="'colour' is not one of total, kind, model"):
        ledger.totals("colour", DAY, DAY)


def test_a_reader_cannot_write(ledger: SqliteLedger) -> None:
    with (
        pytest.raises(LedgerError, match="cannot be read: attempt to write a readonly database"),
        ledger._reader() as file,
    ):
        file.execute("DELETE FROM events")


def test_a_file_that_was_damaged_cannot_be_read_and_says_so(ledger: SqliteLedger) -> None:
    ledger.record([event("a")]).result()
    with closing(connect(ledger._path)) as file:
        file.execute("DROP TABLE rollups")
    with pytest.raises(LedgerError, match=r"ledger\.db: cannot be read: no such table: rollups"):
        ledger.totals("total", DAY, DAY)
