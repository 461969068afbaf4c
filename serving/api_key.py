"""Who may call, and for what: keys of which only a hash is kept."""

import hashlib
import secrets
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from serving.attribution import DEFAULT_TENANT, LONGEST_NAME, NOBODY, Attribution
from serving.errors import AccessError

Scope = Literal["call", "report", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("call", "report", "admin")
_PREFIX: Final = "tw-"
_Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME, pattern=r"^[^\x00]+$")]


class ApiKey(BaseModel):
    """What a key opens. The key itself is in no store: see `digest_of`.

    scopes: `call` models and record calls; `report` on its tenant; `admin` all of it, for all tenants. models: the
    names it may ask for, `auto` among them; None: any. Rates are of a minute and of one worker; None: no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Name
    name: _Name | None = None
    tenant: _Name = DEFAULT_TENANT
    scopes: tuple[Scope, ...] = ("call",)
    models: tuple[_Name, ...] | None = None
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    created: datetime
    revoked: datetime | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether it opens what needs this scope."""
        return self.revoked is None and (scope in self.scopes or "admin" in self.scopes)

    def check_model(self, name: str) -> None:
        """Raises AccessError where it may not ask for a model, by its name or as `auto`."""
        if self.models is not None and name not in self.models:
            raise AccessError("model_not_allowed", f"this key may not ask for {name!r}; it may for {self._models()}")

    def _models(self) -> str:
        return ", ".join(self.models or ())


def who_calls(key: ApiKey | None) -> Attribution:
    """Whose a call is, before it says more; None is a caller that needs no key."""
    return NOBODY if key is None else Attribution(tenant=key.tenant, api_key=key.id)


def new_secret() -> str:
    """A key, of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def new_id() -> str:
    """A name to speak of a key by, which opens nothing."""
    return f"key-{secrets.token_hex(4)}"


def digest_of(secret: str) -> bytes:
    """What is kept of a key. A plain hash is enough where nobody can guess: there are 2^256 of them."""
    return hashlib.sha256(secret.encode()).digest()
