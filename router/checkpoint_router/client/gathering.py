"""Calls of `put_writes` that are stored together: what a run's tasks wrote on one checkpoint while
another such call was on its way.

Owner: a run. One call for a checkpoint is under way at a time. Those that come meanwhile form a
batch, one event, and the first of its callers that is still there makes its call. Nobody waits for
more to come, so a call that is alone is as fast as ever; fifty tasks that end at once are two
events, not fifty. Nothing here does any input or output, and only `Turn.wait` waits.

Rules: a caller takes part from the moment it waits, never before. A call is answered when its batch
was stored, and fails as that fails. Who makes a batch's call and has to go, cancelled or because
its time is over, hands it on to the next, with its event if that was sent already: the same bytes
again have the effect of one. So each caller has the whole of its own time.
"""

import asyncio
import contextlib
import copy
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from typing import Any, Final

from checkpoint_router.client.running import running_loop
from checkpoint_router.core import limits
from checkpoint_router.core.answers import NewBlob
from checkpoint_router.core.errors import RouterError
from checkpoint_router.core.records import Event, TaskWrites, WriteSet

WORKERS: Final = object()
"""All callers of the sync half."""

Place = tuple[str, str, object]
"""(namespace, checkpoint id, whose callers): the tasks of one loop, or `WORKERS`. A worker that
waits may be the one that a loop needs, and a loop may stand still, so neither waits for another."""


class Batch:
    """Calls that share one event."""

    def __init__(self) -> None:
        self.blobs: list[NewBlob] = []
        self.event: Event | None = None
        """Once it was made."""
        self._tasks: list[TaskWrites] = []
        self._turns: deque[Turn] = deque()
        """Of the callers that wait, the one that makes the call left out."""
        self._rows = 0
        self._bytes = 0

    def _takes(self, rows: int, size: int) -> bool:
        return (
            len(self._tasks) < limits.WRITE_TASKS_MAX
            and self._rows + rows <= limits.WRITE_ROWS_MAX
            and self._bytes + size <= limits.WRITE_SET_BYTES_MAX
        )

    def _add(self, task: TaskWrites, blobs: Sequence[NewBlob], size: int) -> None:
        self._tasks.append(task)
        self.blobs += blobs
        self._rows += len(task.rows)
        self._bytes += size


class Turn:
    """A caller's wait. Its outcome is the batch whose call it shall make, or None if the batch was
    stored by another; or it raises what the batch failed with."""

    def __init__(self, batch: Batch, callers: object) -> None:
        self.batch = batch
        self._loop = callers if isinstance(callers, asyncio.AbstractEventLoop) else None
        self._future: Future[Batch | None] | asyncio.Future[Batch | None]
        self._future = self._loop.create_future() if self._loop else Future()
        self._leads = False

    @property
    def over(self) -> bool:
        """Whether there is an outcome."""
        return self._future.done()

    def wait(self) -> Batch | None:
        """The outcome, for a worker. It has no limit: who makes the call has a deadline."""
        assert isinstance(self._future, Future)
        return self._future.result()

    def __await__(self) -> Generator[Any, Any, Batch | None]:
        """The outcome, for a task of the callers' loop."""
        assert isinstance(self._future, asyncio.Future)
        return self._future.__await__()

    def _tell(self, outcome: Batch | BaseException | None) -> None:
        if self._loop is None or self._loop is running_loop():
            self._settle(outcome)
            return
        with contextlib.suppress(RuntimeError):  # of a closed loop: its tasks have gone, too
            self._loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: Batch | BaseException | None) -> None:
        if self._future.done():  # cancelled: who waited has left, or is about to
            return
        if isinstance(outcome, BaseException):
            own = copy.copy(outcome) if isinstance(outcome, RouterError) else outcome
            self._future.set_exception(own)
        else:
            self._future.set_result(outcome)


class Gathering:
    """The batches of one run. Safe to use from any worker and any loop at once."""

    def __init__(self) -> None:
        # A call that is collected as garbage leaves, in whichever method its thread is just then.
        self._lock = threading.RLock()
        self._waiting: dict[Place, deque[Batch]] = {}
        """For each place at which a call is under way: the batches after that one."""

    def join(
        self, place: Place, task: TaskWrites, blobs: Sequence[NewBlob], size: int
    ) -> Batch | Turn:
        """The batch, if the caller shall make its call now; else when it will know more. `size`:
        the bytes of the task's values."""
        batch, waiting = Batch(), deque[Batch]()
        with self._lock:
            under_way = self._waiting.setdefault(place, waiting)
            if under_way is waiting:
                batch._add(task, blobs, size)
                return batch
            turn = Turn(batch, place[2])
            begun = under_way[-1] if under_way else None
            if begun is not None and begun._takes(len(task.rows), size):
                turn.batch = begun
            turn.batch._add(task, blobs, size)
            turn.batch._turns.append(turn)
            if turn.batch is batch:
                under_way.append(batch)
            if place not in self._waiting:  # what was under way has left in the midst of this
                self._waiting[place] = under_way
                self._go_on(place)
            return turn

    def content(self, batch: Batch) -> WriteSet:
        """What its event holds. Nobody joins it any more."""
        with self._lock:
            return WriteSet(tasks=tuple(batch._tasks))

    def ended(self, place: Place, batch: Batch, outcome: BaseException | None = None) -> None:
        """The batch was stored, or failed. The next one is on its way then."""
        with self._lock:
            turns = list(batch._turns)
            batch._turns.clear()
        for turn in turns:
            turn._tell(outcome)
        self._go_on(place)

    def hand_on(self, place: Place, batch: Batch) -> bool:
        """Whether another caller makes the batch's call now. If not, it is over."""
        turn = self._next_of(batch)
        if turn is None:
            self._go_on(place)
            return False
        turn._tell(batch)
        return True

    def leave(self, place: Place, turn: Turn) -> bool:
        """The caller waits no more. Whether others care for its batch; what it wrote may be stored
        all the same."""
        with self._lock:
            if turn in turn.batch._turns:
                turn.batch._turns.remove(turn)
        return self.hand_on(place, turn.batch) if turn._leads else True

    def _go_on(self, place: Place) -> None:
        while True:
            with self._lock:
                waiting = self._waiting[place]
                if not waiting:
                    del self._waiting[place]
                    return
                batch = waiting.popleft()
            turn = self._next_of(batch)
            if turn is not None:
                turn._tell(batch)
                return

    def _next_of(self, batch: Batch) -> Turn | None:
        with self._lock:
            if not batch._turns:
                return None
            turn = batch._turns.popleft()
            turn._leads = True
            return turn
