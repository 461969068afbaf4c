"""Whether a decision may be spent on, by the hard budgets of who asks; and who is told when a budget is spent."""

import json
import logging
import math
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from serving.attribution import Attribution
from serving.errors import BudgetError
from serving.ledger.access import LedgerAccess
from serving.ledger.budgets import Budget, BudgetStatus, Spender
from serving.ledger.report import usd
from serving.routing.router import Decision
from serving.tiers import PICO_PER_USD

logger = logging.getLogger(__name__)

_HELD: Final = timedelta(minutes=10)
"""How long a decision waits for its call: a provider's longest answers take minutes."""
_WEBHOOK_S: Final = 5.0
_TENANT: Final = "default"


class Spending:
    """Holds what decisions are expected to cost, where a hard budget is set.

    webhook: where alerts are posted; None: they are logged alone. on_alert: is told of each, by scope and level.
    """

    def __init__(self, access: LedgerAccess, webhook: str | None, on_alert: Callable[[str, str], None]) -> None:
        self._access = access
        self._webhook = webhook
        self._on_alert = on_alert
        self._hard: tuple[Budget, ...] = ()

    def refresh(self) -> None:
        """See which budgets there are, and tell of those that came to an end. Reads, and may post: in a thread.

        Raises LedgerError when the ledger cannot be read.
        """
        if (store := self._access.opened) is None:
            return
        self._hard = tuple(budget for budget in store.budgets() if budget.hard)
        for found in store.to_tell():
            self._tell(found)

    def reserve(self, decision: Decision, who: Attribution) -> "Future[BudgetStatus | None] | None":
        """The budget that cannot bear the decision, if one cannot, to be asked `refuse` about; None without a budget.

        What is held is what the decision is expected to cost, where its tier has a price; without, any call passes
        until all is spent. Its event settles it, by `decision_id`.
        """
        store = self._access.opened
        if store is None or not any(_is_of(budget, who) for budget in self._hard):
            return None
        expected = decision.expected_cost_usd
        pico = 0 if expected is None else math.ceil(Decimal(str(expected)) * PICO_PER_USD)
        spender = Spender(_TENANT, who.team, who.feature, who.user)
        return store.reserve(decision.id, spender, pico, datetime.now(UTC), _HELD)

    def _tell(self, found: BudgetStatus) -> None:
        level = "spent" if found.spent_pico_usd >= found.budget.limit_pico_usd else "near"
        spent, limit = usd(found.spent_pico_usd), usd(found.budget.limit_pico_usd)
        logger.warning("%s: %s USD of %s are spent", found.budget, spent, limit)
        self._on_alert(found.budget.scope, level)
        if self._webhook is None:
            return
        body = {
            "object": "budget.alert",
            "level": level,
            **found.budget.model_dump(exclude={"limit_pico_usd", "alert_at"}),
            "spent_usd": str(spent),
            "limit_usd": str(limit),
            "resets_at": found.resets_at.isoformat(),
        }
        request = urllib.request.Request(self._webhook, json.dumps(body).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_WEBHOOK_S):
                pass
        except OSError as error:
            logger.error("the webhook for budgets did not answer: %s", error)


def refuse(used_up: BudgetStatus | None) -> None:
    """Raises BudgetError that says which budget it is and when it begins anew, unless there is none."""
    if used_up is None:
        return
    held = f", and {usd(used_up.reserved_pico_usd)} held for calls under way" if used_up.reserved_pico_usd else ""
    wait = used_up.resets_at - datetime.now(UTC)
    raise BudgetError(
        f"the {used_up.budget} cannot bear this call: {usd(used_up.spent_pico_usd)} USD of "
        f"{usd(used_up.budget.limit_pico_usd)} are spent{held}; it begins anew at {used_up.resets_at.isoformat()}",
        retry_after_s=max(1, math.ceil(wait.total_seconds())),
    )


def _is_of(budget: Budget, who: Attribution) -> bool:
    match budget.scope:
        case "tenant":
            return budget.value == _TENANT
        case "team":
            return budget.value == who.team
        case "feature":
            return budget.value == who.feature
        case "user":
            return budget.value == who.user
