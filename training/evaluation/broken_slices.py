"""Where does the promise break? Slices that retain less than the target, and the pins that would keep them whole."""

import json
from collections.abc import Iterator, Sequence

from training.evaluation.evaluation import Evaluation, Slice

_PINNED_BY = ("task", "team", "feature")  # what a pin of the settings can name


def broken_slices(evaluation: Evaluation, target: float) -> tuple[Slice, ...]:
    """Slices whose retained quality under the threshold for `target` is below it with 95 % confidence each, the worst
    first. Of dozens, one in forty is among them by chance."""
    found = []
    for part in evaluation.slices:
        retained = part.figures.get("retained_quality")
        if retained is not None and retained.interval is not None and retained.interval[1] < target:
            found.append((retained.value or 0.0, part))
    return tuple(part for _, part in sorted(found, key=lambda pair: pair[0]))


def broken_text(broken: Sequence[Slice], target: float, top: str) -> Iterator[str]:
    """The slices with their figures, and the pins to the tier `top` as lines for tierwise.toml."""
    if not broken:
        return
    yield f"the promise of {target:.0%} holds on average, and not on these slices (95 % intervals):"
    for part in broken:
        retained, apart = part.figures["retained_quality"], part.figures["apgr"].value
        assert retained.interval is not None  # else it is not known to be broken
        low, high = retained.interval
        ranked = "" if apart is None else f", APGR {apart:.3f}"
        yield f"  {part.kind} {part.name}: retains {retained.value:.3f} ({low:.3f} to {high:.3f}) of {part.n:,}{ranked}"
    pinned = [part for part in broken if part.kind in _PINNED_BY]
    if pinned:
        kinds = " and ".join(dict.fromkeys(part.kind for part in pinned))
        yield f"  to keep requests whose metadata names that {kinds} on {top} whatever it costs, in tierwise.toml:"
    for part in pinned:
        name = json.dumps(part.name, ensure_ascii=False)  # a JSON string is a TOML string
        yield f"    [[pins]]\n    {part.kind} = {name}\n    tier = {json.dumps(top)}"
