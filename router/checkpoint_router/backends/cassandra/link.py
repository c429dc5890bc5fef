"""One connection to a member, which notices its end wherever that comes.

The driver's own does not where a part of an answer has come before it: it looks for more for ever,
with all of a core, and its requests wait until their time is up. Nor does it say so to whoever
waits for a connection that ends before it stands.
"""

import socket
from typing import Any

from cassandra.cluster import Cluster
from cassandra.connection import ConnectionShutdown


class Link(Cluster.connection_class):  # type: ignore[misc]  # the driver ships no types
    """The driver's, with these two mended."""

    def handle_read(self, *event: Any) -> None:
        super().handle_read(*event)
        if self._iobuf.tell() and not (self.is_closed or self.is_defunct) and self._is_at_end():
            self.close()

    def _is_at_end(self) -> bool:
        try:
            # Below TLS, whose records may be cut as well.
            return socket.socket.recv(self._socket, 1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        super().close()
        if not (self.is_defunct or self.connected_event.is_set()):
            self.last_error = ConnectionShutdown(f"{self.endpoint} ended the connection")
            self.connected_event.set()
