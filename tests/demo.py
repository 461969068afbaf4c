"""A look at the gateway without a provider or a bill: where some thirty requests go, why, and what they would cost.

python -m tests.demo

The provider is a stand-in on loopback with no model behind it: its answers are made-up words. The service and the
router are real: the one promoted in TIERWISE_HOME, else one trained on the public outcomes. All state is in a folder
that goes at the end.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import openai
from openai import OpenAI

from serving.classifier.bundle import Manifest
from serving.routing.promoted import is_promoted, promoted_manifest
from tests.server import environment, serving, tierwise
from tests.stand_in.server import StandIn, running

_SHOWN: Final = 44  # characters of a prompt
_TOOL: Final = {
    "type": "function",
    "function": {"name": "find_order", "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}}},
}
_JSON: Final = {"type": "json_object"}
_LONG: Final = (
    "Summarise what follows in three sentences. " + "The delivery was late, and the customer wrote again. " * 60
)


class Asked(NamedTuple):
    """A request of the demo."""

    team: str
    prompt: str
    changes: dict[str, Any] = {}  # noqa: RUF012 -- read only


WORKLOAD: Final = (
    *(Asked("support", f"Translate into {language}: the parcel is on its way") for language in ("Dutch", "Polish")),
    Asked("support", "What is the capital of Portugal?"),
    Asked("support", "Is 17 a prime number?"),
    Asked("support", "Write a friendly reply to a customer whose order is late."),
    Asked("support", "Please find_order 4711 and say where it is.", {"tools": [_TOOL]}),
    Asked("support", "Give the order number in this mail as JSON: 'about order 4711'", {"response_format": _JSON}),
    Asked("support", _LONG),
    Asked("support", "Say hello.", {"stream": True}),
    Asked("data", "Write a SQL query for the ten customers with the highest revenue last year."),
    Asked("data", "Why does a hash join need memory, and when would a merge join be better?"),
    Asked("data", "Derive the maximum likelihood estimate of the rate of a Poisson process with missing days."),
    Asked("data", "Prove that a symmetric real matrix has real eigenvalues."),
    Asked("data", "Rename the column `qty` to `quantity` in: SELECT qty FROM orders", {"stream": True}),
    Asked("data", "Find the race condition in a cache that is filled by two threads without a lock, and mend it."),
    Asked("legal", "Which clause of a lease says who pays for repairs?"),
    Asked("legal", "Compare liability under a service contract and under a work contract, with the exceptions."),
    Asked("legal", "Give the three dates in this letter as JSON: 1 May, 3 June, 9 July", {"response_format": _JSON}),
    Asked("legal", "Draft a notice of termination for a supply contract of ten years.", {"stream": True}),
    *(Asked("search", f"Correct the spelling: {word}") for word in ("recieve", "adress", "seperate", "definately")),
    Asked("search", "Group these queries by intent: shoes, running shoes, where to buy shoes, shoe size chart"),
    Asked("search", "Give synonyms for 'cheap'.", {"model": "auto:share:0"}),
    Asked("search", "Give synonyms for 'cheap'.", {"model": "auto:value:1"}),
    Asked("search", "What would the strongest model say?", {"model": "strongest"}),
    Asked("search", "This asks for a model that nobody has.", {"model": "no-such-model", "temperature": 3}),
)


def main() -> None:
    """Print what became of each request, and the report."""
    with tempfile.TemporaryDirectory(prefix="tierwise-demo-") as name:
        folder = Path(name)
        home = _home(folder)
        manifest = promoted_manifest(home)
        assert manifest is not None, "a router was promoted a moment ago"
        models = [model for tier in manifest.tiers for model in tier.models]
        provider = StandIn(models=tuple(models), latency_s=0.05)
        print("provider: a stand-in on loopback with no model behind it; its answers are made-up words")
        with running(provider) as url:
            upstreams = json.dumps([{"name": "stand-in", "base_url": url, "key_env": "STAND_IN_KEY"}])
            told = {"TIERWISE_UPSTREAMS": upstreams, "STAND_IN_KEY": "made-up", "TIERWISE_POLICY": _policy(manifest),
                    "TIERWISE_ALIASES": json.dumps({"strongest": models[-1]})}  # fmt: skip
            with serving(home, folder, **told) as service:
                provider.plan.order(models[0], "overloaded")  # the first call to it is tried again
                at = f"{service.client.base_url}/v1"
                with OpenAI(
                    base_url=at, api_key="any", max_retries=0, http_client=httpx.Client(trust_env=False)
                ) as client:
                    for line in _answers(client):
                        print(line)
        print()
        print(_run(home, folder, "report"))


def _answers(client: OpenAI) -> Iterator[str]:
    yield ""
    yield f"{'team':<8} {'prompt':<{_SHOWN}} {'tier':<10} {'model':<30} {'why':<12} tries  tokens        USD"
    for asked in WORKLOAD:
        shown = asked.prompt if len(asked.prompt) <= _SHOWN else f"{asked.prompt[: _SHOWN - 1]}…"
        told = {"model": "auto", "messages": [{"role": "user", "content": asked.prompt}],
                "metadata": {"team": asked.team}, **asked.changes}  # fmt: skip
        try:
            raw = client.chat.completions.with_raw_response.create(**told)
        except openai.APIStatusError as error:
            yield f"{asked.team:<8} {shown:<{_SHOWN}} refused with {error.status_code}: {error.message[:60]}"
            continue
        headers = raw.headers
        if asked.changes.get("stream"):
            model, tokens = [chunk.model for chunk in raw.parse()][-1], "stream"
        else:
            answer = raw.parse()
            model, tokens = answer.model, str(answer.usage.total_tokens)
        tier, why = headers.get("x-tierwise-tier", "–"), headers.get("x-tierwise-reason", "by name")
        cost = headers.get("x-tierwise-cost-usd", "see report")
        yield (
            f"{asked.team:<8} {shown:<{_SHOWN}} {tier:<10} {model[:30]:<30} {why:<12} "
            f"{headers['x-tierwise-attempts']:>5} {tokens:>7} {cost[:10]:>10}"
        )


def _home(folder: Path) -> Path:
    """A state folder with a router: a copy of the one in service, without its ledger, or one trained now."""
    home, own = folder / "state", Path(os.environ.get("TIERWISE_HOME", ".tierwise"))
    if is_promoted(own):
        print(f"router: the one promoted in {own}")
        for part in ("served", "encoders"):
            shutil.copytree(own / part, home / part)
        return home
    print("router: none is promoted, so one is trained on the public outcomes, which takes a minute")
    home.mkdir()
    _run(home, folder, "train", "--promote")
    return home


def _policy(manifest: Manifest) -> str:
    """The usual one, where the router's log carries it; else one that needs no evidence."""
    promised = any(one.target == 0.95 and one.mu is not None for one in manifest.thresholds)
    policy = "quality:0.95" if promised else "value:0.01"
    print(f"policy: {policy}")
    return policy


def _run(home: Path, folder: Path, *arguments: str) -> str:
    found = subprocess.run(
        [tierwise(), *arguments], cwd=folder, env=environment(TIERWISE_HOME=str(home)), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if found.returncode:
        sys.exit(found.stderr)
    return found.stdout


if __name__ == "__main__":
    main()
