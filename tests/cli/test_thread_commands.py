"""`thread list|show|history|conflicts` on a real router, as a pipe gets them."""

import json
import subprocess

from checkpoint_router import RouterSaver
from checkpoint_router.testing import RunningRouter

from .conftest import (
    COMMAND,
    SECONDS_MAX,
    Cli,
    Written,
    at_head,
    environment,
    masked,
    put,
    rivals,
    write,
)

SIZES = "record <size>, values <size>, new <size>"


def conversation(saver: RouterSaver, thread: str = "trip-42") -> None:
    """Three steps, a fork off the second, and an interrupt at the end."""
    first = put(saver, thread, "c1", step=-1, source="input", messages=["hi"])
    write(saver, first, "agent", ("messages", ["let me look"]))
    second = put(saver, thread, "c2", after=first.config, step=0, messages=["hi", "hello"])
    put(saver, thread, "c3-left", after=second.config, step=1, source="fork", messages=["no"])
    again = saver.get_tuple(
        {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": "c2"}}
    )
    assert again is not None
    third = put(saver, thread, "c4", after=again.config, step=1, messages=["yes"])
    write(saver, third, "ask", ("__interrupt__", "may I?"))


def test_list_is_a_table_in_the_order_of_ids(cli: Cli, saver: RouterSaver) -> None:
    put(saver, "b", "c1", a=1)
    put(saver, "a", "c1", a=1)
    said = cli("thread", "list")
    assert said.returncode == 0
    assert said.stderr == ""
    assert masked(said.stdout) == [
        "THREAD  CHECKPOINTS  EVENTS  CONFLICTS  GENERATION  HEAD  UPDATED",
        "a                 1       1          0           1  c1    <time>",
        "b                 1       1          0           1  c1    <time>",
    ]


def test_a_tenant_without_threads_is_no_error_and_the_next_one_is_one_option_away(cli: Cli) -> None:
    said = cli("thread", "list")
    assert said.returncode == 0
    assert masked(said.stderr) == [
        "Tenant <tenant> has no threads here; --tenant NAME lists another's."
    ]


def test_list_says_on_stderr_that_there_are_more(cli: Cli, saver: RouterSaver) -> None:
    for thread in ("a", "b", "c"):
        put(saver, thread, "c1", a=1)
    said = cli("thread", "list", "--limit", "2")
    assert len(said.stdout.splitlines()) == 3
    assert said.stderr == "There are more than 2: raise --limit, or give --all.\n"
    assert len(cli("thread", "list", "--all").stdout.splitlines()) == 4


def test_show_draws_steps_sources_forks_writes_sizes_and_the_head(
    cli: Cli, saver: RouterSaver, tenant: str
) -> None:
    conversation(saver)
    said = cli("thread", "show", "trip-42")
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    task = said.stdout.split("(task ")[1][:8]
    assert masked(said.stdout) == [
        "thread trip-42 of tenant <tenant>",
        "├── 4 checkpoints in 1 namespace, 2 writes, records <size>, values <size>, generation 1",
        "└── root graph: 3 checkpoints",
        f"    ├── ○ step -1 input  c1  <time>  {SIZES}",
        f"    ├── ○ step 0 loop  c2  <time>  {SIZES}",
        "    │   └── fork, left behind: 1 checkpoint",
        f"    │       └── ○ step 1 fork  c3-left  <time>  {SIZES}",
        f"    └── ● step 1 loop  c4  <time>  {SIZES}  head  interrupted in ask",
        "        └── pending writes",
        f"            └── ask (task {task}): __interrupt__ <size>",
    ]


def test_history_is_newest_first_and_names_who_wrote(cli: Cli, saver: RouterSaver) -> None:
    conversation(saver)
    said = cli("thread", "history", "trip-42")
    assert said.returncode == 0, said.stderr
    assert masked(said.stdout) == [
        "CHECKPOINT  NAMESPACE  STEP  SOURCE  WRITTEN                   WRITES  WRITTEN BY",
        "c4          (root)        1  loop    <time>       1  ask",
        "c3-left     (root)        1  fork    <time>       0  -",
        "c2          (root)        0  loop    <time>       0  -",
        "c1          (root)       -1  input   <time>       1  agent",
    ]
    some = cli("thread", "history", "trip-42", "--limit", "1", "--before", "c4")
    assert [line.split()[0] for line in some.stdout.splitlines()] == ["CHECKPOINT", "c3-left"]
    assert "--before c3-left" in some.stderr


def test_conflicts_show_both_sides_and_name_the_task_that_ran_twice(
    cli: Cli, router: RunningRouter, tenant: str
) -> None:
    rivals(router.target, tenant, "trip-42")
    said = cli("thread", "conflicts", "trip-42")
    assert said.returncode == 0, said.stderr
    assert said.stderr == "1 conflict record, 1 open.\n"
    lines = masked(said.stdout)
    winner = next(line for line in lines if "● wins" in line)
    loser_id = "d0" if "d1" in lines[lines.index(winner) + 1] else "d1"
    winner_id = "d1" if loser_id == "d0" else "d0"
    task = next(line for line in lines if "tools  (task" in line)
    reading = f'give an agent {{"thread_id": "trip-42", "checkpoint_id": "{loser_id}"}}.'
    assert lines == [
        "conflict <id>  open",
        "├── double_execution: a task ran on both sides, so its effects happened twice",
        "├── fork: two runs went on from the same checkpoint, neither knew of the other",
        "├── ● wins  1 checkpoint of its own, last write <time>  segment <segment>",
        f"│   └── {winner_id}",
        "├── ✗ loses  1 checkpoint of its own, last write <time>  segment <segment>",
        f"│   └── {loser_id}",
        "├── ran on both sides",
        task,
        "├── next: look for effects that happened twice: tools ran on both sides.",
        f"├── next: to read the losing side, or to go on from it instead, {reading}",
        "└── next: this record stays open, as a reminder: going on does not undo what ran twice.",
    ]
    assert cli("thread", "conflicts", "trip-42", "--check").returncode == 1
    shown = cli("thread", "show", "trip-42")
    assert [line for line in shown.stdout.splitlines() if loser_id in line and "✗" in line]
    assert "1 open conflict: see `checkpoint-router thread conflicts trip-42" in shown.stderr


def test_a_thread_without_conflicts_passes_the_check(cli: Cli, saver: RouterSaver) -> None:
    put(saver, "calm", "c1", a=1)
    said = cli("thread", "conflicts", "calm", "--check")
    assert (said.returncode, said.stdout) == (0, "")
    assert "No conflicts" in said.stderr


def test_a_thread_that_has_only_writes_yet_has_no_conflicts_but_is_known(
    cli: Cli, saver: RouterSaver
) -> None:
    early = Written(id="c1", config=at_head("early"))
    early.config["configurable"]["checkpoint_id"] = "c1"
    write(saver, early, "agent", ("a", 1))
    said = cli("thread", "conflicts", "early")
    assert (said.returncode, said.stdout) == (0, "")
    assert "No conflicts" in said.stderr


def test_losers_are_in_the_history_only_if_asked_for(
    cli: Cli, router: RunningRouter, tenant: str
) -> None:
    rivals(router.target, tenant, "trip-42")
    plain = cli("thread", "history", "trip-42").stdout.splitlines()
    whole = cli("thread", "history", "trip-42", "--losers").stdout.splitlines()
    assert (len(plain), len(whole)) == (3, 4)


def test_what_is_not_there_is_a_negative_answer_with_the_next_command(cli: Cli) -> None:
    for command in (("show",), ("history",), ("conflicts",), ("conflicts", "--check")):
        said = cli("thread", *command, "nobody")
        assert said.returncode == 1, command
        assert said.stdout == ""
        listing = "`checkpoint-router thread list --tenant <tenant>`"
        assert masked(said.stderr) == [
            "error: thread nobody of tenant <tenant> has nothing stored.",
            f"next:  see which threads there are with {listing}.",
        ]


def test_an_id_cannot_speak_to_the_terminal(cli: Cli, saver: RouterSaver) -> None:
    evil = "x\x1b[2J\x1b]0;owned\x07"
    put(saver, evil, "c\x1b[31m", a=1)
    for arguments in (("list",), ("show", evil), ("history", evil), ("conflicts", evil)):
        said = cli("thread", *arguments)
        assert said.returncode == 0, said.stderr
        assert "\x1b" not in said.stdout + said.stderr
    assert r"x\x1b[2J" in cli("thread", "list").stdout


def test_a_reader_that_goes_away_is_no_error(
    router: RunningRouter, saver: RouterSaver, tenant: str
) -> None:
    last = put(saver, "long", "c000", a=1)
    for step in range(1, 250):
        last = put(saver, "long", f"c{step:03}", after=last.config, step=step, a=1)
    where = ("--target", router.target, "--tenant", tenant)
    child = subprocess.Popen(
        [*COMMAND, "thread", "show", "long", "--output", "json", *where],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    with child.stdout as out, child.stderr as err:
        assert out.readline() == "{\n"
        out.close()
        assert child.wait(SECONDS_MAX) == 0
        assert err.read() == ""


def test_json_is_what_json_says_and_holds_all_checkpoints(cli: Cli, saver: RouterSaver) -> None:
    conversation(saver)
    shown = json.loads(cli("thread", "show", "trip-42", "--output", "json").stdout)
    assert shown["schema_version"] == 1
    assert shown["kind"] == "thread.show"
    found = {c["checkpoint_id"]: c for c in shown["checkpoints"]}
    assert set(found) == {"c1", "c2", "c3-left", "c4"}
    assert found["c4"]["head"]
    assert found["c4"]["parent_id"] == "c2"
    assert not found["c3-left"]["on_winner"]
    assert found["c4"]["writes"][0]["task"] == "ask"
    assert found["c1"]["metadata"]["source"] == "input"


def test_the_target_may_name_the_tenant_and_several_routers(
    router: RunningRouter, saver: RouterSaver, tenant: str
) -> None:
    put(saver, "a", "c1", a=1)
    both = router.target.replace("router://", "router://127.0.0.1:1,")
    where = {"CHECKPOINT_ROUTER_TARGET": f"{both}?tenant={tenant}"}
    said = subprocess.run(
        [*COMMAND, "thread", "list"],
        env=environment(where),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[1].startswith("a ")
