"""What was lately put into a thread, or read from it, so that the next read need not ask the disk.

Owner of the truth: the storage. Events and values never change, and which of them are shown is
always the history's word, so what is here can be absent but never wrong. It goes with the
generation, with every prune, and when room is needed.
"""

from collections.abc import Iterable, Mapping, Sequence

from checkpoint_router.core import limits
from checkpoint_router.core.growing import Named
from checkpoint_router.core.ids import EventId
from checkpoint_router.core.records import Event, Typed


class Recent:
    """Of one thread: at most `limits.RECENT_THREAD_BYTES_MAX`, the oldest dropped first."""

    __slots__ = ("_events", "_named", "_sizes", "_values", "size_bytes")

    def __init__(self) -> None:
        self._events: dict[EventId, Event] = {}
        self._values: dict[bytes, Typed] = {}
        self._sizes: dict[EventId | bytes, int] = {}
        """Bytes of each of them, oldest first: a conversation's many records make room for its
        one value, which the next put goes on from."""
        self._named: dict[bytes, Named] = {}
        """Of the values, those that grew last: the next ones go on from them."""
        self.size_bytes = 0

    def add(
        self, events: Iterable[tuple[Event, int]], values: Iterable[tuple[bytes, Typed]]
    ) -> None:
        """Takes events with their sizes in bytes, and values with their hashes."""
        for event, size in events:
            if event.id not in self._events:
                self._events[event.id] = event
                self._sizes[event.id] = size
                self.size_bytes += size
        for hash, value in values:
            size = self._sizes.pop(hash, -1)
            if size < 0:
                self._values[hash] = value
                size = len(value.data)
                self.size_bytes += size
            self._sizes[hash] = size
        while self.size_bytes > limits.RECENT_THREAD_BYTES_MAX:
            self._drop_oldest()

    def events(self, ids: Sequence[EventId]) -> dict[EventId, Event] | None:
        """The events by id, if all of them are here."""
        found = {i: self._events[i] for i in ids if i in self._events}
        return found if len(found) == len(ids) else None

    def values(self, hashes: Sequence[bytes]) -> Mapping[bytes, Typed] | None:
        """The values by hash, if all of them are here."""
        found = {h: self._values[h] for h in hashes if h in self._values}
        return found if len(found) == len(hashes) else None

    def keep(self, base: Named, grown: Named) -> None:
        """Takes a value that was rebuilt from another, and will be the base of the next."""
        self._named.pop(base.hash, None)
        self.add((), ((grown.hash, grown.value),))
        if self._values.get(grown.hash) is grown.value:
            self._named[grown.hash] = grown

    def named(self, hash: bytes) -> Named | None:
        """A value that was kept, if it is still here."""
        return self._named.get(hash)

    def clear(self) -> None:
        """Forgets all."""
        self._events.clear()
        self._values.clear()
        self._sizes.clear()
        self._named.clear()
        self.size_bytes = 0

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._sizes))
        self.size_bytes -= self._sizes.pop(oldest)
        if isinstance(oldest, bytes):
            del self._values[oldest]
            self._named.pop(oldest, None)
        else:
            del self._events[oldest]
