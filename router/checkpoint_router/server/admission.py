"""What a router lets in: streams, bytes, large answers. The one place where work is refused.

Owner: one `Admission` for the process, used by the loop's thread alone. Rules: what was taken is
given back exactly once, whatever ends the call; a refusal is typed, retryable and says when to
come back; waiting costs the waiter's own stream, never somebody else's; who needs the memory of
answers that nobody reads gets it, from those who have not read for the longest.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from checkpoint_router.core import limits
from checkpoint_router.core.errors import Overloaded
from checkpoint_router.server.peers import disconnect
from checkpoint_router.telemetry import metrics
from checkpoint_router.telemetry.logging import logger
from checkpoint_router.wire.errors import RETRY_AFTER_MS

RETRY_AFTER_BUSY_MS: Final = 100
RETRY_AFTER_FULL_MS: Final = 1000

_log = logger("admission")


class Reader(Protocol):
    """Somebody to whom answers are being sent."""

    @property
    def peer(self) -> str:
        """As gRPC names it."""

    @property
    def unread_bytes(self) -> int:
        """Of answers that were counted for it and not given back."""


class Admission:
    """The limits of one router, and what is taken of them now."""

    def __init__(
        self,
        *,
        bytes_max: int = limits.BYTES_IN_FLIGHT_MAX,
        stall_seconds: float = limits.STREAM_STALL_SECONDS_MAX,
    ) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._unread = 0
        """Bytes of answers that are not sent, over all streams and unary calls."""
        self._patience_seconds = stall_seconds * limits.STALL_UNDER_PRESSURE
        self._sending: dict[Reader, float] = {}
        """Since when: who has waited for the longest is the first."""
        self._streams = 0
        self._tenants: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()
        self.large_answers = asyncio.Semaphore(limits.LARGE_ANSWERS_MAX)
        """Held while a handler makes an answer that may be as large as a message."""

    async def idle(self) -> None:
        """Returns when no call is under way and no stream is open."""
        await self._idle.wait()

    def take_bytes(self, size: int) -> None:
        """Counts a request of that size until `give_bytes`, with what any call costs besides.

        Raises Overloaded, and counts nothing then. One request is always let in, so that the
        limit never makes a legal call impossible.
        """
        size += limits.CALL_BYTES
        if self._bytes and self._bytes + size > self._bytes_max:
            metrics.refused.add(1)
            raise Overloaded(
                f"this router holds {self._bytes} bytes of requests, and {size} more would be "
                f"above its limit of {self._bytes_max}. Nothing was written. Try again shortly.",
                **{RETRY_AFTER_MS: str(RETRY_AFTER_BUSY_MS)},
            )
        self._bytes += size
        self._idle.clear()
        metrics.bytes_in_flight.add(size)

    def give_bytes(self, size: int) -> None:
        """Ends what `take_bytes` began."""
        size += limits.CALL_BYTES
        self._bytes -= size
        self._look()
        metrics.bytes_in_flight.add(-size)

    def room_for_answer(self, size: int | None = None) -> None:
        """Whether an answer of that size may wait to be sent; None: whether one may be begun,
        whose size nobody knows. Raises Overloaded.

        One is always let in, as with requests. Where there is no room, those who left theirs
        unread for too long lose their connections: nothing else makes gRPC let go of a message.
        """
        if size is None:
            size = self._bytes_max // 4
        if self._unread and self._unread + size > self._bytes_max:
            self._disconnect_stalled(size)
            metrics.refused.add(1)
            raise Overloaded(
                f"this router holds {self._unread} bytes of answers that are not read yet, and "
                f"its limit is {self._bytes_max}. Try again shortly.",
                **{RETRY_AFTER_MS: str(RETRY_AFTER_BUSY_MS)},
            )

    def take_answer(self, size: int) -> None:
        """Counts an answer that waits to be sent, until `give_answer`."""
        self._unread += size

    def give_answer(self, size: int) -> None:
        """Ends what `take_answer` began."""
        self._unread -= size

    def sending(self, reader: Reader) -> None:
        """Begins to send to `reader`, until `sent`."""
        self._sending[reader] = asyncio.get_running_loop().time()

    def sent(self, reader: Reader) -> None:
        """Ends what `sending` began."""
        self._sending.pop(reader, None)

    def _disconnect_stalled(self, wanted: int) -> None:
        """As many as together hold `wanted` bytes."""
        now = asyncio.get_running_loop().time()
        stalled = []
        for reader, since in self._sending.items():
            if wanted <= 0 or now - since < self._patience_seconds:
                break
            stalled.append(reader)
            wanted -= reader.unread_bytes
        found = disconnect({reader.peer for reader in stalled}) if stalled else ()
        for reader in stalled:
            if reader.peer in found:
                seconds = round(now - self._sending.pop(reader), 3)
                _log.warning(
                    "disconnected a client that does not read",
                    peer=reader.peer,
                    unread_bytes=reader.unread_bytes,
                    seconds=seconds,
                )

    @contextmanager
    def stream(self) -> Iterator[None]:
        """One open stream. Raises Overloaded."""
        if self._streams >= limits.STREAMS_MAX:
            raise _full("this router", self._streams, limits.STREAMS_MAX)
        self._streams += 1
        self._idle.clear()
        metrics.streams.add(1)
        try:
            yield
        finally:
            self._streams -= 1
            self._look()
            metrics.streams.add(-1)

    def take_tenant(self, tenant: str) -> None:
        """Counts a stream for `tenant` until `give_tenant`. Raises Overloaded."""
        if self._tenants[tenant] >= limits.STREAMS_PER_TENANT_MAX:
            raise _full("this tenant", self._tenants[tenant], limits.STREAMS_PER_TENANT_MAX)
        self._tenants[tenant] += 1

    def give_tenant(self, tenant: str) -> None:
        """Ends what `take_tenant` began."""
        self._tenants[tenant] -= 1
        if not self._tenants[tenant]:
            del self._tenants[tenant]

    def _look(self) -> None:
        if not self._bytes and not self._streams:
            self._idle.set()


def _full(who: str, held: int, limit: int) -> Overloaded:
    metrics.refused.add(1)
    return Overloaded(
        f"{who} has {held} streams open; the limit is {limit}. Nothing was written. Share one "
        f"saver per process, or close those that are not used, then try again.",
        **{RETRY_AFTER_MS: str(RETRY_AFTER_FULL_MS)},
    )


def authorise(peer: str, tenant: str) -> None:
    """Whether the caller at `peer` may act for `tenant`. Everybody may, until there are tokens:
    this is the one place that will know."""
