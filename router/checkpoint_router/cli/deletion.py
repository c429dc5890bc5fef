"""`checkpoint-router thread delete`: what goes is shown, asked about, deleted, and looked at again.

Rules: nothing goes before everything that would go was shown; each thread's delete names the
generation that was shown, so what began after that is never taken along; threads are deleted one
by one, and an error leaves a message that says how to go on.
"""

from contextlib import suppress
from typing import Annotated, Any

import typer

from checkpoint_router.cli import console, words
from checkpoint_router.cli.console import Output
from checkpoint_router.cli.documents import content
from checkpoint_router.cli.exits import Exit, exit_of, next_step
from checkpoint_router.cli.link import Link
from checkpoint_router.cli.options import (
    TARGET_DEFAULT,
    TIMEOUT_SECONDS_DEFAULT,
    Format,
    Target,
    Tenant,
    ThreadIds,
    Timeout,
    link,
)
from checkpoint_router.core.errors import RouterError


def delete(
    threads: ThreadIds,
    target: Target = TARGET_DEFAULT,
    tenant: Tenant = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask. Needed where nobody can answer.")
    ] = False,
    output: Format = Output.TABLE,
    timeout: Timeout = TIMEOUT_SECONDS_DEFAULT,
) -> None:
    """Delete threads for good: every namespace, value, write and conflict record of theirs.

    Runs that go on while their thread is deleted get an error and write nothing more. The thread
    ids can be used again.

    \b
    Examples:
      checkpoint-router thread delete trip-42
      checkpoint-router thread delete trip-42 trip-43 --yes --output json
    """
    with link(target, tenant, timeout) as router:
        before = {thread: content(router.tree(thread)) for thread in dict.fromkeys(threads)}
        for thread, held in before.items():
            verb = "deletes" if _some(held) else "has"
            console.say(f"thread {words.printable(thread)}: {verb} {words.held(held)}")
        stored = {thread: held for thread, held in before.items() if _some(held)}
        if stored:
            _ask(len(stored), yes)
        deleted, error = _delete_each(router, stored)
        left = None
        if error is None:
            with suppress(RouterError):  # what was deleted is said all the same
                left = sum(1 for _ in router.threads())
    if output is Output.JSON:
        body = {"tenant": router.tenant, "deleted": deleted, "threads_left": left}
        console.document("thread.delete", body)
    else:
        for d in deleted:
            name = words.printable(d["thread_id"])
            said = f"{words.held(d['before'])}; left of it: {words.held(d['after'])}"
            console.line(f"deleted {name}: {said}")
        if deleted and left is not None:
            where = f"tenant {words.printable(router.tenant)}"
            console.say(f"left in {where}: {words.count(left, 'thread')}.")
    if error is not None:
        raise _unfinished(error, list(stored)[len(deleted) :], router.tenant, len(deleted))
    if not stored:
        console.complain(
            "there was nothing to delete.",
            "see which threads there are with `checkpoint-router thread list "
            f"--tenant {words.quoted(router.tenant)}`.",
        )
        raise typer.Exit(Exit.NEGATIVE)


def _some(held: dict[str, int]) -> bool:
    return bool(held["checkpoints"] or held["writes"])


def _ask(number: int, yes: bool) -> None:
    if yes:
        return
    if not console.can_ask():
        console.complain(
            "deleting needs a yes, and nobody is here to give it. Nothing was deleted.",
            "add --yes if you mean it.",
        )
        raise typer.Exit(Exit.REFUSED)
    if not typer.confirm(f"Delete {words.count(number, 'thread')} for good?", err=True):
        console.say("Nothing was deleted.")
        raise typer.Exit(Exit.NEGATIVE)


def _delete_each(
    router: Link, stored: dict[str, dict[str, int]]
) -> tuple[list[dict[str, Any]], RouterError | None]:
    """What became of each, as JSON has it, up to the first that failed."""
    deleted: list[dict[str, Any]] = []
    for thread, before in stored.items():
        try:
            router.delete(thread, before["generation"])
            after = content(router.tree(thread))
        except RouterError as e:
            return deleted, e
        deleted.append({"thread_id": thread, "before": before, "after": after})
    return deleted, None


def _unfinished(error: RouterError, left: list[str], tenant: str, done: int) -> typer.Exit:
    names = " ".join(map(words.quoted, left))
    again = f"checkpoint-router thread delete {names} --tenant {words.quoted(tenant)} --yes"
    if not done:
        console.complain(error.message, next_step(error) or f"look again, then `{again}`.")
        return typer.Exit(exit_of(error))
    console.complain(
        f"{words.count(done, 'thread')} deleted, {len(left)} not: {error.message}",
        f"the rest goes with `{again}`; what is gone stays gone.",
    )
    return typer.Exit(Exit.PARTLY)
