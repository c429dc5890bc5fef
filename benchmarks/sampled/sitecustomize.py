"""Python imports this at its start when the directory is on PYTHONPATH: it starts the sampler.

Only `benchmarks.profile` puts it there, for the router that it watches, and names in
BENCHMARKS_SAMPLES the file to be written when that process ends in an orderly way.
"""

import atexit
import os
from pathlib import Path

if samples := os.environ.get("BENCHMARKS_SAMPLES"):
    from benchmarks.sampler import Sampler

    sampler = Sampler()
    sampler.start()
    atexit.register(sampler.write, Path(samples))
