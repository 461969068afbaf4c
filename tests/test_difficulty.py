"""Difficulty and ability from who answered what."""

import numpy as np

from training.fitting.difficulty import rasch


def answers(ability: np.ndarray, difficulty: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prompt, model = (a.ravel() for a in np.indices((len(difficulty), len(ability))))
    chance = 1 / (1 + np.exp(difficulty[prompt] - ability[model]))
    return prompt, model, (np.random.default_rng(seed).random(len(prompt)) < chance).astype(float)


def test_known_difficulties_and_abilities_are_found_again() -> None:
    ability, difficulty = np.linspace(-2, 2, 30), np.random.default_rng(0).normal(0, 1.5, 600)
    prompt, model, score = answers(ability, difficulty, seed=1)
    found_difficulty, found_ability = rasch(prompt, model, score, 600, 30)
    assert np.corrcoef(found_difficulty, difficulty)[0, 1] > 0.94
    offset = found_ability.mean() - ability.mean()  # the scale has no zero of its own
    assert np.abs(found_ability - offset - ability).max() < 0.35


def test_two_sets_of_prompts_are_put_on_one_scale_by_the_models_they_share() -> None:
    # The first set is asked of models 0 to 19, the second, harder by 2, of models 10 to 29.
    ability = np.zeros(30)
    easy, hard = answers(ability[:20], np.zeros(400), seed=2), answers(ability[10:], np.full(400, 2.0), seed=3)
    prompt = np.concatenate([easy[0], hard[0] + 400])
    model = np.concatenate([easy[1], hard[1] + 10])
    difficulty, _ = rasch(prompt, model, np.concatenate([easy[2], hard[2]]), 800, 30)
    assert 1.6 < difficulty[400:].mean() - difficulty[:400].mean() < 2.4


def test_a_prompt_that_nobody_solves_is_hard_but_not_infinitely() -> None:
    prompt, model = (a.ravel() for a in np.indices((10, 5)))
    difficulty, ability = rasch(prompt, model, (prompt > 0).astype(float), 10, 5)
    assert np.isfinite(difficulty).all()
    assert np.isfinite(ability).all()
    assert difficulty[0] == max(difficulty)
