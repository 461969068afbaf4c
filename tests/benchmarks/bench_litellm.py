"""How many calls does a second of CPU buy, here and in LiteLLM's proxy, on the same work?

LITELLM is its command, in an environment that has `litellm[proxy]==1.106.2`; without it nothing is measured.
Both choose a model of three by the prompt, LiteLLM by its rules, and call the same stand-in.
"""

import asyncio
import json
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from serving.routing.promoted import PromotedRouter
from tests.benchmarks.calls import command, load, module, told
from tests.benchmarks.figures import Figure
from tests.benchmarks.running import cpu_s, running_service
from tests.server import free_port

CALLS: Final = 200  # a block
BLOCKS: Final = 5
LEAST_TIMES_REPEATED: Final = 6.0
_KEY: Final = "sk-made-up-for-a-benchmark-on-loopback"
_RUNGS: Final = ("SIMPLE", "MEDIUM", "COMPLEX", "REASONING")


def measure(home: Path) -> Iterator[Figure]:
    """In turns, with one worker each; CPU of all their processes."""
    litellm = os.environ.get("LITELLM")
    if litellm is None:
        print("benchmark litellm: LITELLM does not say where it is; nothing is measured", file=sys.stderr)
        return
    promoted = PromotedRouter(home)
    promoted.refresh()
    models = [tier.models[0] for tier in promoted.router.tiers]
    at, other = free_port(), free_port()
    provider, proxy = f"http://127.0.0.1:{at}/v1", f"http://127.0.0.1:{other}"
    config = home / "litellm.json"  # which is YAML as well
    config.write_text(json.dumps(_config(models, provider)), "utf-8")
    upstreams = json.dumps([{"name": "stand-in", "base_url": provider, "key_env": "STAND_IN_KEY"}])
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(other), "--num_workers", "1"]
    quiet = {"LITELLM_MASTER_KEY": _KEY, "LITELLM_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
             "LITELLM_LOG": "ERROR", "OMP_NUM_THREADS": "1"}  # fmt: skip
    with (
        module("tests.stand_in", "--port", str(at), "--models", *models, ready=f"{provider}/models"),
        command([litellm, *options], ready=f"{proxy}/health/liveliness", **quiet) as theirs,
        told({"TIERWISE_UPSTREAMS": upstreams}),
        running_service(home) as service,
    ):
        ours = f"http://127.0.0.1:{service.port}/v1"
        for fresh in (False, True):
            ms: tuple[list[float], list[float]] = ([], [])
            for block in range(BLOCKS + 1):  # the first warms up
                a = _cpu_ms(service.process, ours, "auto", fresh=fresh)
                b = _cpu_ms(theirs, f"{proxy}/v1", "smart", fresh=fresh)
                if block:
                    ms[0].append(a)
                    ms[1].append(b)
            yield from _compared(ms, fresh=fresh)


def _compared(ms: tuple[list[float], list[float]], *, fresh: bool) -> Iterator[Figure]:
    ours, theirs = map(statistics.median, ms)
    of = "new prompt" if fresh else "repeated prompt"
    yield Figure("litellm", f"CPU of a call, {of}: Tierwise", ours, "ms")
    yield Figure("litellm", f"CPU of a call, {of}: LiteLLM's proxy", theirs, "ms")
    ratio = statistics.median([b / a for a, b in zip(*ms, strict=True)])
    bar = None if fresh else LEAST_TIMES_REPEATED
    yield Figure("litellm", f"calls a CPU second, {of}: Tierwise ÷ LiteLLM", ratio, "×", bar, at_least=True)


def _cpu_ms(process: psutil.Process, url: str, model: str, *, fresh: bool) -> float:
    family = [process, *process.children(recursive=True)]
    before = sum(map(cpu_s, family))
    asyncio.run(load(url, model, CALLS, key=_KEY, fresh=fresh))
    return 1e3 * (sum(map(cpu_s, family)) - before) / CALLS


def _config(models: list[str], provider: str) -> dict[str, object]:
    """Of LiteLLM: the models, and its complexity router over them, whose four rungs share three tiers."""
    listed = [
        {"model_name": model, "litellm_params": {"model": f"openai/{model}", "api_base": provider, "api_key": "any"}}
        for model in models
    ]
    tiers = dict(zip(_RUNGS, [*models, *models[-1:] * len(_RUNGS)], strict=False))
    smart = {"model": "auto_router/complexity_router", "complexity_router_config": {"tiers": tiers}}
    return {"model_list": [*listed, {"model_name": "smart", "litellm_params": smart}],
            "litellm_settings": {"telemetry": False}}  # fmt: skip
