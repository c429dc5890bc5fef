"""An agent process, as far as causality goes: what it remembers, and how it makes events.

Owner of the state: the process (killed, it forgets all). Rules: it fixes every byte of an event
before the first try; stamps are 1 + the greatest it heard or used; `after` names the own indices
that were acknowledged; the header goes with every event until one was acknowledged; calls that a
run left behind when it ended are given up until a header that says so was acknowledged.
Planted faults replace single methods here, so each rule has a method of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from checkpoint_router.core.clock import Ranges, ranges_of
from checkpoint_router.core.digests import event_digest
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.records import (
    RESUME,
    Checkpoint,
    Event,
    Header,
    MetadataEntry,
    TaskWrites,
    Typed,
    WriteRow,
    WriteSet,
    pack_event,
)

from .oracle import CHECKPOINT, WRITES, Fact, Name, Story


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One put or put_writes under way; its bytes never change."""

    run: Run
    event: Event
    digest: bytes
    fact: Fact


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One run of a graph: one token, one segment."""

    process: Process
    gen: int
    token: bytes
    story: Story
    line: tuple[Name, ...]
    """What the read put in the run's memory, event by event."""
    heads: dict[str, str]
    """Namespace to the checkpoint that the run goes on from."""
    segment: SegmentId | None = None
    header: Header | None = None
    carried: tuple[EventId, ...] = ()
    index: int = 0
    acked: set[int] = field(default_factory=set)
    open: list[Call] = field(default_factory=list)
    planned: dict[str, str] = field(default_factory=dict)
    """Ids of checkpoints whose writes went out first."""
    parents: dict[tuple[str, str], str] = field(default_factory=dict)

    def after(self) -> Ranges:
        """Own indices acknowledged before the next event is sent."""
        return ranges_of(self.acked)

    def header_to_send(self) -> Header | None:
        """With every event until one of the segment was acknowledged."""
        return None if self.acked else self.header

    def begin(self) -> None:
        """At the first write: the header is fixed, with what the process gave up by then."""
        self.carried = self.process.giving_up()
        self.header = Header(token=self.token, gives_up=self.carried)
        self.segment = self.process.mint(self.token)
        # What ended runs left behind, whether or not the header says so.
        given = frozenset((e.segment, e.index) for e in self.process.given_up)
        self.story = self.story._replace(gives_up=given)

    def checkpoint(self, ns: str, cid: str, parent: str | None, said: str) -> Call:
        """A put."""
        content = Checkpoint(
            parent_id=parent,
            body=Typed("msgpack", said.encode()),
            manifest=(),
            metadata=(MetadataEntry("source", '"loop"'),),
        )
        return self._call(ns, cid, content, said, ())

    def writes(self, ns: str, cid: str, tasks: Sequence[tuple[str, str]], said: str) -> Call:
        """A put_writes, or several at once: (task, the answer to its interrupt or nothing)."""
        content = WriteSet(tasks=tuple(_task(task, answer, said) for task, answer in tasks))
        return self._call(ns, cid, content, said, tuple(tasks))

    def _call(
        self,
        ns: str,
        cid: str,
        content: Checkpoint | WriteSet,
        said: str,
        tasks: tuple[tuple[str, str], ...],
    ) -> Call:
        if self.segment is None:
            self.begin()
        assert self.segment is not None
        self.index += 1
        event = Event(
            id=EventId(self.segment, self.index),
            ns=ns,
            checkpoint_id=cid,
            gen=self.gen,
            term=self.process.term,
            hlc=self.process.stamp(),
            after=self.after(),
            header=self.header_to_send(),
            content=content,
        )
        kind, parent, state = WRITES, "", ""
        if isinstance(content, Checkpoint):
            kind, parent = CHECKPOINT, content.parent_id or ""
            state = f"{said} after {parent}"
        fact = Fact(
            name=(self.segment, self.index),
            kind=kind,
            ns=ns,
            cid=cid,
            tasks=tasks,
            parent=parent,
            term=event.term,
            hlc=event.hlc,
            after=frozenset((self.segment, i) for i in self.acked),
            content=state,
        )
        call = Call(run=self, event=event, digest=event_digest(pack_event(event)), fact=fact)
        self.open.append(call)
        return call


@dataclass(slots=True, kw_only=True, eq=False)
class Process:
    """One agent process with up to two runs of the thread at a time."""

    number: int
    hlc: int = 0
    """The greatest stamp that it heard or used."""
    term: int = 0
    minted: int = 0
    runs: list[Run | None] = field(default_factory=lambda: [None, None])
    given_up: dict[EventId, int] = field(default_factory=dict)
    """Calls that ended runs left behind, and their generation."""
    last: Run | None = None
    """Whose events the next plain read must find: reads of a session never go back."""

    def hear(self, hlc: int, term: int) -> None:
        self.hlc = max(self.hlc, hlc)
        self.term = max(self.term, term)

    def stamp(self) -> int:
        self.hlc += 1
        return self.hlc

    def mint(self, token: bytes) -> SegmentId:
        """A segment id; 128 random bits in the product, a counter's hash here."""
        self.minted += 1
        name = f"{self.number}:{self.minted}".encode()
        return SegmentId(blake2b(name, digest_size=16).digest())

    def giving_up(self) -> tuple[EventId, ...]:
        return tuple(sorted(self.given_up))

    def end(self, slot: int) -> None:
        """The run is over; what it had under way is given up."""
        run = self.runs[slot]
        self.runs[slot] = None
        if run is not None:
            self.given_up |= {c.event.id: run.gen for c in run.open}
            run.open.clear()

    def acknowledged(self, call: Call) -> None:
        run = call.run
        if call not in run.open:
            return  # the run is over: nobody hears the answer
        run.open.remove(call)
        run.acked.add(call.event.id.index)
        if call.event.header is not None:
            for event in call.event.header.gives_up:
                self.given_up.pop(event, None)
        self.last = run

    def forget(self, gen: int) -> None:
        """A generation ended; its calls need not be given up any more."""
        self.given_up = {e: g for e, g in self.given_up.items() if g > gen}


def _task(task: str, answer: str, said: str) -> TaskWrites:
    row = WriteRow(0, "messages", Typed("msgpack", said.encode()))
    if answer:
        row = WriteRow(-4, RESUME, Typed("msgpack", answer.encode()))
    return TaskWrites(task_id=task, task_path="", rows=(row,))
