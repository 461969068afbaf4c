"""The loop closes: what the service decided and was told becomes the next router, with text and without."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.loop import answers_with, in_service, retrain, run, send_all
from tests.traffic import REQUESTS


def count(folder: Path, query: str) -> Any:
    with closing(sqlite3.connect(folder / "state" / "ledger.db")) as ledger:
        return ledger.execute(query).fetchone()[0]


@pytest.mark.parametrize("store_text", [False, True], ids=["without text", "with text"])
def test_traffic_and_feedback_become_the_router_that_answers(
    store_text: bool, tmp_path: Path, small_training: Path
) -> None:
    with in_service(tmp_path, small_training, TIERWISE_STORE_TEXT=str(store_text)) as service:
        routers = send_all(service)
        assert len(routers) == 1
        assert count(tmp_path, "SELECT count(*) FROM decisions") == REQUESTS
        assert count(tmp_path, "SELECT count(*) FROM events WHERE cost_pico_usd > 0") == REQUESTS
        kept = "SELECT count(*) FROM decisions WHERE request IS NOT NULL"
        assert count(tmp_path, kept) == (REQUESTS if store_text else 0)
        comments = count(tmp_path, "SELECT count(*) FROM feedback WHERE comment IS NOT NULL")
        assert (comments > 0) == store_text
        printed = retrain(tmp_path, small_training)
        assert printed.startswith("version 2, promoted")
        assert answers_with(service, "2")
        assert f"{REQUESTS:,} requests" in run(tmp_path, "report")
