"""Floor 1: messages to core values and back, errors to statuses and back. Used by both sides.

Two verbs. `x_of(message)` reads a value out of a message and trusts nothing: sizes, ids, hash
lengths, indices and the kinds of a choice are checked against `core.limits`, and what is wrong is
refused with the field's name. `fill_x(message, value)` writes a value into a message that is in
its place already, because a message that is made first and put into another one is copied.

Importing it imports gRPC, with two settings that gRPC reads once, while it is imported. Who set
one, or imported gRPC before, keeps what they have.
"""

import importlib.metadata
import os
from typing import Final

_MEASURED: Final = ("1.85.",)
"""Versions of gRPC whose experiments were tried; one that it does not know is logged by it."""

_SETTINGS: Final = {
    # With it gRPC tries to repair itself in forked children, and where a loop's link was open
    # that crashed 5 to 30 of 100 children, also those that never called. Off, as it was for most
    # of gRPC's life, no child crashed. `links` refuses calls in such children either way.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    # Its event engine hands each message from one worker to another once more than its poller
    # does: a put alone takes 1.1 to 1.3 times as long with it, a read 1.2 to 1.45 times.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener"
    if importlib.metadata.version("grpcio").startswith(_MEASURED)
    else "",
}

_ours = {name: value for name, value in _SETTINGS.items() if value and name not in os.environ}
os.environ.update(_ours)
try:
    import grpc  # noqa: F401 - imported now for what it reads from the environment
finally:
    for _name in _ours:
        del os.environ[_name]
