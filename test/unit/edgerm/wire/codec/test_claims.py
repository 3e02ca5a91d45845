"""Claims and grants as messages: in a TaskInfo, in the excerpt of one that travels as a blob, in a status."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from strategies import CLAIM, OTHER, claim_tuples

from edgerm.core.claims import CLAIMS_MAX, COUNT_MAX, Claim, Granted
from edgerm.core.errors import Invalid
from edgerm.core.resources import parse
from edgerm.wire.codec.claims import claims_of, claims_to_messages, grants_of, grants_to_messages
from edgerm.wire.codec.status import status_from_message
from edgerm.wire.codec.tasks import asked, complete, excerpt, offload, task_spec, with_grants
from edgerm.wire.v1.tasks_pb2 import DeviceGrant, TaskInfo, TaskStatus

CHIPS = (Granted("chips", "siemens.com/gpio", ("chip1", "chip0"), config=CLAIM.config),)


def info(*claims: Claim, command: str = "true") -> TaskInfo:
    """A process with these claims."""
    message = TaskInfo(name="n", claims=claims_to_messages(claims))
    message.task_id.value, message.agent_id.value, message.command.value = "t", "a", command
    return message


@given(claim_tuples)
def test_claims_survive_the_wire(claims: tuple[Claim, ...]) -> None:
    """What a task claims is read as written, in order, and so is what stands beside a blob."""
    assert claims_of(info(*claims)) == claims
    spec = task_spec(info(*claims))
    assert (spec.claims, spec.fault) == (claims, "")
    assert claims_of(excerpt(spec)) == claims


def test_a_claim_says_no_more_than_it_must() -> None:
    """A name that is the class's, a count of one, and what is not set are left out, and JSON is made canonical."""
    message = info()
    message.claims.add(type="a/b", config='{"b": [true, 1.50],"a":{}}')
    message.claims[0].match_expressions.add(key="k.x", operator="In", values=' ["b", 1e1]')
    [claim] = claims_of(message)
    assert (claim.name, claim.count, claim.shared, claim.optional) == ("a/b", 1, None, False)
    assert (claim.config, claim.expressions[0].values) == ('{"a":{},"b":[true,1.5]}', '["b",10.0]')
    [plain] = claims_to_messages([Claim("a/b", "a/b")])
    assert [field.name for field, _ in plain.ListFields()] == ["type"]


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ({}, "class"),
        ({"type": "g", "count": COUNT_MAX + 1}, "claim 'g'"),
        ({"type": "g", "config": "{"}, "claim 'g': config"),
        ({"type": "g", "config": "[]"}, "no JSON object"),
        ({"type": "g", "config": '{"a":NaN}'}, "claim 'g'"),
        ({"type": "g", "config": '{"a":null}'}, "claim 'g'"),
        ({"type": "g", "config": '{"a":"\\ud800"}'}, "claim 'g'"),
        ({"type": "g", "config": "[" * 100_00}, "claim 'g'"),
        ({"type": "g", "name": "c", "match_expressions": [{"key": "k", "operator": "in", "values": "[]"}]}, "'c' of g"),
        ({"type": "g", "match_expressions": [{"key": "", "operator": "In", "values": "[]"}]}, "claim 'g'"),
        ({"type": "g", "match_expressions": [{"key": "k", "operator": "In"}]}, "claim 'g': values"),
        ({"type": "g", "match_expressions": [{"key": "k", "operator": "In", "values": '"x"'}]}, "no JSON list"),
    ],
)
def test_a_malformed_claim_is_its_tasks_fault(claim: dict[str, Any], why: str) -> None:
    """What is wrong with a claim is said of the task alone, and names the claim."""
    message = info()
    message.claims.add(**claim)
    spec = task_spec(message)
    assert why in spec.fault
    assert spec.claims == ()


@pytest.mark.parametrize(
    "claims",
    [
        [Claim("a", "g")] * 2,
        [Claim(f"c{n}", "g") for n in range(CLAIMS_MAX + 1)],
        [Claim("a", "g", COUNT_MAX), Claim("b", "g")],
        [Claim(f"c{n}", "g", config='{"a":"' + "x" * 16_000 + '"}') for n in range(5)],
    ],
)
def test_claims_are_bounded_together(claims: list[Claim]) -> None:
    """Two of one name, too many of them, of their devices and of their bytes are refused."""
    with pytest.raises(Invalid):
        claims_of(info(*claims))


@given(st.lists(st.binary(max_size=40), max_size=3), st.text(max_size=20), st.text(max_size=20))
def test_no_claim_leads_to_another_error(parts: list[bytes], values: str, config: str) -> None:
    """Whatever a claim holds, it is read or Invalid."""
    message = info()
    for part in parts:
        try:
            message.claims.add().ParseFromString(part)
        except DecodeError:
            message.claims.add(type="g", config=config)
    claim = message.claims.add(type="x", config=config)
    claim.match_expressions.add(key="k", operator="In", values=values)
    with suppress(Invalid):
        assert claims_of(info(*claims_of(message))) == claims_of(message)


def test_granted_devices_are_among_the_resources() -> None:
    """What was given is added to what the task asks for, and is no part of its excerpt."""
    message = info(OTHER, CLAIM, command="x" * 2000)
    message.resources.add(name="cpus", type=0).scalar.value = 1
    spec = task_spec(message)
    given = with_grants(spec, CHIPS, 7, "app")
    assert given.resources == parse("cpus:1;siemens.com/gpio:{chip0,chip1}")
    assert asked(given) == spec.resources
    assert excerpt(given) == excerpt(spec)
    moved = offload(given)
    assert moved is not None
    assert moved.spec.granted == CHIPS
    again = complete(moved.spec, moved.content)
    assert (again.granted, again.generation, again.app, again.resources) == (CHIPS, 7, "app", given.resources)


def test_claims_do_not_count_as_resources() -> None:
    """A task whose claims alone take more than an excerpt may travels as a blob all the same."""
    claims = [Claim(f"c{n}", "g", config='{"a":"' + "x" * 1000 + '"}') for n in range(20)]
    assert offload(task_spec(info(*claims))) is not None


def test_grants_in_a_status_are_read_or_left_out() -> None:
    """What an agent says it took survives; too much or nameless is passed over, for an update must be taken."""
    message = TaskStatus(state=1, granted=grants_to_messages(CHIPS))  # type: ignore[arg-type]
    message.task_id.value = "t"
    assert status_from_message(message).granted == grants_of(message.granted)
    assert grants_of(message.granted)[0].ids == ("chip1", "chip0")
    for wrong in (DeviceGrant(type="g"), DeviceGrant(claim="c", type="g", ids=["a", "a"])):
        message.granted.append(wrong)
        with pytest.raises(Invalid):
            grants_of(message.granted)
        assert status_from_message(message).granted == ()
        del message.granted[-1]
