"""Claim files: YAML with the `x-resources` of a compose file's service, alone or under that name.

What does not live here: what stands in it (`claims`). PyYAML is imported when a file is read.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgerm.core.claims import Claim, shown
from edgerm.core.errors import Invalid, TooLarge, Unavailable
from edgerm.sdk.claims import x_resources

FILE_CHARACTERS_MAX = 256 * 1024
TOP = "x-resources"


def read_claims(text: str, more: Mapping[str, int] | None = None) -> tuple[Claim, ...]:
    """The claims of a file's text. Of what stands twice the last counts. `more`: limits beside those in the file.

    Raises `Invalid`, naming the place and the value that are wrong, and `Unavailable` without PyYAML.
    """
    if len(text) > FILE_CHARACTERS_MAX:
        raise TooLarge(f"{len(text)} characters, at most {FILE_CHARACTERS_MAX} are allowed")
    found = _load(text)
    if not isinstance(found, Mapping):
        raise Invalid(f"{shown(found)} is no mapping with limits and definitions, nor with {TOP}")
    if "services" in found:
        raise Invalid(f"this is a compose file: put the {TOP} of one of its services into a file of their own")
    if TOP in found:
        others = [name for name in found if name != TOP]
        if others:
            raise Invalid(f"beside {TOP} there is {shown(others[0])}, which means nothing here")
        found = found[TOP]
    return x_resources(found, more)


def _load(text: str) -> object:
    try:
        import yaml  # noqa: PLC0415 - optional, and seldom needed
    except ImportError:
        raise Unavailable("claim files need PyYAML: pip install 'edgerm[devices]'") from None
    try:
        return yaml.safe_load(text)  # the loader in Python: that in C has no bound on how deep it goes
    except RecursionError:
        raise Invalid("it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Invalid(f"{where}{error.problem or error.context}: that is no YAML") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise Invalid(f"that is no YAML: {' '.join(str(error).split())[:200]}") from None
