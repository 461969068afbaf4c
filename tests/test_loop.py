"""The loop closes: what the service decided and was told becomes the next router, with text and without."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.loop import (
    answers_with,
    first_router,
    in_front_of_a_provider,
    in_service,
    retrain,
    run,
    send_all,
    send_all_through,
)
from tests.traffic import REQUESTS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small_training: Path) -> Path:
    """A folder with a first router, to be copied."""
    folder = tmp_path_factory.mktemp("first")
    first_router(folder, small_training)
    return folder


@pytest.fixture
def folder(tmp_path: Path, trained: Path) -> Path:
    shutil.copytree(trained, tmp_path / "loop")
    return tmp_path / "loop"


def count(folder: Path, query: str) -> Any:
    with closing(sqlite3.connect(folder / "state" / "ledger.db")) as ledger:
        return ledger.execute(query).fetchone()[0]


@pytest.mark.parametrize("store_text", [False, True], ids=["without text", "with text"])
def test_traffic_and_feedback_become_the_router_that_answers(
    store_text: bool, folder: Path, small_training: Path
) -> None:
    with in_service(folder, TIERWISE_STORE_TEXT=str(store_text)) as service:
        routers = send_all(service)
        assert len(routers) == 1
        assert count(folder, "SELECT count(*) FROM decisions") == REQUESTS
        assert count(folder, "SELECT count(*) FROM events WHERE cost_pico_usd > 0") == REQUESTS
        kept = "SELECT count(*) FROM decisions WHERE request IS NOT NULL"
        assert count(folder, kept) == (REQUESTS if store_text else 0)
        comments = count(folder, "SELECT count(*) FROM feedback WHERE comment IS NOT NULL")
        assert (comments > 0) == store_text
        printed = retrain(folder, small_training)
        assert printed.startswith("version 2, promoted")
        assert answers_with(service, "2")
        assert f"{REQUESTS:,} requests" in run(folder, "report")


def test_calls_through_the_gateway_become_the_router_that_answers(folder: Path, small_training: Path) -> None:
    with in_front_of_a_provider(folder) as service:
        routers = send_all_through(service)
        assert len(routers) == 1
        assert count(folder, "SELECT count(*) FROM decisions") == REQUESTS
        answered = "SELECT count(*) FROM events WHERE status = 'ok' AND cost_pico_usd > 0 AND decision_id IS NOT NULL"
        assert count(folder, answered) == REQUESTS
        assert count(folder, "SELECT count(*) FROM decisions WHERE request IS NOT NULL") == 0
        assert retrain(folder, small_training).startswith("version 2, promoted")
        assert answers_with(service, "2")
        assert f"{REQUESTS:,} requests" in run(folder, "report")
