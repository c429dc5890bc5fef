"""`checkpoint-router thread delete`: what goes is shown, asked about, deleted, and looked at again.

Rules: nothing goes before everything that would go was shown; each thread's delete names the
generation that was shown, so what began after that is never taken along; threads are deleted one
by one, and an error leaves a message that says how to go on.
"""

from dataclasses import dataclass
from typing import Annotated

import typer

from checkpoint_router.cli import console, documents, words
from checkpoint_router.cli.console import Output
from checkpoint_router.cli.contents import Content, content_of
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
from checkpoint_router.core.ids import ThreadKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """One thread before and after."""

    thread: ThreadKey
    before: Content
    after: Content


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
        keys = [router.key(thread) for thread in dict.fromkeys(threads)]
        before = {key: content_of(router.tree(key)) for key in keys}
        for key in keys:
            said = f"{'deletes' if before[key] else 'has'} {before[key]}"
            console.say(f"thread {words.printable(key.thread)}: {said}")
        stored = [key for key in keys if before[key]]
        if stored:
            _ask(stored, yes)
        done, error = _delete_each(router, stored, before)
        others = _others(router) if error is None else None
    _report(router, done, others, output)
    if error is not None:
        raise _unfinished(error, [k for k in stored if k not in {d.thread for d in done}], done)
    if not stored:
        console.complain("there was nothing to delete.")
        raise typer.Exit(Exit.NEGATIVE)


def _ask(stored: list[ThreadKey], yes: bool) -> None:
    if yes:
        return
    if not console.can_ask():
        console.complain(
            "deleting needs a yes, and nobody is here to give it. Nothing was deleted.",
            "add --yes if you mean it.",
        )
        raise typer.Exit(Exit.REFUSED)
    if not typer.confirm(f"Delete {words.count(len(stored), 'thread')} for good?", err=True):
        console.say("Nothing was deleted.")
        raise typer.Exit(Exit.NEGATIVE)


def _delete_each(
    router: Link, stored: list[ThreadKey], before: dict[ThreadKey, Content]
) -> tuple[list[Deleted], RouterError | None]:
    done: list[Deleted] = []
    for key in stored:
        try:
            router.delete(key, before[key].generation)
            after = content_of(router.tree(key))
        except RouterError as e:
            return done, e
        done.append(Deleted(thread=key, before=before[key], after=after))
    return done, None


def _others(router: Link) -> int:
    """How many threads the tenant has left."""
    return sum(1 for _ in router.threads())


def _report(router: Link, done: list[Deleted], others: int | None, output: Output) -> None:
    if output is Output.JSON:
        body = {
            "tenant": router.tenant,
            "deleted": [
                {
                    "thread_id": d.thread.thread,
                    "before": documents.content(d.before),
                    "after": documents.content(d.after),
                }
                for d in done
            ],
            "threads_left": others,
        }
        console.document("thread.delete", body)
        return
    for d in done:
        console.line(
            f"deleted {words.printable(d.thread.thread)}: {d.before}; left of it: {d.after}"
        )
    if done and others is not None:
        named = words.printable(router.tenant)
        console.say(f"left in tenant {named}: {words.count(others, 'thread')}.")


def _unfinished(error: RouterError, left: list[ThreadKey], done: list[Deleted]) -> typer.Exit:
    names = " ".join(words.quoted(key.thread) for key in left)
    tenant = words.quoted(left[0].tenant)
    again = f"checkpoint-router thread delete {names} --tenant {tenant} --yes"
    if not done:
        console.complain(error.message, next_step(error) or f"look again, then `{again}`.")
        return typer.Exit(exit_of(error))
    console.complain(
        f"{words.count(len(done), 'thread')} deleted, {len(left)} not: {error.message}",
        f"the rest goes with `{again}`; what is gone stays gone.",
    )
    return typer.Exit(Exit.PARTLY)
