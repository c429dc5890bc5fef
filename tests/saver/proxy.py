"""A TCP relay between a saver and its router, to have the faults of a network at a chosen moment.

Owner of the relayed connections: the two workers of each. It changes no byte; it stops passing
them on in one direction, or cuts all connections.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self


class Proxy:
    """Relays to `router://host:port`; `target` is the address to give to a saver."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("router://").partition("/")[0].rpartition(":")
        self._upstream = (host, int(port))
        self._requests, self._answers = threading.Event(), threading.Event()
        self._requests.set()
        self._answers.set()
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._left: int | None = None
        """Bytes that may pass before all is cut; None for any number."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"router://127.0.0.1:{self._listener.getsockname()[1]}"
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        # A socket that is only closed would leave the accepting worker asleep.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.pass_all()

    def hold_answers(self) -> None:
        """What the router sends stays here; requests still reach it."""
        self._answers.clear()

    def hold_requests(self) -> None:
        """What the saver sends stays here."""
        self._requests.clear()

    def cut(self) -> None:
        """Ends all connections; what was held on them is lost."""
        with self._guard:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def cut_after(self, size: int) -> None:
        """Ends all connections when `size` more bytes have passed, whatever they are the middle
        of."""
        with self._guard:
            self._left = size

    @property
    def is_to_cut(self) -> bool:
        """Whether those bytes have not passed yet."""
        return self._left is not None

    def switch(self, target: str) -> None:
        """Cuts all connections; later ones go to another upstream."""
        host, _, port = target.removeprefix("router://").rpartition(":")
        self._upstream = (host, int(port))
        self.cut()

    def pass_all(self) -> None:
        """Passes everything on again."""
        self._requests.set()
        self._answers.set()

    def _accept(self) -> None:
        for near in self._accepted():
            try:
                far = socket.create_connection(self._upstream)
            except OSError:
                near.close()
                continue
            with self._guard:
                self._open |= {near, far}
            for source, sink, gate in (
                (near, far, self._requests),
                (far, near, self._answers),
            ):
                threading.Thread(target=self._relay, args=(source, sink, gate), daemon=True).start()

    def _accepted(self) -> Iterator[socket.socket]:
        while not self._closed:
            try:
                yield self._listener.accept()[0]
            except OSError:
                return

    def _relay(self, source: socket.socket, sink: socket.socket, gate: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                gate.wait()
                passed = self._passed(received)
                sink.sendall(passed)
                if len(passed) < len(received):
                    self.cut()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        with self._guard:
            self._open -= {source, sink}
        source.close()  # Else what is still sent to it would not be answered with an error.

    def _passed(self, received: bytes) -> bytes:
        """What of it is before a cut."""
        with self._guard:
            if self._left is None or self._left >= len(received):
                self._left = None if self._left is None else self._left - len(received)
                return received
            passed, self._left = received[: self._left], None
            return passed
