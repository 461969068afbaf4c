"""The service as it runs against what no honest client sends: schemathesis over its document, and junk on the wire."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import server
from tests.server import Server
from tests.stand_in.server import StandIn
from tests.stand_in.server import running as provider

MARKER = "xylophone-4711"
CONFIGURATION = Path(__file__).parent / "schemathesis.toml"
EXAMPLES = 25  # per operation; minutes of it found nothing more (docs/decisions/2026-11-25-openapi-page.md)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, trained_home: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("hostile") / "state"
    for folder in ("served", "encoders"):
        shutil.copytree(trained_home / folder, home / folder)
    with provider(StandIn(models=("small", "middle", "large"))) as url:
        upstreams = json.dumps([{"name": "stand-in", "base_url": url, "key_env": "STAND_IN_KEY"}])
        told = {"TIERWISE_UPSTREAMS": upstreams, "STAND_IN_KEY": "made-up"}
        with server.serving(home, home.parent, **told) as running:
            yield running
    assert MARKER not in running.log.read_text(errors="replace")


@pytest.fixture(autouse=True)
def _still_serves(service: Server) -> Iterator[None]:
    """After each test the next request is answered as ever, by the same router and without a problem."""
    yield
    assert service.route("hello")["router"] == service.status()["router"]
    assert not service.status()["degraded"]


def test_schemathesis_finds_no_5xx_and_nothing_that_the_document_does_not_say(service: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"]
    options = ["--max-examples", str(EXAMPLES), "--seed", "1", "--continue-on-failure", "--no-color"]
    document = f"{service.client.base_url}/openapi.json"
    found = subprocess.run(
        [*command, document, *options],
        cwd=tmp_path,  # where it keeps what it found
        env=server.environment(NO_PROXY="127.0.0.1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert re.search(r"Tested: +16\b", found.stdout), found.stdout


def said(service: Server, sent: bytes) -> bytes:
    """What comes back for these bytes until the server closes the connection."""
    url = service.client.base_url
    received = b""
    with (
        socket.create_connection((url.host, url.port), timeout=10) as connection,
        contextlib.suppress(ConnectionError),  # it is closed on a body over the limit, however much is on its way
    ):
        connection.sendall(sent)
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def post(body: bytes, *headers: bytes, connection: bytes = b"close") -> bytes:
    lines = [b"POST /route HTTP/1.1", b"Host: x", b"Connection: " + connection, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, *headers, b"", body])


PROMPT = b'{"prompt": "%s"}' % MARKER.encode()


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"\0\1\2" + MARKER.encode() + b"\r\n\r\n", [400]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
        (b"GET /status HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", [400]),
        (b"POST /route HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}", [400]),
        (b"POST /route HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", [400]),
        (b"POST /route HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", [400]),
        (post(PROMPT, connection=b"keep-alive") + post(PROMPT), [200, 200]),
        (post(b"{}", connection=b"keep-alive") + post(PROMPT), [400, 200]),
        (post(PROMPT, connection=b"keep-alive") + b"\0\xff" + MARKER.encode() + b"\r\n\r\n", [400]),
        (post(PROMPT, b"Host: [::"), [200]),
        (post(PROMPT, b"Content-Type: \xff; charset=\xff", b"Cookie: \xff;;=", b"Accept: \xff"), [200]),
        (post(PROMPT, b"traceparent: 00-\xff", b"baggage: %%%=\xff", b"tracestate: ,,="), [200]),
        (post(PROMPT, b"Args-Number: z", b"Payload-Container: NdarrayContainer"), [200]),
        (post(PROMPT, b"X: " + b"a" * 100_000), [200]),
        (post(PROMPT, b"Content-Encoding: gzip"), [400]),
        (post(PROMPT).replace(b"/route", b"/route?a=%ff&%00=["), [200]),
        (post(PROMPT).replace(b"/route", b"/%80%00%0aroute"), [404]),
        (post(PROMPT).replace(b"POST", b"TRACE"), [405]),
        (post(b'{"prompt": "%s' % (b"a" * 3_000_000)), [413]),
        (post(b'{"prompt": "a", "tools": %s}' % (b"[" * 900_000)), [400]),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_junk_on_the_wire_is_refused_and_what_is_right_beside_it_answered(
    service: Server, sent: bytes, statuses: list[int]
) -> None:
    answer = said(service, sent)
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answer)] == statuses
    assert MARKER.encode() not in answer


def test_clients_that_leave_in_the_middle_do_no_harm(service: Server) -> None:
    url = service.client.base_url
    whole = post(PROMPT)
    for sent in range(0, len(whole), 7):
        with socket.create_connection((url.host, url.port), timeout=10) as connection:
            connection.sendall(whole[:sent])
