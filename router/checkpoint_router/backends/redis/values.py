"""Values on their way in and out: rows, and where a growing value is to be placed.

What is remembered of rows is a copy: the script compares it with what is stored, and a placement
that rests on an old copy is refused before anything is changed.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgpack

from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.digests import blob_hash, head_length
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.core.records import Typed
from checkpoint_router.storage.codec import lost
from checkpoint_router.storage.logs import (
    Branch,
    Extend,
    Log,
    Placement,
    Start,
    Version,
    place,
    worth_a_log,
)

_REMEMBERED_MAX: Final = 10_000
"""Versions of growing values whose rows are remembered. Losing one costs a look."""


def name(hash: bytes) -> str:
    """A value as an error names it."""
    return f"value {hash.hex()[:16]}"


pack: Final[Callable[[object], bytes]] = msgpack.Packer(use_bin_type=False).pack
"""Bytes that a script can unpack: servers know the older msgpack, without binary strings."""


def pack_row(tag: str, head: bytes, keep: int, log: bytes) -> bytes:
    """The row of a value; `log` is empty if its bytes stand alone."""
    return pack((tag.encode("utf-8", "surrogatepass"), head, keep, log))


def unpack_row(row: bytes, thread: ThreadKey, hash: bytes) -> tuple[str, bytes, int, bytes]:
    """What `pack_row` took. Raises DataLoss."""
    try:
        tag, head, keep, log = msgpack.unpackb(row, raw=True)
        return tag.decode("utf-8", "surrogatepass"), head, keep, log
    except (msgpack.UnpackException, ValueError, AttributeError, TypeError):
        raise lost(thread, name(hash), "its row is not one of ours") from None


def value(thread: ThreadKey, hash: bytes, row: bytes, data: bytes) -> Typed:
    """The value that was read, verified. Raises DataLoss."""
    tag, *_ = unpack_row(row, thread, hash)
    if blob_hash(tag, data) != hash:
        raise lost(thread, name(hash), "its bytes do not have the hash that names it")
    return Typed(tag, data)


def version(thread: ThreadKey, found: Sequence[Any]) -> Version:
    """What `read.lua` says of a row: (hash, row, length of its log, depth of its log)."""
    hash, row, length, depth = found
    tag, head, keep, log = unpack_row(row, thread, hash)
    held = None
    if log:
        held = Log(id=int.from_bytes(log, "big"), depth=depth, length=length, appends=0)
    return Version(hash=hash, tag=tag, head=head, keep=keep, log=held)


class Versions:
    """Rows of growing values, as they were lately written or read."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[ThreadKey, str, bytes], Version] = OrderedDict()

    def get(self, thread: ThreadKey, gen: str, hash: bytes) -> Version | None:
        """The version, if it is remembered."""
        return self._kept.get((thread, gen, hash))

    def keep(self, thread: ThreadKey, gen: str, version: Version) -> None:
        """Remembers a version."""
        self._kept[thread, gen, version.hash] = version
        self._kept.move_to_end((thread, gen, version.hash))
        if len(self._kept) > _REMEMBERED_MAX:
            self._kept.popitem(last=False)

    def drop(self, thread: ThreadKey, gen: str, hash: bytes) -> None:
        """Forgets a version that was not as it was remembered."""
        self._kept.pop((thread, gen, hash), None)

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()


class Plan:
    """Placements of the values of one call, each resting on those before it."""

    def __init__(self, thread: ThreadKey, gen: str, versions: Versions) -> None:
        self._thread, self._gen, self._versions = thread, gen, versions
        self._made: dict[bytes, Version] = {}
        self._lengths: dict[int, int] = {}
        """Of logs that were appended to, by their ids."""

    def blob(self, blob: NewBlob, bulk: list[bytes], *, alone: bool) -> dict[str, Any]:
        """What the script is to do with `blob`, whose bytes go into `bulk`."""
        if alone or not worth_a_log(blob):
            return self._whole(blob, bulk)
        assert blob.continues is not None
        base = self._made.get(blob.continues)
        base = base or self._versions.get(self._thread, self._gen, blob.continues)
        if base is None:
            return self._whole(blob, bulk)
        if base.log is not None and base.log.id in self._lengths:
            base = replace(base, log=replace(base.log, length=self._lengths[base.log.id]))
        return self._as_said(blob, base, place(blob, base), bulk)

    def _whole(self, blob: NewBlob, bulk: list[bytes]) -> dict[str, Any]:
        tag, data = blob.value.tag, blob.value.data
        head = data[: head_length(tag, data)]
        keep = len(data) - len(head)
        bulk.append(data)
        self._made[blob.hash] = Version(hash=blob.hash, tag=tag, head=head, keep=keep, log=None)
        row = pack_row(tag, head, keep, b"")
        return {"hash": blob.hash, "how": "whole", "row": row, "arg": len(bulk) + 1}

    def _as_said(
        self, blob: NewBlob, base: Version, placement: Placement, bulk: list[bytes]
    ) -> dict[str, Any]:
        tag = blob.value.tag
        match placement:
            case Start(head, tail):
                log, how = Log(id=secrets.randbits(63), depth=0, length=0, appends=0), "start"
                at, meta = base.keep, (b"", 0, 0)
            case Extend(log, head, tail):
                how, at, meta = "extend", log.length, (b"", 0, 0)
            case Branch(parent, keep, head, tail):
                log = Log(id=secrets.randbits(63), depth=parent.depth + 1, length=0, appends=0)
                how, at, meta = "branch", keep, (_log(parent), keep, log.depth)
            case _:
                return self._whole(blob, bulk)
        grown = Log(id=log.id, depth=log.depth, length=at + len(tail), appends=0)
        self._lengths[log.id] = grown.length
        new = Version(hash=blob.hash, tag=tag, head=head, keep=grown.length, log=grown)
        self._made[blob.hash] = new
        bulk.append(tail)
        before = b"" if base.log is None else _log(base.log)
        if how == "start":
            self._made[base.hash] = Version(
                hash=base.hash, tag=base.tag, head=base.head, keep=base.keep, log=grown
            )
        return {
            "hash": blob.hash,
            "how": how,
            "row": pack_row(tag, head, new.keep, _log(log)),
            "arg": len(bulk) + 1,
            "base": base.hash,
            "base_row": pack_row(base.tag, base.head, base.keep, before),
            "base_now": pack_row(base.tag, base.head, base.keep, _log(log)),
            "head": len(base.head),
            "log": _log(log),
            "at": at,
            "meta": pack(meta),
        }

    def keep(self, blobs: Sequence[NewBlob]) -> None:
        """What of it was done is worth remembering: any of them may grow."""
        for blob in blobs:
            made = self._made.get(blob.hash)
            if made is not None:
                self._versions.keep(self._thread, self._gen, made)


def _log(log: Log) -> bytes:
    return log.id.to_bytes(8, "big")
