"""Settings of a router: flags over environment over TOML file over defaults, checked at once.

Every problem is found before anything starts, and all are listed together. Each value remembers
where it came from. A key that no setting has is a problem, not a silence.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.telemetry.logging import Format, Level

PREFIX: Final = "CHECKPOINT_ROUTER_"

FILE_VARIABLE: Final = f"{PREFIX}CONFIG"
"""Names the TOML file where no flag does."""

_OTHERS: Final = re.compile(
    # For savers, the command line and tests; what a storage needs to log in; and what Kubernetes
    # sets in every pod for a service that is called checkpoint-router.
    r"CONFIG|TARGET|TENANT|OUTPUT|TEST_.*|SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_.*)?"
    r"|REDIS_PASSWORD|CASSANDRA_(USERNAME|PASSWORD|PASSWORD_FILE|CA_FILE|CERTIFICATE_FILE|KEY_FILE)"
)


class Settings(BaseModel):
    """What a router can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    listen: str = "127.0.0.1:7070"
    """HOST:PORT to answer on. Port 0: a free one, which is printed. Another host than loopback
    lets everybody who can reach it read and write: there are no tokens yet."""

    storage: str
    """Where checkpoints are kept: sqlite:DIRECTORY, or memory: for what may be lost."""

    log_format: Format = "auto"
    """json, console, or auto: for people on a terminal, else JSON."""

    log_level: Level = "info"
    """debug, info, warning or error."""

    drain_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """Time from SIGTERM to the end. Shorter: calls under way are cut off, and their clients try
    again. Longer: whoever sent the signal may kill first."""

    stream_stall_seconds: Annotated[float, Field(gt=0, le=3600)] = limits.STREAM_STALL_SECONDS_MAX
    """How long a client may leave an answer unread before its stream is ended."""

    bytes_in_flight_max: Annotated[int, Field(ge=limits.MIB)] = limits.BYTES_IN_FLIGHT_MAX
    """Request bytes worked on at once, and as many of answers that are not read yet. Less: bursts
    are refused. More: they take memory, about three times as much as this."""

    reflection: bool = True
    """Whether grpcurl may ask for the services."""

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isdigit() and int(port) < 65536):
            raise ValueError(f"{value!r} is not HOST:PORT, as in 127.0.0.1:7070 or [::1]:7070")
        return value

    @field_validator("storage")
    @classmethod
    def _known(cls, value: str) -> str:
        # Raises what is wrong with it. Nothing is touched: that is for the start.
        storage_from_url(value)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value came from."""

    kind: Literal["flag", "environment", "file", "default"]
    name: str
    """The flag, the variable, or the file with the key; empty for a default."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings that passed every check."""

    settings: Settings
    origins: Mapping[str, Origin]
    """By setting."""


class BadSettings(InvalidArgument):
    """Settings that no router can start with; `problems` has one line for each."""

    reason = "BAD_SETTINGS"

    def __init__(self, message: str, **attributes: str) -> None:
        super().__init__(message, **attributes)
        self.problems = tuple(message.split("\n- ")[1:])

    @classmethod
    def of(cls, problems: list[str]) -> "BadSettings":
        return cls("\n- ".join(["The router was not started. Its settings:", *problems]))


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """The settings. `flags` that are None count as not given. Raises BadSettings."""
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    values: dict[str, Any] = {}
    origins = {name: Origin(kind="default", name="") for name in Settings.model_fields}
    path = file or environ.get(FILE_VARIABLE)
    for layer in (
        _file(Path(path), problems) if path else {},
        _environment(environ),
        _flags(flags or {}),
    ):
        for name, (value, origin) in layer.items():
            if name in Settings.model_fields:
                values[name], origins[name] = value, origin
            else:
                problems.append(f"{origin} is no setting. There are {_known()}.")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as e:
        problems += [_problem(str(error["loc"][0]), error, origins) for error in e.errors()]
        raise BadSettings.of(problems) from None
    if problems:
        raise BadSettings.of(problems)
    return Loaded(settings=settings, origins=origins)


_Layer = dict[str, tuple[Any, Origin]]


def _file(path: Path, problems: list[str]) -> _Layer:
    try:
        keys = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        problems.append(f"file {path} cannot be read: {e}")
        return {}
    return {k: (v, Origin(kind="file", name=f"{path} ({k})")) for k, v in keys.items()}


def _environment(environ: Mapping[str, str]) -> _Layer:
    out: _Layer = {}
    for variable, value in sorted(environ.items()):
        key = variable.removeprefix(PREFIX)
        if key == variable or (key.lower() not in Settings.model_fields and _OTHERS.fullmatch(key)):
            continue
        out[key.lower()] = (value, Origin(kind="environment", name=variable))
    return out


def _flags(flags: Mapping[str, Any]) -> _Layer:
    return {
        name: (value, Origin(kind="flag", name=f"--{name.replace('_', '-')}"))
        for name, value in flags.items()
        if value is not None
    }


def _problem(name: str, error: Any, origins: Mapping[str, Origin]) -> str:
    if error["type"] == "missing":
        return f"{name} is not set. Give --{name.replace('_', '-')} or {PREFIX}{name.upper()}."
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{name} ({origins[name]}): {text[:1].lower()}{text[1:]}"


def _known() -> str:
    return ", ".join(sorted(Settings.model_fields))
