"""A Cassandra that is killed, stands still, or loses a datacentre, under agents that are told
nothing: what was acknowledged is there, and runs go on. And who may not log in.
"""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router import RouterSaver
from checkpoint_router.core.errors import DeadlineExceeded, Refused, Unavailable
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.testing import RouterFailed, RunningRouter, running_router
from tests.contract import servers
from tests.probe import datacentres
from tests.probe.datacentres import ENVIRONMENT, Two, holds
from tests.probe.test_crash import (
    STALL_SECONDS,
    Agents,
    agents_at_work,
    check_acknowledged,
    throughout,
    until,
)

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

AGENTS = 4
CALLS = 60
"""Acknowledged in each state of the server."""
KILLS = 2
HERE: Any = {"configurable": {"thread_id": "x", "checkpoint_ns": ""}}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """One cluster for all of these tests: each of them leaves both members running."""
    servers.need_cassandra()
    with datacentres.running(tmp_path_factory.mktemp("datacentres")) as two:
        yield two


def go_on(agents: Agents, when: str) -> None:
    """Waits for work of all of them."""
    until(partial(agents.has, agents.acknowledged() + CALLS), f"agents to go on {when}")


def check_refusal(router: RunningRouter) -> None:
    """What a call gets while no member of the datacentre answers."""
    with (
        RouterSaver(router.target, tenant="load", timeout_seconds=12) as impatient,
        pytest.raises((Unavailable, DeadlineExceeded), match="Cassandra"),
    ):
        impatient.get_tuple(HERE)


# A member of the router's own datacentre ------------------------------------------------------


def test_what_was_acknowledged_outlives_a_cassandra_that_is_killed_under_load(
    two: Two, tmp_path: Path
) -> None:
    """It is the only one of its datacentre, and the other one is not asked in its place."""
    keyspace = two.keyspace("killed", dc1=1, dc2=1)
    with (
        running_router(two.at(two.near, keyspace)) as router,
        agents_at_work(router, tmp_path, AGENTS) as agents,
    ):
        for kill in range(KILLS):
            go_on(agents, f"before kill {kill}")
            two.near.stop()
            if kill == 0:
                check_refusal(router)
            two.near.start()
        go_on(agents, "after the last one")
        agents.stop()
        with RouterSaver(router.target, tenant="load") as saver:
            check_acknowledged(saver, agents.notes())


def test_a_cassandra_that_stands_still_makes_typed_errors_and_then_runs_go_on(
    two: Two, tmp_path: Path
) -> None:
    with (
        running_router(two.at(two.near, "stalled")) as router,
        agents_at_work(router, tmp_path, AGENTS) as agents,
    ):
        os.kill(two.near.pid, signal.SIGSTOP)
        try:
            for _ in throughout(STALL_SECONDS):
                check_refusal(router)
        finally:
            os.kill(two.near.pid, signal.SIGCONT)
        go_on(agents, "after that")
        agents.stop()
        with RouterSaver(router.target, tenant="load") as saver:
            assert saver.get_tuple(HERE) is None
            check_acknowledged(saver, agents.notes())


# The other datacentre -------------------------------------------------------------------------


def test_a_second_datacentre_that_dies_or_stands_still_is_not_missed_and_catches_up(
    two: Two, tmp_path: Path
) -> None:
    keyspace = two.keyspace("kept_twice", dc1=1, dc2=1)
    with running_router(two.at(two.near, keyspace)) as router:
        with agents_at_work(router, tmp_path, AGENTS) as agents:
            os.kill(two.far.pid, signal.SIGSTOP)
            try:
                go_on(agents, "while it stands still")
            finally:
                os.kill(two.far.pid, signal.SIGCONT)
            two.far.stop()
            go_on(agents, "while it is down")
            agents.stop()
            notes = agents.notes()
        with RouterSaver(router.target, tenant="load") as saver:
            check_acknowledged(saver, notes)
    two.far.start()
    there = two.at(two.far, keyspace)
    refused = partial(refuses, "decided in datacentre 'dc1'", there, two.told)
    until(refused, "the second datacentre to know that the first decides")
    move = f"UPDATE {keyspace}.meta SET value = textAsBlob('dc2')"  # noqa: S608 - a name of ours
    move += " WHERE key = 'datacentre' IF EXISTS"
    until(partial(holds, partial(two.session.execute, move)), "both to agree")
    with (
        running_router(there, env=two.told) as router,
        RouterSaver(router.target, tenant="load") as saver,
    ):
        has_all = partial(holds, partial(check_acknowledged, saver, notes))
        until(has_all, "the second datacentre to have all that was acknowledged in the first")


def refuses(why: str, url: str, told: dict[str, str]) -> bool:
    """Whether it does, and for that reason."""
    try:
        with running_router(url, env=told):
            return False
    except RouterFailed as e:
        return why in str(e)


def test_serve_refuses_a_keyspace_that_is_not_kept_in_its_datacentre(two: Two) -> None:
    elsewhere = two.at(two.near, two.keyspace("elsewhere", dc2=1))
    with (
        pytest.raises(RouterFailed, match=r"no replica in datacentre 'dc1': it has 1 in dc2"),
        running_router(elsewhere),
    ):
        pass


# Who may log in ------------------------------------------------------------------------------


@pytest.fixture
def told(two: Two, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Sets what a router is told, but for what is named; gives the URL."""

    def tell(**other: str) -> str:
        for name, value in two.told.items():
            monkeypatch.setenv(name, other.get(name.removeprefix(ENVIRONMENT).lower(), value))
        return two.at(two.far, "system_auth")

    return tell


async def test_a_wrong_password_is_refused_and_says_where_the_right_one_goes(
    told: Callable[..., str],
) -> None:
    for other in ({"password": "wrong"}, {"username": "nobody"}, {"username": "", "password": ""}):
        with pytest.raises(Refused, match=r"let nobody in.*Nothing was changed.*PASSWORD_FILE"):
            await storage_from_url(told(**other)).open()


async def test_a_certificate_of_an_unknown_authority_is_not_believed(
    two: Two, told: Callable[..., str]
) -> None:
    with pytest.raises(Refused, match=r"not believed.*no password was sent.*CA_FILE"):
        await storage_from_url(told(ca_file=str(two.files / "else.crt"))).open()


async def test_plain_text_on_a_port_that_speaks_tls_gets_a_hint(told: Callable[..., str]) -> None:
    with pytest.raises(Unavailable, match=r"cannot be reached.*speaks TLS, set .*CA_FILE"):
        await storage_from_url(told(ca_file="", certificate_file="", key_file="")).open()


async def test_tls_on_a_port_that_speaks_none_gets_a_hint(
    two: Two, told: Callable[..., str]
) -> None:
    told()
    with pytest.raises(Unavailable, match=r"cannot be reached.*speaks none, unset it"):
        await storage_from_url(two.near.url).open()


async def test_a_router_that_shows_no_certificate_to_who_asks_for_one_gets_a_hint(
    told: Callable[..., str],
) -> None:
    with pytest.raises(Unavailable, match=r"cannot be reached.*set .*CERTIFICATE_FILE"):
        await storage_from_url(told(certificate_file="", key_file="")).open()
