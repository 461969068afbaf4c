"""The story of a training run: read → label → embed → fit → calibrate → choose thresholds → evaluate → register."""

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray

from serving.classifier.bundle import Bundle, write_bundle
from serving.classifier.encoder import Encoder, EncoderIdentity
from serving.errors import BundleError, EncoderError, InputError, RegistryError
from serving.ledger.sqlite.store import SqliteLedger
from training.config import TrainingConfig
from training.data import Data, Say, public_data
from training.encoders import DEFAULT_ENCODER, chosen_encoder
from training.evaluation.broken_slices import broken_slices
from training.evaluation.comparison import Comparison, compare
from training.evaluation.evaluation import Slice, evaluate, shown_threshold
from training.evaluation.judged import judge
from training.evaluation.model_card import model_card
from training.evaluation.naming import flat_metrics
from training.fitting.embeddings import EmbeddingStore
from training.fitting.examples import PARTS, Examples, prompt_groups, split_parts
from training.fitting.from_ledger import read_ledger_examples
from training.fitting.from_logs import read_examples
from training.fitting.prior import PublicPrior, fit_prior, without_copies
from training.fitting.router import fit_bundle
from training.labelling.outcomes import Labeller
from training.labelling.summary import LabelSummary
from training.logs.ladder import Ladder
from training.public_outcomes import read_public_outcomes
from training.registry import BUNDLE_ARTIFACT, Registry
from training.tracking import TrainingRun, log_training

_BASELINES: Final = ("random", "mixtures", "prompt_length", "question_length", "oracle")
"""Those that need neither fitting nor texts, which the public outcomes do not hold."""


@dataclass(frozen=True)
class Trained:
    """What a run produced.

    comparison: with the champion before it, or why there is none; None without a champion. broken: slices of the
    held-out prompts that retain less than the target of `shown_threshold`.
    """

    version: int
    run_id: str
    metrics: Mapping[str, float]
    bundle: Bundle
    promoted: bool
    comparison: Comparison | str | None
    broken: tuple[Slice, ...]


def train(data: Data, home: Path, config: TrainingConfig, *, promote: bool, force: bool, say: Say) -> Trained:
    """One run, from data to a registered version, promoted if asked for and not worse than the champion.

    Raises LabelError, InputError, ConfigurationError or EncoderError before anything is registered.
    """
    if data.ladder.acceptable_from is not None:
        config = config.model_copy(update={"acceptable_from": data.ladder.acceptable_from})
    encoder = chosen_encoder(home, config.encoder)
    if encoder.identity != DEFAULT_ENCODER:
        say(f"encoder: {encoder.identity.name} {encoder.identity.digest[:12]}")
    examples = labelled_examples(data, home, config, encoder, say)
    groups = prompt_groups(examples, config.same_prompt_cosine)
    part = split_parts(examples, groups, config.split)
    say(f"{len(examples):,} prompts in {groups.max() + 1:,} groups: " + _counted(part))
    test = part == PARTS.index("test")
    prior = None if data.source == "public" else public_prior(examples, encoder, config, say)

    with tempfile.TemporaryDirectory(prefix="tierwise-") as folder:
        bundle, choice = fit_bundle(
            Path(folder) / BUNDLE_ARTIFACT,
            examples,
            part,
            data.ladder.tiers,
            config,
            encoder,
            groups=groups,
            prior=prior,
        )
        say(str(choice))
        held_out = examples.take(test)
        judged = judge(bundle, held_out, groups[test], bundle.tiers, range(len(bundle.tiers)))
        thresholds = bundle.manifest.thresholds
        evaluation = evaluate(judged, data.ladder.names, thresholds, wanted=_BASELINES)
        metrics = flat_metrics(evaluation, thresholds)
        manifest = bundle.manifest.model_copy(update={"metrics": metrics})
        bundle = write_bundle(Path(folder) / BUNDLE_ARTIFACT, replace(bundle, manifest=manifest))
        card = model_card(data, bundle, evaluation)
        registry = Registry(home)
        made = TrainingRun(data, config, part, bundle, Path(folder), judged, evaluation, card)
        run_id = log_training(registry, made)
    version = registry.register(run_id, card, {"dataset_digest": bundle.manifest.dataset_digest})
    champion, comparison = _against_champion(registry, bundle, held_out, groups[test])
    if isinstance(comparison, Comparison):
        say(
            f"against the champion on {comparison.labels:,} held-out labels: Brier score "
            f"{comparison.difference:+.4f} (95 % interval {comparison.low:+.4f} to {comparison.high:+.4f})"
        )
    promoted = promote and _promotes(registry, version, comparison, force=force, say=say)
    if promoted and champion is not None and (lost := _lost_targets(bundle, champion)):
        say(f"version {version} does not hold {lost}, which the champion before it did on its own data")
    shown = shown_threshold(thresholds)
    broken = broken_slices(evaluation, shown.target) if shown is not None and shown.mu is not None else ()
    return Trained(version, run_id, metrics, bundle, promoted, comparison, broken)


def labelled_examples(data: Data, home: Path, config: TrainingConfig, encoder: Encoder, say: Say) -> Examples:
    """The prompts of the data with a label for at least one tier, embedded. Raises LabelError if there are none."""
    labeller = _labeller(data.ladder, config)
    match data.source:
        case "public":
            examples, summary = public_examples(data, encoder.identity, config)
        case "logs":
            store = EmbeddingStore(home / "embeddings", encoder)
            examples, summary = read_examples(data.logs, data.ladder, labeller, store)
        case "ledger":
            store = EmbeddingStore(home / "embeddings", encoder)
            with closing(SqliteLedger(data.path)) as ledger:
                examples, summary, aside = read_ledger_examples(
                    ledger.logged(), data.ladder, labeller, encoder.identity.digest, store
                )
            for reason, count in aside.items():
                say(f"set aside: {count:,} decisions {reason}")
        case _:
            assert_never(data.source)
    say(f"labels:\n{summary}")
    return examples


def public_examples(data: Data, encoder: EncoderIdentity, config: TrainingConfig) -> tuple[Examples, LabelSummary]:
    """The outcomes in the box, and what their labels amount to. Raises as `read_public_outcomes` does."""
    return read_public_outcomes(data.path, encoder, _labeller(data.ladder, config), data.ladder)


def public_prior(own: Examples, encoder: Encoder, config: TrainingConfig, say: Say) -> PublicPrior | None:
    """What a log's heads start from; None where the settings say so, or the public outcomes cannot be read, or are by
    another encoder."""
    if not config.heads.prior:
        return None
    try:
        outcomes, _ = public_examples(public_data(), encoder.identity, config)
    except (EncoderError, InputError) as error:
        say(f"prior: none, for {error}")
        return None
    others = without_copies(outcomes, own, config.same_prompt_cosine)
    say(f"prior: {len(others):,} public prompts; the log's own labels say what is different here")
    return fit_prior(others, config.heads, config.seed)


def _labeller(ladder: Ladder, config: TrainingConfig) -> Labeller:
    return Labeller(ladder.names, config.acceptable_from, config.feedback_weight, config.max_weight)


def _counted(part: NDArray[np.intp]) -> str:
    return ", ".join(
        f"{count:,} to {name}" for name, count in zip(PARTS, np.bincount(part, minlength=len(PARTS)), strict=True)
    )


def _against_champion(
    registry: Registry, bundle: Bundle, held_out: Examples, groups: NDArray[np.intp]
) -> tuple[Bundle | None, Comparison | str | None]:
    """The champion's bundle, if it can be read, and how the new one compares with it."""
    number = next((v.number for v in registry.versions() if "champion" in v.aliases), None)
    if number is None:
        return None, None
    try:
        with registry.bundle(number) as (_, champion):
            return champion, compare(bundle, champion, held_out, groups)
    except (BundleError, RegistryError) as error:  # damaged, deleted, or written by another version of Tierwise
        return None, f"the champion cannot be read: {error}"


def _promotes(registry: Registry, version: int, comparison: Comparison | str | None, *, force: bool, say: Say) -> bool:
    """Promote the version unless the champion is better with confidence, or cannot be compared with it."""
    refusal = None
    if isinstance(comparison, str):
        refusal = f"it cannot be compared with the champion ({comparison})"
    elif comparison is not None and comparison.worse:
        refusal = "it is worse than the champion"
    if refusal and not force:
        say(f"version {version} is not promoted: {refusal}; --force promotes it all the same")
        return False
    registry.promote(version, forced=bool(refusal))
    return True


def _lost_targets(bundle: Bundle, champion: Bundle) -> str:
    """The targets that the champion has a threshold for and the bundle has not."""
    held = {t.target for t in champion.manifest.thresholds if t.mu is not None}
    kept = {t.target for t in bundle.manifest.thresholds if t.mu is not None}
    return ", ".join(f"the target {target:g}" for target in sorted(held - kept))
