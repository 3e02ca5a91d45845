"""What makes a role's name acceptable (mesos-v1 6.7)."""

from __future__ import annotations

from edgerm.core.errors import Invalid

ROLE_CHARACTERS_MAX = 255
_UNFIT = frozenset("\x08\t\n\v\f\r \x7f")


def check_role(role: str) -> str:
    """`role` if it may name a role; levels are separated by `/`. Raises `Invalid`, naming it."""
    if role == "*":
        return role
    if len(role) > ROLE_CHARACTERS_MAX:
        raise Invalid(f"role {role[:40]!r}… has {len(role)} characters, at most {ROLE_CHARACTERS_MAX} are allowed")
    if _UNFIT.intersection(role):
        raise Invalid(f"role {role!r} contains a space, a backspace or a line break")
    for level in role.split("/"):
        if level in ("", ".", "..", "*") or level.startswith("-"):
            raise Invalid(f"role {role!r} has the level {level!r}: none may be empty, '.', '..', '*' or begin with '-'")
    return role
