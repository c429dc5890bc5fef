"""A sampling profiler for a process of ours: which function each OS thread is in, a thousand times
a second, and how much CPU time each thread used.

Owner: one sampler a process. `benchmarks/sampled/sitecustomize.py` starts it in a child process.
Rules: it changes nothing in the program that it watches but the interpreter's switch interval,
without which a busy thread would be seen only where it waits. It costs some per cent, so shares are
taken from here and times from elsewhere.
"""

from __future__ import annotations

import json
import linecache
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

INTERVAL_SECONDS: Final = 0.001
SWITCH_SECONDS: Final = 0.000_005
"""How long a busy thread may keep the interpreter from the sampler. Longer: it is seen only where
it lets go by itself, as around a long hash."""

WAITS: Final = (".get(", ".wait(", "select(", ".poll(", ".acquire(", ".join(", "self._target(")
"""A line with one of these, when it is the innermost of its thread, is one that waits."""

CPU_LOOKED_EVERY: Final = 50
"""Samples between two looks at CPU times: a thread that has ended has none."""


@dataclass(slots=True)
class Sampler:
    """Counts, by OS thread, the innermost function and the innermost function of the product."""

    package: str = "checkpoint_router"
    leaves: Counter[tuple[str, str]] = field(default_factory=Counter)
    owners: Counter[tuple[str, str]] = field(default_factory=Counter)
    samples: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _cpu_before: dict[str, float] = field(default_factory=dict)
    _cpu_after: dict[str, float] = field(default_factory=dict)
    _interval_before: float = 0.0

    def start(self) -> None:
        """Begin to sample."""
        self._interval_before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        self._cpu_before = cpu_by_thread()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; the counts stay."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._look_at_cpu()
        sys.setswitchinterval(self._interval_before)

    def document(self) -> dict[str, Any]:
        """The counts in a form that another process can read."""
        return {
            "samples": self.samples,
            "cpu_seconds": {
                name: round(after - self._cpu_before.get(name, 0.0), 4)
                for name, after in self._cpu_after.items()
            },
            "leaves": [[*key, count] for key, count in self.leaves.most_common(200)],
            "owners": [[*key, count] for key, count in self.owners.most_common(200)],
        }

    def write(self, path: Path) -> None:
        """Stop, and leave the counts in a file."""
        self.stop()
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.document(), indent=1))
        partial.rename(path)  # a reader sees all of it or nothing

    def _run(self) -> None:
        own = threading.get_ident()
        while not self._stop.wait(INTERVAL_SECONDS):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                if ident != own:
                    self._count(names.get(ident, "native"), frame)
            self.samples += 1
            if self.samples % CPU_LOOKED_EVERY == 0:
                self._look_at_cpu()

    def _look_at_cpu(self) -> None:
        for name, seconds in cpu_by_thread().items():
            self._cpu_after[name] = max(seconds, self._cpu_after.get(name, 0.0))

    def _count(self, thread: str, frame: FrameType) -> None:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)
        if any(word in line for word in WAITS):
            return
        self.leaves[thread, place(frame)] += 1
        walk: FrameType | None = frame
        while walk is not None and self.package not in walk.f_code.co_filename:
            walk = walk.f_back
        if walk is not None:
            self.owners[thread, place(walk)] += 1


def place(frame: FrameType) -> str:
    """`package/file.py:function`, short enough to read."""
    path = frame.f_code.co_filename
    for marker in ("site-packages/", "/router/", "/lib/python"):
        _, found, rest = path.rpartition(marker)
        if found:
            path = rest
            break
    return f"{path}:{frame.f_code.co_qualname}"


def cpu_by_thread() -> dict[str, float]:
    """CPU seconds of each OS thread of this process, by its Python name where it has one."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    used: dict[str, float] = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            # Nanoseconds on a CPU: finer than the clock ticks of `stat`.
            nanoseconds = int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that ended meanwhile
        name = names.get(int(task.name), "native threads")
        used[name] = used.get(name, 0.0) + nanoseconds / 1e9
    return used


def wait_for(path: Path, seconds: float = 30.0) -> dict[str, Any]:
    """The counts that another process writes at its end."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no samples were left at {path}")
        time.sleep(0.02)
    document: dict[str, Any] = json.loads(path.read_text())
    return document
