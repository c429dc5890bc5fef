"""Each exit code, and what the message of each end offers next."""

import threading
from typing import Any

import pytest

from checkpoint_router.cli.exits import Exit, exit_of, next_step
from checkpoint_router.core.errors import LimitExceeded, RouterError, by_reason
from checkpoint_router.v1 import admin_service_pb2 as admin

from .conftest import Cli, run
from .stand_in import stand_in

NOWHERE = "router://127.0.0.1:1"


def test_done_is_0(cli: Cli) -> None:
    assert cli("thread", "list").returncode == 0


def test_a_negative_answer_is_1(cli: Cli) -> None:
    assert cli("thread", "show", "nobody").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("thread", "nope"), "No such command"),
        (("thread", "list", "--limit", "some"), "--limit"),
        (("thread", "list", "--target", "http://x"), "not the address of a router"),
        (("thread", "show", ""), "thread_id is empty"),
        (("thread", "show", "x" * 2000), "the limit is 1024"),
        (("serve", "--storage", "memory:", "--listen", "nowhere"), "is not HOST:PORT"),
        (("doctor", "--storage", "tape:1"), "no storage is called 'tape:1'"),
        (("shard", "check"), "--storage"),
        (("shard", "check", "--storage", "memory:"), "ends with its router"),
        (("shard", "check", "--storage", "sqlite:/nowhere"), "no storage at sqlite:/nowhere"),
        (("config", "show", "--storage", "tape:1"), "no storage is called 'tape:1'"),
    ],
)
def test_what_can_never_work_is_2(arguments: tuple[str, ...], said: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert said in ended.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("thread", "list"),
        ("thread", "show", "x"),
        ("thread", "history", "x"),
        ("thread", "conflicts", "x"),
        ("thread", "delete", "x", "--yes"),
        ("doctor",),
    ],
)
def test_no_router_is_3_with_the_command_that_starts_one(arguments: tuple[str, ...]) -> None:
    ended = run(*arguments, "--target", NOWHERE)
    assert ended.returncode == 3
    assert ended.stdout == ""
    either = "start a router with `checkpoint-router dev`"
    assert ended.stderr.splitlines() == [
        "error: no router answers at 127.0.0.1:1 (connection refused).",
        f"next:  {either}, or name the one you mean with --target router://HOST:PORT.",
    ]


def test_a_router_that_stays_silent_is_3_after_the_time_that_was_given() -> None:
    over = threading.Event()

    def silent(request: Any) -> Any:
        over.wait(30)
        return admin.ListThreadsResponse()

    with stand_in(ListThreads=silent) as target:
        ended = run("thread", "list", "--target", target, "--timeout", "0.3")
        over.set()
    assert ended.returncode == 3
    assert "did not answer in time" in ended.stderr
    assert "checkpoint-router doctor" in ended.stderr


def test_what_a_router_refuses_is_4_with_its_own_words() -> None:
    def refuse(request: Any) -> Any:
        raise LimitExceeded("this thread is too large to be drawn at once.")

    with stand_in(GetThread=refuse) as target:
        ended = run("thread", "show", "x", "--target", target)
    assert ended.returncode == 4
    assert ended.stderr.splitlines() == [
        "error: this thread is too large to be drawn at once.",
        "next:  `checkpoint-router thread history` goes through a large thread page by page.",
    ]


def test_something_else_on_the_port_is_not_taken_for_a_router() -> None:
    with stand_in() as target:
        ended = run("thread", "list", "--target", target)
    assert ended.returncode == 4
    assert "UNIMPLEMENTED" in ended.stderr


@pytest.mark.parametrize("cls", by_reason().values(), ids=lambda cls: cls.__name__)
def test_every_error_has_an_exit_code_that_is_not_done(cls: type[RouterError]) -> None:
    error = cls("said")
    assert exit_of(error) in set(Exit) - {Exit.DONE, Exit.PARTLY}
    assert (exit_of(error) is Exit.UNREACHABLE) <= ("checkpoint-router" in next_step(error))
