"""Tokens of one call, counted alike for every provider."""

from collections.abc import Callable
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.token_estimate import estimated_tokens

_MOST = 10**9  # far beyond any call, and small enough that sums of them fit 64 bits


class Usage(BaseModel):
    """Tokens as billed. None means unknown, which is not 0.

    `input_tokens` includes what was read from and written to the provider's cache, and audio; `output_tokens` includes
    reasoning and audio; `cache_write_tokens` those that stay for an hour, which cost more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    input_tokens: int | None = Field(None, ge=0, le=_MOST)
    cached_input_tokens: int | None = Field(None, ge=0, le=_MOST)
    cache_write_tokens: int | None = Field(None, ge=0, le=_MOST)
    cache_write_1h_tokens: int | None = Field(None, ge=0, le=_MOST)
    input_audio_tokens: int | None = Field(None, ge=0, le=_MOST)
    output_tokens: int | None = Field(None, ge=0, le=_MOST)
    reasoning_tokens: int | None = Field(None, ge=0, le=_MOST)
    output_audio_tokens: int | None = Field(None, ge=0, le=_MOST)

    @model_validator(mode="after")
    def _parts_fit_their_whole(self) -> Self:
        for whole, parts in (
            ("input_tokens", ("cached_input_tokens", "cache_write_tokens")),
            ("input_tokens", ("input_audio_tokens",)),
            ("cache_write_tokens", ("cache_write_1h_tokens",)),
            ("output_tokens", ("reasoning_tokens",)),
            ("output_tokens", ("output_audio_tokens",)),
        ):
            total, sum_of_parts = getattr(self, whole), sum(getattr(self, part) or 0 for part in parts)
            if sum_of_parts > (total or 0):
                raise ValueError(f"has {sum_of_parts} {' and '.join(parts)}, more than its {total} {whole}")
        return self


def with_estimates(told: Usage | None, sent: Callable[[], str | None], came: str | None) -> Usage | None:
    """What was told, and an estimate of what was not: of the tokens that went out and came back. sent: asked only where
    it is needed. A text of None is unknown too."""
    usage, estimated = told or Usage(), {}
    if usage.input_tokens is None and (text := sent()) is not None:
        estimated["input_tokens"] = estimated_tokens(text)
    if usage.output_tokens is None and came is not None:
        estimated["output_tokens"] = estimated_tokens(came)
    return usage.model_copy(update=estimated) if estimated else told
