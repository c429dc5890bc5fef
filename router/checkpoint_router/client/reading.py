"""What the saver's reads do: newest, by id, delta histories, and the read before a first write."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, DeltaChannelHistory
from langgraph.checkpoint.serde.base import SerializerProtocol
from msgspec import structs

from checkpoint_router.client import encoding
from checkpoint_router.client.arguments import Names, checked_list, names_of
from checkpoint_router.client.operations import Operation, call
from checkpoint_router.client.sessions import Run, Sessions
from checkpoint_router.core import answers as core
from checkpoint_router.core import growing, limits
from checkpoint_router.core.errors import DataLoss, Stale, ThreadDeleted, TokenInvalid, Unavailable
from checkpoint_router.core.ids import ThreadKey, checked_id, checked_tenant
from checkpoint_router.core.records import Blob, Content, Typed
from checkpoint_router.v1 import checkpoint_service_pb2 as pb
from checkpoint_router.wire import answers, requests
from checkpoint_router.wire import blobs as wire_blobs

T = TypeVar("T")

Blobs = dict[bytes, Typed]

USELESS: Final = (Stale, TokenInvalid)
"""Refusals of a token that no later try will change: its storage lost events, or is another one."""

_READS_MAX: Final = 10
"""Times that a thread is read whose values vanish each time before they are fetched."""


class Reading:
    """Reads of one tenant, without IO."""

    def __init__(self, tenant: str, sessions: Sessions) -> None:
        self.tenant = checked_tenant(tenant)
        self.sessions = sessions

    def thread(self, name: str) -> ThreadKey:
        """The tenant's thread of that name."""
        return ThreadKey(self.tenant, name)

    def get_tuple(
        self, serde: SerializerProtocol, config: RunnableConfig
    ) -> Operation[CheckpointTuple | None]:
        """The newest checkpoint of a namespace, or exactly the one that the config names."""
        names = names_of(config)

        def once() -> Operation[tuple[core.ReadAnswer, Blobs]]:
            answer, blobs = yield from self._read(names, with_blobs=True)
            found = () if answer.tuple is None else (answer.tuple,)
            return answer, (yield from self.complete(names.thread, found, blobs))

        answer, blobs = yield from self.steadily(once)
        run = self.sessions.opened(names, answer.token, answer.clock)
        return None if answer.tuple is None else self.shown(serde, run, answer.tuple, blobs)

    def delta_history(
        self, serde: SerializerProtocol, config: RunnableConfig, channels: Sequence[str]
    ) -> Operation[Mapping[str, DeltaChannelHistory]]:
        """What each delta channel is rebuilt from."""
        if not channels:
            return {}
        wanted = [checked_id("channel", c, empty=True) for c in checked_list("channels", channels)]
        names = names_of(config)
        run = self.sessions.run_of_read(names)
        # Held here while the call is on its way, so that making room takes none of them.
        have = self.sessions.cache.some(names.thread, limits.HELD_MAX)
        asked = call(
            "get_delta_history", pb.GetDeltaHistoryRequest(), requests.fill_delta_history,
            self.thread(names.thread), names.ns, names.checkpoint_id, wanted,
            None if run is None else run.session(inside=True), have,
        )  # fmt: skip

        def once() -> Operation[tuple[core.DeltaAnswer, Blobs]]:
            answer = answers.delta_answer_of((yield asked))
            contents = [w.content for h in answer.channels for w in h.writes]
            contents += [h.seed for h in answer.channels if h.seed is not None]
            self.sessions.cache.add(names.thread, answer.blobs)
            blobs = have | dict(answer.blobs)
            return answer, (yield from self._fetched(names.thread, contents, blobs))

        answer, blobs = yield from self.steadily(once)
        return {h.channel: encoding.decode_history(serde, h, blobs) for h in answer.channels}

    def first(self, names: Names) -> Operation[Run]:
        """A call without a token reads before it writes, so that it has one."""
        plain = structs.replace(names, checkpoint_id=None)
        memory = self.sessions.thread(names.thread)
        before = memory.last
        answer, _ = yield from self._read(plain, with_blobs=False)
        # Another call that had to read first, meanwhile, has made the run of both.
        opened = memory.last
        if opened is None or opened is before or opened.by_id:
            opened = self.sessions.run_of_write(names)
        return opened or self.sessions.opened(plain, answer.token, answer.clock)

    def _read(self, names: Names, *, with_blobs: bool) -> Operation[tuple[core.ReadAnswer, Blobs]]:
        inside = self.sessions.run_of_read(names)
        guard = self.sessions.guard(names) if inside is None else None
        try:
            return (yield from self._read_as(names, inside or guard, inside, with_blobs))
        except (*USELESS, ThreadDeleted) as e:
            if isinstance(e, ThreadDeleted):
                self.sessions.cache.forget(names.thread)
            if guard is None:
                raise
            # A token that is merely remembered must not stand in the way for ever.
            deleted = isinstance(e, ThreadDeleted)
            self.sessions.forget(names.thread, deleted_gen=guard.gen if deleted else 0)
            if not deleted:
                raise
        return (yield from self._read_as(names, None, None, with_blobs))

    def _read_as(
        self, names: Names, run: Run | None, inside: Run | None, with_blobs: bool
    ) -> Operation[tuple[core.ReadAnswer, Blobs]]:
        """An answer, with those of its values that it has, that the cache has, or both."""
        session = None if run is None else run.session(inside=inside is not None)
        # Held here while the call is on its way, so that making room takes none of them.
        held = self._held(names, run) if with_blobs and run is not None else {}
        answered = yield call(
            "get_tuple", pb.GetTupleRequest(), requests.fill_get_tuple,
            self.thread(names.thread), names.ns, names.checkpoint_id, session,
            with_blobs=with_blobs, held=[growing.held(c, v) for c, v in held.items()],
        )  # fmt: skip
        answer = answers.read_answer_of(answered)
        self.sessions.cache.add(names.thread, answer.blobs)
        bases = {v.hash: v for v in held.values()}
        blobs = {hash: v.value for hash, v in bases.items()}
        for growth in answer.grown:
            base = bases.get(growth.base)
            made = None if base is None else growing.rebuilt(growth, base)
            if made is not None:  # else it is fetched, as if nothing had been said of it
                self.sessions.cache.learn(names.thread, made, growth.base)
                blobs[made.hash] = made.value
        return answer, blobs | dict(answer.blobs)

    def _held(self, names: Names, run: Run) -> dict[str, growing.Named]:
        """Values by channel: those that the run knows and the cache has."""
        cache, known = self.sessions.cache, run.held(names.ns)[: limits.HELD_MAX]
        found = ((channel, cache.get(names.thread, hash)) for channel, hash in known)
        return {channel: named for channel, named in found if named is not None}

    # What listing shares with reading -------------------------------------------------

    @staticmethod
    def steadily(once: Callable[[], Operation[T]]) -> Operation[T]:
        """Runs `once`, which reads and then fetches what did not fit beside the answer. What it
        misses then may have been pruned or deleted in between, so it reads again; what is missing
        twice running, although a newer answer named it, is lost."""
        missed = ""
        for _ in range(_READS_MAX):
            try:
                return (yield from once())
            except DataLoss as e:
                if e.message == missed:
                    raise
                missed = e.message
        raise Unavailable(
            "the thread kept being pruned while its values were read. Nothing is lost. Try again "
            "when it is quieter."
        )

    def complete(
        self, thread: str, found: Sequence[core.CheckpointTuple], blobs: Blobs
    ) -> Operation[Blobs]:
        """`blobs` with every value of these tuples, fetched where it did not fit beside them."""
        contents = [e.content for t in found for e in t.checkpoint.manifest]
        contents += [w.content for t in found for w in t.pending_writes]
        return (yield from self._fetched(thread, contents, blobs))

    def _fetched(self, thread: str, contents: Sequence[Content], blobs: Blobs) -> Operation[Blobs]:
        named = dict.fromkeys(c.hash for c in contents if isinstance(c, Blob))
        while wanted := [h for h in named if h not in blobs]:
            answer = yield call(
                "get_blobs", pb.GetBlobsRequest(), requests.fill_get_blobs,
                self.thread(thread), wanted[: limits.BLOBS_PER_CALL_MAX],
            )  # fmt: skip
            fetched = dict(wire_blobs.values_of(answer.blobs))
            if not fetched:
                raise DataLoss(f"the router has no value {wanted[0].hex()} of thread {thread!r}.")
            self.sessions.cache.add(thread, fetched.items())
            blobs |= fetched
        return blobs

    def shown(
        self,
        serde: SerializerProtocol,
        run: Run,
        found: core.CheckpointTuple,
        blobs: Mapping[bytes, Typed],
    ) -> CheckpointTuple:
        """LangGraph's tuple of a checkpoint that was read, bearing `run`."""
        run.learn(found.ns, found.checkpoint.manifest)
        self.sessions.bind(run, found.ns, found.checkpoint_id)
        return encoding.decode_tuple(serde, run.carrier(), found, blobs)
