"""The question that LiteLLM asks of an outside classifier: of these tiers, which one for this text?

Form: litellm 1.106.2, `router_strategy/complexity_router/jev_classifier.py`, which posts it to `/v1/systemone`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.deciding import AUTO, Decider
from serving.errors import InputError
from serving.http.body import as_object, read_json
from serving.http.decisions import decides_for
from serving.routing.router import Decision
from serving.settings import Settings
from serving.tiers import Tier

_MOST_QUESTIONS: Final = 128  # as many as LiteLLM lets through
_ASKED_ABOUT: Final = "\nClassify this message:\n"
"""Where LiteLLM's text comes to the last turn, after the system prompt and some turns before it, if there are any
(litellm 1.106.2, `complexity_router.py`, `_classifier_context_payload`)."""


class SystemOneResource:
    """The handler of `/v1/systemone`."""

    def __init__(self, decider: Decider, settings: Settings) -> None:
        self._decider = decider
        self._limit = settings.max_request_bytes

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        return [Route("/v1/systemone", self.answer, methods=["POST"])]

    async def answer(self, request: Request) -> Response:
        """One decision, told as the answer to each question about it."""
        payload = as_object(await read_json(request, self._limit), where="body", holding="`state` and `questions`")
        tiers = self._decider.router.tiers
        labels = {name: _labels(question, tiers, f"questions.{name}") for name, question in _questions(payload)}
        asked = {**_said(_text(payload.get("state"))), "policy": _policy(payload.get("model"))}
        by = decides_for(request)
        decision = await self._decider.decide(self._decider.read(asked, by))
        self._decider.withdraw(decision, by)  # of a call that others account for nothing is held
        chosen = [tier.name for tier in tiers].index(decision.tier)
        body = {
            "model": decision.router,
            "decision_id": decision.id,
            "answers": {name: _answer(given, chosen, decision) for name, given in labels.items()},
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return Response(json.dumps(body), media_type="application/json")


def _questions(payload: Mapping[str, object]) -> Sequence[tuple[str, Any]]:
    questions = payload.get("questions")
    if not isinstance(questions, dict) or not 1 <= len(questions) <= _MOST_QUESTIONS:
        raise InputError(f"must be an object of 1 to {_MOST_QUESTIONS} questions by their names", where="questions")
    return list(questions.items())


def _labels(question: object, tiers: Sequence[Tier], where: str) -> list[str]:
    """The label of each tier, cheapest first: the ladder's own names in any order, or as many others in its order.

    Raises InputError where the question is another.
    """
    criteria = question.get("criteria") if isinstance(question, dict) and question.get("type") == "choice" else None
    if not isinstance(criteria, dict):
        raise InputError("must be a `choice` with `criteria` that name the tiers: no other is answered", where=where)
    names = [tier.name for tier in tiers]
    by_name = {label.lower(): label for label in criteria}
    if sorted(by_name) == sorted(map(str.lower, names)):
        return [by_name[name.lower()] for name in names]
    if len(criteria) != len(tiers):
        raise InputError(
            f"must name the tiers {', '.join(names)}, or as many others, cheapest first; not {len(criteria)}",
            where=f"{where}.criteria",
        )
    return list(criteria)


def _text(state: object) -> str:
    if isinstance(state, str):
        return state
    if isinstance(state, dict | list):
        return json.dumps(state, ensure_ascii=False)
    raise InputError("must be the text to judge, or JSON", where="state")


def _said(text: str) -> dict[str, object]:
    """The text as a request to decide about. What comes before the last turn is taken as its instructions: at the first
    mark, so that nothing a client writes into its turn takes a part of that from what is judged."""
    before, mark, turn = f"\n{text}".partition(_ASKED_ABOUT)
    if not mark:
        return {"prompt": text}
    instructions = [{"role": "system", "content": before[1:]}] if before.strip() else []
    return {"messages": [*instructions, {"role": "user", "content": turn}]}


def _policy(model: object) -> str | None:
    """What `auto:POLICY` asks for; any other name of a model is the asker's own."""
    if not isinstance(model, str | None):
        raise InputError(f"must be text, not {type(model).__name__}", where="model")
    name, _, policy = (model or "").partition(":")
    return policy or None if name == AUTO else None


def _answer(labels: Sequence[str], chosen: int, decision: Decision) -> dict[str, object]:
    """confidence: P(acceptable) at the chosen tier. probabilities: with which each was to be chosen; without
    exploration, 1 of the chosen one."""
    others = (1 - decision.propensity) / (len(labels) - 1)
    return {
        "type": "choice",
        "choice": labels[chosen],
        "confidence": decision.probabilities[decision.tier],
        "probabilities": {
            label: decision.propensity if place == chosen else others for place, label in enumerate(labels)
        },
    }
