"""Whole programs with links: many loops, forks, and ends without a close. None may say a word."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from tests.probe.scripted_router import SECONDS_MAX, ScriptedRouter

PRELUDE = """
import asyncio, gc, os, signal, sys, threading, warnings
from checkpoint_router.client.links import Links
from checkpoint_router.client.target import Target
from checkpoint_router.core.errors import ForkedSaver, RouterError
from checkpoint_router.v1 import checkpoint_service_pb2 as v1

# Python's own advice from 3.12 on; it is the subject here.
warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
links = Links(Target.parse(sys.argv[1]))

def message(key, verb="echo"):
    return v1.GetTupleRequest(thread_id=verb, checkpoint_ns="h", checkpoint_id=key)

def call(key, verb="echo", seconds=20.0):
    answer = links.call("get_tuple", message(key, verb), timeout_seconds=seconds)
    assert answer.token == key.encode()

async def acall(key, verb="echo", seconds=20.0):
    answer = await links.acall("get_tuple", message(key, verb), timeout_seconds=seconds)
    assert answer.token == key.encode()

def in_child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
            os._exit(1)
        sys.exit(0)  # with all that the end of an interpreter does
    assert os.waitpid(pid, 0)[1] == 0

def refused(work):
    try:
        work()
    except ForkedSaver as error:
        assert "spawn" in str(error)
    else:
        raise AssertionError("not refused")
"""


@pytest.fixture(scope="module")
def router() -> Iterator[ScriptedRouter]:
    with ScriptedRouter() as router:
        yield router


def run(router: ScriptedRouter, program: str) -> str:
    """Runs a program to its end: in time, with success, and without a word on stderr."""
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-W",
            "default",
            "-c",
            PRELUDE + textwrap.dedent(program),
            router.target,
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX * 2,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "fork_posix.cc" not in line]
    assert not said, done.stderr
    assert done.returncode == 0
    return done.stdout


# Ends ---------------------------------------------------------------------------------------------

ENDS = {
    "sync": "call('a')",
    "sync in a worker": "t = threading.Thread(target=call, args=('a',)); t.start(); t.join()",
    "async": "asyncio.run(acall('a'))",
    "both": "call('a'); asyncio.run(acall('b'))",
    "sync closed": "call('a'); links.close(); links.close()",
    "async closed": """
        async def main():
            await acall('a')
            await links.aclose()
            await links.aclose()
        asyncio.run(main())
    """,
    "async closed from outside": """
        asyncio.run(acall('a'))
        links.close()
    """,
    "a loop that is only closed": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(acall('a'))
        loop.run_until_complete(links.aclose())
        loop.close()
    """,
    "a call under way in a worker": """
        call('a')
        threading.Thread(target=call, args=('n', 'never'), daemon=True).start()
        call('b')
    """,
    "a call under way in a task": """
        async def main():
            task = asyncio.create_task(acall('n', 'never'))
            await acall('a')
        asyncio.run(main())
    """,
    "nobody there": """
        links.target
        lost = Links(Target.parse("router://127.0.0.1:1"))
        try:
            lost.call("get_tuple", message("a"), timeout_seconds=0.2)
        except RouterError:
            pass
        else:
            raise AssertionError
    """,
    "an error that ends the program": """
        call('a')
        sys.exit(0)
    """,
    "a link in a cycle that is collected": """
        class Holder: pass
        holder = Holder(); holder.links, holder.self = links, holder
        call('a'); asyncio.run(acall('b'))
        del holder, links
        gc.collect()
    """,
}


@pytest.mark.parametrize("program", ENDS.values(), ids=ENDS.keys())
def test_a_program_ends_at_once_and_in_silence(router: ScriptedRouter, program: str) -> None:
    run(router, program)


# Loops --------------------------------------------------------------------------------------------


def test_a_loop_for_each_request_leaves_nothing_behind(router: ScriptedRouter) -> None:
    run(
        router,
        """
        def handles():
            return len(os.listdir("/proc/self/fd"))

        for n in range(10):
            asyncio.run(acall(str(n)))
        gc.collect()
        before, workers = handles(), threading.active_count()
        for n in range(60):
            asyncio.run(acall(str(n)))
        gc.collect()
        assert threading.active_count() <= workers, threading.enumerate()
        assert handles() <= before + 5, (before, handles())
        """,
    )


def test_several_loops_and_workers_use_one_saver_at_once(router: ScriptedRouter) -> None:
    run(
        router,
        """
        failures = []
        threading.excepthook = lambda args: failures.append(args.exc_value)

        async def many(name):
            for turn in range(10):
                await asyncio.gather(*(acall(f"{name}-{turn}-{n}") for n in range(20)))

        def in_a_loop(name):
            for part in range(3):
                asyncio.run(many(f"{name}-{part}"))

        def bare(name):
            for n in range(200):
                call(f"{name}-{n}")

        workers = [threading.Thread(target=in_a_loop, args=(f"l{n}",)) for n in range(4)]
        workers += [threading.Thread(target=bare, args=(f"s{n}",)) for n in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not failures, failures
        """,
    )


def test_sync_calls_work_inside_a_running_loop(router: ScriptedRouter) -> None:
    run(
        router,
        """
        async def main():
            await acall("a")
            call("b")
            await asyncio.gather(asyncio.to_thread(call, "c"), acall("d"))

        asyncio.run(main())
        """,
    )


def test_a_cancelled_caller_leaves_the_others_and_the_router_is_told(
    router: ScriptedRouter,
) -> None:
    run(
        router,
        """
        async def main():
            task = asyncio.create_task(acall("cancelled", "never"))
            held = asyncio.create_task(acall("held", "hold"))
            await acall("a")
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
            await acall("b", "release")
            await held

        asyncio.run(main())
        """,
    )
    (call,) = router.seen("call", key="cancelled")
    router.wait_for(lambda: router.seen("cancelled", ids=[call["id"]]), "the cancellation")


def test_who_cancels_the_links_own_tasks_costs_no_call(router: ScriptedRouter) -> None:
    run(
        router,
        """
        async def main():
            mine = {asyncio.current_task()}
            waiting = asyncio.create_task(acall("waiting", "hold"))
            mine.add(waiting)
            await acall("a")
            for task in asyncio.all_tasks() - mine:
                task.cancel()
            await acall("b", "release")
            await waiting

        asyncio.run(main())
        """,
    )


def test_a_link_keeps_nothing_of_the_context_that_first_called(router: ScriptedRouter) -> None:
    run(
        router,
        """
        import contextvars, weakref

        class Large: pass
        held = contextvars.ContextVar("held")

        async def first():
            large = Large()
            held.set(large)
            await acall("a")
            await asyncio.to_thread(call, "b")
            return weakref.ref(large)

        async def main():
            large = await asyncio.create_task(first())
            await acall("c")
            await asyncio.sleep(0)
            gc.collect()
            assert large() is None, gc.get_referrers(large())

        asyncio.run(main())
        """,
    )


# Forks --------------------------------------------------------------------------------------------

USES = {
    "sync": "call('parent')",
    "async": "asyncio.run(acall('parent'))",
    "a loop that is still open": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(acall('parent'))
    """,
    "closed": "call('parent'); asyncio.run(acall('parent')); links.close()",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_forked_child_of_a_program_that_was_linked_is_refused_at_once(
    router: ScriptedRouter, use: str
) -> None:
    run(
        router,
        textwrap.dedent(use)
        + textwrap.dedent("""
        fresh = Links(Target.parse(sys.argv[1]))

        def child():
            refused(lambda: call("child"))
            refused(lambda: asyncio.run(acall("child")))
            refused(lambda: fresh.call("get_tuple", message("child"), timeout_seconds=5))
            links.close()
            asyncio.run(fresh.aclose())

        for _ in range(3):
            in_child(child)
        fresh.call("get_tuple", message("after"), timeout_seconds=20)
        if "loop" in globals():
            loop.run_until_complete(acall("after"))
            loop.run_until_complete(links.aclose())
            loop.close()
        """),
    )


def test_a_fork_in_the_middle_of_calls_does_not_disturb_them(router: ScriptedRouter) -> None:
    run(
        router,
        """
        def many():
            for n in range(300):
                call(str(n))

        workers = [threading.Thread(target=many) for _ in range(2)]
        for worker in workers:
            worker.start()
        for _ in range(5):
            in_child(lambda: refused(lambda: call("child")))
        for worker in workers:
            worker.join()
        call("after")
        """,
    )


def test_children_that_are_forked_before_the_first_call_have_links_of_their_own(
    router: ScriptedRouter,
) -> None:
    run(
        router,
        """
        def child():
            call("child")
            asyncio.run(acall("child"))

        in_child(child)
        in_child(child)
        call("parent")
        """,
    )


def test_a_spawned_worker_may_use_a_saver_of_its_own(router: ScriptedRouter) -> None:
    run(
        router,
        """
        import subprocess
        call("parent")
        subprocess.run([sys.executable, "-c", "import checkpoint_router.client.links"], check=True)
        call("parent")
        """,
    )
