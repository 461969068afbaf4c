"""What a tier is: its name, the models in it, what they can take, and what a token of it costs."""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

PICO_PER_USD = 10**12
_PICO_PER_TOKEN_PER_USD_PER_MTOK = 10**6


def pico_usd_per_token(usd_per_mtok: Decimal | int | float | str) -> int:
    """A list price in USD per million tokens as integer pico-USD (1e-12 USD) per token.

    Raises ValueError if the price is negative, not a number, or finer than a pico-USD per token.
    """
    try:
        pico = Decimal(str(usd_per_mtok)) * _PICO_PER_TOKEN_PER_USD_PER_MTOK
    except InvalidOperation:
        raise ValueError(f"price {usd_per_mtok!r} is not a number of USD per million tokens") from None
    if not pico.is_finite() or pico < 0 or pico != pico.to_integral_value():
        raise ValueError(f"price {usd_per_mtok!r} must be ≥ 0 with at most six decimals of USD per million tokens")
    return int(pico)


def _price_in_pico(value: object) -> object:
    return None if value is None else pico_usd_per_token(str(value))


UsdPerMtok = Annotated[int | None, BeforeValidator(_price_in_pico, json_schema_input_type=float | None)]
"""Written as USD per million tokens, held as integer pico-USD per token; None when unknown."""


TierName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]


class _Unpriced(BaseModel):
    """What a tier is in either form. A capability is one of all its models; None means unknown, assumed able."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: TierName = Field(description="the name that logs, rules and decisions call it by")
    models: tuple[str, ...] = Field(
        min_length=1, description="its models; decisions name the first, the others are its equals"
    )
    context_window: int | None = Field(
        default=None, ge=1, description="tokens of request and answer together; not set: assumed wide enough"
    )
    tools: bool | None = Field(default=None, description="whether it can call tools; not set: assumed so")
    vision: bool | None = Field(default=None, description="whether it can read images; not set: assumed so")
    json_mode: bool | None = Field(
        default=None, description="whether it can answer in JSON mode or to a schema; not set: assumed so"
    )


class Tier(_Unpriced):
    """One rung of the ladder. Decisions name `models[0]`; the others are its equals, for retries and labels.

    Prices are integer pico-USD per token; None means unknown, which is not free.
    """

    input_pico_usd: int | None = Field(default=None, ge=0)
    output_pico_usd: int | None = Field(default=None, ge=0)

    @property
    def priced(self) -> bool:
        """Whether a call to this tier can be costed."""
        return self.input_pico_usd is not None and self.output_pico_usd is not None


class TierEntry(_Unpriced):
    """A tier as a user writes it in a ladder file or in the settings, priced in USD per million tokens."""

    usd_per_mtok_in: UsdPerMtok = Field(
        default=None, description="USD for a million tokens in, six decimals at most; not set: unknown, not free"
    )
    usd_per_mtok_out: UsdPerMtok = Field(default=None, description="the same for tokens out; both prices or neither")

    @model_validator(mode="after")
    def _has_both_prices_or_none(self) -> Self:
        if (self.usd_per_mtok_in is None) != (self.usd_per_mtok_out is None):
            raise ValueError("has one price; give usd_per_mtok_in and usd_per_mtok_out, or neither")
        return self

    def tier(self) -> Tier:
        """As a rung of the ladder."""
        return Tier(
            **{name: getattr(self, name) for name in _Unpriced.model_fields},
            input_pico_usd=self.usd_per_mtok_in,
            output_pico_usd=self.usd_per_mtok_out,
        )
