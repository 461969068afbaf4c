"""What serves right now, and why anything is degraded."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving import __version__
from serving.classifier.bundle import Threshold
from serving.classifier.encoder import EncoderIdentity
from serving.ledger.access import LedgerAccess
from serving.routing.promoted import PromotedRouter
from serving.tiers import Tier


class LeftOut(BaseModel):
    """A model that is not asked for a while, since calls to it fail. tried_in_s: 0 when the next call tries it."""

    model_config = ConfigDict(frozen=True)

    model: str
    tried_in_s: float


class Status(BaseModel):
    """The router in service.

    tierwise: version of the software. router: `version@digest` as decisions name it. created: when it was trained.
    encoder: null when features alone decide. problem: why the promoted router, or its encoder, is not in use;
    null unless degraded. ledger_problem: why nothing can be recorded; null when it can. left_out: models that the
    worker which answers does not ask for a while; `other` stands for those neither on the ladder nor listed.
    """

    model_config = ConfigDict(frozen=True)

    object: Literal["status"] = "status"
    tierwise: str
    router: str
    version: str
    digest: str
    created: datetime
    encoder: EncoderIdentity | None
    tiers: tuple[Tier, ...]
    thresholds: tuple[Threshold, ...]
    degraded: bool
    problem: str | None
    ledger_problem: str | None
    left_out: tuple[LeftOut, ...]


def status_route(promoted: PromotedRouter, ledger: LedgerAccess, left_out: Callable[[], Mapping[str, float]]) -> Route:
    """`GET /status`."""

    async def status(_request: Request) -> Response:
        router, problem = promoted.router, promoted.problem
        memo = router.classifier.memo
        found = Status(
            tierwise=__version__,
            router=router.name,
            version=router.version,
            digest=router.classifier.bundle.digest,
            created=router.classifier.bundle.manifest.created,
            encoder=None if memo is None else memo.encoder.identity,
            tiers=router.tiers,
            thresholds=router.thresholds,
            degraded=problem is not None or ledger.problem is not None,
            problem=problem,
            ledger_problem=ledger.problem,
            left_out=tuple(LeftOut(model=model, tried_in_s=round(s, 1)) for model, s in sorted(left_out().items())),
        )
        return Response(found.model_dump_json(), media_type="application/json")

    return Route("/status", status, methods=["GET"])
