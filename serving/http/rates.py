"""How often may a key call? Requests and tokens of each minute, counted in this worker."""

import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from serving.api_key import ApiKey
from serving.errors import AccessError
from serving.ledger.events import Event


class Rates:
    """Minutes begin with a key's first call. What a call takes in tokens is known when it is over, and counts then."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._keys: dict[str, RateLimitItem] = {}

    def admit(self, key: ApiKey) -> None:
        """Count a request. Raises AccessError when the minute's requests or tokens are used up."""
        if key.tokens_per_minute is not None:
            self._keys[key.id] = tokens = RateLimitItemPerMinute(key.tokens_per_minute)
            if not self._limiter.test(tokens, key.id, "tokens"):
                raise self._refusal(tokens, key, "tokens")
        if key.requests_per_minute is not None:
            requests = RateLimitItemPerMinute(key.requests_per_minute)
            if not self._limiter.hit(requests, key.id, "requests"):
                raise self._refusal(requests, key, "requests")

    def spend(self, event: Event) -> None:
        """Count the tokens of a call that is over."""
        limit = None if event.api_key is None else self._keys.get(event.api_key)
        if limit is not None and event.usage is not None:
            used = (event.usage.input_tokens or 0) + (event.usage.output_tokens or 0)
            self._limiter.hit(limit, str(event.api_key), "tokens", cost=used)

    def _refusal(self, limit: RateLimitItem, key: ApiKey, of: str) -> AccessError:
        wait = max(1, math.ceil(self._limiter.get_window_stats(limit, key.id, of).reset_time - time.time()))
        return AccessError(
            "rate_limit_exceeded",
            f"this key may take {limit.amount:,} {of} a minute; wait {wait} s",
            retry_after_s=wait,
        )
