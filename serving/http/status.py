"""What serves right now, and why anything is degraded."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving import __version__
from serving.routing.promoted import PromotedRouter


def status_route(promoted: PromotedRouter) -> Route:
    """`GET /status`."""

    async def status(_request: Request) -> Response:
        router = promoted.router
        manifest = router.classifier.bundle.manifest
        return JSONResponse(
            {
                "object": "status",
                "tierwise": __version__,
                "router": router.name,
                "version": router.version,
                "digest": router.classifier.bundle.digest,
                "created": manifest.created.isoformat(),
                "encoder": router.classifier.memo and router.classifier.memo.encoder.identity.model_dump(),
                "tiers": [tier.model_dump(mode="json") for tier in router.tiers],
                "thresholds": [threshold.model_dump() for threshold in router.thresholds],
                "degraded": promoted.problem is not None,
                "problem": promoted.problem,
            }
        )

    return Route("/status", status, methods=["GET"])
