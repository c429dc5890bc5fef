"""Python imports this at its start when the directory is on PYTHONPATH: it waits for SIGUSR1.

Only `benchmarks.profile` puts it there, for the router that it watches, and names a file in
BENCHMARKS_SAMPLES. The first SIGUSR1 starts the sampler, the second one ends it and writes the
file: so that what a process does at its start and at its end is left out.
"""

import os
import signal
from pathlib import Path
from types import FrameType

if samples := os.environ.get("BENCHMARKS_SAMPLES"):
    from benchmarks.sampler import Sampler

    sampler = Sampler()
    path = Path(samples)
    begun: list[int] = []

    def toggle(number: int, frame: FrameType | None) -> None:
        """Begin, then end."""
        begun.append(number)
        if len(begun) == 1:
            sampler.start()
        elif len(begun) == 2:
            sampler.write(path)

    signal.signal(signal.SIGUSR1, toggle)
