"""Time that never runs backwards, and version vectors over segments.

A hybrid logical clock (Kulkarni et al., 2014) is one integer: milliseconds since 1970 shifted
left by 16 bits, plus a counter. Index ranges are sorted, disjoint, non-adjacent (first, last)
pairs; a frontier maps segments to the ranges of their events that a read knew.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument, LimitExceeded
from checkpoint_router.core.ids import SegmentId, checked_segment

HLC_COUNTER_BITS: Final = 16

Ranges = tuple[tuple[int, int], ...]
Frontier = tuple[tuple[SegmentId, Ranges], ...]


def hlc_at(unix_ms: int) -> int:
    """The smallest stamp of that millisecond."""
    return unix_ms << HLC_COUNTER_BITS


def unix_ms_of(hlc: int) -> int:
    """The millisecond of a stamp."""
    return hlc >> HLC_COUNTER_BITS


def ranges_of(indices: Iterable[int]) -> Ranges:
    """The ranges that hold exactly `indices`."""
    out: list[tuple[int, int]] = []
    for i in sorted(indices):
        if out and i <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(i, out[-1][1]))
        else:
            out.append((i, i))
    return tuple(out)


def indices(ranges: Ranges) -> Iterator[int]:
    """Each index that `ranges` hold, ascending."""
    for first, last in ranges:
        yield from range(first, last + 1)


def covers(have: Ranges, wanted: Ranges) -> bool:
    """Whether every index of `wanted` is in `have`."""
    return all(any(low <= first and last <= high for low, high in have) for first, last in wanted)


def with_index(ranges: Ranges, index: int) -> Ranges:
    """`ranges` and `index`. The usual case, one past the end, costs nothing."""
    if ranges and ranges[-1][1] + 1 == index:
        return (*ranges[:-1], (ranges[-1][0], index))
    if not ranges or ranges[-1][1] < index:
        return (*ranges, (index, index))
    if any(first <= index <= last for first, last in ranges):
        return ranges
    out: list[tuple[int, int]] = []
    for first, last in sorted((*ranges, (index, index))):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(last, out[-1][1]))
        else:
            out.append((first, last))
    return tuple(out)


def checked_ranges(
    pairs: Iterable[tuple[int, int]], *, what: str, most: int = limits.RANGES_MAX
) -> Ranges:
    """`pairs` as ranges, if they are well-formed and few enough."""
    ranges = tuple((int(first), int(last)) for first, last in pairs)
    if len(ranges) > most:
        raise LimitExceeded(
            f"{what} has {len(ranges)} index ranges; the limit is {most}. "
            f"Read the thread again and go on from that read.",
            field=what,
        )
    before = -1
    for first, last in ranges:
        if first < 1 or last < first or first <= before + 1 or last > limits.INDEX_MAX:
            raise InvalidArgument(
                f"{what} has a malformed index range ({first}, {last}): ranges count from 1, "
                f"ascend, and leave a gap between each other.",
                field=what,
            )
        before = last
    return ranges


def checked_frontier(entries: Iterable[tuple[bytes, Iterable[tuple[int, int]]]]) -> Frontier:
    """`entries` as a frontier, if they are well-formed and few enough."""
    most = limits.SEEN_RANGES_MAX
    frontier = tuple(
        (checked_segment(s), checked_ranges(r, what="seen", most=most)) for s, r in entries
    )
    if sum(len(ranges) for _, ranges in frontier) > most:
        raise LimitExceeded(
            f"the token names more than {most} index ranges. Read the thread again.", field="seen"
        )
    if len(frontier) > limits.FRONTIER_ENTRIES_MAX:
        raise LimitExceeded(
            f"the token names {len(frontier)} segments; the limit is "
            f"{limits.FRONTIER_ENTRIES_MAX}. Read the thread again.",
            field="seen",
        )
    return frontier
