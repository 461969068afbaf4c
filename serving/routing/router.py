"""Which tier a conversation goes to, and why."""

import math
import time
import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from serving.chat import Conversation
from serving.classifier.bundle import Predictions, Threshold
from serving.classifier.classifier import Classifier, Prediction
from serving.errors import BundleError, InputError
from serving.routing.costs import expected_costs, priced
from serving.routing.policy import DEFAULT_POLICY, Policy
from serving.routing.promise import choose, promised_thresholds
from serving.tiers import Tier

Reason = Literal["policy", "target_refused", "fallback"]


class Decision(BaseModel):
    """A routing decision.

    reason: `policy` as asked; `target_refused` the router's logs do not carry the target, so the most probable
    tier was taken; `fallback` no encoder or no promoted router, so features alone decided.
    threshold: μ, acceptable answers per USD (per step of the ladder when a tier has no price).
    expected_cost_usd: of the chosen tier, null when a price is unknown. propensity: the probability with
    which this tier was chosen. router: version and digest of the bundle.
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
        self._columns = np.rint(np.linspace(0, len(trained) - 1, len(names))).astype(int)
        self.classifier = classifier
        self.version = version
        self.name = f"{version}@{classifier.bundle.digest[:12]}"
        self._priced = priced(self.tiers)
        self._top_only = np.eye(len(names))[-1]  # what a call costs under `share`
        unchanged = self.tiers == manifest.tiers
        self.thresholds = manifest.thresholds if unchanged else self._chosen_again(manifest.thresholds)
        self.fallback_thresholds = (
            manifest.fallback_thresholds
            if unchanged
            else self._chosen_again(manifest.fallback_thresholds, fallback=True)
        )

    def decide(self, conversation: Conversation, policy: Policy = DEFAULT_POLICY) -> Decision:
        """The decision for one conversation. Raises InputError when this router cannot follow the policy."""
        prediction = self.classifier.predict(conversation)
        mu, refused = self._mu(policy, prediction.fallback)
        proba = prediction.proba[self._columns]
        expected = self._costs(prediction)
        costs = self._top_only if policy.name == "share" else expected
        chosen = int(choose(proba[None, :], costs[None, :], mu)[0])
        tier = self.tiers[chosen]
        return Decision(
            id=f"dec-{uuid.uuid4().hex}",
            created=int(time.time()),
            tier=tier.name,
            model=tier.models[0],
            reason="fallback" if prediction.fallback else "target_refused" if refused else "policy",
            probabilities={t.name: round(float(p), 6) for t, p in zip(self.tiers, proba, strict=True)},
            expected_cost_usd=float(expected[chosen]) if self._priced else None,
            threshold=mu,
            propensity=1.0,
            router=self.name,
        )

    def accepts(self, policy: Policy) -> None:
        """Raises InputError when this router cannot follow the policy."""
        self._mu(policy, fallback=False)

    def _mu(self, policy: Policy, fallback: bool) -> tuple[float, bool]:
        match policy.name:
            case "quality":
                return self._mu_for_target(policy.parameter, fallback)
            case "share":
                return self._mu_for_share(policy.parameter, fallback), False
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

    def _mu_for_share(self, share: float, fallback: bool) -> float:
        """The smallest μ ≥ 0 that sends at most `share` of the calibration prompts to the top tier."""
        gaps = self._fallback_gaps if fallback else self._gaps
        if len(gaps) == 0:
            return 0.0 if share == 1 else 1.0
        allowed = int(share * len(gaps) + 1e-9)  # .29 × 100 is 28.999… in binary
        return 0.0 if allowed == len(gaps) else max(0.0, float(gaps[len(gaps) - 1 - allowed]))

    @cached_property
    def _gaps(self) -> NDArray[np.float64]:
        return self._top_gaps(self.classifier.bundle.calibration.predicted)

    @cached_property
    def _fallback_gaps(self) -> NDArray[np.float64]:
        return self._top_gaps(self.classifier.bundle.calibration.fallback)

    def _top_gaps(self, predictions: Predictions) -> NDArray[np.float64]:
        """P(acceptable) of the top tier over the best below, for each calibration prompt, sorted."""
        proba = predictions.proba[:, self._columns]
        return np.sort(np.asarray(proba[:, -1] - proba[:, :-1].max(axis=1), np.float64))

    def _costs(self, prediction: Prediction) -> NDArray[np.float64]:
        output_tokens = prediction.output_tokens[self._columns]
        costs = expected_costs(self.tiers, np.array([prediction.input_tokens]), output_tokens[None, :])
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
