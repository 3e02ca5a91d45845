"""Which build of a task is taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.alternatives import Alternative, UndecidedTask, executors_of, misfit, resolve, undecided
from edgerm.core.attributes import Attribute
from edgerm.core.constraints import parse_constraint
from edgerm.core.ids import AgentId, TaskId
from edgerm.core.resources import parse
from edgerm.core.scheduler import AgentSpec, TaskSpec

AGENT_ID = AgentId("a1")
ARCHES = ("amd64", "arm64", "arm")
KINDS = ("docker", "process", "wasm")


def agent(arch: str = "amd64", executors: tuple[str, ...] | None = KINDS) -> AgentSpec:
    told = [Attribute("arch", arch)]
    if executors is not None:
        told.append(Attribute("edgerm.executors", executors))
    return AgentSpec("box", attributes=tuple(told))


def build(name: str, *constraints: str, executor: str = "wasm", cpus: float = 1, fault: str = "") -> Alternative:
    task = TaskSpec(
        TaskId("t"),
        AGENT_ID,
        parse(f"cpus:{cpus}"),
        executor=executor,
        alternative=name,
        fault=fault,
        info=name.encode(),
    )
    return Alternative(name, task, tuple(map(parse_constraint, constraints)))


def task(*builds: Alternative, fault: str = "") -> UndecidedTask:
    return undecided(TaskSpec(TaskId("t"), AGENT_ID, parse(""), fault=fault), builds)


def test_the_first_that_fits() -> None:
    """Constraints, executor and resources each rule one out; the first that is left is the task."""
    builds = task(
        build("arm", "arch=arm64"),
        build("image", executor="docker"),
        build("large", cpus=8),
        build("broken", fault="container.wasm.entry_point is empty"),
        build("small"),
        build("smaller", cpus=0.1),
    )
    told = resolve(builds, parse("cpus:2"), agent(executors=("wasm",)), AGENT_ID)
    assert (told.alternative, told.info, told.fault, type(told)) == ("small", b"small", "", TaskSpec)
    assert resolve(builds, parse("cpus:2"), agent("arm64"), AGENT_ID).alternative == "arm"
    assert resolve(builds, parse("cpus:0.5"), agent(executors=None), AGENT_ID).alternative == "smaller"


def test_none_that_fits() -> None:
    """The fault says of each build why."""
    builds = task(
        build("arm", "arch=arm64"),
        build("image", executor="docker"),
        build("large", cpus=8),
        build("broken", fault="container.wasm.entry_point is empty"),
    )
    told = resolve(builds, parse("cpus:2"), agent(executors=("wasm",)), AGENT_ID)
    assert told.fault == (
        "no alternative fits: arm: arch=arm64 does not hold; image: the agent runs no docker tasks; "
        "large: it asks for cpus:8, of the offer cpus:2 is left; broken: container.wasm.entry_point is empty"
    )


def test_what_is_no_choice_stays() -> None:
    """A task without builds, and one that is wrong as a whole, is what it was."""
    plain = TaskSpec(TaskId("t"), AGENT_ID, parse("cpus:9"))
    assert resolve(plain, parse("cpus:1"), agent(), AGENT_ID) is plain
    wrong = task(build("any"), fault="the name is empty")
    assert resolve(wrong, parse("cpus:1"), agent(), AGENT_ID) is wrong


def test_expressions_of_strangers_go_to_their_matcher() -> None:
    """The matcher that is given decides on regular expressions, and no other."""
    asked: list[tuple[str, str]] = []

    def matcher(regex: str, text: str) -> bool:
        asked.append((regex, text))
        return True

    builds = task(build("any", "arch~(a+)+$"))
    assert resolve(builds, parse("cpus:1"), agent(), AGENT_ID, matcher).alternative == "any"
    assert asked == [("(a+)+$", "amd64")]


def test_executors_that_are_told() -> None:
    """An agent that does not say what it runs may run anything."""
    assert executors_of(agent()) == KINDS
    assert executors_of(agent(executors=None)) is None
    assert misfit("docker", (), agent(executors=None), AGENT_ID) == ""
    assert misfit("docker", (), agent(executors=()), AGENT_ID) == "the agent runs no docker tasks"


@given(
    st.lists(st.tuples(st.sampled_from(ARCHES), st.sampled_from(KINDS), st.integers(1, 4)), max_size=6),
    st.sampled_from(ARCHES),
    st.sets(st.sampled_from(KINDS)),
    st.integers(0, 4),
)
def test_the_rule(choices: list[tuple[str, str, int]], arch: str, kinds: set[str], cpus: int) -> None:
    """The one that is taken fits, none before it does, and there is one exactly if any fits."""
    builds = task(
        *(
            build(str(number), f"arch={wanted}", executor=kind, cpus=size)
            for number, (wanted, kind, size) in enumerate(choices)
        )
    )
    fit = [
        str(number)
        for number, (wanted, kind, size) in enumerate(choices)
        if wanted == arch and kind in kinds and size <= cpus
    ]
    told = resolve(builds, parse(f"cpus:{cpus}"), agent(arch, tuple(sorted(kinds))), AGENT_ID)
    assert told.alternative == (fit[0] if fit else "")
    assert bool(told.fault) == (not fit)
