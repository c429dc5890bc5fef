"""Golden transcripts: commands to processes and routers, and what the core makes of them.

A transcript is blocks of `command key=value …`, `----`, and the expected lines. Each block is one
step on the same `Stage`; words without `=` are flags. Rules: a run is named by the transcript and
its segment bears the run's name; a run belongs to the process of the same name unless `process=`
says otherwise; commands go to router r1 unless `at=` says otherwise; time is a second a step.

    read run=A [process=P] [id=c1] [ns=N]      put run=A id=c1 [parent=c0] [ns=N] [said=X]
    writes run=A id=c1 task=t1 [resume=X]      (put, writes: `lost` on the way; `unheard` answer)
    retry event=A/1 [forged]                   end run=A (what it has under way is given up)
    ship event=A/1 to=r2                       delete [gen=1]
    show [id=c1] [run=A]                       list [run=A] [losers]           conflicts
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from checkpoint_router.core import view
from checkpoint_router.core.accept import Accepted, Refused, Wait
from checkpoint_router.core.clock import Frontier, Ranges
from checkpoint_router.core.conflicts import conflicts
from checkpoint_router.core.history import Lineage
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.records import Checkpoint, Event, Typed
from checkpoint_router.core.token import unseal
from tests.property.client import Call, Process, Run
from tests.property.world import Replica, World


@dataclass(frozen=True, slots=True)
class Block:
    """One step, and what it shall print."""

    comment: str
    command: str
    expected: str


def parse(text: str) -> Iterator[Block]:
    """The blocks of a transcript. Lines from `#` before a command are its comment."""
    for part in re.split(r"\n\n+", text.strip()):
        lines = part.splitlines()
        comments = [line for line in lines if line.startswith("#")]
        rest = lines[len(comments) :]
        if not rest:
            yield Block("\n".join(comments), "", "")
            continue
        if len(rest) < 2 or rest[1] != "----":
            raise ValueError(f"a block needs a command and ---- below it: {part!r}")
        yield Block("\n".join(comments), rest[0], "\n".join(rest[2:]))


def played(path: Path) -> tuple[str, str]:
    """(the file, what it would be with what really happened)."""
    text = path.read_text()
    stage = Stage()
    out = []
    for block in parse(text):
        lines = [block.comment] if block.comment else []
        if block.command:
            lines += [block.command, "----", *stage.do(block.command)]
        out.append("\n".join(lines))
    return text, "\n\n".join(out) + "\n"


class Named(Process):
    """A process whose segments bear the names of its runs."""

    run_name: str = ""

    def mint(self, token: bytes) -> SegmentId:
        return SegmentId(self.run_name.encode().ljust(16, b"\0"))


def name_of(segment: bytes) -> str:
    return segment.rstrip(b"\0").decode()


def event_name(event: EventId) -> str:
    return f"{name_of(event.segment)}/{event.index}"


class Stage(World):
    """Two routers and as many processes as are named, on the real core."""

    def __init__(self) -> None:
        super().__init__(processes=0, replicas=2)
        for replica in self.replicas:
            replica.offset_ms = 0
        self.named: dict[str, Named] = {}
        self.runs: dict[str, Run] = {}
        self.calls: dict[str, Call] = {}

    def do(self, command: str) -> list[str]:
        """Runs one command; what it prints."""
        self.now += 1000
        verb, *words = command.split()
        flags = {w for w in words if "=" not in w}
        said = dict(w.split("=", 1) for w in words if "=" in w)
        action: Callable[[dict[str, str], set[str]], list[str]] = getattr(self, f"do_{verb}")
        return action(said, flags)

    def router(self, said: dict[str, str], key: str = "at") -> Replica:
        return self.replicas[int(said.get(key, "r1")[1:]) - 1]

    # What processes do -------------------------------------------------------------------------

    def do_read(self, said: dict[str, str], flags: set[str]) -> list[str]:
        name, replica = said["run"], self.router(said)
        process = self.named.setdefault(said.get("process", name), Named(number=0))
        process.end(0)
        process.run_name = name
        history, ns = replica.history, said.get("ns", "")
        shown = view.by_id(history, ns, said["id"]) if "id" in said else view.newest(history, ns)
        self._begin(process, 0, replica, shown)
        run = process.runs[0]
        assert run is not None
        self.runs[name] = run
        token = unseal(run.token, self.key)
        return [*self.tuple_lines(shown), f"seen {seen_text(token.seen)}"]

    def do_put(self, said: dict[str, str], flags: set[str]) -> list[str]:
        run, ns, cid = self.runs[said["run"]], said.get("ns", ""), said["id"]
        call = run.checkpoint(ns, cid, said.get("parent"), said.get("said", cid))
        return self.send(call, self.router(said), flags)

    def do_writes(self, said: dict[str, str], flags: set[str]) -> list[str]:
        run, ns, cid = self.runs[said["run"]], said.get("ns", ""), said["id"]
        call = run.writes(ns, cid, [(said["task"], said.get("resume", ""))], said["task"])
        return self.send(call, self.router(said), flags)

    def do_end(self, said: dict[str, str], flags: set[str]) -> list[str]:
        run = self.runs[said["run"]]
        run.process.end(0)
        given = ", ".join(event_name(e) for e in sorted(run.process.given_up))
        return [f"given up: {given or 'nothing'}"]

    def send(self, call: Call, replica: Replica, flags: set[str]) -> list[str]:
        name = event_name(call.event.id)
        self.calls[name] = call
        self.facts[call.fact.name] = call.fact
        self.gens[call.fact.name] = call.run.gen
        self.stories.setdefault(call.fact.name[0], call.run.story)
        if "lost" in flags:
            return [f"event {name} lost on the way"]
        return self.arrive(call, replica, call.event, heard="unheard" not in flags)

    def do_retry(self, said: dict[str, str], flags: set[str]) -> list[str]:
        call = self.calls[said["event"]]
        event = call.event
        if "forged" in flags and isinstance(event.content, Checkpoint):
            forged = structs.replace(event.content, body=Typed("msgpack", b"?"))
            event = structs.replace(event, content=forged)
        return self.arrive(call, self.router(said), event, heard=True)

    def arrive(self, call: Call, replica: Replica, event: Event, *, heard: bool) -> list[str]:
        digest = call.digest if event is call.event else b"forged"
        verdict = self.decide(replica, event, digest, now=self.now)
        name, place = event_name(event.id), f"r{replica.number + 1}"
        word = "known"
        match verdict:
            case Refused(error):
                return [f"event {name} refused at {place}: {error.reason}"]
            case Wait(missing):
                return [f"event {name} waits at {place} for {names(missing)}"]
            case Accepted():
                self.take(replica, event)
                word = "taken in"
        if heard:
            call.run.process.hear(self.clock(replica), replica.history.term)
            call.run.process.acknowledged(call)
        else:
            word += ", answer lost"
        return [f"event {name} {word} at {place}", *self.state_lines(replica)]

    # What routers do ---------------------------------------------------------------------------

    def do_ship(self, said: dict[str, str], flags: set[str]) -> list[str]:
        replica = self.router(said, "to")
        self.receive(replica, self.calls[said["event"]].event)
        held = names([e.id for e in replica.held])
        return [*self.state_lines(replica), *([f"held {held}"] if replica.held else [])]

    def do_delete(self, said: dict[str, str], flags: set[str]) -> list[str]:
        replica = self.router(said)
        self.end_generation(replica, int(said.get("gen", replica.history.gen)))
        return [f"generation {replica.history.gen}, {len(replica.history.entries)} events"]

    # What is shown -----------------------------------------------------------------------------

    def do_show(self, said: dict[str, str], flags: set[str]) -> list[str]:
        replica, ns = self.router(said), said.get("ns", "")
        lineage = self.lineage(said, replica)
        if "id" in said:
            return self.tuple_lines(view.by_id(replica.history, ns, said["id"], lineage))
        return self.tuple_lines(view.newest(replica.history, ns, lineage))

    def do_list(self, said: dict[str, str], flags: set[str]) -> list[str]:
        replica = self.router(said)
        lineage = self.lineage(said, replica)
        found = view.listed(replica.history, losers="losers" in flags, lineage=lineage)
        return [" ".join(f"{ns}:{cid}" if ns else cid for cid, ns in found) or "nothing"]

    def do_conflicts(self, said: dict[str, str], flags: set[str]) -> list[str]:
        lines = []
        for record in conflicts(self.router(said).history):
            kinds = " ".join(sorted(record.kinds))
            lines.append(f"{kinds} ({'open' if record.open else 'continued'})")
            for side in record.sides:
                own = " ".join(cid for _, cid in side.checkpoints) or "no checkpoint"
                wins = ", wins" if side.wins else ""
                lines.append(
                    f"  {name_of(side.segment)} from {event_name(side.first)}: {own}{wins}"
                )
            lines += [f"  task {t.task_id} of {t.checkpoint_id} ran twice" for t in record.tasks]
        return lines or ["none"]

    def lineage(self, said: dict[str, str], replica: Replica) -> Lineage | None:
        if "run" not in said:
            return None
        run = self.runs[said["run"]]
        return replica.history.lineage_from(unseal(run.token, self.key), run.segment)

    def tuple_lines(self, shown: view.Shown | None) -> list[str]:
        if shown is None:
            return ["nothing"]
        checkpoint = shown.checkpoint
        parent = f" parent {shown.parent_id}" if shown.parent_id else ""
        written = "".join(f" {event_name(w)}" for w in shown.writes)
        return [
            f"{checkpoint.checkpoint_id} ({event_name(checkpoint.id)}){parent}"
            + (f" writes{written}" if written else "")
        ]

    def state_lines(self, replica: Replica) -> list[str]:
        history = replica.history
        shown = view.newest(history, "")
        head = "none" if shown is None else shown.checkpoint.checkpoint_id
        tips = " ".join(sorted(name_of(t) for t in history.tips))
        lines = [f"head {head}  tips {tips or 'none'}"]
        for record in conflicts(history):
            sides = "|".join(name_of(side.segment) for side in record.sides)
            state = "open" if record.open else "continued"
            lines.append(f"conflict {' '.join(sorted(record.kinds))} {sides} ({state})")
        return lines


def names(events: tuple[EventId, ...] | list[EventId]) -> str:
    return " ".join(event_name(e) for e in events) or "the header of its segment"


def seen_text(seen: Frontier) -> str:
    def text(ranges: Ranges) -> str:
        return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)

    return " ".join(f"{name_of(s)}:{text(r)}" for s, r in seen) or "nothing"
