"""The web application in process: decisions, the shape of every error, and what is counted and logged."""

import asyncio
import json
import logging
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.classifier.bundle import Bundle
from serving.settings import Settings
from tests.application import Client, application, refused
from tests.factories import put_in_service

SETTINGS = Settings(max_request_bytes=300_000, max_batch_bytes=400_000, max_batch_requests=3)
SECRET = "xylophone-4711"
LONG = "prove it carefully, " * 20


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[Client]:
    """The application over version 7 of a router with the fake encoder."""
    with application(tmp_path_factory.mktemp("home"), bundle, SETTINGS) as client:
        yield client


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def test_a_decision_has_its_keys_and_names_the_router(client: Client) -> None:
    response = client.post("/route", {"prompt": "What is the capital of Portugal?"})
    assert response.status_code == 200
    decision = response.json()
    assert list(decision) == [
        "id", "object", "created", "tier", "model", "reason", "probabilities", "expected_cost_usd", "threshold",
        "propensity", "router",
    ]  # fmt: skip
    assert decision["object"] == "routing.decision"
    assert decision["router"] == client.promoted.router.name
    assert decision["router"].startswith("7@")
    assert list(decision["probabilities"]) == ["economy", "standard", "premium"]


def test_a_prompt_and_one_user_message_decide_alike(client: Client) -> None:
    parts = [{"type": "text", "text": LONG}]
    one, other = (client.post("/route", body).json() for body in ({"prompt": LONG}, {"messages": user(parts)}))
    assert one["id"] != other["id"]
    assert [one[key] for key in ("tier", "probabilities", "expected_cost_usd")] == [
        other[key] for key in ("tier", "probabilities", "expected_cost_usd")
    ]


def test_a_conversation_with_tools_unknown_fields_and_metadata_is_decided(client: Client) -> None:
    body = {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "What is the weather?"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
        "response_format": {"type": "json_object"},
        "metadata": {"team": "search"},
        "temperature": 0.3,
    }
    assert client.post("/route", body).json()["reason"] in ("policy", "target_refused")


def test_the_share_of_none_keeps_the_top_tier_out_and_a_high_value_asks_for_it(client: Client) -> None:
    def tier(policy: object) -> str:
        return str(client.post("/route", {"prompt": LONG, "policy": policy}).json()["tier"])

    assert tier("share:0") != "premium"
    assert tier({"name": "value", "usd": 100}) == "premium"
    assert tier("value:0.0000001") == "economy"


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_a_json_body_is_read_whatever_its_content_type_says(client: Client, kind: str) -> None:
    response = client.request("POST", "/route", b'{"prompt": "hello"}', **{"content-type": kind})
    assert response.status_code == 200


def test_of_a_key_given_twice_the_last_counts(client: Client) -> None:
    response = client.request(
        "POST", "/route", b'{"prompt": 7, "prompt": "hello", "policy": "share:2", "policy": null}'
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "request"),
        ({"prompt": None}, "request"),
        ({"prompt": "a", "messages": user("a")}, "request"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["a"]}, "prompt[0]"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n "}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "messages[0].role"),
        ({"messages": [*user("a"), {"role": "wizard", "content": "a"}]}, "messages[1].role"),
        ({"messages": user(None)}, "messages[0].content"),
        ({"messages": user(3)}, "messages[0].content"),
        ({"messages": user({"text": "a"})}, "messages[0].content"),
        ({"messages": user([])}, "messages"),
        ({"messages": user(["a"])}, "messages[0].content[0]"),
        ({"messages": user([{"type": []}])}, "messages[0].content[0]"),
        ({"messages": user([{"type": "text"}])}, "messages[0].content[0].text"),
        ({"messages": user([{"type": "text", "text": "a\0"}])}, "messages[0].content[0].text"),
        ({"prompt": "a", "tools": {}}, "tools"),
        ({"prompt": "a", "tools": "search"}, "tools"),
        ({"prompt": "a", "response_format": "json"}, "response_format"),
        ({"prompt": "a", "response_format": []}, "response_format"),
        ({"prompt": "a", "metadata": [1]}, "metadata"),
        ({"prompt": "a", "metadata": {"session_id": 7}}, "metadata.session_id"),
        ({"prompt": "a", "max_tokens": "all"}, "max_tokens"),
        ({"prompt": "a", "max_completion_tokens": -1}, "max_completion_tokens"),
        ({"prompt": "a", "policy": "cheap"}, "policy"),
        ({"prompt": "a", "policy": ["quality"]}, "policy"),
        ({"prompt": "a", "policy": {"name": {}}}, "policy"),
        ({"prompt": "a", "policy": {"name": "share", "max_share": "half"}}, "policy.max_share"),
        ({"prompt": "a", "policy": {"name": "share", "max_share": 10**400}}, "policy.max_share"),
        ({"prompt": "a", "policy": "quality:0.5"}, "policy.target"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_with_its_place(client: Client, body: object, param: str) -> None:
    error = refused(client.post("/route", body))
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert str(error["message"]).startswith(f"{param}: ")


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"hello", b"{", b'{"prompt": "a"', b'{"prompt": "a"} {}', b"{'prompt': 'a'}", b'{"prompt": "a",}',
        b"\xff\xfe", b"\0", b'{"prompt": "\xff"}', b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\udc00\\ud800"}', b'{"prompt": "a\0b"}', b'{"prompt": "a", "policy": NaN}',
        b'{"prompt": "a", "x": Infinity}', b'{"prompt": "a", "x": -Infinity}', b"[" * 100_000,
        b'{"prompt": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"x": ' * 40_000 + b"1" + b"}" * 40_000,
        b"null", b"7", b'"hello"', b"[]", b"true",
        b'{"prompt": "a", "n": ' + b"9" * 5_000 + b"}",
    ],
    ids=lambda body: repr(body[:30]),
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused(client: Client, body: bytes) -> None:
    error = refused(client.request("POST", "/route", body))
    assert error["param"] == "body"


@pytest.mark.parametrize(
    "extra",
    [
        {"response_format": {"type": []}}, {"response_format": {"type": {}}}, {"response_format": {}},
        {"tools": [None, 7]}, {"metadata": {"x": [1]}}, {"n": 10**300}, {"n": 10**4000}, {"n": -1e308}, {"": {"": ""}},
    ],
    ids=lambda extra: str(extra)[:30],
)  # fmt: skip
def test_what_routing_does_not_read_does_not_matter(client: Client, extra: dict[str, object]) -> None:
    assert client.post("/route", {"prompt": "hello", **extra}).status_code == 200


def test_a_body_over_the_limit_is_refused_with_413_and_one_at_the_limit_is_not(client: Client) -> None:
    frame = len(b'{"prompt": ""}')
    exact = b'{"prompt": "' + b"a" * (300_000 - frame) + b'"}'
    assert client.request("POST", "/route", exact).status_code == 200
    error = refused(client.request("POST", "/route", exact + b" "), 413)
    assert error["message"] == "body: is larger than 300000 bytes, the limit of this endpoint"


def test_a_batch_answers_each_request_and_names_the_place_of_a_bad_one(client: Client) -> None:
    response = client.post(
        "/route/batch", {"requests": [{"prompt": "one"}, {"prompt": 2}, {"messages": user("three")}]}
    )
    assert response.status_code == 200
    assert response.json()["object"] == "list"
    first, second, third = response.json()["data"]
    assert first["object"] == third["object"] == "routing.decision"
    assert list(second) == ["error"]
    assert second["error"]["param"] == "requests[1].prompt"


def test_an_item_of_a_batch_that_is_no_object_is_named(client: Client) -> None:
    (answer,) = client.post("/route/batch", {"requests": [7]}).json()["data"]
    assert answer["error"]["param"] == "requests[0]"
    assert answer["error"]["message"] == "must be a JSON object with `messages` or `prompt`, not int"


@pytest.mark.parametrize("requests", [None, [], {}, "abc", [{"prompt": "a"}] * 4])
def test_a_batch_of_none_or_too_many_is_refused(client: Client, requests: object) -> None:
    error = refused(client.post("/route/batch", {"requests": requests}))
    assert error["message"] == "requests: must be a list of 1 to 3 requests"
    assert error["param"] == "requests"


def test_a_batch_over_its_limit_is_refused_with_413(client: Client) -> None:
    assert refused(client.request("POST", "/route/batch", b" " * 400_001), 413)["param"] == "body"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_wrong_method_is_refused_with_the_right_one(client: Client, method: str) -> None:
    response = client.request(method, "/route")
    assert refused(response, 405)["message"] == "/route takes POST"
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/nothing", "/route/", "/route/batch/x", "/docs/", "/%00", "/%ff"])
def test_an_unknown_path_is_a_json_404(client: Client, path: str) -> None:
    assert refused(client.get(path), 404)["type"] == "not_found_error"


texts = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates among them
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
roles = st.sampled_from(["user", "assistant", "system", "tool"]) | json_values
parts = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["text", "image_url"]) | json_values, "text": json_values}
)
messages = st.fixed_dictionaries({}, optional={"role": roles, "content": json_values | st.lists(parts, max_size=3)})
policies = json_values | st.fixed_dictionaries(
    {"name": st.sampled_from(["quality", "share", "value"])},
    optional={"target": json_values, "max_share": json_values, "usd": json_values},
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "prompt": json_values,
        "messages": st.lists(messages, max_size=3) | json_values,
        "tools": json_values,
        "response_format": json_values | st.fixed_dictionaries({"type": json_values}),
        "max_tokens": json_values,
        "metadata": json_values | st.dictionaries(st.sampled_from(["team", "session_id"]), json_values),
        "policy": policies,
    },
)


@settings(max_examples=150)
@given(body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_are_a_server_error(client: Client, body: bytes) -> None:
    refused(client.request("POST", "/route", body))


@settings(max_examples=250)
@given(payload=requests)
def test_no_json_is_a_server_error(client: Client, payload: dict[str, object]) -> None:
    response = client.post("/route", payload)
    assert response.status_code in (200, 400), response.text


@settings(max_examples=50)
@given(items=st.lists(requests | json_values, min_size=1, max_size=3))
def test_no_item_is_the_failure_of_its_batch(client: Client, items: list[object]) -> None:
    assume("\\ud" not in json.dumps(items))  # half a surrogate pair is no JSON: then the whole body is refused
    response = client.post("/route/batch", {"requests": items})
    assert response.status_code == 200
    assert all(("error" in answer) != ("tier" in answer) for answer in response.json()["data"])


def sample(metrics: str, series: str) -> float:
    return next((float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith(f"{series} ")), 0.0)


def test_decisions_and_requests_are_counted(client: Client) -> None:
    decision = client.post("/route", {"prompt": "hello"}).json()
    series = (
        f'tierwise_decisions_total{{reason="{decision["reason"]}",tier="{decision["tier"]}"}}',
        'tierwise_requests_total{endpoint="/route",status="200"}',
        'tierwise_requests_total{endpoint="/route",status="400"}',
        'tierwise_request_seconds_count{endpoint="/route"}',
    )
    before = client.metrics()
    client.post("/route", {"prompt": "hello"})
    client.post("/route/batch", {"requests": [{"prompt": "hello"}, {"prompt": "hello"}, {}]})
    client.post("/route", {})
    after = client.metrics()
    assert [sample(after, name) - sample(before, name) for name in series] == [3, 1, 1, 2]


def test_what_the_default_policy_decides_alone_is_counted_beside_what_is_expected(client: Client) -> None:
    def served(of: str) -> list[float]:
        found = client.metrics()
        return [sample(found, f'tierwise_served_{part}{{of="{of}"}}') for part in ("count", "sum")]

    before = {of: served(of) for of in ("top_share", "probability", "top_probability")}
    decision = client.post("/route", {"prompt": "hello"}).json()
    client.post("/route", {"prompt": "hello", "policy": "share:0.3"})  # not what is promised
    after = {of: [new - old for new, old in zip(served(of), before[of], strict=True)] for of in before}
    proba = decision["probabilities"]
    assert after["top_share"] == [1, decision["tier"] == "premium"]
    assert after["probability"] == [1, pytest.approx(proba[decision["tier"]])]
    assert after["top_probability"] == [1, pytest.approx(proba["premium"])]


def test_metrics_have_no_series_for_unknown_paths_and_no_text_of_a_prompt(client: Client) -> None:
    client.post("/route", {"prompt": f"The key is {SECRET}", "metadata": {"team": SECRET}})
    client.post("/route", {"prompt": "a", "policy": SECRET})
    client.request("POST", f"/{SECRET}", b"{}")
    found = client.metrics()
    assert SECRET not in found
    assert sample(found, 'tierwise_requests_total{endpoint="unmatched",status="404"}') >= 1


def test_logs_hold_no_text_of_a_prompt(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client.post("/route", {"prompt": f"The key is {SECRET}"})
    client.post("/route", {"prompt": f"The key is {SECRET}\0"})
    client.request("POST", "/route", f'{{"prompt": "{SECRET}'.encode())
    client.post("/route", {"messages": [{"role": SECRET, "content": SECRET}]})
    client.post("/route/batch", {"requests": [{"prompt": f"The key is {SECRET}"}, SECRET]})
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "asyncio"))]
    assert all(SECRET not in logging.Formatter().format(record) for record in ours)


def test_a_refused_text_is_not_quoted_back(client: Client) -> None:
    long = f"{SECRET} " * 5
    for body in ({"prompt": f"{long}\0"}, {"messages": user([long])}, {"messages": long}, {"prompt": [long]}):
        assert SECRET not in client.post("/route", body).text


def test_an_unexpected_error_is_a_500_that_says_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        classifier = client.promoted.router.classifier

        def decide(self, *_: object) -> None:
            raise ZeroDivisionError("a detail of ours")

    monkeypatch.setattr(client.promoted, "router", Broken())  # nothing a client can send raises one
    error = refused(client.post("/route", {"prompt": SECRET}), 500)
    assert error == {"message": "internal error", "type": "api_error", "param": None, "code": None}
    (record,) = [record for record in caplog.records if record.name == "serving.http.errors"]
    assert record.getMessage() == "unexpected error in POST /route"
    assert record.exc_info
    assert SECRET not in logging.Formatter().format(record)


def test_a_client_that_leaves_before_its_body_has_come_is_not_our_error(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    arriving = iter([{"type": "http.request", "body": b'{"prom', "more_body": True}, {"type": "http.disconnect"}])
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/route", "raw_path": b"/route", "query_string": b"", "headers": [], "root_path": "",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> MutableMapping[str, Any]:
        return next(arriving)

    async def send(message: MutableMapping[str, Any]) -> None:
        pass

    asyncio.run(client.app(scope, receive, send))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert sample(client.metrics(), 'tierwise_requests_total{endpoint="/route",status="499"}') == 1


def test_status_says_what_serves(client: Client, bundle: Bundle) -> None:
    found = client.get("/status").json()
    assert (found["object"], found["version"], found["degraded"], found["problem"]) == ("status", "7", False, None)
    assert found["router"] == client.promoted.router.name
    assert found["encoder"]["name"] == "fake"
    assert [tier["name"] for tier in found["tiers"]] == ["economy", "standard", "premium"]
    assert [threshold["target"] for threshold in found["thresholds"]] == [t.target for t in bundle.manifest.thresholds]


def test_the_version_that_status_gives_is_that_of_the_distribution(client: Client) -> None:
    from importlib.metadata import version

    assert client.get("/status").json()["tierwise"] == version("tierwise")


def test_a_promotion_refused_while_serving_is_told_by_status(client: Client, bundle: Bundle) -> None:
    home = client.promoted.home
    pointer = (home / "served" / "current.json").read_bytes()
    (put_in_service(home, bundle, "8") / "golden.jsonl").write_text("")
    client.promoted.refresh()
    found = client.get("/status").json()
    assert (found["version"], found["degraded"]) == ("7", True)
    assert "golden.jsonl" in found["problem"]
    (home / "served" / "current.json").write_bytes(pointer)
    client.promoted.refresh()
    assert client.get("/status").json()["degraded"] is False
