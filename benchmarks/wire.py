"""Bytes that this process sends and receives over TCP, as the kernel counts them (Linux).

Rules: counted are the bytes that the programs hand to their sockets, both ways, without headers of
TCP and IP, and without what a connection carried that was opened and closed in between.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from typing import Final

_BYTES_RECEIVED: Final = 128
_BYTES_SENT: Final = 200
"""Offsets in the kernel's `struct tcp_info`, which only ever grows at its end."""


class Wire:
    """The bytes between `begin` and `ended`."""

    def __init__(self) -> None:
        self._before: dict[int, int] = {}

    def begin(self) -> None:
        """Look at all connections."""
        self._before = _counts()

    def ended(self) -> int:
        """Bytes since; what only stood in between is not seen."""
        after = _counts()
        return sum(count - self._before.get(inode, 0) for inode, count in after.items())


def _counts() -> dict[int, int]:
    """Bytes by the inode of each TCP connection of this process; nothing on other systems."""
    found: dict[int, int] = {}
    if sys.platform != "linux":
        return found
    for name in os.listdir("/proc/self/fd"):
        try:
            seen = os.fstat(int(name))
            if not stat.S_ISSOCK(seen.st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as link:
                if link.family in (socket.AF_INET, socket.AF_INET6):
                    info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    found[seen.st_ino] = sum(
                        struct.unpack_from("=Q", info, at)[0]
                        for at in (_BYTES_RECEIVED, _BYTES_SENT)
                    )
        except OSError:
            continue  # Closed meanwhile, or of another protocol.
    return found
