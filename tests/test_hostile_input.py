"""Whatever a client sends: an answer or a refusal that says what was wrong, and never a word of the prompt in it."""

import gzip
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.chat import Conversation, read_conversation
from serving.classifier.bundle import Bundle
from serving.errors import InputError
from serving.settings import Settings
from tests.application import Client, application, refused

MARKER = "xylophone-4711"  # in every text, and found nowhere else
MB = 1_000_000


class Log(logging.Handler):
    """Every line as it would be written."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("httpx", "asyncio")):  # the client's
            self.text += self.format(record) + "\n"


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    root, log = logging.getLogger(), Log()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    yield log
    root.removeHandler(log)
    root.setLevel(level)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle, log: Log) -> Iterator[Client]:  # noqa: ARG001
    with application(tmp_path_factory.mktemp("home"), bundle, Settings(max_request_bytes=2 * MB)) as client:
        yield client


def user(content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}]}


# What clients of the chat API send, with the marker in every text, and anything in the place of anything.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**30, 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5).map(lambda text: f"{MARKER}{text}"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.just(MARKER) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
texts = st.text(st.characters(exclude_categories=()), max_size=30).map(lambda text: f"{MARKER} {text}") | st.just("")
parts = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "input_text", "output_text"]), "text": texts | anything}),
    st.fixed_dictionaries({"type": st.sampled_from(["image_url", "input_image", "image"]), "image_url": anything}),
    st.fixed_dictionaries({"type": st.sampled_from(["input_audio", "file", "refusal", "thinking"]), "file": anything}),
    anything,
)
contents = texts | st.lists(parts, max_size=4) | anything
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "user", "assistant", "system", "developer", "tool", "function"])},
    optional={"content": contents, "name": anything, "tool_calls": anything, "tool_call_id": anything},
)
conversations = st.one_of(
    st.fixed_dictionaries({"messages": st.lists(messages | anything, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"prompt": contents}),
    st.fixed_dictionaries({"prompt": contents, "messages": st.none() | anything}),
)
tools = st.lists(anything, max_size=3) | anything
formats = st.fixed_dictionaries({"type": st.sampled_from(["json_object", "json_schema", "text"]) | anything}) | anything
extras = st.fixed_dictionaries({}, optional={"tools": tools, "response_format": formats})
requests = st.builds(
    lambda *fields: {name: value for one in fields for name, value in one.items()},
    conversations,
    extras,
    st.fixed_dictionaries({}, optional={"metadata": anything, "temperature": anything, "stream": anything}),
)


def read_or_refused(**fields: object) -> tuple[Conversation | None, InputError | None]:
    try:
        return read_conversation(**fields), None
    except InputError as error:
        return None, error


@settings(max_examples=300, deadline=None)
@given(conversation=conversations, extra=extras)
def test_a_conversation_is_read_or_refused_without_quoting_it(
    conversation: dict[str, object], extra: dict[str, object]
) -> None:
    read, refusal = read_or_refused(**conversation, **extra)
    if refusal is not None:
        assert MARKER not in str(refusal)
        assert len(str(refusal)) < 300
        assert refusal.where is not None
    if read is not None:
        assert read.messages >= 1
        assert len(read.last_user_text) <= read.total_chars
        read.last_user_text.encode("utf-8")  # no half of a surrogate pair, which the tokenizer would not take


@settings(max_examples=300, deadline=None)
@given(payload=requests)
def test_an_answer_is_a_decision_or_a_refusal_that_quotes_nothing(
    client: Client, log: Log, payload: dict[str, object]
) -> None:
    response = client.post("/route", payload)
    if response.status_code != 200:
        error = refused(response)
        assert error["param"]
        assert len(str(error["message"])) < 300
    assert MARKER not in response.text
    assert MARKER not in log.text


@settings(max_examples=50, deadline=None)
@given(items=st.lists(requests | anything, min_size=1, max_size=3))
def test_a_batch_quotes_nothing_either(client: Client, log: Log, items: list[object]) -> None:
    response = client.post("/route/batch", {"requests": items})
    assert response.status_code in (200, 400)  # 400 where half a surrogate pair makes the whole body no JSON
    assert MARKER not in response.text
    assert MARKER not in log.text


@settings(max_examples=100, deadline=None)
@given(payload=requests, cut=st.integers(0, 400), junk=st.binary(max_size=8))
def test_a_body_that_breaks_off_or_turns_to_junk_is_refused_without_quoting_it(
    client: Client, log: Log, payload: dict[str, object], cut: int, junk: bytes
) -> None:
    response = client.request("POST", "/route", json.dumps(payload).encode()[:cut] + junk)
    assert response.status_code in (200, 400)
    assert MARKER not in response.text
    assert MARKER not in log.text


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("field", ["tools", "response_format", "metadata", "policy", "messages", "prompt"])
def test_json_nested_ten_thousand_deep_is_refused_wherever_it_is(client: Client, field: str) -> None:
    body = b'{"prompt": "a", "%s": %s}' % (field.encode(), nested(10_000))
    error = refused(client.request("POST", "/route", body))
    assert str(error["message"]).startswith("body: is not JSON: recursion limit exceeded")


def test_json_nested_as_deep_as_it_is_read_is_passed_over(client: Client) -> None:
    fields = (b'"tools": [%s]', b'"response_format": {"type": %s}', b'"metadata": {"own": %s}')
    for field in fields:
        body = b'{"prompt": "a", %s}' % (field % nested(150))
        assert client.request("POST", "/route", body).status_code == 200
    error = refused(client.request("POST", "/route", b'{"prompt": "a", "policy": {"name": %s}}' % nested(150)))
    assert len(str(error["message"])) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xef\xbb\xbf{}", '{"prompt": "a"}'.encode("utf-16"), b"prompt=a&policy=b", b"--x\r\n\r\na\r\n--x--",
        b'{"prompt": "\xc3\x28"}', b'{"prompt": "\xf8\x88\x80\x80\x80"}', b'{"prompt": "a", "tools": [NaN]}',
        b'{"prompt": "a", "metadata": {"x": -Infinity}}', b'{"prompt": "a"}\0', b'{"prompt": "a"} {"prompt": "b"}',
        b'{"prompt": "a", "n": %s}' % (b"7" * 5_000), b'{"prompt": "a", "n": 0x10}', b'{"prompt": "a", "n": 01}',
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_a_body_that_is_not_json_is_refused_as_such(client: Client, body: bytes) -> None:
    error = refused(client.request("POST", "/route", body))
    assert error["param"] == "body"
    assert "JSON" in str(error["message"])


def test_a_compressed_body_is_refused_with_the_reason(client: Client) -> None:
    body = gzip.compress(b'{"prompt": "a"}')
    error = refused(client.request("POST", "/route", body, **{"content-encoding": "gzip"}))
    assert error["message"] == "body: is compressed, by its content-encoding; send it plain"


def test_a_number_in_place_of_a_text_is_not_quoted(client: Client) -> None:
    card = 4_111_111_111_111_111
    for payload in (
        {"prompt": card},
        user(card),
        user([card]),
        {"messages": card},
        user([{"type": "text", "text": card}]),
    ):
        assert str(card) not in client.post("/route", payload).text
    digits = b'{"prompt": %s}' % (b"7" * 4_300)  # as long as an integer may be
    assert len(refused(client.request("POST", "/route", digits))["message"]) < 100  # type: ignore[arg-type]


HUGE = {
    "one word": {"prompt": "a" * MB},
    "blanks before a word": {"prompt": " " * MB + "a"},
    "escapes": {"prompt": "\x01" * (MB // 6) + "a"},
    "emoji": {"prompt": "😀" * (MB // 12)},
    "messages": {"messages": [{"role": "user", "content": "a"}] * (MB // 34)},
    "parts": user([{"type": "text", "text": "a"}] * (MB // 31)),
    "images": user([{"type": "image_url"}] * (MB // 23)),
    "tools": {"prompt": "a", "tools": [{}] * (MB // 4)},
    "metadata": {"prompt": "a", "metadata": {str(i): i for i in range(MB // 18)}},
}


@pytest.mark.parametrize("payload", HUGE.values(), ids=HUGE)
def test_a_megabyte_of_anything_is_decided(client: Client, payload: dict[str, object]) -> None:
    assert client.post("/route", payload).status_code == 200


@pytest.mark.parametrize("payload", [{"prompt": " " * MB}, user([{"type": "text", "text": ""}] * 30_000)])
def test_a_megabyte_of_nothing_is_refused(client: Client, payload: dict[str, object]) -> None:
    assert str(refused(client.post("/route", payload))["message"]).endswith("is empty: there is no text to route")
