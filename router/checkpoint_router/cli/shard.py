"""`checkpoint-router shard check`: reads a whole storage, says what is broken, mends indexes.

Rules: a record or value is never changed; what was found is said once more as one line for each
kind of it, with what to do; ends with 1 if something is broken that was not mended; what stopped
before its end says so, and from where to go on.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Final

import typer
from rich.text import Text

from checkpoint_router.cli import console, words
from checkpoint_router.cli.console import Output
from checkpoint_router.cli.exits import Exit, about_a_storage
from checkpoint_router.cli.options import Format
from checkpoint_router.server.diagnose import Fault, Kind, Report, check
from checkpoint_router.storage.open import shown

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

SHOWN_MAX: Final = 20
"""Of one kind that are named one by one in a table; JSON has all."""

_LOST: Final = "lost: restore the storage from a backup, or delete the threads"

_ADVICE: Final = {
    Kind.INDEX: "--repair makes them anew from the records",
    Kind.LOG: _LOST,
    Kind.RECORD: _LOST,
    Kind.VALUE: _LOST,
    Kind.CLOSURE: _LOST,
    Kind.NOTE: "nothing has to be done",
}


@app.callback()
def root() -> None:
    """Look through a whole storage, and mend its indexes."""


@app.command("check")
def check_(
    storage: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="CHECKPOINT_ROUTER_STORAGE",
            help="The storage: sqlite:DIRECTORY, redis://HOST:PORT/DB or cassandra://….",
        ),
    ],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Make what is wrong with indexes anew, from the records."),
    ] = False,
    begin: Annotated[
        str,
        typer.Option(
            "--from", metavar="CURSOR", help="Go on from where an earlier one stopped, as it said."
        ),
    ] = "",
    output: Format = Output.TABLE,
) -> None:
    """Read every record and value of a storage, verify all, and say what is broken.

    Ends with 0 if all is whole, or was mended; with 1 if something is broken. Without --repair
    nothing is changed, and with it no record and no value. Redis and Cassandra may be in use.
    A SQLite directory may be too, but then SQLite's own check is left out, and --repair is refused.

    Where it is interrupted, or the storage goes away, it says what it has found by then and from
    where to go on, and ends with 5, or 1 if that is broken. What belongs to no thread is looked at
    only from the beginning.

    \b
    Examples:
      checkpoint-router shard check --storage sqlite:/var/lib/checkpoint-router
      checkpoint-router shard check --storage redis://10.0.0.5:6379/0 --repair
      checkpoint-router shard check --storage redis://10.0.0.5:6379/0 --from redis:1204
    """
    with about_a_storage(), console.progress("threads") as progress:
        report = asyncio.run(_checked(storage, begin, repair=repair, progress=progress))
    if output is Output.JSON:
        console.document("shard.check", _document(report, shown(storage), repair))
    else:
        _show(report)
    if not report.whole:
        console.say("Something is broken.")
    elif any(fault.mended for fault in report.faults):
        console.say("Mended.")
    else:
        console.say("Nothing is broken" + (" in this part." if _is_part(report) else "."))
    if report.stopped:
        console.say(f"This is a part: {report.stopped} Go on with --from {report.cursor}")
    if not report.whole:
        raise typer.Exit(Exit.NEGATIVE)
    if report.stopped:
        raise typer.Exit(Exit.PARTLY)


async def _checked(
    storage: str, begin: str, *, repair: bool, progress: Callable[[int, int], None]
) -> Report:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does by itself.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await check(storage, begin=begin, repair=repair, progress=progress)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None  # nothing was read yet, so there is no report


def _is_part(report: Report) -> bool:
    return bool(report.begun or report.stopped)


def _document(report: Report, storage: str, repair: bool) -> dict[str, object]:
    return {
        "storage": storage,
        "repair": repair,
        "whole": report.whole,
        "from": report.begun or None,
        "cursor": report.cursor or None,
        "stopped": report.stopped or None,
        "threads": report.threads,
        "events": report.events,
        "values": report.values,
        "findings": [
            {
                "kind": fault.kind.value,
                "tenant": fault.thread and fault.thread.tenant,
                "thread_id": fault.thread and fault.thread.thread,
                "record": fault.record,
                "text": fault.text,
                "mended": fault.mended,
            }
            for fault in report.faults
        ],
    }


def _show(report: Report) -> None:
    read = (report.threads, "thread"), (report.events, "event"), (report.values, "value")
    said = ", ".join(words.count(*each) for each in read)
    if _is_part(report):
        said += f" (a part: from {report.begun or 'the beginning'} to {report.cursor or 'the end'})"
    console.line(f"read: {said}")
    named: Counter[Kind] = Counter()
    for fault in report.faults:
        named[fault.kind] += 1
        if named[fault.kind] <= SHOWN_MAX:
            console.show(_line(fault))
    for kind in Kind:
        faults = [fault for fault in report.faults if fault.kind is kind]
        mended = sum(fault.mended for fault in faults)
        if mended:
            console.line(f"{kind.value}: {mended:,} mended")
        if len(faults) > mended:
            console.line(f"{kind.value}: {len(faults) - mended:,} found; {_ADVICE[kind]}")


def _line(fault: Fault) -> Text:
    where = ""
    if fault.thread is not None:
        where = f"thread {fault.thread.thread} of tenant {fault.thread.tenant}, "
    style = "yellow" if fault.kind is Kind.NOTE else "green" if fault.mended else "bold red"
    text = f"{where}{fault.record}: {fault.text}"
    return Text.assemble((f"{fault.kind.value:<8}", style), words.printable(text))
