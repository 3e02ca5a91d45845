"""What a line may say in its room, where an import contract cannot see it: each rule is a function of one file.

Every rule runs over the whole tree, and over a snippet that breaks it. The clock, chance and logs of a core are no
concern of this file: a core cannot import them (pyproject.toml, "pure-cores").
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("edgerm", "master/edgerm_master", "agent/edgerm_agent", "frameworks/edgerm_frameworks")
CORES = ("*/core/*", "*/core.py")

# Who may name files of the host. Others are given a path or ask one of these.
HOST_FILES = (
    "agent/edgerm_agent/cgroups*",
    "agent/edgerm_agent/keeper/*",
    "agent/edgerm_agent/executors/wasm_host*",
    "agent/edgerm_agent/devices/*",  # the plugins; they open none: `plugins_have_a_door`
    "agent/edgerm_agent/host.py",
    "agent/edgerm_agent/netns.py",
    "edgerm/testing/hostfs.py",
)
# Device plugins ask `HostFiles` for text and parse that, so that they run on recorded boards.
DOORS = ("agent/edgerm_agent/devices/hostfs.py",)
OPENERS = {"pathlib", "io", "shutil", "glob"}
# Who may read the environment: settings, the command line that stands before them, and what starts the keeper (PATH).
ENVIRONMENT = (
    *("*/config.py", "*/config/*", "edgerm/cli/*", "agent/edgerm_agent/executors/holder.py"),
    "frameworks/edgerm_frameworks/scripts/*",  # programs that run as tasks, which are told things so
    "edgerm/sdk/mailbox.py",  # runs in a task likewise
)

MAX_FUNCTION_LINES = 60
# Longer functions, each with its length. An entry may only shrink, and goes when its function fits.
LONG_FUNCTIONS: dict[str, int] = {}

IMPURE_BUILTINS = {"open", "print", "input", "eval", "exec", "compile", "breakpoint", "__import__", "id"}
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
HOST_PATH = re.compile(r"(?<![\w.])/(sys|proc(?!/self/fd)|dev)(/|$)")  # one's own descriptors are no host's file

type_of_function = (ast.FunctionDef, ast.AsyncFunctionDef)


class Source:
    """One parsed file; `path` is relative to the project's root."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.tree = ast.parse(text)

    def at(self, *globs: str) -> bool:
        return any(fnmatch(self.path, glob) for glob in globs)

    def docstrings(self) -> set[int]:
        """Identities of the constants that are docstrings."""
        owners = (ast.Module, ast.ClassDef, *type_of_function)
        bodies = [node.body for node in ast.walk(self.tree) if isinstance(node, owners)]
        return {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}


def core_waits_for_nothing(source: Source) -> Iterator[str]:
    if source.at(*CORES):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                yield f"{source.path}:{node.lineno}: a core is synchronous; await in an edge or the shell"


def core_calls_nothing_impure(source: Source) -> Iterator[str]:
    if source.at(*CORES):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS:
                yield f"{source.path}:{node.lineno}: a core does not call {node.func.id}()"


def nothing_is_left_unfinished(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"{source.path}:{number}: open an issue or do it; the source holds no reminders"


def host_files_have_a_door(source: Source) -> Iterator[str]:
    if source.at(*HOST_FILES):
        return
    docstrings = source.docstrings()
    for node in ast.walk(source.tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
        if isinstance(text, str) and HOST_PATH.search(text):
            yield f"{source.path}:{getattr(node, 'lineno', 0)}: {text!r} belongs to one of {', '.join(HOST_FILES)}"


def plugins_have_a_door(source: Source) -> Iterator[str]:
    if not source.at("agent/edgerm_agent/devices/*") or source.at(*DOORS):
        return
    for node in ast.walk(source.tree):
        names: set[str] = set()
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module or ""}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            names = OPENERS
        if names & OPENERS:
            yield f"{source.path}: a plugin opens no file itself: ask HostFiles, which is {DOORS[0]}"


def environment_is_settings(source: Source) -> Iterator[str]:
    if source.at(*ENVIRONMENT):
        return
    for node in ast.walk(source.tree):
        names = {node.attr} if isinstance(node, ast.Attribute) else set()
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names}
        for name in names & {"environ", "environb", "getenv"}:
            yield f"{source.path}: os.{name} is read in config.py or the command line"


def module_says_what_it_is(source: Source) -> Iterator[str]:
    name = Path(source.path).name
    if (name == "__init__.py" or not name.startswith("_")) and not ast.get_docstring(source.tree):
        yield f"{source.path}: begins with a docstring: what lives here and what does not"


def package_has_init(source: Source) -> Iterator[str]:
    if not (ROOT / source.path).with_name("__init__.py").exists():
        yield f"{source.path}: its folder has no __init__.py"


def foreign_library_has_a_place(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for root in {name.partition(".")[0] for name in names} - OURS - sys.stdlib_module_names - set(placed()):
            yield f"{source.path}: {root} is not named in pyproject.toml, contract foreign-libraries"


OURS = {Path(package).name for package in PACKAGES}
RULES: list[tuple[Callable[[Source], Iterator[str]], str, str]] = [
    # rule, the path of a file that breaks it, its text
    (core_waits_for_nothing, "edgerm/sdk/core.py", "async def f() -> None: ..."),
    (core_calls_nothing_impure, "master/edgerm_master/core/master.py", "print(1)"),
    (nothing_is_left_unfinished, "edgerm/ids.py", "x = 1  # TO" + "DO: more"),
    (host_files_have_a_door, "agent/edgerm_agent/shell.py", "p = f'/proc/{1}/stat'"),
    (plugins_have_a_door, "agent/edgerm_agent/devices/cpu.py", "from pathlib import Path"),
    (plugins_have_a_door, "agent/edgerm_agent/devices/nic/plan.py", "text = open('x').read()"),
    (environment_is_settings, "edgerm/sdk/driver.py", "from os import environ"),
    (environment_is_settings, "edgerm/sdk/driver.py", "import os\nos.environ['HOME']"),
    (module_says_what_it_is, "edgerm/core/__init__.py", "x = 1"),
    (package_has_init, "edgerm/nowhere/ids.py", ""),
    (foreign_library_has_a_place, "edgerm/sdk/driver.py", "from requests.sessions import Session"),
]


@cache
def placed() -> list[str]:
    """The libraries that have a place of their own."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next(contract["forbidden_modules"] for contract in contracts if contract["id"] == "foreign-libraries")


def parsed(*folders: str) -> list[Source]:
    """The hand-written sources in these folders."""
    files = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [Source(str(path.relative_to(ROOT)), path.read_text()) for path in files if "wire/v1" not in str(path)]


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """The product's hand-written sources."""
    return parsed(*PACKAGES)


def functions(source: Source) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Each function with its name, "path:Class.name"."""
    outer = {child: node for node in ast.walk(source.tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(source.tree):
        if isinstance(node, type_of_function):
            names, at = [node.name], outer.get(node)
            while at is not None:
                names += [at.name] if isinstance(at, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else []
                at = outer.get(at)
            yield f"{source.path}:{'.'.join(reversed(names))}", node


def too_long(found: list[Source]) -> dict[str, int]:
    """Functions over the limit, with their lines."""
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for source in found for name, node in functions(source)}
    return {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES}


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, _, _ in RULES), ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Callable[[Source], Iterator[str]], sources: list[Source]) -> None:
    """No source of the product breaks the rule."""
    assert sources
    assert not (found := [line for source in sources for line in rule(source)]), "\n".join(found)


@pytest.mark.parametrize(("rule", "path", "text"), RULES)
def test_rule_finds_a_planted_breach(rule: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    """Each rule reports a file that breaks it, and none of the files that may say the same."""
    assert len(list(rule(Source(path, text)))) == 1
    assert not list(rule(Source("edgerm/cli/__init__.py", '"""Reads /proc? No: says so."""')))


def test_functions_fit_a_screen(sources: list[Source]) -> None:
    """No function is longer than the limit but those of the table, which only shrinks."""
    assert too_long(sources) == LONG_FUNCTIONS


def test_a_long_function_is_found() -> None:
    """A method of 61 lines is reported with its class, one of 60 lines is not."""
    text = "class A:\n  def b(self):\n" + "    1\n" * 60 + "  def c(self):\n" + "    1\n" * 59
    assert too_long([Source("x.py", text)]) == {"x.py:A.b": 61}


def test_every_test_states_its_promise() -> None:
    """Every test function begins with a docstring."""
    tests = ((name, node) for source in parsed("test") for name, node in functions(source))
    silent = [name for name, node in tests if node.name.startswith("test_") and not ast.get_docstring(node)]
    assert not silent, "\n".join(silent)


def test_tests_leave_nothing_unfinished() -> None:
    """Tests hold no reminders either."""
    assert not (found := [line for source in parsed("test") for line in nothing_is_left_unfinished(source)]), found


def test_packages_are_typed() -> None:
    """Each of the four packages ships its types."""
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)
