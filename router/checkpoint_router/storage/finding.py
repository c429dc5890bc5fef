"""What a look at a storage found: one fact, and whether somebody has to do something about it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from checkpoint_router.core.errors import RouterError


class Verdict(StrEnum):
    """How bad it is."""

    GOOD = "good"
    NOTE = "note"
    """Nothing is wrong, but it could not be looked at, or should be known."""
    BAD = "bad"
    """Somebody has to act; the text says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of a report."""

    what: str
    verdict: Verdict
    text: str


FAULTS_MAX: Final = 20
"""Broken records that are named one by one."""


class Tally:
    """Of records and values that were read and verified, one after the other."""

    def __init__(self) -> None:
        self._checked = self._broken = 0

    def add(self, fault: RouterError | None) -> Finding | None:
        """Counts one, and names what is wrong with it, if something is and few were before."""
        self._checked += 1
        if fault is None:
            return None
        self._broken += 1
        if self._broken > FAULTS_MAX:
            return None
        return Finding(what="record", verdict=Verdict.BAD, text=fault.message)

    def end(self) -> Finding:
        """What came of all of them."""
        if self._broken:
            text = f"{self._broken:,} of {self._checked:,} records and values cannot be read."
            return Finding(what="records", verdict=Verdict.BAD, text=text)
        text = f"all {self._checked:,} records and values are whole"
        return Finding(what="records", verdict=Verdict.GOOD, text=text)
