"""Each baseline does what its name says, on data whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from serving.classifier.bundle import Bundle
from serving.classifier.quantised import quantised
from serving.classifier.trained_on import TrainedOn
from serving.errors import InputError
from tests.factories import TIERS, made_up_examples
from training.evaluation.baselines.catalogue import BASELINES, LEARNED, baselines, chosen
from training.evaluation.baselines.rules import keyword_rule, prompt_length
from training.evaluation.figures import cost_figures, ranking_figures
from training.evaluation.judged import Judged, judge
from training.fitting.rule_words import rule_words


@pytest.fixture(scope="module")
def judged(bundle: Bundle) -> Judged:
    examples = made_up_examples(300, seed=5)
    return judge(bundle, examples, np.arange(300), TIERS, range(3))


def apgr_of(names: tuple[str, ...], judged: Judged, bundle: Bundle) -> dict[str, float | None]:
    found, missing = baselines(names, judged, bundle.trained_on, range(3))
    assert not missing
    return {name: figures["apgr"].value for name, figures in ranking_figures(found, judged).items()}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("What is the capital of Portugal?", 0),
        ("Compare the two, step by step, and compare again.", 2),
        ("ANALYZE the TRADE-OFF and the pros and cons; explain why", 4),
        ("", 0),
    ],
)
def test_rule_words_are_counted_once_each_in_any_case(text: str, count: int) -> None:
    assert rule_words(text) == count


def test_a_prompt_is_complex_to_the_rules_from_two_words_or_501_characters_on() -> None:
    examples = made_up_examples(3)
    features = examples.features.copy()
    features[:, 0] = np.log1p([500, 501, 10])
    examples = replace(examples, features=features, rule_words=np.array([1, 0, 2], np.float32))
    assert prompt_length(examples).tolist() == [500, 501, 10]
    assert keyword_rule(examples).tolist() == [0, 1, 1]


def test_all_baselines_come_in_order_and_each_can_be_chosen() -> None:
    assert chosen(None) == BASELINES
    assert chosen("none") == ()
    assert chosen("knn, random") == ("knn", "random")
    with pytest.raises(InputError, match="'speed' is not a baseline; there are cheapest, strongest"):
        chosen("speed")


def test_length_and_ridge_beat_chance_where_long_prompts_are_hard(judged: Judged, bundle: Bundle) -> None:
    apgr = apgr_of(("random", "prompt_length", "ridge", "oracle"), judged, bundle)
    assert apgr["random"] == pytest.approx(0.5)
    for name in ("prompt_length", "ridge"):
        assert 0.55 < (apgr[name] or 0) < (apgr["oracle"] or 0)


def separable(n: int, seed: int) -> TrainedOn:
    """Prompts in two directions: in one the cheaper of two tiers is right, in the other only the dearer."""
    rng = np.random.default_rng(seed)
    hard = np.arange(n) % 2
    embedding = rng.normal(scale=0.2, size=(n, 8)).astype(np.float32)
    embedding[:, 0] += 1 - 2 * hard
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    acceptable = np.stack([1 - hard, np.ones(n)], axis=1).astype(np.float32)
    codes, scale = quantised(embedding)
    blank = np.zeros((n, 1), np.float32)
    return TrainedOn(tuple(f"p{i}" for i in range(n)), codes, scale, blank, acceptable, np.empty(0, np.uint64))


@pytest.mark.parametrize("name", sorted(LEARNED))
def test_a_learned_baseline_tells_two_directions_apart(name: str) -> None:
    trained_on, new = separable(400, 0), separable(60, 1)
    examples = replace(made_up_examples(60), embedding=new.embedding, features=np.zeros((60, 1), np.float32))
    values = LEARNED[name](trained_on, examples)
    assert values is not None
    gain = values[:, 1] - values[:, 0]
    hard = np.arange(60) % 2 == 1
    assert gain[hard].min() > gain[~hard].max()


def test_nothing_is_learned_from_outcomes_that_never_differ(judged: Judged) -> None:
    always_right = replace(separable(400, 0), acceptable=np.ones((400, 2), np.float32))
    one_tier = replace(separable(400, 0), acceptable=np.stack([np.ones(400), np.full(400, np.nan)], axis=1))
    for name, trained_on in (("matrix_factorisation", always_right), ("knn", one_tier)):
        _, missing = baselines((name,), judged, trained_on, range(2))
        assert missing == {name: "the router remembers too few outcomes to learn it from"}


def test_mixtures_cost_what_the_line_between_two_tiers_costs(judged: Judged) -> None:
    # Two tiers, quality .5 and 1, cost 0 and 1 for every prompt: .95 of the top's quality takes .9 of its calls.
    two = replace(
        judged,
        quality=np.stack([np.arange(300) % 2, np.ones(300)], axis=1).astype(float),
        acceptable=np.ones((300, 2)),
        cost=np.broadcast_to([0.0, 1.0], (300, 2)),
    )
    found, _ = baselines(("mixtures",), two, None, range(2))
    assert cost_figures(found, two)["mixtures"][0.95]["relative_cost"].value == pytest.approx(0.9)


def test_what_cannot_be_had_says_why(judged: Judged) -> None:
    blind = replace(judged.examples, rule_words=np.full(300, np.nan, np.float32))
    holes = judged.acceptable.copy()
    holes[0, 1] = np.nan
    partial = replace(judged, examples=blind, acceptable=holes)
    found, missing = baselines(("keyword_rule", "oracle", "knn"), partial, None, range(3))
    assert found == []
    assert missing == {
        "keyword_rule": "the texts are not at hand",
        "oracle": "some prompts have no outcome for some tier",
        "knn": "the router remembers no prompt it was trained on",
    }
