"""A real router, threads in it, and a way to run the real command line against it."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint

from checkpoint_router import RouterSaver
from checkpoint_router.testing import RunningRouter, running_router

COMMAND = (sys.executable, "-m", "checkpoint_router.cli")
SECONDS_MAX = 60
CLEARED = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "TTY_COMPATIBLE")

Cli = Callable[..., subprocess.CompletedProcess[str]]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment without what would change the output."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in CLEARED and not k.startswith("CHECKPOINT_ROUTER_")
    }
    return {**kept, "PYTHONUTF8": "1", **(extra or {})}


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """One command, to its end, with nobody at a terminal."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


@pytest.fixture(scope="session")
def router() -> Iterator[RunningRouter]:
    """One router for all tests that leave it alone; each has a tenant of its own."""
    with running_router() as running:
        yield running


@pytest.fixture
def tenant() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def saver(router: RunningRouter, tenant: str) -> Iterator[RouterSaver]:
    with RouterSaver(router.target, tenant=tenant) as opened:
        yield opened


@pytest.fixture
def cli(router: RunningRouter, tenant: str) -> Cli:
    """Runs a command against the router, in the tenant of the test."""
    where = {"CHECKPOINT_ROUTER_TARGET": router.target, "CHECKPOINT_ROUTER_TENANT": tenant}

    def run_here(*arguments: str, env: Mapping[str, str] | None = None) -> Any:
        return run(*arguments, env={**where, **(env or {})})

    return run_here


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One checkpoint, and the config that goes on from it."""

    id: str
    config: RunnableConfig


def at_head(thread: str, ns: str = "") -> RunnableConfig:
    """What a user gives to read the newest checkpoint."""
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ns}}


def put(
    saver: RouterSaver,
    thread: str,
    id: str,
    *,
    after: RunnableConfig | None = None,
    ns: str = "",
    step: int = 0,
    source: str = "loop",
    **values: Any,
) -> Written:
    """Writes a checkpoint whose id is `id`; `after` is the config that it goes on from."""
    config = after or at_head(thread, ns)
    checkpoint = empty_checkpoint()
    checkpoint["id"] = id
    checkpoint["channel_values"] = values
    checkpoint["channel_versions"] = dict.fromkeys(values, f"{step + 2:032}.5")
    stored = saver.put(
        {"configurable": {**config["configurable"]}},
        checkpoint,
        {"source": source, "step": step, "parents": {}},  # type: ignore[typeddict-item]
        checkpoint["channel_versions"],
    )
    return Written(id=id, config=stored)


def write(saver: RouterSaver, at: Written, node: str, *rows: tuple[str, Any]) -> None:
    """Writes what the task of `node` wrote at a checkpoint."""
    task_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{at.id} {node}"))
    saver.put_writes(at.config, rows, task_id, f"~__pregel_pull, {node}")


def rivals(target: str, tenant: str, thread: str) -> None:
    """Two processes, as it were, resume one thread at once: `tools` runs twice, each goes on."""
    with RouterSaver(target, tenant=tenant) as one, RouterSaver(target, tenant=tenant) as two:
        put(one, thread, "c1", step=-1, source="input", a=1)
        sides = []
        for saver in (one, two):
            found = saver.get_tuple(at_head(thread))
            assert found is not None
            sides.append(Written(id="c1", config=found.config))
        for number, (saver, at) in enumerate(zip((one, two), sides, strict=True)):
            write(saver, at, "tools", ("a", number))
            put(saver, thread, f"d{number}", after=at.config, a=number)


_MASKS = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z", "<time>"),
    (r"\b[\d,.]+ (B|KiB|MiB)(?![\w])", "<size>"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r"\bt-[0-9a-f]{12}\b", "<tenant>"),
    (r"(?<=segment )[0-9a-f]{8}\b", "<segment>"),
    (r"(?<=conflict )[0-9a-f]{12}\b", "<id>"),
    (r"(?<=process with id )\d+", "<pid>"),
)


def masked(text: str) -> list[str]:
    """Lines, with what differs from run to run as a word."""
    for pattern, word in _MASKS:
        text = re.sub(pattern, word, text)
    return text.splitlines()
