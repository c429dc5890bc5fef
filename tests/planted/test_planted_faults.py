"""A fault on any floor is noticed by a check of the suite, which passes without it.

A fault replaces a right rule by a broken one, through a monkeypatch that is undone. Faults of the
causal core are planted in `tests/property`, where random histories find them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.saver.caches import SMALL

from .bench import Bench, Fault, Router, a_router
from .cache_faults import CACHE
from .cassandra_faults import CASSANDRA
from .client_faults import CLIENT
from .redis_faults import REDIS
from .router_faults import ROUTER
from .storage_faults import STORAGE

WHATEVER_THE_CACHE = [each for each in CLIENT if not each.given_when_planted]
"""Noticed with the usual cache, and with those that are of no use."""

FAULTS = (
    *(*STORAGE, *REDIS, *CASSANDRA, *ROUTER, *CLIENT, *CACHE),
    *(
        replace(each, name=f"{each.name}, {size}", cache=size)
        for each in WHATEVER_THE_CACHE
        for size in SMALL
    ),
)


@pytest.fixture(scope="module")
def shared_router() -> Iterator[Router]:
    """One router for all faults: each check has threads of its own."""
    with a_router() as router:
        yield router


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(
    fault: Fault, shared_router: Router, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = Bench(shared_router, monkeypatch, tmp_path, fault.cache)
    bench.run(fault.check, fault.given)
    fault.plant(monkeypatch)
    with pytest.raises(fault.raises):
        bench.run(fault.check, {**fault.given, **fault.given_when_planted})


def test_each_floor_has_its_faults() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 30
