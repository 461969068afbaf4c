"""Who may call what: keys of clients, and which path takes which scope."""

import ipaddress
import logging
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from serving.api_key import ApiKey, Scope, digest_of
from serving.errors import AccessError, LedgerError
from serving.http.errors import on_access_error, on_ledger_error
from serving.http.rates import Rates
from serving.ledger.access import LedgerAccess

logger = logging.getLogger(__name__)

PROBES: Final = ("/healthz", "/livez", "/readyz")
"""BentoML answers them, and leaves other methods to us."""
OPEN: Final = frozenset({*PROBES, "/docs", "/openapi.json"})
"""Paths that say nothing about anybody's calls."""
_SCOPES: Final[Mapping[str, Scope]] = {
    "/route": "call", "/route/batch": "call", "/ledger/events": "call", "/v1/chat/completions": "call",
    "/v1/responses": "call", "/v1/embeddings": "call", "/v1/models": "call", "/v1/feedback": "call",
    "/v1/systemone": "call",
    "/ledger/report": "report", "/status": "report",
}  # fmt: skip
"""What else there is, such as `/metrics`, which counts for all tenants, is for `admin`."""
KEY_IN_SCOPE: Final = "tierwise.key"


def key_of(request: Request) -> ApiKey | None:
    """The caller's key; None of a caller that needs none."""
    key: ApiKey | None = request.scope[KEY_IN_SCOPE]
    return key


class KeyRing:
    """The keys that open something, as of the last second."""

    def __init__(self, access: LedgerAccess) -> None:
        self._access = access
        self._keys: Mapping[bytes, ApiKey] | None = None

    def refresh(self) -> None:
        """See which keys there are. Raises LedgerError when they cannot be read."""
        if (store := self._access.opened) is not None:
            self._keys = {digest: key for digest, key in store.keys().items() if key.revoked is None}

    def find(self, secret: str) -> ApiKey | None:
        """The key, if it is one. Raises LedgerError when no keys could be read yet."""
        if self._keys is None:
            raise LedgerError("keys cannot be read")
        return self._keys.get(digest_of(secret))


class Guard:
    """ASGI middleware that lets in who has a key for what is asked, and counts its requests.

    required: of all callers; None: of those that come by another address than this machine's own.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, rates: Rates, required: bool | None) -> None:
        self._app = app
        self._keys = keys
        self._rates = rates
        self._required = required

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            scope[KEY_IN_SCOPE] = self._admitted(scope)
        except AccessError as error:
            await on_access_error(Request(scope), error)(scope, receive, send)
        except LedgerError as error:
            await on_ledger_error(Request(scope), error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _admitted(self, scope: AsgiScope) -> ApiKey | None:
        """The key it comes with. Raises AccessError where it must not come in."""
        secret = _secret(scope)
        required = not _is_own(scope) if self._required is None else self._required
        if not required and (secret is None or not secret.startswith("tw-")):
            return None
        key = None if secret is None else self._keys.find(secret)
        if key is None:
            if not required:
                return None
            raise AccessError(
                "invalid_api_key",
                "this key is not known, or was revoked" if secret else "send a key: Authorization: Bearer tw-…",
            )
        needed = _SCOPES.get(scope["path"], "admin")
        if not key.allows(needed):
            raise AccessError(
                "not_allowed", f"this takes a key with scope {needed!r}; yours has {', '.join(key.scopes)}"
            )
        if needed == "call":
            self._rates.admit(key)
        return key


def _secret(scope: AsgiScope) -> str | None:
    sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    kind, _, secret = sent.decode("latin-1").partition(" ")
    return secret.strip() or None if kind.lower() == "bearer" else None


def _is_own(scope: AsgiScope) -> bool:
    """Whether a request came in by loopback or by a socket in the file system; not, where the server does not tell."""
    server = scope.get("server")
    if server is None:
        return False
    host, port = server
    if port is None:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return bool(host == "localhost")
