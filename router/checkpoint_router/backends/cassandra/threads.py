"""Looking at threads: what is stored now, and what of it this process remembers.

Owner: the loop. Rules: a look brings all that was acknowledged before it began; a second one
costs two small reads at once, whatever the thread's length, and brings only what is new; what is
remembered is dropped for threads that nobody uses when it gets too much.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from checkpoint_router.backends.cassandra import index
from checkpoint_router.backends.cassandra.fences import Fences
from checkpoint_router.backends.cassandra.place import Place, State
from checkpoint_router.backends.cassandra.removal import Removal
from checkpoint_router.backends.cassandra.session import Session
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage.port import Known, ThreadImage

EVENTS_MAX: Final = 200_000
"""Events and growing values that are remembered (about 300 B each)."""


class Use:
    """One use of a place. A class, since a generator costs each call twice as much."""

    __slots__ = ("_place", "_threads")

    def __init__(self, threads: "Threads", place: Place) -> None:
        self._threads, self._place = threads, place

    def __enter__(self) -> Place:
        self._place.users += 1
        return self._place

    def __exit__(self, *_: object) -> None:
        self._threads.end(self._place)


class Threads:
    """All places."""

    def __init__(self, session: Session, fences: Fences, removal: Removal) -> None:
        self._session = session
        self._fences = fences
        self._removal = removal
        self._places: OrderedDict[ThreadKey, Place] = OrderedDict()
        self._events = 0

    def use(self, thread: ThreadKey) -> "Use":
        """The thread's place, kept while in use. What it knows may be old."""
        place = self._places.get(thread)
        if place is None:
            place = self._places[thread] = Place(thread)
        else:
            self._places.move_to_end(thread)
        return Use(self, place)

    def end(self, place: Place) -> None:
        """Ends a use."""
        place.users -= 1
        size = 1 + len(place.digests) + len(place.growing)
        self._events += size - place.counted
        place.counted = size
        if self._events > EVENTS_MAX:
            self._make_room()

    def _make_room(self) -> None:
        while self._events > EVENTS_MAX:
            unused = next((t for t, place in self._places.items() if not place.users), None)
            if unused is None:
                return
            self._events -= self._places.pop(unused).counted

    async def look(self, place: Place, known: Known | None) -> ThreadImage:
        """See `Storage.image`. The place knows all of it afterwards."""
        while True:
            version = self._fences.seen
            if known is not None:
                partial = await self._news(place, known, version)
                if partial is not None:
                    return partial
                known = None
            full = await self._all(place, version)
            if full is not None:
                return full

    async def load(self, place: Place) -> None:
        """Makes the place know what a put has to know."""
        if not place.loaded:
            await self.look(place, None)

    async def refresh(self, place: Place) -> None:
        """Makes the place know what was acknowledged by now."""
        known = Known(place.state.live, place.state.erasures or 0, dict(place.counts))
        await self.look(place, known if place.loaded else None)

    async def _news(self, place: Place, known: Known, version: int | None) -> ThreadImage | None:
        """None: the thread is another than `known` says, or is just becoming another."""
        thread = place.thread
        asked = index.ask_counts(self._session, thread, known.gen)
        state = await self._removal.settled(thread)
        counts = index.counts_in(await asked)
        if (known.gen, known.erasures) != (state.live, state.erasures or 0):
            return None
        if any(n > counts.get(actor, 0) for actor, n in known.counts.items()):
            return None
        newer = [actor for actor, n in counts.items() if n > known.counts.get(actor, 0)]
        if not newer:
            return _image(state, index.Index(rows=(), counts=known.counts), partial=True)
        found = await index.read_after(
            self._session,
            thread,
            known.gen,
            self._own(place, state),
            known.counts,
            newer,
            pruned=bool(state.erasures),
        )
        if await index.state_of(self._session, thread) != state:
            return None
        return self._taken(place, state, version, found, partial=True)

    async def _all(self, place: Place, version: int | None) -> ThreadImage | None:
        """None: its generation is another than was thought, or it is just being removed from."""
        before = place.state
        found = await index.read(
            self._session,
            place.thread,
            before.live,
            self._own(place, before),
            pruned=bool(before.erasures),
        )
        state = await self._removal.settled(place.thread)
        if state != before:
            place.begin(state)
            return None
        return self._taken(place, state, version, found, partial=False)

    def _taken(
        self,
        place: Place,
        state: State,
        version: int | None,
        found: index.Index,
        *,
        partial: bool,
    ) -> ThreadImage:
        if state == place.state:
            place.know(found.rows)
            if not partial and not place.loaded:
                place.loaded, place.version = True, version
        return _image(state, found, partial=partial)

    def _own(self, place: Place, state: State) -> Mapping[int, int]:
        return place.acknowledged if state == place.state else {}


def _image(state: State, found: index.Index, *, partial: bool) -> ThreadImage:
    return ThreadImage(
        gen=state.live,
        entries=tuple(row.entry for row in found.rows),
        erasures=state.erasures or 0,
        counts=found.counts,
        partial=partial,
    )
