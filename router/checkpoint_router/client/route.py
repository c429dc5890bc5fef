"""Which router a link asks next, when, and why it had to ask another.

Owner: one link. Pure: the time and the draw of chance are arguments.

Rules: endpoints are tried in the order of the address, each failure goes on to the next. The
first stream is opened at once; after a failure the pause is drawn from a range that doubles up to
PAUSE_SECONDS_MAX, so that agents that lost a router together do not come back together. An answer
ends the count of failures. What no retry can mend is final once every endpoint has said so.
"""

from dataclasses import dataclass
from typing import Final

import grpc

from checkpoint_router.client.target import Endpoint, Target
from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument, RouterError
from checkpoint_router.v1 import checkpoint_service_pb2 as v1
from checkpoint_router.wire.errors import error_of_code

PAUSE_SECONDS_MIN: Final = 0.05
"""Range of the first pause. Larger: a broken connection is felt. Smaller: a router that accepts
and drops keeps a core busy."""

PAUSE_SECONDS_MAX: Final = 1.0
"""Range of the longest. Larger: a router that came back waits for its agents. Smaller: ten
thousand agents knock as often at one that has not."""

KEEPALIVE_SECONDS: Final = 10.0
"""Silence after which a link pings. Larger: firewalls forget it during a model call. Smaller:
idle agents cost a router time."""

KEEPALIVE_TIMEOUT_SECONDS: Final = 5.0
"""Silence after a ping that breaks the link, so that its calls find another router in time."""

CONNECT_SECONDS_MAX: Final = 5.0
"""For an address that swallows packets."""

CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", int(KEEPALIVE_SECONDS * 1000)),
    ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_SECONDS * 1000)),
    ("grpc.http2.max_pings_without_data", 0),
    # This is the time for one attempt to connect; there is no second one on a channel of ours.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_SECONDS_MAX * 1000)),
    # One owner of retries and of the pause between them: this file. A shared subchannel would
    # bring the pause of somebody else's failures.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "checkpoint-router-saver"),
)

CONNECT: Final = "/{}/Connect".format(v1.DESCRIPTOR.services_by_name["CheckpointService"].full_name)
"""The stream's method."""

_FINAL: Final = {
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
}
"""Ends of a stream that come again however often one tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a stream ended."""

    code: grpc.StatusCode
    details: str

    def __str__(self) -> str:
        return f"{self.code.name}: {self.details}" if self.details else self.code.name


class Route:
    """The order of attempts of one link."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._place = 0
        self._failures = 0
        self._finals = 0
        self._not_before = 0.0
        self.last_failure = ""
        """Of the last stream that ended, if no answer came since: for the message of a call that
        got none."""

    @property
    def endpoint(self) -> Endpoint:
        """The router to ask now."""
        return self._target.endpoints[self._place]

    def pause_seconds(self, now: float) -> float:
        """How long to wait before opening the next stream."""
        return max(0.0, self._not_before - now)

    def worked(self) -> None:
        """An answer came."""
        self._failures = self._finals = 0
        self.last_failure = ""

    def left(self, reason: str, *, now: float, draw: float) -> None:
        """The endpoint ended a stream, or asked to be left. `draw` is from [0, 1)."""
        self.last_failure = f"{self.endpoint}: {reason}"
        self._place = (self._place + 1) % len(self._target.endpoints)
        self._not_before = now + pause_seconds(self._failures, draw)
        self._failures += 1

    def failed(self, end: End, *, now: float, draw: float) -> RouterError | None:
        """A stream ended so. An error if trying again is of no use, for all calls that wait."""
        self._finals = self._finals + 1 if end.code in _FINAL else 0
        endpoint = self.endpoint
        self.left(str(end), now=now, draw=draw)
        if self._finals < len(self._target.endpoints):
            return None
        self._finals = 0
        return final_error(end, endpoint)


def pause_seconds(failures: int, draw: float) -> float:
    """The pause before the next try after so many earlier ones failed."""
    return draw * min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2.0 ** min(failures, 30))


def final_error(end: End, endpoint: Endpoint) -> RouterError:
    """What a stream's end means for its calls if no retry can help."""
    if end.code is grpc.StatusCode.UNIMPLEMENTED:
        return InvalidArgument(
            f"what answers at {endpoint} is not a checkpoint router, or one that is too old "
            f"({end}). Nothing was stored by it. Check the saver's address.",
            field="target",
        )
    return error_of_code(
        end.code.value[0], f"the router at {endpoint} refused this saver's stream ({end})."
    )
