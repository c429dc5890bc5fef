"""Measurements of the router beside the savers that people use today.

    python -m benchmarks           a table for each engine: the router beside other savers
    python -m benchmarks.profile   where the time of one call goes
    python -m benchmarks.soak      does memory grow with the number of puts?
    python -m benchmarks.overload  what ten times too many clients get
    python -m benchmarks.idle      what a router costs that nobody uses

Rules: nothing here asserts a time. What a saver gives back is verified before it is timed; ratios
are taken inside a round, in which the savers take turns, so a machine that slows down slows all.
"""

import checkpoint_router.wire  # noqa: F401 - before gRPC, whose settings are to be the same for all
