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


async def serve() -> None:
    """Answer each message with as many bytes as its first four say."""

    async def talk(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield bytes(int.from_bytes(request[:4], "big"))

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(talk)
    service = grpc.method_handlers_generic_handler("benchmarks.Echo", {"Talk": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


@contextmanager
def running_echo() -> Iterator[int]:
    """The echo in a process of its own; gives its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.echo"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield int(process.stdout.readline()) if process.stdout else 0
    finally:
        process.kill()
        process.wait(START_SECONDS_MAX)


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
    asyncio.run(serve())
