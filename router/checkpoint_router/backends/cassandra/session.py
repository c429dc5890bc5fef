"""The driver, as coroutines: connections, prepared statements, time-outs, and what errors mean.

Owner of all waiting: this file. The driver tries once, within `REQUEST_SECONDS`, and never again
by itself: whoever sends knows whether a repeat is safe. Every failure becomes `Unavailable`
(nothing is known of the outcome) or `Refused` (Cassandra will say the same for ever).

Rules: LOCAL_QUORUM for each read and write and LOCAL_SERIAL for each condition, so that a quorum
of one datacentre answers for all; which one that is, all decide together (`agree`), once for each
keyspace. Only what `statements` has is sent.
"""

import asyncio
import logging
import math
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    InvalidRequest,
    Unauthorized,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    NoHostAvailable,
    ResponseFuture,
    UnresolvableContactPoints,
)
from cassandra.cluster import Session as Driver
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    TokenAwarePolicy,
)
from cassandra.query import (
    BatchStatement,
    BatchType,
    BoundStatement,
    PreparedStatement,
    SimpleStatement,
    tuple_factory,
)

from checkpoint_router.backends.cassandra.link import Home, links_at
from checkpoint_router.backends.cassandra.statements import STATEMENTS, Name, in_keyspace
from checkpoint_router.backends.cassandra.target import PREFIX, Login, Target
from checkpoint_router.core.errors import Refused, RouterError, Unavailable

Row = tuple[Any, ...]
Change = tuple[Name, Sequence[Any]]
"""A statement that writes, with its values."""

REQUEST_SECONDS: Final = 4.0
"""For one request. Shorter: a pause of the server's garbage collector is a failure. Longer: a
server that froze holds calls up."""

CONNECT_SECONDS: Final = 10.0
"""For a first answer of any host."""

_RECONNECT_SECONDS: Final = 0.5

_SAID_AGAIN_SECONDS: Final = 600.0
"""Between lines of the log about a member that is down. Shorter: they hide the others."""

_PROTOCOL: Final = 5
"""Of CQL. The first one that has checksums on the wire."""


class Session:
    """From `open` to `close`. Its methods are called on the loop that opened it; a request is on
    its way when its method returns, and what that returns is awaited for the answer."""

    def __init__(self, target: Target, login: Login) -> None:
        self._target = target
        self._login = login
        self._home = Home()
        quorum = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(target.dc)),
            retry_policy=FallthroughRetryPolicy(),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=REQUEST_SECONDS,
            row_factory=tuple_factory,
        )
        try:
            self.cluster = Cluster(
                target.hosts,
                port=target.port,
                auth_provider=PlainTextAuthProvider(login.username, login.password)
                if login.username
                else None,
                ssl_context=login.tls,
                connection_class=links_at(self._home),
                execution_profiles={EXEC_PROFILE_DEFAULT: quorum},
                reconnection_policy=ConstantReconnectionPolicy(_RECONNECT_SECONDS, None),
                # The driver writes in pieces of 4 KB; without this each waits for the one before.
                sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
                connect_timeout=CONNECT_SECONDS,
                control_connection_timeout=CONNECT_SECONDS,
                compression=False,
                protocol_version=_PROTOCOL,
            )
        except UnresolvableContactPoints:
            raise Unavailable(
                f"no name server knows {', '.join(target.hosts)}. Nothing was changed. Name hosts "
                f"of the Cassandra in the storage URL, or look at the network."
            ) from None
        self._driver: Driver | None = None
        self._prepared: dict[Name, PreparedStatement] = {}
        self._packers: dict[Name, list[Callable[[Any, int], bytes]]] = {}
        """What makes bytes of a statement's values."""

    async def open(self) -> None:
        """Connects; nothing is prepared yet. Raises Unavailable or Refused."""
        try:
            logging.getLogger("cassandra.pool").addFilter(_SPARING)
            with _said_once():
                self._driver = driver = await asyncio.to_thread(self.cluster.connect)
            # Each statement that needs a timestamp has one of ours.
            driver.use_client_timestamp = False
        except Exception as e:  # noqa: BLE001  (the driver raises many kinds; each is one of ours)
            there = {host.datacenter for host in self.cluster.metadata.all_hosts()} - {None}
            await asyncio.to_thread(self.cluster.shutdown)
            if there and self._target.dc not in there:
                raise Refused(
                    f"this Cassandra has no member in datacentre {self._target.dc!r}. Nothing was "
                    f"changed. Name one of {', '.join(sorted(there))}."
                ) from None
            raise _not_connected(e, self._target, self._login) from None

    async def prepare(self) -> None:
        """Prepares every statement, on a keyspace that has the tables."""
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        for name, statement in STATEMENTS.items():
            text = in_keyspace(statement.text, self._target.keyspace)
            prepared = self._open_driver.prepare(text)
            prepared.fetch_size = statement.page
            self._prepared[name] = prepared
            self._packers[name] = [column.type.serialize for column in prepared.column_metadata]

    async def close(self) -> None:
        """Ends the connections. Idempotent."""
        driver, self._driver = self._driver, None
        if driver is not None:
            await asyncio.to_thread(self.cluster.shutdown)

    async def define(self, text: str) -> None:
        """Sends a statement that makes a keyspace or a table; all members agree on it after."""
        await asyncio.to_thread(self._define, text)

    def _define(self, text: str) -> None:
        try:
            self._open_driver.execute(text, timeout=60.0)
        except Exception as e:  # noqa: BLE001  (as above)
            raise _said(e, "changing the schema") from None

    async def agree(self, text: str) -> Row:
        """What a condition of the schema's says that all datacentres decide together, also those
        that are asked nothing else: applied or not, and the row that is there."""
        asked = SimpleStatement(text, serial_consistency_level=ConsistencyLevel.SERIAL)
        return (await self._sent(asked))[0]

    def ask(self, text: str) -> Awaitable[list[Row]]:
        """What one of the server's own tables says. No value of anybody's is part of `text`."""
        return self._sent(text)

    async def clocks(self) -> list[float]:
        """How far the clock of each member that is asked is before ours, in seconds."""
        text = "SELECT toUnixTimestamp(now()) FROM system.local"
        begun = time.time()
        hosts = self.cluster.metadata.all_hosts()
        asked = [self._sent(text, host=host) for host in hosts if host.is_up]
        told = await asyncio.gather(*asked, return_exceptions=True)  # elsewhere nobody is asked
        now = (begun + time.time()) / 2
        return [rows[0][0] / 1000 - now for rows in told if isinstance(rows, list)]

    def down(self) -> list[str]:
        """Addresses of members that did not answer when they were asked last."""
        return sorted(h.address for h in self.cluster.metadata.all_hosts() if h.is_up is False)

    def read(self, name: Name, *values: Any) -> Awaitable[list[Row]]:
        """All rows of the answer, over all of its pages."""
        return self._sent(self._bound(name, values))

    def write(self, name: Name, *values: Any) -> Awaitable[object]:
        """One statement; durable on a quorum on return."""
        return self._sent(self._bound(name, values))

    def together(self, changes: Iterable[Change]) -> Awaitable[object]:
        """Several statements; those on one partition are one change. Durable on return."""
        return self._sent(self._batch(changes))

    async def condition(self, *changes: Change) -> bool:
        """Conditional statements on one partition: whether they were applied.

        After Unavailable they may have been, or may still be: look again, then repeat.
        """
        (name, values), more = changes[0], changes[1:]
        what = self._batch(changes) if more else self._bound(name, values)
        return bool((await self._sent(what))[0][0])

    @property
    def _open_driver(self) -> Driver:
        if self._driver is None:
            raise Unavailable("the storage is closed. Nothing was written or read.")
        return self._driver

    def _bound(self, name: Name, values: Sequence[Any]) -> BoundStatement:
        # The driver's own `bind` looks for encrypted columns, which costs as much again.
        bound = BoundStatement(self._prepared[name])
        bound.values = [
            None if value is None else pack(value, _PROTOCOL)
            for pack, value in zip(self._packers[name], values, strict=True)
        ]
        return bound

    def _batch(self, changes: Iterable[Change]) -> BatchStatement:
        batch = BatchStatement(BatchType.UNLOGGED)
        for name, values in changes:
            batch.add(self._bound(name, values))
        return batch

    def _sent(self, what: Any, host: Any = None) -> "asyncio.Future[list[Row]]":
        """The answer to what is on its way now, also if nobody waits for it yet."""
        answer = self._home.loop.create_future()
        try:
            response = self._open_driver.execute_async(what, host=host)
        except RouterError as e:
            answer.set_exception(e)
            answer.exception()  # As in `_fail`.
            return answer
        asked = _Asked(self._home, response, answer)
        response.add_callbacks(asked.answered, asked.failed)
        return answer


class _Asked:
    """One request, until all of its answer is there. The driver may call from any thread."""

    __slots__ = ("_answer", "_home", "_response", "_rows")

    def __init__(
        self, home: Home, response: ResponseFuture, answer: "asyncio.Future[list[Row]]"
    ) -> None:
        self._home, self._response, self._answer = home, response, answer
        self._rows: list[Row] = []

    def answered(self, page: list[Row] | None) -> None:
        self._home.run(self._take, page)

    def failed(self, error: BaseException) -> None:
        self._home.run(self._fail, error)

    def _take(self, page: list[Row] | None) -> None:
        if page:
            self._rows += page
        if self._answer.done():
            return
        if self._response.has_more_pages:
            self._response.start_fetching_next_page()
        else:
            self._answer.set_result(self._rows)

    def _fail(self, error: BaseException) -> None:
        if not self._answer.done():
            self._answer.set_exception(_said(error, "a request"))
            self._answer.exception()  # Whoever gave up waiting does not look at it.


class _Sparing(logging.Filter):
    """The driver tries a member that is down twice a second, and logs each try."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith("Error attempting to reconnect"):
            return True
        what, now = record.getMessage().partition(",")[0], time.monotonic()
        again = now - self._said.get(what, -math.inf) > _SAID_AGAIN_SECONDS
        if again:
            self._said[what] = now
        return again


_SPARING: Final = _Sparing()


@contextmanager
def _said_once() -> Iterator[None]:
    """Without the traces of calls that the driver logs when nobody answers: whoever opens it is
    told."""
    log = logging.getLogger("cassandra.cluster")
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


def _not_connected(error: Exception, target: Target, login: Login) -> RouterError:
    """Our error for one that came before any request was sent."""
    causes = list(error.errors.values()) if isinstance(error, NoHostAvailable) else [error]
    said = "; ".join(dict.fromkeys(f"{cause}" for cause in causes))
    where = f"Cassandra at {', '.join(target.hosts)}, port {target.port},"
    if any(isinstance(cause, AuthenticationFailed) for cause in causes):
        return Refused(
            f"{where} let nobody in: {said}. Nothing was changed. {PREFIX}USERNAME and "
            f"{PREFIX}PASSWORD_FILE must name a role that may log in, and its password."
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return Refused(
            f"{where} is not believed to be who it says: {said}. Nothing was changed, and no "
            f"password was sent. {PREFIX}CA_FILE must hold the authority that signed its "
            f"certificate, which must name its IP address."
        )
    tls = f"If that port speaks TLS, set {PREFIX}CA_FILE"
    if login.tls is not None:
        tls = f"{PREFIX}CA_FILE asks for TLS: if that port speaks none, unset it"
        tls += f", and if it wants a certificate of its clients, set {PREFIX}CERTIFICATE_FILE"
    return Unavailable(
        f"{where} cannot be reached: {said}. Nothing was changed; try again when it runs. Look at "
        f"the members of the datacentre and at the network. {tls}."
    )


def _said(error: BaseException, doing: str) -> RouterError:
    """Our error for one of the driver's."""
    causes = error.errors if isinstance(error, NoHostAvailable) else {}
    for cause in (error, *(causes.values() if isinstance(causes, Mapping) else ())):
        if isinstance(cause, AuthenticationFailed | Unauthorized | InvalidRequest):
            return Refused(
                f"Cassandra refused {doing}: {cause}. Nothing was changed. Look at the "
                f"credentials, at what the role may do, and at the keyspace."
            )
    return Unavailable(
        f"Cassandra did not serve {doing}: {type(error).__name__}: {error}. If it was a write, its "
        f"outcome is unknown; the same call may be repeated. Look at the members of the "
        f"datacentre and at the network."
    )
