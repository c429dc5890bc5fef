"""Connections to members on the router's own event loop, and timers there.

The driver's own loops run in a thread beside ours. Each request then wakes one thread and each
answer another, and where both have work they wait for each other: a put took a third longer.
Here requests are written at the end of the turn of the loop that made them, and answers are told
where they are awaited.

Owner of the sockets' watching: the loop. Rules: the driver opens and closes connections, and asks
after silent ones, from threads of its own; what touches the loop goes through it, and nothing that
runs on the loop waits.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Final

from cassandra.connection import Connection, ConnectionShutdown

READ_BYTES: Final = 64 * 1024
"""At once. Smaller: more calls for a large answer."""

FLUSH_BYTES: Final = 64 * 1024
"""Requests of one turn of the loop go out together, or when there are so many of them: a member
then wakes once for all. Larger: it waits, idle, until all of them are made. Smaller: it wakes for
each."""

TICK_SECONDS: Final = 0.1
"""Between looks at timers. Larger: a request waits so much longer than it should. Smaller: more
looks while requests are under way."""

_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Timer:
    """What the driver asks to be called after a time, unless it takes that back."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """From any thread."""
        self.callback = None


class Home:
    """The loop that connections belong to, as their threads see it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._timers: list[Timer] = []

    def run(self, call: Callable[..., object], *args: Any) -> None:
        """At once on the loop, from elsewhere soon. Raises RuntimeError if the loop is closed."""
        if threading.get_ident() == self._thread:
            call(*args)
        else:
            self.loop.call_soon_threadsafe(call, *args)

    def later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """A timer, at most `TICK_SECONDS` late. Nearly all are taken back: they bound requests."""
        timer = Timer(self.loop.time() + seconds, callback)
        self.run(self._await, timer)
        return timer

    def _await(self, timer: Timer) -> None:
        if not self._timers:
            self.loop.call_later(TICK_SECONDS, self._tick)
        self._timers.append(timer)

    def _tick(self) -> None:
        now = self.loop.time()
        waiting = self._timers
        due = [t for t in waiting if t.due <= now]
        self._timers = [t for t in waiting if t.callback is not None and t.due > now]
        if self._timers:
            self.loop.call_later(TICK_SECONDS, self._tick)
        for timer in due:
            callback = timer.callback
            if callback is not None:
                self.loop.call_soon(callback)


class Link(Connection):  # type: ignore[misc]  # the driver ships no types
    """One connection. `links_at` makes the class that a cluster is given."""

    home: ClassVar[Home]
    is_closed: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unsent = bytearray()
        self._blocked = False
        """The loop says when the socket takes more."""
        self._connect_socket()
        self._socket.setblocking(False)
        self._number = self._socket.fileno()
        self.home.run(self._watch)
        self._send_options_message()

    @classmethod
    def create_timer(cls, timeout: float, callback: Callable[[], object]) -> Timer:
        return cls.home.later(timeout, callback)

    def push(self, data: bytes) -> None:
        self.home.run(self._send, data)

    def close(self) -> None:
        with self.lock:
            if self.is_closed:
                return
            self.is_closed = True
        try:
            self.home.run(self._unwatch)
        except RuntimeError:  # The loop is closed, and watches nothing.
            self._socket.close()
        if not self.is_defunct:
            ended = ConnectionShutdown(f"{self.endpoint} ended the connection")
            self.error_all_requests(ended)
            if not self.connected_event.is_set():  # Somebody waits for it to stand.
                self.last_error = ended
                self.connected_event.set()

    def _watch(self) -> None:
        if not self.is_closed:
            self.home.loop.add_reader(self._number, self._read)

    def _unwatch(self) -> None:
        self.home.loop.remove_reader(self._number)
        self.home.loop.remove_writer(self._number)
        self._socket.close()

    def _send(self, data: bytes) -> None:
        if self.is_closed:
            return
        if not self._unsent:
            self.home.loop.call_soon(self._flush)
        self._unsent += data
        if len(self._unsent) >= FLUSH_BYTES and not self._blocked:
            self._flush()

    def _flush(self) -> None:
        if self.is_closed or not self._unsent:
            return
        sent = self._sent(self._unsent)
        if sent is None:
            return
        del self._unsent[:sent]
        if self._unsent and not self._blocked:
            self.home.loop.add_writer(self._number, self._flush)
        elif self._blocked and not self._unsent:
            self.home.loop.remove_writer(self._number)
        self._blocked = bool(self._unsent)

    def _sent(self, data: bytearray) -> int | None:
        """Bytes that the socket took; None: the connection is gone."""
        try:
            sent: int = self._socket.send(data)
        except _LATER:
            return 0
        except OSError as e:
            self.defunct(e)
            return None
        return sent

    def _read(self) -> None:
        ended = False
        try:
            while True:
                data = self._socket.recv(READ_BYTES)
                self._iobuf.write(data)
                ended = not data
                # TLS may hold more of what came, of which the loop would not hear.
                if ended or (len(data) < READ_BYTES and self.ssl_context is None):
                    break
        except _LATER:
            pass
        except OSError as e:
            self.defunct(e)
            return
        if self._iobuf.tell():
            self.process_io_buffer()
        if ended:  # Also where a part of an answer came before it.
            self.close()


def links_at(home: Home) -> type[Link]:
    """The class of the connections of one loop."""
    return type("LinkAtHome", (Link,), {"home": home})
