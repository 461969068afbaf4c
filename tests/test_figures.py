"""What a threshold gives, by hand; slices; and what MLflow and the model card say of it."""

from dataclasses import replace

import numpy as np
import pytest

from serving.classifier.bundle import Bundle, Threshold
from serving.classifier.features import FEATURE_NAMES
from tests.factories import TIERS, made_up_examples
from training.data import public_data
from training.evaluation.evaluation import Evaluation, evaluate
from training.evaluation.figures import target_figures, tier_figures
from training.evaluation.intervals import Estimate, Resamples
from training.evaluation.judged import Judged, judge
from training.evaluation.model_card import MOST_CHARS, known_failures, model_card
from training.evaluation.naming import flat_metrics
from training.evaluation.slices import slices_of
from training.fitting.examples import Examples

NAMES = ("economy", "standard", "premium")


def by_hand() -> Judged:
    """Four prompts; predictions send them to economy, standard, premium, economy at μ = 0."""
    acceptable = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 0], [0, 1, 1]], float)
    proba = np.array([[0.9, 0.5, 0.5], [0.1, 0.9, 0.5], [0.1, 0.2, 0.9], [0.9, 0.1, 0.1]])
    cost = np.broadcast_to([1.0, 2.0, 10.0], (4, 3))
    examples = made_up_examples(4)
    return Judged(
        proba, cost, acceptable, np.ones((4, 3)), acceptable, cost, Resamples.of(np.arange(4)), examples, "recorded"
    )


def test_retained_quality_cost_and_shares_of_a_target_by_hand() -> None:
    # Right: the first two of three that the top gets right, 2/3. Cost 1 + 2 + 10 + 1 = 14 of 40.
    threshold = Threshold(target=0.9, confidence=0.95, mu=None)  # refused: judged at μ = 0
    figures = target_figures(by_hand(), [threshold], NAMES)[0.9]
    assert figures["retained_quality"].value == pytest.approx(2 / 3)
    assert figures["relative_cost"].value == pytest.approx(14 / 40)
    assert [figures[f"share.{name}"].value for name in NAMES] == pytest.approx([0.5, 0.25, 0.25])


def test_tier_accuracy_counts_prompts_that_some_tier_can_answer() -> None:
    # Cheapest acceptable: economy, standard, none, standard. Chosen: economy, standard, premium, economy: 2 of 3.
    threshold = Threshold(target=0.9, confidence=0.95, mu=0.0)
    assert target_figures(by_hand(), [threshold], NAMES)[0.9]["tier_accuracy"].value == pytest.approx(2 / 3)


def test_a_larger_mu_sends_prompts_down() -> None:
    # At μ = .05 the third prompt's premium is worth .9 - .5, standard .2 - .1: it stays. At μ = .1 it goes to standard,
    # worth .0 like economy, which is cheaper: ties go down.
    thresholds = [Threshold(target=t, confidence=0.95, mu=mu) for t, mu in ((0.9, 0.05), (0.8, 0.1))]
    figures = target_figures(by_hand(), thresholds, NAMES)
    assert figures[0.9]["share.premium"].value == pytest.approx(0.25)
    assert figures[0.8]["share.premium"].value == 0
    assert figures[0.8]["share.economy"].value == pytest.approx(0.75)


def test_tier_figures_are_of_judged_prompts_only() -> None:
    judged = by_hand()
    holes = judged.acceptable.copy()
    holes[:3, 0] = np.nan
    figures = tier_figures(replace(judged, acceptable=holes), NAMES)["economy"]
    assert figures["labels"] == 1
    assert getattr(figures["acceptable"], "value") == 0  # noqa: B009 (a union: the count of labels is a number)


def sliced(n: int, **slices: list[str | None]) -> Examples:
    examples = made_up_examples(n)
    return replace(examples, slices={name: np.array(values, object) for name, values in slices.items()})


def test_slices_are_of_fifty_prompts_at_least_and_never_of_all() -> None:
    examples = sliced(120, team=["legal"] * 60 + ["sales"] * 30 + [None] * 30, task=["same"] * 120)
    found = {(kind, name): len(rows) for kind, name, rows in slices_of(examples)}
    assert found[("team", "legal")] == 60
    assert ("team", "sales") not in found
    assert not [kind for kind, _ in found if kind == "task"]


def test_lengths_and_languages_are_told_from_the_features() -> None:
    features = made_up_examples(200).features.copy()
    features[:, [FEATURE_NAMES.index(f"stopwords_{name}") for name in ("en", "de", "fr", "es")]] = 0
    features[:, FEATURE_NAMES.index("share_cjk")] = 0
    features[:100, FEATURE_NAMES.index("log_chars")] = np.log1p(200)
    features[100:, FEATURE_NAMES.index("log_chars")] = np.log1p(201)
    features[:60, FEATURE_NAMES.index("stopwords_de")] = 0.1
    features[60:120, FEATURE_NAMES.index("share_cjk")] = 0.9
    examples = replace(made_up_examples(200), features=features)
    found = {name: rows for _, name, rows in slices_of(examples)}
    assert found["up to 200 characters"].tolist() == list(range(100))
    assert found["German"].tolist() == list(range(60))
    assert found["Chinese, Japanese or Korean"].tolist() == list(range(60, 120))


@pytest.fixture(scope="module")
def evaluation(bundle: Bundle) -> Evaluation:
    examples = made_up_examples(400, seed=6)
    teams = np.array(["legal", "sales", "support", "research"] * 100, object)
    judged = judge(bundle, replace(examples, slices={"team": teams}), np.arange(400), TIERS, range(3))
    return evaluate(judged, NAMES, bundle.manifest.thresholds, wanted=("random", "prompt_length"))


def test_metrics_are_grouped_by_section_with_the_ends_of_their_intervals(
    evaluation: Evaluation, bundle: Bundle
) -> None:
    metrics = flat_metrics(evaluation, bundle.manifest.thresholds)
    assert {name.split("/")[0] for name in metrics} == {"policy", "ranking", "support", "tier"}
    assert metrics["ranking/apgr.low"] < metrics["ranking/apgr"] < metrics["ranking/apgr.high"]
    assert metrics["ranking/apgr.random"] == pytest.approx(0.5)
    assert metrics["support/judged_prompts"] == 400
    assert {"policy/retained_quality.at_95", "policy/supported.at_95", "tier/auc.economy"} <= metrics.keys()
    assert not [name for name, value in metrics.items() if np.isnan(value)]


def test_a_model_card_says_data_licence_figures_slices_failures_and_the_promise(
    evaluation: Evaluation, bundle: Bundle
) -> None:
    card = model_card(public_data(), bundle, evaluation)
    for part in (
        "MMLU-Pro Apache-2.0",
        "APGR",
        "| target |",
        "team: legal",
        "Known failures",
        "promise covers",
    ):
        assert part in card
    quality, cost = (evaluation.targets[0.95][name] for name in ("retained_quality", "relative_cost"))
    for estimate in (quality, cost, evaluation.ranking["router"]["apgr"]):
        assert estimate.value is not None
        assert f"{estimate.value:.3f}".removeprefix("0") in card
    assert len(card) <= MOST_CHARS


def test_a_card_of_too_many_slices_says_how_many_it_leaves_out(evaluation: Evaluation, bundle: Bundle) -> None:
    part = evaluation.slices[0]
    many = replace(evaluation, slices=tuple(replace(part, name=f"team {i}") for i in range(200)))
    card = model_card(public_data(), bundle, many)
    assert len(card) <= MOST_CHARS
    assert "Slices, less " in card
    assert "promise covers" in card


def test_a_card_of_many_failures_still_says_what_the_promise_covers(evaluation: Evaluation, bundle: Bundle) -> None:
    part = evaluation.slices[0]
    failing = dict(part.figures) | {"retained_quality": Estimate(0.5, (0.4, 0.6))}
    long = "a team with a name that goes on and on and on " * 5
    many = tuple(replace(part, name=f"{i}|{long}", figures=failing) for i in range(60))
    card = model_card(public_data(), bundle, replace(evaluation, slices=many))
    assert "promise covers" in card
    assert "- and " in card
    assert len(card) <= MOST_CHARS


def test_known_failures_name_a_missed_target_and_a_refused_one(evaluation: Evaluation, bundle: Bundle) -> None:
    first, *others = bundle.manifest.thresholds
    refused = first.model_copy(update={"mu": None, "refused": "too few labels"})
    manifest = bundle.manifest.model_copy(update={"thresholds": (refused, *others)})
    assert f"Target {first.target:g} is refused: too few labels." in known_failures(
        replace(bundle, manifest=manifest), evaluation
    )
    figures = dict(evaluation.targets[0.95])
    figures["retained_quality"] = replace(figures["retained_quality"], value=0.9, interval=(0.88, 0.92))
    missed = replace(evaluation, targets={**evaluation.targets, 0.95: figures})
    assert "Target 0.95 was missed on the held-out prompts." in known_failures(bundle, missed)
