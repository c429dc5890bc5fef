"""Puts: those of one thread that wait together go in one script, one script of a thread at a time.

Owner: the dot counters of the live actor. They are the truth, not a copy, for a server that lost
writes must not make them start again. A script writes only if its first dot is the next one of
what the server has, so a request that lands late changes nothing.

Rules: an unknown outcome ends the actor, whose next dot might be taken; so no dot is sent with two
events. Events are told apart by id, so whoever repeats one finds it. Who comes to a thread for
which nobody works sends what waits for it until his own step is answered; a task of its own would
cost each put as much as packing it.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from checkpoint_router.backends.redis import layout
from checkpoint_router.backends.redis.link import APPEND, READ, Link
from checkpoint_router.backends.redis.values import Plan, Versions, version
from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import RouterError, Unavailable
from checkpoint_router.core.ids import Dot, ThreadKey, slot_of
from checkpoint_router.core.records import Kind, pack_entry
from checkpoint_router.storage.codec import seal_envelope
from checkpoint_router.storage.logs import worth_a_log
from checkpoint_router.storage.port import (
    Append,
    Duplicate,
    MissingBlobs,
    MissingEvents,
    OtherGeneration,
    Stored,
)

_PLANS_MAX: Final = 3
"""Times that a growing value is placed anew because others appended; then it is stored whole."""


@dataclass(slots=True, eq=False)
class Step:
    """What is to be written: an event with its values, or values alone."""

    gen: int
    append: Append | None
    blobs: Sequence[NewBlob]
    answer: asyncio.Future[Any]
    plans: int = 0

    @property
    def size_bytes(self) -> int:
        """About what the server has to take."""
        own = 0 if self.append is None else len(self.append.packed)
        return own + sum(len(b.value.data) for b in self.blobs)


class Writer:
    """All threads of one storage."""

    def __init__(self, link: Link, lost: Callable[[str], None]) -> None:
        self._link = link
        self._lost = lost
        self._versions = Versions()
        self._waiting: dict[ThreadKey, deque[Step]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._announced: dict[bytes, tuple[str, int]] = {}
        self._counters: dict[tuple[ThreadKey, int], int] = {}
        """The last n of the live actor, by thread and generation."""
        self.actor = 0
        self.incarnation = b""
        """Of a slot in which this process is the first to write."""
        self.new_actor()

    def new_actor(self) -> None:
        """Another actor: no dot of the old one is given any more. What was remembered of the
        server goes too."""
        self.actor = secrets.randbits(63)
        self.incarnation = secrets.token_bytes(16)
        self._counters.clear()
        self._versions.clear()

    async def stop(self) -> None:
        """Ends what is under way."""
        await self._idle.wait()

    async def do(self, thread: ThreadKey, append: Append | None, gen: int, blobs: Any) -> Any:
        """The answer to one step. A caller that is cancelled changes nothing of its effect."""
        step = Step(gen, append, blobs, asyncio.get_running_loop().create_future())
        waiting = self._waiting.get(thread)
        if waiting is not None:
            waiting.append(step)
            return await step.answer
        self._waiting[thread] = waiting = deque((step,))
        self._idle.clear()
        try:
            await asyncio.sleep(0)  # Whoever comes at the same time shares the script.
            await self._work(thread, waiting, step)
        finally:
            self._hand_over(thread, waiting)
        return step.answer.result()

    def _hand_over(self, thread: ThreadKey, waiting: deque[Step]) -> None:
        if waiting:
            task = asyncio.create_task(self._go_on(thread, waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        del self._waiting[thread]
        if not self._waiting:
            self._idle.set()

    async def _go_on(self, thread: ThreadKey, waiting: deque[Step]) -> None:
        try:
            await self._work(thread, waiting, None)
        finally:
            self._hand_over(thread, waiting)

    async def _work(self, thread: ThreadKey, waiting: deque[Step], own: Step | None) -> None:
        """Sends what waits: until `own` is answered, or all of it."""
        while waiting and not (own is not None and own.answer.done()):
            steps, size = [waiting.popleft()], 0
            while waiting and waiting[0].gen == steps[0].gen and len(steps) < limits.GROUP_PUTS_MAX:
                size += steps[-1].size_bytes
                if size > limits.GROUP_BYTES_MAX:
                    break
                steps.append(waiting.popleft())
            actor = self.actor
            try:
                waiting.extendleft(reversed(await self._write(thread, steps)))
            except BaseException as e:  # nobody would ever be answered again
                if actor == self.actor and any(step.append is not None for step in steps):
                    self.new_actor()
                if isinstance(e, Unavailable):
                    # Whoever waits fails too, and does not ask a dead server in its turn.
                    steps += waiting
                    waiting.clear()
                given_up = not isinstance(e, Exception)
                if given_up and own is not None:
                    own.answer.cancel()
                known = Unavailable("it is not known what became of it. Repeat the call.")
                for step in steps:
                    if not step.answer.done():
                        step.answer.set_exception(known if given_up else e)
                if given_up:
                    raise

    async def _write(self, thread: ThreadKey, steps: Sequence[Step]) -> list[Step]:
        """Answers steps; returns those that have to be placed anew."""
        if layout.keys(thread)[layout.NAMES] not in self._announced:
            await self.announce(thread)
        gen = steps[0].gen
        place = (thread, gen)
        if place not in self._counters and len(self._counters) >= limits.COUNTERS_MAX:
            self.new_actor()
        actor, last = self.actor, self._counters.get(place, 0)
        plan = Plan(thread, str(gen), self._versions)
        await self._look_up_bases(thread, str(gen), steps)
        bulk: list[bytes] = []
        ask = {
            "inc": self.incarnation,
            "actor": actor.to_bytes(8, "big"),
            "first": last + 1,
            "gen": str(gen),
            "thread": thread.thread,
            "leaf": b"" if last else layout.leaf_of_thread(thread),
            "steps": [self._packed(step, plan, bulk) for step in steps],
        }
        verdict, answers = await self._link.run(APPEND, thread, ask, *bulk)
        if verdict == b"back":
            self._lost(f"thread {thread.thread!r} has {answers} events of this process, not {last}")
            raise Unavailable(
                f"Redis lost events of thread {thread.thread!r} that it had acknowledged. This "
                f"call wrote nothing and may be repeated; `checkpoint-router doctor` says more.",
                thread=thread.thread,
            )
        again: list[Step] = []
        for step, answer in zip(steps, answers, strict=True):
            if answer[0] == b"moved":
                self._forget(thread, str(gen), step)
                again.append(step)
                continue
            if answer[0] == b"again":
                raise Unavailable(
                    "the outcome of an earlier call became known only now. Repeat it."
                )
            if answer[0] == b"ok":
                plan.keep(step.blobs)
                last = answer[1]
                if actor == self.actor and step.append is not None:
                    self._counters[place] = last
            if not step.answer.done():
                step.answer.set_result(_answer(step, actor, answer))
        return again

    def _packed(self, step: Step, plan: Plan, bulk: list[bytes]) -> dict[str, Any]:
        alone = step.plans >= _PLANS_MAX
        blobs = [plan.blob(blob, bulk, alone=alone) for blob in step.blobs]
        packed: dict[str, Any] = {"blobs": blobs}
        append = step.append
        if append is None:
            return packed
        entry = append.entry
        bulk += [seal_envelope(pack_entry(entry)), layout.pack_record(append.names, append.packed)]
        packed |= {
            "segment": entry.id.segment,
            "index": str(entry.id.index),
            "digest": entry.digest,
            "needs": [(s, first, last) for s, ranges in append.needs for first, last in ranges],
            "names": append.names,
            "entry": len(bulk),
            "record": len(bulk) + 1,
        }
        if entry.kind is Kind.CHECKPOINT:
            packed["cid"] = entry.checkpoint_id
            packed["run"] = b"" if entry.run_id is None else layout.run_hash(entry.run_id)
        return packed

    async def _look_up_bases(self, thread: ThreadKey, gen: str, steps: Sequence[Step]) -> None:
        sent = {b.hash for step in steps for b in step.blobs}
        wanted = [
            b.continues
            for step in steps
            for b in step.blobs
            if step.plans < _PLANS_MAX
            and worth_a_log(b)
            and b.continues not in sent
            and self._versions.get(thread, gen, b.continues or b"") is None
        ]
        if not wanted:
            return
        ask = {"gen": gen, "ids": (), "hashes": wanted, "named": False, "rows": True, "budget": 0}
        _, rows, _ = await self._link.run(READ, thread, ask)
        for row in rows:
            self._versions.keep(thread, gen, version(thread, row))

    def _forget(self, thread: ThreadKey, gen: str, step: Step) -> None:
        step.plans += 1
        for blob in step.blobs:
            if blob.continues is not None:
                self._versions.drop(thread, gen, blob.continues)

    async def announce(self, thread: ThreadKey) -> None:
        """Before the first write of this process for a tenant in a slot: where to look for it."""
        names = layout.keys(thread)[layout.NAMES]
        if names not in self._announced:
            place = thread.tenant, slot_of(thread.thread)
            await self._link.do("setbit", layout.slots_key(place[0]), place[1], 1)
            self._announced[names] = place

    async def announce_again(self) -> None:
        """All that this process announced, after the server lost something."""
        places = list(self._announced.values())
        await self._link.all([("SETBIT", layout.slots_key(t), slot, 1) for t, slot in places])


def _answer(step: Step, actor: int, answer: Sequence[Any]) -> Any:
    if step.append is None:
        return answer[0] == b"ok"
    match answer[0]:
        case b"ok":
            return Stored(Dot(actor, answer[1]))
        case b"known":
            return Duplicate(answer[1])
        case b"events":
            return MissingEvents()
        case b"blobs":
            return MissingBlobs(tuple(answer[1]))
        case b"gen":
            return OtherGeneration(int(answer[1]))
    raise RouterError(f"a script of this storage answered {answer!r}, which it never does.")
