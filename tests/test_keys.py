"""Keys of clients: what each opens, whose calls they are, how often they may come; and that nobody sees another's."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import openai
import pytest
from click.testing import CliRunner, Result
from openai import OpenAI

from serving.api_key import ApiKey, digest_of, new_id, new_secret
from serving.classifier.bundle import Bundle
from serving.http.auth import OPEN
from serving.ledger.sqlite.store import SqliteLedger
from tests.gateway import gateway
from tests.stand_in.server import StandIn
from tests.test_gateway import ask, events
from training.cli import tierwise


def run(*arguments: str) -> Result:
    return CliRunner().invoke(tierwise, arguments)


def made(folder: Path, **said: object) -> str:
    """A new key in the ledger of `folder`; gives the secret."""
    secret = new_secret()
    with closing(SqliteLedger(folder / "ledger.db")) as ledger:
        ledger.add_key(ApiKey.model_validate({"id": new_id(), "created": datetime.now(UTC), **said}), digest_of(secret))
    return secret


def client(url: str, secret: str) -> OpenAI:
    return OpenAI(base_url=url, api_key=secret, max_retries=0, http_client=httpx.Client(trust_env=False))


@contextmanager
def guarded(folder: Path, bundle: Bundle, **settings: object) -> Iterator[str]:
    """A service that asks every caller for a key."""
    with gateway(folder, bundle, StandIn(models=("small", "medium", "large")), require_keys=True, **settings) as url:
        yield url


def get(url: str, path: str, secret: str | None = None) -> httpx.Response:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    with httpx.Client(trust_env=False) as plain:
        return plain.get(url.removesuffix("/v1") + path, headers=headers)


def post(url: str, path: str, secret: str, body: object, **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False) as plain:
        headers = {"authorization": f"Bearer {secret}", **headers}
        return plain.post(url.removesuffix("/v1") + path, json=body, headers=headers)


def test_a_call_is_of_its_keys_tenant_and_the_key_itself_is_nowhere(tmp_path: Path, bundle: Bundle) -> None:
    secret = made(tmp_path, id="key-1", tenant="acme")
    with guarded(tmp_path, bundle) as url, client(url, secret) as through:
        ask(through, model="auto", user="ann")
        ask(through, model="small")
        (log,) = tmp_path.rglob("ledger.db")
    assert [(event.tenant, event.api_key) for event in events(tmp_path)] == [("acme", "key-1")] * 2
    with closing(SqliteLedger(log)) as ledger:
        assert [logged.decision.tenant for logged in ledger.logged()] == ["acme"]
    assert secret.encode() not in log.read_bytes()


@pytest.mark.parametrize("sent", ["", "tw-unknown", "sk-another", "tw-" + "x" * 9000])
def test_without_a_key_that_is_known_nothing_opens(tmp_path: Path, bundle: Bundle, sent: str) -> None:
    with guarded(tmp_path, bundle) as url, client(url, sent or "x") as through:
        with pytest.raises(openai.AuthenticationError) as refused:
            ask(through)
        assert get(url, "/v1/models").status_code == 401
        assert get(url, "/openapi.json").status_code == 200
    assert refused.value.code == "invalid_api_key"
    assert sent not in str(refused.value) or not sent
    assert events(tmp_path) == []


def test_a_revoked_key_opens_nothing_within_two_seconds(tmp_path: Path, bundle: Bundle) -> None:
    secret = made(tmp_path, id="key-1")
    with guarded(tmp_path, bundle) as url, client(url, secret) as through:
        ask(through)
        with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
            assert ledger.revoke_key("key-1", datetime.now(UTC))
            assert not ledger.revoke_key("key-1", datetime.now(UTC))
        time.sleep(2.5)
        with pytest.raises(openai.AuthenticationError, match="revoked"):
            ask(through)


def test_a_key_opens_what_its_scopes_say(tmp_path: Path, bundle: Bundle) -> None:
    call, report, admin = (made(tmp_path, scopes=[scope], tenant=scope) for scope in ("call", "report", "admin"))
    with guarded(tmp_path, bundle) as url:
        found = {
            path: [get(url, path, secret).status_code for secret in (call, report, admin)]
            for path in ("/v1/models", "/status", "/ledger/report", "/metrics", "/nowhere")
        }
        with client(url, report) as through, pytest.raises(openai.PermissionDeniedError, match="with scope 'call'"):
            ask(through)
    assert found == {
        "/v1/models": [200, 403, 200], "/status": [403, 200, 200], "/ledger/report": [403, 200, 200],
        "/metrics": [403, 403, 200], "/nowhere": [403, 403, 404],
    }  # fmt: skip


def test_every_path_is_behind_a_key_or_says_nothing_of_anybody(tmp_path: Path, bundle: Bundle) -> None:
    with guarded(tmp_path, bundle) as url:
        paths = get(url, "/openapi.json").json()["paths"]
        found = {path: get(url, path).status_code for path in paths}
    assert {path for path, status in found.items() if status != 401} <= OPEN


def test_a_report_is_of_the_keys_own_tenant_and_an_admin_sees_all(tmp_path: Path, bundle: Bundle) -> None:
    one, two = (made(tmp_path, tenant=tenant, scopes=["call", "report"]) for tenant in ("one", "two"))
    admin = made(tmp_path, scopes=["admin"])
    with guarded(tmp_path, bundle) as url, client(url, one) as through:
        ask(through)
        counts = [get(url, "/ledger/report", secret).json()["total_requests"] for secret in (one, two, admin)]
        assert counts == [1, 0, 1]
        assert get(url, "/ledger/report?tenant=two", admin).json()["total_requests"] == 0
        assert get(url, "/ledger/report?tenant=one", two).status_code == 403
        assert get(url, "/ledger/report?tenant=two", two).status_code == 200


def test_the_same_key_of_an_event_in_two_tenants_is_two_events(tmp_path: Path, bundle: Bundle) -> None:
    one, two = (made(tmp_path, tenant=tenant) for tenant in ("one", "two"))
    with guarded(tmp_path, bundle) as url:
        calls = [
            post(url, "/ledger/events", secret, {"model": "small", "cost_usd": cost, "key": "same"}).json()
            for secret, cost in ((one, "0.25"), (two, "0.5"), (two, "0.75"))
        ]
        mine = post(url, "/v1/feedback", one, {"id": "same", "acceptable": True}).json()["matched"]
        assert mine == "call"
    assert [(call["recorded"], call["cost_usd"]) for call in calls] == [(True, 0.25), (True, 0.5), (False, 0.5)]
    assert sorted((event.tenant, event.key) for event in events(tmp_path)) == [("one", "same"), ("two", "same")]


def test_feedback_on_another_tenants_call_matches_nothing(tmp_path: Path, bundle: Bundle) -> None:
    one, two = (made(tmp_path, tenant=tenant) for tenant in ("one", "two"))
    with guarded(tmp_path, bundle) as url, client(url, one) as through:
        answer = ask(through, model="auto")
        given = {"id": answer.id, "acceptable": False}
        said = [post(url, "/v1/feedback", secret, given).json()["matched"] for secret in (two, one)]
    assert said == [None, "call"]


def test_a_key_asks_for_its_models_alone(tmp_path: Path, bundle: Bundle) -> None:
    secret = made(tmp_path, models=["small", "medium"])
    with guarded(tmp_path, bundle) as url, client(url, secret) as through:
        ask(through, model="small")
        assert [model.id for model in through.models.list()] == ["small", "medium"]
        for name in ("large", "auto", "auto:share:0.5"):
            with pytest.raises(openai.PermissionDeniedError, match="may not ask for"):
                ask(through, model=name)
        assert post(url, "/route", secret, {"prompt": "hello"}).status_code == 403
    assert len(events(tmp_path)) == 1


def test_a_key_for_an_alias_does_not_open_what_it_stands_for(tmp_path: Path, bundle: Bundle) -> None:
    secret = made(tmp_path, models=["thrifty"])
    with guarded(tmp_path, bundle, aliases={"thrifty": "auto:share:0"}) as url, client(url, secret) as through:
        ask(through, model="thrifty")
        for name in ("auto", "auto:share:0", "small"):
            with pytest.raises(openai.PermissionDeniedError):
                ask(through, model=name)


def test_requests_beyond_the_rate_are_told_when_to_come_again(tmp_path: Path, bundle: Bundle) -> None:
    secret, other = made(tmp_path, requests_per_minute=3), made(tmp_path)
    with guarded(tmp_path, bundle) as url, client(url, secret) as through, client(url, other) as free:
        for _ in range(3):
            ask(through)
        with pytest.raises(openai.RateLimitError) as refused:
            ask(through)
        ask(free)
    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60


def test_tokens_count_when_a_call_is_over(tmp_path: Path, bundle: Bundle) -> None:
    secret = made(tmp_path, tokens_per_minute=10)
    with guarded(tmp_path, bundle) as url, client(url, secret) as through:
        used = ask(through).usage
        assert used is not None
        assert used.total_tokens > 10
        with pytest.raises(openai.RateLimitError, match="10 tokens a minute"):
            ask(through)


def test_a_hard_budget_of_a_key_holds_and_is_its_own(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, other = made(tmp_path, id="key-1", tenant="acme"), made(tmp_path, id="key-2", tenant="acme")
    monkeypatch.setenv("TIERWISE_HOME", str(tmp_path))
    assert run("budget", "set", "--key", "key-1", "--per", "day", "--usd", "0", "--hard").exit_code == 0
    assert "no key 'key-9'" in run("budget", "set", "--key", "key-9", "--per", "day", "--usd", "0").stderr
    monkeypatch.delenv("TIERWISE_HOME")
    with guarded(tmp_path, bundle) as url, client(url, secret) as through, client(url, other) as free:
        time.sleep(1.5)
        with pytest.raises(openai.RateLimitError, match="hard budget of api_key 'key-1' of tenant 'acme'"):
            ask(through, model="auto")
        ask(free, model="auto")


def test_sessions_of_two_tenants_do_not_meet() -> None:
    from serving.attribution import Attribution
    from serving.routing.sessions import _key

    one, two = (Attribution(session_id="1", tenant=tenant) for tenant in ("one", "two"))
    assert _key(one) != _key(two)


def test_on_this_machine_no_key_is_needed_and_one_that_is_known_counts(
    tmp_path: Path, bundle: Bundle, stand_in: StandIn
) -> None:
    secret = made(tmp_path, tenant="acme", models=["small"])
    with gateway(tmp_path, bundle, stand_in) as url:
        for sent in ("anything", "tw-unknown", secret):
            with client(url, sent) as through:
                ask(through)
        with client(url, secret) as through, pytest.raises(openai.PermissionDeniedError):
            ask(through, model="large")
    assert [event.tenant for event in events(tmp_path)] == ["default", "default", "acme"]


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("localhost", 200), ("10.0.0.7", 401)])
def test_who_comes_by_another_address_than_this_machines_own_needs_a_key(
    tmp_path: Path, bundle: Bundle, host: str, status: int
) -> None:
    import asyncio

    from serving.settings import Settings
    from tests.application import application

    with application(tmp_path, bundle, Settings(home=tmp_path)) as served:
        made(tmp_path)

        async def asked() -> int:
            async with served.app.router.lifespan_context(served.app):
                transport = httpx.ASGITransport(served.app)
                async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}:3000") as client:
                    return (await client.get("/v1/models")).status_code

        assert asyncio.run(asked()) == status


def test_the_commands_make_list_and_revoke_a_key(state: Path) -> None:
    assert "there is no ledger" in run("keys", "list").stderr
    found = run("keys", "create", "--tenant", "acme", "--name", "search", "--scope", "call", "--scope", "report",
                "--model", "auto", "--requests-per-minute", "600")  # fmt: skip
    secret = found.stdout.strip()
    assert secret.startswith("tw-")
    (key,) = json.loads(run("keys", "list", "--json").stdout)["keys"]
    assert (key["tenant"], key["scopes"], key["models"]) == ("acme", ["call", "report"], ["auto"])
    assert secret not in run("keys", "list").stdout + json.dumps(key)
    assert "600 requests a minute" in run("keys", "list").stdout
    assert run("keys", "revoke", key["id"]).exit_code == 0
    assert run("keys", "revoke", key["id"]).exit_code == 1
    assert "revoked" in run("keys", "list").stdout
    assert secret.encode() not in (state / "ledger.db").read_bytes()


@pytest.mark.usefixtures("state")
def test_to_listen_elsewhere_without_any_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.execve", lambda *_: pytest.fail("it started"))
    found = run("serve", "--host", "0.0.0.0", "--port", "3999")
    assert found.exit_code == 1
    assert "tierwise keys create" in found.stderr
