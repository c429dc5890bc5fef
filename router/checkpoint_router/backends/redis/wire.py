"""One connection to one server: commands out in order, answers in, many under way at once.

The driver takes a connection out of a pool for each command, in a dozen coroutines and two timers;
that was most of what a put cost its router. Its parser and its errors are kept.

Owner of the calls under way. Rules: an answer belongs to the oldest of them; when the connection
ends, or the server is silent for too long, all of them fail and their outcome is unknown; nothing
is sent twice, and nothing is sent on a connection that has ended.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions
from redis.asyncio.connection import DefaultParser

from checkpoint_router.backends.redis.place import Place


class Wire(asyncio.Protocol):
    """Made by `connect`; ended by `close`, by the server, or by its silence."""

    def __init__(self, name: str, silence_seconds: float) -> None:
        self._name, self._silence_seconds = name, silence_seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse, replyError=DefaultParser.parse_error
        )
        self._transport: asyncio.Transport
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        """What goes out together at the end of this turn of the loop."""
        self._since = 0.0
        """When the server was last heard, or first asked after that."""
        self._watch: asyncio.TimerHandle | None = None
        self.broken = False

    def ask(self, *command: Any) -> asyncio.Future[Any]:
        """Sends a command; its answer is to come. Raises what the driver would: of the server, or
        ConnectionError and TimeoutError, after which the outcome is unknown."""
        answer = self._loop.create_future()
        if self.broken:
            answer.set_exception(
                exceptions.ConnectionError(f"the connection to {self._name} has ended")
            )
            return answer
        packed = hiredis.pack_command(command)
        if not self._waiting:
            self._since = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self._silence_seconds, self._look)
            self._transport.write(packed)
        else:
            # Each write is a call of the system, which costs as much as all that is done here.
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out.append(packed)
        self._waiting.append(answer)
        return answer

    def _flush(self) -> None:
        if not self.broken:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def close(self) -> None:
        """Ends it. Idempotent."""
        self._end(exceptions.ConnectionError(f"the connection to {self._name} was closed"))

    # What the loop calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._since = self._loop.time()
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:  # which no server answers
                future = self._waiting.popleft()
                if future.done():  # its caller was cancelled
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except (exceptions.InvalidResponse, IndexError):
            self._end(
                exceptions.InvalidResponse(f"{self._name} answers what is not of this protocol")
            )

    def connection_lost(self, error: Exception | None) -> None:
        why = "" if error is None else f": {error}"
        self._end(exceptions.ConnectionError(f"{self._name} closed the connection{why}"))

    def _look(self) -> None:
        self._watch = None
        if not self._waiting:
            return
        end = self._since + self._silence_seconds
        if self._loop.time() < end:
            self._watch = self._loop.call_at(end, self._look)
        else:
            said = f"{self._name} said nothing for {self._silence_seconds} s"
            self._end(exceptions.TimeoutError(said))

    def _end(self, error: exceptions.RedisError) -> None:
        if self.broken:
            return
        self.broken = True
        self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)


async def connect(place: Place, host: str, port: int, db: int) -> Wire:
    """A connection that may be used. Raises what the driver would."""
    name = f"{host}:{port}"
    secured = ssl.create_default_context(cafile=place.ca) if place.tls else None
    if secured is not None and place.cert is not None:
        secured.load_cert_chain(place.cert, place.key)
    async with asyncio.timeout(place.timeout_seconds):
        _, wire = await asyncio.get_running_loop().create_connection(
            lambda: Wire(name, place.timeout_seconds), host, port, ssl=secured
        )
        try:
            for command in _first(place, db):
                await wire.ask(*command)
        except BaseException:
            wire.close()
            raise
    return wire


def _first(place: Place, db: int) -> Sequence[tuple[Any, ...]]:
    """What a new connection says before anything else."""
    said: list[tuple[Any, ...]] = []
    if place.password is not None:
        who = () if place.user is None else (place.user,)
        said.append(("AUTH", *who, place.password))
    if db:
        said.append(("SELECT", db))
    return said
