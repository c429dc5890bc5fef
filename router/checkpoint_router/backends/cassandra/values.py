"""Records and values as rows: written whole before they are named, read back and verified.

A record stands in pieces of `PIECE_BYTES`, and so does a value that continues no other; the first
one says how long all of them are, and is written after the others. A value that grew (`growing`)
has one row with its head and the path of logs that its body stands in. Rules: a row is written
once, under the number of its writer or at an offset that nobody else has; a value counts as
stored if one of its copies is there with all of its bytes; what is read is verified, and what is
broken raises DataLoss naming thread and record.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from checkpoint_router.backends.cassandra.ahead import KEYS, Asks
from checkpoint_router.backends.cassandra.growing import Base, Path, Placed, pack_path, unpack_path
from checkpoint_router.backends.cassandra.session import Change, Session
from checkpoint_router.backends.cassandra.statements import BLOB, RECORD, ROW, Name
from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.digests import blob_hash, head_length
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import Typed
from checkpoint_router.storage.codec import lost, open_envelope
from checkpoint_router.storage.port import Blobs

PIECE_BYTES: Final = 512 * limits.KIB
"""Larger: a cell takes tens of milliseconds, and heap on each member. Smaller: more rows."""

_KEYS: Final = 100
"""Keys in one request that brings no bodies."""

_Of = tuple[str, str, int]
"""tenant, thread, generation."""


@dataclass(frozen=True, slots=True)
class First:
    """The first row of one copy of something."""

    size: int
    tag: str
    body: bytes
    """The first piece, or the head of a value that grew."""
    path: Path = ()
    start: int = 0
    """Where what came with this row begins in the last log of the path."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a value, without its bytes."""

    hash: bytes
    size: int
    writer: int
    path: Path


@dataclass(frozen=True, slots=True)
class _Run:
    """Bytes of a log that follow each other without a gap."""

    low: int
    data: bytes

    def cut(self, low: int, end: int) -> bytes | None:
        """None: not all of them are there."""
        found = self.data[low - self.low : end - self.low]
        return found if len(found) == end - low else None


def key_of(id: EventId) -> bytes:
    """An event's key in its thread."""
    return id.segment + id.index.to_bytes(8, "big")


# Writing -------------------------------------------------------------------------------------


def pieces(
    thread: ThreadKey, gen: int, kind: int, key: bytes, writer: int, tag: str, data: bytes
) -> list[Change]:
    """The rows of a record or value, the last of which makes the others count."""
    of = (thread.tenant, thread.thread, gen, kind, key)
    return [
        (Name.PUT_PIECE, (*of, at // PIECE_BYTES, writer, len(data), tag,
                          data[at : at + PIECE_BYTES], ROW))
        for at in reversed(range(0, max(1, len(data)), PIECE_BYTES))
    ]  # fmt: skip


def grown(thread: ThreadKey, gen: int, blob: NewBlob, writer: int, how: Placed) -> list[Change]:
    """The rows of a value that continues another: the last one makes the others count."""
    of = (thread.tenant, thread.thread, gen)
    key = how.path[-1].key
    rows: list[Change] = [
        (Name.PUT_SEGMENT, (*of, key, how.start + at, how.tail[at : at + PIECE_BYTES], ROW))
        for at in range(0, len(how.tail), PIECE_BYTES)
    ]
    row = (blob.hash, writer, len(blob.value.data), blob.value.tag, how.head)
    rows.append((Name.PUT_GROWN, (*of, *row, pack_path(how.path), how.start, ROW)))
    return rows


def bytes_of(rows: Sequence[Change]) -> int:
    """Of the largest fields of these rows."""
    return sum(len(field) for _, row in rows for field in row if isinstance(field, bytes))


async def write(session: Session, rows: Sequence[Change]) -> None:
    """Each in a request of its own, the last one after all others were answered."""
    await asyncio.gather(*(session.write(name, *row) for name, row in rows[:-1]))
    name, row = rows[-1]
    await session.write(name, *row)


# Rows ----------------------------------------------------------------------------------------


async def first_pieces(
    session: Asks, thread: ThreadKey, gen: int, kind: int, keys: Iterable[bytes]
) -> dict[bytes, list[First]]:
    """The first row of each copy of these that is there."""
    wanted = list(dict.fromkeys(keys))
    of = (thread.tenant, thread.thread, gen, kind)
    found = await asyncio.gather(
        *(
            session.read(Name.FIRST_PIECES, *of, wanted[at : at + KEYS])
            for at in range(0, len(wanted), KEYS)
        )
    )
    firsts: dict[bytes, list[First]] = {}
    for key, size, tag, body, path, start in (row for some in found for row in some):
        first = First(size or 0, tag or "", body or b"", unpack_path(path or b""), start or 0)
        firsts.setdefault(key, []).append(first)
    return firsts


async def copies(session: Asks, thread: ThreadKey, gen: int, hashes: Sequence[bytes]) -> list[Copy]:
    """Each copy of these values."""
    of = (thread.tenant, thread.thread, gen, BLOB)
    found = await asyncio.gather(
        *(
            session.read(Name.FIRST_KEYS, *of, list(hashes[at : at + _KEYS]))
            for at in range(0, len(hashes), _KEYS)
        )
    )
    return [
        Copy(hash, size or 0, writer, unpack_path(path or b""))
        for some in found
        for hash, size, writer, path in some
    ]


async def dead_logs(
    session: Asks, thread: ThreadKey, gen: int, doomed: Sequence[Copy]
) -> tuple[bytes, ...]:
    """Logs in which no value stands any more once these copies are gone."""
    logs = {span.key for copy in doomed for span in copy.path}
    if not logs:
        return ()
    going = {(copy.hash, copy.writer) for copy in doomed}
    rows = await session.read(Name.PATHS, thread.tenant, thread.thread, gen, BLOB)
    for hash, writer, path in rows:
        if path and (hash, writer) not in going:
            logs -= {span.key for span in unpack_path(path)}
    return tuple(sorted(logs))


async def _runs(session: Asks, of: _Of, firsts: Iterable[First], tails: bool) -> dict[int, _Run]:
    """The bytes that these stand in, by log; with `tails` only those that came with them."""
    low: dict[int, int] = {}
    end: dict[int, int] = {}
    for first in firsts:
        at = 0
        for span in first.path[-1:] if tails else first.path:
            begins = first.start if tails else at
            low[span.log] = min(low.get(span.log, begins), begins)
            end[span.log] = max(end.get(span.log, 0), span.end)
            at = span.end
    keys = {span.log: span.key for first in firsts for span in first.path}
    found = await asyncio.gather(
        *(session.read(Name.SEGMENTS, *of, keys[log], low[log], end[log]) for log in low)
    )
    return {log: _run(low[log], rows) for log, rows in zip(low, found, strict=True)}


def _run(low: int, rows: Iterable[Sequence[object]]) -> _Run:
    data = bytearray()
    for offset, body in rows:
        if offset != low + len(data) or not isinstance(body, bytes):
            break
        data += body
    return _Run(low, bytes(data))


def _body(first: First, runs: Mapping[int, _Run]) -> bytes | None:
    """All bytes of a value that grew; None: not all are there."""
    parts = [first.body]
    at = 0
    for span in first.path:
        part = runs[span.log].cut(at, span.end)
        if part is None:
            return None
        parts.append(part)
        at = span.end
    return b"".join(parts)


# Whether values are there --------------------------------------------------------------------


async def sizes(
    session: Asks, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
) -> dict[bytes, int]:
    """See `Storage.blob_sizes`."""
    found = {c.hash: c.size for c in await copies(session, thread, gen, hashes)}
    return {h: found[h] for h in hashes if h in found}


async def missing(
    session: Asks, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
) -> tuple[bytes, ...]:
    """See `Storage.missing_blobs`. What is not missing was read with its bytes: only what was
    read is sure to be on a quorum."""
    there: set[bytes] = set()
    for at in range(0, len(hashes), KEYS):
        there |= await arrived(session, thread, gen, hashes[at : at + KEYS], tails=False)
    return tuple(h for h in hashes if h not in there)


async def arrived(
    session: Asks, thread: ThreadKey, gen: int, hashes: Sequence[bytes], *, tails: bool
) -> set[bytes]:
    """Those of which a copy came from a quorum: all of it or, with `tails`, what its batch
    brought."""
    firsts = await first_pieces(session, thread, gen, BLOB, hashes)
    of = (thread.tenant, thread.thread, gen)
    runs = await _runs(session, of, [f for some in firsts.values() for f in some], tails)

    def came(first: First) -> bool:
        if not first.path:
            return True
        last = first.path[-1]
        if tails:
            return runs[last.log].cut(first.start, last.end) is not None
        return _body(first, runs) is not None

    return {hash for hash, some in firsts.items() if any(came(first) for first in some)}


async def bases(
    session: Asks, thread: ThreadKey, gen: int, hashes: Iterable[bytes]
) -> dict[bytes, Base]:
    """Those of these values that are there, read whole, as others may continue them."""
    found: dict[bytes, Base] = {}
    for hash, some in (await first_pieces(session, thread, gen, BLOB, hashes)).items():
        for first in some:
            data = await _rebuilt(session, thread, gen, hash, first)
            if data is not None and blob_hash(first.tag, data) == hash:
                head = data[: head_length(first.tag, data)]
                keep = len(data) - len(head)
                found[hash] = Base(tag=first.tag, head=head, keep=keep, path=first.path)
                break
    return found


# Reading -------------------------------------------------------------------------------------


async def load_records(
    session: Asks, thread: ThreadKey, gen: int, ids: Sequence[EventId]
) -> Mapping[EventId, bytes]:
    """See `Storage.events`."""
    keys = {key_of(id): id for id in ids}
    firsts = await first_pieces(session, thread, gen, RECORD, keys)
    found: dict[EventId, bytes] = {}
    for key, some in firsts.items():
        sealed = await _pieced(session, thread, gen, RECORD, key, some[-1])
        if sealed is None:
            id = EventId(SegmentId(key[:16]), int.from_bytes(key[16:], "big"))
            raise lost(thread, f"event {id}", "not all of its bytes are there")
        found[keys[key]] = open_envelope(sealed, thread, f"event {keys[key]}")
    return {id: found[id] for id in ids if id in found}


async def load(
    session: Asks, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
) -> Blobs:
    """See `Storage.blobs`. A few at a time, so that not much more than the budget is read."""
    asked = list(dict.fromkeys(hashes))
    found: dict[bytes, Typed] = {}
    for at in range(0, len(asked), KEYS):
        group = asked[at : at + KEYS]
        firsts = await first_pieces(session, thread, gen, BLOB, group)
        taken: dict[bytes, list[First]] = {}
        for hash in (h for h in group if h in firsts):
            budget_bytes -= firsts[hash][0].size
            if budget_bytes < 0 and (found or taken):
                break
            taken[hash] = firsts[hash]
        found.update(await _values(session, thread, gen, taken))
        if budget_bytes < 0 and found:
            rest = [h for h in asked[at:] if h not in taken]
            return Blobs(found=found, rest=tuple(await sizes(session, thread, gen, rest)))
    return Blobs(found=found, rest=())


async def _values(
    session: Asks, thread: ThreadKey, gen: int, firsts: Mapping[bytes, Sequence[First]]
) -> dict[bytes, Typed]:
    of = (thread.tenant, thread.thread, gen)
    # A log that several of them stand in is read once.
    runs = await _runs(session, of, [some[0] for some in firsts.values()], tails=False)
    found: dict[bytes, Typed] = {}
    for hash, some in firsts.items():
        data = _body(some[0], runs) if some[0].path else None
        if data is None or blob_hash(some[0].tag, data) != hash:
            value = await _of_any_copy(session, thread, gen, hash, some)
        else:
            value = Typed(some[0].tag, data)
        if value is not None:
            found[hash] = value
    return found


async def _of_any_copy(
    session: Asks, thread: ThreadKey, gen: int, hash: bytes, firsts: Sequence[First]
) -> Typed | None:
    """None: it was pruned since its rows were read. Raises DataLoss."""
    why = "not all of its bytes are there"
    for first in firsts:
        data = await _rebuilt(session, thread, gen, hash, first)
        if data is not None:
            if blob_hash(first.tag, data) == hash:
                return Typed(first.tag, data)
            why = "its bytes do not have the hash that names it"
    # A prune takes the rows of values first, and then their logs.
    if not await copies(session, thread, gen, [hash]):
        return None
    raise lost(thread, f"value {hash.hex()[:16]}…", why)


async def _rebuilt(
    session: Asks, thread: ThreadKey, gen: int, hash: bytes, first: First
) -> bytes | None:
    if not first.path:
        return await _pieced(session, thread, gen, BLOB, hash, first)
    of = (thread.tenant, thread.thread, gen)
    return _body(first, await _runs(session, of, [first], tails=False))


async def _pieced(
    session: Asks, thread: ThreadKey, gen: int, kind: int, key: bytes, first: First
) -> bytes | None:
    """All bytes of what stands in pieces; None: not all are there."""
    if len(first.body) == first.size:
        return first.body
    of = (thread.tenant, thread.thread, gen, kind, key)
    # Copies by two writers have the same bytes.
    rows = await session.read(Name.PIECES, *of)
    parts = {n: body for n, body, path in rows if body is not None and path is None}
    data = b"".join(parts[n] for n in sorted(parts))
    return data if len(data) == first.size else None
