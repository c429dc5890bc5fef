"""How a command ends: one exit code for each kind of end, and for each error the next thing to try.

Rules: 0 is given only for work that is done; a script can tell "asked and answered no" from "could
not ask"; the text of an error goes to standard error, never among the data.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from checkpoint_router.core import errors


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    DONE = 0
    NEGATIVE = 1
    """It ran, and the answer is no: nothing found, a check failed, the question was declined."""
    USAGE = 2
    """The command as given can never work."""
    UNREACHABLE = 3
    """No router answered in time."""
    REFUSED = 4
    """A router, or a rule, said no. Nothing was changed."""
    PARTLY = 5
    """Some of it is done. The message says how to go on."""


def exit_of(error: errors.RouterError) -> Exit:
    """The exit code for a command that ended with `error`."""
    match error:
        case errors.Unavailable() | errors.DeadlineExceeded() | errors.Overloaded():
            return Exit.UNREACHABLE
        case errors.InvalidArgument():
            return Exit.USAGE
        case errors.RouterError() if "field" in error.attributes:
            return Exit.USAGE  # a limit that names its field is about what the command was given
        case errors.DataLoss():
            return Exit.NEGATIVE
        case _:
            return Exit.REFUSED


@contextmanager
def about_a_storage() -> Iterator[None]:
    """A storage that does not answer is not a router that is away: starting one is no help."""
    try:
        yield
    except errors.Unavailable as e:
        raise errors.Refused(e.message, **e.attributes) from None


def next_step(error: errors.RouterError) -> str:
    """A command, or an act, that helps after `error`; empty if its own message says it."""
    command = "`checkpoint-router"
    match error:
        case errors.DeadlineExceeded():
            return f"see with {command} doctor` whether it is well, or raise --timeout SECONDS."
        case errors.Overloaded():
            return f"try again shortly; {command} doctor` shows what the router is doing."
        case errors.Unavailable():
            name = "name the one you mean with --target router://HOST:PORT."
            return f"start a router with {command} dev`, or {name}"
        case errors.DataLoss():
            return f"read the router's whole storage with {command} shard check --storage URL`."
        case errors.LimitExceeded() if "field" not in error.attributes:
            return f"{command} thread history` goes through a large thread page by page."
        case errors.InvalidArgument():
            return "see the command's --help for what it takes."
        case _:
            return ""
