"""The library in Python: what is public, for Sphinx' autodoc to describe."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from typing import Any, is_typeddict

from edgerm.sdk.cluster import TaskOptions
from generate.markdown import cell, code, table

FIELD = re.compile(r"^    (\w+): ([^#\n]+?)(?:  # (.*))?$", re.MULTILINE)
VALUES = {
    "edgerm.core.resources": ("Resources", "Ranges"),
    "edgerm.core.scheduler": ("TaskSpec", "AgentSpec", "BlobRef", "Capability"),
    "edgerm.core.tasks": ("Source", "Reason"),
    "edgerm.core.constraints": ("Constraint", "Constraints", "Test", "parse_constraint"),
}


def library() -> str:
    """`edgerm.sdk`, what `run` and `launch` take, and what a task itself imports."""
    names = import_module("edgerm.sdk").__all__
    inside = import_module("edgerm.sdk.mailbox")
    lines = [*_module("edgerm.sdk", names), *_options(TaskOptions), *_module(inside.__name__, _defined(inside))]
    return "\n".join(lines)


def simulator() -> str:
    """`edgerm.testing.sim`."""
    return "\n".join(_module("edgerm.testing.sim", import_module("edgerm.testing.sim").__all__))


def plugins() -> str:
    """What an executor is, and a device."""
    lines: list[str] = []
    for name in ("edgerm.plugin.executor", "edgerm.plugin.device"):
        if find_spec(name) is not None:
            lines += _module(name, _defined(import_module(name)))
    return "\n".join(lines)


def values() -> str:
    """Values of the core that frameworks meet."""
    lines: list[str] = []
    for name, wanted in VALUES.items():
        if find_spec(name) is not None:
            module = import_module(name)
            lines += _module(name, [thing for thing in wanted if hasattr(module, thing)])
    return "\n".join(lines)


def _defined(module: Any) -> list[str]:
    """The public classes and functions of a module, in the order of its source."""
    found = [
        (thing.__code__.co_firstlineno if inspect.isfunction(thing) else inspect.getsourcelines(thing)[1], name)
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", "") == module.__name__ and not name.startswith("_") and callable(thing)
    ]
    return [name for _, name in sorted(found)]


def _module(name: str, names: Iterable[str]) -> Iterator[str]:
    module = sys.modules[name]
    yield from ("", f"## {name}", "")
    for thing_name in names:
        thing = getattr(module, thing_name)
        kind = "autoclass" if inspect.isclass(thing) else "autofunction" if callable(thing) else "autodata"
        yield from (f"### {thing_name}", "", "```{eval-rst}", f".. {kind}:: {name}.{thing_name}")
        if kind == "autoclass":
            yield "   :members:"
            yield "   :undoc-members:"
            if hidden := _hidden(thing):
                yield f"   :exclude-members: {hidden}"
            if issubclass(thing, Exception):
                yield "   :show-inheritance:"
        yield from ("```", "")


def _hidden(thing: type) -> str:
    """A constructor that nobody calls: of an enum, or of a class that takes private fields."""
    if issubclass(thing, Enum):
        return "__new__"
    fields = getattr(thing, "__dataclass_fields__", {})
    return "__init__" if any(name.startswith("_") and field.init for name, field in fields.items()) else ""


def _options(kind: Any) -> Iterator[str]:
    """A TypedDict as a table: autodoc would show its names only."""
    assert is_typeddict(kind)
    yield from ("", "### What run and launch take", "", inspect.cleandoc(kind.__doc__ or ""), "")
    rows = [(code(name), code(type_), cell(told)) for name, type_, told in FIELD.findall(inspect.getsource(kind))]
    yield from table(("option", "type", "meaning"), rows)
