"""`thread delete`: what is shown before, what is asked, what is left."""

import json
from typing import Any

from checkpoint_router import RouterSaver
from checkpoint_router.core.errors import Unavailable
from checkpoint_router.testing import RunningRouter
from checkpoint_router.v1 import admin_service_pb2 as admin

from .conftest import Cli, at_head, masked, put, run, write
from .stand_in import deleted, stand_in, two_checkpoints
from .terminal import on_terminal

HELD = "2 checkpoints in 1 namespace, 1 write, records <size>, values <size>, generation 1"


def stored(saver: RouterSaver, *threads: str) -> None:
    for thread in threads:
        first = put(saver, thread, "c1", a=1)
        write(saver, first, "agent", ("a", 2))
        put(saver, thread, "c2", after=first.config, a=2)


def there(saver: RouterSaver, thread: str) -> bool:
    return saver.get_tuple(at_head(thread)) is not None


def test_a_delete_shows_what_goes_and_what_is_left(cli: Cli, saver: RouterSaver) -> None:
    stored(saver, "old", "kept")
    said = cli("thread", "delete", "old", "--yes")
    assert said.returncode == 0
    assert masked(said.stderr) == [
        f"thread old: deletes {HELD}",
        "left in tenant <tenant>: 1 thread.",
    ]
    assert masked(said.stdout) == [f"deleted old: {HELD}; left of it: nothing, generation 2"]
    assert there(saver, "kept")
    assert not there(saver, "old")


def test_without_a_terminal_and_without_yes_nothing_is_deleted(
    cli: Cli, saver: RouterSaver
) -> None:
    stored(saver, "old")
    said = cli("thread", "delete", "old")
    assert said.returncode == 4
    assert said.stdout == ""
    assert said.stderr.splitlines()[-2:] == [
        "error: deleting needs a yes, and nobody is here to give it. Nothing was deleted.",
        "next:  add --yes if you mean it.",
    ]
    assert there(saver, "old")


def test_on_a_terminal_it_asks_and_a_no_deletes_nothing(
    router: RunningRouter, saver: RouterSaver, tenant: str
) -> None:
    stored(saver, "old")
    where = ("--target", router.target, "--tenant", tenant)
    no = on_terminal("thread", "delete", "old", *where, at="[y/N]", answer="n\n")
    assert no.exit_code == 1
    assert "deletes 2 checkpoints" in no.screen
    assert "Nothing was deleted." in no.screen
    assert there(saver, "old")
    yes = on_terminal("thread", "delete", "old", *where, at="[y/N]", answer="y\n")
    assert yes.exit_code == 0
    assert "deleted old:" in yes.screen
    assert not there(saver, "old")


def test_nothing_to_delete_is_a_negative_answer(cli: Cli) -> None:
    said = cli("thread", "delete", "nobody", "--yes")
    assert said.returncode == 1
    assert masked(said.stderr)[0] == "thread nobody: has nothing, generation 1"


def test_the_json_of_a_delete_has_both_sides(cli: Cli, saver: RouterSaver) -> None:
    stored(saver, "old")
    said = cli("thread", "delete", "old", "gone", "--yes", "--output", "json")
    assert said.returncode == 0
    (one,) = json.loads(said.stdout)["deleted"]
    assert one["before"]["checkpoints"] == 2
    assert one["after"]["checkpoints"] == 0
    assert one["after"]["generation"] == one["before"]["generation"] + 1


def test_a_router_that_goes_away_in_between_leaves_a_command_for_the_rest() -> None:
    ended: list[str] = []

    def delete(request: Any) -> Any:
        if ended:
            raise Unavailable("the router is about to stop.")
        ended.append(request.thread_id)
        return deleted(2)

    def list_threads(request: Any) -> Any:
        return admin.ListThreadsResponse()

    with stand_in(
        GetThread=two_checkpoints, DeleteThread=delete, ListThreads=list_threads
    ) as target:
        said = run("thread", "delete", "a", "b", "it's c", "--yes", "--target", target)
    assert said.returncode == 5
    assert ended == ["a"]
    assert [line.split(":")[0] for line in said.stdout.splitlines()] == ["deleted a"]
    rest = """checkpoint-router thread delete b 'it'"'"'s c' --tenant default --yes"""
    assert said.stderr.splitlines()[-2:] == [
        "error: 1 thread deleted, 2 not: the router is about to stop.",
        f"next:  the rest goes with `{rest}`; what is gone stays gone.",
    ]


def test_a_router_that_goes_away_after_the_last_delete_takes_no_answer_along() -> None:
    def gone(request: Any) -> Any:
        raise Unavailable("the router is about to stop.")

    with stand_in(
        GetThread=two_checkpoints, DeleteThread=lambda _: deleted(2), ListThreads=gone
    ) as target:
        said = run("thread", "delete", "a", "--yes", "--output", "json", "--target", target)
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout)
    assert [d["thread_id"] for d in answer["deleted"]] == ["a"]
    assert answer["threads_left"] is None
