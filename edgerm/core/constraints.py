"""Constraints: which agents a framework's offers, or a task, may come from.

Two readings of the same values. Offer constraints (`admits`) are Mesos': a test of text is passed by whatever is no
text. A task's own constraints (`fulfils`) are ours, and strict: `line=7` is also met by the number 7, `edgerm.executors
=wasm` by a set that holds it, and by nothing else. What does not live here: messages, and a safe engine for regular
expressions (`edgerm.wire.patterns`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from edgerm.core.attributes import AttributeValue, texts
from edgerm.core.errors import Invalid

if TYPE_CHECKING:
    from edgerm.core.ids import AgentId
    from edgerm.core.scheduler import AgentSpec

TEXT_CHARACTERS_MAX = 1024  # of an attribute's name, a value, a regular expression
CONSTRAINTS_MAX = 500  # of one framework, over all its roles and groups
FORMS = "zone=a, zone!=a, zone, !zone, zone~REGEX or zone!~REGEX"
OURS_ONLY = ("@agent", "@name")  # tested by the SDK; the master's offer constraints do not have them

Matcher: TypeAlias = Callable[[str, str], bool]
"""Whether a regular expression matches a whole text: `matcher(regex, text)`; raises `Invalid` for what is none."""


class Test(Enum):
    """What is asked of an attribute (`AttributeConstraint.Predicate`)."""

    __test__ = False  # pytest: not a test class

    EXISTS = "exists"
    NOT_EXISTS = "not_exists"
    EQUALS = "text_equals"
    NOT_EQUALS = "text_not_equals"
    MATCHES = "text_matches"
    NOT_MATCHES = "text_not_matches"


_NEGATIVE = frozenset({Test.NOT_EXISTS, Test.NOT_EQUALS, Test.NOT_MATCHES})
_SIGNS = {Test.EQUALS: "=", Test.NOT_EQUALS: "!=", Test.MATCHES: "~", Test.NOT_MATCHES: "!~"}
_TESTS = {sign: test for test, sign in _SIGNS.items()}
_FORM = re.compile(r"(?P<name>[^=!~\s]+)(?P<sign>!=|!~|=|~)(?P<value>.+)", re.DOTALL)
_NAME = re.compile(r"[^=!~\s]+")


@dataclass(frozen=True, slots=True)
class Constraint:
    """One test of one attribute.

    `@hostname`, `@region` and `@zone` are Mesos' pseudo attributes, `@agent` (id) and `@name` ours; an attribute whose
    own name begins with `@` is written with one more.
    """

    attribute: str
    test: Test
    value: str = ""

    def __str__(self) -> str:
        if self.test is Test.EXISTS:
            return self.attribute
        if self.test is Test.NOT_EXISTS:
            return f"!{self.attribute}"
        return f"{self.attribute}{_SIGNS[self.test]}{self.value}"


Group: TypeAlias = tuple[Constraint, ...]
"""Constraints that must all hold."""


def parse_constraint(text: str, check_regex: Callable[[str], object] | None = None) -> Constraint:
    """A constraint from one of the forms in `FORMS`; raises `Invalid`, naming the text and the forms.

    `check_regex` raises `Invalid` for expressions that are not to be used; by default those that Python does not take.
    """
    if len(text) > TEXT_CHARACTERS_MAX:
        raise Invalid(f"constraint {text[:40]!r}… has {len(text)} characters, at most {TEXT_CHARACTERS_MAX} go")
    found = _FORM.fullmatch(text)
    if found is None:
        name = text.removeprefix("!")
        if not _NAME.fullmatch(name):
            raise Invalid(f"constraint {text!r} has none of the forms {FORMS}")
        return _known(Constraint(name, Test.EXISTS if name == text else Test.NOT_EXISTS), text)
    if found["sign"] == "=" and found["value"].startswith("="):
        raise Invalid(f"constraint {text!r}: write one '=', as in zone=a")
    constraint = Constraint(found["name"], _TESTS[found["sign"]], found["value"])
    if constraint.test in (Test.MATCHES, Test.NOT_MATCHES):
        (check_regex or _compiled)(constraint.value)
    return _known(constraint, text)


def check_constraint(constraint: Constraint) -> None:
    """Raises `Invalid` for one made by hand that nothing can be asked with: no constraint, or no regular expression."""
    if not isinstance(constraint, Constraint):
        raise Invalid(f"{constraint!r:.40} is no constraint: write {FORMS}")
    if constraint.test in (Test.MATCHES, Test.NOT_MATCHES):
        _compiled(constraint.value)


def _known(constraint: Constraint, text: str) -> Constraint:
    name = constraint.attribute
    if name.startswith("@") and not name.startswith("@@") and name not in _PSEUDO and name not in OURS_ONLY:
        known = ", ".join((*_PSEUDO, *OURS_ONLY))
        raise Invalid(f"constraint {text!r}: {name!r} is none of {known}; an attribute of that name is written @{name}")
    return constraint


@lru_cache(maxsize=1024)
def _compiled(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise Invalid(f"{regex!r} is no regular expression: {error}") from None


def match_whole(regex: str, text: str) -> bool:
    """A `Matcher` for regular expressions of one's own; those of strangers could stall it (`edgerm.wire.patterns`)."""
    return _compiled(regex).fullmatch(text) is not None


# --- offer constraints: as Mesos has them -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Constraints:
    """What offers for one role must come from: agents that meet all of one of the groups."""

    groups: tuple[Group, ...]

    def admits(self, agent: AgentSpec, matcher: Matcher = match_whole) -> bool:
        """Whether offers of this agent may be made. A test of text is passed by an attribute that is no text."""
        return any(all(_admits(constraint, agent, matcher) for constraint in group) for group in self.groups)

    def names(self, attribute: str) -> bool:
        """Whether any of them tests this attribute."""
        return any(constraint.attribute == attribute for group in self.groups for constraint in group)

    def __str__(self) -> str:
        return " or ".join(" and ".join(map(str, group)) for group in self.groups)


NO_CONSTRAINTS: Mapping[str, Constraints] = MappingProxyType({})
"""By role; a role without constraints takes offers of every agent."""


def any_of(groups: Iterable[Iterable[Constraint | str]]) -> Constraints:
    """Constraints from texts or values: one of the groups must hold. Raises `Invalid` for a group without any."""
    made = tuple(tuple(parse_constraint(part) if isinstance(part, str) else part for part in group) for group in groups)
    if not made or not all(made):
        raise Invalid("offer constraints need at least one group, and each group at least one constraint")
    return Constraints(made)


def _admits(constraint: Constraint, agent: AgentSpec, matcher: Matcher) -> bool:
    value = _found(constraint.attribute, agent)
    test = constraint.test
    if value is None:
        return test in _NEGATIVE
    if test is Test.EXISTS or test is Test.NOT_EXISTS:
        return test is Test.EXISTS
    return not isinstance(value, str) or _passes(test, constraint.value, value, matcher)


def _passes(test: Test, wanted: str, text: str, matcher: Matcher) -> bool:
    positive = text == wanted if test in (Test.EQUALS, Test.NOT_EQUALS) else matcher(wanted, text)
    return positive is (test not in _NEGATIVE)


_PSEUDO: Mapping[str, Callable[[AgentSpec], str | None]] = {
    "@hostname": lambda agent: agent.hostname,
    "@region": lambda agent: agent.region,
    "@zone": lambda agent: agent.zone,
}


def _found(name: str, agent: AgentSpec) -> AttributeValue | None:
    """What an agent says under this name; None: nothing."""
    if name.startswith("@"):
        pseudo = _PSEUDO.get(name)
        if pseudo is not None:
            return pseudo(agent)
        name = name[1:]
    return next((attribute.value for attribute in agent.attributes if attribute.name == name), None)


# --- a task's own constraints -------------------------------------------------------------------------------------


def fulfils(constraint: Constraint, agent: AgentSpec, agent_id: AgentId, matcher: Matcher = match_whole) -> bool:
    """Whether an agent is fit for a task with this constraint.

    `=` and `~` are met by one item of a set, by a number in ranges, by a number as people write it.
    """
    test = constraint.test
    if constraint.attribute == "@agent":
        value: AttributeValue | None = agent_id
    elif constraint.attribute == "@name":
        value = agent.name or None
    else:
        value = _found(constraint.attribute, agent)
    if test is Test.EXISTS or test is Test.NOT_EXISTS:
        return (value is not None) is (test is Test.EXISTS)
    if value is None:
        return test in _NEGATIVE
    exact = test in (Test.EQUALS, Test.NOT_EQUALS)
    met = _is(value, constraint.value) if exact else any(matcher(constraint.value, text) for text in texts(value))
    return met is (test not in _NEGATIVE)


def _is(value: AttributeValue, wanted: str) -> bool:
    if wanted in texts(value):
        return True
    if isinstance(value, tuple) and wanted.isascii() and wanted.isdigit() and len(wanted) < 20:
        number = int(wanted)
        return any(not isinstance(part, str) and part[0] <= number <= part[1] for part in value)
    return False
