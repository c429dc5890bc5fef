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
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from checkpoint_router.core import limits
from checkpoint_router.core.answers import Session, ThreadClock
from checkpoint_router.core.clock import Ranges, with_index
from checkpoint_router.core.ids import SEGMENT_BYTES, EventId, SegmentId
from checkpoint_router.core.records import (
    Blob,
    Checkpoint,
    Content,
    Event,
    Header,
    Version,
    WriteSet,
)

RUNTIME: Final = "__pregel_runtime"
"""Key by which LangGraph marks the configs of a run's calls."""

NESTED: Final = "__pregel_task_id"
"""Key that only configs of graphs inside another graph's task have."""

_VALUES_MAX: Final = 1024
"""Channels, by namespace, whose values one run remembers."""


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

    def __copy__(self) -> str:
        return str(self)

    def __deepcopy__(self, memo: object) -> str:
        return str(self)

    def __reduce__(self) -> tuple[Any, ...]:
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


class Run:
    """One read and what this process writes from it. Used by many workers and tasks at once."""

    __slots__ = (
        "_acknowledged", "_carried", "_header_known", "_lock", "_next", "_values",
        "by_id", "gen", "memory", "owner", "pid", "segment", "thread", "token",
    )  # fmt: skip

    def __init__(
        self,
        owner: "Sessions",
        thread: str,
        memory: ThreadMemory,
        token: bytes,
        gen: int,
        *,
        by_id: bool,
    ) -> None:
        self.owner = owner
        self.thread = thread
        self.memory = memory
        self.token = token
        self.gen = gen
        self.by_id = by_id
        """The read named a checkpoint: the run goes on from there, and from nowhere else."""
        self.pid = os.getpid()
        self.segment: SegmentId | None = None
        self._next = 1
        self._acknowledged: Ranges = ()
        self._header_known = False
        self._carried: tuple[EventId, ...] = ()
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str], tuple[Version, Content]] = {}

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

    def event(
        self, ns: str, checkpoint_id: str, task_id: str, content: Checkpoint | WriteSet
    ) -> Event:
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
            task_id=task_id,
            gen=self.gen,
            term=term,
            hlc=hlc,
            after=after,
            header=header,
            content=content,
        )

    def acknowledged(self, event: EventId, clock: ThreadClock) -> None:
        """A router stored the event."""
        self.owner.heard(self.memory, clock)
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

    def remember(self, ns: str, channel: str, version: Version, content: Content) -> None:
        """What the channel held when it was last read or written, so that a value that did not
        change need not be serialised again."""
        with self._lock:
            if len(self._values) >= _VALUES_MAX:
                del self._values[next(iter(self._values))]
            self._values[ns, channel] = version, content

    def remembered(self, ns: str, channel: str, version: Version) -> Content | None:
        """What `remember` was told last, if it was of that version."""
        known, content = self._values.get((ns, channel), (None, None))
        return content if known == version else None

    def previous(self, ns: str, channel: str) -> bytes | None:
        """The blob that the channel held last: a new value may continue it."""
        _, content = self._values.get((ns, channel), (None, None))
        return content.hash if isinstance(content, Blob) else None

    def forget_values(self) -> None:
        """After a prune, or when a router lacked one: the values may be gone."""
        with self._lock:
            self._values.clear()


@dataclass(frozen=True, slots=True)
class _Context:
    """The runs of one graph run, found by every call of it, nested graphs included."""

    runtime: object
    runs: dict[tuple[int, str], Run]


_CONTEXT: ContextVar[_Context | None] = ContextVar("checkpoint_router_run", default=None)


class Sessions:
    """What a saver and its clones remember. All methods are thread-safe and do no IO."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._threads: OrderedDict[str, ThreadMemory] = OrderedDict()
        self._by_checkpoint: OrderedDict[tuple[str, str, str], Run] = OrderedDict()
        self._by_control: OrderedDict[tuple[int, str], tuple[object, Run]] = OrderedDict()

    def thread(self, thread: str) -> ThreadMemory:
        """What is known of a thread; made anew if it was forgotten."""
        with self.lock:
            memory = self._threads.get(thread)
            if memory is None:
                memory = self._threads[thread] = ThreadMemory()
                while len(self._threads) > limits.SESSIONS_MAX:
                    self._threads.popitem(last=False)
            else:
                self._threads.move_to_end(thread)
            return memory

    def heard(self, memory: ThreadMemory, clock: ThreadClock) -> None:
        """A router's answer about the thread."""
        with self.lock:
            memory.hlc = max(memory.hlc, clock.hlc)
            memory.term = max(memory.term, clock.term)

    # Reads ----------------------------------------------------------------------------

    def run_of_read(self, thread: str, configurable: Mapping[str, Any]) -> Run | None:
        """The run inside which a read is, to be answered from its own lineage.

        A graph's first reads are not inside: they ask what the thread is. Those of nested graphs
        are, and those after the run's first write.
        """
        run = self._of_context(thread, configurable)
        if run is not None and (configurable.get(NESTED) or run.segment is not None):
            return run
        return None

    def guard(self, thread: str, configurable: Mapping[str, Any]) -> Run | None:
        """The run whose events a read outside of it must find: the carrier's, else the last."""
        carried = self._carried(configurable)
        memory = self.thread(thread)
        run = carried if carried is not None else memory.last
        if run is None or run.pid != os.getpid() or run.gen <= memory.forgotten_gen:
            return None
        return run

    def opened(
        self, thread: str, configurable: Mapping[str, Any], token: bytes, clock: ThreadClock
    ) -> Run:
        """The run that starts, or goes on, with an answered read."""
        memory = self.thread(thread)
        self.heard(memory, clock)
        run = self._of_context(thread, configurable)
        if run is not None:
            return run
        by_id = bool(configurable.get("checkpoint_id"))
        run = Run(self, thread, memory, token, clock.gen, by_id=by_id)
        with self.lock:
            memory.last = run
        runtime = configurable.get(RUNTIME)
        if runtime is not None:
            context = _CONTEXT.get()
            if context is None or not self._same(context, runtime, configurable):
                context = _Context(runtime, {})
                _CONTEXT.set(context)
            context.runs[id(self), thread] = run
            self._remember_control(runtime, thread, run)
        return run

    def listed(self, thread: str, token: bytes, clock: ThreadClock) -> Run:
        """The run that a listed tuple bears: that of a read by its id."""
        memory = self.thread(thread)
        self.heard(memory, clock)
        return Run(self, thread, memory, token, clock.gen, by_id=True)

    def bind(self, run: Run, ns: str, checkpoint_id: str) -> None:
        """Remembers that the checkpoint was read or written by the run."""
        with self.lock:
            self._by_checkpoint[run.thread, ns, checkpoint_id] = run
            self._by_checkpoint.move_to_end((run.thread, ns, checkpoint_id))
            while len(self._by_checkpoint) > limits.SESSIONS_MAX:
                self._by_checkpoint.popitem(last=False)

    # Writes ---------------------------------------------------------------------------

    def run_of_write(
        self, thread: str, ns: str, checkpoint_id: str | None, configurable: Mapping[str, Any]
    ) -> Run | None:
        """The run that a write belongs to; None: read first."""
        carried = self._carried(configurable)
        memory = self.thread(thread)
        if configurable.get(RUNTIME) is not None:
            # The carrier last: a user's config, from which nested graphs take their thread id, may
            # bear the token of an old read.
            run = self._of_context(thread, configurable) or self._of_control(thread, configurable)
            return run or carried or self._bound(thread, ns, checkpoint_id, memory)
        if carried is not None and carried.gen > memory.forgotten_gen:
            return carried
        bound = self._bound(thread, ns, checkpoint_id, memory)
        last = self.guard(thread, configurable)
        # What was read after the bound run must be in the write's past, or they would be rivals;
        # and a read by id serves only the checkpoint that it named.
        if bound is not None:
            return bound if bound is last else None
        return last if last is not None and not last.by_id else None

    def _bound(
        self, thread: str, ns: str, checkpoint_id: str | None, memory: ThreadMemory
    ) -> Run | None:
        """The last run that read or wrote the checkpoint here."""
        if not checkpoint_id:
            return None
        with self.lock:
            run = self._by_checkpoint.get((thread, ns, checkpoint_id))
        alive = run is not None and run.pid == os.getpid() and run.gen > memory.forgotten_gen
        return run if alive else None

    def merely_remembered(self, configurable: Mapping[str, Any]) -> bool:
        """The caller did not give the token that a write went with, and no run has it."""
        return configurable.get(RUNTIME) is None and self._carried(configurable) is None

    # Forgetting -----------------------------------------------------------------------

    def forget(self, thread: str, *, deleted_gen: int = 0) -> None:
        """After a delete or a prune through this saver, or when a token turned out useless."""
        with self.lock:
            memory = self.thread(thread)
            memory.forgotten_gen = max(memory.forgotten_gen, deleted_gen)
            if memory.last is not None:
                memory.last.forget_values()
            memory.last = None
            for key in [k for k in self._by_checkpoint if k[0] == thread]:
                self._by_checkpoint.pop(key).forget_values()

    # Where a run is found -------------------------------------------------------------

    def _carried(self, configurable: Mapping[str, Any]) -> Run | None:
        carried = configurable.get("thread_id")
        if type(carried) is not CarriedThreadId:
            return None
        run = getattr(carried, "run", None)  # one that somebody made by hand bears none
        if not isinstance(run, Run):
            return None
        return run if run.owner is self and run.pid == os.getpid() else None

    def _of_context(self, thread: str, configurable: Mapping[str, Any]) -> Run | None:
        runtime = configurable.get(RUNTIME)
        context = _CONTEXT.get()
        if runtime is None or context is None or not self._same(context, runtime, configurable):
            return None
        run = context.runs.get((id(self), thread))
        return run if run is not None and run.pid == os.getpid() else None

    def _remember_control(self, runtime: object, thread: str, run: Run) -> None:
        control = getattr(runtime, "control", None)
        if control is not None:
            key = id(control), thread
            with self.lock:
                self._by_control[key] = control, run
                self._by_control.move_to_end(key)
                while len(self._by_control) > limits.SESSIONS_MAX:
                    self._by_control.popitem(last=False)

    def _of_control(self, thread: str, configurable: Mapping[str, Any]) -> Run | None:
        """For writes that come without the run's context: a sync graph stores what a parallel
        task wrote from a callback of that task's worker, which no context was copied to. The
        runtime of such a call, nested or not, has the run's own control object."""
        control = getattr(configurable.get(RUNTIME), "control", None)
        if control is None:
            return None
        with self.lock:
            known, run = self._by_control.get((id(control), thread), (None, None))
        # The object is kept, so that its id names no other one.
        return run if known is control and run is not None and run.pid == os.getpid() else None

    @staticmethod
    def _same(context: _Context, runtime: object, configurable: Mapping[str, Any]) -> bool:
        # A root graph's calls share one runtime object; nested ones get copies of it, but run in
        # contexts that were copied from the root's.
        return context.runtime is runtime or bool(configurable.get(NESTED))
