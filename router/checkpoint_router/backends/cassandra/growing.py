"""Where a growing value goes: append logs in the thread's own partition, without any condition.

A log has its name from the router that began it, and grows by that router alone: its rows stand
at (log, offset), and no two writings ever have the same offset, for an offset is claimed before
anything is sent. A value that continues one of another router's, or from the middle of a log,
begins a log of its own where the older one ends. So each version names all of its bytes, as a
path of (log, end) pairs, and nothing that others write later can change them.

Owner: one `Remembered` for each place, on the loop. It knows only what was acknowledged or read
whole by a quorum, and goes with the place's other knowledge when anything is pruned: an append to a
log that was removed is found out by the look at the fence, like a put that names a pruned value.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.digests import head_length
from checkpoint_router.storage.logs import Branch, Extend, Log, Start, Version, place

PIECES_MAX: Final = 256
"""Appends to a log, after which the next value begins another with a copy of all. Larger: a read
asks for more rows. Smaller: more copies."""

PATH_MAX: Final = 16
"""Logs that a value may stand in, one for each change of router; then it is copied too."""

BASES_MAX: Final = 256
"""Values of a thread that are remembered. One that is not costs a read of it when it grows."""

_KEY_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a value that stand in one log: all up to `end`, from where the span before ends."""

    log: int
    end: int
    """Counted from the start of the value's body, through all spans."""

    @property
    def key(self) -> bytes:
        """Of the log's rows."""
        return self.log.to_bytes(_KEY_BYTES, "big")


Path = tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A stored value that another may continue."""

    tag: str
    head: bytes
    keep: int
    """Bytes of its body."""
    path: Path = ()
    """Empty: it stands whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """How a value that continues another is stored."""

    head: bytes
    path: Path
    start: int
    """Where what is new of its body begins."""
    tail: bytes


def pack_path(path: Path) -> bytes:
    """The path as its row has it."""
    return b"".join(s.key + s.end.to_bytes(_KEY_BYTES, "big") for s in path)


def unpack_path(packed: bytes) -> Path:
    """What `pack_path` took."""
    numbers = [
        int.from_bytes(packed[at : at + _KEY_BYTES], "big")
        for at in range(0, len(packed), _KEY_BYTES)
    ]
    return tuple(Span(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True))


class Remembered:
    """What is known of the growing values of a thread."""

    def __init__(self) -> None:
        self._bases: dict[bytes, Base] = {}
        self._logs: dict[int, Log] = {}
        """Logs that this process may append to, with what is claimed of them."""

    def __len__(self) -> int:
        return len(self._bases)

    def __contains__(self, hash: object) -> bool:
        return hash in self._bases

    def get(self, hash: bytes | None) -> Base | None:
        """The value, if it is remembered."""
        return None if hash is None else self._bases.get(hash)

    def keep(self, values: Mapping[bytes, Base]) -> None:
        """Remembers values that are stable."""
        self._bases.update(values)
        for hash in list(islice(self._bases, max(0, len(self._bases) - BASES_MAX))):
            del self._bases[hash]

    def log(self, base: Base) -> Log | None:
        """The log that `base` ends, as `storage.logs` wants it; None: what continues `base` is to
        begin anew."""
        if not base.path or len(base.path) >= PATH_MAX:
            return None
        last = base.path[-1].log
        # Nobody appends to a log of others, or to one of his own that he has forgotten.
        log = self._logs.get(last, Log(id=last, depth=0, length=-1, appends=0))
        return None if log.appends >= PIECES_MAX else log

    def claim(self, log: int, end: int) -> None:
        """Nothing else is ever written to that log below `end`, whatever becomes of this."""
        before = self._logs.pop(log, None)
        appends = 1 if before is None else before.appends + 1
        self._logs[log] = Log(id=log, depth=0, length=end, appends=appends)
        if len(self._logs) > BASES_MAX:
            del self._logs[next(iter(self._logs))]


class Plan:
    """Placements for one batch or call, each of which may rest on those before it."""

    def __init__(self, known: Remembered, numbers: Iterator[int]) -> None:
        self._known = known
        self._numbers = numbers
        self._made: dict[bytes, Base] = {}

    def place(self, blob: NewBlob) -> Placed | None:
        """How to store it; None: whole. What it answers with is claimed."""
        tag, data = blob.value.tag, blob.value.data
        base = self._made.get(blob.continues or b"") or self._known.get(blob.continues)
        grown = self._grown(blob, base) if base is not None else None
        if grown is None:
            head = data[: head_length(tag, data)]
            self._made[blob.hash] = Base(tag=tag, head=head, keep=len(data) - len(head))
            return None
        end = grown.path[-1]
        self._known.claim(end.log, end.end)
        self._made[blob.hash] = Base(tag=tag, head=grown.head, keep=end.end, path=grown.path)
        return grown

    def _grown(self, blob: NewBlob, base: Base) -> Placed | None:
        assert blob.continues is not None
        older = Version(
            hash=blob.continues,
            tag=base.tag,
            head=base.head,
            keep=base.keep,
            log=self._known.log(base),
        )
        before: Path
        match place(blob, older):
            case Start(head, _):
                before, log, start = (), next(self._numbers), 0
            case Extend(own, head, _):
                before, log, start = base.path[:-1], own.id, base.keep
            case Branch(_, _, head, _):
                before, log, start = base.path, next(self._numbers), base.keep
            case _:
                return None
        tail = blob.value.data[len(head) + start :]
        if not tail:
            return None
        path = (*before, Span(log, start + len(tail)))
        return Placed(head=head, path=path, start=start, tail=tail)

    def keep(self) -> None:
        """It was stored."""
        self._known.keep(self._made)
