"""The one thread that writes: group commit, and what a failure in a group means for each call.

Owner: the thread owns the connection, `Changes` and the commit number. The loop hands it jobs
and gets one answer per group of them, after the commit is on disk and marked.

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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One verb's work in a transaction."""

    work: Callable[[Changes], Any]
    thread: ThreadKey | None
    record: object
    """What an error names."""
    bytes: int
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
        self._coming: list[Job] = []
        """Of this turn of the loop."""
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
    ) -> T:
        """What `work` returns, durable. Raises what it raises, or Unavailable."""
        if self._stopped:
            raise Unavailable("the storage is closed. Nothing was written.")
        self._watch.refuse_lost()
        job = Job(
            work=work,
            thread=thread,
            record=record,
            bytes=bytes + JOB_BYTES,
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
        for job in self._coming:
            self._jobs.put(job)
        self._coming.clear()

    # The thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        more = True
        while more:
            first = self._jobs.get()
            if first is None:
                return
            group, more = self._group(first)
            if self._wal_is_copied.is_set():
                self._finish_copy()
            if self._changes.actor_is_full():
                self._quietly(self._new_actor)
            self._loop_call(self._outcomes(group))
            self._count(group)

    def _outcomes(self, group: list[Job]) -> list[Outcome]:
        try:
            return self._commit(group)
        except Exception as e:  # noqa: BLE001  (nobody would ever be answered again)
            return [(job, None, e) for job in group]

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
        job = group[0]
        try:
            self.conn.execute("BEGIN IMMEDIATE")
            before = self.conn.total_changes
            self._changes.begun(self._seq + 1)
            self._changes.look()
            for job in group:
                outcomes.append((job, job.work(self._changes), None))
            self._changes.finish()
        except Exception as e:  # noqa: BLE001  (each job gets its own; the thread must live)
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
        self.conn.execute("COMMIT")
        self._changes.committed()
        if changed:
            self._count_commit()
        self._watch.committed(changed=changed)

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

    def _loop_call(self, outcomes: list[Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(_answer, outcomes)
        except RuntimeError:
            # The loop was closed: nobody waits for the answers any more.
            return

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


def _answer(outcomes: list[Outcome]) -> None:
    for job, value, error in outcomes:
        if job.answer.done():
            continue
        if error is None:
            job.answer.set_result(value)
        else:
            job.answer.set_exception(error)


def _error(error: Exception, job: Job) -> Exception:
    return fault(error, job.thread, job.record) if isinstance(error, sqlite3.Error) else error
