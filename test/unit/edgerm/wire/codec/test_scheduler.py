"""Calls and events between the SDK's half of the codec and the master's."""

from __future__ import annotations

import math

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from strategies import calls, events, framework_ids, frameworks, offer_events

from edgerm.core.claims import Claim, expression
from edgerm.core.errors import EdgermError, Invalid, NotImplementedCall
from edgerm.core.ids import AgentId, ExecutorId, FrameworkId, OfferId, TaskId
from edgerm.core.resources import parse
from edgerm.core.scheduler import (
    REFUSE_DEFAULT_S,
    REFUSE_MAX_S,
    WAITING_MAX,
    Accept,
    AgentSpec,
    Call,
    Capability,
    Decline,
    Event,
    Failure,
    FrameworkSpec,
    Kill,
    Offer,
    Offers,
    Request,
    Subscribed,
    Waiting,
)
from edgerm.wire.codec.events import event_to_message
from edgerm.wire.codec.infos import attributes_info
from edgerm.wire.codec.scheduler import (
    Reading,
    call_from_message,
    call_type,
    subscription_from_message,
)
from edgerm.wire.codec.scheduler_client import call_to_message, event_from_message, subscribe_message
from edgerm.wire.v1.infos_pb2 import MasterInfo
from edgerm.wire.v1.offers_pb2 import Filters
from edgerm.wire.v1.offers_pb2 import Offer as OfferMessage
from edgerm.wire.v1.scheduler_pb2 import Call as CallMessage
from edgerm.wire.v1.scheduler_pb2 import Event as EventMessage

PLAIN = FrameworkSpec("n")
MODERN = FrameworkSpec(
    "n", roles=("web",), capabilities=frozenset({Capability.MULTI_ROLE, Capability.RESERVATION_REFINEMENT})
)
BOX = AgentSpec("h", "box", resources=parse("cpus:4"), info=attributes_info("h", {"zone": "a"}))
OFFER = Offer(OfferId("o"), FrameworkId("f"), "web", AgentId("a"), parse("cpus:1;ports:[1-2]"), BOX)


# --- calls ------------------------------------------------------------------------------------------------------


@given(calls, framework_ids)
def test_a_call_survives_the_wire(call: Call, framework_id: FrameworkId) -> None:
    """What the SDK writes, the master reads."""
    data = call_to_message(call, framework_id).SerializeToString()
    message = CallMessage.FromString(data)
    assert call_from_message(message) == Reading(call)
    assert message.framework_id.value == framework_id


def test_who_waits_survives_the_wire() -> None:
    """Tasks that wait for devices, with their claims; too many of them are refused."""
    claim = Claim("fast", "a/b", 2, (expression("k", "In", ["x"]),), shared=False, optional=True, config='{"c":1}')
    call = Request(waiting=(Waiting(TaskId("t"), "cam", (claim, Claim("g", "g"))),))
    message = call_to_message(call, FrameworkId("f"))
    assert call_from_message(CallMessage.FromString(message.SerializeToString())) == Reading(call)
    crowd = call_to_message(Request(waiting=call.waiting * (WAITING_MAX + 1)), FrameworkId("f"))
    with pytest.raises(Invalid, match="at most 16"):
        call_from_message(crowd)


@given(frameworks(), st.none() | framework_ids, st.lists(st.text(max_size=3), max_size=2).map(tuple))
def test_a_subscription_survives_the_wire(
    spec: FrameworkSpec, framework_id: FrameworkId | None, suppressed: tuple[str, ...]
) -> None:
    """What the SDK says of itself at SUBSCRIBE, the master reads."""
    message = CallMessage.FromString(subscribe_message(spec, framework_id, suppressed).SerializeToString())
    assert call_type(message) == "SUBSCRIBE"
    read = subscription_from_message(message)
    assert (read.spec, read.framework_id, read.suppressed_roles) == (spec, framework_id, suppressed)


@given(st.binary(max_size=80))
def test_no_bytes_lead_to_another_error(data: bytes) -> None:
    """Arbitrary bytes are a call, or one of our errors."""
    try:
        message = CallMessage.FromString(data)
    except DecodeError:
        return
    if message.IsInitialized():
        try:
            if call_type(message) == "SUBSCRIBE":
                subscription_from_message(message)
            else:
                call_from_message(message)
        except (Invalid, NotImplementedCall) as error:
            assert str(error)


@pytest.mark.parametrize(
    ("message", "error", "why"),
    [
        (CallMessage(), Invalid, "type is missing"),
        (CallMessage.FromString(b"\x10\x63"), Invalid, "type is missing"),  # 99 is no type
        (CallMessage(type=CallMessage.UNKNOWN), NotImplementedCall, "UNKNOWN"),
        (CallMessage(type=CallMessage.ACCEPT), Invalid, "needs 'accept'"),
        (CallMessage(type=CallMessage.KILL), Invalid, "needs 'kill'"),
        (CallMessage(type=CallMessage.SUBSCRIBE), Invalid, "needs 'subscribe'"),
        (CallMessage(type=CallMessage.ACKNOWLEDGE_OPERATION_STATUS), Invalid, "needs"),
    ],
)
def test_a_call_without_form_is_refused(message: CallMessage, error: type[EdgermError], why: str) -> None:
    """No type, an unknown one and a missing body are Invalid; an explicit UNKNOWN is not implemented."""
    with pytest.raises(error, match=why):
        call_from_message(message)


@pytest.mark.parametrize("side", ["framework_id", "framework_info"])
def test_the_ids_of_a_subscription_must_agree(side: str) -> None:
    """An id on one side only, or two that differ, is Invalid."""
    message = subscribe_message(PLAIN, FrameworkId("f"))
    if side == "framework_id":
        message.ClearField("framework_id")
    else:
        message.subscribe.framework_info.id.value = "g"
    with pytest.raises(Invalid, match="must be equal"):
        call_type(message)


@pytest.mark.parametrize("kind", [CallMessage.TEARDOWN, CallMessage.REVIVE, CallMessage.SUPPRESS])
def test_some_calls_need_no_body(kind: CallMessage.Type.ValueType) -> None:
    """TEARDOWN has none; REVIVE and SUPPRESS without one mean all roles."""
    assert call_from_message(CallMessage(type=kind)).call is not None


def test_a_call_that_is_not_built_is_named() -> None:
    """The face counts it and answers 202."""
    message = CallMessage(type=CallMessage.RECONCILE_OPERATIONS, reconcile_operations=CallMessage.ReconcileOperations())
    assert call_from_message(message) == Reading(None, ("RECONCILE_OPERATIONS",))


def test_operations_that_are_not_built_are_named() -> None:
    """Tasks of a group are answered one by one; other operations are told by name, once each."""
    message = CallMessage(type=CallMessage.ACCEPT)
    for kind in (OfferMessage.Operation.RESERVE, OfferMessage.Operation.RESERVE, OfferMessage.Operation.LAUNCH_GROUP):
        operation = message.accept.operations.add(type=kind)
    task = operation.launch_group.task_group.tasks.add(name="n")
    task.task_id.value = "t"
    task.agent_id.value = "a"
    call, not_built = call_from_message(message)
    assert not_built == ("RESERVE", "LAUNCH_GROUP")
    assert isinstance(call, Accept)
    assert [(spec.task_id, spec.fault) for spec in call.tasks] == [("t", "LAUNCH_GROUP is not built yet")]


@pytest.mark.parametrize(
    ("asked_s", "kept_s"),
    [
        (None, REFUSE_DEFAULT_S),
        (-1.0, REFUSE_DEFAULT_S),
        (math.nan, REFUSE_DEFAULT_S),
        (0.0, 0.0),
        (60.0, 60.0),
        (math.inf, REFUSE_MAX_S),
    ],
)
def test_a_refusal_lasts_as_mesos_says(asked_s: float | None, kept_s: float) -> None:
    """5 s by default and for what is no time, at most a year."""
    message = CallMessage(type=CallMessage.DECLINE, decline=CallMessage.Decline())
    if asked_s is not None:
        message.decline.filters.CopyFrom(Filters(refuse_seconds=asked_s))
    assert call_from_message(message) == Reading(Decline((), kept_s))


def test_a_short_uuid_is_refused() -> None:
    """An acknowledgement has 16 raw bytes."""
    message = CallMessage(type=CallMessage.ACKNOWLEDGE)
    message.acknowledge.uuid = b"x"
    with pytest.raises(Invalid, match="16 raw bytes"):
        call_from_message(message)


def test_a_kill_with_a_negative_grace_is_refused() -> None:
    """A grace is a length of time."""
    message = call_to_message(Kill("t", grace_s=1.0), FrameworkId("f"))  # type: ignore[arg-type]
    message.kill.kill_policy.grace_period.nanoseconds = -1
    with pytest.raises(Invalid, match="negative"):
        call_from_message(message)


# --- events -----------------------------------------------------------------------------------------------------


@given(events)
def test_an_event_survives_the_wire(event: Event) -> None:
    """What the master writes, the SDK reads."""
    data = event_to_message(event, PLAIN).SerializeToString()
    assert event_from_message(EventMessage.FromString(data), PLAIN) == event


@given(st.data())
def test_offers_survive_the_wire(data: st.DataObject) -> None:
    """Offers are read as they were made, but for what a framework is not told of the agent."""
    framework = data.draw(frameworks().filter(lambda spec: bool(spec.roles)))
    event = data.draw(offer_events(framework))
    message = EventMessage.FromString(event_to_message(event, framework).SerializeToString())
    assert message.HasField("offers")
    read = event_from_message(message, framework)
    assert isinstance(read, Offers)
    told = [(offer.offer_id, offer.framework_id, offer.role, offer.agent_id, offer.resources) for offer in read.offers]
    assert told == [
        (offer.offer_id, offer.framework_id, offer.role, offer.agent_id, offer.resources) for offer in event.offers
    ]
    assert [offer.agent.hostname for offer in read.offers] == [offer.agent.hostname for offer in event.offers]


@given(st.binary(max_size=80))
def test_no_event_leads_to_another_error(data: bytes) -> None:
    """Arbitrary bytes are an event, nothing of use, or Invalid."""
    try:
        message = EventMessage.FromString(data)
    except DecodeError:
        return
    if message.IsInitialized():
        try:
            event_from_message(message, PLAIN)
        except Invalid as error:
            assert str(error)


def test_old_clients_see_no_allocation() -> None:
    """Without MULTI_ROLE neither the offer nor its resources say to whom they are allocated; roles are told."""
    (offer,) = event_to_message(Offers((OFFER,)), PLAIN).offers.offers
    assert not offer.HasField("allocation_info")
    assert not any(resource.HasField("allocation_info") for resource in offer.resources)
    assert [resource.role for resource in offer.resources if resource.HasField("role")] == ["*", "*"]


def test_multi_role_clients_see_the_allocation() -> None:
    """With MULTI_ROLE both say it; with RESERVATION_REFINEMENT no role is set."""
    (offer,) = event_to_message(Offers((OFFER,)), MODERN).offers.offers
    assert offer.allocation_info.role == "web"
    assert [resource.allocation_info.role for resource in offer.resources] == ["web", "web"]
    assert not any(resource.HasField("role") for resource in offer.resources)


def test_an_offer_tells_about_its_agent() -> None:
    """Host name and attributes stand in every offer."""
    (offer,) = event_to_message(Offers((OFFER,)), PLAIN).offers.offers
    assert (offer.hostname, offer.attributes[0].text.value) == ("h", "a")


def test_amounts_of_any_size_are_written() -> None:
    """A set too large to be remembered is written like a small one."""
    many = parse("gpus:{" + ",".join(f"g{n}" for n in range(500)) + "}")
    event = Offers((Offer(OfferId("o"), FrameworkId("f"), "*", AgentId("a"), many, BOX),))
    read = event_from_message(event_to_message(event, PLAIN), PLAIN)
    assert isinstance(read, Offers)
    assert read.offers[0].resources == many


def test_subscribed_tells_the_master() -> None:
    """SUBSCRIBED carries the master's own words."""
    master = MasterInfo(id="m", ip=1, port=5050, version="1.11.0")
    message = event_to_message(Subscribed(FrameworkId("f"), 15.0), PLAIN, master)
    assert message.subscribed.master_info == master


def test_a_failure_of_an_executor_has_a_status() -> None:
    """With an executor the wait status is present, even when it is not known; without one it is not."""
    with_executor = event_to_message(Failure(AgentId("a"), ExecutorId("e")), PLAIN)
    assert with_executor.failure.HasField("status")
    assert not event_to_message(Failure(AgentId("a")), PLAIN).failure.HasField("status")


@pytest.mark.parametrize(
    "message",
    [
        EventMessage(),
        EventMessage(type=EventMessage.UNKNOWN),
        EventMessage(
            type=EventMessage.UPDATE_OPERATION_STATUS, update_operation_status=EventMessage.UpdateOperationStatus()
        ),
    ],
)
def test_events_of_no_use_are_passed_over(message: EventMessage) -> None:
    """What the SDK has no name for is None, not an error."""
    assert event_from_message(message, PLAIN) is None


def test_an_event_without_its_body_is_refused() -> None:
    """The body that the type promises must be there."""
    with pytest.raises(Invalid, match="needs 'offers'"):
        event_from_message(EventMessage(type=EventMessage.OFFERS), PLAIN)
