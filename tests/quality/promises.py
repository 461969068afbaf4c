"""Does a promise hold on every table, and what does its caution cost?"""

import numpy as np

from tests.quality.fitted import cross_fitted
from tests.quality.promise import PromiseRate, explored, promise_rates
from tests.quality.promise_plot import promise_figure
from tests.quality.section import Bar, Section, number
from tests.quality.tables import Sources, named

TABLES = (
    "MMLU", "GSM8K", "RouterArena", "RouterBench", "LLMRouter", "MMLU-Pro", "RouterBench, three tiers",
    "MMLU-Pro, three tiers",
)  # fmt: skip
ROWS = 2000
SIZES = (200, 500, 1000, 2000, 5000)  # of the picture
_TARGETS = (0.90, 0.95, 0.98)
_EXPLORED = 0.2
_LOGGED_MU = 0.1  # of the policy that wrote the log: a cautious one
_MOST_POINTS = 0.10


def measure(sources: Sources) -> Section:
    """Failures in 500 splits, with all outcomes and with one tier's a row drawn by a propensity; share of top calls."""
    rows, curves = [], {}
    failing, cautious = [], []
    for name in TABLES:
        examples, found = sources.examples(named(name)), cross_fitted(named(name), sources)
        k = examples.acceptable.shape[1]
        prices = np.broadcast_to(np.linspace(0, 1, k) if k == 2 else 10.0 ** np.arange(1 - k, 1), found.proba.shape)
        arrays = (found.proba, prices, examples.acceptable.astype(np.float64))
        size = min(ROWS, len(examples) // 3)
        plain = promise_rates(*arrays, sizes=[size], targets=_TARGETS, redrawn=True)
        log = explored(found.proba, prices, _LOGGED_MU, _EXPLORED)
        weighted = promise_rates(*arrays, log, sizes=[size], targets=_TARGETS, redrawn=True)
        rest = promise_rates(*arrays, sizes=[size], targets=_TARGETS)
        for a, b, c in zip(plain, weighted, rest, strict=True):
            failing += [f"{name} {r.target:.0%}" for r in (a, b) if r.failed_on_table.interval[0] > 0.05]
            failing += [f"{name} {c.target:.0%}, rest"] if c.failed_on_rest.interval[0] > c.noise_allows else []
            rows.append([name, f"{a.target:.0%}", f"{size:,}", _rate(a), _rate(b), _on_rest(c), *_caution(a, b)])
            if a.target == 0.95 and size == ROWS and (a.excess or 0) > _MOST_POINTS:
                cautious.append(f"{name}: {(a.excess or 0) * 100:.1f} (ideal {(a.ideal_excess or 0) * 100:.1f})")
        sizes = [rows_ for rows_ in SIZES if rows_ <= len(examples) // 2]
        curves[name] = promise_rates(*arrays, sizes=sizes, targets=(0.95,), splits=100, redrawn=True)
    return Section(
        title="The promise",
        text=f"""
            How often a target chosen with 95 % confidence is missed, in 500 random draws of calibration rows.
            Plain: all outcomes known. Weighted: one tier's outcome a row, {_EXPLORED:.0%} of them explored.
            Drawn with replacement and judged on the whole table, whose quality is then the truth; and split,
            judged on the rest, where chance alone would exceed 5 % by the noise of the rest (in brackets).
            The next columns are the calls to the top tier beyond those of the best μ in hindsight, in points;
            the bar is on {ROWS:,} plain rows at 95 %. Ideal: those that a normal test of the same confidence
            would make on the same scores and as many plain rows if it knew the variance: what of the caution
            is not the method's.
        """,
        header=["", "target", "rows", "plain", "weighted", "on the rest", "points, plain", "points, weighted",
                "points, ideal"],
        rows=rows,
        bars=[
            Bar("promise, failures above 5 % plus noise", ", ".join(failing) or "none", "none", not failing),
            Bar(f"promise, points above the oracle at 95 % with {ROWS:,} plain rows", ", ".join(cautious) or "all ≤ 10",
                "≤ 10", not cautious),
        ],
        figures={"promise": promise_figure(curves, 0.95)},
    )  # fmt: skip


def _rate(rate: PromiseRate) -> str:
    low, high = rate.failed_on_table.interval
    return f"{number(rate.failed_on_table.value)} ({number(low)} to {number(high)})"


def _on_rest(rate: PromiseRate) -> str:
    return f"{number(rate.failed_on_rest.value)} [{number(rate.noise_allows)}]"


def _caution(plain: PromiseRate, weighted: PromiseRate) -> list[str]:
    found = (plain.excess, weighted.excess, plain.ideal_excess)
    return [number(None) if excess is None else f"{100 * excess:.1f}" for excess in found]
