"""Replays the transcripts beside this file against the core."""

from __future__ import annotations

from pathlib import Path

import pytest

from .transcript import Stage, parse, played

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_is_what_happens(path: Path, request: pytest.FixtureRequest) -> None:
    written, happened = played(path)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(happened)
        return
    assert happened == written, "run with --rewrite, then review the difference"


def test_a_transcript_with_a_wrong_line_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text("read run=A\n----\nc1 (A/1)\nseen nothing\n")
    written, happened = played(path)
    assert happened != written


def test_a_block_without_its_line_is_refused() -> None:
    with pytest.raises(ValueError, match="----"):
        list(parse("read run=A\nnothing\n"))


def test_every_verb_is_used_by_some_transcript() -> None:
    used = {b.command.split()[0] for p in TRANSCRIPTS for b in parse(p.read_text()) if b.command}
    assert used == {name.removeprefix("do_") for name in dir(Stage) if name.startswith("do_")}
