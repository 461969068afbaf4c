"""Whether a decision may be spent on, by the hard budgets of who asks; and who is told when a budget is spent."""

import json
import logging
import math
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.client import HTTPException
from typing import Final

from serving.attribution import Attribution
from serving.errors import BudgetError
from serving.ledger.access import LedgerAccess
from serving.ledger.budgets import Budget, BudgetStatus, Spender
from serving.ledger.report import usd
from serving.tiers import PICO_PER_USD

logger = logging.getLogger(__name__)

_HELD: Final = timedelta(minutes=10)
"""How long a decision waits for its call: a provider's longest answers take minutes."""
_WEBHOOK_S: Final = 5.0


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
        """See which budgets there are. Raises LedgerError when the ledger cannot be read."""
        if (store := self._access.opened) is not None:
            self._hard = tuple(budget for budget in store.budgets() if budget.hard)

    def tell(self) -> None:
        """Tell of those that came near their end, or to it: one after the other, as slow as the webhook is."""
        if (store := self._access.opened) is not None:
            for found in store.to_tell():
                self._tell(found)

    def limits(self, who: Attribution) -> bool:
        """Whether there is a hard budget that who asks may use up."""
        return any(_is_of(budget, who) for budget in self._hard)

    def reserve(
        self, id_: str, expected_usd: Decimal | float | None, who: Attribution
    ) -> "Future[BudgetStatus | None] | None":
        """The budget that cannot bear a call, if one cannot, to be asked `refuse` about; None without a budget.

        What is held is what the call is expected to cost; where that is not known, any passes until all is spent. It
        takes the place of what the same id holds, and has to fit beside it for a moment. id_: a decision's, which its
        event settles by `decision_id`, or one that is to be released.
        """
        store = self._access.opened
        if store is None or not self.limits(who):
            return None
        pico = math.ceil(Decimal(str(expected_usd or 0)) * PICO_PER_USD)
        spender = Spender(who.tenant, who.team, who.feature, who.user, who.api_key)
        return store.reserve(id_, spender, pico, datetime.now(UTC), _HELD)

    def release(self, id_: str, who: Attribution) -> None:
        """Let go of what is held for a call that is not made, or is over."""
        if (store := self._access.opened) is not None:
            store.release(id_, who.tenant)

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
        except (OSError, HTTPException) as error:
            logger.error("the webhook for budgets did not answer: %s", error)


def refuse(used_up: BudgetStatus | None, expected_usd: Decimal | float | None) -> None:
    """Raises BudgetError that says which budget it is, what it lacks and when it begins anew, unless there is none."""
    if used_up is None:
        return
    limit = usd(used_up.budget.limit_pico_usd)
    what = "this call" if not expected_usd else f"this call, which is expected to cost {float(expected_usd):.2g} USD"
    held = f", and {usd(used_up.reserved_pico_usd)} held for calls under way" if used_up.reserved_pico_usd else ""
    then = f"it begins anew at {used_up.resets_at.isoformat()}"
    if expected_usd and expected_usd > limit:
        then = "it never can; set a higher one, or ask for a cheaper model"
    wait = used_up.resets_at - datetime.now(UTC)
    spent = f"{usd(used_up.spent_pico_usd)} USD of {limit} are spent{held}"
    raise BudgetError(
        f"the {used_up.budget} cannot bear {what}: {spent}; {then}",
        retry_after_s=max(1, math.ceil(wait.total_seconds())),
    )


def _is_of(budget: Budget, who: Attribution) -> bool:
    if budget.tenant != who.tenant:
        return False
    match budget.scope:
        case "tenant":
            return True
        case "team":
            return budget.value == who.team
        case "feature":
            return budget.value == who.feature
        case "user":
            return budget.value == who.user
        case "api_key":
            return budget.value == who.api_key
