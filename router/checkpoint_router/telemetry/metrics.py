"""The router's own metrics. Without a configured SDK each record is one method that returns."""

from typing import Final

from opentelemetry import metrics

from checkpoint_router.telemetry import names

_METER: Final = metrics.get_meter(names.SCOPE)

call_seconds: Final = _METER.create_histogram(
    names.CALL_SECONDS, unit="s", description="Time from a call's arrival to its answer."
)
streams: Final = _METER.create_up_down_counter(
    names.STREAMS, unit="{stream}", description="Streams that clients hold open."
)
bytes_in_flight: Final = _METER.create_up_down_counter(
    names.BYTES_IN_FLIGHT, unit="By", description="Request bytes that are being worked on."
)
refused: Final = _METER.create_counter(
    names.REFUSED, unit="{refusal}", description="Calls and streams refused because of a limit."
)


def called(call: str, transport: str, outcome: str, seconds: float) -> None:
    """Counts one call that was answered, with `ok` or the reason of its error."""
    call_seconds.record(
        seconds, {names.CALL: call, names.TRANSPORT: transport, names.OUTCOME: outcome}
    )
