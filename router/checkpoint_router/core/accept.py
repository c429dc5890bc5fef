"""Whether a router may take an event: the rules, without the router.

An event is applied only where its header is known, its generation is the current one, every
event that `seen` and `after` name is known, and (checked by the storage) its blobs are there.
"""

import msgspec

from checkpoint_router.core import limits
from checkpoint_router.core.clock import Ranges, hlc_at, indices
from checkpoint_router.core.digests import thread_hash
from checkpoint_router.core.errors import (
    DigestMismatch,
    InvalidArgument,
    RouterError,
    ThreadDeleted,
    TokenInvalid,
)
from checkpoint_router.core.history import History
from checkpoint_router.core.ids import EventId, SegmentId
from checkpoint_router.core.records import Event
from checkpoint_router.core.token import ReadToken


class Accepted(msgspec.Struct, frozen=True):
    """Write it. `needs` are the events that the storage must hold in the same transaction."""

    needs: tuple[tuple[SegmentId, Ranges], ...]


class Known(msgspec.Struct, frozen=True):
    """It is here already: answer as if it had been written now."""


class Wait(msgspec.Struct, frozen=True):
    """Not yet: for missing events, or (none missing) until the clock has come closer."""

    missing: tuple[EventId, ...]
    header_unknown: bool = False


class Refused(msgspec.Struct, frozen=True):
    """Never."""

    error: RouterError


Verdict = Accepted | Known | Wait | Refused


def accept(
    history: History, event: Event, digest: bytes, token: ReadToken | None, *, now_ms: int
) -> Verdict:
    """What to do with `event`. `token` is its header's verified token, if it has a header."""
    id, after = event.id, event.after
    segment = history.segments.get(id.segment)
    current = event.gen == history.gen
    if current and segment is not None and id.index in segment.events:
        known = history.entries[segment.events[id.index]]
        return Known() if known.digest == digest else Refused(_other_bytes(event))
    refusal = None if current else _generation(history, event)
    if refusal is None and token is not None:
        refusal = _foreign(history, event, token)
    if refusal is not None:
        return Refused(refusal)
    if segment is not None and event.header is not None and event.header != segment.header:
        return Refused(_other_bytes(event))
    base = token if token is not None else segment.token if segment is not None else None
    if base is None:
        return Wait((), header_unknown=True)
    needs: tuple[tuple[SegmentId, Ranges], ...] = ((id.segment, after),) if after else ()
    if token is not None and segment is None:
        needs = (*token.seen, *needs)
    for named, ranges in needs:
        if history.missing(named, ranges):
            return Wait(tuple(e for s, r in needs for e in history.missing(s, r)))
    floor = base.hlc
    if segment is not None and event.hlc <= segment.hlc:
        # Calls in flight together may arrive in any order: only those that were waited for count.
        stamps = (history.entries[segment.events[i]].hlc for i in indices(after))
        floor = max(floor, *stamps, 0)
    if event.hlc <= floor:
        return Refused(
            InvalidArgument(
                f"event {event.id} is stamped {event.hlc}, not above {floor}, which it follows. "
                f"Stamp each call with 1 + the greatest stamp heard or used for the thread."
            )
        )
    # Above every event that is known here, or above the clock, whichever is more.
    drift = hlc_at(limits.HLC_DRIFT_MS_MAX)
    if event.hlc > history.hlc + drift and event.hlc > hlc_at(now_ms) + drift:
        return Wait(())
    return Accepted(needs)


def missing_for_read(
    history: History, token: ReadToken, own: SegmentId | None, acked: Ranges
) -> tuple[EventId, ...]:
    """Events that a read with this token needs and that are not known here."""
    found = tuple(e for s, r in token.seen for e in history.missing(s, r))
    return found if own is None else (*found, *history.missing(own, acked))


def _generation(history: History, event: Event) -> RouterError:
    if event.gen < history.gen:
        return ThreadDeleted.of(history.thread.thread, event.gen, history.gen)
    return TokenInvalid(
        f"the event names generation {event.gen} of thread {history.thread.thread!r}, which is "
        f"at {history.gen}: this storage lost a delete. Nothing was written. Start a new run."
    )


def _foreign(history: History, event: Event, token: ReadToken) -> RouterError | None:
    if token.thread != thread_hash(history.thread):
        return TokenInvalid(
            f"the causal token is for another thread than {history.thread.thread!r}. Nothing was "
            f"written. Read this thread, then write from that read."
        )
    if token.gen != event.gen:
        return TokenInvalid("the causal token and the event name two generations.")
    return None


def _other_bytes(event: Event) -> DigestMismatch:
    return DigestMismatch(
        f"event {event.id} is known here with other bytes. One id names one content for ever; "
        f"nothing was written. This is a fault of the client: start a new run.",
        event=str(event.id),
    )
