"""The OpenAPI document and its page, drawn without a script or a file from anywhere else."""

import base64
import hashlib
import json
from html import escape
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from serving.http.openapi import document
from serving.http.request_schema import Json
from serving.settings import Settings

_STYLE: Final = """
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h2 { border-top: 1px solid #8886; margin-top: 2rem; padding-top: 1rem; }
p { white-space: pre-line; }
pre { background: #8882; overflow-x: auto; padding: .7rem; }
code, pre { font: .9rem/1.4 ui-monospace, monospace; }
table { border-collapse: collapse; margin-bottom: 1rem; table-layout: fixed; width: 100%; }
td { border-top: 1px solid #8884; padding: .3rem .8rem .3rem 0; vertical-align: top; }
td:nth-child(1), td:nth-child(2) { width: 28%; }
:root { color-scheme: light dark; }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# The browser itself holds what the page promises: nothing is loaded, run or sent, and nobody frames it.
_CONTENT_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_routes(settings: Settings) -> list[Route]:
    """`GET /openapi.json` and `GET /docs`, made once."""
    described = document(settings)
    page = _page(described, f"{settings.host}:{settings.port}")

    async def openapi(_request: Request) -> Response:
        return JSONResponse(described)

    async def docs(_request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _CONTENT_POLICY})

    return [Route("/openapi.json", openapi, methods=["GET"]), Route("/docs", docs, methods=["GET"])]


def _page(described: Json, address: str) -> str:
    """The document as HTML; examples are requests to `address`."""
    info = described["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    operations = [
        _operation(method.upper(), path, operation, address)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_section(name, schema) for name, schema in described["components"]["schemas"].items()]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{_paragraph(info["description"])}
<p>For programs: <a href="openapi.json">openapi.json</a>.</p>
{"".join(operations)}
{"".join(schemas)}
</body>
</html>
"""


def _operation(method: str, path: str, operation: Json, address: str) -> str:
    parts = [f"<h2><code>{method} {escape(path)}</code></h2>", _paragraph(operation["summary"] + ".")]
    if "parameters" in operation:
        parts.append(_table([_parameter(one) for one in operation["parameters"]]))
    if "requestBody" in operation:
        ((media, body),) = operation["requestBody"]["content"].items()
        parts += [
            _paragraph(operation["description"]),
            f"<p>Takes {_type(body['schema'])} as <code>{escape(media)}</code>.</p>",
            *(
                f"<p>{escape(example['summary'])}:</p><pre>{escape(_curl(address + path, example['value']))}</pre>"
                for example in body["examples"].values()
            ),
        ]
    return "\n".join([*parts, _table(_answers(operation["responses"]))])


def _parameter(parameter: Json) -> tuple[str, str, str]:
    schema = parameter["schema"]
    default = f"default {schema['default']}" if "default" in schema else ""
    return f"<code>{escape(parameter['name'])}</code> ({escape(parameter['in'])})", _type(schema), escape(default)


def _answers(responses: Json) -> list[tuple[str, str, str]]:
    """Status, what it holds, what it means."""
    rows = []
    for status, response in responses.items():
        for media, content in response["content"].items():
            holds = _type(content["schema"]) if "$ref" in content["schema"] else f"<code>{escape(media)}</code>"
            rows.append((status, holds, _marked(response["description"])))
    return rows


def _curl(url: str, value: object) -> str:
    body = json.dumps(value, indent=2, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -s {url} -H 'content-type: application/json' -d '{body}'"


def _section(name: str, schema: Json) -> str:
    return f'<h2 id="{escape(name)}">{escape(name)}</h2>{_paragraph(schema.get("description"))}{_fields(schema)}'


def _fields(schema: Json) -> str:
    """The fields of an object; for a choice between schemas, those of each; for any other schema, its type."""
    if "properties" not in schema:
        choices = schema.get("anyOf", [schema])
        return "".join(_fields(one) if "properties" in one else f"<p>{_type(one)}</p>" for one in choices)
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(name)}</code>{'' if name in required else ' (optional)'}",
            _type(field),
            _marked(field.get("description", "")),
        )
        for name, field in schema["properties"].items()
    ]
    return _table(rows)


def _type(schema: Json) -> str:
    """A schema's type in a few words, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    kinds = schema.get("type", "anything")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    names = [f"list of {_type(schema['items'])}" if kind == "array" and "items" in schema else kind for kind in kinds]
    return " or ".join(names)


def _table(rows: list[tuple[str, str, str]]) -> str:
    """Rows of three cells that are HTML already."""
    cells = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _paragraph(text: str | None) -> str:
    return f"<p>{_marked(text)}</p>" if text else ""


def _marked(text: str) -> str:
    """Plain text as HTML; what stands between backticks as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))
