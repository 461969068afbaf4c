"""The service as it runs: `tierwise serve` in a process of its own, and promotions under its feet."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.classifier.bundle import read_bundle, write_bundle
from serving.ledger.budgets import Budget
from serving.ledger.sqlite.store import SqliteLedger
from serving.routing.promoted import Pointer, pointed_to
from tests import server
from tests.factories import point
from tests.server import Server
from tests.stand_in.server import StandIn, running
from training.registry import Registry

_GIVE_UP_AFTER_S = 20.0  # on a busy machine; how soon a promotion is followed, `make bench` measures


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, trained_home: Path) -> Path:
    """A state folder of this module's own, with version 1 promoted and version 2 not."""
    home = tmp_path_factory.mktemp("service") / "state"
    for folder in ("served", "encoders"):
        shutil.copytree(trained_home / folder, home / folder)
    shutil.copy(trained_home / "mlflow.db", home / "mlflow.db")  # its artifacts are only read
    return home


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Server]:
    with server.serving(home, home.parent) as running:
        yield running


@pytest.fixture
def promoted(home: Path, service: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], str]]:
    """Promotes a version and gives the name its decisions will carry; version 1 serves again after the test."""
    monkeypatch.chdir(home.parent)
    registry = Registry(home)

    def promote(number: int) -> str:
        registry.promote(number)
        pointer = pointed_to(home)
        return f"{pointer.version}@{pointer.digest[:12]}"

    yield promote
    name = promote(1)
    assert within(_GIVE_UP_AFTER_S, lambda: service.status()["router"] == name and not service.status()["degraded"])


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_hard_budget_set_while_it_runs_refuses_decisions_until_it_is_taken_away(service: Server, home: Path) -> None:
    budget = Budget(scope="team", value="spent", period="month", limit_pico_usd=0, hard=True)
    asked = {"prompt": "one", "metadata": {"team": "spent"}}
    ledger = SqliteLedger(home / "ledger.db")
    ledger.set_budget(budget)
    decided: list[str] = []

    def refuses() -> bool:
        answer = service.client.post("/route", json=asked)
        decided.extend([answer.json()["id"]] if answer.is_success else [])
        return answer.status_code == 429

    assert within(_GIVE_UP_AFTER_S, refuses)
    answer = service.client.post("/route", json=asked)
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "budget_exceeded")
    assert "hard budget of team 'spent' for a month" in error["message"]
    assert int(answer.headers["retry-after"]) > 0
    others = service.client.post("/route/batch", json={"requests": [{"prompt": "one"}, asked]}).json()["data"]
    assert [item.get("object") for item in others] == ["routing.decision", None]
    assert others[1]["error"]["code"] == "budget_exceeded"
    ledger.remove_budget(budget)
    assert within(_GIVE_UP_AFTER_S, lambda: not refuses())

    def kept() -> list[str]:
        return [decision.id for decision, _, _ in ledger.logged() if decision.team == "spent"]

    assert within(_GIVE_UP_AFTER_S, lambda: decided[-1] in kept())
    assert sorted(kept()) == sorted(decided)  # those that were refused are not among them
    ledger.close()


def sample(service: Server, series: str) -> float:
    lines = service.client.get("/metrics").text.splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{series} ")), 0.0)


class Load:
    """A client that asks again and again, on a connection of its own, until it is told to stop."""

    def __init__(self, service: Server) -> None:
        self.answers: list[tuple[int, dict[str, Any]]] = []  # status and body
        self._url = service.client.base_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
            while not self._stop.is_set():
                response = client.post("/route", json={"prompt": f"Question {len(self.answers) // 2}"})
                self.answers.append((response.status_code, response.json()))


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_it_says_that_it_is_well(service: Server, path: str) -> None:
    assert service.client.get(path).status_code == 200


def test_it_decides_by_the_promoted_router(service: Server, home: Path) -> None:
    pointer = pointed_to(home)
    decision = service.route("What is the capital of Portugal?")
    assert decision["router"] == f"1@{pointer.digest[:12]}"
    assert decision["reason"] in ("policy", "target_refused")


def test_it_says_what_serves(service: Server, home: Path) -> None:
    status = service.status()
    assert (status["version"], status["digest"]) == ("1", pointed_to(home).digest)
    assert (status["degraded"], status["problem"]) == (False, None)
    assert status["encoder"]["name"] == "all-MiniLM-L6-v2"


def test_it_counts_decisions_and_has_no_series_for_unknown_paths(service: Server) -> None:
    service.route("hello")
    assert service.client.get("/never-heard-of").status_code == 404
    found = service.client.get("/metrics").text
    assert "tierwise_decisions_total{" in found
    assert sample(service, 'tierwise_requests_total{endpoint="unmatched",status="404"}') >= 1
    assert "never-heard-of" not in found
    assert sample(service, "tierwise_router_degraded") == 0


def test_it_says_what_its_promise_expects_of_the_traffic(service: Server) -> None:
    assert 0 < sample(service, 'tierwise_expected{of="top_probability"}') < 1
    assert 0 < sample(service, 'tierwise_expected{of="probability"}') < 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/route", b"{", 400),
        ("POST", "/route", b'{"prompt": "a\\u0000"}', 400),
        ("POST", "/route", b"[" * 100_000, 400),
        ("POST", "/route", b" " * 1_000_001, 413),
        ("GET", "/route", b"", 405),
        ("GET", "/", b"", 404),
        ("GET", "/docs.json", b"", 404),
        ("POST", "/healthz", b"", 405),
    ],
    ids=["no JSON", "NUL", "deep", "large", "GET", "index page", "BentoML's own document", "probe"],
)
def test_errors_have_one_shape_behind_bentoml_too(
    service: Server, method: str, path: str, body: bytes, status: int
) -> None:
    response = service.client.request(method, path, content=body)
    assert response.status_code == status
    assert list(response.json()["error"]) == ["message", "type", "param", "code"]


def test_an_answer_may_take_longer_than_bentoml_waits(tmp_path: Path, home: Path) -> None:
    with running(StandIn(models=("small",), latency_s=2.5)) as url:
        told = {
            "TIERWISE_UPSTREAMS": json.dumps([{"name": "stand-in", "base_url": url, "key_env": "STAND_IN_KEY"}]),
            "STAND_IN_KEY": "made-up",
            "BENTOML_CONFIG_OPTIONS": "services.tierwise.traffic.timeout=1",
        }
        with server.serving(home, tmp_path, **told) as other:
            body = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
            assert other.client.post("/v1/chat/completions", json=body).status_code == 200


def test_promotions_are_followed_without_a_failed_request(service: Server, promoted: Callable[[int], str]) -> None:
    with Load(service) as load:
        assert within(_GIVE_UP_AFTER_S, lambda: len(load.answers) >= 20)
        names = [load.answers[0][1]["router"]]
        for number in (2, 1, 2):
            name = promoted(number)
            assert within(_GIVE_UP_AFTER_S, lambda name=name: load.answers[-1][1]["router"] == name)  # type: ignore[misc]
            names.append(name)
    assert {status for status, _ in load.answers} == {200}
    assert "fallback" not in {body["reason"] for _, body in load.answers}
    assert {body["router"] for _, body in load.answers} == set(names)
    assert sample(service, 'tierwise_router_reloads_total{outcome="taken"}') >= 3


def test_a_corrupted_bundle_is_refused_and_the_old_router_serves_on_and_says_why(
    service: Server, home: Path, promoted: Callable[[int], str]
) -> None:
    name = promoted(1)
    assert within(_GIVE_UP_AFTER_S, lambda: service.status()["router"] == name)
    refused = sample(service, 'tierwise_router_reloads_total{outcome="refused"}')
    pointer = pointed_to(home)
    broken = home / "served" / f"3-broken-{time.time_ns()}"
    shutil.copytree(home / "served" / pointer.folder, broken)
    (broken / "heads.npz").write_bytes(b"not arrays")
    point(home, Pointer(version="3", folder=broken.name, digest=pointer.digest))
    assert within(_GIVE_UP_AFTER_S, lambda: service.status()["degraded"])
    status = service.status()
    assert (status["version"], status["router"]) == ("1", name)
    assert "heads.npz: sha256 is" in status["problem"]
    decision = service.route("What is the capital of Portugal?")
    assert decision["router"] == name
    assert decision["reason"] != "fallback"
    assert service.client.get("/readyz").status_code == 200
    assert within(5, lambda: sample(service, "tierwise_router_degraded") == 1)
    assert sample(service, 'tierwise_router_reloads_total{outcome="refused"}') == refused + 1


def test_a_router_that_computes_other_probabilities_here_is_refused(
    service: Server, home: Path, promoted: Callable[[int], str]
) -> None:
    name = promoted(1)
    source = read_bundle(home / "served" / pointed_to(home).folder)
    golden = tuple(row.model_copy(update={"proba": tuple(1 - p for p in row.proba)}) for row in source.golden)
    folder = home / "served" / f"4-golden-{time.time_ns()}"
    other = write_bundle(folder, replace(source, golden=golden))
    point(home, Pointer(version="4", folder=folder.name, digest=other.digest))
    assert within(_GIVE_UP_AFTER_S, lambda: service.status()["degraded"])
    assert "golden predictions are off by" in service.status()["problem"]
    assert service.status()["router"] == name


def test_each_request_is_one_line_of_json_in_its_log(service: Server) -> None:
    decision = service.route("which line is mine?")

    def lines() -> list[str]:
        return [line for line in service.log.read_text().splitlines() if decision["id"] in line]

    assert within(5, lambda: bool(lines()))
    (line,) = lines()
    assert json.loads(line)["tier"] == decision["tier"]


def test_nothing_of_a_prompt_is_in_its_log(service: Server) -> None:
    service.route("xylophone-4711")
    service.client.post("/route", json={"prompt": "xylophone-4711\0"})
    service.client.post("/route", content=b'{"prompt": "xylophone-4711')
    service.client.get("/xylophone-4711?prompt=xylophone-4711")
    assert "xylophone" not in service.log.read_text()


def test_before_any_promotion_it_answers_from_features_then_follows_the_first_and_ends_cleanly(
    tmp_path: Path, trained_home: Path
) -> None:
    home = tmp_path / "state"
    shutil.copytree(trained_home / "encoders", home / "encoders")
    with server.serving(home, tmp_path) as running:
        assert "no router is promoted yet" in running.log.read_text()
        decision = running.route("What is the capital of Portugal?")
        assert decision["reason"] == "fallback"
        assert decision["router"].startswith("built-in@")
        status = running.status()
        assert status["degraded"] is True
        assert "run: tierwise train --promote" in status["problem"]
        assert sample(running, f'tierwise_decisions_total{{reason="fallback",tier="{decision["tier"]}"}}') == 1

        shutil.copytree(trained_home / "served", home / "served")
        assert within(_GIVE_UP_AFTER_S, lambda: running.status()["version"] == "1")
        assert running.route("What is the capital of Portugal?")["reason"] != "fallback"

        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()
        with pytest.raises(httpx.TransportError):
            running.client.get("/readyz")


def test_two_workers_share_sessions(tmp_path: Path, home: Path) -> None:
    own = shutil.copytree(home, tmp_path / "state")
    with server.serving(own, tmp_path, TIERWISE_WORKERS="2", TIERWISE_SESSION_TTL_S="60") as running:
        first = running.client.post("/route", json=in_session("value:100")).json()
        assert first["reason"] == "policy"
        for _ in range(20):  # each on a connection of its own, which either worker may take
            with httpx.Client(base_url=running.client.base_url, timeout=30, trust_env=False) as client:
                again = client.post("/route", json=in_session("value:0.0000001")).json()
            assert (again["tier"], again["reason"]) == (first["tier"], "sticky")
        assert sample(running, "tierwise_session_failures_total") == 0
    assert all(b"xylophone" not in path.read_bytes() for path in own.glob("sessions.db*"))


def in_session(policy: str) -> dict[str, object]:
    return {"prompt": "prove it carefully", "policy": policy, "metadata": {"session_id": "xylophone-4711"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"TIERWISE_PROT": "3000"}, "TIERWISE_PROT is not a setting"),
        ({"TIERWISE_WORKERS": "none"}, "workers: "),
        ({"TIERWISE_POLICY": "cheap"}, "policy: 'cheap' is not a policy"),
        ({"TIERWISE_MAX_REQUEST_BYTES": "1"}, "max_request_bytes: "),
        ({"TIERWISE_EXPLORATION": "2"}, "exploration: "),
        ({"TIERWISE_PINS": '[{"tier": "economy"}]'}, "name a team, a feature or a task"),
    ],
    ids=["unknown", "wrong type", "policy", "too small", "exploration", "a pin for nobody"],
)
def test_a_wrong_setting_ends_it_at_once_with_a_message(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    result = subprocess.run(
        [server.tierwise(), "serve", "--port", str(server.free_port())],
        cwd=tmp_path,
        env=server.environment(TIERWISE_HOME=str(tmp_path / "state"), **settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
