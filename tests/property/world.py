"""Random histories on the real core: processes, routers' replicas, and everything that goes wrong.

Owner of the truth: the world, which records for each event what its client meant (`Fact`) and for
each segment what its run really saw (`Story`); replicas hold only what the core made of it. An
action is (name, a, b, c) whose numbers pick modulo what is possible, so any sublist of a history
is a history, and shrinks. Time is a counter; routers' clocks are off by up to five seconds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import structs

from checkpoint_router.core import view
from checkpoint_router.core.accept import Accepted, Known, Refused, Wait, accept, missing_for_read
from checkpoint_router.core.clock import hlc_at, ranges_of
from checkpoint_router.core.conflicts import losing
from checkpoint_router.core.digests import event_digest, thread_hash
from checkpoint_router.core.errors import RouterError, ThreadDeleted, TokenInvalid
from checkpoint_router.core.history import History, Lineage, bits
from checkpoint_router.core.ids import EventId, ThreadKey
from checkpoint_router.core.records import (
    Event,
    entry_of,
    pack_entry,
    pack_event,
    unpack_entry,
    unpack_event,
)
from checkpoint_router.core.token import Base, ReadToken, seal, unseal

from . import oracle
from .client import Call, Process, Run
from .oracle import Fact, Name, Story

Action = tuple[str, int, int, int]

THREAD = ThreadKey("acme", "thread")
KEY = bytes(range(32))
NAMESPACES = ("", "", "", "sub:1", "sub:1|in:2")
TASKS = ("t1", "t2", "t3")
OFFSETS_MS = (0, 5000, -5000, 1200, -800)
NOW_MS = 1_700_000_000_000


class Broken(AssertionError):
    """An invariant does not hold. `check` names it."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


@dataclass(slots=True, eq=False)
class Replica:
    """What one router holds of the thread, and what waits there for something else."""

    number: int
    history: History
    offset_ms: int
    term: int = 0
    stored: dict[Name, Event] = field(default_factory=dict)
    """Events of the live generation, in the order in which they were taken in."""
    held: list[Event] = field(default_factory=list)
    erased: set[Name] = field(default_factory=set)
    """Pruned here; a name may come before its event."""
    dirty: bool = True
    records: set[tuple[int, bytes]] = field(default_factory=set)
    """(generation, id) of every conflict record ever shown here."""

    def erased_known(self) -> frozenset[Name]:
        return frozenset(self.erased & set(self.stored))


def names(positions: Iterator[int], history: History) -> list[Name]:
    """Event names at `positions`, in lineage order."""
    ordered = sorted(positions, key=history.order)
    return [(history.entries[p].id.segment, history.entries[p].id.index) for p in ordered]


def line_of(history: History, lineage: Lineage) -> tuple[Name, ...]:
    return tuple(names(bits(lineage.mask), history))


def name_of(event: EventId) -> Name:
    return event.segment, event.index


def cut_of(base: Base) -> Name | None:
    """The event at which a read by id is cut; such a read cuts one namespace at the most."""
    assert len(base.cuts) <= 1
    return next((name_of(c.last) for c in base.cuts if c.last is not None), None)


class World:
    """One thread, `processes` agents, `replicas` routers that know different parts of it."""

    def __init__(self, *, processes: int = 3, replicas: int = 2, key: bytes = KEY) -> None:
        self.now = NOW_MS
        self.key = key
        self.processes = [Process(number=n) for n in range(processes)]
        self.minted = processes
        self.replicas = [
            Replica(n, History(THREAD, 1), OFFSETS_MS[n % len(OFFSETS_MS)]) for n in range(replicas)
        ]
        self.facts: dict[Name, Fact] = {}
        self.stories: dict[bytes, Story] = {}
        self.gens: dict[Name, int] = {}
        self.network: list[Call] = []
        """Requests on their way; a call may be there several times."""
        self.deletes: list[tuple[int, int]] = []
        """(generation, replica) that has still to hear of a delete."""
        self.repeats: list[int] = []
        """Deletes whose answer was lost: the generations that they name."""
        self.prunes: list[tuple[int, int, frozenset[Name]]] = []
        self.made = 0
        self.peeked: tuple[Run, Replica] | None = None
        """Who reads inside its run in this step, and where."""
        self.counts: Counter[str] = Counter()
        self.known_cache: dict[object, oracle.Known] = {}
        self.answers_by_set: dict[object, object] = {}

    # What the oracle may know ------------------------------------------------------------------

    def known(self, replica: Replica) -> oracle.Known:
        """The oracle over exactly the events of a replica."""
        key = (frozenset(replica.stored), replica.erased_known())
        if key not in self.known_cache:
            self.known_cache[key] = oracle.Known(
                {n: self.facts[n] for n in replica.stored}, self.stories, key[1]
            )
        return self.known_cache[key]

    # One step ----------------------------------------------------------------------------------

    def step(self, action: Action) -> str:
        name, a, b, c = action
        self.peeked = None
        self.now += 1000
        done: str = getattr(self, f"_{name}")(a, b, c)
        self.counts[name if done else f"{name} (nothing)"] += 1
        return done

    def _pass(self, a: int, b: int, c: int) -> str:
        return ""

    def _at(self, b: int) -> Replica:
        return self.replicas[b % len(self.replicas)]

    def _slot(self, a: int) -> tuple[Process, int]:
        process = self.processes[a % len(self.processes)]
        return process, 1 if a // 16 % 6 == 5 else 0

    # Reads -------------------------------------------------------------------------------------

    def _read(self, a: int, b: int, c: int) -> str:
        """A run begins with a plain read; what the earlier run of the slot left is given up."""
        process, slot = self._slot(a)
        replica = self._at(b)
        if not self._session_known(process, replica):
            return ""
        process.end(slot)
        lineage = replica.history.lineage(replica.history.winner())
        shown = view.newest(replica.history, "", lineage)
        self._begin(process, slot, replica, shown)
        return f"process {process.number} reads at {replica.number}"

    def _read_by_id(self, a: int, b: int, c: int) -> str:
        process, slot = self._slot(a)
        replica = self._at(b)
        checkpoints = [
            f
            for n in replica.stored
            if n not in replica.erased and (f := self.facts[n]).kind == oracle.CHECKPOINT
        ]
        if not checkpoints or not self._session_known(process, replica):
            return ""
        process.end(slot)
        fact = checkpoints[c % len(checkpoints)]
        shown = view.by_id(replica.history, fact.ns, fact.cid)
        self._begin(process, slot, replica, shown)
        return f"process {process.number} reads {fact.ns}/{fact.cid} at {replica.number}"

    def _session_known(self, process: Process, replica: Replica) -> bool:
        last = process.last
        if last is None or last.gen < replica.history.gen:
            return True
        return last.gen == replica.history.gen and not self.missing(last, replica)

    def missing(self, run: Run, replica: Replica) -> tuple[EventId, ...]:
        token = unseal(run.token, self.key)
        acked = ranges_of(run.acked)
        return missing_for_read(replica.history, token, run.segment, acked)

    def token(self, replica: Replica, base: Base | None) -> bytes:
        """The token of a read at `replica`, as a router makes it."""
        history = replica.history
        return seal(
            ReadToken(
                thread=thread_hash(history.thread),
                gen=history.gen,
                base=base,
                seen=history.frontier(None if base is None else base.segment),
                hlc=self.clock(replica),
                term=max(replica.term, history.term),
                epoch=1,
            ),
            self.key,
        )

    def clock(self, replica: Replica) -> int:
        return max(hlc_at(self.now + replica.offset_ms), replica.history.hlc) + 1

    def _begin(
        self, process: Process, slot: int, replica: Replica, shown: view.Shown | None
    ) -> None:
        history = replica.history
        winner = history.winner()
        base = shown.base if shown is not None else None if winner is None else Base(segment=winner)
        token = self.token(replica, base)
        told = None
        if base is not None:
            told = base.segment, cut_of(base)
        # What the run saw is all that the replica has: the oracle never looks into the token.
        story = Story(told, frozenset(replica.stored), frozenset())
        line = tuple(self.known(replica).read_lineage(story))
        run = Run(
            process=process,
            gen=history.gen,
            token=token,
            story=story,
            line=line,
            heads=self._heads(replica, line),
        )
        process.hear(self.clock(replica), max(replica.term, history.term))
        process.runs[slot] = run
        process.last = run

    def _heads(self, replica: Replica, line: tuple[Name, ...]) -> dict[str, str]:
        known = self.known(replica)
        found = {ns: known.head(ns, line) for ns in NAMESPACES}
        return {ns: self.facts[n].cid for ns, n in found.items() if n is not None}

    # Calls -------------------------------------------------------------------------------------

    def _run(self, a: int) -> Run | None:
        process, slot = self._slot(a)
        return process.runs[slot]

    def _run_that_writes(self, a: int, b: int, c: int) -> Run | None:
        """Without a token, a saver reads first."""
        if self._run(a) is None:
            self._read(a, b, c)
        return self._run(a)

    def _put(self, a: int, b: int, c: int) -> str:
        run = self._run_that_writes(a, b, c)
        if run is None:
            return ""
        self.made += 1
        ns = NAMESPACES[c % len(NAMESPACES)]
        head = run.heads.get(ns)
        cid, parent, said = run.planned.pop(ns, None), head, f"state {self.made}"
        if cid is None and head is not None and c % 11 == 0:
            cid, parent = head, run.parents.get((ns, head))  # the same checkpoint once more
        elif cid is None and c % 13 == 0:
            # An id, and sometimes a content, that other runs use too.
            cid, parent, said = f"same-{c % 2}", None, f"state {c // 2 % 2}"
        if cid is None:
            cid = self._new_id(c)
        if parent is not None:
            run.parents[ns, cid] = parent
        run.heads[ns] = cid
        return self._send(run.checkpoint(ns, cid, parent, said), b, c)

    def _writes(self, a: int, b: int, c: int) -> str:
        run = self._run_that_writes(a, b, c)
        if run is None:
            return ""
        self.made += 1
        ns = NAMESPACES[c // 2 % len(NAMESPACES)]
        cid = run.heads.get(ns)
        if c % 5 == 0 or cid is None:
            cid = run.planned.setdefault(ns, self._new_id(c))  # before its checkpoint
        elif c % 7 == 3:
            cid = run.parents.get((ns, cid), cid)  # after the checkpoint that follows
        # Mostly one task; of what several wrote at once, each may have its rival elsewhere.
        tasks = [TASKS[(c // 3 + i) % len(TASKS)] for i in range(2 if c % 17 < 3 else 1)]
        answers = ("", "", "yes", "no")
        wrote = [(task, answers[(c + i) % 4]) for i, task in enumerate(tasks)]
        return self._send(run.writes(ns, cid, wrote, f"row {self.made}"), b, c)

    def _new_id(self, c: int) -> str:
        """Ids do not grow with time: the agents' clocks are hours apart."""
        self.made += 1
        return f"{c * 7 % 10}-{self.made:03d}"

    def _send(self, call: Call, b: int, c: int) -> str:
        self.facts[call.fact.name] = call.fact
        self.gens[call.fact.name] = call.run.gen
        self.stories.setdefault(call.fact.name[0], call.run.story)
        fate = c // 16 % 7
        if fate == 0:
            return f"{call.event.id} lost on the way"
        if fate in (1, 3):
            self.network.append(call)
            return f"{call.event.id} on the way"
        return self._arrive(call, self._at(b), answered=fate != 2)

    def _retry(self, a: int, b: int, c: int) -> str:
        run = self._run(a)
        if run is None or not run.open:
            return ""
        call = run.open[c % len(run.open)]
        if c // 16 % 4 == 0:
            self.network.append(call)
        return self._arrive(call, self._at(b), answered=c // 16 % 3 > 0)

    def _land(self, a: int, b: int, c: int) -> str:
        """A request arrives late, perhaps for the second time, perhaps after its run ended."""
        if not self.network:
            return ""
        call = self.network[a % len(self.network)]
        if c % 3:
            self.network.remove(call)
        return self._arrive(call, self._at(b), answered=c % 2 > 0)

    def _arrive(self, call: Call, replica: Replica, *, answered: bool) -> str:
        verdict = self.decide(replica, call.event, call.digest, now=self.now + replica.offset_ms)
        where = f"{call.event.id} at {replica.number}"
        match verdict:
            case Wait():
                self._check_waits_for_something(call, replica)
                return f"{where} waits"
            case Refused(error):
                self._refused(call, replica, error)
                return f"{where} refused"
            case Accepted():
                self.take(replica, call.event)
        if answered:
            self._check_acknowledged(call, replica)
            if call in call.run.open:
                call.run.process.hear(self.clock(replica), max(replica.term, replica.history.term))
            call.run.process.acknowledged(call)
        return where

    def decide(
        self, replica: Replica, event: Event, digest: bytes, *, now: int
    ) -> Accepted | Known | Wait | Refused:
        token = None if event.header is None else unseal(event.header.token, self.key)
        return accept(replica.history, event, digest, token, now_ms=now)

    def _check_waits_for_something(self, call: Call, replica: Replica) -> None:
        """A call whose every named event is here may wait for the clock, and for nothing else."""
        later = self.decide(replica, call.event, call.digest, now=self.now + 10**9)
        named = self.stories[call.fact.name[0]].seen | call.fact.after
        if isinstance(later, Wait) and named <= set(replica.stored):
            raise Broken("i11", f"{call.event.id} waits for nothing at {replica.number}")

    def _check_acknowledged(self, call: Call, replica: Replica) -> None:
        entry = replica.history.entry(call.event.id)
        if entry is None or entry.digest != call.digest:
            raise Broken("i31", f"{call.event.id} was acknowledged, but it is not what is stored")

    def _refused(self, call: Call, replica: Replica, error: RouterError) -> None:
        gen = call.event.gen
        if gen < replica.history.gen and isinstance(error, ThreadDeleted):
            for process in self.processes:
                process.runs = [None if run is call.run else run for run in process.runs]
            return
        if gen > replica.history.gen and isinstance(error, TokenInvalid):
            return  # this router has not heard of the delete yet
        raise Broken("i31", f"a correct call was refused: {error}")

    # Replicas ----------------------------------------------------------------------------------

    def take(self, replica: Replica, event: Event) -> None:
        """Applies what `accept` let pass, from the bytes that a storage would keep."""
        packed = pack_event(event)
        stored = unpack_event(packed)
        entry = entry_of(stored, event_digest(packed))
        entry = structs.replace(entry, erased=name_of(event.id) in replica.erased)
        replica.history.apply(entry)
        replica.stored.setdefault(name_of(event.id), stored)
        replica.dirty = True
        self._release(replica)

    def receive(self, replica: Replica, event: Event) -> None:
        """A copy from a peer: applied by the same rule, held while something is missing."""
        if event.gen < replica.history.gen:
            return
        verdict: object = Wait(())
        if event.gen == replica.history.gen:
            digest = event_digest(pack_event(event))
            verdict = self.decide(replica, event, digest, now=self.now + 10**9)
        match verdict:
            case Accepted() | Known():
                self.take(replica, event)
            case Wait():
                if event not in replica.held:
                    replica.held.append(event)
            case Refused(error):
                raise Broken("i31", f"a copy was refused at {replica.number}: {error}")

    def _release(self, replica: Replica) -> None:
        held, replica.held = replica.held, []
        for event in held:
            self.receive(replica, event)

    def _ship(self, a: int, b: int, c: int) -> str:
        pairs = [(x, y) for x in self.replicas for y in self.replicas if x is not y]
        routes = [
            (source, target, event)
            for source, target in pairs
            for name, event in source.stored.items()
            if (name not in target.stored or c % 7 == 0)
            and target.history.gen <= source.history.gen
        ]
        if not routes:
            return ""
        source, target, event = routes[(a + 31 * b) % len(routes)]
        before = len(target.history.entries)
        again = name_of(event.id) in target.stored
        self.receive(target, event)
        if again and len(target.history.entries) != before:
            raise Broken("i7", f"a second copy of {event.id} counted at {target.number}")
        return f"{event.id} from {source.number} to {target.number}"

    def _sync(self, a: int, b: int, c: int) -> str:
        source, target = self._at(a), self._at(b)
        if source is target or source.history.gen < target.history.gen:
            return ""
        events = list(source.stored.values())
        random.Random(c).shuffle(events)
        for event in events:
            self.receive(target, event)
        return f"all of {source.number} to {target.number}"

    def _reload(self, a: int, b: int, c: int) -> str:
        """The router restarts: the history is built again from the stored index."""
        replica = self._at(b)
        history = History(THREAD, replica.history.gen)
        for entry in replica.history.entries:
            position = replica.history.position(entry.id)
            erased = bool(replica.history.erased >> position & 1)
            history.apply(unpack_entry(pack_entry(structs.replace(entry, erased=erased))))
        replica.history = history
        replica.dirty = True
        return f"router {replica.number} restarts"

    def _failover(self, a: int, b: int, c: int) -> str:
        replica = self._at(b)
        replica.term += 1
        return f"term {replica.term} at {replica.number}"

    # Processes ---------------------------------------------------------------------------------

    def _kill(self, a: int, b: int, c: int) -> str:
        """A killed process gives up nothing; another one starts in its place."""
        at = a % len(self.processes)
        self.processes[at] = Process(number=self.minted)
        self.minted += 1
        return f"process {at} killed"

    def _copy(self, a: int, b: int, c: int) -> str:
        """A token is carried to another process, which writes a segment of its own from it."""
        run = self._run(a)
        target, slot = self._slot(b)
        if run is None or target is run.process:
            return ""
        target.end(slot)
        twin = Run(
            process=target,
            gen=run.gen,
            token=run.token,
            story=run.story._replace(gives_up=frozenset()),
            line=run.line,
            heads={},
        )
        heads = oracle.Known({n: self.facts[n] for n in run.story.seen}, self.stories)
        found = {ns: heads.head(ns, run.line) for ns in NAMESPACES}
        twin.heads = {ns: self.facts[n].cid for ns, n in found.items() if n is not None}
        target.hear(run.process.hlc, run.process.term)
        target.runs[slot] = target.last = twin
        return f"token of process {run.process.number} copied to {target.number}"

    def _peek(self, a: int, b: int, c: int) -> str:
        """A read inside a run: its own lineage, or STALE. `checks.i4` judges it."""
        run = self._run(a)
        replica = self._at(b)
        if run is None or run.gen != replica.history.gen:
            return ""
        self.peeked = run, replica
        replica.dirty = True
        return f"process {run.process.number} reads inside its run at {replica.number}"

    # Deletes and prunes ------------------------------------------------------------------------

    def _delete(self, a: int, b: int, c: int) -> str:
        replica = self._at(b)
        gen = replica.history.gen
        if not replica.stored or c % 4:
            return ""
        if c % 8:
            self.repeats.append(gen)
        self.deletes += [(gen, r.number) for r in self.replicas if r is not replica]
        self.end_generation(replica, gen)
        return f"delete of generation {gen} at {replica.number}"

    def _repeat_delete(self, a: int, b: int, c: int) -> str:
        if not self.repeats:
            return ""
        gen = self.repeats.pop(a % len(self.repeats))
        replica = self._at(b)
        live = replica.history.gen
        self.end_generation(replica, self.repeated(replica, gen))
        if live > gen and replica.history.gen != live:
            raise Broken("i31", f"a repeated delete of generation {gen} ended generation {live}")
        return f"delete of generation {gen} again at {replica.number}"

    def repeated(self, replica: Replica, gen: int) -> int:
        """Which generation a repeated delete ends: the one that its first try named."""
        return gen

    def _ship_delete(self, a: int, b: int, c: int) -> str:
        if not self.deletes:
            return ""
        gen, number = self.deletes.pop(a % len(self.deletes))
        self.end_generation(self.replicas[number], gen)
        return f"delete of generation {gen} reaches {number}"

    def end_generation(self, replica: Replica, gen: int) -> None:
        if gen < replica.history.gen:
            return
        replica.history = History(THREAD, gen + 1)
        replica.stored.clear()
        replica.erased.clear()
        replica.held = [e for e in replica.held if e.gen > gen]
        replica.dirty = True
        self._release(replica)
        for process in self.processes:
            process.forget(gen)

    def _prune(self, a: int, b: int, c: int) -> str:
        """Removes, by identity, events that this replica saw: neither heads nor pinned losers."""
        replica = self._at(b)
        history = replica.history
        lineage = history.lineage(history.winner())
        kept = losing(history)
        for ns in set(NAMESPACES):
            shown = view.newest(history, ns, lineage)
            for event in () if shown is None else (shown.checkpoint.id, *shown.writes):
                kept |= 1 << history.position(event)
        doomed = [n for n in names(bits(history.all & ~kept), history) if n[1] % 3 != c % 3]
        if not doomed or c % 3 == 0:
            return ""
        prune = frozenset(doomed)
        self.erase(replica, prune)
        self.prunes += [(history.gen, r.number, prune) for r in self.replicas if r is not replica]
        return f"prune of {len(prune)} at {replica.number}"

    def _ship_prune(self, a: int, b: int, c: int) -> str:
        if not self.prunes:
            return ""
        gen, number, prune = self.prunes.pop(a % len(self.prunes))
        if self.replicas[number].history.gen == gen:
            self.erase(self.replicas[number], prune)
        return f"prune reaches {number}"

    def erase(self, replica: Replica, prune: frozenset[Name]) -> None:
        replica.erased |= prune
        here = [replica.stored[n].id for n in sorted(prune) if n in replica.stored]
        replica.history.erase(here)
        replica.dirty = True

    # The end -----------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything that is on its way arrives everywhere."""
        while self.deletes:
            self._ship_delete(0, 0, 0)
        while self.prunes:
            self._ship_prune(0, 0, 0)
        for _ in range(2):
            for source in range(len(self.replicas)):
                for target in range(len(self.replicas)):
                    self._sync(source, target, source + 7 * target)
        for replica in self.replicas:
            if replica.held:
                raise Broken("i11", f"{[str(e.id) for e in replica.held]} is held for ever")
