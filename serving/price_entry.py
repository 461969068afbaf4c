"""A price as a user writes it in the settings, for a model that no list has or that costs them something else."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.tiers import UsdPerMtok

_UNSET = "not set: as other tokens in"


class PriceEntry(BaseModel):
    """USD for a million tokens; integer pico-USD per token inside. Wins over the list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, max_length=256, description="the name that the provider answers with")
    provider: str | None = Field(None, min_length=1, description="only when this provider serves it; not set: any")
    usd_per_mtok_in: UsdPerMtok = Field(description="tokens in")
    usd_per_mtok_out: UsdPerMtok = Field(description="tokens out, reasoning among them")
    usd_per_mtok_cached_in: UsdPerMtok = Field(None, description=f"tokens read from the provider's cache; {_UNSET}")
    usd_per_mtok_cache_write: UsdPerMtok = Field(None, description=f"tokens written to it; {_UNSET}")
    usd_per_mtok_batch_in: UsdPerMtok = Field(None, description="tokens in, in a batch; not set: unknown")
    usd_per_mtok_batch_out: UsdPerMtok = Field(None, description="tokens out, in a batch; not set: unknown")

    @model_validator(mode="after")
    def _has_prices(self) -> Self:
        if self.usd_per_mtok_in is None or self.usd_per_mtok_out is None:
            raise ValueError("has no price; give usd_per_mtok_in and usd_per_mtok_out")
        if (self.usd_per_mtok_batch_in is None) != (self.usd_per_mtok_batch_out is None):
            raise ValueError("has one price for batches; give usd_per_mtok_batch_in and usd_per_mtok_batch_out")
        return self
