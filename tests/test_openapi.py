"""The OpenAPI document and its page: complete, in step with the service, and asking nothing of other hosts."""

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from serving.classifier.bundle import Bundle
from serving.settings import Settings
from tests.application import Client, application

PROBES = {"/healthz", "/livez", "/readyz"}  # BentoML's


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[Client]:
    with application(
        tmp_path_factory.mktemp("home"), bundle, Settings(max_request_bytes=1_234_567, max_batch_requests=89)
    ) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: Client) -> dict[str, Any]:
    return dict(client.get("/openapi.json").json())


@pytest.fixture(scope="module")
def page(client: Client) -> str:
    return client.get("/docs").text


def references(value: object) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        yield from (ref for name, ref in value.items() if name == "$ref")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from references(inner)


def test_every_path_of_the_service_is_described_with_its_method(client: Client, document: dict[str, Any]) -> None:
    served = {
        (route.path, method)
        for route in client.app.routes
        for method in getattr(route, "methods", ())
        if method != "HEAD" and "{" not in route.path
    }
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == served | {(path, "GET") for path in PROBES}


def test_every_reference_leads_somewhere_and_every_schema_is_used(document: dict[str, Any]) -> None:
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) == names


def test_the_limits_are_those_of_the_settings(document: dict[str, Any]) -> None:
    assert "1,234,567 bytes" in document["paths"]["/route"]["post"]["description"]
    assert document["components"]["schemas"]["BatchRequest"]["properties"]["requests"]["maxItems"] == 89


def test_a_decision_has_the_fields_that_are_described(client: Client, document: dict[str, Any]) -> None:
    decision = client.post("/route", {"prompt": "hello"}).json()
    assert set(document["components"]["schemas"]["Decision"]["properties"]) == set(decision)


@pytest.mark.parametrize("path", ["/route", "/route/batch"])
def test_every_example_is_decided(client: Client, document: dict[str, Any], path: str) -> None:
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        response = client.post(path, example["value"])
        assert response.status_code == 200
        assert "error" not in response.text


def test_another_method_on_a_probe_is_refused_with_the_right_one(client: Client) -> None:
    response = client.post("/healthz", {})
    assert response.status_code == 405
    assert response.json()["error"]["message"] == "/healthz takes GET, HEAD"


class Links(HTMLParser):
    """The elements of a page, and every address in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.addresses: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.addresses |= {str(value) for name, value in attrs if name in ("href", "src", "action", "srcset", "data")}
        self.anchors |= {str(value) for name, value in attrs if name == "id"}


def test_the_page_holds_no_script_and_names_no_other_host(page: str) -> None:
    found = Links(page)
    assert found.elements <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "a", "code", "pre", "table", "tr", "td",
    }  # fmt: skip
    assert {address for address in found.addresses if not address.startswith("#")} == {"openapi.json"}
    assert not re.search(r"https?:|url\(|@import", page)


def test_every_link_within_the_page_has_its_place(page: str, document: dict[str, Any]) -> None:
    found = Links(page)
    assert {address[1:] for address in found.addresses if address.startswith("#")} <= found.anchors
    assert found.anchors == set(document["components"]["schemas"])


def test_the_page_shows_every_path_and_every_field(page: str, document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        assert all(f"<code>{method.upper()} {path}</code>" in page for method in methods)
    for schema in document["components"]["schemas"].values():
        assert all(f"<code>{name}</code>" in page for name in schema.get("properties", ()))


def test_the_browser_is_told_to_load_nothing_but_the_style_in_the_page(client: Client, page: str) -> None:
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = client.get("/docs").headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in rules
    assert f"style-src 'sha256-{digest}'" in rules
    assert not any(rule.startswith(("script-src", "connect-src", "img-src")) for rule in rules)
