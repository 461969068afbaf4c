"""A provider as a user writes it in the settings: where it is, which key opens it, and which models it serves."""

import os
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.errors import ConfigurationError


class UpstreamEntry(BaseModel):
    """Anything that answers as OpenAI's API does: a provider, a server of one's own, another gateway."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$", description="what reports call it")
    base_url: str = Field(
        pattern=r"^https?://[^/\s?#@]+[^\s?#@]*$",
        description="where its API begins, as clients of OpenAI are told: https://api.openai.com/v1",
    )
    key_env: str | None = Field(
        None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",  # in capitals, so that a key in its place is told from a name
        description="the environment variable that holds its key; not set: it asks for none",
    )
    models: tuple[str, ...] = Field(
        (), description="models it serves; not set: all that no other upstream lists, for one upstream at most"
    )
    provider: str | None = Field(
        None, min_length=1, description="by whose price list it is paid; not set: by the name of the model"
    )
    timeout_s: float = Field(
        120.0, gt=0, le=3600, description="seconds for an answer, or from event to event of a stream"
    )
    connect_timeout_s: float = Field(5.0, gt=0, le=60, description="seconds to reach it")
    max_concurrency: int = Field(
        256, ge=1, le=10_000, description="calls under way at once per worker; further ones wait for their turn"
    )

    @model_validator(mode="after")
    def _ends_without_a_slash(self) -> Self:
        if self.base_url.endswith("/"):
            raise ValueError(f"base_url ends in a slash: write {self.base_url.rstrip('/')!r}")
        return self

    def key(self) -> str | None:
        """Its key. Raises ConfigurationError when the variable is not there, or cannot be a header."""
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ConfigurationError(f"upstream {self.name!r}: {self.key_env} is not set; put its key there")
        if not (key.isascii() and key.isprintable()):
            raise ConfigurationError(
                f"upstream {self.name!r}: what {self.key_env} holds is no key: not printable ASCII"
            )
        return key


def server_of(upstreams: Sequence[UpstreamEntry], model: str) -> UpstreamEntry | None:
    """Who serves a model: whoever lists it, else the one that lists none; None where nobody does."""
    listed = next((one for one in upstreams if model in one.models), None)
    return listed or next((one for one in upstreams if not one.models), None)


def clashes(upstreams: Sequence[UpstreamEntry]) -> str | None:
    """What is wrong with them beside each other; None when nothing is."""
    names = [one.name for one in upstreams]
    if twice := next((name for name in names if names.count(name) > 1), None):
        return f"the name {twice!r} is there twice"
    listed = [model for one in upstreams for model in one.models]
    if twice := next((model for model in listed if listed.count(model) > 1), None):
        return f"{twice!r} is a model of two upstreams; which one serves it must be clear"
    if sum(not one.models for one in upstreams) > 1:
        return "several list no models; only one can have all others"
    return None
