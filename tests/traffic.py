"""A thousand requests of a made-up company through the whole loop: route → call → record → feedback.

The prompts are those of `datasets/sample_log.jsonl` and some more; the models are a stand-in on loopback that answers
in OpenAI's shape, and what people think of its answers is drawn by a rule: nothing here says how good any model is.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any, Final

import httpx

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


class _StandIn(BaseHTTPRequestHandler):
    """Answers `POST /v1/chat/completions` as OpenAI would, with made-up words and tokens counted by length."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: the second would wait 40 ms for the first to be acknowledged

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        asked = json.loads(body)
        tokens_in = max(1, len(body) // 4)
        tokens_out = 20 + int(180 * drawn("tokens", body.decode()))
        answer = {
            "id": f"chatcmpl-{hashlib.sha256(body).hexdigest()[:24]}",
            "object": "chat.completion",
            "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "made up"}}],
            "usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out,
                      "total_tokens": tokens_in + tokens_out},
        }  # fmt: skip
        sent = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def stand_in() -> Iterator[httpx.Client]:
    """A client of a provider that is none."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _StandIn)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}/v1", trust_env=False) as client:
            yield client
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Loop:
    """A client that asks the service before each call, calls, and tells what it cost and whether it was any good."""

    service: httpx.Client
    provider: httpx.Client

    def send(self, number: int, payload: dict[str, Any]) -> str:
        """One request to its end; gives the version of the router that decided it."""
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
        self._judge(number, payload, decision["id"], answer)
        return str(decision["router"])

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
