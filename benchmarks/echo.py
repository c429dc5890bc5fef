"""The bare link: a process that answers each message of a gRPC stream, and does nothing else.

What a call through the router costs above this is our own; what it costs below cannot be had in
Python without another transport. The bytes are opaque: no protobuf on either side.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

METHOD: Final = "/benchmarks.Echo/Talk"
START_SECONDS_MAX: Final = 30.0


async def serve(method: str, talk: Any) -> None:
    """A server with one method, a stream of bytes both ways, on a port that it prints."""
    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(talk)
    service, _, name = method.removeprefix("/").partition("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {name: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


@contextmanager
def serving(*module: str) -> Iterator[int]:
    """Such a server in a process of its own: a module, and what it is given. Gives its port."""
    process = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", *module],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield int(process.stdout.readline()) if process.stdout else 0
    finally:
        process.kill()
        process.wait(START_SECONDS_MAX)


async def talk(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Answer each message with as many bytes as its first four say."""
    async for request in requests:
        yield bytes(int.from_bytes(request[:4], "big"))


async def echo_ms(port: int, *, request_bytes: int, answer_bytes: int, times: int) -> float:
    """The median of one message there and one back on a stream that stays open."""
    request = answer_bytes.to_bytes(4, "big") + bytes(max(0, request_bytes - 4))
    taken = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.stream_stream(METHOD)()
        for _ in range(times):
            began = time.perf_counter()
            await call.write(request)
            await call.read()
            taken.append(time.perf_counter() - began)
        await call.done_writing()
    return statistics.median(taken) * 1_000


if __name__ == "__main__":
    asyncio.run(serve(METHOD, talk))
