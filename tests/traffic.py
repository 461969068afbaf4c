"""A thousand requests of a made-up company through the whole loop: route → call → record → feedback.

The prompts are those of `datasets/sample_log.jsonl` and some more; the models are a stand-in on loopback that answers
in OpenAI's shape, and what people think of its answers is drawn by a rule: nothing here says how good any model is.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import httpx
from openai import OpenAI

from tests.stand_in.server import StandIn, running

SAMPLE_LOG: Final = Path(__file__).parent.parent / "datasets" / "sample_log.jsonl"
REQUESTS: Final = 1_000

TIERS: Final = """
[[tiers]]
name = "economy"
models = ["gpt-4.1-nano"]
usd_per_mtok_in = 0.1
usd_per_mtok_out = 0.4

[[tiers]]
name = "standard"
models = ["gpt-4.1-mini"]
usd_per_mtok_in = 0.4
usd_per_mtok_out = 1.6

[[tiers]]
name = "premium"
models = ["gpt-4.1"]
usd_per_mtok_in = 2
usd_per_mtok_out = 8
"""
"""Prices as OpenAI published them in April 2025."""

_EASY: Final = {"gpt-4.1-nano": 0.85, "gpt-4.1-mini": 0.93, "gpt-4.1": 0.97}
_HARD: Final = {"gpt-4.1-nano": 0.30, "gpt-4.1-mini": 0.65, "gpt-4.1": 0.93}
_LONG_CHARS: Final = 160
_SENT: Final = ("messages", "prompt", "tools", "response_format", "metadata")
_MADE: Final = (
    ("thank you for the parcel", "the meeting moves to Friday", "our shop is closed on Monday", "the invoice is paid",
     "please send us the signed form", "the lift is out of order", "we look forward to your visit"),
    ("Czech", "Danish", "Dutch", "Finnish", "Hungarian", "Italian", "Norwegian", "Polish", "Portuguese", "Romanian",
     "Spanish", "Swedish", "Turkish", "Ukrainian", "Welsh", "Basque", "Catalan", "Estonian", "Greek", "Icelandic"),
)  # fmt: skip


def requests() -> list[dict[str, Any]]:
    """A thousand payloads for `/route`, each with an id of its own and a user."""
    rows = [json.loads(line) for line in SAMPLE_LOG.read_text("utf-8").splitlines()]
    found = [{name: row[name] for name in _SENT if row.get(name) is not None} for row in rows]
    made = [f"Translate into {language}: {text}" for text, language in product(*_MADE)]
    metadata = {"team": "support", "feature": "translation", "task": "translation"}
    found += [{"prompt": prompt, "metadata": metadata} for prompt in made]
    return [
        payload | {"request_id": f"own-{i}", "user": f"user-{i % 40}"} for i, payload in enumerate(found[:REQUESTS])
    ]


def drawn(*parts: str) -> float:
    """A number in [0, 1) that the parts alone decide."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8]) / 2**64


def acceptable(payload: dict[str, Any], model: str) -> bool:
    """The rule by which an answer is good enough: weak models fail at most long requests and at those with tools."""
    text = json.dumps([payload.get("messages"), payload.get("prompt")], ensure_ascii=False)
    hard = len(text) > _LONG_CHARS or bool(payload.get("tools"))
    return drawn("acceptable", text, model) < (_HARD if hard else _EASY)[model]


@contextmanager
def provider() -> Iterator[str]:
    """The base URL of one that is none."""
    with running(StandIn(models=tuple(_EASY))) as url:
        yield url


@contextmanager
def stand_in() -> Iterator[httpx.Client]:
    """A client of it."""
    with provider() as url, httpx.Client(base_url=url, trust_env=False) as client:
        client.headers["authorization"] = "Bearer made-up"
        yield client


@dataclass
class Loop:
    """A client that asks the service before each call, calls, and tells what it cost and whether it was any good."""

    service: httpx.Client
    provider: httpx.Client

    def send(self, number: int, payload: dict[str, Any]) -> str:
        """One request to its end; gives the version of the router that decided it."""
        router, decision_id, answer = self._answered(payload)
        self._judge(number, payload, decision_id, answer)
        return router

    def _answered(self, payload: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """The router and the id of the decision, and what was answered."""
        decision = self._post(self.service, "/route", payload)
        asked = {"model": decision["model"], "messages": payload.get("messages") or [
            {"role": "user", "content": payload["prompt"]}], "user": payload["request_id"]}  # fmt: skip
        answer = self._post(self.provider, "/chat/completions", asked)
        call = {
            "model": answer["model"],
            "usage": answer["usage"],
            "decision_id": decision["id"],
            "completion_id": answer["id"],
            "user": payload["user"],
            "metadata": payload.get("metadata"),
        }
        self._post(self.service, "/ledger/events", call)
        return decision["router"], decision["id"], answer

    def _judge(self, number: int, payload: dict[str, Any], decision_id: str, answer: dict[str, Any]) -> None:
        """By one of the three ids; now and then wrongly first, and of some answers nobody says anything."""
        id_ = (decision_id, answer["id"], payload["request_id"])[number % 3]
        good = acceptable(payload, answer["model"])
        if number % 10 == 0:
            self._post(self.service, "/v1/feedback", {"id": id_, "acceptable": not good})
        if number % 17 == 0:
            return
        said: dict[str, Any] = {"acceptable": good}
        if not good and number % 5 == 0:
            said = {"kind": ("regenerate", "escalate", "edit")[number % 3]}
        found = self._post(self.service, "/v1/feedback", {"id": id_, "comment": "a note", **said})
        assert found["matched"] == ("call" if number % 3 == 1 else "decision"), found

    @staticmethod
    def _post(client: httpx.Client, path: str, payload: object) -> dict[str, Any]:
        answer = client.post(path, json=payload)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@dataclass
class GatewayLoop(Loop):
    """A client of OpenAI's that was pointed at the service, asks for `auto`, and tells whether it was any good."""

    client: OpenAI

    def _answered(self, payload: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        messages = payload.get("messages") or [{"role": "user", "content": payload["prompt"]}]
        rest = {name: payload[name] for name in ("tools", "response_format", "metadata") if name in payload}
        raw = self.client.chat.completions.with_raw_response.create(
            model="auto", messages=messages, user=payload["user"], **rest,
            extra_headers={"x-tierwise-request-id": payload["request_id"]},
        )  # fmt: skip
        headers = raw.headers
        return headers["x-tierwise-router"], headers["x-tierwise-decision"], raw.parse().model_dump()
