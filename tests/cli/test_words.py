"""How sizes, times, ids and tasks read, and that nothing a user chose moves the cursor."""

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoint_router.cli import words

from .drawn import BEGUN_UNIX_MS

CALLED = "~__pregel_push, ~__pregel_pull, flow, 0000000002, 0000000001"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("~__pregel_pull, tools", "tools"),
        ("~__pregel_pull, a, b", "a, b"),
        ("~__pregel_push, 0000000001, 0000000000", "Send 2"),
        ("~__pregel_push, ~__pregel_pull, flow, 0000000000, 0000000001", "call 1 in flow"),
        (f"~__pregel_push, {CALLED}, 0000000000, 0000000001", "call 1 in call 3 in flow"),
        ("~__pregel_pull, ask, node_error_handler, 0000000000", "error handler of ask"),
        ("", "the caller"),
        ("made by hand", "made by hand"),
        ("~__pregel_push, ~odd", "~__pregel_push, ~odd"),
    ],
)
def test_a_task_is_called_by_its_node(path: str, name: str) -> None:
    assert words.task_name(path) == name


@given(st.text())
def test_any_task_path_has_a_printable_name(path: str) -> None:
    assert words.task_name(path).isprintable()


@given(st.text())
def test_no_text_reaches_a_terminal_as_a_command(text: str) -> None:
    assert words.printable(text).isprintable()


def test_readable_text_stays_as_it_is() -> None:
    assert words.printable("Grüße 你好 🙂 a|b:c") == "Grüße 你好 🙂 a|b:c"
    assert words.printable("\x1b[31mred\u202e\n") == r"\x1b[31mred\u202e\n"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2**60, "1,048,576.0 TiB"),
    ],
)
def test_a_size_has_the_largest_unit_that_fits(number: int, said: str) -> None:
    assert words.size(number) == said


def test_a_time_is_utc_and_no_time_is_a_dash() -> None:
    assert words.moment(BEGUN_UNIX_MS + 7) == "2026-11-18 11:06:40.007Z"
    assert words.moment(0) == "-"
    assert words.moment(2**60) == f"{2**60} ms"


def test_a_short_id_keeps_what_differs_between_neighbours() -> None:
    long = "1f1e5973-0506-6d8d-8003-05fda87b76b3"
    assert words.name(long, short=True) == "1f1e5973…7b76b3"
    assert words.name(long, short=False) == long
    assert words.name("checkpoint-1", short=True) == "checkpoint-1"


def test_a_nested_namespace_is_shown_by_its_last_part() -> None:
    assert words.namespace("outer:aaaabbbb-cc|inner:ddddeeee-ff", short=True) == "inner:ddddeeee"
    assert words.namespace("kept", short=True) == "kept"
    assert words.namespace("", short=True) == "root graph"


@pytest.mark.parametrize("text", ["trip-42", "it's", "a b", "$(x)", "tab\tnl\nq' b\\ e\x1b"])
def test_a_suggested_command_gives_a_shell_the_same_thread(text: str) -> None:
    quoted = words.quoted(text)
    assert quoted.isprintable()
    said = subprocess.run(
        ["bash", "-c", f"printf %s {quoted}"], check=True, capture_output=True, text=True
    )
    assert said.stdout == text
    if text.isprintable():
        assert shlex.split(quoted) == [text]
