"""`checkpoint-router thread …`: looking at threads, and deleting them.

Rules: no command needs LangGraph, and none sees a value; only `delete` changes anything, shows
first what goes, and says afterwards what is left.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Final, TypeVar

import typer

from checkpoint_router.cli import console, documents, words
from checkpoint_router.cli.console import Output
from checkpoint_router.cli.deletion import delete
from checkpoint_router.cli.disputes import draw_conflict
from checkpoint_router.cli.drawing import Look, draw
from checkpoint_router.cli.exits import Exit
from checkpoint_router.cli.link import Link
from checkpoint_router.cli.options import (
    TARGET_DEFAULT,
    TENANT_DEFAULT,
    TIMEOUT_SECONDS_DEFAULT,
    Format,
    Target,
    Tenant,
    ThreadId,
    Timeout,
    link,
)

WIDE_COLUMNS: Final = 150
"""From here on a terminal has room for whole checkpoint ids in a tree."""

_LIST: Final = ("THREAD", "CHECKPOINTS", "EVENTS", "CONFLICTS", "GENERATION", "HEAD", "UPDATED")
_HISTORY: Final = ("CHECKPOINT", "NAMESPACE", "STEP", "SOURCE", "WRITTEN", "WRITES", "WRITTEN BY")

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.command()(delete)

Everything = Annotated[bool, typer.Option("--all", help="Fold nothing, cut nothing off.")]


@app.command("list")
def list_threads(
    target: Target = TARGET_DEFAULT,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many at the most.")] = 100,
    everything: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    output: Format = Output.TABLE,
    timeout: Timeout = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """List the threads of a tenant, by id.

    \b
    Examples:
      checkpoint-router thread list
      checkpoint-router thread list --tenant acme --all --output json
    """
    with link(target, tenant, timeout) as router:
        found, more = _first(router.threads(), None if everything else limit)
    if output is Output.JSON:
        threads = [documents.summary(t) for t in found]
        body = {"tenant": router.tenant, "threads": threads, "more": more}
        console.document("thread.list", body)
    else:
        rows = [
            (
                *(t.thread_id, t.checkpoints, t.events, t.open_conflicts, t.generation),
                *(t.head or "-", words.moment(t.updated_unix_ms)),
            )
            for t in found
        ]
        console.table(_LIST, rows)
    if more:
        console.say(f"There are more than {limit}: raise --limit, or give --all.")
    elif not found:
        named = words.printable(router.tenant)
        console.say(f"Tenant {named} has no threads here; --tenant NAME lists another's.")


@app.command()
def show(
    thread: ThreadId,
    target: Target = TARGET_DEFAULT,
    tenant: Tenant = None,
    everything: Everything = False,
    writes: Annotated[
        bool, typer.Option("--writes", help="The writes of every checkpoint, not of the last ones.")
    ] = False,
    full_ids: Annotated[
        bool, typer.Option("--full-ids", help="Whole ids and times, also on a narrow terminal.")
    ] = False,
    output: Format = Output.TABLE,
    timeout: Timeout = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Draw a thread's checkpoints as a tree: steps, forks, subgraphs, pending writes, sizes.

    The oldest checkpoint is on top. A line goes on with the checkpoint that led to the head (●);
    others that share its parent are forks below it, and losers of a conflict are marked (✗).
    Sizes are those of the record, of all values that it names, and of those that it named first.
    Values are never opened.

    \b
    Examples:
      checkpoint-router thread show trip-42
      checkpoint-router thread show trip-42 --all --writes
      checkpoint-router thread show trip-42 --output json | jq '.checkpoints[-1]'
    """
    with link(target, tenant, timeout) as router:
        found = router.tree(thread)
    if output is Output.JSON:
        console.document("thread.show", _named(router, thread) | documents.tree(found))
    elif found.nodes or found.orphans:
        look = Look(everything=everything, writes=writes, short_ids=_short(full_ids))
        console.show(draw(found, _title(router, thread), look))
        if found.open_conflicts:
            console.say(
                f"{words.count(found.open_conflicts, 'open conflict')}: see "
                f"`checkpoint-router thread conflicts {words.quoted(thread)}"
                f" --tenant {words.quoted(router.tenant)}`."
            )
    if not found.nodes and not found.orphans:
        raise _nothing(router, thread)


@app.command()
def history(
    thread: ThreadId,
    target: Target = TARGET_DEFAULT,
    tenant: Tenant = None,
    namespace: Annotated[
        str | None,
        typer.Option("--ns", metavar="NS", help="Only this namespace; '' is the root graph."),
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="ID", help="Only checkpoints with a smaller id.")
    ] = None,
    losers: Annotated[
        bool, typer.Option("--losers", help="Also what only the loser of a conflict has.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many at the most.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    output: Format = Output.TABLE,
    timeout: Timeout = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """List a thread's checkpoints, newest first, as `get_state_history` goes through them.

    \b
    Examples:
      checkpoint-router thread history trip-42
      checkpoint-router thread history trip-42 --ns '' --limit 5
      checkpoint-router thread history trip-42 --losers --all --output json
    """
    with link(target, tenant, timeout) as router:
        page = None if everything else limit + 1
        query: dict[str, Any] = {"ns": namespace, "before": before, "losers": losers}
        checkpoints = router.history(thread, page=page, **query)
        found, more = _first(checkpoints, None if everything else limit)
    listed = [documents.listed(c) for c in found]
    if output is Output.JSON:
        body = {**_named(router, thread), "checkpoints": listed, "more": more}
        console.document("thread.history", body)
    elif found:
        console.table(_HISTORY, map(_history_row, listed))
    if more:
        console.say(
            "There are older ones: raise --limit, give --all, or "
            f"--before {words.quoted(found[-1].checkpoint_id)}."
        )
    if not found:
        raise _nothing(router, thread, "that matches" if namespace is not None or before else "")


@app.command()
def conflicts(
    thread: ThreadId,
    target: Target = TARGET_DEFAULT,
    tenant: Tenant = None,
    everything: Everything = False,
    check: Annotated[
        bool, typer.Option("--check", help="End with exit code 1 if a record is open.")
    ] = False,
    output: Format = Output.TABLE,
    timeout: Timeout = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Show a thread's conflict records: both sides, what ran twice, and what to do next.

    A conflict is what two runs leave behind that went on from one checkpoint without knowing of
    each other. Nothing of either side is lost.

    \b
    Examples:
      checkpoint-router thread conflicts trip-42
      checkpoint-router thread conflicts trip-42 --check && echo "none is open"
    """
    with link(target, tenant, timeout) as router:
        found = router.conflicts(thread)
        known = bool(found) or router.holds(thread)
    if output is Output.JSON:
        records = [documents.conflict(record) for record in found]
        console.document("thread.conflicts", {**_named(router, thread), "conflicts": records})
    else:
        for record in sorted(found, key=lambda r: (not r.open, r.id)):
            short = _short(full_ids=False)
            console.show(draw_conflict(record, thread, short=short, everything=everything))
    if not known:
        raise _nothing(router, thread)
    still_open = sum(record.open for record in found)
    said = f"{words.count(len(found), 'conflict record')}, {still_open} open."
    console.say(said if found else f"No conflicts in {_title(router, thread)}.")
    if check and still_open:
        raise typer.Exit(Exit.NEGATIVE)


def _history_row(found: documents.Document) -> tuple[str | int, ...]:
    return (
        found["checkpoint_id"],
        found["checkpoint_ns"] or "(root)",
        "?" if found["step"] is None else found["step"],
        found["source"] or "-",
        words.moment(found["written_unix_ms"]),
        len(found["writes"]),
        words.some(write["task"] for write in found["writes"]) or "-",
    )


def _first(items: Iterator[T], limit: int | None) -> tuple[list[T], bool]:
    """The first `limit` of `items`, and whether there are more."""
    found = list(islice(items, None if limit is None else limit + 1))
    return found[:limit], len(found) > len(found[:limit])


def _named(router: Link, thread: str) -> documents.Document:
    return {"tenant": router.tenant, "thread_id": thread}


def _title(router: Link, thread: str) -> str:
    of = "" if router.tenant == TENANT_DEFAULT else f" of tenant {words.printable(router.tenant)}"
    return f"thread {words.printable(thread)}{of}"


def _short(full_ids: bool) -> bool:
    return not full_ids and console.width() < WIDE_COLUMNS


def _nothing(router: Link, thread: str, what: str = "") -> typer.Exit:
    console.complain(
        f"{_title(router, thread)} has nothing stored {what}".rstrip() + ".",
        "see which threads there are with "
        f"`checkpoint-router thread list --tenant {words.quoted(router.tenant)}`.",
    )
    return typer.Exit(Exit.NEGATIVE)
