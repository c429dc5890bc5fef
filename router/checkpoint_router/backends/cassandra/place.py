"""What a router remembers of a thread, so that a put need not read it: a copy, but for counters.

Owner: one `Place` for each thread in use, on the loop. Rules: all in it came from a read by
quorum, or was acknowledged to this process; it is of one generation and one count of prunes, and
is thrown away with either.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from checkpoint_router.backends.cassandra.ahead import NO_HINT, Ahead, Hint, Range
from checkpoint_router.backends.cassandra.growing import Remembered
from checkpoint_router.core.clock import Ranges, covers, with_index
from checkpoint_router.core.ids import Dot, EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import Entry
from checkpoint_router.storage.port import Append, Appended


@dataclass(frozen=True, slots=True)
class State:
    """A thread's row of conditional writes."""

    gen: int | None = None
    """None: it was never deleted, so its first generation lives."""
    erasures: int | None = None
    """Prunes and deletes that were finished. None: none."""
    intent: bytes | None = None
    """A removal that was begun and not finished (`removal.Intent`)."""
    phase: int | None = None
    """1: it is known to be wanted. 2: it is decided, and whoever comes by finishes it."""

    @property
    def live(self) -> int:
        """The live generation."""
        return self.gen or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A log row."""

    dot: Dot
    pos: int
    """Above that of all that its writer knew: sorting by it puts causes first."""
    first: int
    """The first n of the batch that it came with."""
    entry: Entry
    news: tuple[bytes, ...]
    """Values that came in the same batch."""
    tails: tuple[Range, ...] = ()
    """Where what it appended of its first news stands."""


class Place:
    """One thread."""

    def __init__(self, thread: ThreadKey) -> None:
        self.thread = thread
        self.state = State()
        self.loaded = False
        """Whether what follows is all that a quorum knew at `version`."""
        self.version: int | None = None
        """Of the fence group, when the state was read or later; None: not known."""
        self.counts: dict[int, int] = {}
        self.acknowledged: dict[int, int] = {}
        """Actors of this process to the n up to which all is stored."""
        self.digests: dict[EventId, bytes] = {}
        self.indices: dict[SegmentId, Ranges] = {}
        self.values: set[bytes] = set()
        """Hashes of values that are stored; others may be too."""
        self.growing = Remembered()
        self.hint: Hint = NO_HINT
        self.ahead: Ahead | None = None
        """What the last look read beside the index, until somebody has read it."""
        self.pos = 0
        self.announced = False
        """This process wrote the thread's rows in the listings since the last removal."""
        self.runs: set[str] = set()
        """Runs for which it did."""
        self.under_way: dict[EventId, asyncio.Future[Appended]] = {}
        self.users = 0
        self.counted = 0
        """Events of it that the total of all places includes."""

    def begin(self, state: State) -> None:
        """Another generation, or one prune more: all is to be read anew."""
        if state == self.state:
            return
        if state.live != self.state.live:
            self.acknowledged = {}
        self.state = state
        self.forget()

    def forget(self) -> None:
        """Before all is read anew."""
        self.loaded = self.announced = False
        self.version = None
        self.counts, self.digests, self.indices = {}, {}, {}
        self.values, self.runs = set(), set()
        self.growing = Remembered()
        self.hint, self.ahead = NO_HINT, None

    def know(self, rows: Iterable[Logged]) -> None:
        """Takes in rows that are stable."""
        for row in rows:
            id = row.entry.id
            self.counts[row.dot.actor] = max(self.counts.get(row.dot.actor, 0), row.dot.n)
            self.digests[id] = min(self.digests.get(id, row.entry.digest), row.entry.digest)
            self.indices[id.segment] = with_index(self.indices.get(id.segment, ()), id.index)
            self.pos = max(self.pos, row.pos)
            if not row.entry.erased:
                self.values.update(row.news)

    def has(self, append: Append) -> bool:
        """Whether all that it needs is stored."""
        return all(covers(self.indices.get(s, ()), ranges) for s, ranges in append.needs)
