"""One evaluation from start to end: a router and a file of outcomes → figures, printed and kept in MLflow."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.classifier.bundle import Bundle, read_bundle
from serving.classifier.classifier import Classifier
from serving.errors import InputError, LabelError
from serving.routing.router import Router
from serving.tiers import Tier
from training.config import TrainingConfig
from training.data import Data, Say, ladder_for, log_data
from training.encoders import DEFAULT_ENCODER, encoder_for
from training.evaluation.evaluation import Evaluation, evaluate
from training.evaluation.judged import judge
from training.evaluation.report import Subject
from training.fitting.embeddings import EmbeddingStore
from training.fitting.examples import Examples, prompt_groups
from training.fitting.from_logs import read_examples
from training.labelling.outcomes import Labeller
from training.logs.ladder import Ladder
from training.registry import Registry
from training.tracking import log_evaluation


@dataclass(frozen=True)
class Outcomes:
    """What to judge on. pair: the weak and the strong model, whose scores then count as they are, graded or not."""

    path: Path
    split: str | None = None
    pair: tuple[str, str] | None = None
    ladder_file: Path | None = None
    prices: Path | None = None


def evaluate_router(
    reference: str, outcomes: Outcomes, home: Path, *, wanted: Sequence[str], say: Say
) -> tuple[Evaluation, Subject]:
    """The evaluation of a bundle's folder, a version or an alias on a file; one more look at it is recorded.

    wanted: names of baselines. Raises RegistryError or BundleError without such a router, InputError when the file, the
    split or the ladder does not fit, LabelError when nothing is left to judge on.
    """
    registry = Registry(home)
    with _router(reference, registry) as (version, bundle):
        ladder, columns = _ladder(bundle, outcomes)
        data = log_data((outcomes.path,), home, say=say, ladder=ladder, prices=outcomes.prices)
        examples = _examples(data, bundle, outcomes, home)
        if outcomes.pair is not None:
            _check_pair(outcomes.pair, examples, data)
        examples, seen = unseen(examples, bundle)
        digest = examples.digest()  # of what is looked at: the same as the training's own of its test part
        tiers = data.ladder.tiers
        groups = prompt_groups(examples, TrainingConfig().same_prompt_cosine)
        trained_for = [tier.name for tier in tiers] == [tier.name for tier in bundle.tiers]
        router = Router(Classifier(bundle, None), version, tiers=tiers if trained_for else None)
        thresholds = router.thresholds if trained_for and outcomes.pair is None else ()
        say(f"judging on {len(examples):,} prompts, each figure with {len(wanted)} baselines")
        evaluation = evaluate(
            judge(bundle, examples, groups, tiers, columns),
            data.ladder.names,
            thresholds,
            wanted=wanted,
            trained_on=bundle.trained_on,
            columns=columns,
        )
        similar = _similar(examples, bundle, TrainingConfig().same_prompt_cosine)
    looks = log_evaluation(registry, router.name, data, digest, evaluation, thresholds)
    subject = Subject(
        router=router.name,
        outcomes=data.name,
        outcomes_digest=digest,
        split=outcomes.split,
        tiers=data.ladder.names,
        models={tier.name: tier.models for tier in tiers},
        seen=seen,
        similar=similar,
        refused=[threshold.target for threshold in thresholds if threshold.mu is None],
        looks=looks,
    )
    return evaluation, subject


@contextlib.contextmanager
def _router(reference: str, registry: Registry) -> Iterator[tuple[str, Bundle]]:
    folder = Path(reference)
    if (folder / "bundle.json").exists():
        yield folder.name, read_bundle(folder)
    else:
        number = registry.resolve(reference)
        with registry.bundle(number) as (_, bundle):
            yield str(number), bundle


def _ladder(bundle: Bundle, outcomes: Outcomes) -> tuple[Ladder, list[int]]:
    """The ladder to judge on, and for each of its tiers the router's that answers for it.

    A pair is judged by the router's lowest and top tier. Without a ladder file the router's own ladder holds.
    """
    trained = [tier.name for tier in bundle.tiers]
    if outcomes.pair is not None:
        weak, strong = outcomes.pair
        tiers = (Tier(name="weak", models=(weak,)), Tier(name="strong", models=(strong,)))
        return Ladder(tiers=tiers), [0, len(trained) - 1]
    if outcomes.ladder_file is None:
        return Ladder(tiers=bundle.tiers, acceptable_from=bundle.manifest.acceptable_from), list(range(len(trained)))
    ladder = ladder_for(outcomes.path, outcomes.ladder_file)
    if missing := [name for name in ladder.names if name not in trained]:
        raise InputError(
            f"has the tier {missing[0]!r}, which the router does not know; it has {', '.join(trained)}. For two models "
            "use --weak and --strong",
            where=str(outcomes.ladder_file),
        )
    columns = [trained.index(name) for name in ladder.names]
    if columns != sorted(columns):
        raise InputError(f"orders the tiers otherwise than the router: {', '.join(trained)}", where="--ladder")
    return ladder, columns


def _check_pair(pair: tuple[str, str], examples: Examples, data: Data) -> None:
    for model, judged in zip(pair, examples.judged().T, strict=True):
        if np.isnan(judged).all():
            others = ", ".join(data.other_models) or "no other"
            raise InputError(f"{data.name} has no outcome of the model {model!r}; beside the pair it has {others}")


def _examples(data: Data, bundle: Bundle, outcomes: Outcomes, home: Path) -> Examples:
    config = TrainingConfig()
    labeller = Labeller(
        tiers=data.ladder.names,
        acceptable_from=None if outcomes.pair else data.ladder.acceptable_from or bundle.manifest.acceptable_from,
        feedback_weight=config.feedback_weight,
        max_weight=bundle.calibration.max_weight,
    )
    encoder = encoder_for(home, bundle.manifest.encoder or DEFAULT_ENCODER)
    store = EmbeddingStore(home / "embeddings", encoder)
    examples, _ = read_examples((outcomes.path,), data.ladder, labeller, store, split=outcomes.split)
    return examples


def _similar(examples: Examples, bundle: Bundle, cosine: float) -> int | None:
    """How many prompts are at least so similar to one that the router remembers."""
    if bundle.trained_on is None:
        return None
    remembered = bundle.trained_on.embedding.T
    blocks = (examples.embedding[i : i + 1024] @ remembered for i in range(0, len(examples), 1024))
    return int(sum((block.max(axis=1, initial=-1) >= cosine).sum() for block in blocks))


def unseen(examples: Examples, bundle: Bundle) -> tuple[Examples, int | None]:
    """The examples without those that the router was made from, and how many those were."""
    if bundle.trained_on is None:
        return examples, None
    seen = bundle.trained_on.has_seen(examples.key)
    if seen.all():
        raise LabelError(
            f"the router was made from all {len(examples):,} prompts of these outcomes: judge it on others"
        )
    return examples.take(~seen), int(np.sum(seen))
