"""Is an answer to a decision good enough to be given? By what the settings list."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from serving.deciding import Asked
from serving.escalate_entry import EscalateEntry, Flaw
from serving.routing.router import Decision
from serving.upstream.flaws import flaw_in
from serving.upstream.json_form import form_asked

_LONGEST_LOOK_S: Final = 1.0
"""An answer that takes longer to check is taken as it is."""


class Escalation:
    """What is looked for in answers."""

    def __init__(self, entry: EscalateEntry) -> None:
        self._entry = entry
        self._checking = ThreadPoolExecutor(1, thread_name_prefix="checker")  # of slow schemas one at a time

    async def flaw(
        self, asked: Asked, decision: Decision, payload: Mapping[str, Any], answer: Mapping[str, Any]
    ) -> Flaw | None:
        """What is wrong with the whole `answer`, of the flaws that are escalated for.

        A pinned request has the tier that the operator wants, whatever comes of it.
        """
        among = self._entry.under(asked.policy.name)
        if not among or decision.reason == "pinned":
            return None
        if "schema" not in among or form_asked(payload) is None:
            return flaw_in(answer, payload, among)
        looking = asyncio.get_running_loop().run_in_executor(self._checking, flaw_in, answer, payload, among)
        try:
            return await asyncio.wait_for(looking, _LONGEST_LOOK_S)
        except TimeoutError:
            return None
