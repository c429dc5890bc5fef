"""The style of docs/STYLE.md as functions over source text; test_tidy.py applies them.

Rules: a rule takes a `Source` and yields complaints, one text each; it reads nothing itself, so
that each can be shown to fail on a small bad sample. What ruff, mypy or import-linter can say is
said there, and not here.
"""

import ast
import io
import posixpath
import re
import tokenize
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

LINE_CHARACTERS_MAX = 100
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600

PRODUCT = "router/checkpoint_router/"
CORE = PRODUCT + "core/"
GENERATED = PRODUCT + "v1/"
LIMITS = CORE + "limits.py"

WORDS_NOT_USED = {
    "bucket": "shard, slot",
    "common": "the name of what the parts share",
    "helper": "the name of what it does",
    "manager": "the name of what it does",
    "master": "owner, first, primary",
    "slave": "replica, follower",
    "util": "the name of what it does",
}
"""Word to what is said instead. Their plurals are not used either."""

CORE_MAY_IMPORT = {
    *("bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq", "hmac"),
    *("itertools", "json", "math", "operator", "re", "struct", "typing", "unicodedata"),
    *("checkpoint_router", "msgspec", "uhashring", "xxhash"),
}
"""Values and functions of values. `hash()` is left out below: it differs between processes."""

CORE_MAY_NOT_CALL = {"breakpoint", "eval", "exec", "hash", "id", "input", "open", "print"}

NAMES_OF_OTHERS = {"run_manager": "LangChain passes its callbacks by this name"}
"""Name that somebody else's interface prescribes, to whose it is."""

MAY_SLEEP: dict[str, str] = {}
"""Test file to the reason why it sleeps. Everything else waits for a condition."""

_LEFT_OVER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
_MACHINE_PATH = re.compile(r"(?<![\w.}])/(root|home|Users|work|opt|mnt|srv)/\w")
_REGISTRY = re.compile(
    r"py[p]i\.(org|python)|pythonhoste[d]|registry\.npmj[s]|proxy\.golan[g]|devp[i]|artifactor[y]"
)
_EXCUSE = re.compile(
    r"#\s*(?P<kind>noqa|type:\s*ignore)(?P<codes>:\s*\w+(,\s*\w+)*|\[[^]]*\])?(?P<reason>.*)"
)
_REASON = re.compile(r"[#(-]\s*\S+")


@dataclass(frozen=True, slots=False, kw_only=True)
class Source:
    """One tracked text file."""

    path: str
    """From the root, with slashes."""
    text: str

    @property
    def is_python(self) -> bool:
        return self.path.endswith((".py", ".pyi")) and not self.path.startswith(GENERATED)

    @property
    def is_product(self) -> bool:
        return self.is_python and self.path.startswith(PRODUCT)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        """Line number and text of each comment, without what only looks like one in a string."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(t.start[0], t.string) for t in tokens if t.type == tokenize.COMMENT]


Complaints = Iterator[str]
Rule = Callable[[Source], Complaints]


def lines_are_short(source: Source) -> Complaints:
    """As ruff counts: an excuse at the end of a line is not part of it."""
    if source.is_python or source.path.endswith((".proto", ".toml", "Makefile", ".ci/run")):
        for number, whole in enumerate(source.lines, 1):
            line = _EXCUSE.sub("", whole).rstrip()
            if len(line) > LINE_CHARACTERS_MAX:
                yield f"line {number} has {len(line)} characters (at most {LINE_CHARACTERS_MAX})"


def files_are_short(source: Source) -> Complaints:
    if source.is_python and len(source.lines) > FILE_LINES_MAX:
        yield f"{len(source.lines)} lines (at most {FILE_LINES_MAX}): it has two subjects"


def functions_are_short(source: Source) -> Complaints:
    for node in _nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.name} has {lines} lines (at most {FUNCTION_LINES_MAX})"


def words_are_ours(source: Source) -> Complaints:
    """No word of the list in a name that this project gives, or in a path."""
    names = [*PurePosixPath(source.path).parts]
    if source.is_python:
        # A test's name is a sentence, in which any word may stand.
        names += sorted(n for n in _given_names(source.tree) if not n.startswith("test_"))
    elif source.path.endswith(".proto"):
        names += re.findall(r"^\s*(?:[\w.<>, ]+\s)?(\w+)\s*(?:=|\{|\()", source.text, re.M)
    for name in names:
        for word in () if name in NAMES_OF_OTHERS else _words(name):
            said = WORDS_NOT_USED.get(word) or WORDS_NOT_USED.get(word.removesuffix("s"))
            if said:
                yield f"the name {name!r} has {word!r}; say: {said}"


def modules_say_what_they_are_for(source: Source) -> Complaints:
    if source.is_product and not ast.get_docstring(source.tree):
        yield "no module docstring (purpose, owner of the state, rules)"


def core_is_pure(source: Source) -> Complaints:
    """Nothing in the core waits, prints, opens, or imports what could."""
    if not source.path.startswith(CORE):
        return
    for node in _nodes(source):
        match node:
            case ast.Import(names=aliases):
                imported = {a.name for a in aliases}
            case ast.ImportFrom(module=module, level=level):
                imported = {module or ""} if not level else set()
            case ast.Call(func=ast.Name(id=name)) if name in CORE_MAY_NOT_CALL:
                yield f"line {node.lineno}: the core calls {name}()"
                continue
            case ast.AsyncFunctionDef() | ast.Await():
                yield f"line {node.lineno}: the core waits"
                continue
            case _:
                continue
        for module in sorted(imported):
            if module.split(".")[0] not in CORE_MAY_IMPORT:
                yield f"line {node.lineno}: the core imports {module}"


def nothing_is_left_over(source: Source) -> Complaints:
    for number, line in enumerate(source.lines, 1):
        if found := _LEFT_OVER.search(line):
            yield f"line {number}: {found[0]}"


def no_machine_is_named(source: Source) -> Complaints:
    """No path of one machine and no host of a package registry: neither serves anyone else."""
    for number, line in enumerate(source.lines, 1):
        for pattern in (_MACHINE_PATH, _REGISTRY):
            if found := pattern.search(line):
                yield f"line {number}: {found[0]}"


def excuses_have_reasons(source: Source) -> Complaints:
    """`noqa` and `type: ignore` name a rule, and then say why.

    A test that hands a wrong type on purpose need not say so twice.
    """
    if not source.is_python:
        return
    for number, comment in source.comments:
        if not (found := _EXCUSE.search(comment)):
            continue
        if not found["codes"]:
            yield f"line {number}: {comment!r} does not say which rule"
        on_purpose = source.path.startswith("tests/") and found["kind"] != "noqa"
        if found["codes"] and not on_purpose and not _REASON.search(found["reason"]):
            yield f"line {number}: {comment!r} does not say why"


def tests_do_not_sleep(source: Source) -> Complaints:
    """A sleep is too short on a slow machine and too long on a fast one.

    In a `while` loop it is the pause between two looks at a condition, and `sleep(0)` only yields.
    """
    if source.path.startswith("tests/") and source.path not in MAY_SLEEP:
        yield from sleeps(source)


def sleeps(source: Source) -> Complaints:
    """Every call of a `sleep`, but for the pauses of loops that look."""
    looking = {
        id(inner)
        for node in _nodes(source)
        if isinstance(node, ast.While) and ast.unparse(node.test) not in ("True", "1")
        for inner in ast.walk(node)
    }
    for node in _nodes(source):
        match node:
            case ast.Call(args=[ast.Constant(value=0)]):
                continue
            case ast.Call(func=ast.Attribute(attr="sleep") | ast.Name(id="sleep")):
                if id(node) not in looking:
                    call = ast.unparse(node)
                    yield f"line {node.lineno}: {call}; wait for a condition with a deadline"


def dead_links(source: Source, paths: Collection[str]) -> Complaints:
    """Links of a Markdown text to files that `paths` does not have."""
    if not source.path.endswith(".md"):
        return
    folder = PurePosixPath(source.path).parent
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", source.text):
        if not re.match(r"[a-z]+:", link):
            target = posixpath.normpath(str(folder / link))
            if target not in paths and not any(p.startswith(target + "/") for p in paths):
                yield f"{link} leads nowhere"


def limits_say_why(source: Source) -> Complaints:
    """Below each limit stands what goes wrong without it."""
    if source.path != LIMITS:
        return
    body = source.tree.body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign | ast.Assign):
            continue
        said = after.value if isinstance(after, ast.Expr) else None
        if not (isinstance(said, ast.Constant) and isinstance(said.value, str)):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            yield f"{ast.unparse(target)} has no docstring below it"


RULES: tuple[Rule, ...] = (
    lines_are_short,
    files_are_short,
    functions_are_short,
    words_are_ours,
    modules_say_what_they_are_for,
    core_is_pure,
    nothing_is_left_over,
    no_machine_is_named,
    excuses_have_reasons,
    tests_do_not_sleep,
    limits_say_why,
)


def _nodes(source: Source) -> Iterator[ast.AST]:
    return ast.walk(source.tree) if source.is_python else iter(())


def _given_names(tree: ast.Module) -> set[str]:
    """Names that this file gives; not those of others that it uses."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=n) | ast.AsyncFunctionDef(name=n) | ast.ClassDef(name=n):
                names.add(n)
            case ast.arg(arg=n) | ast.Name(id=n, ctx=ast.Store()):
                names.add(n)
            case ast.Attribute(attr=n, ctx=ast.Store()) | ast.alias(asname=str(n)):
                names.add(n)
    return names


def _words(name: str) -> list[str]:
    """The words of a snake_case, kebab-case or CamelCase name, in lower case."""
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
