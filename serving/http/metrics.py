"""What the service counts, beside what BentoML counts of requests. No label carries what a client sent."""

from prometheus_client import Counter, Gauge


class Metrics:
    """Created once per worker, after BentoML has said where its processes keep their counts."""

    def __init__(self) -> None:
        self.decisions = Counter("tierwise_decisions", "Routing decisions", ["tier", "reason"])
        self.reloads = Counter("tierwise_router_reloads", "Promotions taken over or refused", ["outcome"])
        self.degraded = Gauge(
            "tierwise_router_degraded", "1 while the promoted router or its encoder cannot be used",
            multiprocess_mode="livemax",
        )  # fmt: skip
