"""Looking at threads: what is stored now, and what of it this process remembers.

Owner: the loop. Rules: a look brings all that was acknowledged before it began; a second one
costs two small reads at once, whatever the thread's length, and brings only what is new; what is
remembered is dropped for threads that nobody uses when it gets too much.

A look takes two journeys, unless it finds a removal or a batch under way: one for the state, the
counts of actors and the index; one for what makes the index stable, for the state again, and for
what a read of the newest checkpoint will want (`ahead`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Final

from checkpoint_router.backends.cassandra import index
from checkpoint_router.backends.cassandra.ahead import NO_HINT, Ahead, Hint
from checkpoint_router.backends.cassandra.fences import Fences
from checkpoint_router.backends.cassandra.place import Place, State
from checkpoint_router.backends.cassandra.removal import Removal
from checkpoint_router.backends.cassandra.session import Session
from checkpoint_router.core import limits
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage.port import Known, ThreadImage

EVENTS_MAX: Final = 200_000
"""Events and growing values that are remembered (about 300 B each)."""

AHEAD_MAX: Final = 32
AHEAD_BYTES_MAX: Final = 16 * limits.MIB
"""Threads of which it is kept what a look read beside the index, until somebody has read it, and
bytes of all that. Less: reads that come at once ask for it again."""


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
        self._ahead: OrderedDict[ThreadKey, Place] = OrderedDict()
        """Those with something read ahead, the newest last."""

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
            self._drop_ahead(unused)

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
        asked = index.ask_begun(self._session, thread, known.gen)
        state = await self._removal.settled(thread)
        begun = index.begun_in(await asked)
        if (known.gen, known.erasures) != (state.live, state.erasures or 0):
            return None
        if any(n > begun.counts.get(actor, 0) for actor, n in known.counts.items()):
            return None
        if state != place.state:
            self._drop_ahead(thread)
        elif place.hint is NO_HINT:
            place.hint = begun.hint
        if all(n <= known.counts.get(actor, 0) for actor, n in begun.counts.items()):
            return _image(state, index.Index(rows=(), counts=known.counts), partial=True)
        look = self._look(place, state, known.gen)
        found = await self._steady(place, state, look.after(known.counts, begun))
        if found is None:
            return None
        return self._taken(place, state, version, found, begun.hint, partial=True)

    async def _all(self, place: Place, version: int | None) -> ThreadImage | None:
        """None: its generation is another than was thought, or it is just being removed from."""
        before = place.state
        rows_asked = index.ask_all(self._session, place.thread, before.live)
        state_asked = self._removal.settled(place.thread)
        (rows, beside), state = await asyncio.gather(rows_asked, state_asked)
        if state != before:
            place.begin(state)
            if state.live != before.live or index.prunes_in(rows) != (state.erasures or 0):
                return None  # The rows may be older than that state.
        begun = index.begun_in(beside)
        look = self._look(place, state, state.live)
        found = await self._steady(place, state, look.all(rows, begun))
        if found is None:
            return None
        return self._taken(place, state, version, found, begun.hint, partial=False)

    def _look(self, place: Place, state: State, gen: int) -> index.Look:
        own, pruned = self._own(place, state), bool(state.erasures)
        return index.Look(self._session, place.thread, gen, own, pruned=pruned)

    async def _steady(
        self, place: Place, state: State, work: Coroutine[Any, Any, index.Index]
    ) -> index.Index | None:
        """What it finds, if the thread is still in that state; see `index`."""
        found, now = await asyncio.gather(work, self._removal.settled(place.thread))
        if found.doubtful and now == state:
            now = await self._removal.settled(place.thread)
        return found if now == state else None

    def _taken(
        self,
        place: Place,
        state: State,
        version: int | None,
        found: index.Index,
        hint: Hint,
        *,
        partial: bool,
    ) -> ThreadImage:
        if state == place.state:
            place.know(found.rows)
            place.hint, place.ahead = hint, found.ahead
            self._keep_ahead(place)
            if not partial and not place.loaded:
                place.loaded, place.version = True, version
        return _image(state, found, partial=partial)

    # What a look read beside the index ---------------------------------------------------------

    def ahead(self, thread: ThreadKey, gen: int) -> Ahead:
        """What the last look at that generation read; it asks for the rest."""
        place = self._places.get(thread)
        if place is not None and place.ahead is not None and place.ahead.gen == gen:
            return place.ahead
        return Ahead(self._session, thread, gen)

    def hint(self, thread: ThreadKey, keys: Collection[bytes]) -> Hint:
        """What is known to be wanted with these events; nothing, if it is for others."""
        place = self._places.get(thread)
        if place is None or not set(place.hint.events[:1]).intersection(keys):
            return NO_HINT
        return place.hint

    def take_ahead(self, thread: ThreadKey, gen: int) -> Ahead:
        """The same, for the last one to read of it: the next asks for what is there then."""
        ahead = self.ahead(thread, gen)
        self._drop_ahead(thread)
        return ahead

    def _drop_ahead(self, thread: ThreadKey) -> None:
        kept = self._ahead.pop(thread, None)
        if kept is not None:
            kept.ahead = None

    def _keep_ahead(self, place: Place) -> None:
        self._ahead.pop(place.thread, None)
        self._ahead[place.thread] = place
        while len(self._ahead) > AHEAD_MAX or self._ahead_bytes() > AHEAD_BYTES_MAX:
            self._drop_ahead(next(iter(self._ahead)))

    def _ahead_bytes(self) -> int:
        return sum(place.ahead.size for place in self._ahead.values() if place.ahead is not None)

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
