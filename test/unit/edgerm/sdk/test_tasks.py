"""Tasks made in one line, and what they take of an offer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.blobs import digest_of
from edgerm.core.constraints import Constraint, Test
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import AgentId, FrameworkId, OfferId
from edgerm.core.resources import Reservation, ResourceKey, Resources, coalesce, parse
from edgerm.core.scheduler import AgentSpec, BlobRef, Offer
from edgerm.sdk.needs import Needs
from edgerm.sdk.tasks import process_task, wasm_task
from edgerm.wire.v1.tasks_pb2 import TaskInfo

MODULE = BlobRef(digest_of(b"module"), 6)


def offer(text: str) -> Offer:
    """An offer of these resources."""
    return Offer(OfferId("o"), FrameworkId("f"), "*", AgentId("a"), parse(text), AgentSpec("box"))


def test_a_wasm_task_says_what_to_run_and_needs_its_blobs() -> None:
    """Module, input, arguments, environment and times all stand in the TaskInfo."""
    stdin = BlobRef(digest_of(b"input"), 5)
    task = wasm_task("t", MODULE, ["5"], input=stdin, env={"A": "b"}, grace_s=2, timeout_s=60, cpus=0.5, mem=16)
    spec = task.on(offer("cpus:1;mem:64"))
    info = TaskInfo.FromString(spec.info)
    assert (spec.executor, spec.fault, spec.grace_s, spec.completion_s) == ("wasm", "", 2, 60)
    assert spec.blobs == (MODULE, stdin)
    assert spec.resources == parse("cpus:0.5;mem:16")
    assert list(info.command.arguments) == ["t", "5"]
    assert {v.name: v.value for v in info.command.environment.variables} == {"A": "b"}


def test_a_process_task_is_an_argv_without_a_shell() -> None:
    """What is given is what is executed."""
    info = TaskInfo.FromString(process_task("t", ["/bin/echo", "a b"]).on(offer("cpus:1;mem:64")).info)
    assert (info.command.shell, info.command.value) == (False, "/bin/echo")
    assert list(info.command.arguments) == ["/bin/echo", "a b"]


def test_a_task_that_is_no_task_is_refused() -> None:
    """An empty argv, an id that names a directory and a negative amount are `Invalid`."""
    with pytest.raises(Invalid, match="needs a program"):
        process_task("t", [])
    with pytest.raises(Invalid, match="names a directory"):
        process_task("..", ["x"])
    with pytest.raises(Invalid, match="must not be negative"):
        process_task("t", ["x"], cpus=-1)
    with pytest.raises(Invalid, match="-1 ports"):
        process_task("t", ["x"], ports=-1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout_s": -1}, "max_completion_time must not be negative"),
        ({"grace_s": -1}, "grace_period must not be negative"),
        ({"devices": {"x" * 256: 1}}, "1 to 255 characters"),
        ({"constraint": ["zone=a"]}, "no option 'constraint'; is 'constraints' meant"),
        ({"constraints": "zone=a"}, "constraints are a list, not the text 'zone=a'"),
        ({"constraints": [Constraint("zone", Test.MATCHES, "(")]}, "is no regular expression"),
        ({"constraints": [7]}, "7 is no constraint"),
    ],
)
def test_what_is_wrong_is_told_at_once(options: Any, words: str) -> None:
    """Not when an offer comes, where it would end the framework, and nothing is left out without a word."""
    with pytest.raises(Invalid, match=words):
        process_task("t", ["true"], **options)


def test_a_text_is_no_argv() -> None:
    """It would be taken letter by letter."""
    with pytest.raises(Invalid, match="are a list, not the text 'ls -l'"):
        process_task("t", "ls -l")


def test_an_offer_that_is_too_small_is_a_conflict() -> None:
    """The error names the task and what it needs."""
    with pytest.raises(Conflict, match="'t' needs more than offer o has"):
        process_task("t", ["x"], ports=3).on(offer("cpus:1;mem:64;ports:[1-2]"))


def test_what_is_reserved_for_us_is_taken_first() -> None:
    """Others cannot use it, so the plain part is left to them."""
    reserved = ResourceKey("cpus", (Reservation("ours"),))
    have = Resources({reserved: 600, ResourceKey("cpus"): 1000})
    taken = Needs.of(cpus=1, mem=0).take_from(have)
    assert taken == Resources({reserved: 600, ResourceKey("cpus"): 400})


@given(
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.integers(0, 40),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20)), max_size=5),
)
def test_what_is_taken_is_there_and_enough(
    cpus: int, have_cpus: int, ports: int, ranges: list[tuple[int, int]]
) -> None:
    """Either exactly what is needed is taken, and it is part of the offer, or the offer is too small."""
    all_ports = coalesce((begin, begin + width) for begin, width in ranges)
    have = Resources([(ResourceKey("cpus"), have_cpus), (ResourceKey("ports"), all_ports)])
    taken = Needs.of(cpus=cpus / 1000, mem=0, ports=ports).take_from(have)
    count = sum(end - begin + 1 for begin, end in all_ports)
    if taken is None:
        assert have_cpus < cpus or count < ports
        return
    taken_ports = taken.get(ResourceKey("ports"), ())
    assert have.covers(taken)
    assert taken.scalar_milli("cpus") == cpus
    assert isinstance(taken_ports, tuple)
    assert sum(end - begin + 1 for begin, end in taken_ports) == ports
