"""One Redis, or one cluster: a script in, its answer out, every failure typed.

Owner of the connections, and of what was seen of each slot: its incarnation and how many writes
it counted. An answer that counts fewer than were seen before its call began comes from a server
that lost writes. Scripts go on wires of our own; all else, and what a cluster sends elsewhere, is
the driver's. Nothing is sent twice from here: the driver's own retries are off.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from typing import Any, Final

import redis.asyncio as driver
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from checkpoint_router.backends.redis import layout
from checkpoint_router.backends.redis.place import PASSWORD, Place
from checkpoint_router.backends.redis.values import pack
from checkpoint_router.backends.redis.wire import Wire, connect
from checkpoint_router.core.errors import DataLoss, Refused, RouterError, Unavailable
from checkpoint_router.core.ids import ThreadKey

CONNECTIONS: Final = 64
"""Calls under way at once; the driver refuses the 101st of its connections. More: more answers in
memory at once, and no more speed."""

_HINTS: Final = (
    ("OutOfMemory", "Its memory is full: raise maxmemory, or prune threads."),
    ("OOM", "Its memory is full: raise maxmemory, or prune threads."),
    ("MISCONF", "It cannot save to its disk: look at its log, free some space."),
    ("ReadOnly", "It is a replica: name the primary in the storage URL."),
    ("NoPermission", "This user may not do that: it needs read, write and scripting on all keys."),
    ("Authentication", f"Check user and password: ?password_file=FILE, or {PASSWORD}, has it."),
    ("CERTIFICATE_VERIFY", "Name who signed it with ?ca=FILE, and the host as it names it."),
    ("DB index", "Name a database that it has: the number after the last / of the URL."),
    ("BusyLoading", "It is loading its data: wait until it has."),
    ("ClusterDown", "Part of the cluster is away: look at CLUSTER INFO."),
    ("BUSY ", "Some other script holds it up."),
)


_REPEAT: Final = " The call may be repeated and then has the effect of one."

_CONDITIONS: Final = ("OOM", "MISCONF", "READONLY", "NOREPLICAS", "BUSY ", "non local key")

_FOR_GOOD: Final = ("Authentication", "NoPermission", "CERTIFICATE_VERIFY", "DB index")
"""Words of what a repeat will not change, unless somebody changes the server."""

_End = tuple[str, int, bool]
"""Host and port of a server, and whether values come from there: they may be large, and puts do
not wait behind them."""

_ELSEWHERE: Final = (
    exceptions.AskError, exceptions.TryAgainError, exceptions.ClusterDownError
)  # fmt: skip
"""What a member of a cluster answers that did nothing."""

_GONE: Final = (
    OSError, exceptions.ConnectionError, exceptions.TimeoutError, exceptions.RedisClusterException
)  # fmt: skip
"""Of a member of a cluster that may have been replaced, or a slot that is nobody's."""

_Seen = tuple[bytes, int]
"""The incarnation of a slot, and how many writes it counts."""


class Script:
    """A text that the server keeps under the hash of it."""

    def __init__(self, name: str) -> None:
        self.text = layout.script(name)
        self.sha = sha1(self.text.encode()).hexdigest()  # noqa: S324 - it is the server's name


APPEND: Final = Script("append")
IMAGE: Final = Script("image")
READ: Final = Script("read")
DELETE: Final = Script("delete")
ERASE: Final = Script("erase")


class Link:
    """From `open` to `close`."""

    def __init__(self, place: Place, lost: Callable[[str], None]) -> None:
        self.place = place
        self._client: Any = None
        """The driver's; a cluster's has the same commands."""
        self.clustered = False
        self._lost = lost
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._wires: dict[_End, Wire] = {}
        self._making: dict[_End, asyncio.Task[Wire]] = {}
        self._seen: dict[bytes, _Seen] = {}

    async def open(self) -> None:
        """Connects, and finds out whether this is a cluster."""
        retry = Retry(NoBackoff(), 0)
        self._client = driver.Redis(db=self.place.db, retry=retry, **self.place.options())
        about = await self.do("info", "cluster")
        self.clustered = bool(about.get("cluster_enabled"))
        if self.clustered:
            await self._client.aclose()
            self._client = driver.RedisCluster(retry=retry, **self.place.options())
            await self.do("initialize")

    async def close(self) -> None:
        """Ends all connections. Idempotent."""
        client, self._client = self._client, None
        for task in self._making.values():
            task.cancel()
        for wire in self._wires.values():
            wire.close()
        if client is not None:
            await client.aclose()

    @property
    def _open(self) -> Any:
        if self._client is None:
            raise _closed()
        return self._client

    async def do(self, method: str, *args: Any) -> Any:
        """The answer of one of the driver's commands. Raises Unavailable."""
        return await self._answer(getattr(self._open, method)(*args))

    async def all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers of many commands, in one journey to each server."""
        pipe = self._open.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return list(await self._answer(pipe.execute()))

    async def keys(self, pattern: bytes) -> AsyncIterator[bytes]:
        """Keys of all servers, some of them more than once. Raises Unavailable."""
        found = self._open.scan_iter(match=pattern, count=1000)
        while (key := await self._answer(anext(found, None))) is not None:
            yield key

    async def of_each(self, *command: str) -> list[Any]:
        """The answer of each server that takes writes."""
        servers = self._open.get_primaries() if self.clustered else [self._open]
        return [await self._answer(server.execute_command(*command)) for server in servers]

    async def _answer(self, call: Awaitable[Any]) -> Any:
        try:
            async with self._places:
                return await call
        except RouterError:
            raise
        except Exception as e:  # noqa: BLE001  (the driver has more than its own errors)
            # A connection that another call has just closed is an AttributeError.
            raise self._fault(e, None) from None

    async def run(
        self, script: Script, thread: ThreadKey, ask: dict[str, Any], *bulk: bytes
    ) -> Any:
        """What a script answers about a thread, without the state of its slot."""
        keys = layout.keys(thread)
        slot, args = keys[0], (len(keys), *keys, pack(ask), *bulk)
        before = self._seen.get(slot)
        try:
            async with self._places:
                answer = await self._evaluate(script, args)
        except RouterError:
            raise
        except Exception as e:  # noqa: BLE001  (as above)
            raise self._fault(e, thread) from None
        if self._compare(slot, before, (answer[0], int(answer[1]))):
            # Counts will soon be as high as they were: whoever has not looked shall still see it.
            await self.do("hset", slot, "inc", secrets.token_bytes(16))
            self._seen.pop(slot, None)
        return answer[2:]

    async def _evaluate(self, script: Script, args: tuple[Any, ...]) -> Any:
        client = self._open
        try:
            wire = await self._wire(client, args[1], values=script is READ)
            try:
                return await wire.ask("EVALSHA", script.sha, *args)
            except exceptions.NoScriptError:
                return await wire.ask("EVAL", script.text, *args)
        except _ELSEWHERE:
            return await client.eval(script.text, *args)
        except _GONE:
            if self.clustered:
                await client.aclose()  # Another member may have its slots by now: ask for them.
            raise

    async def _wire(self, client: Any, key: bytes, *, values: bool) -> Wire:
        place = self.place
        at = (place.host, place.port, values)
        if self.clustered:
            await client.initialize()  # Nothing, if it was.
            member = client.get_node_from_key(key)
            at = (member.host, member.port, values)
        wire = self._wires.get(at)
        if wire is not None and not wire.broken:
            return wire
        making = self._making.get(at)
        if making is None:
            db = 0 if self.clustered else place.db
            making = self._making[at] = asyncio.create_task(connect(place, at[0], at[1], db))
            making.add_done_callback(lambda _: self._making.pop(at))
        try:
            wire = await asyncio.shield(making)
        except asyncio.CancelledError:
            if making.cancelled():
                raise _closed() from None
            raise
        if client is not self._client:
            wire.close()
            raise _closed()
        self._wires[at] = wire
        return wire

    def _compare(self, slot: bytes, before: _Seen | None, found: _Seen) -> bool:
        """Whether writes were lost and the incarnation is still the same."""
        seen = self._seen.get(slot)
        if before is None or not before[0]:
            if seen == before or (seen is not None and seen[0] == found[0]):
                self._seen[slot] = max(found, seen or found)
            return False
        if found[0] == before[0] and found[1] >= before[1]:
            if seen is not None and seen[0] == found[0]:
                self._seen[slot] = max(found, seen)
            return False
        if seen is None or seen[0] != before[0] or seen[1] < before[1]:
            return False  # Another call has noticed it.
        self._seen[slot] = found
        self._lost(
            f"slot {slot.decode()} has {found[1]} writes of incarnation "
            f"{found[0].hex()[:8] or '-'}, after {before[1]} of {before[0].hex()[:8]}"
        )
        return found[0] == before[0]

    def _fault(self, error: Exception, thread: ThreadKey | None) -> Exception:
        text = str(error)
        if thread is not None and _is_rubbish(error):
            return DataLoss(
                f"what Redis has of thread {thread.thread!r} (tenant {thread.tenant!r}) is not "
                f"what was stored: {text}. Nothing was written. Other threads are not touched "
                f"by this. Put back a backup, or delete the keys of the thread.",
                tenant=thread.tenant,
                thread=thread.thread,
            )
        kind = type(error).__name__
        about = f"{kind} {text}"
        hint = next((h for word, h in _HINTS if word in about), "Check that it runs and answers.")
        return Unavailable(
            f"Redis at {self.place.url} failed: {text.rstrip('.') or kind}. {hint}{_REPEAT}",
            redis=kind,
        )


@contextmanager
def starting(place: Place) -> Iterator[None]:
    """What the first commands to a server may meet, and later ones seldom: Refused if it will
    stay so, and where nobody answers a word about TLS."""
    try:
        yield
    except Unavailable as e:
        about = f"{e.attributes.get('redis')} {e.message}"
        if any(word in about for word in _FOR_GOOD):
            raise Refused(e.message.removesuffix(_REPEAT) + " Nothing was changed.") from None
        tls = "If that port speaks TLS, write rediss://."
        if place.tls:
            tls = "If that port speaks no TLS, write redis://; if it wants a certificate of its "
            tls += "clients, add cert=FILE&key=FILE."
        raise Unavailable(f"{e.message.removesuffix(_REPEAT)} {tls}", **e.attributes) from None


def _closed() -> Unavailable:
    return Unavailable("the storage is closed. Nothing was written or read.")


def _is_rubbish(error: Exception) -> bool:
    """Whether a script met what none of ours wrote. Conditions of the server have their own class,
    or their own word."""
    text = str(error)
    if type(error) is not exceptions.ResponseError or any(word in text for word in _CONDITIONS):
        return False
    return "WRONGTYPE" in text or "user_script" in text
