"""Claims of a `TaskInfo` and grants as messages, and as values.

What does not live here: which claims are well formed (`edgerm.core.claims`), who gets what (`edgerm.core.matching`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import NoReturn

from edgerm.core.claims import CLAIMS_MAX, COUNT_MAX, Claim, Expression, Granted, check_all, expression, json_text
from edgerm.core.errors import Invalid, TooLarge
from edgerm.core.texts import utf8_bytes
from edgerm.wire.v1 import tasks_pb2 as pb

CLAIMS_BYTES_MAX = 64 * 1024  # of one task, all together: the master keeps them as long as the task lives
NAME_BYTES_MAX = 255  # of a claim, a class, a device


def claims_of(message: pb.TaskInfo) -> tuple[Claim, ...]:
    """What the task claims, in order; a claim without a name has its class's. Raises `Invalid`, naming the claim."""
    _bounded("the task", "claims", len(message.claims), CLAIMS_MAX)
    _bounded("the task", "bytes of claims", sum(claim.ByteSize() for claim in message.claims), CLAIMS_BYTES_MAX)
    claims = check_all(map(_claim, message.claims))
    _bounded("the task", "devices claimed", sum(claim.count for claim in claims), COUNT_MAX)
    return claims


def _claim(message: pb.Claim) -> Claim:
    if not message.type:
        raise Invalid(f"claim {message.name[:80]!r} names no class: set type")
    claim = Claim(
        message.name or message.type,
        message.type,
        message.count,
        shared=message.shared if message.HasField("shared") else None,
        optional=message.optional,
    )
    try:
        expressions = tuple(map(_expression, message.match_expressions))
        config = _plain("config", message.config, dict) if message.config else {}
        text = json_text("config", config) if config else ""
    except Invalid as error:
        raise Invalid(f"{claim}: {error}") from None
    return Claim(claim.name, claim.type, claim.count, expressions, claim.shared, claim.optional, text)


def _expression(message: pb.MatchExpression) -> Expression:
    values = _plain(f"values of {message.key[:80]!r}", message.values, list)
    return expression(message.key, message.operator, values)


def _plain(what: str, text: str, kind: type[list[object]] | type[dict[str, object]]) -> object:
    """The value of a JSON text. Of a name that an object has twice the last counts, as in YAML."""
    try:
        value: object = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what}: {text[:40]!r} is no JSON that is taken here: {str(error)[:120]}") from None
    if not isinstance(value, kind):
        raise Invalid(f"{what}: {text[:40]!r} is no JSON {'list' if kind is list else 'object'}")
    return value


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _bounded(whose: str, what: str, count: int, most: int) -> None:
    if count > most:
        raise TooLarge(f"{whose} has {count} {what}, at most {most} are allowed")


# --- back to messages -------------------------------------------------------------------------------------------


def claims_to_messages(claims: Iterable[Claim]) -> list[pb.Claim]:
    """The messages, in order; what is as if left out is left out."""
    return list(map(_claim_message, claims))


def _claim_message(claim: Claim) -> pb.Claim:
    message = pb.Claim(type=claim.type)
    if claim.name != claim.type:
        message.name = claim.name
    if claim.count != 1:
        message.count = claim.count
    for one in claim.expressions:
        message.match_expressions.add(key=one.key, operator=one.operator.value, values=one.values)
    if claim.shared is not None:
        message.shared = claim.shared
    if claim.optional:
        message.optional = True
    if claim.config:
        message.config = claim.config
    return message


# --- grants -----------------------------------------------------------------------------------------------------


def grants_of(messages: Collection[pb.DeviceGrant]) -> tuple[Granted, ...]:
    """What a task was given, in the order of its claims. Raises `Invalid` for what is too much."""
    _bounded("the task", "grants", len(messages), CLAIMS_MAX)
    return tuple(
        Granted(_name(message.claim), _name(message.type), ids_in(message.claim, message.ids), message.shared)
        for message in messages
    )


def _name(text: str) -> str:
    if not 0 < utf8_bytes(text) <= NAME_BYTES_MAX:
        raise Invalid(f"{text[:40]!r} names no claim and no class: it is empty, or too long")
    return text


def ids_in(claim: str, ids: Collection[str]) -> tuple[str, ...]:
    """The devices that a claim was given. Raises `Invalid` for too many, for one twice, and for what is no id."""
    _bounded(f"claim {claim[:40]!r}", "devices", len(ids), COUNT_MAX)
    found = tuple(ids)
    if len(set(found)) < len(found) or not all(0 < utf8_bytes(text) <= NAME_BYTES_MAX for text in found):
        raise Invalid(f"claim {claim[:40]!r} was given a device twice, or one whose id is empty or too long")
    return found


def grants_to_messages(granted: Iterable[Granted]) -> list[pb.DeviceGrant]:
    """The messages, in order."""
    return [pb.DeviceGrant(claim=one.claim, type=one.type, ids=one.ids, shared=one.shared or None) for one in granted]
