"""The BentoML service: builds everything from the settings and mounts the application."""

import sys
from pathlib import Path
from typing import Final

import bentoml
from bentoml.exceptions import BentoMLException

from serving.errors import TierwiseError
from serving.http.app import build_app
from serving.http.metrics import Metrics
from serving.routing.promoted import PromotedRouter
from serving.settings import Settings, read_settings

BENTO_MODEL: Final = "tierwise-router"


def router_home(settings: Settings) -> Path:
    """Where the promoted router is: the state folder, or the model that a built bento carries."""
    if not (settings.home / "served" / "current.json").exists():
        try:
            return Path(bentoml.models.get(BENTO_MODEL).path)
        except BentoMLException:  # not in a bento: the state folder will be watched for a first promotion
            pass
    return settings.home


def _build() -> tuple[Settings, PromotedRouter]:
    """SystemExit instead of an error: a failing import would be tried again for ever."""
    try:
        settings = read_settings()
        promoted = PromotedRouter(router_home(settings), tiers=settings.ladder, memo_size=settings.memo_size)
        return settings, promoted
    except TierwiseError as error:
        sys.exit(f"tierwise: {error}")


_settings, _promoted = _build()


@bentoml.service(
    name="tierwise",
    workers=_settings.workers,
    http={"host": _settings.host, "port": _settings.port},
    traffic={"timeout": 120},
    # Tracing costs 0.4 ms of CPU a request even without an exporter; BentoML's own metrics make a series of
    # every path that anybody tries; its access log is a line a request.
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(build_app(_settings, _promoted, Metrics()), path="/")
class Tierwise:
    """Routes requests to the tier that is enough for each."""
