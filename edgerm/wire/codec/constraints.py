"""`OfferConstraints`: which agents a framework's roles may be offered (Mesos' checks, and bounds of ours)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from edgerm.core.constraints import CONSTRAINTS_MAX, TEXT_CHARACTERS_MAX, Constraint, Constraints, Group, Test
from edgerm.core.errors import Invalid
from edgerm.wire.v1 import scheduler_pb2 as pb

_SELECTOR = pb.AttributeConstraint.Selector
_PSEUDO = {
    _SELECTOR.HOSTNAME: "@hostname",
    _SELECTOR.REGION: "@region",
    _SELECTOR.ZONE: "@zone",
}
_PSEUDO_TYPES = {name: number for number, name in _PSEUDO.items()}


def constraints_from_message(
    message: pb.OfferConstraints, roles: Collection[str], check_regex: Callable[[str], None]
) -> dict[str, Constraints]:
    """Constraints by role. Raises `Invalid` for a role that is not among `roles`, an empty group, or a bad test.

    `check_regex` raises `Invalid` for regular expressions that are not to be used.
    """
    count = sum(len(group.attribute_constraints) for part in message.role_constraints.values() for group in part.groups)
    if count > CONSTRAINTS_MAX:
        raise Invalid(f"{count} attribute constraints, at most {CONSTRAINTS_MAX} are allowed")
    found: dict[str, Constraints] = {}
    for role, part in sorted(message.role_constraints.items()):
        if role not in roles:
            raise Invalid(f"offer_constraints name the role {role!r}, which is not one of the framework's roles")
        if not part.groups:
            raise Invalid(f"offer_constraints for role {role!r} have no groups; leave the role out to take all offers")
        found[role] = Constraints(tuple(_group(role, group, check_regex) for group in part.groups))
    return found


def _group(role: str, message: pb.OfferConstraints.RoleConstraints.Group, check: Callable[[str], None]) -> Group:
    if not message.attribute_constraints:
        raise Invalid(f"offer_constraints for role {role!r} have a group without attribute_constraints")
    try:
        return tuple(_constraint(constraint, check) for constraint in message.attribute_constraints)
    except Invalid as error:
        raise Invalid(f"offer_constraints for role {role!r}: {error}") from None


def _constraint(message: pb.AttributeConstraint, check_regex: Callable[[str], None]) -> Constraint:
    predicate = message.predicate
    given = [test for test in Test if predicate.HasField(test.value)]
    if len(given) != 1:
        raise Invalid("a predicate must have exactly one of " + ", ".join(test.value for test in Test))
    test = given[0]
    value = ""
    if test in (Test.EQUALS, Test.NOT_EQUALS):
        value = getattr(predicate, test.value).value
    elif test in (Test.MATCHES, Test.NOT_MATCHES):
        value = getattr(predicate, test.value).regex
        check_regex(value)
    if len(value) > TEXT_CHARACTERS_MAX:
        raise Invalid(f"a value has {len(value)} characters, at most {TEXT_CHARACTERS_MAX} are allowed")
    return Constraint(_attribute(message.selector), test, value)


def _attribute(selector: pb.AttributeConstraint.Selector) -> str:
    if selector.HasField("pseudoattribute_type") == selector.HasField("attribute_name"):
        raise Invalid("a selector must have exactly one of attribute_name and pseudoattribute_type")
    if selector.HasField("pseudoattribute_type"):
        name = _PSEUDO.get(selector.pseudoattribute_type)
        if name is None:
            raise Invalid("pseudoattribute_type must be HOSTNAME, REGION or ZONE")
        return name
    name = selector.attribute_name
    if len(name) > TEXT_CHARACTERS_MAX:
        raise Invalid(f"an attribute_name has {len(name)} characters, at most {TEXT_CHARACTERS_MAX} are allowed")
    return f"@{name}" if name.startswith("@") else name


def constraints_to_message(constraints: Mapping[str, Constraints]) -> pb.OfferConstraints:
    """The message; raises `Invalid` for tests that Mesos does not have (`@agent`, `@name`)."""
    message = pb.OfferConstraints()
    for role, one in constraints.items():
        part = message.role_constraints[role]
        for group in one.groups:
            part.groups.add().attribute_constraints.extend(map(_message, group))
    return message


def _message(constraint: Constraint) -> pb.AttributeConstraint:
    message = pb.AttributeConstraint()
    name = constraint.attribute
    if name in _PSEUDO_TYPES:
        message.selector.pseudoattribute_type = _PSEUDO_TYPES[name]
    elif name.startswith("@") and not name.startswith("@@"):
        raise Invalid(f"{name} cannot be an offer constraint: the master does not test it; let tasks have it")
    else:
        message.selector.attribute_name = name.removeprefix("@")
    predicate = getattr(message.predicate, constraint.test.value)
    predicate.SetInParent()
    if constraint.test in (Test.EQUALS, Test.NOT_EQUALS):
        predicate.value = constraint.value
    elif constraint.test in (Test.MATCHES, Test.NOT_MATCHES):
        predicate.regex = constraint.value
    return message
