"""The ledger in SQLite: what is written, what is summed, and what happens when it cannot be."""

import errno
import fcntl
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
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
from tests.test_from_ledger import decision

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


def test_a_busy_process_lets_another_write_in_between(tmp_path: Path) -> None:
    busy, other = SqliteLedger(tmp_path / "ledger.db"), SqliteLedger(tmp_path / "ledger.db")
    commits, ended = 0, False

    def keep_busy() -> None:
        nonlocal commits
        waiting = [busy.record([event("0")])]
        while not ended:
            waiting.append(busy.record([event(f"{commits + 1}")]))  # before the last is done, so that it is never idle
            waiting.pop(0).result()
            commits += 1

    waited = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(keep_busy)
        try:
            for i in range(50):
                while commits < 10 * i and not running.done():
                    time.sleep(0.001)
                before = commits
                other.record([event(f"other-{i}")]).result()
                waited.append(commits - before)
        finally:
            ended = True
        running.result()
    busy.close()
    other.close()
    assert max(waited) <= 50  # 2 of them, mostly; a thousand, when it is left to SQLite who writes next


@contextmanager
def opened(folder: Path) -> Iterator[SqliteLedger]:
    with closing(SqliteLedger(folder / "ledger.db")) as ledger:
        yield ledger


def test_a_process_that_is_stopped_while_it_waits_costs_the_others_little(tmp_path: Path) -> None:
    (tmp_path / "ledger.db-turn").touch()
    with opened(tmp_path) as ledger, (tmp_path / "ledger.db-turn").open() as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        assert ledger.record([event("a")]).result(timeout=5) == (True,)


def test_where_the_file_of_turns_cannot_be_made_sqlite_decides_who_writes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ledger.db-turn").symlink_to(tmp_path / "nowhere" / "at all")
    with opened(tmp_path) as ledger:
        assert ledger.record([event("a")]).result() == (True,)
        assert ledger.problem is None
    assert "processes do not take turns" in caplog.text


def test_a_lock_that_the_disk_does_not_know_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)  # no disk here lacks locks
    with opened(tmp_path) as ledger:
        assert [ledger.record([event(key)]).result() for key in "ab"] == [(True,), (True,)]
        assert ledger.problem is None
    assert caplog.text.count("processes do not take turns") == 1


def test_who_was_forgotten_while_a_call_was_under_way_stays_forgotten(ledger: SqliteLedger) -> None:
    names = {"user": "ann", "session_id": "s1", "request_id": "r1"}
    ledger.record([event("a", status="started", usage=None, cost=None, **names)]).result()
    ledger.forget("user", "ann")
    ledger.record([event("a", completion_id="c1", **names)]).result()
    (kept,) = ledger.events(*ALWAYS)
    assert (kept.user, kept.session_id, kept.request_id, kept.completion_id) == (None, None, None, None)
    assert (kept.status, total(ledger).cost_pico_usd) == ("ok", 1_000_000_007)
    assert {part.value: part.events for part in ledger.totals("user", DAY, DAY) if part.events} == {None: 1}


def test_while_it_cannot_be_written_it_says_so_and_then_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "_TRY_AGAIN_S", 0.05)
    ledger = SqliteLedger(tmp_path / "ledger.db", busy_s=0.02)
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
    ledger.close()


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


def test_what_nobody_waits_for_is_refused_first(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(writer, "_MOST_DELAYED", 5)
    with closing(connect(tmp_path / "ledger.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = [ledger.log(decision(id=f"dec-{i}")) for i in range(10)]
        event_after = ledger.record([event("e")])
        other.execute("ROLLBACK")
    refused = [future for future in waiting if future.exception()]
    assert refused
    assert all("does not keep up: 5 writes wait" in str(future.exception()) for future in refused)
    assert event_after.result() == (True,)
    assert sum(1 for _ in ledger.logged()) == 10 - len(refused)


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


@pytest.mark.parametrize("schema", range(1, len(MIGRATIONS)))
def test_a_file_of_every_schema_there_was_can_be_read_and_written(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "ledger.db"
    migrate(path, MIGRATIONS[:schema])
    row = {
        "tenant": "default",
        "key": "old",
        "kind": "call",
        "status": "ok",
        "time_us": NOON.timestamp() * 10**6,
        "usage_estimated": 1,
        "cost_pico_usd": 1_000_000_007,
        "price_source": "list",
        "cached": 0,
        "wasted": 0,
    }
    sums = {
        "dimension": "total",
        "day": DAY.toordinal(),
        "tenant": "default",
        "value": "",
        "requests": 1,
        "events": 1,
        "unpriced_requests": 0,
        "unpriced": 0,
        "unmetered": 1,
        "input_tokens": 0,
        "output_tokens": 0,
        **({"estimated": 1} if schema >= 5 else {}),
    }
    money = {
        f"{name}_{part}": 0
        for name in ("cost", "spent_on_saving", *(f"saved_{kind}" for kind in SAVINGS))
        for part in ("usd", "pico")
    }
    with closing(connect(path)) as file:
        for table, values in (("events", row), ("rollups", sums | money | {"cost_pico": 1_000_000_007})):
            marks = ", ".join("?" * len(values))
            file.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", [*values.values()])
    ledger = SqliteLedger(path)
    ledger.record([event("new", usage_estimated=True)]).result()
    ledger.log(decision()).result()
    found = total(ledger)
    assert (found.events, found.cost_pico_usd, found.unmetered, found.estimated) == (2, 2_000_000_014, 1, 2)
    by_key = ledger.totals("api_key", DAY, DAY)
    assert [(one.value, one.events, one.cost_pico_usd) for one in by_key] == [(None, 2, 2_000_000_014)]
    assert [one.key for one in ledger.events(*ALWAYS)] == ["old", "new"]
    ledger.close()


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
