"""Runs, their causal tokens, and how a saver's call finds the run that it belongs to.

Owner of the state: one `Sessions` for a saver and all its clones. A run is what one process does
from one read: it has the token of that read, and a segment from its first write on. LangGraph
carries the *object* that a read returns as `thread_id` to every call of that run in that
namespace; so that object, a string like any other, bears the run. A call inside a run asks the
run's own context first, since the object in a nested graph's config may be an older one that the
user gave, then the object, then what the saver remembers of the checkpoint. Outside any run it is
the object, then what the saver read last of the thread, if that serves the checkpoint; else the
call reads first.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from checkpoint_router.client.arguments import Names
from checkpoint_router.client.cache import Cache
from checkpoint_router.client.gathering import Gathering
from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob, Session, ThreadClock
from checkpoint_router.core.clock import Ranges, with_index
from checkpoint_router.core.ids import SEGMENT_BYTES, EventId, SegmentId
from checkpoint_router.core.records import (
    Blob,
    ChannelEntry,
    Checkpoint,
    Event,
    Header,
    Typed,
    WriteSet,
)

K = TypeVar("K")
V = TypeVar("V")

RUNTIME: Final = "__pregel_runtime"
"""Key by which LangGraph marks the configs of a run's calls."""

NESTED: Final = "__pregel_task_id"
"""Key that only configs of graphs inside another graph's task have."""

_VALUES_MAX: Final = 1024
"""Channels, by namespace, whose values one run remembers."""

_BROUGHT_MAX: Final = 256
"""Values of write sets that one run remembers. Fewer: a step of many tasks sends some twice."""


class CarriedThreadId(str):
    """A thread id that bears the run that read it. Equal, and hash-equal, to the plain text.

    Another subclass of str decides itself whether it is equal. Copies, pickles and JSON are the
    plain text: a run is never shared by two processes.
    """

    __slots__ = ("run",)
    run: "Run"

    def __eq__(self, other: object) -> bool:
        if type(other) is str or type(other) is CarriedThreadId:
            return str.__eq__(self, other)
        return NotImplemented

    def __ne__(self, other: object) -> bool:
        if type(other) is str or type(other) is CarriedThreadId:
            return str.__ne__(self, other)
        return NotImplemented

    __hash__ = str.__hash__

    def __reduce__(self) -> tuple[Any, ...]:  # copy and deepcopy ask for it too
        return str, (str(self),)


@dataclass(slots=True)
class ThreadMemory:
    """What this process knows of one thread, whatever the run."""

    hlc: int = 0
    """Greatest stamp heard or used."""
    term: int = 0
    given_up: dict[EventId, None] = field(default_factory=dict)
    """Calls whose outcome nobody waits for any more, until a header with them was acknowledged."""
    last: "Run | None" = None
    forgotten_gen: int = 0
    """Generations up to this one were deleted through this saver."""


@dataclass(slots=True, eq=False, repr=False)
class Run:
    """One read and what this process writes from it. Used by many workers and tasks at once."""

    owner: "Sessions"
    thread: str
    memory: ThreadMemory
    token: bytes
    gen: int
    by_id: bool = field(kw_only=True)
    """The read named a checkpoint: the run goes on from there, and from nowhere else."""
    listed: bool = field(default=False, kw_only=True)
    """So did the listing that showed one."""
    pid: int = field(default_factory=lambda: os.getpid())
    gathering: Gathering = field(default_factory=Gathering)
    """Of its write calls."""
    segment: SegmentId | None = None
    _next: int = 1
    _acknowledged: Ranges = ()
    _header_known: bool = False
    _carried: tuple[EventId, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)
    values: dict[tuple[str, str], ChannelEntry] = field(default_factory=dict)
    """What `learn` was told last, by namespace and channel. Looked up without the lock."""
    _brought: dict[bytes, None] = field(default_factory=dict)
    """Names of values that write sets took to the router last."""

    def carrier(self) -> str:
        """The thread id that bears this run."""
        carried = CarriedThreadId(self.thread)
        carried.run = self
        return carried

    def session(self, *, inside: bool) -> Session:
        """What a read says of this run."""
        with self._lock:
            acknowledged = self._acknowledged[: limits.RANGES_MAX]
            segment = self.segment
        return Session(token=self.token, segment=segment, acknowledged=acknowledged, inside=inside)

    def event(self, ns: str, checkpoint_id: str, content: Checkpoint | WriteSet) -> Event:
        """The next event of the run's segment. Every byte of it is fixed here."""
        with self._lock:
            if self.segment is None:
                self.segment = SegmentId(os.urandom(SEGMENT_BYTES))
                with self.owner.lock:
                    self._carried = tuple(self.memory.given_up)
            index, self._next = self._next, self._next + 1
            after = self._acknowledged[: limits.RANGES_MAX]
            header = None
            if not self._header_known:
                header = Header(token=self.token, gives_up=self._carried)
            with self.owner.lock:
                self.memory.hlc += 1
                hlc, term = self.memory.hlc, self.memory.term
        return Event(
            id=EventId(self.segment, index),
            ns=ns,
            checkpoint_id=checkpoint_id,
            gen=self.gen,
            term=term,
            hlc=hlc,
            after=after,
            header=header,
            content=content,
        )

    def acknowledged(self, event: EventId, hlc: int, term: int) -> None:
        """A router stored the event, and said where the thread stands."""
        self.owner.heard(self.memory, hlc, term)
        self.owner.cache.heard(self.thread, self.gen)
        with self._lock:
            self._acknowledged = with_index(self._acknowledged, event.index)
            if not self._header_known:
                self._header_known = True
                with self.owner.lock:
                    for given in self._carried:
                        self.memory.given_up.pop(given, None)

    def give_up(self, event: EventId) -> None:
        """Nobody waits for the event's outcome any more; it may land, or not."""
        with self.owner.lock:
            self.memory.given_up[event] = None
            while len(self.memory.given_up) > limits.GIVEN_UP_MAX:
                del self.memory.given_up[next(iter(self.memory.given_up))]

    def learn(self, ns: str, entries: Iterable[ChannelEntry]) -> None:
        """What each channel held when it was last read or written, so that a value that did not
        change need not be serialised again."""
        with self._lock:
            values = self.values
            for entry in entries:
                if type(entry.content) is Typed or type(entry.content) is Blob:
                    if len(values) >= _VALUES_MAX:
                        del values[next(iter(values))]
                    values[ns, entry.channel] = entry

    def brings(self, names: Iterable[bytes]) -> None:
        """A write set with these values is about to be sent."""
        with self._lock:
            self._brought |= dict.fromkeys(names)
            while len(self._brought) > _BROUGHT_MAX:
                del self._brought[next(iter(self._brought))]

    def not_brought(self, blobs: Sequence[NewBlob]) -> Sequence[NewBlob]:
        """Those that a checkpoint has to bring: what a task wrote is often all of its channel."""
        return [blob for blob in blobs if blob.hash not in self._brought]

    def held(self, ns: str) -> list[tuple[str, bytes]]:
        """Each channel of a namespace whose value is a blob, with that."""
        with self._lock:
            return [
                (channel, entry.content.hash)
                for (of, channel), entry in self.values.items()
                if of == ns and isinstance(entry.content, Blob)
            ]

    def forget_values(self) -> None:
        """After a prune, or when a router lacked one: the values may be gone."""
        with self._lock:
            self.values.clear()
            self._brought.clear()


@dataclass(frozen=True, slots=True)
class _Context:
    """The runs of one graph run, found by every call of it, nested graphs included."""

    runtime: object
    runs: dict[tuple[int, str], Run]


_CONTEXT: ContextVar[_Context | None] = ContextVar("checkpoint_router_run", default=None)


class Sessions:
    """What a saver and its clones remember. All methods are thread-safe and do no IO."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.lock = threading.RLock()
        self._threads: OrderedDict[str, ThreadMemory] = OrderedDict()
        self._by_checkpoint: OrderedDict[tuple[str, str, str], Run] = OrderedDict()
        self._by_control: OrderedDict[tuple[int, str], tuple[object, Run]] = OrderedDict()

    def thread(self, thread: str) -> ThreadMemory:
        """What is known of a thread; made anew if it was forgotten."""
        with self.lock:
            memory = self._threads.get(thread)
            if memory is None:
                return _kept(self._threads, thread, ThreadMemory())
            self._threads.move_to_end(thread)
            return memory

    def heard(self, memory: ThreadMemory, hlc: int, term: int) -> None:
        """A router's answer about the thread."""
        with self.lock:
            if hlc > memory.hlc:
                memory.hlc = hlc
            if term > memory.term:
                memory.term = term

    # Reads ----------------------------------------------------------------------------

    def run_of_read(self, names: Names) -> Run | None:
        """The run inside which a read is, to be answered from its own lineage.

        A graph's first reads are not inside: they ask what the thread is. Those of nested graphs
        are, and those after the run's first write.
        """
        run = self._of_context(names)
        inside = run is not None and (names.configurable.get(NESTED) or run.segment is not None)
        return run if inside else None

    def guard(self, names: Names) -> Run | None:
        """The run whose events a read outside of it must find: the carrier's, else the last."""
        memory = self.thread(names.thread)
        return _alive(self._carried(names) or memory.last, memory)

    def opened(self, names: Names, token: bytes, clock: ThreadClock) -> Run:
        """The run that starts, or goes on, with an answered read."""
        memory = self.thread(names.thread)
        self.heard(memory, clock.hlc, clock.term)
        self.cache.heard(names.thread, clock.gen)
        run = self._of_context(names)
        if run is not None:
            return run
        by_id = names.checkpoint_id is not None
        run = Run(self, names.thread, memory, token, clock.gen, by_id=by_id)
        with self.lock:
            memory.last = run
        runtime = names.configurable.get(RUNTIME)
        if runtime is not None:
            context = _context_of(names)
            if context is None:
                context = _Context(runtime, {})
                _CONTEXT.set(context)
            context.runs[id(self), names.thread] = run
            control = getattr(runtime, "control", None)
            if control is not None:
                with self.lock:
                    _kept(self._by_control, (id(control), names.thread), (control, run))
        return run

    def listed(self, thread: str, token: bytes, clock: ThreadClock) -> Run:
        """The run that a listed tuple bears: that of a read by its id."""
        memory = self.thread(thread)
        self.heard(memory, clock.hlc, clock.term)
        return Run(self, thread, memory, token, clock.gen, by_id=True, listed=True)

    def bind(self, run: Run, ns: str, checkpoint_id: str) -> None:
        """Remembers that the checkpoint was read or written by the run. That it was listed counts
        if it was neither: who looks at a thread's history does not go on from there."""
        name = (run.thread, ns, checkpoint_id)
        with self.lock:
            if not run.listed or name not in self._by_checkpoint:
                _kept(self._by_checkpoint, name, run)

    # Writes ---------------------------------------------------------------------------

    def run_of_write(self, names: Names) -> Run | None:
        """The run that a write belongs to; None: read first."""
        memory = self.thread(names.thread)
        if names.configurable.get(RUNTIME) is not None:
            # The carrier last: a user's config, from which nested graphs take their thread id, may
            # bear the token of an old read.
            run = self._of_context(names) or self._of_control(names) or self._carried(names)
            return run or self._bound(names, memory)
        carried = self._carried(names)
        if carried is not None and carried.gen > memory.forgotten_gen:
            return carried
        bound = self._bound(names, memory)
        last = self.guard(names)
        # What was read after the bound run must be in the write's past, or they would be rivals;
        # and a read by id serves only the checkpoint that it named.
        if bound is not None:
            return bound if bound is last else None
        return last if last is not None and not last.by_id else None

    def merely_remembered(self, names: Names) -> bool:
        """The caller did not give the token that a write went with, and no run has it."""
        return names.configurable.get(RUNTIME) is None and self._carried(names) is None

    # Forgetting -----------------------------------------------------------------------

    def forget(self, thread: str, *, deleted_gen: int = 0) -> None:
        """After a delete or a prune through this saver, or when a token turned out useless."""
        self.cache.forget(thread)
        with self.lock:
            memory = self.thread(thread)
            memory.forgotten_gen = max(memory.forgotten_gen, deleted_gen)
            if memory.last is not None:
                memory.last.forget_values()
            memory.last = None
            for key in [k for k in self._by_checkpoint if k[0] == thread]:
                self._by_checkpoint.pop(key).forget_values()

    # Where a run is found -------------------------------------------------------------

    def _carried(self, names: Names) -> Run | None:
        carried = names.configurable.get("thread_id")
        if type(carried) is not CarriedThreadId:
            return None
        run = getattr(carried, "run", None)  # one that somebody made by hand bears none
        return _ours(run) if isinstance(run, Run) and run.owner is self else None

    def _bound(self, names: Names, memory: ThreadMemory) -> Run | None:
        with self.lock:
            bound = self._by_checkpoint.get((names.thread, names.ns, names.checkpoint_id or ""))
        return _alive(bound, memory)

    def _of_context(self, names: Names) -> Run | None:
        context = _context_of(names)
        return None if context is None else _ours(context.runs.get((id(self), names.thread)))

    def _of_control(self, names: Names) -> Run | None:
        """For writes that come without the run's context: a sync graph stores what a parallel
        task wrote from a callback of that task's worker, which no context was copied to. The
        runtime of such a call, nested or not, has the run's own control object."""
        control = getattr(names.configurable.get(RUNTIME), "control", None)
        if control is None:
            return None
        with self.lock:
            known, run = self._by_control.get((id(control), names.thread), (None, None))
        # The object is kept, so that its id names no other one.
        return _ours(run) if known is control else None


def _context_of(names: Names) -> _Context | None:
    """The context of the run that a call is of. A root graph's calls share one runtime object;
    nested ones get copies of it, but run in contexts that were copied from the root's."""
    runtime, context = names.configurable.get(RUNTIME), _CONTEXT.get()
    if runtime is None or context is None:
        return None
    same = context.runtime is runtime or names.configurable.get(NESTED)
    return context if same else None


def _ours(run: Run | None) -> Run | None:
    """Unless it was inherited by a fork."""
    return run if run is not None and run.pid == os.getpid() else None


def _alive(run: Run | None, memory: ThreadMemory) -> Run | None:
    """Unless its generation was deleted through this saver, or it was inherited by a fork."""
    return _ours(run) if run is not None and run.gen > memory.forgotten_gen else None


def _kept(table: OrderedDict[K, V], key: K, value: V) -> V:
    """Puts `value` last in a table that forgets its first."""
    table[key] = value
    table.move_to_end(key)
    while len(table) > limits.SESSIONS_MAX:
        table.popitem(last=False)
    return value
