"""The one who writes: group commit, and what a failure in a group means for each call.

Owner: a thread of its own has the connection, `Changes` and the commit number. The loop hands it
jobs and gets one answer per group of them, after the commit is on disk and marked. While the thread
has nothing to do, the disk syncs quickly and the job is a small one, the loop does it itself: to
wake a thread and be woken by it takes longer than such a commit.

Rules: a group is all that waits, at most `GROUP_PUTS_MAX` jobs or `GROUP_BYTES_MAX` bytes. If a
job fails, the transaction is rolled back and each job of the group is done again alone, so a
failure hits only the job it belongs to (a savepoint each would do the same, and cost each job
what only failures need to cost). If the commit itself fails, all of the group are Unavailable.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from checkpoint_router.backends.sqlite.changes import Changes, WentBack
from checkpoint_router.backends.sqlite.faults import fault
from checkpoint_router.backends.sqlite.mark import Mark, MarkFile, commit_seq
from checkpoint_router.backends.sqlite.watch import Watch
from checkpoint_router.core import limits
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.core.ids import ThreadKey

T = TypeVar("T")

JOB_BYTES: Final = 1024
"""Counted for a job beside its payload: index pages are written too."""

WAL_BYTES_MAX: Final = 16 * limits.MIB
"""About this much is written to the log before it is copied into the file. Larger: reads look
through more of the log. Smaller: hot pages are copied more often."""


SMALL_JOBS: Final = 2
SMALL_BYTES: Final = 64 * limits.KIB
"""What the loop may write by itself: a millisecond of statements at the most."""

QUICK_SECONDS: Final = 0.001
"""A disk is quick while its commits take less: while the loop waits for one, it answers nobody."""

_OF_THE_LAST: Final = 1 / 8
"""What the last commit counts for in the time that one takes, unless it took longer."""


class Job(msgspec.Struct, kw_only=True):
    """One verb's work in a transaction."""

    work: Callable[[Changes], Any]
    thread: ThreadKey | None
    record: object
    """What an error names."""
    bytes: int
    small: bool
    answer: asyncio.Future[Any]


Outcome = tuple[Job, Any, BaseException | None]


class Writer:
    """From `start` to `stop`."""

    def __init__(
        self,
        conn: sqlite3.Connection,
        mark: MarkFile,
        watch: Watch,
        loop: asyncio.AbstractEventLoop,
        wal_is_large: Callable[[], None],
    ) -> None:
        self.conn = conn
        self.alarms: list[str] = []
        self._changes = Changes(conn)
        self._mark = mark
        self._watch = watch
        self._loop = loop
        self._wal_is_large = wal_is_large
        self._seq = commit_seq(conn)
        self._wal = Path(f"{conn.execute('PRAGMA database_list').fetchone()[2]}-wal")
        self._wal_bytes = 0
        """Of the file, after the last group: it may be empty beyond what it holds, but grows only
        when it is full."""
        self._written = 0
        self._wal_is_copied = threading.Event()
        self._commit_seconds = 0.0
        """About what a commit takes lately."""
        self._coming: list[Job] = []
        """Of this turn of the loop."""
        self._handed = 0
        """Jobs that the thread has: while there are any, all else is the thread's."""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._stopped = False

    @property
    def actor(self) -> int:
        """Whose dots are given out now."""
        return self._changes.actor

    def start(self) -> None:
        """Draws the actor, durably, then takes jobs. Raises sqlite3.Error."""
        # What one large removal wrote is given back when the log begins anew.
        self.conn.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
        self._new_actor()
        self._thread.start()

    def copy_wal(self) -> None:
        """Has the log copied into the file, soon."""
        self._wal_is_large()

    def wal_is_copied(self) -> None:
        """Somebody copied the log into the file, but for what was written meanwhile."""
        self._wal_is_copied.set()

    async def stop(self) -> None:
        """Ends what was handed in before, durably."""
        if not self._stopped:
            self._stopped = True
            self._hand_over()
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    async def do(
        self,
        work: Callable[[Changes], T],
        *,
        thread: ThreadKey | None = None,
        record: object = "the database",
        bytes: int = 0,
        small: bool = False,
    ) -> T:
        """What `work` returns, durable. Raises what it raises, or Unavailable. `small`: what it
        does is bounded by its bytes."""
        if self._stopped:
            raise Unavailable("the storage is closed. Nothing was written.")
        self._watch.refuse_lost()
        job = Job(
            work=work,
            thread=thread,
            record=record,
            bytes=bytes + JOB_BYTES,
            small=small,
            answer=self._loop.create_future(),
        )
        self._coming.append(job)
        if len(self._coming) == 1:
            # Not at once: what else this turn of the loop brings shall share the commit, and a
            # thread that is woken for each job holds up the loop that makes the next.
            self._loop.call_soon(self._hand_over)
        answer: T = await job.answer
        return answer

    def _hand_over(self) -> None:
        jobs, self._coming = self._coming, []
        if self._is_for_the_loop(jobs):
            self._answer(self._done(jobs))
            return
        self._handed += len(jobs)
        for job in jobs:
            self._jobs.put(job)

    def _is_for_the_loop(self, jobs: list[Job]) -> bool:
        return (
            0 < len(jobs) <= SMALL_JOBS
            and not self._handed
            and self._commit_seconds < QUICK_SECONDS
            and not self._wal_is_copied.is_set()
            and all(job.small for job in jobs)
            and sum(job.bytes for job in jobs) <= SMALL_BYTES
        )

    def _answer(self, outcomes: list[Outcome]) -> None:
        for job, value, error in outcomes:
            if job.answer.done():
                continue
            if error is None:
                job.answer.set_result(value)
            else:
                job.answer.set_exception(error)

    # The thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        more = True
        while more:
            first = self._jobs.get()
            if first is None:
                return
            group, more = self._group(first)
            outcomes = self._done(group)
            with contextlib.suppress(RuntimeError):
                # Of a closed loop: nobody waits for the answers any more.
                self._loop.call_soon_threadsafe(self._answer_handed, outcomes)

    def _answer_handed(self, outcomes: list[Outcome]) -> None:
        self._handed -= len(outcomes)
        self._answer(outcomes)

    # Either ----------------------------------------------------------------------------------

    def _done(self, group: list[Job]) -> list[Outcome]:
        if self._wal_is_copied.is_set():
            self._finish_copy()
        if self._changes.actor_is_full():
            self._quietly(self._new_actor)
        try:
            return self._commit(group)
        except Exception as e:  # noqa: BLE001  (nobody would ever be answered again)
            return [(job, None, e) for job in group]
        finally:
            self._count(group)

    def _group(self, first: Job) -> tuple[list[Job], bool]:
        group, size = [first], first.bytes
        while len(group) < limits.GROUP_PUTS_MAX and size < limits.GROUP_BYTES_MAX:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, False
            group.append(job)
            size += job.bytes
        return group, True

    def _commit(self, group: list[Job]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        job, begun = group[0], time.perf_counter()
        try:
            self.conn.execute("BEGIN IMMEDIATE")
            before = self.conn.total_changes
            self._changes.begun(self._seq + 1)
            self._changes.look()
            for job in group:
                outcomes.append((job, job.work(self._changes), None))
            self._changes.finish()
        except Exception as e:  # noqa: BLE001  (each job gets its own; the thread must live)
            self._commit_took(time.perf_counter() - begun)  # it may have waited for a lock
            self._roll_back()
            self._watch.failed(e)
            if isinstance(e, WentBack):
                e = self._went_back()
            if len(group) > 1:
                return [outcome for job in group for outcome in self._commit([job])]
            return [(job, None, _error(e, job))]
        try:
            self._end(changed=self.conn.total_changes != before)
        except Exception as e:  # noqa: BLE001  (all of the group get it; the thread must live)
            self._roll_back()
            self._watch.failed(e)
            return [(job, None, _error(e, job)) for job in group]
        return outcomes

    def _end(self, *, changed: bool) -> None:
        begun = time.perf_counter()
        self.conn.execute("COMMIT")
        self._commit_took(time.perf_counter() - begun)
        self._changes.committed()
        if changed:
            self._count_commit()
        self._watch.committed(changed=changed)

    def _commit_took(self, seconds: float) -> None:
        lately = self._commit_seconds
        self._commit_seconds = max(seconds, lately + (seconds - lately) * _OF_THE_LAST)

    def _count_commit(self) -> None:
        self._seq += 1
        # What is committed is committed, whether or not the mark beside it can be written.
        self._quietly(lambda: self._mark.write(Mark(self._changes.actor, self._seq)))

    def _roll_back(self) -> None:
        self._changes.rolled_back()
        if self.conn.in_transaction:
            self._quietly(lambda: self.conn.execute("ROLLBACK"))

    def _went_back(self) -> Exception:
        text = (
            "the database file lost events of this process while it was open: it was changed "
            "from outside. Stop the router and put back the newest copy of the directory."
        )
        self.alarms.append(text)
        self._quietly(self._new_actor)
        return Unavailable(f"{text} The call may be repeated.")

    def _new_actor(self) -> None:
        """In a transaction of its own: no dot of it is given before it is recorded."""
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            self._changes.begun(self._seq + 1)
            actor, row = self._changes.record_actor()
            self._changes.finish()
            self.conn.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back()
            raise
        self._changes.take_actor(actor, row)
        self._count_commit()

    def _quietly(self, work: Callable[[], object]) -> None:
        """For what may fail without harm: it is tried again when it is due again."""
        try:
            work()
        except (sqlite3.Error, OSError) as e:
            self._watch.failed(e)

    def _finish_copy(self) -> None:
        """Copies the little that came meanwhile: only a log that is copied whole begins anew."""
        self._wal_is_copied.clear()
        self._quietly(lambda: self.conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())

    def _count(self, group: list[Job]) -> None:
        # Payload is written once, and pages of indices around it: about as much again. What a
        # removal writes depends on what it finds, so a log that grows is large as well.
        self._written += 2 * sum(job.bytes for job in group) + 8 * 8 * limits.KIB
        before = self._wal_bytes
        with contextlib.suppress(OSError):  # that the file is gone, the watch says
            self._wal_bytes = self._wal.stat().st_size
        if self._written > WAL_BYTES_MAX or self._wal_bytes > max(before, WAL_BYTES_MAX):
            self._written = 0
            self._wal_is_large()


def _error(error: Exception, job: Job) -> Exception:
    return fault(error, job.thread, job.record) if isinstance(error, sqlite3.Error) else error
