"""One call to one provider: whole or as a stream, and what went wrong, in one form whatever it was."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from serving.errors import ConfigurationError, UpstreamError
from serving.upstream_entry import UpstreamEntry

_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
_MOST_BYTES: Final = 64 * 1024 * 1024  # of a whole answer; embeddings of a thousand texts are 20 MB
_SHORTEST_SECRET: Final = 12
"""A shorter key is a placeholder, such as `x` or `EMPTY` of a server of one's own, and part of ordinary words."""
_LONGEST_WAIT_S: Final = 60.0  # that a provider's Retry-After is believed


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider answered. body: the whole of it; None of a stream, which `chunks` brings as it comes."""

    status: int
    content_type: str
    body: bytes | None
    chunks: AsyncIterator[bytes] | None


@dataclass(frozen=True)
class Upstream:
    """A provider with its key, and the proxy that leads to it."""

    entry: UpstreamEntry
    key: str | None = field(repr=False)
    turn: asyncio.Semaphore
    proxy: str | None = field(repr=False)

    def without_key(self, text: bytes) -> bytes:
        """What it said, without the key if it repeats it."""
        if self.key is None or len(self.key) < _SHORTEST_SECRET:
            return text
        return text.replace(self.key.encode(), b"[key]")


class Upstreams:
    """The providers of the settings. Raises ConfigurationError when a key is missing."""

    def __init__(self, entries: Sequence[UpstreamEntry]) -> None:
        made = [
            Upstream(entry, entry.key(), asyncio.Semaphore(entry.max_concurrency), _proxy(entry.base_url))
            for entry in entries
        ]
        self.all = tuple(made)
        self._by_model = {model: one for one in made for model in one.entry.models}
        self._other = next((one for one in made if not one.entry.models), None)
        self._session: aiohttp.ClientSession | None = None

    def of(self, model: str) -> Upstream | None:
        """Who serves a model; None where nobody does."""
        return self._by_model.get(model, self._other)

    @property
    def models(self) -> tuple[str, ...]:
        """Those that are listed."""
        return tuple(self._by_model)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def call(self, upstream: Upstream, path: str, body: bytes | None) -> AsyncIterator[Answer]:
        """POST `body` to the provider; None: GET. Leaving the context closes a stream that is not at its end.

        Raises UpstreamError when no answer came, or one that asks to be tried again, or that is none. A status of 4xx
        that trying again would not change is an answer.
        """
        entry, way = upstream.entry, "GET" if body is None else "POST"
        headers = {} if body is None else {"content-type": _JSON}
        if upstream.key is not None:
            headers["authorization"] = f"Bearer {upstream.key}"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=entry.connect_timeout_s, sock_read=entry.timeout_s)
        url = f"{entry.base_url}{path}"
        try:
            async with (
                self._opened().request(
                    way, url, data=body, headers=headers, timeout=limits, proxy=upstream.proxy
                ) as response,
            ):
                yield await _answer(response, upstream)
        except TimeoutError:
            raise UpstreamError("timeout", f"{entry.name} did not answer in time") from None
        except aiohttp.ClientConnectorError:
            raise UpstreamError("unreachable", f"{entry.name} cannot be reached") from None
        except aiohttp.ClientError as error:
            raise UpstreamError("connection", f"{entry.name} broke off: {type(error).__name__}") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # it belongs to the event loop that it is made in
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


def _proxy(url: str) -> str | None:
    """The one that HTTPS_PROXY, HTTP_PROXY and NO_PROXY say. Left to aiohttp, they are read anew in a thread for each
    call, with ~/.netrc: a third of what a call costs."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


def check_upstreams(entries: Sequence[UpstreamEntry], models: Sequence[str]) -> None:
    """Raises ConfigurationError when a key is missing, or a model of the ladder has nobody who serves it."""
    upstreams = Upstreams(entries)
    if entries and (missing := [model for model in models if upstreams.of(model) is None]):
        raise ConfigurationError(
            f"no upstream serves {missing[0]!r}; list it among the `models` of one, or leave one without a list"
        )


async def _answer(response: aiohttp.ClientResponse, upstream: Upstream) -> Answer:
    status, kind, name = response.status, response.content_type, upstream.entry.name
    if status in (408, 409, 429) or status >= 500:
        said = upstream.without_key(await _read(response, name))
        raise UpstreamError(
            "rate_limited" if status == 429 else "status",
            f"{name} answered {status}",
            status=status,
            body=said if kind == _JSON else None,
            retry_after_s=_retry_after(response.headers),
        )
    if status == 200 and kind == _EVENTS:
        return Answer(status, kind, None, _chunks(response, name))
    if kind != _JSON:
        refused = status if status >= 400 else None  # with a page, as proxies do
        raise UpstreamError("malformed", f"{name} answered {status} with {kind}, which is no JSON", status=refused)
    return Answer(status, kind, upstream.without_key(await _read(response, name)), None)


async def _chunks(response: aiohttp.ClientResponse, name: str) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except TimeoutError:
        raise UpstreamError("timeout", f"{name} stopped in mid-stream") from None
    except aiohttp.ClientError as error:
        raise UpstreamError("connection", f"{name} broke off in mid-stream: {type(error).__name__}") from None


async def _read(response: aiohttp.ClientResponse, name: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise UpstreamError("malformed", f"{name} answered with more than {_MOST_BYTES:,} bytes")
    return bytes(body)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, where the provider says so in seconds; as a date it is of no use to a call under way."""
    try:
        wait = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(wait, _LONGEST_WAIT_S) if wait >= 0 else None
