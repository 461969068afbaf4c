"""Which ladder and which prices does a log itself show, when no file states them?"""

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import median
from typing import Final, Literal

from serving.errors import InputError
from serving.tiers import Tier
from training.logs.ladder import Ladder
from training.logs.record import LoggedRequest, Outcome

MIN_ROWS: Final = 20  # answers of a tier with cost and tokens before their prices are estimated
CHARS_PER_TOKEN: Final = 4  # OpenAI's rule of thumb for English, for logs that recorded no tokens
_USUAL: Final = ("economy", "standard", "premium")

Tokens = Literal["recorded", "characters / 4"]


@dataclass(frozen=True, slots=True)
class PriceEstimate:
    """Prices of a tier in pico-USD per token, estimated from the recorded costs of `rows` answers."""

    tier: str
    input_pico_usd: int
    output_pico_usd: int
    rows: int
    tokens: Tokens

    def __str__(self) -> str:
        into, out = self.input_pico_usd / 1e6, self.output_pico_usd / 1e6
        return (
            f"{self.tier}: about {into:.4g} USD per million input tokens and {out:.4g} output, "
            f"estimated from {self.rows:,} recorded costs (tokens: {self.tokens})"
        )


@dataclass(slots=True)
class _Costs:
    """What least squares of cost on (input tokens, output tokens) needs of any number of answers, exactly."""

    rows: int = 0
    in_in: int = 0
    in_out: int = 0
    out_out: int = 0
    in_cost: int = 0
    out_cost: int = 0

    def add(self, tokens_in: int, tokens_out: int, cost: int) -> None:
        self.rows += 1
        self.in_in += tokens_in * tokens_in
        self.in_out += tokens_in * tokens_out
        self.out_out += tokens_out * tokens_out
        self.in_cost += tokens_in * cost
        self.out_cost += tokens_out * cost

    def prices(self) -> tuple[int, int]:
        """The non-negative prices with the least squared error; of equals, the same price for both ways.

        With two unknowns the active-set solution of Lawson and Hanson (1974, ch. 23) is a case distinction.
        """
        determinant = self.in_in * self.out_out - self.in_out**2
        if determinant == 0:  # every answer has the same ratio of input to output: one price is all they show
            squares = self.in_in + 2 * self.in_out + self.out_out
            both = round(Fraction(self.in_cost + self.out_cost, squares)) if squares else 0
            return both, both
        into = Fraction(self.in_cost * self.out_out - self.out_cost * self.in_out, determinant)
        out = Fraction(self.out_cost * self.in_in - self.in_cost * self.in_out, determinant)
        if into < 0:
            into, out = Fraction(0), Fraction(self.out_cost, self.out_out)
        elif out < 0:
            into, out = Fraction(self.in_cost, self.in_in), Fraction(0)
        return round(into), round(out)


@dataclass(slots=True)
class _TierSeen:
    models: Counter[str] = field(default_factory=Counter)
    recorded: _Costs = field(default_factory=_Costs)
    by_characters: _Costs = field(default_factory=_Costs)
    pico_usd_per_token: "array[int]" = field(default_factory=lambda: array("q"))


class LadderCollector:
    """Collects, in one pass over a log, what its ladder and its prices can be told from."""

    def __init__(self) -> None:
        self._tiers: defaultdict[str, _TierSeen] = defaultdict(_TierSeen)
        self._untiered: Counter[str] = Counter()

    def see(self, request: LoggedRequest) -> None:
        for outcome in request.outcomes:
            if outcome.tier is None:
                self._untiered[str(outcome.model)] += 1
            else:
                self._see(self._tiers[outcome.tier], outcome, request.conversation.total_chars)

    @staticmethod
    def _see(seen: _TierSeen, outcome: Outcome, prompt_chars: int) -> None:
        if outcome.model is not None:
            seen.models[outcome.model] += 1
        if outcome.cost_pico_usd is None:
            return
        tokens_in, tokens_out = outcome.usage.input_tokens, outcome.usage.output_tokens
        costs = seen.recorded
        if tokens_in is None or tokens_out is None:
            if outcome.response_chars is None:
                return
            tokens_in, tokens_out = _tokens(prompt_chars), _tokens(outcome.response_chars)
            costs = seen.by_characters
        if tokens_in + tokens_out > 0:
            costs.add(tokens_in, tokens_out, outcome.cost_pico_usd)
            seen.pico_usd_per_token.append(outcome.cost_pico_usd // (tokens_in + tokens_out))

    def ladder(self) -> Ladder:
        """The tiers that the log names, each with its models by frequency, cheapest first, unpriced.

        economy, standard and premium are in that order; other names are ordered by the median recorded cost
        of a token. A model logged under several tiers stays where it answered most often.
        Raises InputError if the log names fewer than two tiers, or does not show their models or order.
        """
        if len(self._tiers) < 2:
            named = f"names only the tier {min(self._tiers)!r}" if self._tiers else "names no tiers"
            untiered = ", ".join(model for model, _ in self._untiered.most_common(10))
            seen = f", and the models {untiered}" if untiered else ""
            raise InputError(
                f"the log {named}{seen}; say which models make up which tier with --ladder FILE (docs/log-format.md)"
            )
        order = self._cheapest_first()
        home = {
            model: max(order, key=lambda name: self._tiers[name].models[model])
            for name in order
            for model in self._tiers[name].models
        }
        tiers = []
        for name in order:
            models = [model for model, _ in self._tiers[name].models.most_common() if home[model] == name]
            if not models:
                raise InputError(f"the log shows no model for the tier {name!r}; give --ladder FILE")
            tiers.append(Tier(name=name, models=tuple(models)))
        return Ladder(tiers=tuple(tiers))

    def _cheapest_first(self) -> list[str]:
        if self._tiers.keys() <= set(_USUAL):
            return sorted(self._tiers, key=_USUAL.index)
        for name, seen in sorted(self._tiers.items()):
            if not seen.pico_usd_per_token:
                raise InputError(
                    f"the log does not show what the tier {name!r} costs, so not which tier is the cheaper; "
                    "list them, cheapest first, with --ladder FILE"
                )
        return sorted(self._tiers, key=lambda name: (median(self._tiers[name].pico_usd_per_token), name))

    def priced(self, ladder: Ladder) -> tuple[Ladder, tuple[PriceEstimate, ...]]:
        """The ladder with the prices that its unpriced tiers' recorded costs show, and those estimates."""
        found = [
            (tier.models[0], estimate)
            for tier in ladder.tiers
            if not tier.priced and (estimate := self._estimate(tier.name)) is not None
        ]
        prices = {model: (each.input_pico_usd, each.output_pico_usd) for model, each in found}
        return ladder.with_prices(prices), tuple(estimate for _, estimate in found)

    def _estimate(self, name: str) -> PriceEstimate | None:
        if name not in self._tiers:
            return None
        seen = self._tiers[name]
        kinds: tuple[tuple[_Costs, Tokens], ...] = (
            (seen.recorded, "recorded"),
            (seen.by_characters, "characters / 4"),
        )
        for costs, tokens in kinds:
            if costs.rows >= MIN_ROWS:
                return PriceEstimate(name, *costs.prices(), rows=costs.rows, tokens=tokens)
        return None


def _tokens(characters: int) -> int:
    return -(-characters // CHARS_PER_TOKEN)
