"""What is kept of sessions: between workers, for how long, how many, and what happens when the file fails."""

import logging
import sqlite3
from pathlib import Path

import pytest

from serving.attribution import Attribution
from serving.routing.sessions import Kept, Sessions

WHO = Attribution(team="search", session_id="session-4711")
LOW, HIGH = Kept("low", 0.75), Kept("high", 0.25)


class Clock:
    """A clock that stands still until it is moved."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def store(folder: Path, clock: Clock | None = None, **options: object) -> Sessions:
    return Sessions(folder / "sessions.db", clock=clock or Clock(), **{"ttl_s": 100, "most": 5000} | options)  # type: ignore[arg-type]


def test_a_worker_finds_what_another_has_kept(tmp_path: Path) -> None:
    one, other = store(tmp_path), store(tmp_path)
    assert other.find(WHO) is None
    one.keep(WHO, LOW, instead_of=None)
    assert other.find(WHO) == LOW


def test_of_two_workers_with_the_first_request_of_a_session_the_first_wins(tmp_path: Path) -> None:
    one, other = store(tmp_path), store(tmp_path)
    one.keep(WHO, LOW, instead_of=None)
    other.keep(WHO, HIGH, instead_of=None)
    assert one.find(WHO) == LOW


def test_what_was_found_can_be_replaced(tmp_path: Path) -> None:
    sessions = store(tmp_path)
    sessions.keep(WHO, LOW, instead_of=None)
    sessions.keep(WHO, HIGH, instead_of=LOW)
    assert sessions.find(WHO) == HIGH


def test_the_same_session_of_another_team_is_another(tmp_path: Path) -> None:
    sessions = store(tmp_path)
    sessions.keep(WHO, LOW, instead_of=None)
    assert sessions.find(Attribution(team="sales", session_id="session-4711")) is None
    assert sessions.find(Attribution(session_id="session-4711")) is None


def test_a_session_is_forgotten_when_it_was_not_seen_for_its_time(tmp_path: Path) -> None:
    clock = Clock()
    sessions = store(tmp_path, clock)
    sessions.keep(WHO, LOW, instead_of=None)
    for _ in range(5):
        clock.now += 90
        assert sessions.find(WHO) == LOW
    clock.now += 101
    assert sessions.find(WHO) is None
    sessions.keep(WHO, HIGH, instead_of=None)
    assert sessions.find(WHO) == HIGH


def test_only_hashes_of_sessions_are_on_disk(tmp_path: Path) -> None:
    sessions = store(tmp_path)
    sessions.keep(WHO, LOW, instead_of=None)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"low" in written
    assert b"4711" not in written
    assert b"search" not in written


def test_the_least_recently_seen_go_when_there_are_too_many(tmp_path: Path) -> None:
    clock = Clock()
    sessions = store(tmp_path, clock, ttl_s=10**6, most=300)
    for i in range(2000):
        clock.now += 1
        sessions.keep(Attribution(session_id=str(i)), LOW, instead_of=None)
    with sqlite3.connect(tmp_path / "sessions.db") as database:
        assert database.execute("SELECT count(*) FROM sessions").fetchone() == (300,)
    assert sessions.find(Attribution(session_id="1699")) is None
    assert sessions.find(Attribution(session_id="1700")) == LOW


def test_a_damaged_file_costs_stickiness_only_and_is_told_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sessions.db").write_bytes(b"this is no database" * 1000)
    failures: list[int] = []
    sessions = store(tmp_path, on_failure=lambda: failures.append(1))
    assert sessions.find(WHO) is None
    sessions.keep(WHO, LOW, instead_of=None)
    assert len(failures) == 2
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "4711" not in record.getMessage()


def test_a_file_that_is_mended_is_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("a file where the folder should be")
    sessions = Sessions(folder / "sessions.db", ttl_s=100, most=5000)
    sessions.keep(WHO, LOW, instead_of=None)
    folder.unlink()
    sessions.keep(WHO, LOW, instead_of=None)
    assert sessions.find(WHO) == LOW


def test_a_stuck_writer_is_not_waited_for(tmp_path: Path) -> None:
    failures: list[int] = []
    sessions = store(tmp_path, on_failure=lambda: failures.append(1))
    sessions.keep(WHO, LOW, instead_of=None)
    stuck = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    stuck.execute("BEGIN IMMEDIATE")
    assert sessions.find(WHO) == LOW
    sessions.keep(Attribution(session_id="other"), LOW, instead_of=None)
    assert failures == [1]
    stuck.close()
