"""What serves right now, and why anything is degraded."""

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


class Status(BaseModel):
    """The router in service.

    tierwise: version of the software. router: `version@digest` as decisions name it. created: when it was trained.
    encoder: null when features alone decide. problem: why the promoted router, or its encoder, is not in use;
    null unless degraded. ledger_problem: why nothing can be recorded; null when it can.
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


def status_route(promoted: PromotedRouter, ledger: LedgerAccess) -> Route:
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
        )
        return Response(found.model_dump_json(), media_type="application/json")

    return Route("/status", status, methods=["GET"])
