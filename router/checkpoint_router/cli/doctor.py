"""`checkpoint-router doctor`: is the router well, or the storage that no router runs on?

Rules: looks, and changes nothing; every check is a line, also those that passed; ends with 1 if
one of them did not.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import typer
from rich.text import Text

from checkpoint_router import __version__
from checkpoint_router.cli import console, words
from checkpoint_router.cli.console import Output
from checkpoint_router.cli.exits import Exit, about_a_storage
from checkpoint_router.cli.link import Link
from checkpoint_router.cli.options import (
    TARGET_DEFAULT,
    TIMEOUT_SECONDS_DEFAULT,
    Format,
    Target,
    Timeout,
    link,
)
from checkpoint_router.server.diagnose import Finding, Verdict, diagnose
from checkpoint_router.wire.admin import PROTOCOL

_STYLES: Final = {Verdict.GOOD: "green", Verdict.NOTE: "yellow", Verdict.BAD: "bold red"}


def doctor(
    target: Target = TARGET_DEFAULT,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Look at this storage instead, without a router: sqlite:DIRECTORY or redis://….",
        ),
    ] = None,
    output: Format = Output.TABLE,
    timeout: Timeout = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Check a router, or a storage that no router runs on. Nothing is changed.

    \b
    Examples:
      checkpoint-router doctor
      checkpoint-router doctor --target router://10.0.0.7:7070
      checkpoint-router doctor --storage sqlite:/var/lib/checkpoint-router
    """
    if storage is not None:
        subject = {"storage": storage}
        with about_a_storage():
            found = _shown(diagnose(storage), output)
    else:
        subject = {"target": target}
        with link(target, None, timeout) as router:
            found = _shown(_router(router), output)
    bad = sum(f.verdict is Verdict.BAD for f in found)
    if output is Output.JSON:
        findings = [{"what": f.what, "verdict": f.verdict.value, "text": f.text} for f in found]
        console.document("doctor", {**subject, "healthy": not bad, "findings": findings})
    console.say(f"{words.count(bad, 'problem')} found." if bad else "No problem found.")
    if bad:
        raise typer.Exit(Exit.NEGATIVE)


def _shown(findings: Iterable[Finding], output: Output) -> list[Finding]:
    """All of them; as a table each is written as soon as it is known, for a look may take long."""
    found = []
    for finding in findings:
        found.append(finding)
        if output is Output.TABLE:
            style = _STYLES[finding.verdict]
            what = words.printable(finding.what)
            line = (f"{finding.verdict.value:<5} ", style), (f"{what}: ", "bold")
            console.show(Text.assemble(*line, words.printable(finding.text)))
    return found


def _router(router: Link) -> Iterator[Finding]:
    begun = time.monotonic()
    facts = router.router()
    took_ms = (time.monotonic() - begun) * 1000
    yield _good("reachable", f"{router.address} answered in {took_ms:.0f} ms")
    if facts.protocol == PROTOCOL:
        yield _good("protocol", f"{PROTOCOL}, as here")
    else:
        text = f"the router speaks {facts.protocol}, this side {PROTOCOL}. Upgrade the older one."
        yield Finding(what="protocol", verdict=Verdict.BAD, text=text)
    same = facts.version == __version__
    yield Finding(
        what="version",
        verdict=Verdict.GOOD if same else Verdict.NOTE,
        text=facts.version if same else f"the router is {facts.version}, this side {__version__}",
    )
    yield _good("storage", facts.storage)
    for promise in facts.promises:
        yield _good("promise", promise)
    for name, value in sorted(facts.facts.items()):
        yield _good(name, value)
    for alarm in facts.alarms:
        yield Finding(what="alarm", verdict=Verdict.BAD, text=alarm)
    if not facts.alarms:
        yield _good("alarms", "none")


def _good(what: str, text: str) -> Finding:
    return Finding(what=what, verdict=Verdict.GOOD, text=text)
