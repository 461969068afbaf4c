"""How an error looks to a client: OpenAI's shape, whatever went wrong."""

import logging
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.errors import AccessError, BudgetError, InputError, LedgerError, UnknownModelError, UpstreamError

logger = logging.getLogger(__name__)

_TYPES: Final = {404: "not_found_error", 405: "invalid_request_error", 413: "invalid_request_error"}


class BodyTooLarge(InputError):
    """A request body over the limit."""


class BodyTooSlow(InputError):
    """A request body that does not come."""


def error_object(message: str, kind: str, where: str | None, code: str | None = None) -> dict[str, object]:
    """The `error` of an error body: message, type, param (the offending field) and code."""
    return {"message": message, "type": kind, "param": where, "code": code}


def on_input_error(_request: Request, error: Exception) -> Response:
    """400, 404 for an unknown model, 408 and 413 for a body that takes too long or is over the limit: says what was
    wrong, where, and what to do.
    """
    where = error.where if isinstance(error, InputError) else None
    unknown = isinstance(error, UnknownModelError)
    body = error_object(str(error), "invalid_request_error", where, "model_not_found" if unknown else None)
    if isinstance(error, BodyTooSlow):  # what still comes of it is no request
        return JSONResponse({"error": body}, status_code=408, headers={"Connection": "close"})
    status = 404 if unknown else 413 if isinstance(error, BodyTooLarge) else 400
    return JSONResponse({"error": body}, status_code=status)


def on_http_error(_request: Request, error: Exception) -> Response:
    """An unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    kind = _TYPES.get(error.status_code, "api_error")
    return JSONResponse(
        {"error": error_object(str(error.detail), kind, None)},
        status_code=error.status_code,
        headers=error.headers,
    )


def on_ledger_error(_request: Request, error: Exception) -> Response:
    """503: what cannot be written down is not done."""
    assert isinstance(error, LedgerError)
    return JSONResponse(
        {"error": error_object("the ledger cannot be written or read; /status says why", "api_error", None)},
        status_code=503,
        headers={"Retry-After": "1"},
    )


def budget_error_object(error: BudgetError) -> dict[str, object]:
    """As OpenAI's own, when there is no money left."""
    return error_object(str(error), "insufficient_quota", None, "budget_exceeded")


def on_budget_error(_request: Request, error: Exception) -> Response:
    """429: a hard budget cannot bear the call."""
    assert isinstance(error, BudgetError)
    return JSONResponse(
        {"error": budget_error_object(error)}, status_code=429, headers={"Retry-After": str(error.retry_after_s)}
    )


def on_access_error(_request: Request, error: Exception) -> Response:
    """401 without a key, 403 with one that is not enough, 429 with one that comes too often."""
    assert isinstance(error, AccessError)
    status = {"invalid_api_key": 401, "rate_limit_exceeded": 429}.get(error.code, 403)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    body = error_object(str(error), kind, None, error.code)
    return JSONResponse({"error": body}, status_code=status, headers=headers)


def on_upstream_error(_request: Request, error: Exception) -> Response:
    """What the provider answered last, if it was an error of its own; otherwise 502, 504 when it took too long, and 503
    when none was asked.
    """
    assert isinstance(error, UpstreamError)
    headers = {} if error.code == "unavailable" else {"x-should-retry": "false"}  # it was tried again here
    if error.retry_after_s is not None:
        headers["Retry-After"] = f"{error.retry_after_s:g}"
    if error.status is not None and error.body is not None:
        return Response(error.body, error.status, headers, "application/json")
    body = error_object(str(error), "api_error", None, f"upstream_{error.code}")
    status = {"timeout": 504, "unavailable": 503}.get(error.code, 502)
    return JSONResponse({"error": body}, status_code=status, headers=headers)


def on_client_gone(_request: Request, _error: Exception) -> Response:
    """A client that left before its body had arrived is no error of ours; 499 is what nginx counts it as."""
    return Response(status_code=499)


def on_unexpected_error(request: Request, error: Exception) -> Response:
    """500: the traceback goes to the log, never what the client sent."""
    logger.error("unexpected error in %s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse(
        {"error": error_object("internal error", "api_error", None)},
        status_code=500,
        headers={"Connection": "close"},  # the server closes it after a defect: a client that kept it would lose a call
    )
