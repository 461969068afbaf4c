"""What the service is told: one object from `TIERWISE_…` variables and `tierwise.toml`, read once and passed in."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from serving.attribution import Pin, pinned_elsewhere
from serving.errors import ConfigurationError
from serving.escalate_entry import EscalateEntry
from serving.price_entry import PriceEntry
from serving.tiers import Tier, TierEntry
from serving.upstream_entry import UpstreamEntry, clashes

_FILE: Final = Path("tierwise.toml")
_PREFIX: Final = "TIERWISE_"
_OWN_ADDRESSES: Final = ("127.0.0.1", "::1", "localhost")


class ServedTier(TierEntry):
    """A tier as the service is told of it, priced in USD per million tokens."""

    weights: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (),
        description="shares of its calls through /v1 that each of its models is asked first for, such as 3 and 1; not "
        "set: the first for all, the others where it fails",
    )

    @model_validator(mode="after")
    def _weighs_each_model(self) -> Self:
        if self.weights and len(self.weights) != len(self.models):
            raise ValueError(f"has {len(self.models)} models and weights for {len(self.weights)}; give each model one")
        return self


class Settings(BaseSettings):
    """Everything the service can be told. An environment variable wins over the file; unknown names are errors."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid", toml_file=_FILE)

    home: Path = Field(Path(".tierwise"), description="folder of all state, seen from the working folder")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(3000, ge=1, le=65535, description="port to listen on")
    require_keys: bool | None = Field(
        None,
        description="whether callers need a key (`tierwise keys`); not set: those that come by another address than "
        "this machine's own",
    )
    workers: int = Field(
        1, ge=1, le=64, description="processes, each with its own copy of the router and memory of embeddings"
    )
    policy: str = Field(
        "quality:0.95", description="policy of a request that names none: quality:TARGET, share:MAX_SHARE or value:USD"
    )
    tiers: tuple[ServedTier, ...] | None = Field(
        None, min_length=2, description="models, prices and capabilities per tier, cheapest first"
    )
    prices: tuple[PriceEntry, ...] = Field(
        (), description="prices of models that the list lacks, or that cost you something else"
    )
    upstreams: tuple[UpstreamEntry, ...] = Field(
        (), description="providers of models, for calls that go through here; none: /v1 answers no calls"
    )
    aliases: dict[str, str] = Field(
        {},
        description="other names to ask for, and what each means: a model, `auto`, or `auto:` and a policy",
    )
    deadline_s: float = Field(
        300.0, gt=0, le=3600, description="seconds until an answer begins, however many models are tried for it"
    )
    breaker_failures: int = Field(
        5, ge=1, description="failures of a model in a row, in one worker, after which it is left out for a while"
    )
    breaker_first_s: float = Field(
        5.0, gt=0, le=3600, description="seconds that it is left out, until one call tries it"
    )
    breaker_longest_s: float = Field(
        120.0, gt=0, le=3600, description="most seconds that it is left out: they double each time that it fails again"
    )
    escalate: EscalateEntry = Field(EscalateEntry(), description="when an answer is not good enough to be given")
    pins: tuple[Pin, ...] = Field(
        (), description="tiers for all requests of a team, feature or task, where they can take them; first match wins"
    )
    session_ttl_s: float | None = Field(
        None,
        gt=0,
        description="seconds a session keeps its tier after it was last seen, to within a tenth; not set: not sticky",
    )
    session_by_prefix: bool = Field(
        False,
        description="whether a conversation that names no session keeps its tier too, known by its tools and messages "
        "so far; with session_ttl_s",
    )
    session_switch: bool = Field(
        False,
        description="whether a session goes to another tier where that gains more than the provider's cache of the "
        "conversation is worth; with session_ttl_s",
    )
    max_sessions: int = Field(
        100_000,
        ge=1_000,
        description="sessions remembered on this machine, 0.1 KB each; the least recently seen go first",
    )
    max_top_share: float | None = Field(
        None, ge=0, le=1, description="largest share of decisions that go to the top tier by choice, under any policy"
    )
    top_burst: int = Field(
        20, ge=1, description="decisions per worker by which a run may go over max_top_share of its length"
    )
    exploration: float = Field(
        0.0, ge=0, lt=1, description="share of decisions drawn evenly from the tiers allowed, to learn what they can do"
    )
    explain: bool | None = Field(
        None,
        description="whether clients may ask for explanations, which name training prompts by their ids and tell how "
        "similar a prompt is to them; not set: only when listening on this machine's own address",
    )
    log_requests: bool = Field(
        True, description="whether a line of JSON for each request goes to stderr: ids, times, tokens and cost, no text"
    )
    log_decisions: bool = Field(
        True,
        description="whether every decision is kept for `tierwise train --logs ledger`: 1.2 KB each, embedding and "
        "features, no text",
    )
    log_days: int = Field(
        90, ge=1, le=3660, description="days that decisions, their text and feedback are kept; events stay"
    )
    store_text: bool = Field(False, description="whether the text of requests, and of comments, is kept with them")
    redact: str | None = Field(
        None,
        description="what every text goes through before it is stored, a function from text to text: "
        "package.module:function",
    )
    budget_webhook: str | None = Field(
        None,
        pattern=r"^https?://",
        description="where it is posted that a budget comes to its end; not set: logged alone",
    )
    memo_size: int = Field(
        10_000,
        ge=1,
        description="embeddings of recent prompts, and what was predicted of them, kept per worker, 2 KB each",
    )
    max_request_bytes: int = Field(1_000_000, ge=1_000, description="bytes of the largest body of one request")
    max_batch_bytes: int = Field(16_000_000, ge=1_000, description="bytes of the largest body of a batch of requests")
    max_batch_requests: int = Field(1_000, ge=1, description="most requests in a batch")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @field_validator("tiers")
    @classmethod
    def _names_are_distinct(cls, tiers: tuple[ServedTier, ...] | None) -> tuple[ServedTier, ...] | None:
        names = [tier.name for tier in tiers or ()]
        if len(set(names)) < len(names):
            raise ValueError("name a tier twice")
        return tiers

    @field_validator("upstreams")
    @classmethod
    def _upstreams_do_not_clash(cls, upstreams: tuple[UpstreamEntry, ...]) -> tuple[UpstreamEntry, ...]:
        if wrong := clashes(upstreams):
            raise ValueError(wrong)
        return upstreams

    @field_validator("aliases")
    @classmethod
    def _aliases_are_other_names(cls, aliases: dict[str, str]) -> dict[str, str]:
        for name, meant in aliases.items():
            if not name or name.partition(":")[0] == "auto":
                raise ValueError(f"{name!r} cannot be another name of {meant!r}")
            if not meant or meant in aliases:
                raise ValueError(f"{name!r} means {meant!r}, which is an alias itself, or nothing")
        return aliases

    @field_validator("pins")
    @classmethod
    def _pins_are_to_tiers(cls, pins: tuple[Pin, ...], info: ValidationInfo) -> tuple[Pin, ...]:
        tiers: tuple[ServedTier, ...] | None = info.data.get("tiers")
        if tiers and (wrong := pinned_elsewhere(pins, [tier.name for tier in tiers])):
            raise ValueError(wrong)
        return pins

    @field_validator("session_by_prefix", "session_switch")
    @classmethod
    def _has_sessions(cls, wanted: bool, info: ValidationInfo) -> bool:
        if wanted and info.data.get("session_ttl_s") is None:
            raise ValueError("needs session_ttl_s: without it no tier is kept")
        return wanted

    @property
    def needs_keys(self) -> bool:
        """Whether nobody can call without a key."""
        return self.host not in _OWN_ADDRESSES if self.require_keys is None else self.require_keys

    @property
    def explains(self) -> bool:
        """Whether clients may ask for explanations."""
        return self.host in _OWN_ADDRESSES if self.explain is None else self.explain

    @property
    def ladder(self) -> tuple[Tier, ...] | None:
        """The configured tiers, None when the router's own are to be used."""
        return None if self.tiers is None else tuple(tier.tier() for tier in self.tiers)

    @property
    def weights(self) -> dict[str, tuple[float, ...]]:
        """Of the models of each tier that has some, by its name."""
        return {tier.name: tier.weights for tier in self.tiers or () if tier.weights}


def read_settings() -> Settings:
    """The settings of this process. Raises ConfigurationError naming the variable or key, its value and the reason."""
    known = {f"{_PREFIX}{name}".upper() for name in Settings.model_fields}
    if unknown := sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in known):
        raise ConfigurationError(f"{unknown[0]} is not a setting; known: {', '.join(sorted(known))}")
    try:
        return Settings()
    except (ValidationError, ValueError) as error:
        raise ConfigurationError(f"settings ({_PREFIX}… or {_FILE}): {_first_reason(error)}") from None


def _first_reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        close = get_close_matches(key, Settings.model_fields, n=1)
        return f"{key}: is not a setting; " + (f"did you mean {close[0]}?" if close else "see docs/configuration.md")
    if first["loc"][:1] == ("upstreams",):
        return f"{key}: {first['msg']}"  # not what is there instead, which may be a key in the wrong place
    return f"{key}: {first['msg']}, not {str(first.get('input'))[:80]!r}"
