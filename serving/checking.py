"""What is wrong with the settings, the router, the providers and the ledger, before a client finds out?"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json, to_json

from serving.errors import ConfigurationError, TierwiseError, UpstreamError
from serving.ledger.prices import PriceBook, check_model_names
from serving.ledger.sqlite.store import SqliteLedger
from serving.ledger.usage import Usage
from serving.redaction import load_redaction
from serving.routing.policy import DEFAULT_POLICY, Policy
from serving.routing.promoted import PromotedRouter, check_settings, is_promoted, promoted_manifest
from serving.settings import Settings
from serving.upstream.attempt import Answer, Upstream, Upstreams
from serving.upstream_entry import UpstreamEntry, server_of

_LIST_WITHIN_S: Final = 5.0
_CALL_WITHIN_S: Final = 30.0  # a server of one's own may have to load the model first
_MOST_SAID: Final = 200  # characters of a provider's message
_ANY: Final = Usage(input_tokens=1, output_tokens=1)

Level = Literal["ok", "warning", "error"]


class Finding(BaseModel):
    """One thing that was looked at. about: a part of the settings or of the state, such as `upstream openai`."""

    model_config = ConfigDict(frozen=True)

    level: Level
    about: str
    message: str


def check(settings: Settings, *, call: bool) -> Iterator[Finding]:
    """All that is found, the quick things first. call: whether each upstream is also sent a request of one token.

    Makes the ledger's file where there is none, as the service would.
    """
    yield Finding(level="ok", about="settings", message="can be read, and every key in them is known")
    promoted = PromotedRouter(settings.home, tiers=settings.ladder, pins=settings.pins, memo_size=1)
    yield from _router(settings, promoted)
    ladder = [model for tier in promoted.router.tiers for model in tier.models]
    yield from _models(settings, ladder, PriceBook(settings.prices, lambda: promoted.router.tiers))
    yield from _ledger(settings)
    yield from asyncio.run(_upstreams(settings.upstreams, ladder, call))


def _router(settings: Settings, promoted: PromotedRouter) -> Iterator[Finding]:
    try:
        policy = Policy.parse(settings.policy, default=DEFAULT_POLICY)
        if settings.redact is not None:
            load_redaction(settings.redact)
    except TierwiseError as error:
        yield Finding(level="error", about="settings", message=str(error))
        return
    if not is_promoted(settings.home):
        message = "none is promoted yet, so features alone decide; run: tierwise train --promote"
        yield Finding(level="warning", about="router", message=message)
        return
    try:
        if manifest := promoted_manifest(settings.home):
            check_settings(manifest, settings.ladder, policy, settings.pins)
    except TierwiseError as error:
        yield Finding(level="error", about="router", message=str(error))
        return
    taken = promoted.refresh()
    if promoted.problem is not None:
        yield Finding(level="warning" if taken else "error", about="router", message=promoted.problem)
        return
    names = ", ".join(tier.name for tier in promoted.router.tiers)
    yield Finding(level="ok", about="router", message=f"{promoted.router.name} serves the ladder {names}")


def _models(settings: Settings, ladder: Sequence[str], prices: PriceBook) -> Iterator[Finding]:
    """Whether somebody serves each, and what it costs is known."""
    entries, now = settings.upstreams, datetime.now(UTC)
    if not entries:
        yield Finding(level="warning", about="upstreams", message="there are none, so /v1 answers no calls")
    priced, models = 0, dict.fromkeys([*ladder, *(model for entry in entries for model in entry.models)])
    for model in models:
        about, server = f"model {model}", server_of(entries, model)
        if entries and server is None:
            message = "no upstream serves it; list it among the `models` of one, or leave one without a list"
            yield Finding(level="error", about=about, message=message)
        try:
            check_model_names([model], prices)
        except ConfigurationError as error:
            yield Finding(level="error", about=about, message=str(error))
            continue
        if prices.cost(model, _ANY, now, provider=None if server is None else server.provider) is None:
            message = "has no price, so its calls are booked as of unknown cost; give one in [[prices]]"
            yield Finding(level="warning", about=about, message=message)
        else:
            priced += 1
    yield Finding(level="ok", about="prices", message=f"{priced} of {len(models)} models have one")


def _ledger(settings: Settings) -> Iterator[Finding]:
    path = settings.home / "ledger.db"
    try:
        with closing(SqliteLedger(path)) as ledger:
            yield Finding(level="ok", about="ledger", message=f"{path} can be written")
            keys = sum(key.revoked is None for key in ledger.keys().values())
    except TierwiseError as error:
        yield Finding(level="error", about="ledger", message=str(error))
        return
    if settings.needs_keys and not keys:
        message = f"whoever calls {settings.host} needs one, and there is none; run: tierwise keys create"
        yield Finding(level="error", about="keys", message=message)
    else:
        needed = "every caller needs one" if settings.needs_keys else "callers on this machine need none"
        yield Finding(level="ok", about="keys", message=f"{keys} open something; {needed}")


async def _upstreams(entries: Iterable[UpstreamEntry], ladder: Sequence[str], call: bool) -> list[Finding]:
    found, keyed = [], []
    for entry in entries:
        try:
            entry.key()
            keyed.append(entry)
        except ConfigurationError as error:
            found.append(Finding(level="error", about=f"upstream {entry.name}", message=str(error)))
    upstreams = Upstreams(keyed)
    try:
        for said in await asyncio.gather(*[_upstream(upstreams, one, ladder, call) for one in upstreams.all]):
            found += said
    finally:
        await upstreams.close()
    return found


async def _upstream(upstreams: Upstreams, one: Upstream, ladder: Sequence[str], call: bool) -> list[Finding]:
    about = f"upstream {one.entry.name}"
    models = one.entry.models or tuple(model for model in ladder if upstreams.of(model) is one)
    found = [Finding(level=level, about=about, message=message)
             for level, message in await _listed(upstreams, one, models)]  # fmt: skip
    if call and models:
        level, message = await _called(upstreams, one, models[0])
        found.append(Finding(level=level, about=about, message=f"{models[0]} {message}"))
    return found


async def _listed(upstreams: Upstreams, one: Upstream, models: Sequence[str]) -> list[tuple[Level, str]]:
    """Whether it can be reached with its key, and lists the models that it is to serve."""
    came = await _answer(upstreams, one, "/models", None, _LIST_WITHIN_S)
    if isinstance(came, tuple):
        return [came]
    if came.status == 404:
        return [("warning", "is there, and has no list of models (404); if calls fail too, its base_url is wrong")]
    if came.status != 200:
        return [("warning", f"answers {came.status} when asked for its models")]
    if (ids := _ids(came.body or b"")) is None:
        return [("warning", "is there; its list of models cannot be read")]
    absent = [f"does not list {model!r}" for model in models if model not in ids]
    return [("ok", f"answers, and lists {len(ids)} models"), *[("warning", said) for said in absent]]


async def _called(upstreams: Upstreams, one: Upstream, model: str) -> tuple[Level, str]:
    """What comes of a call that costs next to nothing, and is in no ledger."""
    body = to_json({"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
    came = await _answer(upstreams, one, "/chat/completions", body, _CALL_WITHIN_S)
    if isinstance(came, tuple):
        return came
    if came.status == 200:
        return "ok", "answers a call"
    said = _message(came.body or b"", one.key)
    return ("error" if came.status == 404 else "warning"), f"answers a call with {came.status}{said}"


async def _answer(
    upstreams: Upstreams, one: Upstream, path: str, body: bytes | None, within_s: float
) -> Answer | tuple[Level, str]:
    """What came, or why that is no use."""
    status: int | None
    try:
        async with asyncio.timeout(within_s), upstreams.call(one, path, body) as came:
            status = came.status
    except TimeoutError:
        return "error", f"did not answer {path} within {within_s:g} s"
    except UpstreamError as error:
        if error.status is None or error.status >= 500:
            return "error", str(error) if error.code == "status" else f"{error}; see whether base_url is right"
        if error.status == 429:
            return "warning", f"answers {path} with 429: it asks for fewer requests"
        came, status = Answer(error.status, "", None, None), error.status
    if status not in (401, 403):
        return came
    key = one.entry.key_env
    return "error", f"asks for a key ({status}); name its variable in key_env" if key is None else (
        f"refuses the key in {key} ({status})"
    )


def _ids(body: bytes) -> set[str] | None:
    data = _field(body, "data")
    return {str(model.get("id")) for model in data if isinstance(model, dict)} if isinstance(data, list) else None


def _message(body: bytes, key: str | None) -> str:
    """What the provider says is wrong, unless it repeats the key, however short that is."""
    error = _field(body, "error")
    said = error.get("message") if isinstance(error, dict) else None
    return f": {said[:_MOST_SAID]}" if isinstance(said, str) and not (key and key in said) else ""


def _field(body: bytes, name: str) -> Any:
    try:
        said = from_json(body)
    except ValueError:
        return None
    return said.get(name) if isinstance(said, dict) else None
