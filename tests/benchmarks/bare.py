"""A pass-through with nothing in it, to compare the service with: Starlette in front, aiohttp behind.

python -m tests.benchmarks.bare PORT BASE_URL
"""

import contextlib
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def main() -> None:
    """Serve until ended."""
    port, url = int(sys.argv[1]), sys.argv[2]
    uvicorn.run(_application(url), port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


def _application(url: str) -> Starlette:
    sessions: list[aiohttp.ClientSession] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(headers={"authorization": "Bearer made-up"}) as session:
            sessions.append(session)
            yield

    async def passed(request: Request) -> Response:
        headers = {"content-type": "application/json"}
        body = await request.body()
        response = await sessions[0].post(f"{url}/chat/completions", data=body, headers=headers)
        if response.content_type == "text/event-stream":
            return StreamingResponse(_chunks(response), media_type="text/event-stream")
        return Response(await response.read(), response.status, media_type="application/json")

    return Starlette(routes=[Route("/v1/chat/completions", passed, methods=["POST"])], lifespan=lifespan)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with response:
        async for chunk in response.content.iter_any():
            yield chunk


if __name__ == "__main__":
    main()
