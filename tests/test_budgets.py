"""Budgets: what is spent and held, what is refused, who is told."""

import json
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.ledger.budgets import Budget, Spender
from serving.ledger.events import Cost, Event
from serving.ledger.sqlite.store import SqliteLedger
from serving.spending import Spending
from tests.ledger_events import NOON, event, random_event
from tests.server import environment
from training.cli import tierwise

CENT = 10**10
TEAM = Spender(team="search")
SHORT = timedelta(minutes=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    store = SqliteLedger(tmp_path / "ledger.db")
    yield store
    store.close()


def of_team(**changes: object) -> Budget:
    values = {"scope": "team", "value": "search", "period": "month", "limit_pico_usd": 10 * CENT, "hard": True}
    return Budget.model_validate(values | changes)


def call(key: str, cents: float | None, **changes: object) -> Event:
    cost = None if cents is None else Cost(pico_usd=int(cents * CENT), source="test")
    return event(key, cost=cost, **changes)


def left(ledger: SqliteLedger, now: datetime = NOON) -> tuple[float, float]:
    """What was spent and what is held, in cents."""
    (found,) = ledger.budget_status(now)
    return found.spent_pico_usd / CENT, found.reserved_pico_usd / CENT


def holds(ledger: SqliteLedger, key: str, cents: int, now: datetime = NOON, who: Spender = TEAM) -> bool:
    return ledger.reserve(key, who, cents * CENT, now, SHORT).result() is None


def test_a_period_is_a_day_or_month_of_its_zone() -> None:
    lisbon = of_team(zone="Europe/Lisbon", period="day")
    spring = datetime(2026, 3, 29, 12, tzinfo=UTC)  # clocks go from 1 to 2: the day has 23 hours
    assert lisbon.bounds(spring) == (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 3, 29, 23, tzinfo=UTC))
    tokyo = of_team(zone="Asia/Tokyo")
    assert tokyo.bounds(datetime(2026, 12, 31, 14, 59, tzinfo=UTC)) == (
        datetime(2026, 11, 30, 15, tzinfo=UTC), datetime(2026, 12, 31, 15, tzinfo=UTC),
    )  # fmt: skip
    assert tokyo.bounds(datetime(2026, 12, 31, 15, tzinfo=UTC))[0] == datetime(2026, 12, 31, 15, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match="is no time zone"):
        of_team(zone=zone)


def test_what_was_spent_before_it_was_set_counts(ledger: SqliteLedger) -> None:
    ledger.record([call("a", 3), call("other", 5, team="support"), call("old", 9, time=NOON - timedelta(days=1))])
    ledger.set_budget(of_team())
    assert left(ledger) == (3, 0)
    ledger.record([call("b", 4), call("b", 4), call("c", 2, time=NOON + timedelta(days=40))]).result()
    assert left(ledger) == (7, 0)
    assert left(ledger, NOON + timedelta(days=40)) == (2, 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_spent_is_the_sum_of_the_events_of_the_period(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = random.Random(seed)
    store = SqliteLedger(tmp_path_factory.mktemp("ledger") / "ledger.db")
    zones = ("UTC", "Asia/Kolkata", "Asia/Tokyo", "America/St_Johns")
    budgets = [
        of_team(tenant="acme", scope=scope, value=value, period=period, zone=rng.choice(zones), hard=False)
        for scope, value in (("tenant", "acme"), ("team", "search"), ("user", "u1"))
        for period in ("day", "month")
    ]
    waiting = []
    for i in range(60):
        if i in (20, 40):  # among the events, so that some are in the same commit; the second time it counts again
            store.set_budget(rng.choice(budgets))
        event = random_event(f"k{i}", rng)
        waiting.append(store.record([event.model_copy(update={"time": NOON + timedelta(hours=rng.randrange(800))})]))
    for budget in budgets:
        store.set_budget(budget)
    for future in waiting:
        future.result()
    events = list(store.events(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)))
    for now in (NOON, NOON + timedelta(days=30)):
        for found in store.budget_status(now):
            budget, (begin, end) = found.budget, found.budget.bounds(now)
            of = [e for e in events if e.tenant == "acme" and getattr(e, budget.scope) == budget.value]
            assert found.spent_pico_usd == sum(e.cost.pico_usd for e in of if e.cost and begin <= e.time < end), budget
    store.close()


def test_a_call_that_settles_counts_once(ledger: SqliteLedger) -> None:
    ledger.set_budget(of_team())
    ledger.record([call("a", None, status="started")]).result()
    assert left(ledger) == (0, 0)
    ledger.record([call("a", 2)]).result()
    ledger.record([call("a", 2)]).result()
    assert left(ledger) == (2, 0)


def test_a_hard_budget_refuses_what_would_pass_it(ledger: SqliteLedger) -> None:
    ledger.set_budget(of_team())
    assert holds(ledger, "a", 6)
    assert not holds(ledger, "b", 5)
    assert holds(ledger, "c", 4)
    assert not holds(ledger, "d", 0)  # all is held: not even what is thought to cost nothing
    assert holds(ledger, "other", 100, who=Spender(team="support"))
    assert left(ledger) == (0, 10)


def test_what_is_held_is_settled_by_its_event_or_released(ledger: SqliteLedger) -> None:
    ledger.set_budget(of_team())
    assert [holds(ledger, key, 4) for key in ("dec-1", "dec-2", "dec-3")] == [True, True, False]
    ledger.record([call("k", 1, decision_id="dec-1")]).result()
    assert left(ledger) == (1, 4)
    ledger.release("dec-2", "default").result()
    assert left(ledger) == (1, 0)


def test_what_a_dead_process_held_expires(ledger: SqliteLedger) -> None:
    ledger.set_budget(of_team())
    assert holds(ledger, "a", 10)
    assert not holds(ledger, "b", 10, NOON + SHORT - timedelta(seconds=1))
    assert holds(ledger, "b", 10, NOON + SHORT)


def test_a_call_of_unknown_cost_keeps_what_was_held(ledger: SqliteLedger) -> None:
    ledger.set_budget(of_team())
    assert holds(ledger, "a", 7)
    ledger.record([call("a", None)]).result()
    assert left(ledger, NOON + timedelta(days=20)) == (0, 7)


@pytest.mark.parametrize("status", ["cancelled", "error"])
def test_so_does_one_that_broke_off_at_a_cost_that_nobody_told(ledger: SqliteLedger, status: str) -> None:
    ledger.set_budget(of_team())
    assert holds(ledger, "a", 7)
    ledger.record([call("a", None).model_copy(update={"status": status})]).result()
    assert left(ledger, NOON + timedelta(days=20)) == (0, 7)


def test_the_tightest_of_several_budgets_holds_and_nothing_is_held_by_a_refusal(ledger: SqliteLedger) -> None:
    ledger.set_budget(of_team(scope="tenant", value="default", limit_pico_usd=100 * CENT))
    ledger.set_budget(of_team(period="day", limit_pico_usd=CENT))
    assert not holds(ledger, "a", 2)
    assert [found.reserved_pico_usd for found in ledger.budget_status(NOON)] == [0, 0]


def test_a_soft_budget_refuses_nothing_and_is_told_of_twice(ledger: SqliteLedger) -> None:
    ledger.set_budget(of_team(hard=False))
    told = []
    for i in range(12):
        ledger.record([call(str(i), 1)]).result()
        told.append([found.spent_pico_usd // CENT for found in ledger.to_tell()])
    assert told == [[]] * 7 + [[8], [], [10], [], []]
    assert holds(ledger, "a", 100)


def test_a_budget_can_be_changed_and_taken_away(ledger: SqliteLedger) -> None:
    ledger.set_budget(of_team())
    ledger.record([call("a", 3)]).result()
    ledger.set_budget(of_team(limit_pico_usd=2 * CENT, zone="Asia/Tokyo"))
    assert ledger.budgets() == [of_team(limit_pico_usd=2 * CENT, zone="Asia/Tokyo")]
    assert left(ledger) == (3, 0)
    assert not holds(ledger, "b", 0)
    assert ledger.remove_budget(of_team())
    assert not ledger.remove_budget(of_team())
    assert ledger.budgets() == []
    assert holds(ledger, "b", 1)


def test_sixty_four_clients_in_two_processes_never_pass_a_hard_budget(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.set_budget(of_team(limit_pico_usd=2_000 * CENT + CENT // 4))
    command = [sys.executable, "-m", "tests.budget_spender", str(tmp_path / "ledger.db")]
    processes = [
        subprocess.Popen(
            [*command, name, "32", str(CENT)],
            env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for process in processes:  # neither begins before both are there
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    spent = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    (found,) = ledger.budget_status(datetime.now(UTC))
    ledger.close()
    assert min(spent) > 0
    assert found.spent_pico_usd == sum(spent)
    assert found.reserved_pico_usd == 0
    assert 0 <= found.left_pico_usd < CENT  # all is spent but for less than a call, and nothing more


def test_an_alert_is_posted_and_counted_once(ledger: SqliteLedger) -> None:
    posted: list[dict[str, Any]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    class Access:
        opened = ledger

    server = HTTPServer(("127.0.0.1", 0), Webhook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    counted: list[tuple[str, str]] = []
    spending = Spending(
        Access(),
        f"http://127.0.0.1:{server.server_port}/",
        lambda *alert: counted.append(alert),  # type: ignore[arg-type]
    )
    ledger.set_budget(of_team(hard=False))
    ledger.record([call("a", 8.5)]).result()
    spending.tell()
    spending.tell()
    server.shutdown()
    thread.join()
    server.server_close()
    assert counted == [("team", "near")]
    (alert,) = posted
    assert (alert["level"], alert["value"], Decimal(alert["spent_usd"])) == ("near", "search", Decimal("0.085"))


def test_a_webhook_that_speaks_no_http_ends_nothing(ledger: SqliteLedger, caplog: pytest.LogCaptureFixture) -> None:
    def answer(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"nonsense\r\n")

    class Access:
        opened = ledger

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        ledger.set_budget(of_team(hard=False))
        ledger.record([call("a", 8.5)]).result()
        Spending(Access(), url, lambda *_: None).tell()  # type: ignore[arg-type]
        thread.join()
    assert "the webhook for budgets did not answer" in caplog.text


def run(*arguments: str) -> Any:
    return CliRunner().invoke(tierwise, ["budget", *arguments])


def test_budgets_are_set_listed_and_read_from_the_command_line(state: Path) -> None:
    assert "there is no ledger" in run("list").stderr
    done = run("set", "--team", "search", "--per", "day", "--usd", "2.5", "--hard", "--zone", "Europe/Lisbon")
    assert done.stdout == "hard budget of team 'search' for a day: 2.5 USD\n"
    ledger = SqliteLedger(state / "ledger.db")
    ledger.record([call("a", 50, time=datetime.now(UTC))]).result()
    ledger.close()
    assert run("list").stdout == "hard budget of team 'search' for a day (Europe/Lisbon): 2.5 USD, told from 80%\n"
    (found,) = json.loads(run("status", "--json").stdout)["budgets"]
    assert (found["spent_usd"], found["reserved_usd"], found["left_usd"]) == ("0.5", "0", "2")
    assert "0.5 of 2.5 USD spent, 0 held, 2 left until" in run("status").stdout
    assert run("remove", "--team", "search", "--per", "day").stdout == "removed\n"
    assert run("remove", "--team", "search", "--per", "day").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--per", "day", "--usd", "1"], "give one of"),
        (["--team", "a", "--user", "b", "--per", "day", "--usd", "1"], "give one of"),
        (["--all", "--per", "day", "--usd", "much"], "not a number of dollars"),
        (["--all", "--per", "day", "--usd", "-1"], "--usd"),
        (["--all", "--per", "day", "--usd", "1", "--zone", "Moon"], "is no time zone"),
        (["--all", "--per", "day", "--usd", "1", "--alert-at", "2"], "--alert-at"),
        (["--all", "--per", "week", "--usd", "1"], "day"),
    ],
)
@pytest.mark.usefixtures("state")
def test_a_budget_that_cannot_be_is_refused(arguments: list[str], what: str) -> None:
    found = run("set", *arguments)
    assert found.exit_code == 2
    assert what in found.stderr
