"""One function for each invariant: what the core says, against the oracle on full sets of events.

Rules: a check reads a replica and changes nothing; what is wrong raises `Broken` with the name of
the invariant. `answers` is all that a reader can get, so I5 is one comparison.
"""

from __future__ import annotations

from checkpoint_router.core import view
from checkpoint_router.core.clock import indices
from checkpoint_router.core.conflicts import Conflict, conflicts, losing
from checkpoint_router.core.digests import conflict_id
from checkpoint_router.core.history import bits
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.token import unseal

from .client import Run
from .histories import Check
from .oracle import CHECKPOINT, Dispute, Known, Name
from .world import NAMESPACES, THREAD, Broken, Replica, World, cut_of, line_of, name_of, names

Answers = dict[str, object]


def _same(check: str, what: str, core: object, oracle: object) -> None:
    if core != oracle:
        raise Broken(check, f"{what}: the core says {core}, by full sets it is {oracle}")


def i1(world: World, replica: Replica) -> None:
    """e in the past of f: the stamp of e is smaller."""
    for name in replica.stored:
        fact = world.facts[name]
        for earlier in world.stories[name[0]].seen | fact.after:
            if earlier in replica.stored and _stamp(replica, earlier) >= _stamp(replica, name):
                raise Broken("i1", f"{earlier} is in the past of {name} and not stamped below it")


def _stamp(replica: Replica, name: Name) -> int:
    entry = replica.history.entry(EventId(SegmentId(name[0]), name[1]))
    if entry is None:
        raise Broken("i7", f"{name} was taken in and is not known")
    return entry.hlc


def i2(world: World, replica: Replica) -> None:
    """Tails, and so who is concurrent with whom, as full sets of seen events have them."""
    history, known = replica.history, world.known(replica)
    _same("i2", "segments", set(history.segments), set(known.segments))
    for of in known.segments:
        for given in known.segments:
            if of != given:
                tail = set(names(bits(history.tail(SegmentId(of), SegmentId(given))), history))
                _same("i2", f"tail({of!r}|{given!r})", tail, set(known.tail(of, given)))
    _same("i2", "concurrent pairs", history.concurrent, known.pairs())
    _same("i2", "tips", history.tips, known.tips())
    _same("i2", "what a read would name as seen", _named(replica), set(replica.stored))
    frontier = {segment for segment, _ in history.frontier()}
    _same("i2", "frontier", frontier, known.maximal())


def _named(replica: Replica) -> set[Name]:
    """The events that the frontier names, and the pasts of their segments."""
    history = replica.history
    found: set[Name] = set()
    for segment, ranges in history.frontier():
        found |= {(segment, i) for i in indices(ranges)}
        found |= set(names(bits(history.segments[segment].past), history))
    return found


def i3(world: World, replica: Replica) -> None:
    """A superseded segment is never the winner."""
    winner, known = replica.history.winner(), world.known(replica)
    if winner is None:
        _same("i3", "winner", winner, known.winner())
    elif any(known.supersedes(o, winner) for o in known.segments if not known.note(o)):
        raise Broken("i3", f"the winner {winner!r} is superseded")


def i4(world: World, replica: Replica) -> None:
    """The winner's view is, event for event, what the run that wrote the tip had in memory."""
    if world.peeked is not None and world.peeked[1] is replica:
        _inside(world, replica, world.peeked[0])
    winner = replica.history.winner()
    if winner is None:
        return
    known = world.known(replica)
    line = line_of(replica.history, replica.history.lineage(winner))
    read = tuple(known.read_lineage(known.stories[winner]))
    _same("i4", "the winner's lineage", line, (*read, *known.segments[winner]))
    for ns in NAMESPACES:
        shown = view.newest(replica.history, ns)
        head = None if shown is None else name_of(shown.checkpoint.id)
        _same("i4", f"head of {ns!r}", head, known.head(ns, line))
        if shown is not None:
            own = replica.history.lineage(winner)
            found = [name_of(e.id) for e in view.earlier(replica.history, own, shown.checkpoint)]
            _same("i4", f"checkpoints before it in {ns!r}", found, known.earlier(head, line))


def _inside(world: World, replica: Replica, run: Run) -> None:
    """A read inside a run: STALE exactly where an event of its token is unknown, else its own
    lineage, with every call that was acknowledged to it."""
    missing = world.missing(run, replica)
    own = {(run.segment, i) for i in run.acked} if run.segment is not None else set()
    unknown = (run.story.seen | own) - set(replica.stored)
    if bool(missing) != bool(unknown):
        raise Broken("i4", f"the router misses {missing}, by full sets {unknown} are unknown")
    if missing:
        return
    known, history = world.known(replica), replica.history
    lineage = history.lineage_from(unseal(run.token, world.key), run.segment)
    mine = known.segments.get(run.segment, []) if run.segment is not None else []
    line = (*run.line, *mine)
    _same("i4", "lineage inside a run", line_of(history, lineage), line)
    for ns in NAMESPACES:
        shown = view.newest(history, ns, lineage)
        head = None if shown is None else name_of(shown.checkpoint.id)
        _same("i4", f"head of {ns!r} inside a run", head, known.head(ns, line))
        if shown is not None:
            writes = known.writes(ns, shown.checkpoint.checkpoint_id, line)
            _same("i4", "writes", tuple(name_of(w) for w in shown.writes), writes)
    past = known.listed(run.story.seen | set(line))
    _same("i4", "list inside a run", list(view.listed(history, lineage=lineage)), past)


def answers(replica: Replica) -> Answers:
    """Everything that a reader can get from a replica."""
    history = replica.history
    lineage = history.lineage(history.winner())
    by_name = {name: view.by_id(history, *name) for name in history.checkpoints}
    ids = sorted({cid for _, cid in history.checkpoints})
    return {
        "winner": history.winner(),
        "lineage": line_of(history, lineage),
        "heads": {ns: _shown(view.newest(history, ns)) for ns in NAMESPACES},
        "tuples": {name: _shown(shown) for name, shown in by_name.items()},
        "list": list(view.listed(history)),
        "list with losers": list(view.listed(history, losers=True)),
        "lists by namespace": {ns: list(view.listed(history, ns=ns)) for ns in NAMESPACES},
        "lists before": {cid: list(view.listed(history, before=cid)) for cid in ids},
        "lists by id": {cid: list(view.listed(history, cid=cid)) for cid in ids},
        "conflicts": [_conflict(c) for c in conflicts(history)],
    }


def _shown(shown: view.Shown | None) -> object:
    if shown is None:
        return None
    base = shown.base.segment, cut_of(shown.base)
    writes = tuple(name_of(w) for w in shown.writes)
    return name_of(shown.checkpoint.id), writes, shown.parent_id, base


def _conflict(c: Conflict) -> object:
    sides = tuple((name_of(s.first), s.checkpoints, s.hlc, s.wins) for s in c.sides)
    tasks = {(t.ns, t.checkpoint_id, t.task_id) for t in c.tasks}
    return c.id, {str(k) for k in c.kinds}, c.open, tasks, sides


def by_sets(known: Known, gen: int) -> Answers:
    """The same as `answers`, from the oracle."""
    line = known.winning()
    winner = known.winner()
    named = {(f.ns, f.cid) for f in known.facts.values() if f.kind == CHECKPOINT}
    past = known.listed(known.causal_past())
    heads = {ns: known.head(ns, line) for ns in NAMESPACES}
    return {
        "winner": winner,
        "lineage": line,
        "heads": {ns: _head(known, ns, name, line) for ns, name in heads.items()},
        "tuples": {name: _by_id(known, *name) for name in named},
        "list": past,
        "list with losers": known.listed(set(known.facts)),
        "lists by namespace": {ns: [n for n in past if n[1] == ns] for ns in NAMESPACES},
        "lists before": {c: [n for n in past if n[0] < c] for _, c in named},
        "lists by id": {c: [n for n in past if n[0] == c] for _, c in named},
        "conflicts": sorted(_dispute(d, gen) for d in known.disputes().values()),
    }


def _head(known: Known, ns: str, name: Name | None, line: tuple[Name, ...]) -> object:
    if name is None:
        return None
    base = (known.winner(), None)
    writes = known.writes(ns, known.facts[name].cid, line)
    return name, writes, known.parent_shown(name), base


def _by_id(known: Known, ns: str, cid: str) -> object:
    found = known.by_id(ns, cid)
    if found is None:
        return None
    name, writes, base = found
    return name, writes, known.parent_shown(name), base


def _dispute(d: Dispute, gen: int) -> tuple[object, ...]:
    one, two = (SegmentId(s) for s in d.pair)
    return conflict_id(THREAD, gen, one, two), set(d.kinds), d.open, set(d.tasks), d.sides


def i5(world: World, replica: Replica) -> None:
    """The same events, in whatever order and how often they came: the same answers."""
    said = answers(replica)
    expected = by_sets(world.known(replica), replica.history.gen)
    for what, value in said.items():
        _same("i5", what, value, expected[what])
    key = replica.history.gen, frozenset(replica.stored), replica.erased_known()
    earlier = world.answers_by_set.setdefault(key, said)
    _same("i5", f"replica {replica.number}", said, earlier)


def i6(world: World, replica: Replica) -> None:
    """Among concurrent tips, one with a lower term never wins."""
    winner, known = replica.history.winner(), world.known(replica)
    if winner is None:
        return
    terms = {tip: known.rank(tip)[0] for tip in known.tips()}
    if terms.get(winner, -1) < max(terms.values()):
        raise Broken("i6", f"{winner!r} wins over a greater term: {terms}")


def i7(world: World, replica: Replica) -> None:
    """An event counts once, however many copies of it came."""
    ids = [name_of(e.id) for e in replica.history.entries]
    _same("i7", "events", sorted(ids), sorted(replica.stored))


def i8(world: World, replica: Replica) -> None:
    """Every concurrent pair in exactly one record, none without a pair, and none vanishes."""
    history, known = replica.history, world.known(replica)
    records = conflicts(history)
    expected = [d.pair for d in known.disputes().values()]
    ids = [conflict_id(THREAD, history.gen, SegmentId(x), SegmentId(y)) for x, y in expected]
    _same("i8", "ids of records", [c.id for c in records], sorted(ids))
    now = {(history.gen, c.id) for c in records}
    gone = {r for r in replica.records if r[0] == history.gen} - now
    if gone:
        raise Broken("i8", f"{len(gone)} conflict records vanished from {replica.number}")
    replica.records = now


def i9(world: World, replica: Replica) -> None:
    """What ran twice or was answered twice is named as such, and never closes by itself."""
    expected = {
        _dispute(d, replica.history.gen)[0]: d for d in world.known(replica).disputes().values()
    }
    for record in conflicts(replica.history):
        dispute = expected.get(record.id)
        if dispute is None:
            continue  # I8 speaks of it
        doubles = {k for k in map(str, record.kinds) if k.startswith("double_")}
        wanted = {k for k in dispute.kinds if k.startswith("double_")}
        _same("i9", "kinds", doubles, wanted)
        tasks = {(t.ns, t.checkpoint_id, t.task_id) for t in record.tasks}
        _same("i9", "tasks that ran twice", tasks, set(dispute.tasks))
        if doubles and not record.open:
            raise Broken("i9", "a double execution was closed by nobody")


def i11(world: World, replica: Replica) -> None:
    """No event is shown before every event that its `seen` and `after` name."""
    for name in replica.stored:
        needed = world.stories[name[0]].seen | world.facts[name].after
        missing = needed - set(replica.stored)
        if missing:
            raise Broken("i11", f"{name} is shown at {replica.number} without {sorted(missing)}")


def i12(world: World, replica: Replica) -> None:
    """Unresolved losers are pinned: all that an open conflict's sides show and nobody won."""
    history, known = replica.history, world.known(replica)
    pinned = set(names(bits(losing(history)), history))
    winning = set(known.winning())
    expected: set[Name] = set()
    disputes = known.disputes()
    for one, two in known.pairs():
        x, y = known.unknown(one, two)[0][0], known.unknown(two, one)[0][0]
        low, high = sorted((x, y))
        if disputes[low, high].open:
            expected |= (set(known.lineage(one)) | set(known.lineage(two))) - winning
    _same("i12", "pinned events", pinned, expected)


def i13(world: World, replica: Replica) -> None:
    """After a delete no event of an ended generation is there."""
    dead = [n for n in replica.stored if world.gens[n] != replica.history.gen]
    if dead:
        raise Broken("i13", f"{dead} of an ended generation at {replica.number}")


ALL: tuple[Check, ...] = (i7, i1, i2, i3, i4, i5, i6, i8, i9, i11, i12, i13)
"""I7 first: what is counted twice would trip all others."""
