"""What rerouting attacks do to a promoted router, as tables.

    python -m tests.quality.rerouting_run [--home FOLDER] [--tables FOLDER] [--prompts 1000] [--queries 100]

Prompts are those of the sample log; with --tables, of those tables whose rows may be trained on, such that the router
has not seen them. Their texts are read where they are and go nowhere.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.chat import read_conversation
from serving.classifier.text_key import text_key
from serving.routing.policy import Policy
from serving.routing.promoted import PromotedRouter
from serving.routing.router import Router
from serving.routing.rules import Rules
from tests.quality.rerouting import (
    FIXED,
    QUERIES,
    Attack,
    Effect,
    Paid,
    by_keywords,
    by_length,
    by_router,
    effect,
    expected_costs,
    measure,
    own_gadgets,
    paid_by_team,
    universal,
)
from training.evaluation.intervals import Estimate, Resamples

_DATASETS: Final = Path(__file__).parents[2] / "datasets"
_TABLES: Final = ("mmlu_pro", "ulab_llmrouter", "routerbench_5shot_subset")
POLICIES: Final = (Policy("quality", 0.95), Policy("share", 0.3))
SEARCHED_ON: Final = 16  # prompts for a gadget that is the same for all
OWN: Final = 60  # prompts that get a gadget of their own
MAX_TOP_SHARE: Final = 0.3  # of the cap, and of the calls that the rule of length sends to the top
CALLS: Final = 4000
GADGET: Final = "gadget up, after"


def sample_prompts() -> list[str]:
    """The different texts of the sample log that a router reads."""
    rows = [json.loads(line) for line in (_DATASETS / "sample_log.jsonl").read_text("utf-8").splitlines()]
    read = [read_conversation(messages=row.get("messages"), prompt=row.get("prompt")) for row in rows]
    return sorted({conversation.last_user_text for conversation in read})


def unseen_prompts(folder: Path, router: Router) -> list[str]:
    """Texts of the tables in `folder` that may be trained on and that the router has not seen."""
    clean = pd.read_parquet(folder / "clean.parquet")
    clean = clean[clean.clean]
    texts: set[str] = set()
    for name in _TABLES:
        table = pd.read_parquet(folder / f"{name}.parquet", columns=["prompt_id", "task", "prompt"])
        rows = clean[clean.dataset == name][["task", "prompt_id"]].astype(str)
        texts |= set(table.astype(str).merge(rows, on=["task", "prompt_id"]).prompt)
    trained_on, listed = router.classifier.bundle.trained_on, sorted(texts)
    assert trained_on is not None, "the router does not remember what it has seen"
    seen = trained_on.has_seen(np.array([text_key(text) for text in listed], "S64"))
    return [text for text, known in zip(listed, seen, strict=True) if not known]


def words() -> list[str]:
    """What gadgets are made of: every word that the encoder knows as one piece."""
    pieces = (_DATASETS / "minilm_wordpieces.txt").read_text("utf-8").splitlines()
    return [piece for piece in pieces if piece.isascii() and piece.isalpha() and len(piece) > 2]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.rerouting_run", description="Attack a router.")
    parser.add_argument("--home", type=Path, default=Path(".tierwise"), help="the state folder of the router")
    parser.add_argument("--tables", type=Path, help="a folder of outcome tables to take prompts from")
    parser.add_argument("--prompts", type=int, default=1000, help="how many an attack is judged on, at most")
    parser.add_argument("--queries", type=int, default=QUERIES, help="answers of the router a search may ask for")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of prompts and of the searches")
    arguments = parser.parse_args()
    promoted = PromotedRouter(arguments.home, memo_size=100_000)
    if not promoted.refresh():
        parser.error(f"--home {arguments.home}: {promoted.problem}")
    router = promoted.router
    try:
        prompts = unseen_prompts(arguments.tables, router) if arguments.tables else sample_prompts()
    except OSError as error:
        parser.error(f"--tables: {error}")
    random.Random(arguments.seed).shuffle(prompts)
    dev, judged = prompts[:SEARCHED_ON], prompts[SEARCHED_ON : SEARCHED_ON + arguments.prompts]
    print(f"router {router.name}; {len(judged)} prompts, {SEARCHED_ON} others to search on")

    tiers, costs = len(router.tiers), expected_costs(router, judged, POLICIES[0])
    attacks = (Attack("none"), *FIXED, *_gadgets(router, dev, arguments.queries, arguments.seed))
    own = {up: _own(router, judged[:OWN], up, arguments.queries, arguments.seed) for up in (True, False)}
    for policy in POLICIES:
        route = by_router(router, policy)
        effects = measure(route, judged, attacks, costs)
        before, resamples = route(judged[:OWN]), Resamples.of(np.arange(len(judged[:OWN])))
        effects += [
            effect(
                f"gadget {'up' if up else 'down'}, after, its own for each of {len(texts)} prompts",
                before,
                route(texts),
                costs[:OWN],
                resamples,
            )
            for up, texts in own.items()
        ]
        _print(f"{policy.name}:{policy.parameter:g}", effects)
    limit = float(np.quantile([len(text) for text in judged], 1 - MAX_TOP_SHARE))
    _print(f"prompt_length > {limit:.0f}", measure(by_length(limit, tiers), judged, attacks, costs))
    _print("keyword_rule", measure(by_keywords(tiers), judged, attacks, costs))
    _print_paid(router, judged, next(attack for attack in attacks if attack.name == GADGET), costs)


def _gadgets(router: Router, dev: Sequence[str], queries: int, seed: int) -> list[Attack]:
    route, vocabulary = by_router(router, POLICIES[0]), words()
    return [
        universal(route, dev, vocabulary, up=up, before=before, queries=queries, seed=seed)
        for up in (True, False)
        for before in (True, False)
    ]


def _own(router: Router, prompts: Sequence[str], up: bool, queries: int, seed: int) -> list[str]:
    return own_gadgets(by_router(router, POLICIES[0]), prompts, words(), up=up, queries=queries, seed=seed)


def _print(title: str, effects: Sequence[Effect]) -> None:
    print(f"\n| {title} | up | down | top tier | P(top) − P(bottom) | cost |\n|---|---|---|---|---|---|")
    for row in effects:
        figures = (row.up, row.down, row.top, row.gain, row.cost)
        print(f"| {row.attack} | " + " | ".join(map(_shown, figures)) + " |")


def _shown(estimate: Estimate) -> str:
    if estimate.value is None or estimate.interval is None:
        return "–" if estimate.value is None else f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.interval[0]:.3f} to {estimate.interval[1]:.3f})"


def _print_paid(router: Router, prompts: Sequence[str], attack: Attack, costs: NDArray[np.float64]) -> None:
    """What a team that attacks with every call costs itself and the others, without and with a cap."""
    texts = {"attacker": [attack(text) for text in prompts], "others": prompts}
    print(
        "\n| policy | cap | calls that attack | top tier: attacker, others, all | USD a call: attacker, others, all |"
    )
    print("|---|---|---|---|---|")
    for policy in POLICIES:
        for cap in (None, MAX_TOP_SHARE):
            for attacking in (0.0, 0.2, 0.5, 1.0):
                share = {"attacker": attacking, "others": 1 - attacking}
                rules = Rules(max_top_share=cap)
                paid = paid_by_team(router, policy, rules, texts, costs, share=share, calls=CALLS, seed=0)
                every = [*paid.values(), Paid(*map(sum, zip(*map(astuple, paid.values()), strict=True)))]
                top = ", ".join(f"{team.top / team.calls:.3f}" if team.calls else "–" for team in every)
                cost = ", ".join(f"{team.cost / team.calls:.5f}" if team.calls else "–" for team in every)
                print(f"| {policy.name}:{policy.parameter:g} | {cap or 'none'} | {attacking:.0%} | {top} | {cost} |")


if __name__ == "__main__":
    main()
