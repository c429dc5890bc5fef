"""Ends the connection of a peer: what gRPC for Python cannot be asked to do.

Owner of nothing: gRPC has the sockets. Rules: a socket is only shut down, never closed, under a
descriptor of our own, so that gRPC finds its end by itself and no number is used twice.
"""

import contextlib
import os
import socket
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import unquote

_OPEN: Final = "/dev/fd"
"""Names of this process's descriptors, on Linux and macOS."""

Address = tuple[IPv4Address | IPv6Address, int]


def disconnect(peers: Collection[str]) -> set[str]:
    """Shuts down the connections from `peers`, named as gRPC does, and returns those that there
    are: none where this process has no descriptor left to look with."""
    wanted = {_named(peer): peer for peer in peers}
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(_OPEN):
            peer = _shut_down(int(name), wanted)
            if peer is not None:
                found.add(peer)
    return found


def _shut_down(descriptor: int, wanted: Mapping[Address | None, str]) -> str | None:
    # One that was closed since, is no socket, or leads to nobody raises. An address of IPv4 fits
    # into the room of one of IPv6.
    with (
        contextlib.suppress(OSError),
        socket.fromfd(descriptor, socket.AF_INET6, socket.SOCK_STREAM) as one,
    ):
        address: Any = one.getpeername()
        peer = wanted.get(_address(*address[:2])) if isinstance(address, tuple) else None
        if peer is not None:
            one.shutdown(socket.SHUT_RDWR)
            return peer
    return None


def _named(peer: str) -> Address | None:
    family, _, address = peer.partition(":")
    if family not in {"ipv4", "ipv6"}:
        return None
    host, _, port = unquote(address).rpartition(":")
    return _address(host.strip("[]"), int(port))


def _address(host: str, port: int) -> Address:
    address = ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address, port
