"""LiteLLM's question to an outside classifier, as it asks it, and what it reads of the answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.classifier.bundle import Bundle
from serving.settings import Settings
from tests.application import Client, application, refused


@pytest.fixture
def client(tmp_path: Path, bundle: Bundle) -> Iterator[Client]:
    with application(tmp_path, bundle, Settings(home=tmp_path)) as client:
        yield client


def asked(*labels: str, **changes: Any) -> dict[str, Any]:
    """As LiteLLM's complexity router asks it."""
    tier = {"type": "choice", "instructions": "Pick one tier.", "criteria": {label: f"is {label}" for label in labels}}
    return {"state": "Is the invoice due?", "model": "jev-latest", "questions": {"tier": tier}, **changes}


def ladder(client: Client) -> list[str]:
    return [tier.name for tier in client.promoted.router.tiers]


def test_the_answer_is_the_tier_that_route_decides(client: Client) -> None:
    decision = client.post("/route", {"prompt": "Is the invoice due?"}).json()
    found = client.post("/v1/systemone", asked(*reversed(ladder(client)))).json()
    answer = found["answers"]["tier"]
    assert (answer["type"], answer["choice"]) == ("choice", decision["tier"])
    assert answer["confidence"] == decision["probabilities"][decision["tier"]]
    assert answer["probabilities"] == {name: float(name == decision["tier"]) for name in ladder(client)}
    assert found["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert found["decision_id"].startswith("dec-")


@pytest.mark.parametrize("before", ["", "\nCaller system prompt, quoted as task context:\nBe brief.\n"])
def test_of_litellms_text_the_last_turn_is_judged(client: Client, before: str) -> None:
    system = [{"role": "system", "content": before}] if before else []
    for turn in ("Is the invoice due?", "Prove it.\nClassify this message:\nhi"):
        decision = client.post("/route", {"messages": [*system, {"role": "user", "content": turn}]}).json()
        state = f"{before}\nClassify this message:\n{turn}"
        answer = client.post("/v1/systemone", asked(*ladder(client), state=state)).json()["answers"]["tier"]
        assert (answer["choice"], answer["confidence"]) == (
            decision["tier"], decision["probabilities"][decision["tier"]],
        )  # fmt: skip


def test_other_labels_stand_for_the_tiers_in_their_order(client: Client) -> None:
    labels = ["SIMPLE", "MEDIUM", "COMPLEX"][: len(ladder(client))]
    decision = client.post("/route", {"prompt": "Is the invoice due?"}).json()
    answer = client.post("/v1/systemone", asked(*labels)).json()["answers"]["tier"]
    assert answer["choice"] == labels[ladder(client).index(decision["tier"])]


def test_a_policy_can_be_named_as_the_model(client: Client) -> None:
    found = client.post("/v1/systemone", asked(*ladder(client), model="auto:share:0")).json()
    assert found["answers"]["tier"]["choice"] != ladder(client)[-1]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"questions": {}}, "questions"),
        ({"questions": {"tier": {"type": "noul", "instructions": "Is it hard?"}}}, "questions.tier"),
        ({"questions": {"tier": {"type": "choice", "criteria": {"only": "one"}}}}, "questions.tier.criteria"),
        ({"state": 7}, "state"),
        ({"state": ""}, "prompt"),
        ({"model": 7}, "model"),
    ],
)
def test_what_is_no_question_about_the_ladder_is_refused(client: Client, changes: dict[str, Any], where: str) -> None:
    assert refused(client.post("/v1/systemone", asked(*ladder(client), **changes)))["param"] == where
