"""The README as a newcomer meets it: what stands in it is run, word for word, in its order.

A comment above each block of commands or Python says what becomes of it here:

* `<!-- ci: run -->`: it must end with exit code 0. Python runs as a program of its own.
* `<!-- ci: serve -->`: it must say where it listens; it goes on until all blocks are done, and is
  then asked to end.
* `<!-- ci: elsewhere -->`: `.ci/run` has each of its commands.
* `<!-- ci: not run: REASON -->`: it is not run.

In a `console` block the lines after `$ ` are the commands, and the rest is what they might print.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from checkpoint_router.cli.options import TARGET_DEFAULT

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

SHELLS = ("bash", "console", "sh", "shell")
DIRECTIVES = re.compile(r"run|serve|elsewhere|not run: \w.*")
BLOCK_SECONDS_MAX = 60
PORT = "7070"
"""Where the README's router listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block that a newcomer would paste."""

    line: int
    language: str
    directive: str
    """Empty if there is none above it."""
    body: str

    @property
    def script(self) -> str:
        """What a newcomer types."""
        if self.language != "console":
            return self.body
        typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", self.body, re.MULTILINE)
        return "\n".join(typed)


def blocks_of(text: str) -> list[Block]:
    """The blocks of a Markdown text in their order; those in other languages are left out."""
    pattern = re.compile(
        r"(?:^<!-- ci: (?P<directive>.+?) -->\n+)?^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$",
        re.MULTILINE | re.DOTALL,
    )
    return [
        Block(
            line=text.count("\n", 0, found.start("language")) + 1,
            language=found["language"],
            directive=found["directive"] or "",
            body=found["body"],
        )
        for found in pattern.finditer(text)
        if found["language"] in (*SHELLS, "python")
    ]


def unaccounted(blocks: list[Block]) -> list[str]:
    """The blocks of which nobody says what becomes of them."""
    return [
        f"line {b.line}: ```{b.language} has {b.directive or 'nothing'!r} above it"
        for b in blocks
        if not DIRECTIVES.fullmatch(b.directive)
    ]


@contextmanager
def serving(block: Block, script: str, place: Path, env: dict[str, str]) -> Iterator[None]:
    """Runs the block until the end of the `with`, once it has said where it listens."""
    *before, last = script.strip().splitlines()
    command = "\n".join([*before, f"exec {last}"])
    with (place / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-euc", command],
            cwd=place,
            env=env,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if re.search(r"127\.0\.0\.1:\d+", line):
                break
        else:
            log_text = (place / "serve.log").read_text()
            pytest.fail(f"README line {block.line} ended early:\n{''.join(said)}{log_text}")
        yield
        process.send_signal(signal.SIGTERM)
        code = process.wait(BLOCK_SECONDS_MAX)
        assert code == 0, f"README line {block.line}: exit code {code} after SIGTERM"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run(block: Block, script: str, place: Path, env: dict[str, str]) -> None:
    """Runs the block; fails with what it printed unless it ends well."""
    if block.language == "python":
        program = place / f"readme_line_{block.line}.py"
        program.write_text(script)
        command = [sys.executable, str(program)]
    else:
        command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command,
        cwd=place,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BLOCK_SECONDS_MAX,
    )
    assert done.returncode == 0, (
        f"README line {block.line}, exit code {done.returncode}:\n{script}\n-- it printed:\n"
        f"{done.stdout}"
    )


def free_port() -> str:
    """Not the README's: others on this machine may be at the same test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.timeout(600)
def test_what_a_newcomer_pastes_works_in_its_order(tmp_path: Path) -> None:
    blocks = [b for b in blocks_of(README.read_text()) if b.directive in ("run", "serve")]
    assert {"python", "serve"} <= {b.language for b in blocks} | {b.directive for b in blocks}
    home = tmp_path / "home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CHECKPOINT_ROUTER_", "OTEL_"))}
    env |= {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    port = free_port()
    # What is typed without a target finds the README's port.
    assert f"router://127.0.0.1:{PORT}" == TARGET_DEFAULT
    env["CHECKPOINT_ROUTER_TARGET"] = TARGET_DEFAULT.replace(PORT, port)
    with ExitStack() as stack:
        for block in blocks:
            script = block.script.replace(PORT, port)
            if block.directive == "serve":
                stack.enter_context(serving(block, script, tmp_path, env))
            else:
                run(block, script, tmp_path, env)


def test_every_block_of_commands_is_accounted_for() -> None:
    assert not unaccounted(blocks_of(README.read_text()))


def test_what_is_run_elsewhere_is_run_word_for_word() -> None:
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    elsewhere = [b for b in blocks_of(README.read_text()) if b.directive == "elsewhere"]
    typed = [
        " ".join(shlex.split(line, comments=True))
        for block in elsewhere
        for line in block.script.splitlines()
    ]
    assert {"make demo", "make test"} <= set(typed)
    assert not [command for command in typed if command and command not in ci]


SAMPLE = """
```bash
forgotten
```

<!-- ci: run -->

```console
$ first \\
    --option
printed
$ second
```

<!-- ci: not run: it wants a key -->
```python
skipped()
```

<!-- ci: not run: -->
```sh
no reason
```

```text
not a command
```
"""


def test_blocks_are_found_with_what_is_said_above_them() -> None:
    assert [(b.line, b.language, b.directive) for b in blocks_of(SAMPLE)] == [
        (2, "bash", ""),
        (8, "console", "run"),
        (16, "python", "not run: it wants a key"),
        (21, "sh", "not run:"),
    ]
    assert blocks_of(SAMPLE)[1].script == "first \\\n    --option\nsecond"


def test_a_block_without_a_word_or_a_reason_is_unaccounted_for() -> None:
    assert [complaint.split(":")[0] for complaint in unaccounted(blocks_of(SAMPLE))] == [
        "line 2",
        "line 21",
    ]


def test_a_block_that_fails_is_named(tmp_path: Path) -> None:
    env = dict(os.environ)
    for language, script in (("bash", "false | true"), ("python", "raise SystemExit(3)")):
        block = Block(line=7, language=language, directive="run", body=script)
        with pytest.raises(AssertionError, match="README line 7"):
            run(block, block.script, tmp_path, env)


def test_a_server_that_ends_early_is_named(tmp_path: Path) -> None:
    block = Block(line=7, language="bash", directive="serve", body="echo no\n")
    with (
        pytest.raises(pytest.fail.Exception, match="README line 7 ended early:\nno"),
        serving(block, block.script, tmp_path, dict(os.environ)),
    ):
        pass
