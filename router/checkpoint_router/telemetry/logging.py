"""Structured logs on stderr: one JSON object a line, or lines for people. Router process only.

Never logged: values, metadata, tokens, tenants' contents. An id of a thread may stand in the text
of an error, because that is how its owner finds it.
"""

import logging
import sys
from typing import Any, Literal

import structlog

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]


def configure(form: Format, level: Level) -> None:
    """Sets the process' log up. `auto`: for people on a terminal, else JSON."""
    people = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if people
        else structlog.processors.JSONRenderer()
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    failures: list[Any] = [] if people else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, *failures, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries log (grpc names each broken stream): the same lines in the same place.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *failures,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))


def logger(part: str) -> Any:
    """A logger whose lines name the part of the router that speaks."""
    return structlog.get_logger(part=part)
