"""What is read beside a thread's index, so that what follows need not ask for it again.

A router that looks at a thread mostly wants its newest checkpoint. Which rows those are stands in
the index, so they could be asked for only after it. A hint beside the counts of actors names them
earlier. It is written with each batch and never trusted: it decides which rows are asked for, and
nothing about what they are. One that is wrong or missing costs a journey.

Owner: each look has its own `Ahead`; the last one of a place is kept for the read that follows
(`threads`), and goes with all that is known of the place when its state changes.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from checkpoint_router.backends.cassandra.growing import Path, pack_path, unpack_path
from checkpoint_router.backends.cassandra.session import Row
from checkpoint_router.backends.cassandra.statements import BLOB, RECORD, Name
from checkpoint_router.core import limits
from checkpoint_router.core.ids import ThreadKey

KEYS: Final = 16
"""In one request that brings up to a piece for each."""

VALUES_BYTES_MAX: Final = limits.MIB
"""Of values that are read on the word of a hint. Larger: a look that wants no values reads more of
them for nothing. Smaller: more reads need one more journey, which is shorter than such values are
long."""

EVENTS_MAX: Final = 16
"""In a hint: the newest checkpoint and what followed it."""

VALUES_MAX: Final = 32
"""In a hint. More: each batch writes more, and each look at the thread reads it."""

_UNKNOWN_BYTES: Final = 32 * limits.KIB
"""Of a value whose size no hint says."""

Range = tuple[bytes, int, int]
"""An append log, and the offsets from which and up to which it is wanted."""


class Asks(Protocol):
    """What answers reads: the session, or what stands before it."""

    def read(self, name: Name, *values: Any) -> Awaitable[list[Row]]:
        """See `Session.read`."""


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """What a read of the newest checkpoint may want."""

    events: tuple[bytes, ...] = ()
    """Keys: the newest checkpoint outside nested graphs, first, and what was written since."""
    values: tuple[tuple[bytes, int, bytes], ...] = ()
    """(hash, size or 0, packed path or nothing) of the values that those name."""

    def pack(self) -> bytes:
        return msgspec.msgpack.encode(self)

    def with_event(
        self, key: bytes, values: Mapping[bytes, tuple[int, Path]], *, anew: bool
    ) -> "Hint":
        """With one event more, which names those values with what is known of them; `anew`: it is
        the newest checkpoint."""
        known = {hash: (size, path) for hash, size, path in self.values}
        named = {
            hash: (size, pack_path(path)) if size else known.get(hash, (0, b""))
            for hash, (size, path) in values.items()
        }
        # The checkpoint stays the first; of what followed it the newest stay.
        later = (*self.events[1:], key)[-(EVENTS_MAX - 1) :]
        some = list((named if anew else known | named).items())[:VALUES_MAX]
        return Hint(
            (key,) if anew else (*self.events[:1], *later),
            tuple((hash, size, path) for hash, (size, path) in some),
        )


NO_HINT: Final = Hint()


def hint_in(packed: bytes | None) -> Hint:
    """The hint in these bytes; an empty one where they are none."""
    try:
        return msgspec.msgpack.decode(packed or b"", type=Hint)
    except msgspec.DecodeError:  # Also where a field is of another kind.
        return NO_HINT


class Ahead:
    """Rows of one generation that were read, before a session that has the others."""

    def __init__(self, session: Asks, thread: ThreadKey, gen: int) -> None:
        self._session = session
        self._of = (thread.tenant, thread.thread, gen)
        self.gen = gen
        self.size = 0
        """Bytes of what was read."""
        self._firsts: dict[tuple[int, bytes], list[Row]] = {}
        self._logs: dict[bytes, dict[int, bytes]] = {}

    def read(self, name: Name, *values: Any) -> Awaitable[list[Row]]:
        """As a session would answer; of what was read before, as it was then."""
        if values[:3] == self._of:
            if name is Name.FIRST_PIECES:
                return self._first_pieces(values[3], values[4])
            if name is Name.SEGMENTS:
                return self._segments(*values[3:])
        return self._session.read(name, *values)

    async def bring(
        self,
        records: Iterable[bytes] = (),
        blobs: Iterable[bytes] = (),
        ranges: Iterable[Range] = (),
        hint: Hint = NO_HINT,
    ) -> None:
        """Reads what is not there yet of all these, in one journey."""
        values, spans = _worth_it(hint)
        wanted = {
            RECORD: list(dict.fromkeys((*records, *hint.events))),
            BLOB: list(dict.fromkeys((*blobs, *values))),
        }
        await asyncio.gather(
            *(
                self._first_pieces(kind, keys[at : at + KEYS])
                for kind, keys in wanted.items()
                for at in range(0, len(keys), KEYS)
            ),
            *(self._segments(*range_) for range_ in _merged((*ranges, *spans))),
        )

    async def _first_pieces(self, kind: int, keys: Sequence[bytes]) -> list[Row]:
        unknown = [key for key in keys if (kind, key) not in self._firsts]
        if unknown:
            found: dict[tuple[int, bytes], list[Row]] = {}
            for row in await self._session.read(Name.FIRST_PIECES, *self._of, kind, unknown):
                found.setdefault((kind, row[0]), []).append(row)
                self.size += len(row[3] or b"")
            self._firsts |= found
        return [row for key in keys for row in self._firsts.get((kind, key), ())]

    async def _segments(self, key: bytes, low: int, end: int) -> list[Row]:
        bodies = self._logs.setdefault(key, {})
        at, rows = low, list[Row]()
        while at < end and at in bodies:
            rows.append((at, bodies[at]))
            at += len(bodies[at]) or end
        if at >= end:
            return rows
        rows = await self._session.read(Name.SEGMENTS, *self._of, key, low, end)
        for offset, body in rows:
            bodies[offset] = body or b""
            self.size += len(bodies[offset])
        return rows


def _worth_it(hint: Hint) -> tuple[list[bytes], list[Range]]:
    """Values of a hint that are read on its word, and what of append logs they stand in."""
    hashes: list[bytes] = []
    ranges: list[Range] = []
    left = VALUES_BYTES_MAX
    for hash, size, packed in hint.values:
        left -= size or _UNKNOWN_BYTES
        if left < 0:
            break
        hashes.append(hash)
        at = 0
        for span in _path(packed):
            ranges.append((span.key, at, span.end))
            at = span.end
    return hashes, ranges


def _path(packed: bytes) -> Path:
    try:
        return unpack_path(packed)
    except ValueError:
        return ()


def _merged(ranges: Iterable[Range]) -> list[Range]:
    """One range for each log."""
    found: dict[bytes, Range] = {}
    for key, low, end in ranges:
        _, low_, end_ = found.get(key, (key, low, end))
        found[key] = (key, min(low, low_), max(end, end_))
    return list(found.values())
