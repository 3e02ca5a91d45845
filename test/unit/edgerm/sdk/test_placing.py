"""The scheduler of the short way, in the session machine, without a master."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgerm.core.claims import Claim
from edgerm.core.devices import Device, DeviceClass, Inventory
from edgerm.core.errors import Conflict
from edgerm.core.ids import AgentId, FrameworkId, OfferId, TaskId
from edgerm.core.instant import Instant
from edgerm.core.resources import parse
from edgerm.core.scheduler import (
    Accept,
    AgentSpec,
    Call,
    Decline,
    Offer,
    Offers,
    Request,
    Revive,
    Status,
    Subscribed,
    Suppress,
)
from edgerm.core.tasks import TaskState
from edgerm.sdk.core.session import Session
from edgerm.sdk.core.values import Broke, Heard, Make
from edgerm.sdk.finding import find
from edgerm.sdk.placing import Placer
from edgerm.sdk.tasks import Task, docker_task, process_task
from edgerm.wire.codec.infos import agent_spec, attributes_info
from edgerm.wire.v1.infos_pb2 import AgentInfo

NOW = Instant(1.0, 1.0)


class Bench:
    """A placer that is subscribed."""

    def __init__(self) -> None:
        self.told: list[Status] = []
        self.placer = Placer(self.told.append)
        self.session = Session(self.placer, b"")
        self.session.start(NOW)
        self.offered = 0

    def subscribed(self) -> list[Call]:
        return self.hear(Subscribed(FrameworkId("f"), 15.0))

    def made(self, text: str, agent: AgentSpec) -> Offer:
        """An offer, which the placer is not told of."""
        name, _, resources = text.partition(" ")
        self.offered += 1
        return Offer(OfferId(f"o{self.offered}"), FrameworkId("f"), "*", AgentId(name), parse(resources), agent)

    def offer(
        self, *texts: str, executors: str | None = None, agent: AgentSpec | None = None, **attributes: str
    ) -> list[Call]:
        """An offer of each agent: "NAME cpus:1;mem:64"; all tell that they run these `executors`: "{process}"."""
        told = {} if executors is None else {"edgerm.executors": executors}
        info = attributes_info("host", told | attributes) if told or attributes else b""
        known = agent or (agent_spec(AgentInfo.FromString(info)) if info else None)
        offers = [self.made(text, known or AgentSpec(text.partition(" ")[0])) for text in texts]
        return self.hear(Offers(tuple(offers)))

    def launch(self, *tasks: Task) -> list[Call]:
        for task in tasks:
            self.placer.launch(self.session, task)
        return [effect.call for effect in self.session.take() if isinstance(effect, Make)]

    def hear(self, event: Offers | Subscribed) -> list[Call]:
        """What is called for then."""
        effects = self.session.handle(Heard(1, event), NOW)
        return [effect.call for effect in effects if isinstance(effect, Make)]


def task(name: str, cpus: float = 1.0) -> Task:
    """A task of so many CPUs."""
    return process_task(name, ["/bin/true"], cpus=cpus, mem=1)


@pytest.fixture
def bench() -> Bench:
    """Subscribed, with nothing to do."""
    bench = Bench()
    assert bench.subscribed() == [Suppress()]
    return bench


def test_offers_are_asked_for_only_while_something_waits(bench: Bench) -> None:
    """The first task revives, the offer that serves it is used whole with no filter, and silence is asked for again."""
    assert bench.launch(task("t1"), task("t2")) == [Revive()]
    accept, suppress = bench.offer("a cpus:4;mem:64")
    assert isinstance(accept, Accept)
    assert ([spec.task_id for spec in accept.tasks], accept.refuse_s) == (["t1", "t2"], 0)
    assert suppress == Suppress()


def test_tasks_are_spread_over_agents(bench: Bench) -> None:
    """Each agent gets one call with its share."""
    bench.launch(*(task(f"t{n}") for n in range(6)))
    calls = [call for call in bench.offer("a cpus:3;mem:64", "b cpus:3;mem:64") if isinstance(call, Accept)]
    assert [len(call.tasks) for call in calls] == [3, 3]
    assert all(len({spec.agent_id for spec in call.tasks}) == 1 for call in calls)


def test_several_offers_of_an_agent_are_used_together(bench: Bench) -> None:
    """A task may need more than either of them has."""
    bench.launch(task("big", 4.0))
    accept = bench.offer("a cpus:2;mem:64", "a cpus:2;mem:64")[0]
    assert isinstance(accept, Accept)
    assert len(accept.offer_ids) == 2


def test_what_does_not_fit_keeps_waiting_and_others_go_first(bench: Bench) -> None:
    """A big task does not hold up small ones, and an offer that serves nothing goes back for a moment."""
    bench.launch(task("big", 8.0), task("small"))
    accept, decline = bench.offer("a cpus:2;mem:64", "b mem:64")
    assert isinstance(accept, Accept) and isinstance(decline, Decline)
    assert [spec.task_id for spec in accept.tasks] == ["small"]
    assert decline.refuse_s > 0
    accept = bench.offer("c cpus:8;mem:64")[0]
    assert isinstance(accept, Accept)
    assert [spec.task_id for spec in accept.tasks] == ["big"]


def test_a_withdrawn_task_is_not_launched(bench: Bench) -> None:
    """What is taken back in time leaves no trace; what has a place cannot be."""
    bench.launch(task("t1"), task("t2"))
    assert bench.placer.withdraw(task("t1").task_id)
    accept = bench.offer("a cpus:4;mem:64")[0]
    assert isinstance(accept, Accept)
    assert [spec.task_id for spec in accept.tasks] == ["t2"]
    assert not bench.placer.withdraw(task("t2").task_id)


def test_one_id_is_not_used_twice_at_once(bench: Bench) -> None:
    """Neither while the first waits, nor while it runs."""
    bench.launch(task("t1"))
    with pytest.raises(Conflict):
        bench.launch(task("t1"))
    bench.offer("a cpus:4;mem:64")
    with pytest.raises(Conflict):
        bench.launch(task("t1"))


def test_a_task_goes_only_where_it_can_run(bench: Bench) -> None:
    """An agent that tells what it runs gets nothing else, however much room it has; others are served meanwhile."""
    container = docker_task("c1", "nginx", cpus=1.0, mem=1)
    bench.launch(container, task("t1"))
    accept = bench.offer("a cpus:4;mem:64", executors="{process,wasm}")[0]
    assert isinstance(accept, Accept)
    assert [spec.task_id for spec in accept.tasks] == ["t1"]
    (decline,) = bench.offer("b cpus:4;mem:64", executors="{}")
    assert isinstance(decline, Decline)
    assert bench.placer.lacking(container.task_id) == "no agent here runs docker tasks yet"
    accept = bench.offer("c cpus:4;mem:64", executors="{docker}")[0]
    assert isinstance(accept, Accept)
    assert [spec.task_id for spec in accept.tasks] == ["c1"]
    assert bench.placer.lacking(container.task_id) is None


def test_an_agent_that_does_not_tell_gets_anything(bench: Bench) -> None:
    """Without the attribute nothing is known, and the agent itself is the authority."""
    container = docker_task("c1", "nginx", cpus=8.0, mem=1)
    bench.launch(container)
    bench.offer("a cpus:4;mem:64")
    assert bench.placer.lacking(container.task_id) is None, "it lacks room, as far as anybody knows"
    accept = bench.offer("a cpus:8;mem:64")[0]
    assert isinstance(accept, Accept)
    assert [spec.task_id for spec in accept.tasks] == ["c1"]


def test_who_waits_for_an_executor_is_told_only_after_an_offer(bench: Bench) -> None:
    """Before any agent made an offer it is not known what they lack."""
    container = docker_task("c1", "nginx")
    bench.launch(container)
    assert bench.placer.lacking(container.task_id) is None


def test_who_waits_for_a_device_is_told_which_no_offer_had(bench: Bench) -> None:
    """By its name if there is none of that name, else by its id."""
    bench.launch(process_task("t1", ["x"], cpus=1, mem=1, devices=["bay=b", "bay", "lidar=l"]))
    bench.offer("a cpus:4;mem:64;bay:{a,c}")
    assert bench.placer.lacking(TaskId("t1")) == "no offer so far had a device bay=b or lidar"


def constrained(name: str, *constraints: str, cpus: float = 1.0) -> Task:
    """A task that may run only where all of these hold."""
    return process_task(name, ["/bin/true"], cpus=cpus, mem=1, constraints=constraints)


def test_a_task_goes_only_where_its_constraints_hold(bench: Bench) -> None:
    """All of them must; attributes of every type, the agent's host and its id count."""
    bench.launch(constrained("t1", "zone=a", "line=7", "runs=x", "!old", "@hostname=host", "@agent!=a"))
    (decline,) = bench.offer("a cpus:4;mem:64", zone="a", line="7", runs="{x,y}")
    assert isinstance(decline, Decline)
    accept = bench.offer(
        "b cpus:4;mem:64",
        zone="a",
        line="7",
        runs="{x,y}",
    )[0]
    assert isinstance(accept, Accept)
    assert [spec.agent_id for spec in accept.tasks] == ["b"]


def test_an_agent_on_which_nothing_may_run_is_refused_for_long(bench: Bench) -> None:
    """So that neither side spins; one that only lacks room is asked again soon."""
    bench.launch(constrained("t1", "zone=a", cpus=8))
    (unfit,) = bench.offer("a cpus:16;mem:64", zone="b")
    (small,) = bench.offer("b cpus:1;mem:64", zone="a")
    assert isinstance(unfit, Decline) and isinstance(small, Decline)
    assert unfit.refuse_s >= 600 and small.refuse_s <= 5


def test_a_task_that_may_run_where_others_may_not_asks_for_offers_anew(bench: Bench) -> None:
    """A refused agent comes back once a task waits that it can run, and only then."""
    bench.launch(constrained("t1", "zone=a"))
    bench.offer("b cpus:4;mem:64", zone="b")
    assert bench.launch(constrained("t2", "zone=c")) == []
    assert bench.launch(constrained("t3", "zone=b")) == [Revive()]
    accept, *_ = bench.offer("b cpus:4;mem:64", zone="b")
    assert isinstance(accept, Accept)
    assert [spec.task_id for spec in accept.tasks] == ["t3"]


def test_a_new_stream_has_forgotten_refusals(bench: Bench) -> None:
    """After a new subscription every agent makes offers again without being asked."""
    bench.launch(constrained("t1", "zone=a"))
    bench.offer("b cpus:4;mem:64", zone="b")
    bench.session.handle(Broke(1, "gone"), NOW)
    bench.session.tick(Instant(100.0, 1.0))
    bench.session.handle(Heard(2, Subscribed(FrameworkId("f"), 15.0)), NOW)
    assert bench.launch(constrained("t2", "zone=b")) == []


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        (("zone=c",), "no agent that made an offer meets zone=c"),
        (("zone=c", "rack"), "no agent that made an offer meets zone=c or rack"),
        (("zone=a", "line=2"), "no agent that made an offer meets all of: zone=a and line=2"),
        (("zone=a", "line=1"), None),
    ],
)
def test_what_no_agent_meets_is_told(bench: Bench, constraints: tuple[str, ...], words: str | None) -> None:
    """Each constraint that nobody meets, else that nobody meets all of them; nothing where only room is lacking."""
    waiting = constrained("t1", *constraints, cpus=64)
    bench.launch(waiting)
    assert bench.placer.lacking(waiting.task_id) is None, "nobody has made an offer yet"
    bench.offer("a cpus:1;mem:64", zone="a", line="1")
    bench.offer("b cpus:1;mem:64", zone="b", line="2")
    lacking = bench.placer.lacking(waiting.task_id)
    assert lacking == words if words is None else (lacking or "").startswith(words)


CORE = "siemens.com/isolated_core"


def claiming(name: str, count: int = 1, of: str = CORE) -> Task:
    """A task that claims so many devices."""
    return process_task(name, ["/bin/true"], cpus=1, mem=1, claims=[f"{of}={count}"])


def with_cores(*ids: str, problem: str = "") -> AgentSpec:
    """An agent that offers these."""
    devices = tuple(Device(CORE, device_id) for device_id in ids)
    return AgentSpec("host", inventory=Inventory((DeviceClass(CORE, problem=problem),), devices))


def told(calls: list[Call]) -> list[list[str]]:
    """Who waits for devices, as the master is told each time."""
    return [[one.task_id for one in call.waiting] for call in calls if isinstance(call, Request)]


def accepted(calls: list[Call]) -> list[str]:
    """The tasks that are launched."""
    return [task.task_id for call in calls if isinstance(call, Accept) for task in call.tasks]


def test_a_claim_goes_where_it_fits(bench: Bench) -> None:
    """Two tasks do not get one device twice; what is left over waits, and the words name the class."""
    assert told(bench.launch(claiming("t1", 2), claiming("t2", 2), claiming("t3"))) == [
        ["t1"],
        ["t1", "t2"],
        ["t1", "t2", "t3"],
    ]
    calls = bench.offer(f"a cpus:9;mem:64;{CORE}:{{cpu1,cpu2,cpu3}}", agent=with_cores("cpu1", "cpu2", "cpu3"))
    assert (accepted(calls), told(calls)) == (["t1", "t3"], [["t2"]])
    assert bench.placer.lacking(TaskId("t2")) == (
        f"it waits for {CORE}: claim {CORE!r} of class {CORE}: 2 exclusive asked for; of 3 there is 1 free"
    )


def test_a_class_that_no_agent_has(bench: Bench) -> None:
    """The agent is refused for long: it will be offered again when it has more."""
    bench.launch(claiming("t1"))
    assert bench.placer.lacking(TaskId("t1")) == f"it waits for an offer with 1 of {CORE}"
    [decline] = bench.offer("a cpus:9;mem:64")
    assert isinstance(decline, Decline)
    assert decline.refuse_s > 60
    lacking = bench.placer.lacking(TaskId("t1"))
    assert lacking == f"it waits for {CORE}: claim {CORE!r} of class {CORE}: the agent has no such class of devices"


def test_a_class_whose_plugin_is_gone(bench: Bench) -> None:
    """Where no other agent has it the task ends as an error that names the class; else it waits."""
    bench.launch(claiming("t1"))
    assert told(bench.offer("a cpus:9;mem:64", agent=with_cores(problem="its plugin is gone"))) == [[]]
    [status] = bench.told
    assert (status.task_id, status.state) == ("t1", TaskState.ERROR)
    assert status.message.endswith(f"of class {CORE}: nothing of it can be claimed: its plugin is gone")
    bench.offer("b cpus:9;mem:64", agent=with_cores())
    bench.launch(claiming("t2"))
    bench.offer("a cpus:9;mem:64", agent=with_cores(problem="its plugin is gone"))
    assert len(bench.told) == 1


def test_a_claim_that_is_wrong_where_its_class_is(bench: Bench) -> None:
    """It is not waited for devices that no agent can ever give: the task ends as an error with the reason."""
    inventory = Inventory((DeviceClass(CORE),), (Device(CORE, "cpu1", metadata='{"kind":"fast"}'),))
    wish = {
        "definitions": {
            "x": {"type": CORE, "matchExpressions": [{"key": "kind", "operator": "Contains", "values": ["fast"]}]}
        },
        "limits": {"x": 1},
    }
    bench.launch(process_task("t1", ["true"], claims=wish))
    agent = replace(with_cores("cpu1"), inventory=inventory)
    assert told(bench.offer(f"a cpus:9;mem:64;{CORE}:{{cpu1}}", agent=agent)) == [[]]
    [status] = bench.told
    assert (status.task_id, status.state) == ("t1", TaskState.ERROR)
    assert "claim 'x'" in status.message


def test_devices_of_several_offers_of_an_agent(bench: Bench) -> None:
    """Each offer tells of its own devices; together they may do."""
    bench.launch(claiming("t1", 2))
    texts = [f"a cpus:9;mem:64;{CORE}:{{{device_id}}}" for device_id in ("cpu1", "cpu2")]
    offers = [bench.made(text, with_cores(device_id)) for text, device_id in zip(texts, ("cpu1", "cpu2"), strict=True)]
    assert accepted(bench.hear(Offers(tuple(offers)))) == ["t1"]
    assert [found.task.task_id for found in find(offers, claiming("t2", 2))] == ["t2"]
    with pytest.raises(Conflict, match="2 exclusive asked for; of 1 there is 1 free"):
        claiming("t3", 2).on(offers[0])


def test_who_waits_is_told_anew_after_each_subscription(bench: Bench) -> None:
    """The master forgets it with the stream; a withdrawn task is not told."""
    bench.launch(claiming("t1"), claiming("t2"))
    bench.placer.withdraw(TaskId("t1"))
    bench.session.handle(Broke(1, "gone"), NOW)
    bench.session.tick(Instant(100.0, 100.0))
    effects = bench.session.handle(Heard(2, Subscribed(FrameworkId("f"), 15.0)), Instant(100.0, 100.0))
    assert told([effect.call for effect in effects if isinstance(effect, Make)]) == [["t2"]]


def test_a_claim_reaches_the_task_info(bench: Bench) -> None:
    """The master gets the claims; which devices they are is left to it."""
    spec = claiming("t1", 2).on(bench.made(f"a cpus:9;mem:64;{CORE}:{{cpu1,cpu2}}", with_cores("cpu1", "cpu2")))
    assert spec.claims == (Claim(CORE, CORE, 2),)
    assert spec.resources == parse("cpus:1;mem:1")
