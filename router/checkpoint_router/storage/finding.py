"""What a look at a storage found: one fact, and whether somebody has to do something about it."""

from dataclasses import dataclass
from enum import StrEnum

from checkpoint_router.storage.port import Facts


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


def findings(facts: Facts) -> list[Finding]:
    """Facts of a storage that is a server, as a report has them."""
    good = {"storage": facts.url, "promise": facts.promise, **dict(sorted(facts.details.items()))}
    return [
        *(Finding(what=name, verdict=Verdict.GOOD, text=text) for name, text in good.items()),
        *(Finding(what="alarm", verdict=Verdict.BAD, text=text) for text in facts.alarms),
    ]
