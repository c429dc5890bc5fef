"""Calls of `put_writes` that are stored together: what a run's tasks wrote on one checkpoint while
another such call was on its way.

Owner: a run. One call for a checkpoint is under way at a time. Those that come meanwhile form a
batch, one event, and the first of its callers that is still there makes its call. Nobody waits for
more to come, so a call that is alone is as fast as ever; fifty tasks that end at once are two
events, not fifty. Nothing here waits or does any input or output.

Rules: a call is answered when its batch was stored, and fails as that fails. If a batch is refused,
each of its calls is made alone, so none fails for another's sake. A caller that is cancelled hands
the batch on, with its event if that was sent already: the same bytes again have the effect of one.
"""

import copy
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.records import Event, TaskWrites, WriteSet

WORKERS: Final = object()
"""All callers of the sync half."""

Place = tuple[str, str, object]
"""(namespace, checkpoint id, whose callers): the tasks of one loop, or `WORKERS`. A worker that
waits may be the one that a loop needs, and a loop may stand still, so neither waits for another."""


class Batch:
    """Calls that share one event."""

    def __init__(self) -> None:
        self.tasks: list[TaskWrites] = []
        self.blobs: list[NewBlob] = []
        self.event: Event | None = None
        """Once it was made."""
        self.began = time.monotonic()
        """When the first of the calls came."""
        self._turns: deque[Turn] = deque()
        """Of the callers that wait, the one that makes the call left out."""
        self._rows = 0
        self._bytes = 0

    @property
    def content(self) -> WriteSet:
        """What the event holds."""
        return WriteSet(tasks=tuple(self.tasks))

    @property
    def shared(self) -> bool:
        """Whether others wait for it too."""
        return bool(self._turns)

    def _takes(self, rows: int, size: int) -> bool:
        return (
            len(self.tasks) < limits.WRITE_TASKS_MAX
            and self._rows + rows <= limits.WRITE_ROWS_MAX
            and self._bytes + size <= limits.WRITE_SET_BYTES_MAX
        )

    def _add(self, task: TaskWrites, blobs: Sequence[NewBlob], size: int) -> None:
        self.tasks.append(task)
        self.blobs += blobs
        self._rows += len(task.rows)
        self._bytes += size


class Alone:
    """The batch was refused: each call is made by itself."""


ALONE: Final = Alone()


class Turn:
    """A caller's wait. Its result is the batch whose call it shall make, None if the batch was
    stored by another, or `ALONE`; or it raises what the batch failed with."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.future: Future[Batch | Alone | None] = Future()
        # From now on nobody can cancel it: what it brings may have to be handed on.
        self.future.set_running_or_notify_cancel()
        self._leads = False


class Gathering:
    """The batches of one run. Safe to use from any worker and any loop at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Place, deque[Batch]] = {}
        """For each checkpoint to which a call is under way: the batches after that one."""

    def join(
        self, place: Place, task: TaskWrites, blobs: Sequence[NewBlob], size: int
    ) -> Batch | Turn:
        """The batch, if the caller shall make its call now; else when it will know more. `size`:
        the bytes of the task's values."""
        with self._lock:
            waiting = self._waiting.get(place)
            if waiting is None:
                self._waiting[place] = deque()
                batch = Batch()
            elif waiting and waiting[-1]._takes(len(task.rows), size):
                batch = waiting[-1]
            else:
                batch = Batch()
                waiting.append(batch)
            batch._add(task, blobs, size)
            if waiting is None:
                return batch
            turn = Turn(batch)
            batch._turns.append(turn)
            return turn

    def ended(
        self, place: Place, batch: Batch, outcome: Alone | BaseException | None = None
    ) -> None:
        """The batch was stored, or refused, or failed. The next one is on its way then."""
        with self._lock:
            turns = list(batch._turns)
            batch._turns.clear()
            waiting = self._waiting[place]
            following = waiting.popleft() if waiting else None
            if following is None:
                del self._waiting[place]
        for turn in turns:
            if isinstance(outcome, BaseException):
                turn.future.set_exception(copy.copy(outcome))
            else:
                turn.future.set_result(outcome)
        if following is not None:
            self.hand_on(place, following)

    def hand_on(self, place: Place, batch: Batch) -> None:
        """Another caller makes the batch's call; without one it is over."""
        with self._lock:
            turn = batch._turns.popleft() if batch._turns else None
            if turn is not None:
                turn._leads = True
        if turn is None:
            self.ended(place, batch)
        else:
            turn.future.set_result(batch)

    def leave(self, place: Place, turn: Turn) -> None:
        """The caller waits no more. What it wrote may be stored all the same."""
        with self._lock:
            leads = turn._leads
            if turn in turn.batch._turns:
                turn.batch._turns.remove(turn)
        if leads:
            self.hand_on(place, turn.batch)
