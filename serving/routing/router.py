"""Which tier a conversation goes to, and why."""

import math
import time
import uuid
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from serving.attribution import NOBODY, Attribution, Pin, pinned_elsewhere
from serving.chat import Conversation
from serving.classifier.bundle import Threshold
from serving.classifier.classifier import Classifier, Prediction
from serving.errors import BundleError, InputError
from serving.routing.costs import costs_at, expected_costs, usd_per_token
from serving.routing.eligibility import eligible_tiers
from serving.routing.explanation import Explanation, feature_effects, nearest_prompts, tier_scores
from serving.routing.policy import DEFAULT_POLICY, Policy
from serving.routing.prefix import prefixes, sent_share
from serving.routing.promise import promised_thresholds
from serving.routing.rules import NO_RULES, Cached, Rule, Rules
from serving.tiers import Tier

Reason = Rule | Literal["fallback", "target_refused", "policy"]

_LEAST_CACHED: Final = 1024
"""Tokens from which OpenAI keeps a prefix, by itself (platform.openai.com/docs/guides/prompt-caching, as it was in
March 2026); Anthropic keeps 1,024 to 4,096 at least, by model, where it is asked to."""
_SURCHARGES: Final = 256  # remembered: one takes some .2 ms, and clients ask for few different policies


class Decision(BaseModel):
    """A routing decision.

    reason: the first of these that holds. `pinned` by the settings; `sticky` the tier of the session; `fallback` no
    encoder or no promoted router, so features alone decided; `switched` another tier than the session's,
    which gains more than the provider's cache of the conversation is worth; `exploration` another tier than the best
    was drawn; `capped` the top tier's share is used up, or goes to harder prompts; `eligibility` the policy's choice
    could not take the request; `target_refused` the router's logs do not carry the target, so the most probable tier
    was taken; `policy` as asked.
    threshold: μ, acceptable answers per USD (per step of the ladder when a tier has no price).
    expected_cost_usd: of the chosen tier, null when a price is unknown. propensity: the probability with
    which this tier was chosen, of a sticky one that of its first decision. router: version and digest of the bundle.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    object: Literal["routing.decision"] = "routing.decision"
    created: int
    tier: str
    model: str
    reason: Reason
    probabilities: dict[str, float]
    expected_cost_usd: float | None
    threshold: float
    propensity: float
    router: str


class ExplainedDecision(Decision):
    """A decision with its reasons, for whoever asked to `explain` it."""

    explanation: Explanation


class Expected(NamedTuple):
    """Means over prompts that a policy decides alone: what traffic like the calibration prompts would show.

    top_share: calls to the top tier. probability, top_probability: P(acceptable) at the chosen and at the top tier.
    nan where there are no calibration prompts.
    """

    top_share: float
    probability: float
    top_probability: float


class Considered(NamedTuple):
    """A decision and the prediction it rests on."""

    decision: Decision
    prediction: Prediction


class _Weighed(NamedTuple):
    """Every tier as the policy sees it, arrays (k,): may it, P(acceptable), expected cost, score; and with which μ.

    surcharge: what the cap takes from the top tier's score. refused: the target is not supported. cached: the
    conversation so far.
    """

    eligible: Sequence[bool]
    proba: NDArray[np.float64]
    expected: NDArray[np.float64]
    scores: NDArray[np.float64]
    surcharge: float
    mu: float
    refused: bool
    prediction: Prediction
    cached: Cached


class Router:
    """A classifier with the ladder it decides over; immutable, so a reload swaps one for another."""

    def __init__(
        self,
        classifier: Classifier,
        version: str,
        *,
        tiers: Sequence[Tier] | None = None,
        by_position: bool = False,
    ) -> None:
        """`tiers` overrides the bundle's models and prices, tier by tier.

        by_position: `tiers` may have other names and another length than the bundle's, whose tiers are then
        matched from bottom to top. Only right for the built-in fallback, which knows no ladder of anybody's.
        Raises BundleError when the names differ otherwise.
        """
        manifest = classifier.bundle.manifest
        trained = [tier.name for tier in manifest.tiers]
        self.tiers = tuple(tiers or manifest.tiers)
        names = [tier.name for tier in self.tiers]
        if names != trained and not by_position:
            raise BundleError(
                f"the router was trained for tiers {', '.join(trained)}; the settings have {', '.join(names)}"
            )
        self._by_position = by_position
        self._names = names
        self._columns = np.rint(np.linspace(0, len(trained) - 1, len(names))).astype(int)
        self.classifier = classifier
        self.version = version
        self.name = f"{version}@{classifier.bundle.digest[:12]}"
        self._usd_per_token = usd_per_token(self.tiers)
        self._priced = self._usd_per_token is not None
        self._top_only = np.eye(len(names))[-1]  # what a call costs under `share`
        self._surcharges: dict[tuple[float, float, bool, bool], float] = {}
        unchanged = tiers is None or (not by_position and _prices(self.tiers) == _prices(manifest.tiers))
        self.thresholds = manifest.thresholds if unchanged else self._chosen_again(manifest.thresholds)
        self.fallback_thresholds = (
            manifest.fallback_thresholds
            if unchanged
            else self._chosen_again(manifest.fallback_thresholds, fallback=True)
        )

    def decide(
        self,
        conversation: Conversation,
        policy: Policy = DEFAULT_POLICY,
        who: Attribution = NOBODY,
        rules: Rules = NO_RULES,
    ) -> Decision:
        """The decision for one conversation.

        Raises InputError when this router cannot follow the policy, or no tier can take the conversation.
        """
        return self.consider(conversation, policy, who, rules).decision

    def explain(
        self,
        conversation: Conversation,
        policy: Policy = DEFAULT_POLICY,
        who: Attribution = NOBODY,
        rules: Rules = NO_RULES,
    ) -> ExplainedDecision:
        """The decision with its reasons, which take some milliseconds more; raises what `decide` raises."""
        decision = self.consider(conversation, policy, who, rules, explain=True).decision
        assert isinstance(decision, ExplainedDecision)
        return decision

    def consider(
        self,
        conversation: Conversation,
        policy: Policy = DEFAULT_POLICY,
        who: Attribution = NOBODY,
        rules: Rules = NO_RULES,
        *,
        explain: bool = False,
    ) -> Considered:
        """The decision, explained if asked, with the prediction for the request log; raises what `decide` raises."""
        weighed = self._weighed(conversation, policy, rules)
        decision = self._decide(weighed, who, rules)
        if explain:
            decision = ExplainedDecision(**dict(decision), explanation=self._explained(conversation, weighed))
        return Considered(decision, weighed.prediction)

    def _explained(self, conversation: Conversation, weighed: _Weighed) -> Explanation:
        costs = [round(float(cost), 12) if self._priced else None for cost in weighed.expected]
        return Explanation(
            threshold=weighed.mu,
            scores=tier_scores(
                self.tiers, weighed.proba, costs, weighed.scores - weighed.surcharge * self._top_only, weighed.eligible
            ),
            features=feature_effects(self.classifier, conversation, self._names, self._columns),
            nearest=nearest_prompts(self.classifier, conversation, self._names, self._columns),
        )

    def _weighed(self, conversation: Conversation, policy: Policy, rules: Rules) -> _Weighed:
        """What the policy makes of every tier, and what the cap of the rules would take from the top."""
        eligible = eligible_tiers(self.tiers, conversation)
        prediction = self.classifier.predict(conversation)
        mu, refused = self._mu(policy, prediction.fallback)
        proba = prediction.proba[self._columns]
        expected = self._costs(prediction)
        by_share, fallback = policy.name == "share", prediction.fallback
        scores = proba - mu * (self._top_only if by_share else expected)
        share = rules.greedy_top_share(len(self.tiers))
        surcharge = 0.0 if share is None else self._surcharge(share, mu, by_share, fallback)
        worth = None if by_share or fallback else self._cache_worth(conversation, prediction, mu, rules)
        before, so_far = prefixes(conversation) if rules.by_prefix else (None, None)
        cached = Cached(before, so_far, worth)
        return _Weighed(eligible, proba, expected, scores, surcharge, mu, refused, prediction, cached)

    def _cache_worth(
        self, conversation: Conversation, prediction: Prediction, mu: float, rules: Rules
    ) -> list[float] | None:
        """What each tier's score would gain, in its own terms, if its provider had the conversation so far cached.

        None where sessions do not switch, or nothing is known of prices.
        """
        if rules.cached_price is None or not self._priced:
            return None
        tokens = prediction.input_tokens * sent_share(conversation)
        if tokens < _LEAST_CACHED:
            return [0.0] * len(self.tiers)
        full = expected_costs(self.tiers, np.array([tokens]), np.zeros((1, len(self.tiers))))[0]
        shares = [rules.cached_price(tier.models[0]) for tier in self.tiers]
        return [mu * float(usd) * (1 - share) for usd, share in zip(full, shares, strict=True)]

    def _decide(self, weighed: _Weighed, who: Attribution, rules: Rules) -> Decision:
        eligible, proba, expected, scores, surcharge, mu, refused, prediction, cached = weighed
        choice = rules.choose(self._names, scores.tolist(), eligible, who, surcharge=surcharge, cached=cached)
        tier = self.tiers[choice.tier]
        return Decision(
            id=f"dec-{uuid.uuid4().hex}",
            created=int(time.time()),
            tier=tier.name,
            model=tier.models[0],
            reason=_reason(choice.rule, fallback=prediction.fallback, refused=refused),
            probabilities={t.name: round(float(p), 6) for t, p in zip(self.tiers, proba, strict=True)},
            expected_cost_usd=round(float(expected[choice.tier]), 12) if self._priced else None,
            threshold=mu,
            propensity=choice.propensity,
            router=self.name,
        )

    def expected_cost_usd(self, conversation: Conversation, tier: str) -> float | None:
        """What a call to a tier is expected to cost, whether or not it was decided for; None without prices."""
        if not self._priced:
            return None
        return float(self._costs(self.classifier.predict(conversation))[self._names.index(tier)])

    def expected(self, policy: Policy) -> Expected:
        """What the policy does on the calibration prompts, its μ chosen as for a request."""
        fallback = self.classifier.memo is None
        mu, _ = self._mu(policy, fallback)
        proba, scores = self._on_calibration(mu, policy.name == "share", fallback)
        chosen = scores.argmax(axis=1)
        if len(chosen) == 0:
            return Expected(math.nan, math.nan, math.nan)
        return Expected(
            top_share=float((chosen == proba.shape[1] - 1).mean()),
            probability=float(proba[np.arange(len(chosen)), chosen].mean()),
            top_probability=float(proba[:, -1].mean()),
        )

    def accepts(self, policy: Policy, pins: Sequence[Pin] = ()) -> None:
        """Raises InputError when this router cannot follow the policy, BundleError when it lacks a pinned tier."""
        self._mu(policy, fallback=False)
        if wrong := pinned_elsewhere(pins, self._names):
            raise BundleError(f"the settings' pins do not fit: {wrong}")

    def _mu(self, policy: Policy, fallback: bool) -> tuple[float, bool]:
        match policy.name:
            case "quality":
                return self._mu_for_target(policy.parameter, fallback)
            case "share":
                return self._surcharge(policy.parameter, 0.0, True, fallback), False
            case "value":
                if not self._priced:
                    raise InputError("needs a price for every tier; set tiers in the settings", where="policy")
                return 1 / policy.parameter, False

    def _mu_for_target(self, target: float, fallback: bool) -> tuple[float, bool]:
        thresholds = self.fallback_thresholds if fallback else self.thresholds
        for threshold in thresholds:
            if math.isclose(threshold.target, target):
                return (0.0, True) if threshold.mu is None else (threshold.mu, False)
        if fallback:  # an operator's target must not turn into an error of every client
            return 0.0, True
        offered = ", ".join(f"{threshold.target:g}" for threshold in thresholds)
        raise InputError(f"{target:g} was not calibrated; this router has {offered}", where="policy.target")

    def _surcharge(self, share: float, mu: float, by_share: bool, fallback: bool) -> float:
        """`_least_surcharge`, remembered. In a dict: a cache around the method would make a cycle, and what the
        service has frozen for the garbage collector is only ever freed by its count of references.
        """
        key = share, mu, by_share, fallback
        found = self._surcharges.get(key)
        if found is None:
            found = self._least_surcharge(*key)
            if len(self._surcharges) >= _SURCHARGES:
                self._surcharges.clear()
            self._surcharges[key] = found
        return found

    def _least_surcharge(self, share: float, mu: float, by_share: bool, fallback: bool) -> float:
        """What the top tier's score must lose for at most `share` of the calibration prompts to go to it at μ.

        A price on the top tier alone: those who gain most by it keep it, the others get the best below. Raising μ
        would take from every tier. With μ = 0 this is the μ of `share` (by_share), whose costs are 1 at the top.
        """
        _, scores = self._on_calibration(mu, by_share, fallback)
        if len(scores) == 0:
            return 0.0 if share == 1 else 1.0
        gaps = np.sort(scores[:, -1] - scores[:, :-1].max(axis=1))
        allowed = int(share * len(gaps) + 1e-9)  # .29 × 100 is 28.999… in binary
        return 0.0 if allowed == len(gaps) else max(0.0, float(gaps[len(gaps) - 1 - allowed]))

    def _on_calibration(
        self, mu: float, by_share: bool, fallback: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """P(acceptable) and score of each calibration prompt at each tier, (n, k)."""
        calibration = self.classifier.bundle.calibration
        predicted = calibration.fallback if fallback else calibration.predicted
        output_tokens = predicted.output_tokens[:, self._columns]
        costs = self._top_only if by_share else expected_costs(self.tiers, calibration.input_tokens, output_tokens)
        proba = np.asarray(predicted.proba[:, self._columns], np.float64)
        return proba, proba - mu * costs

    def _costs(self, prediction: Prediction) -> NDArray[np.float64]:
        output_tokens = prediction.output_tokens[self._columns]
        costs = costs_at(self._usd_per_token, np.array([prediction.input_tokens]), output_tokens[None, :])
        return np.asarray(costs[0], np.float64)

    def _chosen_again(self, thresholds: Sequence[Threshold], *, fallback: bool = False) -> tuple[Threshold, ...]:
        """Thresholds for other prices than those of the bundle, from the calibration set it carries."""
        if self._by_position:
            reason = "no router has been trained for these tiers"
            return tuple(
                t.model_copy(update={"mu": None, "refused": reason, "labels_needed": None}) for t in thresholds
            )
        return promised_thresholds(
            self.classifier.bundle.calibration,
            self.tiers,
            [t.target for t in thresholds],
            fallback=fallback,
            confidence=thresholds[0].confidence,
        )


def _reason(rule: Rule | None, *, fallback: bool, refused: bool) -> Reason:
    if fallback and rule not in ("pinned", "sticky"):  # those two do not depend on any prediction
        return "fallback"
    return rule or ("target_refused" if refused else "policy")


def _prices(tiers: Sequence[Tier]) -> list[tuple[int | None, int | None]]:
    """What thresholds depend on."""
    return [(tier.input_pico_usd, tier.output_pico_usd) for tier in tiers]
