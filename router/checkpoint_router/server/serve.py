"""The composition root: settings to a running router, and its orderly end.

Owner: the process' one event loop. Order of the end, which SIGTERM and SIGINT begin: health says
no, streams are told to go, no call is taken any more, calls under way are answered, the storage is
closed, the last spans are sent. What a client has as acknowledged was durable before, so a SIGKILL
loses nothing either.
"""

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import (  # type: ignore[import-untyped]  # ships no stubs
    health_pb2,
    health_pb2_grpc,
)
from grpc_health.v1.health import aio as health  # type: ignore[import-untyped]  # likewise
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # likewise

from checkpoint_router import __version__
from checkpoint_router.core import limits
from checkpoint_router.core.errors import Refused, Unavailable
from checkpoint_router.engine.engine import Engine
from checkpoint_router.server.admission import Admission
from checkpoint_router.server.calls import Router
from checkpoint_router.server.handlers import ADMIN_CALLS, CALLS
from checkpoint_router.server.settings import Settings
from checkpoint_router.server.stream import Streams
from checkpoint_router.server.unary import method_of
from checkpoint_router.telemetry import export, logging, names

GC_ALLOCATIONS: Final = 20_000
"""Objects made and not freed between two looks for cycles among the young."""

SWITCH_SECONDS: Final = 0.0002
"""For which a thread of the router may keep the interpreter from another."""

CLOSE_SECONDS: Final = 1.0
"""Of the time to drain, kept for closing the storage."""

START_SECONDS_MAX: Final = 30.0
"""For a storage that does not answer when the router starts: about as long as savers wait. Shorter:
routers that are started again together with their engine fail. Longer: a wrong address is seen
late."""

START_PAUSE_SECONDS: Final = 1.0
"""Between two tries of that."""

FLUSH_SECONDS: Final = 0.2
"""For answers that are made but not yet sent, when nothing else is under way."""

OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
    # Two routers on one port would share its connections by chance.
    ("grpc.so_reuseport", 0),
    # A model call leaves a stream silent for minutes. Pings keep what is between awake, and find
    # a peer that has gone; a client may ping as often as it thinks right.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", limits.STREAMS_PER_TENANT_MAX),
)


@dataclass(slots=True)
class Running:
    """A router that answers."""

    server: grpc.aio.Server
    engine: Engine
    admission: Admission
    streams: Streams
    health: health.HealthServicer
    address: str
    """HOST:PORT, with the port that it got."""


async def start(settings: Settings, ending: asyncio.Event) -> Running:
    """Opens the storage and answers. Raises Refused, StorageInUse, UnknownStorage, Unavailable.

    An address that is taken is found first: nothing was touched then. A storage that does not
    answer is tried again for `START_SECONDS_MAX`, or until `ending` is set.
    """
    await _check_address(settings.listen)
    engine = await _opened(settings, ending)
    try:
        return await _answering(settings, engine)
    except BaseException:
        await engine.close()
        raise


async def _opened(settings: Settings, ending: asyncio.Event) -> Engine:
    # Here and not above: a backend brings its driver, and only the one that is used is wanted.
    from checkpoint_router.storage.open import storage_from_url

    end = time.monotonic() + START_SECONDS_MAX
    while True:
        engine = Engine(
            storage_from_url(settings.storage),
            now_ms=lambda: time.time_ns() // 1_000_000,
            version=__version__,
        )
        try:
            await engine.open()
            return engine
        except Unavailable as e:
            left = end - time.monotonic() - START_PAUSE_SECONDS
            if left <= 0:
                raise
            log = logging.logger("serve")
            log.warning("storage does not answer yet", seconds_left=round(left), text=e.message)
            if await _set_within(START_PAUSE_SECONDS, ending):
                raise


async def _set_within(seconds: float, event: asyncio.Event) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def _check_address(listen: str) -> None:
    """Binds it for a moment: gRPC would log its refusal in words of its own. Raises Refused."""
    host, _, port = listen.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as e:
        raise _refused(listen, e) from None
    free, error = False, OSError(errno.EADDRNOTAVAIL, "no address was found")
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As servers bind: a port whose last user has just gone is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                free = True
        except OSError as e:
            # A name may have addresses of a kind that this machine has not.
            if e.errno == errno.EADDRINUSE:
                raise _refused(listen, e) from None
            error = e
    if not free:
        raise _refused(listen, error)


def _refused(listen: str, error: Exception) -> Refused:
    why = getattr(error, "strerror", None) or error
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        what = f"{listen} is taken ({why}). Is another router running there?"
    else:
        what = f"cannot listen on {listen}: {why}."
    return Refused(f"{what} Choose another address with --listen, or port 0 for a free one.")


async def _answering(settings: Settings, engine: Engine) -> Running:
    admission = Admission(
        bytes_max=settings.bytes_in_flight_max, stall_seconds=settings.stream_stall_seconds
    )
    router = Router(engine=engine, admission=admission)
    streams = Streams(router, stall_seconds=settings.stream_stall_seconds)
    server = grpc.aio.server(options=OPTIONS)
    _register(server, router, streams)
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if settings.reflection:
        services = (names.SERVICE, names.ADMIN_SERVICE, "grpc.health.v1.Health")
        reflection.enable_server_reflection((*services, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(settings.listen)
    except RuntimeError as e:
        # Somebody took it in the meantime.
        raise _refused(settings.listen, e) from None
    await server.start()
    for service in ("", names.SERVICE, names.ADMIN_SERVICE):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    host = settings.listen.rpartition(":")[0]
    return Running(server, engine, admission, streams, servicer, f"{host}:{port}")


def _register(server: grpc.aio.Server, router: Router, streams: Streams) -> None:
    # Bytes in and out: messages are parsed and made by the handlers.
    services: dict[str, dict[str, Any]] = {names.SERVICE: {}, names.ADMIN_SERVICE: {}}
    for handler in (*CALLS.values(), *ADMIN_CALLS):
        services[handler.service][handler.method] = grpc.unary_unary_rpc_method_handler(
            method_of(router, handler)
        )
    services[names.SERVICE]["Connect"] = grpc.stream_stream_rpc_method_handler(streams.connect)
    for service, methods in services.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))


async def stop(running: Running, seconds: float) -> bool:
    """Ends the router within `seconds`, in the order that this module's docstring gives.

    Returns whether calls had to be cut off.
    """
    await running.health.enter_graceful_shutdown()
    running.streams.leave()
    patience = max(seconds - CLOSE_SECONDS, seconds / 2)
    stopping = asyncio.create_task(running.server.stop(patience))
    cut_off = False
    try:
        async with asyncio.timeout(patience):
            await running.admission.idle()
    except TimeoutError:
        cut_off = True
    # Whoever watches the health has an open call too, and would hold this up to the end.
    await running.server.stop(FLUSH_SECONDS)
    await stopping
    await running.engine.close()
    return cut_off


def _say_where(address: str) -> None:
    sys.stdout.write(f"listening on {address}\n")
    sys.stdout.flush()


async def serve(settings: Settings, announce: Callable[[str], None] = _say_where) -> None:
    """Runs a router until SIGTERM or SIGINT; `announce` learns HOST:PORT when it answers. Errors
    as `start` and as `export.start`."""
    log = logging.logger("serve")
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    send_the_rest = export.start(__version__)
    running = await start(settings, ending)
    facts = await running.engine.facts()
    log.info(
        "started",
        address=running.address,
        version=facts.version,
        storage=facts.storage,
        promise=" ".join(facts.promises),
        actor=f"{facts.actor:016x}",
    )
    for alarm in facts.alarms:
        log.warning("alarm", text=alarm)
    announce(running.address)
    await ending.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        # One is enough: a second one, when the loop has let go of it, would spoil the exit code.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    begun = time.monotonic()
    log.info("stopping", seconds_max=settings.drain_seconds)
    cut_off = await stop(running, settings.drain_seconds)
    left = settings.drain_seconds - (time.monotonic() - begun)
    await asyncio.to_thread(send_the_rest, max(left, 0.0))
    log.info("stopped", seconds=round(time.monotonic() - begun, 3), cut_off=cut_off)


def run(settings: Settings, announce: Callable[[str], None] = _say_where) -> int:
    """Runs a router in this process; returns its exit code. Errors as `serve`."""
    logging.configure(settings.log_format, settings.log_level)
    # What was imported stays, and few calls make cycles: looking for them as often as Python
    # does by default took a sixth of the router's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 100)
    # The worker that writes needs the interpreter for microseconds, between statements and the
    # disk; the loop would keep it from that for Python's 5 ms each time.
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(serve(settings, announce))
    return 0
