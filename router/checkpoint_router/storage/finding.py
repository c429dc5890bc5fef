"""What a look at a storage found: one fact, and whether somebody has to do something about it."""

from dataclasses import dataclass
from enum import StrEnum


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
