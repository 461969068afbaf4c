"""At which number of calibration rows a promise becomes useful, as a picture."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tests.quality.promise import PromiseRate


def promise_figure(rates: Mapping[str, Sequence[PromiseRate]], target: float) -> Figure:
    """Calls to the top tier, and cost, of what is promised on more and more calibration rows; one panel for each name.

    The line is the median of the splits, the band their middle 80 %; dashed is the oracle.
    Raises ValueError when a name has no rate for the target.
    """
    columns = min(3, len(rates))
    lines = -(-len(rates) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for panel in panels[len(rates) :]:
        panel.set_visible(False)
    for panel, (name, found) in zip(panels, rates.items(), strict=False):
        chosen = sorted((rate for rate in found if rate.target == target), key=lambda rate: rate.rows)
        if not chosen:
            raise ValueError(f"{name} has no rates for a target of {target:g}")
        rows = [rate.rows for rate in chosen]
        for label, color, values, oracle in (
            ("calls to the top tier", "tab:blue", [rate.top_share for rate in chosen], chosen[0].oracle_share),
            ("cost ÷ always the top tier", "tab:orange", [rate.cost for rate in chosen], chosen[0].oracle_cost),
        ):
            low, median, high = np.quantile(values, [0.1, 0.5, 0.9], axis=1)
            panel.plot(rows, median, "o-", color=color, label=label)
            panel.fill_between(rows, low, high, color=color, alpha=0.2, linewidth=0)
            if oracle is not None:
                panel.axhline(oracle, linestyle="--", color=color, label="the same of the oracle μ")
        panel.set(xscale="log", ylim=(0, 1.05), title=name, xlabel="calibration rows")
        panel.set_xticks(rows, [f"{count:,}" for count in rows])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.suptitle(f"What a promise of {target:.0%} retained quality costs")
    return figure
