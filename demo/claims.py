"""What the demo claims, each claim with the evidence that it was checked against."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence, what was seen, and whether the two agree."""

    text: str
    seen: str
    holds: bool


@dataclass(slots=True)
class Claims:
    """Collects claims as the demo goes; a claim is checked where its evidence is at hand."""

    made: list[Claim] = field(default_factory=list)

    def check(self, text: str, *, holds: bool, seen: object) -> bool:
        """Add a claim; says whether it holds, so that the narration can follow."""
        self.made.append(Claim(text=text, seen=str(seen), holds=holds))
        return holds

    @property
    def all_hold(self) -> bool:
        """True only if something was claimed and nothing of it is false."""
        return bool(self.made) and all(claim.holds for claim in self.made)

    def table(self) -> Table:
        """The verdict, one row a claim."""
        table = Table(title="What this demo claims, and what it saw", show_lines=False)
        table.add_column("#", justify="right")
        table.add_column("claim", ratio=3)
        table.add_column("seen", ratio=2)
        table.add_column("true?")
        for number, claim in enumerate(self.made, 1):
            verdict = "[green]true[/]" if claim.holds else "[bold red]FALSE[/]"
            table.add_row(str(number), claim.text, claim.seen, verdict)
        return table
