"""Ten thousand calls with faults, twenty thousand while the worker is killed ten times, and the memory of 100,000."""

import asyncio
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Final

import psutil

from serving.classifier.bundle import Bundle
from tests import test_gateway_kill, test_gateway_load
from tests.benchmarks.calls import load
from tests.faulty_load import calls_with_faults
from tests.killing import killed_under_load
from tests.server import serving
from tests.stand_in.server import StandIn, running

MAX_GROWTH_MB: Final = 32.0


def test_ten_thousand_calls_with_faults(tmp_path: Path, bundle: Bundle) -> None:
    process, began = psutil.Process(), time.perf_counter()
    before = process.memory_info().rss
    ends, provider, booked = calls_with_faults(tmp_path, bundle, 10_000)
    grown = (process.memory_info().rss - before) / 2**20
    print(f"\n{time.perf_counter() - began:.0f} s, {len(booked):,} attempts; the process, with provider and clients in "
          f"it, grew by {grown:.0f} MB; ends: {dict(ends.most_common())}")  # fmt: skip
    test_gateway_load.check(ends, provider, booked, calls=10_000)


def test_twenty_thousand_calls_and_ten_kills(tmp_path: Path, trained_home: Path) -> None:
    for name in ("served", "encoders"):
        shutil.copytree(trained_home / name, tmp_path / "state" / name)
    began = time.perf_counter()
    found = killed_under_load(tmp_path / "state", tmp_path, calls=20_000, kills=10)
    print(f"\n{time.perf_counter() - began:.0f} s, {len(found.kills)} kills: {len(found.answers):,} answers, broken "
          f"{dict(found.broken)}, events {Counter(event.status for event in found.events)}")  # fmt: skip
    test_gateway_kill.check(found, calls=20_000, kills=10)


def test_memory_is_flat_over_a_hundred_thousand_calls(tmp_path: Path, trained_home: Path) -> None:
    for name in ("served", "encoders"):
        shutil.copytree(trained_home / name, tmp_path / "state" / name)
    memory = []
    with running(StandIn(models=("small",), keep_asked=0)) as url:
        upstreams = json.dumps([{"name": "stand-in", "base_url": url, "key_env": "STAND_IN_KEY"}])
        told = {"TIERWISE_UPSTREAMS": upstreams, "STAND_IN_KEY": "made-up", "TIERWISE_LOG_REQUESTS": "false"}
        with serving(tmp_path / "state", tmp_path, **told) as service:
            worker = max(
                psutil.Process(service.process.pid).children(recursive=True), key=lambda child: child.memory_info().rss
            )
            for _ in range(10):
                asyncio.run(load(f"{service.client.base_url}/v1", "small", 10_000))
                memory.append(worker.memory_info().rss / 2**20)
    print(f"\nMB after each 10,000 calls: {[round(one) for one in memory]}")
    assert memory[-1] - memory[1] < MAX_GROWTH_MB
