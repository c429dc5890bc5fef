"""The one who writes: group commit, and what a failure in a group means for each call.

Owner: the loop, which has the connection, `Changes` and the commit number, and lends all of them to
a thread for what may take long. It runs the statements of a group of puts by itself, because a
thread that runs them and the loop would wait for the interpreter in turns, at every row. The
thread commits; while it does, the next group gathers. Where the disk syncs quickly and little
waits, the loop commits as well: to wake a thread and be woken by it takes longer than that. What is
large or removes goes to the thread as a whole, and so does everything while the disk is slow.

Rules: a group is all that waits, at most `GROUP_PUTS_MAX` jobs or `GROUP_BYTES_MAX` bytes; answers
come after the commit is on disk and marked. If a job fails, the transaction is rolled back and each
job of the group is done again alone, so a failure hits only the job it belongs to (a savepoint each
would do the same, and cost each job what only failures need to cost). If the commit itself fails,
all of the group are Unavailable.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

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


WAL_STEP_BYTES: Final = 1 * limits.MIB
"""The log is made longer by this at once, from its first step on: a commit that makes the file
grow waits for the file system's own journal too. Larger: who waits meanwhile waits longer."""

SMALL_JOBS: Final = 2
SMALL_BYTES: Final = 64 * limits.KIB
"""What the loop may commit by itself."""

QUICK_SECONDS: Final = 0.001
"""A disk is quick while its commits take less: while the loop waits for one, it answers nobody."""

SLOW_SECONDS: Final = 0.1
"""A disk is slow while its commits take more. Statements read pages, and might wait for it too."""

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


class _Opened(NamedTuple):
    """A transaction that is to be committed."""

    values: list[Any]
    """What the jobs return."""
    changed: bool


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
        self._wal_is_short = False
        """The last commit made it grow, and the next ones would too."""
        self._written = 0
        self._wal_is_copied = threading.Event()
        self._commit_seconds = 0.0
        """About what a commit takes lately."""
        self._waiting: deque[Job] = deque()
        self._due = False
        """The loop is about to look at what waits."""
        self._lent = False
        """The thread has the connection, and all that is told of it here."""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
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
            last = self._job(lambda _: None, None, "the end")
            self._stopped = True
            with contextlib.suppress(Exception):  # that something is wrong, others were told
                await last.answer
            self._work.put(None)
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
        job = self._job(work, thread, record, bytes, small)
        answer: T = await job.answer
        return answer

    def _job(
        self,
        work: Callable[[Changes], Any],
        thread: ThreadKey | None,
        record: object,
        size: int = 0,
        small: bool = False,
    ) -> Job:
        answer: asyncio.Future[Any] = self._loop.create_future()
        job = Job(
            work=work,
            thread=thread,
            record=record,
            bytes=size + JOB_BYTES,
            small=small,
            answer=answer,
        )
        self._waiting.append(job)
        self._look_soon()
        return job

    # The loop --------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        if not self._due and not self._lent:
            # Not at once: what else this turn of the loop brings shall share the commit.
            self._due = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Begins with what waits."""
        self._due = False
        group = self._group()
        if not self._is_for_the_loop(group):
            self._lend(lambda: self._done(group), self._tell)
            return
        begun = time.perf_counter()
        try:
            opened = self._opened(group)
        except Exception:  # noqa: BLE001  (the thread finds out whose it is)
            self._commit_took(time.perf_counter() - begun)  # it may have waited for a lock
            self._roll_back()
            self._lend(lambda: self._done(group), self._tell)
            return
        if self._is_little(group):
            self._end(group, opened, self._commit())
        else:
            self._lend(self._commit, lambda error: self._end(group, opened, error))

    def _lend(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Has the thread do `work`, which raises nothing, and goes on with `then`."""
        self._lent = True

        def back(result: T) -> None:
            self._lent = False
            then(result)
            if self._waiting:
                self._look_soon()

        def run() -> None:
            result = work()
            with contextlib.suppress(RuntimeError):
                # Of a closed loop: nobody waits for the answers any more.
                self._loop.call_soon_threadsafe(back, result)

        self._work.put(run)

    def _group(self) -> list[Job]:
        group: list[Job] = []
        size = 0
        while self._waiting and len(group) < limits.GROUP_PUTS_MAX:
            group.append(self._waiting.popleft())
            size += group[-1].bytes
            if size >= limits.GROUP_BYTES_MAX:
                break
        return group

    def _is_for_the_loop(self, group: list[Job]) -> bool:
        return (
            self._commit_seconds < SLOW_SECONDS
            and not self._wal_is_copied.is_set()
            and not self._changes.actor_is_full()
            and all(job.small for job in group)
            and sum(job.bytes for job in group) <= limits.GROUP_BYTES_MAX
        )

    def _is_little(self, group: list[Job]) -> bool:
        return (
            len(group) <= SMALL_JOBS
            and self._commit_seconds < QUICK_SECONDS
            and sum(job.bytes for job in group) <= SMALL_BYTES
        )

    def _end(self, group: list[Job], opened: _Opened, error: Exception | None) -> None:
        outcomes = self._outcomes(group, opened, error)
        self._count(group)
        self._tell(outcomes)

    def _tell(self, outcomes: list[Outcome]) -> None:
        """Answers the calls, then does what can wait for that."""
        for job, value, error in outcomes:
            if job.answer.done():
                continue
            if error is None:
                job.answer.set_result(value)
            else:
                job.answer.set_exception(error)
        if self._wal_is_short:
            self._wal_is_short = False
            self._lend(self._lengthen_wal, lambda _: None)

    # The thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _done(self, group: list[Job]) -> list[Outcome]:
        """All that a group needs."""
        if self._wal_is_copied.is_set():
            self._finish_copy()
        if self._changes.actor_is_full():
            self._quietly(self._new_actor)
        try:
            return self._stored(group)
        except Exception as e:  # noqa: BLE001  (nobody would ever be answered again)
            return [(job, None, e) for job in group]
        finally:
            self._count(group)

    def _stored(self, group: list[Job]) -> list[Outcome]:
        begun = time.perf_counter()
        try:
            opened = self._opened(group)
        except Exception as e:  # noqa: BLE001  (each job gets its own; the thread must live)
            self._commit_took(time.perf_counter() - begun)  # it may have waited for a lock
            self._roll_back()
            if len(group) > 1:
                return [outcome for job in group for outcome in self._stored([job])]
            self._watch.failed(e)
            if isinstance(e, WentBack):
                e = self._went_back()
            return [(group[0], None, _error(e, group[0]))]
        return self._outcomes(group, opened, self._commit())

    # Either ----------------------------------------------------------------------------------

    def _opened(self, group: list[Job]) -> _Opened:
        """A transaction with all that the group stores. Raises what one of the jobs raises."""
        self.conn.execute("BEGIN IMMEDIATE")
        before = self.conn.total_changes
        self._changes.begun(self._seq + 1)
        self._changes.look()
        values = [job.work(self._changes) for job in group]
        self._changes.finish()
        return _Opened(values, self.conn.total_changes != before)

    def _commit(self) -> Exception | None:
        """What was wrong, if anything was."""
        begun = time.perf_counter()
        try:
            self.conn.execute("COMMIT")
        except Exception as e:  # noqa: BLE001  (all of the group get it; the thread must live)
            return e
        self._commit_took(time.perf_counter() - begun)
        return None

    def _outcomes(
        self, group: list[Job], opened: _Opened, error: Exception | None
    ) -> list[Outcome]:
        """After the commit: what each job is told."""
        if error is None:
            try:
                self._changes.committed()
                if opened.changed:
                    self._count_commit()
                self._watch.committed(changed=opened.changed)
            except Exception as e:  # noqa: BLE001  (all of the group get it)
                error = e
        if error is not None:
            self._roll_back()
            self._watch.failed(error)
            return [(job, None, _error(error, job)) for job in group]
        return [(job, value, None) for job, value in zip(group, opened.values, strict=True)]

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
        self._wal_is_short = max(before, WAL_STEP_BYTES // 4) < self._wal_bytes < WAL_BYTES_MAX

    def _lengthen_wal(self) -> None:
        """Zeros behind its last frame, where none is read: no frame begins with them."""
        with contextlib.suppress(OSError), self._wal.open("r+b", buffering=0) as wal:
            wal.seek(0, os.SEEK_END)
            wal.write(bytes(WAL_STEP_BYTES))
            os.fsync(wal.fileno())
            self._wal_bytes = wal.tell()


def _error(error: Exception, job: Job) -> Exception:
    return fault(error, job.thread, job.record) if isinstance(error, sqlite3.Error) else error
