"""`TaskInfo.alternatives`: each build as a TaskInfo of its own. What does not live here: which is taken (the core)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from edgerm.core.alternatives import ALTERNATIVES_MAX
from edgerm.core.constraints import CONSTRAINTS_MAX, Constraint, parse_constraint
from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.link import NAME_BYTES_MAX
from edgerm.core.texts import utf8_bytes
from edgerm.wire.v1.tasks_pb2 import Alternative, TaskInfo


class Build(NamedTuple):
    """One of them."""

    name: str
    whole: TaskInfo
    constraints: tuple[Constraint, ...]


def builds_of(message: TaskInfo) -> Iterator[Build]:
    """Each build; one without a name is called by its number. Raises `Invalid` for what nobody could decide on."""
    if len(message.alternatives) > ALTERNATIVES_MAX:
        raise TooLarge(f"{len(message.alternatives)} alternatives, at most {ALTERNATIVES_MAX} are allowed")
    names = [build.name or str(number) for number, build in enumerate(message.alternatives)]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"two alternatives have the name {name[:40]!r}")
        if utf8_bytes(name) > NAME_BYTES_MAX:
            raise TooLarge(f"alternative {name[:40]!r}…: a name has at most {NAME_BYTES_MAX} bytes")
    for name, build in zip(names, message.alternatives, strict=True):
        yield Build(name, _filled_in(message, build, name), _constraints(name, build.constraints))


def _constraints(name: str, texts: Collection[str]) -> tuple[Constraint, ...]:
    if len(texts) > CONSTRAINTS_MAX:
        raise TooLarge(f"alternative {name!r} has {len(texts)} constraints, at most {CONSTRAINTS_MAX} are allowed")
    try:
        return tuple(parse_constraint(text, _unchecked) for text in texts)
    except Invalid as error:
        raise Invalid(f"alternative {name!r}: {error}") from None


def _unchecked(regex: str) -> None:
    """Expressions of strangers are not compiled here: whoever matches them has an engine that they cannot hold up."""


def _filled_in(message: TaskInfo, build: Alternative, name: str) -> TaskInfo:
    """The task as this build: what it leaves out is the task's own; its claims replace the task's, resources add up."""
    whole = TaskInfo()
    whole.CopyFrom(message)
    whole.ClearField("alternatives")
    whole.alternative = name
    if build.HasField("container"):
        whole.container.CopyFrom(build.container)
    if build.HasField("command"):
        whole.command.CopyFrom(build.command)
    whole.resources.extend(build.resources)
    if build.claims:
        del whole.claims[:]
        whole.claims.extend(build.claims)
    return whole
