"""An answer on its way to a client: passed on as it comes, read on the way, written down before its end goes out."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

from pydantic_core import to_json

from serving.booking import Attempt, Booking, Settled
from serving.errors import UpstreamError
from serving.upstream.breaker import Trial
from serving.upstream.events import Events, Seen


class AnswerStream:
    """The stream of one attempt. Whoever has it closes it, whether it was read or not.

    trial: is told how it ended. open_call: closes the provider's call, and the trial if nobody ended it. mask: takes
    out of an event what no client may see. shows_usage: whether the client asked for usage, which is hidden otherwise.
    named_events: whether it is one of the Responses API.
    """

    def __init__(
        self,
        booking: Booking,
        attempt: Attempt,
        trial: Trial,
        chunks: AsyncIterator[bytes],
        open_call: AsyncExitStack,
        *,
        mask: Callable[[bytes], bytes],
        shows_usage: bool,
        named_events: bool,
    ) -> None:
        self._booking = booking
        self._attempt = attempt
        self._trial = trial
        self._chunks = chunks
        self._open_call = open_call
        self._mask = mask
        self._shows_usage = shows_usage
        self._named_events = named_events
        self._seen = Seen()
        self._settled: Settled | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Its bytes, some events at a time. Where it breaks off, an event of an error says so."""
        seen, events, passed = self._seen, Events(), bytearray()
        try:
            async for chunk in self._chunks:
                passed.clear()
                for event in events.feed(chunk):
                    if not seen.take(event) or self._shows_usage:
                        passed += self._mask(event)
                    if seen.ended:
                        await self._settle()
                if passed:
                    yield bytes(passed)
                    passed.clear()
            if not (seen.ended or seen.finished or seen.failed):
                raise UpstreamError("connection", "the stream ended before its answer did")
            await self._settle()
        except UpstreamError as error:
            self._trial.end("failed")
            if self._settled is None:
                self._settled = self._booking.answered(self._attempt, seen, "error", f"stream_{error.code}")
                await self._settled.on_disk()
                yield bytes(passed) + self._broken(error)

    async def close(self) -> None:
        """End the provider's call, and book what was used of an answer that nobody read to its end."""
        if self._settled is None:
            self._settled = self._booking.answered(self._attempt, self._seen, "cancelled")
        await self._open_call.aclose()

    async def _settle(self) -> None:
        if self._settled is None:
            failed = self._seen.failed
            self._trial.end("failed" if failed else "succeeded")
            self._settled = self._booking.answered(self._attempt, self._seen, "error" if failed else "ok")
            await self._settled.on_disk()

    def _broken(self, error: UpstreamError) -> bytes:
        """As the clients of either API raise it."""
        said = {
            "message": f"the answer broke off: {error}",
            "type": "api_error",
            "param": None,
            "code": f"upstream_{error.code}",
        }
        if self._named_events:
            return b"event: error\ndata: " + to_json({"type": "error", **said}) + b"\n\n"
        return b"data: " + to_json({"error": said}) + b"\n\n"
