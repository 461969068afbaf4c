"""The body of a request: read up to a limit, and as JSON."""

import asyncio
from typing import Final

from pydantic_core import from_json
from starlette.requests import Request

from serving.errors import InputError
from serving.http.errors import BodyTooLarge, BodyTooSlow

_WITHIN_S: Final = 60.0


async def read_json(request: Request, limit: int) -> object:
    """What the body holds. Raises InputError when it is compressed or no JSON, BodyTooLarge beyond `limit` bytes, and
    BodyTooSlow when it takes a minute to come.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise InputError("is compressed, by its content-encoding; send it plain", where="body")
    body = bytearray()
    try:
        async with asyncio.timeout(_WITHIN_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise BodyTooLarge(f"is larger than {limit} bytes, the limit of this endpoint", where="body")
    except TimeoutError:
        raise BodyTooSlow(f"did not come within {_WITHIN_S:g} s; send it again", where="body") from None
    try:
        return from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", where="body") from None


def as_object(value: object, *, where: str | None, holding: str) -> dict[str, object]:
    """The value, which must be a JSON object. Raises InputError that says what it should hold."""
    if not isinstance(value, dict):
        raise InputError(f"must be a JSON object with {holding}, not {type(value).__name__}", where=where)
    return value
