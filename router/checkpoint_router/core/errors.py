"""One error root. Each class has a stable reason, says whether a retry can help, and teaches.

A message says what happened, why, what became of the data, and what to do next. The same text
reaches the agent's traceback, the command line and the router's log.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

DOMAIN = "checkpoint-router"
"""`ErrorInfo.domain` of every status that a router sends."""


class RouterError(Exception):
    """Root of all errors that this project raises on purpose.

    `attributes` are short strings for machines; they travel as `ErrorInfo.metadata`.
    """

    reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **attributes: str) -> None:
        super().__init__(message)
        self.message = message
        self.attributes = attributes

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.attributes)


def _rebuild(cls: type[RouterError], message: str, attributes: dict[str, str]) -> RouterError:
    return cls(message, **attributes)


class InvalidArgument(RouterError, ValueError):
    """The call can never succeed as it stands."""

    reason = "INVALID_ARGUMENT"


class WrongType(InvalidArgument, TypeError):
    """An argument is of a type that the call cannot take. A TypeError too, as it would be."""

    reason = "WRONG_TYPE"


class MissingId(InvalidArgument, KeyError):
    """A config lacks an id that the call needs. A KeyError too, as stock savers raise."""

    reason = "MISSING_ID"

    def __str__(self) -> str:  # KeyError would print the repr
        return self.message


class LimitExceeded(RouterError):
    """Something is larger than `core.limits` allows. Nothing was written."""

    reason = "LIMIT_EXCEEDED"


class Overloaded(RouterError):
    """The router holds as much work as it may. Nothing was written; try again shortly."""

    reason = "OVERLOADED"
    retryable = True


class TokenInvalid(RouterError):
    """A causal token was not made by this system, or is for another thread."""

    reason = "TOKEN_INVALID"


class Stale(RouterError):
    """The router does not know events that the call rests on. Nothing was written or shown."""

    reason = "STALE"
    retryable = True


class ThreadDeleted(RouterError):
    """The run that called began before the thread was deleted. Nothing was written."""

    reason = "THREAD_DELETED"

    @classmethod
    def of(cls, thread: str, held: int, current: int) -> "ThreadDeleted":
        return cls(
            f"thread {thread!r} was deleted while this run was going on (run: generation {held}, "
            f"now: {current}). Nothing was written. Start a new run to begin the thread anew.",
            thread=thread,
            held=str(held),
            current=str(current),
        )


class DigestMismatch(RouterError):
    """One event id came with two contents, which no correct client sends. Nothing was written."""

    reason = "DIGEST_MISMATCH"


class DataLoss(RouterError):
    """Stored bytes are missing or fail their checksum. The message names thread and record."""

    reason = "DATA_LOSS"


class Unavailable(RouterError):
    """The router or its storage cannot serve now. Outcome unknown if a put was under way; the
    same call may be repeated and has the effect of one."""

    reason = "UNAVAILABLE"
    retryable = True


class DeadlineExceeded(RouterError):
    """The call's time ended. Of a write the outcome is unknown; a repeat has the effect of one."""

    reason = "DEADLINE_EXCEEDED"


def unanswered(call: str) -> str:
    """What became of a call (`get_tuple`, `GetTuple`) that got no answer, and what to do next."""
    if call.lower().startswith(("get", "list")):
        return "It only reads, so nothing was changed; call again."
    return "Whether it took effect is unknown; the same call again has the effect of one."


class Refused(RouterError):
    """Settings or stored data that this version must not touch. Nothing was changed."""

    reason = "REFUSED"


class StorageInUse(Refused):
    """Another process holds the storage."""

    reason = "STORAGE_IN_USE"


class UnknownStorage(InvalidArgument):
    """A storage URL whose scheme no backend serves."""

    reason = "UNKNOWN_STORAGE"


class SerialisationError(RouterError, TypeError):
    """A value could not be serialised or read back; the message names channel and path."""

    reason = "SERIALISATION"


class ForkedSaver(RouterError, RuntimeError):
    """A saver is used in a forked child of a process that had used one."""

    reason = "FORKED_SAVER"


class SaverClosed(RouterError, RuntimeError):
    """A saver was used after `close`. Its clones share its links, so one close is for all."""

    reason = "SAVER_CLOSED"


def _subclasses(cls: type[RouterError]) -> Iterable[type[RouterError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def by_reason() -> dict[str, type[RouterError]]:
    """Reason to class, for turning a status back into the error that it was."""
    classes: list[type[RouterError]] = [RouterError, *_subclasses(RouterError)]
    return {cls.reason: cls for cls in classes}
