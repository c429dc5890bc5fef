"""A router that does as its callers say: for faults that a real one cannot be asked for.

Run as a program it serves Connect alone and writes what it sees to its output, one JSON object a
line. A `get_tuple` is the script: `thread_id` is the verb, `checkpoint_ns` its argument, and
`checkpoint_id` the key, which is echoed as the token. Verbs: see `_Script`. `ScriptedRouter` is
the same from the test's side: it starts and ends the process, and knows what it has seen.
"""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import grpc
import grpc.aio

from checkpoint_router.client.route import CONNECT
from checkpoint_router.v1 import checkpoint_service_pb2 as v1

SECONDS_MAX = 30.0
"""How long anything may take that is sure to happen."""


class ScriptedRouter:
    """The process, as a test holds it."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        # What it says goes into a file, so that whatever it said before it answered is there when
        # the answer is; a pipe only wakes those who wait.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._said.close()

    @property
    def target(self) -> str:
        return f"router://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Starts it, or starts it again on the same port, and waits until it listens."""
        starts = len(self.seen("listening"))
        wakes, waker = os.pipe()
        command = [sys.executable, "-u", __file__, str(self.port), str(waker)]
        self._process = subprocess.Popen(command, stdout=self._said, pass_fds=[waker])
        os.close(waker)
        threading.Thread(target=self._listen, args=(wakes,), daemon=True).start()
        self.wait_for(lambda: len(self.seen("listening")) > starts, "the router to listen")
        self.port = self.seen("listening")[-1]["port"]
        return self

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self._signal(signal.SIGKILL)
        assert self._process
        self._process.wait(SECONDS_MAX)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def seen(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The events of a kind, so far, that have these fields."""
        size = os.fstat(self._said.fileno()).st_size
        lines = os.pread(self._said.fileno(), size, 0).splitlines(keepends=True)
        said = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [
            each
            for each in said
            if each["event"] == event and all(each[k] == v for k, v in fields.items())
        ]

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Until `condition` holds; looks at each new event."""
        with self._changed:
            assert self._changed.wait_for(condition, SECONDS_MAX), f"waited in vain for {what}"

    def wait_for_call(self, key: str, times: int = 1) -> None:
        """Until a call with this key has come so often."""
        self.wait_for(lambda: len(self.seen("call", key=key)) >= times, f"call {key}")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def _listen(self, wakes: int) -> None:
        while os.read(wakes, 4096):
            with self._changed:
                self._changed.notify_all()
        os.close(wakes)


# The program --------------------------------------------------------------------------------------


def say(event: str, **fields: object) -> None:
    os.write(1, (json.dumps({"event": event, **fields}) + "\n").encode())
    os.write(int(sys.argv[2]), b".")


class _Script:
    """What the verbs do. Each returns once the call may be answered."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._held: dict[str, asyncio.Event] = {}

    async def run(self, call: v1.Call, stream: "_Stream") -> None:
        request = call.get_tuple
        verb, argument, key = request.thread_id, request.checkpoint_ns, request.checkpoint_id
        self._times[key] += 1
        what, _, most = argument.partition(":")
        due = self._times[key] <= int(most or "0")
        if verb == "hold":
            await self._held.setdefault(argument, asyncio.Event()).wait()
        elif verb == "release":
            self._held.setdefault(argument, asyncio.Event()).set()
        elif verb == "never" and not due:
            await asyncio.Event().wait()
        elif verb in ("refuse", "never") and due:
            why = {"retry_after_ms": "1"} if what == "OVERLOADED" else {"a": "b"}
            stream.results.add(call_id=call.call_id).error.MergeFrom(
                v1.CallError(code=14, reason=what, message="so it was asked", metadata=why)
            )
            return
        elif verb == "break" and due:
            stream.abort(grpc.StatusCode[what])
            return
        elif verb == "away":
            stream.going_away = True
        elif verb == "wrong":
            stream.results.add(call_id=call.call_id).put.SetInParent()
            return
        elif verb == "twice":
            stream.results.add(call_id=call.call_id).get_tuple.token = key.encode()
        stream.results.add(call_id=call.call_id).get_tuple.token = key.encode()


class _Stream:
    def __init__(self, number: int, context: Any, script: _Script) -> None:
        self.context = context
        self.going_away = False
        self._aborted: asyncio.Future[grpc.StatusCode] = asyncio.Future()
        self._number = number
        self._script = script
        self._frame = v1.ConnectResponse()
        self._writing = asyncio.Lock()
        self._tasks: dict[int, asyncio.Task[None]] = {}

    @property
    def results(self) -> Any:
        return self._frame.results

    async def serve(self) -> None:
        say("stream", stream=self._number)
        reader = asyncio.create_task(self._read())
        try:
            ends: set[asyncio.Future[Any]] = {reader, self._aborted}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._aborted.done():
                await self.context.abort(self._aborted.result(), "so it was asked")
        finally:
            reader.cancel()
            say("end", stream=self._number, under_way=len(self._tasks))
            for task in self._tasks.values():
                task.cancel()

    def abort(self, code: grpc.StatusCode) -> None:
        if not self._aborted.done():
            self._aborted.set_result(code)

    async def _read(self) -> None:
        while (raw := await self.context.read()) is not grpc.aio.EOF:
            self._take(v1.ConnectRequest.FromString(raw))

    def _take(self, frame: v1.ConnectRequest) -> None:
        say("frame", stream=self._number, calls=len(frame.calls))
        for call in frame.calls:
            digest = hashlib.sha256(call.SerializeToString(deterministic=True)).hexdigest()
            task = asyncio.create_task(self._answer(call))
            self._tasks[call.call_id] = task
            say(
                "call",
                key=call.get_tuple.checkpoint_id,
                id=call.call_id,
                stream=self._number,
                digest=digest,
                traceparent=call.traceparent,
                timeout_ms=call.timeout_ms,
                under_way=len(self._tasks),
            )
        if frame.cancelled:
            say("cancelled", stream=self._number, ids=list(frame.cancelled))

    async def _answer(self, call: v1.Call) -> None:
        try:
            await self._script.run(call, self)
        finally:
            del self._tasks[call.call_id]
        frame, self._frame = self._frame, v1.ConnectResponse()
        frame.going_away, self.going_away = self.going_away, False
        if frame.results or frame.going_away:
            async with self._writing:
                await self.context.write(frame.SerializeToString())


async def main(port: str) -> None:
    script, numbers = _Script(), iter(range(1, 1_000_000))

    async def connect(_: object, context: Any) -> None:
        await _Stream(next(numbers), context, script).serve()

    _, service, method = CONNECT.split("/")
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.http2.max_ping_strikes", 0)])
    handlers: Any = {method: grpc.stream_stream_rpc_method_handler(connect)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    say("listening", port=bound)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
