"""The settings of master and agent: types, bounds and defaults from the structs, meanings from the example files.

A setting that the example file does not explain is an error here, so that none goes without.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as shape

import edgerm_agent.config
import edgerm_master.config
from edgerm.config import variable
from generate.markdown import cell, code, table

EXAMPLES = Path(__file__).parents[1] / "examples"
TABLE = re.compile(r"^(?:# )?\[{1,2}([\w.]+)\]{1,2}\s*(?:# (.*))?$")
SETTING = re.compile(r"^(?:# )?(\w+) = [^#]*?(?:# (.*))?$")
FIELD = re.compile(r"^    (\w+): [^#\n]+?  # (.*)$", re.MULTILINE)
WORDS: dict[type, str] = {
    shape.IntType: "integer",
    shape.FloatType: "number",
    shape.BoolType: "true or false",
    shape.StrType: "text",
    shape.DictType: "table",
}
Steps = tuple[str, ...]


def master() -> str:
    """The master's."""
    return "\n".join(_page(edgerm_master.config.Config, EXAMPLES / "master.toml"))


def agent() -> str:
    """The agent's."""
    return "\n".join(_page(edgerm_agent.config.Config, EXAMPLES / "agent.toml"))


def _page(settings: type[msgspec.Struct], example: Path) -> Iterator[str]:
    told = _comments(example.read_text())
    rows = []
    for leaf in _leaves(settings):
        words = told.get(leaf.path) or leaf.comment
        if not words and not leaf.table:
            raise LookupError(f"{example.name} does not explain {'.'.join(leaf.path)}")
        env = "" if leaf.table else variable(leaf.path)
        kind, default = _kind(leaf.field.type), _default(leaf.field)
        rows.append((code(leaf.name), code(kind), code(default), code(env), cell(words)))
    yield from table(("setting", "type", "default", "environment", "meaning"), rows)


class Leaf(NamedTuple):
    """One setting. `table`: the path of the table that holds it, if that may stand several times."""

    path: Steps
    field: shape.Field
    table: Steps
    comment: str  # beside it in the source

    @property
    def name(self) -> str:
        """As people write it."""
        if self.table:
            return f"[[{'.'.join(self.table)}]] {'.'.join(self.path[len(self.table) :])}"
        return ".".join(self.path)


def _leaves(settings: Any, above: Steps = (), repeated: Steps = ()) -> Iterator[Leaf]:
    """Each setting, those of tables in lists too."""
    info = shape.type_info(settings)
    assert isinstance(info, shape.StructType)
    comments = dict(FIELD.findall(inspect.getsource(settings)))
    for field in info.fields:
        path = (*above, field.name)
        many = isinstance(field.type, shape.ListType | shape.VarTupleType)
        inner = field.type.item_type if isinstance(field.type, shape.ListType | shape.VarTupleType) else field.type
        if isinstance(inner, shape.StructType):
            yield from _leaves(inner.cls, path, repeated or (path if many else ()))
        else:
            yield Leaf(path, field, repeated, comments.get(field.name, ""))


def _default(field: shape.Field) -> str:
    if field.required:
        return "needed"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return f'"{default}"'
    if isinstance(default, tuple | list):
        return str(list(default))
    return "" if default is None else f"{default}"


def _kind(kind: Any) -> str:
    """A type in words, with its bounds."""
    match kind:
        case shape.LiteralType():
            words = ", ".join(str(value) for value in sorted(kind.values))
        case shape.ListType() | shape.VarTupleType():
            words = f"list of {_kind(kind.item_type)}"
        case shape.UnionType():
            words = " or ".join(_kind(part) for part in kind.types if not isinstance(part, shape.NoneType))
        case shape.IntType() | shape.FloatType():
            signs = ((">", kind.gt), ("≥", kind.ge), ("<", kind.lt), ("≤", kind.le))
            words = " ".join([WORDS[type(kind)], *(f"{sign} {bound}" for sign, bound in signs if bound is not None)])
        case _:
            words = WORDS[type(kind)]
    return words


def _comments(text: str) -> dict[Steps, str]:
    """What an example says of each setting: the comment above it, or beside it."""
    told: dict[Steps, str] = {}
    above: Steps = ()
    gathered: list[str] = []
    for line in text.splitlines():
        if head := TABLE.match(line):
            above, gathered = tuple(head[1].split(".")), []
        elif setting := SETTING.match(line):
            words = " ".join([*gathered, *([setting[2]] if setting[2] else [])])
            told.setdefault((*above, setting[1]), words)
            gathered = []
        elif line.startswith("#"):
            gathered.append(line.lstrip("# "))
        elif not line.strip():
            gathered = []
    return told
