"""Values that this process has: not fetched again, and of what they grew into only the rest sent.

Owner of the state: one `Cache` for a saver, all its clones and both its halves. Every method is
thread-safe and does no IO.

Rules: a value is here under its thread and its name, and its name is made from its bytes before
anything rests on it, so what is here can be absent, never wrong. Which values are shown is the
router's word alone; a value serves only where the router names it. What was deleted or pruned
through this saver is dropped at once; all else when room is needed, least recently used first.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable

import msgspec
import xxhash

from checkpoint_router.core import growing
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.core.growing import Named
from checkpoint_router.core.records import Typed

_ENTRY_BYTES = 1024
"""What an entry counts for beside its value: its key, its hasher, its places in the tables."""


class _Entry(msgspec.Struct, gc=False):
    """A value, and once it was asked for what shows that it is still the same."""

    value: Typed
    named: Named | None = None
    check: int = 0

    def checked(self, hash: bytes) -> Named | None:
        """The value, unless it is not (or no longer) the one of that name."""
        if self.named is None:
            made = growing.named(self.value)
            if made.hash != hash:
                return None
            self.named = made
            self.check = xxhash.xxh3_64_intdigest(made.value.data)
            return made
        return self.named if xxhash.xxh3_64_intdigest(self.value.data) == self.check else None


class Cache:
    """At most `size_bytes` of values; 0 keeps none."""

    def __init__(self, size_bytes: int) -> None:
        if type(size_bytes) is not int or size_bytes < 0:
            raise InvalidArgument(
                f"cache_bytes is {size_bytes!r:.100}. Give 0 or more bytes; 0 keeps no values.",
                field="cache_bytes",
            )
        self._size_bytes = size_bytes
        self._held_bytes = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, bytes], _Entry] = OrderedDict()
        self._threads: dict[str, set[bytes]] = {}
        self._gens: dict[str, int] = {}
        """Of threads with values here: the generation that a router named last."""

    @property
    def held_bytes(self) -> int:
        """What is in it now."""
        return self._held_bytes

    def get(self, thread: str, hash: bytes | None) -> Named | None:
        """A value of a thread by its name."""
        if hash is None:
            return None
        key = thread, hash
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
        found = entry.checked(hash)
        if found is None:
            with self._lock:
                self._drop(thread, hash)
        return found

    def some(self, thread: str, limit: int) -> dict[bytes, Typed]:
        """Values of a thread by their names, at most `limit`."""
        with self._lock:
            hashes = sorted(self._threads.get(thread, ()))[:limit]
        return {h: found.value for h in hashes if (found := self.get(thread, h)) is not None}

    def add(self, thread: str, values: Iterable[tuple[bytes, Typed]]) -> None:
        """Takes values that were read, under the names that the router gave them."""
        if self._size_bytes:
            with self._lock:
                for hash, value in values:
                    if (thread, hash) not in self._entries:
                        self._insert(thread, hash, _Entry(value))

    def learn(self, thread: str, named: Named, replaces: bytes | None = None) -> None:
        """Takes a value that was named here; the older one that it continues makes room."""
        if not self._size_bytes:
            return
        entry = _Entry(named.value, named, xxhash.xxh3_64_intdigest(named.value.data))
        with self._lock:
            if replaces is not None:
                self._drop(thread, replaces)
            if (thread, named.hash) in self._entries:
                self._drop(thread, named.hash)
            self._insert(thread, named.hash, entry)

    def new_blob(self, thread: str, value: Typed, continues: bytes | None) -> tuple[NewBlob, Named]:
        """Names a value that is about to be stored, as a continuation of an older one that is
        here, if it is one. It is kept once it is learned, for which there is time when it is on
        its way."""
        older = self._entries.get((thread, continues or b""))
        if older is None:
            return growing.new_blob(value, None, continues)
        if not growing.begin_alike(older.value, value):  # nothing rests on it, so it is not checked
            return growing.new_blob(value, None, None)
        return growing.new_blob(value, self.get(thread, continues), continues)

    def forget(self, thread: str) -> None:
        """Drops all of a thread: it was deleted or pruned."""
        with self._lock:
            for hash in tuple(self._threads.get(thread, ())):
                self._drop(thread, hash)

    def heard(self, thread: str, gen: int) -> None:
        """A router said which generation lives: values of another one are dropped."""
        if self._gens.get(thread) == gen:
            return
        with self._lock:
            if thread in self._threads and self._gens.setdefault(thread, gen) != gen:
                for hash in tuple(self._threads[thread]):
                    self._drop(thread, hash)

    def clear(self) -> None:
        """Drops all."""
        with self._lock:
            self._entries.clear()
            self._threads.clear()
            self._gens.clear()
            self._held_bytes = 0

    def _insert(self, thread: str, hash: bytes, entry: _Entry) -> None:
        size = len(entry.value.data) + _ENTRY_BYTES
        if size > self._size_bytes:
            return
        self._entries[thread, hash] = entry
        of_thread = self._threads.get(thread)
        if of_thread is None:
            of_thread = self._threads[thread] = set()
        of_thread.add(hash)
        self._held_bytes += size
        while self._held_bytes > self._size_bytes:
            self._drop(*next(iter(self._entries)))

    def _drop(self, thread: str, hash: bytes) -> None:
        entry = self._entries.pop((thread, hash), None)
        if entry is None:
            return
        self._held_bytes -= len(entry.value.data) + _ENTRY_BYTES
        of_thread = self._threads[thread]
        of_thread.discard(hash)
        if not of_thread:
            del self._threads[thread]
            self._gens.pop(thread, None)
