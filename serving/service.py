"""The BentoML service: builds everything from the settings and mounts the application."""

import sys
from functools import lru_cache, partial
from pathlib import Path

import bentoml
from bentoml._internal.server.http import traffic
from bentoml.exceptions import BentoMLException
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.bento import BENTO_MODEL
from serving.errors import TierwiseError
from serving.http.app import build_app
from serving.http.metrics import Metrics
from serving.http.request_lines import write_lines
from serving.http.tracing import tracing
from serving.ledger.cached_price import cached_share
from serving.ledger.prices import PriceBook
from serving.routing.policy import DEFAULT_POLICY, Policy
from serving.routing.promoted import PromotedRouter
from serving.routing.rules import Rules
from serving.routing.sessions import Sessions
from serving.settings import Settings, read_settings


def router_home(settings: Settings) -> Path:
    """Where the promoted router is: the state folder, or the model that a built bento carries."""
    if not (settings.home / "served" / "current.json").exists():
        try:
            return Path(bentoml.models.get(BENTO_MODEL).path)
        except BentoMLException:  # not in a bento: the state folder will be watched for a first promotion
            pass
    return settings.home


def _application(settings: Settings) -> Starlette:
    policy = Policy.parse(settings.policy, default=DEFAULT_POLICY)
    home = router_home(settings)
    promoted = PromotedRouter(
        home, tiers=settings.ladder, policy=policy, pins=settings.pins, memo_size=settings.memo_size
    )
    metrics = Metrics()
    return build_app(settings, promoted, policy, metrics, _rules(settings, metrics), tracing())


def _rules(settings: Settings, metrics: Metrics) -> Rules:
    sessions = None
    if settings.session_ttl_s is not None:
        sessions = Sessions(
            settings.home / "sessions.db",
            ttl_s=settings.session_ttl_s,
            most=settings.max_sessions,
            on_failure=metrics.session_failures.inc,
        )
    prices = PriceBook(settings.prices)
    return Rules(
        pins=settings.pins,
        sessions=sessions,
        by_prefix=settings.session_by_prefix,
        cached_price=lru_cache(partial(cached_share, prices)) if settings.session_switch else None,
        max_top_share=settings.max_top_share,
        top_burst=settings.top_burst,
        exploration=settings.exploration,
    )


class _Untimed:
    """In place of BentoML's, which ends every request after `traffic.timeout` in an error of a shape of its own, an
    answer that a provider is long about as well, and keeps a timer of each until then: .6 KB a call, and walks of the
    garbage collector over all of them. Our limits are in the application: of a body, and of an answer's begin.
    """

    def __init__(self, app: ASGIApp, timeout: float) -> None:  # noqa: ARG002 -- as BentoML makes it
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


traffic.TimeoutMiddleware = _Untimed

try:
    _settings = read_settings()
    _app = _application(_settings)
    write_lines()
except TierwiseError as error:  # an import that fails would be tried again for ever
    sys.exit(f"tierwise: {error}")


@bentoml.service(
    name="tierwise",
    workers=_settings.workers,
    http={"host": _settings.host, "port": _settings.port},
    # Tracing costs 0.4 ms of CPU a request even without an exporter; BentoML's own metrics make a series of
    # every path that anybody tries; its access log is a line a request.
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(_app, path="/")
class Tierwise:
    """Routes requests to the tier that is enough for each."""
