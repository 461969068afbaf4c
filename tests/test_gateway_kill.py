"""`kill -9` of a worker under load: it comes back by itself, and every answer a client has is in the ledger."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.killing import AT_ONCE, Outcome, killed_under_load


@pytest.fixture
def home(tmp_path: Path, trained_home: Path) -> Path:
    for name in ("served", "encoders"):
        shutil.copytree(trained_home / name, tmp_path / "state" / name)
    return tmp_path / "state"


def test_every_answer_has_its_event_and_what_was_cut_off_is_there_as_unknown(tmp_path: Path, home: Path) -> None:
    check(killed_under_load(home, tmp_path, calls=600, kills=2), calls=600, kills=2)


def check(found: Outcome, *, calls: int, kills: int) -> None:
    """What must hold however often it is killed."""
    assert len(set(found.kills)) == kills
    assert len(found.answers) + found.broken.total() == calls
    assert found.broken.total() <= kills * AT_ONCE, found.broken
    settled = Counter(event.completion_id for event in found.events if event.status == "ok")
    assert len(set(found.answers)) == len(found.answers)
    assert all(settled[answer] == 1 for answer in found.answers)
    assert max(Counter((event.tenant, event.key) for event in found.events).values()) == 1
    cut_off = [event for event in found.events if event.status == "started"]
    assert 0 < len(cut_off) <= kills * AT_ONCE
    assert all(event.cost is None for event in cut_off)
    assert {event.status for event in found.events} == {"ok", "started"}
