"""The whole product in one process and without gRPC, with a clock at every floor.

Owner of the state: one `Stack`, on one event loop. The saver, the messages, the handlers, the
engine and the storage are the product's own; only the link between the two processes is replaced.
What a call takes here is therefore what it takes on a perfect link.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from google.protobuf.message import Message
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpoint_router import RouterSaver
from checkpoint_router.client.calls import Prepared
from checkpoint_router.engine.engine import Engine
from checkpoint_router.server.handlers import CALLS
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.v1 import checkpoint_service_pb2 as v1

SERIALISER: Final = "the user's serialiser (client)"
SAVER: Final = "saver: record, hashes, run (client)"
CLIENT_MESSAGES: Final = "messages to bytes and back (client)"
ROUTER_MESSAGES: Final = "messages to bytes and back (router)"
WIRE: Final = "messages to values, checks (router)"
ENGINE: Final = "engine: causality, index, tokens (router)"
STORAGE: Final = "storage: hand-off to its worker and back (router)"
STATEMENTS: Final = "storage: SQLite's statements (router)"
COMMIT: Final = "storage: commit, with its sync (router)"
CALL: Final = "all of the saver's calls"
AROUND: Final = "LangGraph and the agent, less what is done at once"
LAYERS: Final = (
    SERIALISER,
    SAVER,
    CLIENT_MESSAGES,
    ROUTER_MESSAGES,
    WIRE,
    ENGINE,
    STORAGE,
    STATEMENTS,
    COMMIT,
    AROUND,
)
"""They add up to the whole, because each takes off what those below it took."""

TARGET: Final = "router://127.0.0.1:1"
"""Never connected to."""


class Ledger:
    """Seconds by layer, of the operation that is under way. One at a time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.request_bytes = 0
        self.answer_bytes = 0

    def add(self, layer: str, seconds: float) -> None:
        self.seconds[layer] = self.seconds.get(layer, 0.0) + seconds

    def clear(self) -> None:
        self.seconds = {}
        self.request_bytes = self.answer_bytes = 0

    async def operation(self, work: Callable[[], Awaitable[Any]]) -> tuple[float, dict[str, float]]:
        """Run one operation; gives its seconds, and what of it each layer took for itself."""
        self.clear()
        began = time.perf_counter()
        await work()
        total = time.perf_counter() - began
        spent = {name: self.seconds.get(name, 0.0) for name in (*LAYERS, CALL)}
        below = sum(spent[name] for name in (SERIALISER, CLIENT_MESSAGES, ROUTER_MESSAGES))
        own = {
            SAVER: spent[CALL] - spent[WIRE] - below,
            WIRE: spent[WIRE] - spent[ENGINE],
            ENGINE: spent[ENGINE] - spent[STORAGE],
            STORAGE: spent[STORAGE] - spent[STATEMENTS] - spent[COMMIT],
            AROUND: total - spent[CALL],
        }
        return total, {name: (spent | own)[name] for name in LAYERS}


class TimedConnection(sqlite3.Connection):
    """SQLite, with a clock."""

    ledger: ClassVar[Ledger]

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        began = time.perf_counter()
        try:
            return super().execute(sql, *args)
        finally:
            if not sql.startswith("PRAGMA"):
                layer = COMMIT if sql == "COMMIT" else STATEMENTS
                self.ledger.add(layer, time.perf_counter() - began)


class TimedSaver(RouterSaver):
    """The saver, with a clock for each call that LangGraph makes."""

    ledger: Ledger

    async def aput(self, *args: Any, **options: Any) -> Any:
        return await self._timed(time.perf_counter(), super().aput(*args, **options))

    async def aput_writes(self, *args: Any, **options: Any) -> None:
        await self._timed(time.perf_counter(), super().aput_writes(*args, **options))

    async def aget_tuple(self, *args: Any, **options: Any) -> Any:
        return await self._timed(time.perf_counter(), super().aget_tuple(*args, **options))

    async def _timed(self, began: float, call: Awaitable[Any]) -> Any:
        # Began before the call was made: the saver serialises at once.
        try:
            return await call
        finally:
            self.ledger.add(CALL, time.perf_counter() - began)


class TimedSerialiser(SerializerProtocol):
    """The stock serialiser, with a clock."""

    def __init__(self, ledger: Ledger) -> None:
        self._inner = JsonPlusSerializer()
        self._ledger = ledger

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        began = time.perf_counter()
        try:
            return self._inner.dumps_typed(obj)
        finally:
            self._ledger.add(SERIALISER, time.perf_counter() - began)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        began = time.perf_counter()
        try:
            return self._inner.loads_typed(data)
        finally:
            self._ledger.add(SERIALISER, time.perf_counter() - began)


class Timed:
    """Stands before an object and times those of its methods that return a coroutine."""

    def __init__(self, inner: Any, layer: str, ledger: Ledger) -> None:
        self._inner = inner
        self._layer = layer
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def called(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            made = found(*args, **options)
            return self._timed(made, began) if asyncio.iscoroutine(made) else made

        return called

    async def _timed(self, work: Coroutine[Any, Any, Any], began: float) -> Any:
        try:
            return await work
        finally:
            self._ledger.add(self._layer, time.perf_counter() - began)


class PerfectLink:
    """Does what a link and the router's stream do with a call, but for the stream."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self._engine: Any = Timed(engine, ENGINE, ledger)
        self._ledger = ledger

    async def acall(
        self,
        name: str,
        request: Message | bytes,
        *,
        timeout_seconds: float,
        waited_seconds: float = 0.0,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """As `client.links.Links.acall`."""
        ledger, clock = self._ledger, time.perf_counter
        if meanwhile is not None:
            meanwhile()
        began = clock()
        sent = Prepared.of(name, request).encoded(1, timeout_seconds)
        ledger.add(CLIENT_MESSAGES, clock() - began)
        began = clock()
        call = v1.Call.FromString(sent)
        result = v1.CallResult(call_id=1)
        response = getattr(result, name)
        response.SetInParent()
        ledger.add(ROUTER_MESSAGES, clock() - began)
        began = clock()
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        await CALLS[name].run(self._engine, getattr(call, name), response, deadline)
        ledger.add(WIRE, clock() - began)
        began = clock()
        answered = result.SerializeToString()
        ledger.add(ROUTER_MESSAGES, clock() - began)
        began = clock()
        answer = getattr(v1.CallResult.FromString(answered), name)
        ledger.add(CLIENT_MESSAGES, clock() - began)
        ledger.request_bytes += len(sent)
        ledger.answer_bytes += len(answered)
        return answer

    async def aclose(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def stacked_saver(directory: Path) -> AsyncIterator[tuple[RouterSaver, Ledger]]:
    """A saver on a SQLite storage in this process. The ledger says where its calls spend time."""
    TimedConnection.ledger = ledger = Ledger()
    module: Any = sqlite3
    stock = module.connect
    module.connect = partial(stock, factory=TimedConnection)
    try:
        storage: Any = Timed(storage_from_url(f"sqlite:{directory}"), STORAGE, ledger)
        engine = Engine(storage, now_ms=lambda: time.time_ns() // 1_000_000, version="profile")
        await engine.open()
    finally:
        module.connect = stock
    try:
        saver = TimedSaver(TARGET, serde=TimedSerialiser(ledger))
        saver.ledger = ledger
        links: Any = PerfectLink(engine, ledger)
        saver._links = links
        yield saver, ledger
    finally:
        await engine.close()
