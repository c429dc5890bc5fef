"""Settings: which source wins, that each value knows its origin, and that all problems are told."""

from pathlib import Path

import pytest

from checkpoint_router.core import limits
from checkpoint_router.core.errors import InvalidArgument
from checkpoint_router.server.settings import BadSettings, Loaded, Settings, load

FILE = 'storage = "sqlite:from-file"\nlisten = "127.0.0.1:1"\ndrain_seconds = 1.5\n'
ENVIRON = {
    "CHECKPOINT_ROUTER_STORAGE": "sqlite:from-environment",
    "CHECKPOINT_ROUTER_LISTEN": "127.0.0.1:2",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "router.toml"
    path.write_text(FILE)
    return path


def problems(**arguments: object) -> tuple[str, ...]:
    with pytest.raises(BadSettings) as caught:
        load(**{"environ": {}, **arguments})  # type: ignore[arg-type]  # as each test says
    return caught.value.problems


def shown(loaded: Loaded, name: str) -> tuple[object, str]:
    return getattr(loaded.settings, name), str(loaded.origins[name])


def test_flags_win_over_environment_over_file_over_defaults(file: Path) -> None:
    loaded = load({"storage": "memory:", "listen": None}, file=file, environ=ENVIRON)
    assert shown(loaded, "storage") == ("memory:", "flag --storage")
    assert shown(loaded, "listen") == ("127.0.0.1:2", "environment CHECKPOINT_ROUTER_LISTEN")
    assert shown(loaded, "drain_seconds") == (1.5, f"file {file} (drain_seconds)")
    assert shown(loaded, "bytes_in_flight_max") == (limits.BYTES_IN_FLIGHT_MAX, "default")


def test_the_environment_can_name_the_file(file: Path) -> None:
    loaded = load(environ={"CHECKPOINT_ROUTER_CONFIG": str(file)})
    assert loaded.settings.storage == "sqlite:from-file"


def test_every_setting_has_an_origin_and_a_word_of_explanation() -> None:
    loaded = load({"storage": "memory:"}, environ={})
    assert set(loaded.origins) == set(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


def test_no_storage_is_no_default(file: Path) -> None:
    (problem,) = problems()
    assert "storage is not set" in problem
    assert "--storage" in problem
    assert "CHECKPOINT_ROUTER_STORAGE" in problem


def test_all_problems_are_listed_at_once_each_with_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('colour = "red"\nlog_format = "xml"\n')
    found = problems(
        flags={"listen": "7070"},
        file=path,
        environ={
            "CHECKPOINT_ROUTER_DRAIN_SECONDS": "0",
            "CHECKPOINT_ROUTER_STORAGE": "plain-directory",
            "CHECKPOINT_ROUTER_STROAGE": "memory:",
        },
    )
    assert len(found) == 6
    for needle in (
        f"file {path} (colour) is no setting",
        "environment CHECKPOINT_ROUTER_STROAGE is no setting",
        "listen (flag --listen): '7070' is not HOST:PORT",
        "drain_seconds (environment CHECKPOINT_ROUTER_DRAIN_SECONDS): ",
        "storage (environment CHECKPOINT_ROUTER_STORAGE): no storage is called 'plain-",
        f"log_format (file {path} (log_format)): ",
    ):
        assert any(needle in problem for problem in found), (needle, found)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (problem,) = problems(flags={"storage": "memory:"}, file=tmp_path / "none.toml")
    assert "cannot be read" in problem
    broken = tmp_path / "broken.toml"
    broken.write_text("storage =")
    (problem,) = problems(flags={"storage": "memory:"}, file=broken)
    assert "cannot be read" in problem


@pytest.mark.parametrize(
    "variable",
    [
        "CHECKPOINT_ROUTER_SERVICE_HOST",
        "CHECKPOINT_ROUTER_SERVICE_PORT_GRPC",
        "CHECKPOINT_ROUTER_PORT",
        "CHECKPOINT_ROUTER_PORT_7070_TCP_ADDR",
        "CHECKPOINT_ROUTER_TARGET",
        "CHECKPOINT_ROUTER_TEST_REFERENCE",
        "CHECKPOINT_ROUTER_REDIS_PASSWORD",
        "CHECKPOINT_ROUTER_CASSANDRA_PASSWORD_FILE",
        "SOMETHING_ELSE",
    ],
)
def test_variables_of_others_are_left_alone(variable: str) -> None:
    assert load({"storage": "memory:"}, environ={variable: "x"}).settings.storage == "memory:"


@pytest.mark.parametrize(
    "listen", ["", "7070", "localhost", "localhost:", ":7070", "h:65536", "h:x"]
)
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    (problem,) = problems(flags={"storage": "memory:", "listen": listen})
    assert "is not HOST:PORT" in problem


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:7070", "localhost:65535"])
def test_an_address_is_taken(listen: str) -> None:
    assert load({"storage": "memory:", "listen": listen}, environ={}).settings.listen == listen


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("tape:1", "no storage is called 'tape:1'. Known are: memory:"),
        ("checkpoints", "no storage is called 'checkpoints'. Known are: memory:"),
        ("sqlite:", "names no directory"),
    ],
)
def test_a_storage_that_can_never_start_is_a_problem(storage: str, said: str) -> None:
    (problem,) = problems(flags={"storage": storage})
    assert problem.startswith("storage (flag --storage): ")
    assert said in problem


def test_settings_touch_no_storage(tmp_path: Path) -> None:
    load({"storage": f"sqlite:{tmp_path}/new"}, environ={})
    assert not list(tmp_path.iterdir())


def test_bad_settings_are_an_error_like_any_other() -> None:
    with pytest.raises(InvalidArgument, match="was not started") as caught:
        load(environ={})
    assert caught.value.reason == "BAD_SETTINGS"
