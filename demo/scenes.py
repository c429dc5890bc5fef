"""The scenes of the demo, in order. Each acts, shows what happened, and checks what it claims.

Rules: no claim without evidence that was gathered from outside the thing it is about: calls from
the call logs, process ends from the system, states from a saver of the demo's own process.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any, Final

from agent import BUDGET_EUR, config_of, toolbox_of
from call_log import FINISHED, STARTED
from connect import STORAGES
from evidence import (
    FINISHED_BEFORE_THE_KILL,
    LISBON,
    OSLO,
    Demo,
    ancestors,
    in_the_middle,
    process_runs,
    same,
)
from processes import WAIT_SECONDS_MAX, Agent, until
from views import calls_table, conversation, history_table, id_of, short, side_by_side

SMALL_BUDGET_EUR: Final = 300
COMMAND: Final = (sys.executable, "-m", "checkpoint_router.cli")


def two_agents_start(demo: Demo) -> tuple[Agent, Agent]:
    """Both agents reach the middle of their parallel tasks: two tools done, one under way."""
    storage = STORAGES[demo.router.storage.partition(":")[0]]
    demo.screen.scene(f"A router on {storage}, and two agents")
    demo.screen.say(f"router: process {demo.router.pid}, {demo.router.target}")
    lisbon = demo.agents.start(LISBON, "ask")
    oslo = demo.agents.start(OSLO, "ask", asynchronous=True)
    demo.screen.say(
        f"agents: process {lisbon.pid} plans Lisbon (graph.invoke), "
        f"process {oslo.pid} plans Oslo (graph.ainvoke)"
    )
    for thread in (LISBON, OSLO):
        until(
            lambda thread=thread: in_the_middle(demo, thread),  # type: ignore[misc]  # bound now
            f"two finished tools of {thread} on record and the third under way",
            alive=(lisbon, oslo),
            meanwhile=demo.show_calls,
        )
        demo.heads[thread] = demo.head(thread)
    demo.screen.say(
        "In both sessions two of three parallel tools have finished and the router has their "
        "results;\nsearch_hotels is in the middle, waiting for a slow hotel service."
    )
    return lisbon, oslo


def both_are_killed(demo: Demo, lisbon: Agent, oslo: Agent) -> None:
    """SIGKILL for one agent, then for the router; the other agent lives and finishes its tool."""
    demo.screen.scene("SIGKILL: the Lisbon agent, then the router")
    code = lisbon.kill()
    demo.screen.say(f"agent {lisbon.pid} is dead (exit code {code})")
    demo.claims.check(
        "the Lisbon agent died by SIGKILL in the middle of a tool",
        holds=code == -signal.SIGKILL and demo.log(LISBON).count("search_hotels", FINISHED) == 0,
        seen=f"exit code {code}, search_hotels started 1, finished 0",
    )
    pid = demo.router.pid
    demo.router.kill()
    gone = not process_runs(pid)
    demo.screen.say(f"router {pid} is dead too. Now the hotel service answers.")
    for thread in (LISBON, OSLO):
        toolbox_of(demo.directory, thread).hotels_answer.touch()
    until(
        lambda: demo.log(OSLO).count("search_hotels", FINISHED) == 1,
        "the Oslo agent to finish its tool while there is no router",
        alive=(oslo,),
        meanwhile=demo.show_calls,
    )
    demo.claims.check(
        "the router died by SIGKILL; meanwhile the Oslo agent finished a tool and kept its result",
        holds=gone and oslo.alive(),
        seen=f"router {pid} gone, agent {oslo.pid} alive",
    )


def both_start_again(demo: Demo, oslo: Agent) -> None:
    """The router comes back with what it had; a new agent process takes up the Lisbon run."""
    demo.screen.scene("The router starts again, and a new agent process resumes Lisbon")
    demo.router.start()
    demo.screen.say(f"router: process {demo.router.pid}, {demo.router.target}")
    before, after = demo.heads[LISBON], demo.head(LISBON)
    demo.claims.check(
        "after both kills the head of Lisbon and its finished tasks' results are what they were",
        holds=same(before, after),
        seen=f"checkpoint {short(id_of(after.config))}, {len(after.pending_writes or ())} writes",
    )
    again = demo.agents.start(LISBON, "resume")
    demo.screen.say(f"agent: process {again.pid} resumes Lisbon from what the router has")
    until(
        lambda: not again.alive() and not oslo.alive(),
        "both agents to come to their question",
        meanwhile=demo.show_calls,
    )
    asked, asked_oslo = again.outcome(), oslo.outcome()
    for outcome in (asked, asked_oslo):
        demo.screen.say(f"  [bold yellow]?[/] {outcome['asks'][0]['question']}  (agent exits)")
    check_calls(demo, asked, asked_oslo)


def check_calls(demo: Demo, asked: dict[str, Any], asked_oslo: dict[str, Any]) -> None:
    """The main claims: who was called how often, by the tools' own log."""
    lisbon, oslo = demo.log(LISBON), demo.log(OSLO)
    tables = (calls_table(LISBON, lisbon), calls_table(OSLO, oslo))
    demo.screen.show(side_by_side(*tables, demo.screen.console))
    counts = {tool: lisbon.count(tool, STARTED) for tool in FINISHED_BEFORE_THE_KILL}
    demo.claims.check(
        "no finished tool was called again when Lisbon was resumed",
        holds=all(count == 1 for count in counts.values()) and asked["end"] == "asks",
        seen=", ".join(f"{tool} {count}x" for tool, count in counts.items()),
    )
    started, finished = (lisbon.count("search_hotels", event) for event in (STARTED, FINISHED))
    demo.claims.check(
        "only the tool that the kill cut off was started again, and it finished once",
        holds=(started, finished) == (2, 1),
        seen=f"search_hotels started {started}x, finished {finished}x",
    )
    oslo_calls = [oslo.count(tool, STARTED) for tool in oslo.tools()]
    demo.claims.check(
        "the Oslo run outlived the router in one process, without an error or a second call",
        holds=set(oslo_calls) == {1}
        and len({call.pid for call in oslo.calls()}) == 1
        and asked_oslo["end"] == "asks",
        seen=f"{len(oslo_calls)} tools, each called once by one process",
    )


def people_answer(demo: Demo) -> None:
    """Fresh processes bring the answers; two sessions end differently."""
    demo.screen.scene("Two sessions side by side: yes to Lisbon, no to Oslo")
    before = demo.log(LISBON).count("book_trip", STARTED)
    answers = (
        demo.agents.start(LISBON, "answer", "yes"),
        demo.agents.start(OSLO, "answer", "no", asynchronous=True),
    )
    ends = [answer.outcome() for answer in answers]
    demo.show_calls()
    states = {thread: demo.graph(thread).get_state(config_of(thread)) for thread in (LISBON, OSLO)}
    left, right = (conversation(name, state.values["messages"]) for name, state in states.items())
    demo.screen.show(side_by_side(left, right, demo.screen.console))
    for thread in (LISBON, OSLO):
        demo.ends[thread] = demo.head(thread)
    booked = {thread: log.count("book_trip", FINISHED) for thread, log in demo.logs().items()}
    demo.claims.check(
        "a question put by one process was answered through another, and booking waited for it",
        holds=before == 0
        and booked == {LISBON: 1, OSLO: 0}
        and all(end["end"] == "done" for end in ends),
        seen=f"bookings before: {before}; after: Lisbon {booked[LISBON]}, Oslo {booked[OSLO]}",
    )
    mixed = [
        thread
        for thread, other in ((LISBON, OSLO), (OSLO, LISBON))
        if any(other in str(m.content).lower() for m in states[thread].values["messages"])
    ]
    demo.claims.check(
        "neither session saw anything of the other",
        holds=not mixed,
        seen=f"sessions with a foreign word in them: {mixed or 'none'}",
    )


def history(demo: Demo) -> None:
    """One row a superstep, from before and after the kills."""
    demo.screen.scene("History of Lisbon, over both kills")
    snapshots = list(demo.graph(LISBON).get_state_history(config_of(LISBON)))
    demo.screen.show(history_table(snapshots, "newest first"))
    steps = [snapshot.metadata["step"] for snapshot in snapshots]
    parents = [id_of(snapshot.parent_config) for snapshot in snapshots]
    ids = [id_of(snapshot.config) for snapshot in snapshots]
    demo.claims.check(
        "the history is one unbroken chain: each step once, each checkpoint the child of the last",
        holds=steps == list(range(steps[0], -2, -1)) and parents == [*ids[1:], None],
        seen=f"steps {steps[-1]} to {steps[0]}, {len(ids)} checkpoints",
    )


def time_travel(demo: Demo) -> None:
    """Read an earlier step, then fork from one with a smaller budget and let an agent run on."""
    demo.screen.scene(f"Time travel and a fork: what if the budget were {SMALL_BUDGET_EUR} EUR?")
    then, graph = demo.heads[LISBON], demo.graph(LISBON)
    now = demo.saver.get_tuple(then.config)
    demo.claims.check(
        "the step at which the agent was killed still reads as it was then",
        holds=now is not None and now.checkpoint == then.checkpoint,
        seen=f"checkpoint {short(id_of(then.config))}, every value equal",
    )
    past = next(
        snapshot
        for snapshot in graph.get_state_history(config_of(LISBON))
        if snapshot.next == ("check_budget",)
    )
    demo.screen.say(f"fork at checkpoint {short(id_of(past.config))}, before check_budget ran")
    forked = graph.update_state(past.config, {"budget_eur": SMALL_BUDGET_EUR}, as_node="think")
    said = demo.agents.start(LISBON, "resume").outcome()["said"]
    demo.show_calls()
    head = graph.get_state(config_of(LISBON))
    demo.screen.show(conversation(LISBON, head.values["messages"][-2:]))
    check_fork(demo, past=id_of(past.config), forked=forked, head=head, said=said)


def check_fork(demo: Demo, *, past: str | None, forked: Any, head: Any, said: str) -> None:
    """The fork is the head, the first ending is kept, and nothing was booked again."""
    fork = demo.saver.get_tuple(forked)
    chain = ancestors(demo.saver, head.config)
    booked = demo.log(LISBON).count("book_trip", STARTED)
    demo.claims.check(
        "a new agent process followed the fork, which grows from the earlier step; booked no more",
        holds=fork is not None
        and id_of(fork.parent_config) == past
        and id_of(forked) in chain
        and head.values["budget_eur"] == SMALL_BUDGET_EUR
        and "booked nothing" in said
        and booked == 1,
        seen=f"parent {short(past)}, budget {head.values['budget_eur']}, book_trip {booked}x",
    )
    end = demo.ends[LISBON]
    kept = demo.saver.get_tuple(end.config)
    demo.claims.check(
        f"the first ending, with {BUDGET_EUR} EUR, is still there, unchanged",
        holds=kept is not None and same(kept, end),
        seen=f"checkpoint {short(id_of(end.config))}",
    )


def thread_show(demo: Demo) -> None:
    """The router's own drawing of the thread, by its command line."""
    demo.screen.scene("checkpoint-router thread show lisbon")
    shown = router_command(demo, "thread", "show", LISBON, seen=True)
    read = router_command(demo, "thread", "show", LISBON)
    both = {id_of(demo.ends[LISBON].config) or "?", id_of(demo.head(LISBON).config) or "?"}
    drawn = [end for end in both if end in read.stdout]
    demo.claims.check(
        "thread show draws both branches, and needs no agent code for it",
        holds=shown.returncode == read.returncode == 0 and len(drawn) == len(both) == 2,
        seen=f"exit code {shown.returncode}, {len(drawn)} of 2 branch ends drawn",
    )
    codes = [
        router_command(demo, "thread", "conflicts", thread, "--check").returncode
        for thread in (LISBON, OSLO)
    ]
    demo.claims.check(
        "kills, resumes and the fork left no conflict: nobody took them for rivals",
        holds=codes == [0, 0],
        seen=f"thread conflicts --check: exit codes {codes}",
    )


def router_command(demo: Demo, *words: str, seen: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `checkpoint-router …`; `seen`: its output goes to the terminal instead of back here."""
    demo.screen.console.file.flush()
    return subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, *words, "--target", demo.router.target],
        stdout=None if seen else subprocess.PIPE,
        stderr=None if seen else subprocess.PIPE,
        text=True,
        timeout=WAIT_SECONDS_MAX,
        check=False,
    )
