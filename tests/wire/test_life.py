"""A router's start and end, as its clients and whoever started it see them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import (  # type: ignore[import-untyped]  # ships no stubs
    health_pb2,
    health_pb2_grpc,
)
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # likewise
    reflection_pb2,
    reflection_pb2_grpc,
)

from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.testing import RouterFailed, RunningRouter, running_router
from checkpoint_router.v1 import admin_service_pb2 as admin
from checkpoint_router.v1 import admin_service_pb2_grpc as admin_grpc
from checkpoint_router.v1 import checkpoint_service_pb2 as calls

from .raw import SECONDS, Stream, call_of, read, waiting_put


@pytest.fixture
def mortal() -> Iterator[RunningRouter]:
    """A router that the test may end."""
    with running_router() as router:
        yield router


@pytest.fixture
def patient() -> Iterator[RunningRouter]:
    """A router that would wait far longer for its clients than the test waits for it."""
    with running_router(env={"CHECKPOINT_ROUTER_DRAIN_SECONDS": "600"}) as router:
        yield router


@pytest.fixture
def hasty() -> Iterator[RunningRouter]:
    """A router that waits for next to nothing."""
    with running_router(env={"CHECKPOINT_ROUTER_DRAIN_SECONDS": "0.2"}) as router:
        yield router


def get(call_id: int) -> calls.Call:
    return call_of("get_tuple", calls.GetTupleRequest(tenant="acme", thread_id="t"), call_id)


def test_sigterm_tells_streams_to_go_and_answers_what_is_under_way(
    mortal: RunningRouter, thread: ThreadKey, segment: bytes
) -> None:
    waits = waiting_put(thread, read(mortal.address, thread), segment)
    with Stream(mortal.address) as stream, Stream(mortal.address) as idle:
        idle.call(get(1))
        assert idle.next().get_tuple.token
        # The first answer shows that the frame has arrived; the put waits for a second then.
        stream.call(call_of("put", waits, 1), get(2))
        assert stream.next().call_id == 2
        os.kill(mortal.pid, signal.SIGTERM)
        assert stream.frame().going_away
        late = stream.next()
        assert (late.call_id, late.error.reason) == (1, "STALE")
        assert list(stream.results()) == []
        assert list(idle.results()) == []
        assert idle.went_away
        assert mortal.stop() == 0
    assert '"event": "stopped"' in mortal.log_text()


def test_sigterm_does_not_wait_for_clients_that_never_leave(patient: RunningRouter) -> None:
    with Stream(patient.address) as stream:
        stream.call(get(1))
        assert stream.next().get_tuple.token
        assert patient.stop() == 0


def test_calls_that_take_longer_than_the_time_to_drain_are_cut_off(
    hasty: RunningRouter, thread: ThreadKey, segment: bytes
) -> None:
    waits = waiting_put(thread, read(hasty.address, thread), segment)
    with Stream(hasty.address) as stream:
        stream.call(call_of("put", waits, 1), get(2))
        assert stream.next().call_id == 2
        assert hasty.stop() == 0
    assert '"cut_off": true' in hasty.log_text()
    assert "Traceback" not in hasty.log_text()


def test_sigterm_does_not_wait_for_those_who_only_watch_the_health(
    patient: RunningRouter,
) -> None:
    with grpc.insecure_channel(patient.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=SECONDS
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert patient.stop() == 0
    assert '"cut_off": false' in patient.log_text()


def test_sigint_ends_a_router_likewise(mortal: RunningRouter) -> None:
    os.kill(mortal.pid, signal.SIGINT)
    assert mortal.stop() == 0


def test_health_says_that_the_router_serves_and_then_that_it_does_not(
    mortal: RunningRouter, thread: ThreadKey, segment: bytes
) -> None:
    waits = waiting_put(thread, read(mortal.address, thread), segment)
    with (
        grpc.insecure_channel(mortal.address) as channel,
        Stream(mortal.address) as stream,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="checkpoint_router.v1.CheckpointService"),
            timeout=SECONDS,
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stream.call(call_of("put", waits, 1), get(2))
        assert stream.next().call_id == 2
        os.kill(mortal.pid, signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert mortal.stop() == 0


def test_reflection_names_the_services(router: RunningRouter) -> None:
    with grpc.insecure_channel(router.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(stub.ServerReflectionInfo(iter([question]), timeout=SECONDS))
    names = {service.name for service in answer.list_services_response.service}
    assert {
        "checkpoint_router.v1.CheckpointService",
        "checkpoint_router.v1.AdminService",
        "grpc.health.v1.Health",
    } <= names


def test_a_router_says_what_it_is(router: RunningRouter) -> None:
    with grpc.insecure_channel(router.address) as channel:
        stub: Any = admin_grpc.AdminServiceStub(channel)
        facts = stub.GetRouter(admin.GetRouterRequest(), timeout=SECONDS)
    assert (facts.storage, facts.protocol, facts.table_epoch) == ("memory:", 1, 1)
    assert facts.promises
    assert 0 < facts.actor < 2**63


def test_a_router_killed_and_started_again_answers_on_the_same_port(
    mortal: RunningRouter, thread: ThreadKey
) -> None:
    before = mortal.address, mortal.pid
    mortal.kill()
    mortal.start()
    assert mortal.address == before[0]
    assert mortal.pid != before[1]
    assert read(mortal.address, thread).clock.gen == 1


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=SECONDS).close()
    except OSError:
        return False
    return True


def test_a_router_of_a_process_that_was_killed_ends_too() -> None:
    program = """if True:
        from checkpoint_router.testing import running_router
        with running_router() as router:
            print(router.address, flush=True)
            input()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        host, _, port = parent.stdout.readline().strip().rpartition(":")
        assert listens(host, int(port))
        parent.kill()
    deadline = time.monotonic() + SECONDS
    while listens(host, int(port)):
        assert time.monotonic() < deadline, "the router goes on without its parent"
        time.sleep(0.02)  # between two looks


def test_a_taken_port_is_refused_with_what_to_do(router: RunningRouter, tmp_path: Path) -> None:
    second = RunningRouter("memory:", router.address, tmp_path, None)
    with pytest.raises(RouterFailed, match=r" is taken .* port 0 for a free one"):
        second.start()


def test_a_storage_that_nobody_knows_is_refused_with_those_that_are_known(
    tmp_path: Path,
) -> None:
    with pytest.raises(RouterFailed, match=r"no storage is called 'etcd:x'. Known are: memory:"):
        RunningRouter("etcd:x", "127.0.0.1:0", tmp_path, None).start()


def test_a_router_that_has_not_started_yet_can_be_told_to_stop(tmp_path: Path) -> None:
    router = RunningRouter("memory:", "127.0.0.1:0", tmp_path, None)
    assert router.stop() == 0
    with pytest.raises(RouterFailed, match="start"):
        _ = router.pid


def test_all_bad_settings_are_listed_before_anything_starts() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "checkpoint_router.server",
            "--listen",
            "nowhere",
            "--log-level",
            "x",
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert [line[2:].split(" ")[0] for line in done.stderr.splitlines()[1:]] == [
        "listen",
        "storage",
        "log_level",
    ]
    assert not done.stdout


def test_a_plain_socket_that_speaks_no_http2_harms_nobody(
    router: RunningRouter, thread: ThreadKey
) -> None:
    host, _, port = router.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 64)
        assert read(router.address, thread).clock.gen == 1
