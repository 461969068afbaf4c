"""What a training run is told: one TOML section, logged whole to MLflow."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.errors import ConfigurationError


class Split(BaseModel):
    """Shares of the prompt groups: heads are fitted and calibrated, given thresholds, and judged on different ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: float = Field(0.65, gt=0, description="to fit the heads, and by cross-validation to calibrate them")
    threshold: float = Field(0.20, gt=0, description="to choose the thresholds that targets need")
    test: float = Field(0.15, gt=0, description="only ever judged on; the three sum to 1")

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if abs(sum(self.model_dump().values()) - 1) > 1e-9:
            raise ValueError(f"shares must sum to 1, not {sum(self.model_dump().values()):g}")
        return self


class FeedbackWeights(BaseModel):
    """How much a complaint counts beside a judged outcome, 0 (ignored) to 1. A judgement, not a measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regenerate: float = Field(0.5, ge=0, le=1, description="another answer was asked for")
    escalate: float = Field(0.8, ge=0, le=1, description="a stronger model was asked")
    edit: float = Field(0.3, ge=0, le=1, description="the answer was edited before it was used")


class HeadSettings(BaseModel):
    """A kernel regression, and gradient boosting in scikit-learn's terms. Figures behind the defaults:
    docs/decisions/2026-11-26-kernel.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: Literal["auto", "kernel", "kernel and trees"] = Field(
        "auto", description="what predicts; `auto` adds the trees where cross-validation shows that they help"
    )
    prior: bool = Field(True, description="logs start from what the public outcomes say of a prompt")
    landmarks: int = Field(1000, ge=10, le=4000, description="prompts of the log that the kernel compares with")
    gamma: float = Field(0.012, gt=0, description="how fast similarity falls with the squared distance of two prompts")
    embedding_scale: float = Field(
        7.0, ge=0, description="length of the embedding, beside features of unit variance, in that distance"
    )
    ridge: float = Field(10.0, gt=0, description="how much the kernel is held back, in labels")
    components: int = Field(64, ge=1, le=384, description="principal components of the embedding, for the trees")
    trees: int = Field(60, ge=1, le=1000, description="trees of a head, one head a tier")
    learning_rate: float = Field(0.05, gt=0, le=1, description="how much each tree counts")
    leaves: int = Field(12, ge=2, le=64, description="most leaves of a tree")
    depth: int = Field(5, ge=1, le=20, description="most levels of a tree; a prediction takes as many steps")
    min_samples_leaf: int = Field(
        25, ge=1, description="fewest prompts in a leaf; fewer where a tier has few labels, down to 5"
    )
    l2: float = Field(5.0, ge=0, description="shrinks what leaves with few prompts say")
    token_trees: int = Field(40, ge=1, le=1000, description="trees for the expected output tokens")


class TrainingConfig(BaseModel):
    """The `[training]` section of the file given to `tierwise train --config`. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field(
        "default",
        min_length=1,
        description=(
            "what embeds the prompts: default (English), multilingual, or the name, digest or folder of an exported one"
        ),
    )
    acceptable_from: float = Field(
        0.5, ge=0, le=1, description="least score that is acceptable, unless the ladder file says"
    )
    targets: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.90, 0.95, 0.98, 0.99), min_length=1, description="retained qualities that can be asked for as quality:TARGET"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="with which each target is promised")
    max_weight: float = Field(100.0, ge=1, description="inverse propensities are clipped here")
    min_labels: int = Field(30, ge=10, description="fewest labels of a tier; of its rarer outcome, a third as many")
    same_prompt_cosine: float = Field(
        0.95,
        gt=0,
        le=1,
        description="prompts with embeddings this similar are one group, which no part of the split divides",
    )
    remembered_prompts: int = Field(
        20_000,
        ge=0,
        description="fitted prompts whose embeddings the bundle keeps, for explanations and baselines; 0 keeps none",
    )
    seed: int = Field(0, ge=0, description="of whatever is drawn at random in fitting")
    split: Split = Split()
    feedback_weight: FeedbackWeights = FeedbackWeights()
    heads: HeadSettings = HeadSettings()


def read_config(path: Path | None) -> TrainingConfig:
    """The `[training]` section of a TOML file, or the defaults. Raises ConfigurationError naming the key."""
    if path is None:
        return TrainingConfig()
    try:
        sections = tomllib.loads(path.read_text("utf-8"))
        if unknown := sorted(sections.keys() - {"training"}):
            raise ConfigurationError(
                f"{path}: {unknown[0]}: there is only one section, [training], with [training.heads], [training.split] "
                "and [training.feedback_weight] in it"
            )
        return TrainingConfig.model_validate(sections.get("training", {}))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("training", *map(str, first["loc"])))
        raise ConfigurationError(f"{path}: {key}: {first['msg']}, not {first.get('input')!r}") from None
