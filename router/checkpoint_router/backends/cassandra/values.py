"""Records and values as pieces: written whole before they are named, read back and verified.

Values stand whole, in pieces of `PIECE_BYTES`; the first one says how long all of them are, and
is written after the others. Rules: a row is written once, under the number of its writer; what is
read is verified, and what is broken raises DataLoss naming thread and record.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from checkpoint_router.backends.cassandra.session import Change, Session
from checkpoint_router.backends.cassandra.statements import BLOB, RECORD, ROW, Name
from checkpoint_router.core import limits
from checkpoint_router.core.digests import blob_hash
from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey
from checkpoint_router.core.records import Typed
from checkpoint_router.storage.codec import lost, open_envelope
from checkpoint_router.storage.port import Blobs

PIECE_BYTES: Final = 512 * limits.KIB
"""Larger: a cell takes tens of milliseconds, and heap on each member. Smaller: more rows."""

_KEYS: Final = 100
"""Keys in one request that brings no bodies."""

_BODIES: Final = 16
"""Keys in one request that brings up to a piece for each."""


@dataclass(frozen=True, slots=True)
class First:
    """The first piece of something."""

    size: int
    tag: str
    body: bytes


def key_of(id: EventId) -> bytes:
    """An event's key in its thread."""
    return id.segment + id.index.to_bytes(8, "big")


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


async def write(session: Session, rows: Sequence[Change]) -> None:
    """Each in a request of its own, the last one after all others were answered."""
    await asyncio.gather(*(session.write(name, *row) for name, row in rows[:-1]))
    name, row = rows[-1]
    await session.write(name, *row)


async def first_pieces(
    session: Session, thread: ThreadKey, gen: int, kind: int, keys: Iterable[bytes]
) -> dict[bytes, First]:
    """The first piece of each of these that is there."""
    wanted = list(dict.fromkeys(keys))
    of = (thread.tenant, thread.thread, gen, kind)
    found = await asyncio.gather(
        *(
            session.read(Name.FIRST_PIECES, *of, wanted[at : at + _BODIES])
            for at in range(0, len(wanted), _BODIES)
        )
    )
    return {
        row[0]: First(row[1] or 0, row[2] or "", row[3] or b"") for some in found for row in some
    }


async def first_keys(
    session: Session, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
) -> list[tuple[bytes, int, int]]:
    """(hash, size, writer) of each copy of these values."""
    of = (thread.tenant, thread.thread, gen, BLOB)
    found = await asyncio.gather(
        *(
            session.read(Name.FIRST_KEYS, *of, list(hashes[at : at + _KEYS]))
            for at in range(0, len(hashes), _KEYS)
        )
    )
    return [(row[0], row[1] or 0, row[2]) for some in found for row in some]


async def sizes(
    session: Session, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
) -> dict[bytes, int]:
    """See `Storage.blob_sizes`."""
    found = {h: size for h, size, _ in await first_keys(session, thread, gen, hashes)}
    return {h: found[h] for h in hashes if h in found}


async def missing(
    session: Session, thread: ThreadKey, gen: int, hashes: Sequence[bytes]
) -> tuple[bytes, ...]:
    """See `Storage.missing_blobs`."""
    found = await sizes(session, thread, gen, hashes)
    return tuple(h for h in hashes if h not in found)


async def load_records(
    session: Session, thread: ThreadKey, gen: int, ids: Sequence[EventId]
) -> Mapping[EventId, bytes]:
    """See `Storage.events`."""
    keys = {key_of(id): id for id in ids}
    firsts = await first_pieces(session, thread, gen, RECORD, keys)
    found: dict[EventId, bytes] = {}
    for key, first in firsts.items():
        sealed = await _whole(session, thread, gen, RECORD, key, first)
        found[keys[key]] = open_envelope(sealed, thread, f"event {keys[key]}")
    return {id: found[id] for id in ids if id in found}


async def load(
    session: Session, thread: ThreadKey, gen: int, hashes: Sequence[bytes], budget_bytes: int
) -> Blobs:
    """See `Storage.blobs`. A few at a time, so that not much more than the budget is read."""
    asked = list(dict.fromkeys(hashes))
    found: dict[bytes, Typed] = {}
    for at in range(0, len(asked), _BODIES):
        firsts = await first_pieces(session, thread, gen, BLOB, asked[at : at + _BODIES])
        for position, hash in enumerate(asked[at : at + _BODIES], at):
            first = firsts.get(hash)
            if first is None:
                continue
            budget_bytes -= first.size
            if budget_bytes < 0 and found:
                there = await sizes(session, thread, gen, asked[position:])
                return Blobs(found=found, rest=tuple(there))
            data = await _whole(session, thread, gen, BLOB, hash, first)
            if blob_hash(first.tag, data) != hash:
                raise lost(thread, _name(hash), "its bytes do not have the hash that names it")
            found[hash] = Typed(first.tag, data)
    return Blobs(found=found, rest=())


async def _whole(
    session: Session, thread: ThreadKey, gen: int, kind: int, key: bytes, first: First
) -> bytes:
    if len(first.body) == first.size:
        return first.body
    of = (thread.tenant, thread.thread, gen, kind, key)
    # Copies by two writers have the same bytes.
    parts = {n: body or b"" for n, body in await session.read(Name.PIECES, *of)}
    data = b"".join(parts[n] for n in sorted(parts))
    if len(data) != first.size:
        id = EventId(SegmentId(key[:16]), int.from_bytes(key[16:], "big"))
        record = _name(key) if kind == BLOB else f"event {id}"
        raise lost(thread, record, f"{len(data)} of its {first.size} bytes are there")
    return data


def _name(hash: bytes) -> str:
    return f"value {hash.hex()[:16]}…"
