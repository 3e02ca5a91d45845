"""What a claim may ask of an interface, names and columns, the way in and home, IRQs and threads: on recorded text."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import Conflict, EdgermError, Invalid
from edgerm.core.ids import FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.core.schedstrings import Policy, Scheduling
from edgerm.testing.hostfs import RecordedHost
from edgerm_agent import netns
from edgerm_agent.config import NicInterface
from edgerm_agent.devices.nic import asking, card, memory, plan, plugin, tuning
from edgerm_agent.devices.nic.asking import Asked, Threads, Tuning
from edgerm_agent.devices.nic.homing import WayHome
from edgerm_agent.devices.nic.links import Netlink
from edgerm_agent.devices.nic.memory import Before, Note
from edgerm_agent.devices.nic.plan import Column, Link, Names, Step
from edgerm_agent.devices.nic.tuning import Facts, MoveIrq, SetThread, Tuner

CPUS = (4, 6, 9, 11)
KEY = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
DEVICE = "/sys/devices/pci0000:00/0000:00:03.0"


# --- what a claim asks --------------------------------------------------------------------------------------------


def test_indices_are_those_of_the_task() -> None:
    """CPU lists are indices into the task's own CPUs, and scheduling goes with the threads that are moved."""
    config = {
        "irq_affinity": "0,2-3",
        "irq_threads_affinity": "1",
        "irq_threads_sched": "f60",
        "napi_threads": "false",
        "napi_threads_affinity": "*",
        "napi_threads_sched": "r3",
    }
    asked = asking.read("c", config, CPUS).tuning
    assert asked == Tuning((4, 9, 11), Threads((6,), Scheduling(Policy.FIFO, 60)), Threads(), False)
    assert asked.asked


@pytest.mark.parametrize("config", [{}, dict.fromkeys(asking.TUNING, ""), dict.fromkeys(asking.TUNING, "*")])
def test_nothing_asked_needs_nothing(config: Mapping[str, str]) -> None:
    """Where every option is absent, empty or `*`, neither cores nor dynamic tuning are needed."""
    assert asking.read("c", config, (), "there is none") == Asked()
    assert not Tuning().asked


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"what": "1"}, "claim 'c': config has no key 'what'; it has label, prefix, irq_affinity"),
        ({"irq_affinity": 1}, r"claim 'c': config.irq_affinity = 1 is no text"),
        ({"prefix": ""}, r"claim 'c': config.prefix = ''"),
        ({"prefix": "rt,"}, r"config.prefix = 'rt,'"),
        ({"prefix": "a" * 13}, r"config.prefix"),
        ({"irq_affinity": "4"}, r"config.irq_affinity: CPU list '4': index 4 is beyond the 4 isolated CPUs"),
        ({"irq_threads_affinity": "2-1"}, r"config.irq_threads_affinity: CPU list '2-1': 2-1 descends"),
        ({"napi_threads_affinity": " 1"}, r"config.napi_threads_affinity"),
        ({"irq_affinity": "0-99999999999"}, r"config.irq_affinity"),
        ({"irq_threads_sched": "f100"}, r"config.irq_threads_sched"),
        ({"napi_threads_sched": "51"}, r"config.napi_threads_sched"),
        ({"irq_threads_sched": "f0", "irq_threads_affinity": "0"}, r"SCHED_FIFO has priorities 1 to 99"),
        ({"napi_threads": "1"}, r'config.napi_threads = \'1\': write "true" or "false"'),
        ({"napi_threads": "True"}, r"config.napi_threads"),
    ],
)
def test_what_is_wrong_is_named(config: Mapping[str, object], words: str) -> None:
    """A wrong value is refused with the claim and the key."""
    with pytest.raises(Invalid, match=words):
        asking.read("c", config, CPUS)


@pytest.mark.parametrize("config", [{"irq_affinity": "0"}, {"napi_threads": "true"}, {"irq_threads_sched": "f1"}])
def test_tuning_needs_cores_and_leave(config: Mapping[str, str]) -> None:
    """Tuning is mandatory: without an isolated core, or where nothing can be tuned, the task does not start."""
    with pytest.raises(Conflict, match="tunes an interface for the task's isolated cores, and the task claims none"):
        asking.read("c", config, ())
    with pytest.raises(Conflict, match="asks for tuning, and the operator said no"):
        asking.read("c", config, CPUS, "the operator said no")


def test_scheduling_alone_is_not_applied() -> None:
    """A scheduling string without its affinity is accepted, also one that the kernel would not take."""
    assert not asking.read("c", {"irq_threads_sched": "f0", "napi_threads_sched": "f9"}, CPUS).tuning.asked


@given(st.dictionaries(st.sampled_from(asking.KEYS), st.text(st.sampled_from("0123456789-,*frbe t_+"), max_size=8)))
def test_any_config_is_read_or_refused(config: dict[str, str]) -> None:
    """Whatever a config says, it is read to CPUs of the task, or refused in our words."""
    try:
        found = asking.read("c", config, CPUS).tuning
    except EdgermError as error:
        assert "claim 'c'" in str(error)
    else:
        assert {*found.irq_cpus, *found.irq_threads.cpus, *found.napi_threads.cpus} <= set(CPUS)


def test_which_label_is_meant() -> None:
    """The only label goes without saying; of several one is named, and it must be one of the interface's."""
    assert asking.choose_label("c", "", "eno1", {}) == ("", 0)
    assert asking.choose_label("c", "", "eno1", {"a": 5}) == ("a", 5)
    assert asking.choose_label("c", "b", "eno1", {"a": 5, "b": 0}) == ("b", 0)
    with pytest.raises(Invalid, match=r"claim 'c': interface eno1 has the labels a, b: say in config.label which one"):
        asking.choose_label("c", "", "eno1", {"a": 5, "b": 0})
    with pytest.raises(Invalid, match=r'has the labels: a, b; let the claim ask for it: .*"Contains", values: \["x"\]'):
        asking.choose_label("c", "x", "eno1", {"a": 5, "b": 0})


# --- names, columns, steps ----------------------------------------------------------------------------------------


def test_a_counter_per_prefix() -> None:
    """Names inside are prefix and counter; a card below a VLAN keeps its name, unless a task's interface has that."""
    assert plan.names_inside([("rt", "eno1", 0), ("eth", "eno2", 0), ("rt", "eno3", 0)]) == (
        Names("rt0", "rt0"),
        Names("eth0", "eth0"),
        Names("rt1", "rt1"),
    )
    assert plan.names_inside([("eth", "eno1", 7), ("eth", "eth0", 9)]) == (
        Names("eth0", "eno1"),
        Names("eth1", "card0-eth0"),
    )


@given(
    st.lists(st.tuples(st.text(string.ascii_lowercase + "0", min_size=1, max_size=3), st.integers(0, 2)), max_size=12)
)
def test_names_never_clash(wanted: list[tuple[str, int]]) -> None:
    """Whatever prefixes are wanted, no two interfaces of a task have one name, and every name fits the kernel."""
    names = plan.names_inside([(prefix, f"a{number}", tag) for number, (prefix, tag) in enumerate(wanted)])
    cards = [each.card for each, (_, tag) in zip(names, wanted, strict=True) if tag]
    all_ = [*cards, *(each.task for each in names)]
    assert len(set(all_)) == len(all_)
    assert all(len(name) <= plan.NAME_MAX and name != "lo" for name in all_)


def test_columns_match() -> None:
    """Position i is the same network in all five; empty columns stay; without a network there is no variable."""
    columns = [
        Column("rt", "line7", "/dev/ptp1", "eno3", {"line7": 123, "spare": 42}),
        Column("eth", "up", "", "eno2", {"up": 0}),
    ]
    assert plan.variables(columns) == (
        ("IEDGE_NETWORKS_PREFIXES", "rt,eth"),
        ("IEDGE_NETWORKS_LABELS", "line7,up"),
        ("IEDGE_NETWORKS_PTP_DEVICES", "/dev/ptp1,"),
        ("IEDGE_NETWORKS_ISOLATED", "eno3,eno2"),
        ("IEDGE_NETWORKS_ANNOTATIONS", '[{"line7":123,"spare":42},{"up":0}]'),
    )
    assert dict(plan.variables([columns[1]] * 3))["IEDGE_NETWORKS_PTP_DEVICES"] == ",,"
    assert plan.variables([]) == ()


CARD = Link("eno3", 5, "02:00:00:00:00:01", "02:00:00:00:00:01", "", "0000:00:03.0", mtu=1500)


def test_the_way_in() -> None:
    """Without addresses, down, moved and renamed at once; inside up, and the VLAN on it."""
    names = Names("rt0", "eno3")
    assert plan.way_in(CARD, "/ns", names) == (plan.Flush("eno3"), plan.Down("eno3"), plan.Move("eno3", "/ns", "eno3"))
    assert plan.set_up(names, 7) == (plan.Up("eno3"), plan.AddVlan("eno3", "rt0", 7), plan.Up("rt0"))
    assert plan.set_up(Names("rt0", "rt0"), 0) == (plan.Up("rt0"),)


def test_the_way_home() -> None:
    """VLANs on it go, also the task's own; addresses, another address of the card and packet size are set back."""
    inside = Link("mine", 5, "02:00:00:00:00:99", CARD.permanent, "", CARD.bus, mtu=9000, up=True, addresses=2)
    others = [inside, Link("rt0", 6, kind="vlan", parent=5), Link("x", 7, kind="vlan", parent=9), Link("lo", 1)]
    assert plan.way_home(inside, others, "eno3", CARD.mac, 1500) == (
        plan.Delete("rt0"),
        plan.Flush("mine"),
        plan.Down("mine"),
        plan.Reset("mine", CARD.mac, 1500),
        plan.Move("mine", "", "eno3"),
    )


def test_where_the_kernel_put_it() -> None:
    """A card that came home by itself gets its name back; one that is at home as it was is left alone."""
    back = Link("rt0", 5, CARD.mac, CARD.permanent, "", CARD.bus, mtu=1500)
    assert plan.settled(back, "eno3", CARD.mac, 1500) == (plan.Down("rt0"), plan.Rename("rt0", "eno3"))
    assert plan.settled(CARD, "eno3", CARD.mac, 1500) == ()


def test_a_card_is_known_again() -> None:
    """By its place and its own address, whatever its name; ports of one card differ; a virtual one by its address."""
    identity = plan.identity_of(CARD)
    assert identity.fits(Link("rt0", 77, "0a:00:00:00:00:00", CARD.permanent, "", CARD.bus))
    assert not identity.fits(Link("eno4", 6, CARD.mac, "02:00:00:00:00:02", "", CARD.bus))
    veth = plan.identity_of(Link("v", 3, "02:00:00:00:00:07", "", "veth"))
    assert veth.fits(Link("w", 9, "02:00:00:00:00:07", "", "veth"))
    assert not veth.fits(Link("v", 3, "02:00:00:00:00:08", "", "veth"))


# --- what /sys tells ----------------------------------------------------------------------------------------------


def board(**more: str) -> RecordedHost:
    """A box with one card, its three IRQs, their threads and one of NAPI."""
    files = {
        "/sys/class/net/eno3/address": "02:00:00:00:00:01\n",
        "/sys/class/net/eno3/threaded": "0\n",
        f"{DEVICE}/numa_node": "0\n",
        f"{DEVICE}/irq": "24\n",
        f"{DEVICE}/msi_irqs/30": "msix\n",
        f"{DEVICE}/msi_irqs/31": "msix\n",
        f"{DEVICE}/ptp/ptp1/clock_name": "x\n",
        "/sys/bus/pci/drivers/e1000e/bind": "",
        "/proc/irq/30/smp_affinity_list": "0-11\n",
        "/proc/irq/31/smp_affinity_list": "0-11\n",
        **dict(thread(70, "irq/30-rt0-rx-0", 50, 1)),
        **dict(thread(71, "irq/31-rt0", 50, 1)),
        **dict(thread(72, "irq/3-other", 50, 1)),
        **dict(thread(73, "napi/eno3-8193", 0, 0)),
        **dict(thread(74, "backlog_napi/1", 0, 0)),
        **dict(thread(75, "napi/rt0-9", 0, 0)),
        **more,
    }
    links = {"/sys/class/net/eno3/device": DEVICE, f"{DEVICE}/driver": "/sys/bus/pci/drivers/e1000e"}
    return RecordedHost(files=files, links=links)


def thread(pid: int, name: str, priority: int, policy: int) -> list[tuple[str, str]]:
    """A thread of the kernel on all CPUs."""
    fields = ["S", "2", "0", "0", "0", "-1", str(0x00208040), *["0"] * 30, "17", "1", str(priority), str(policy), "0"]
    fields = fields[:7] + ["0"] * 30 + [str(priority), str(policy), "0"]
    return [
        (f"/proc/{pid}/stat", f"{pid} ({name}) {' '.join(fields)}\n"),
        (f"/proc/{pid}/status", f"Name:\t{name}\nCpus_allowed_list:\t0-11\n"),
    ]


def test_a_card_in_sys() -> None:
    """Driver, address, clock, NUMA node and message-signalled IRQs are read; a bridge's part has a problem."""
    host = board()
    assert card.look(host, "eno3", lambda name: -1) == card.Card(
        DEVICE, "e1000e", "02:00:00:00:00:01", "/dev/ptp1", (0,)
    )
    assert card.irqs(host, DEVICE) == (30, 31)
    assert card.problem_of(host, "eno3") == ""
    assert card.problem_of(host, "eno9") == "interface eno9 is missing"
    bridged = board(**{"/sys/class/net/eno3/brport/state": "3"})
    assert card.problem_of(bridged, "eno3") == "interface eno3 is part of a bridge on the box"
    below = board(**{"/sys/class/net/eno3/upper_eno3.5/address": ""})
    assert card.problem_of(below, "eno3") == "interface eno3 is below eno3.5 on the box"


def test_several_clocks_of_a_card() -> None:
    """Where a card lists several clocks its driver says which; without an answer it is none."""
    host = board(**{f"{DEVICE}/ptp/ptp2/clock_name": "x\n"})
    assert card.look(host, "eno3", lambda name: 2).clock == "/dev/ptp2"
    assert card.look(host, "eno3", lambda name: -1).clock == ""


def test_other_ways_of_irqs() -> None:
    """A legacy card has one IRQ, a virtio one those of the function that carries it, and what is no card none."""
    assert card.irqs(RecordedHost(files={"/sys/devices/x/irq": "24\n"}), "/sys/devices/x") == (24,)
    virtio = RecordedHost(files={"/sys/devices/x/msi_irqs/40": "", "/sys/devices/x/virtio1/device": ""})
    assert card.irqs(virtio, "/sys/devices/x/virtio1") == (40,)
    assert card.irqs(RecordedHost(), "") == ()


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        (NicInterface(""), "name = ''"),
        (NicInterface("lo"), "name = 'lo'"),
        (NicInterface("a" * 16), "no interface that can be given away"),
        (NicInterface("a/b"), "no interface that can be given away"),
        (NicInterface("eth0,1"), "no interface that can be given away"),
        (NicInterface("eno1", {"a,b": 0}), "labels: 'a,b'"),
        (NicInterface("eno1", {"": 0}), "labels: ''"),
        (NicInterface("twice"), "it stands twice"),
    ],
)
def test_what_the_operator_may_mark(interface: NicInterface, words: str) -> None:
    """A name that no interface has, a name that stands twice and a label that would part columns are refused."""
    with pytest.raises(Invalid, match=words):
        plugin.check((NicInterface("twice"), interface))


# --- IRQs and threads ---------------------------------------------------------------------------------------------

WANTED = Tuning((4,), Threads((6,), Scheduling(Policy.FIFO, 60)), Threads((6, 9)))


def note(**fields: object) -> Note:
    """Of the card, which is inside as rt0."""
    given = {"device": DEVICE, "tuning": WANTED, "strangers": (75,), **fields}
    return Note(KEY, "eno3", plan.identity_of(CARD), CARD.mac, 1500, "/ns", 4026, "rt0", **given)  # type: ignore[arg-type]


def test_what_must_change() -> None:
    """IRQs and threads that are elsewhere than asked are moved; what is as asked, or not asked for, is left alone."""
    one, two = Before(70, "irq/30-rt0", 1, 50, (0,)), Before(71, "irq/31-rt0", 1, 60, (6,))
    napi = Before(73, "napi/eno3-1", 0, 0, (0,))
    facts = Facts({30: (0, 1), 31: (4,)}, (one, two), (napi,))
    assert tuning.changes(WANTED, facts) == (
        (MoveIrq(30, (4,)),),
        (SetThread(one, (6,), 1, 60), SetThread(napi, (6, 9), 0, 0)),
    )
    assert tuning.changes(Tuning(), facts) == ((), ())


class Scheduler:
    """The kernel's scheduling over a recorded board: what is set shows in /proc."""

    def __init__(self, host: RecordedHost) -> None:
        self.done: list[tuple[object, ...]] = []
        self.affinities: dict[int, tuple[int, ...]] = {}
        self.policies: dict[int, tuple[int, int]] = {}
        self.tuner = Tuner(host, self.set_affinity, self.set_scheduler)

    def set_affinity(self, pid: int, cpus: object) -> None:
        """As sched_setaffinity."""
        self.affinities[pid] = tuple(cpus)  # type: ignore[arg-type]

    def set_scheduler(self, pid: int, policy: int, priority: int) -> None:
        """As sched_setscheduler."""
        self.policies[pid] = (policy, priority)


def test_whose_threads_they_are() -> None:
    """Threads are found by IRQ number and by both names of the interface; strangers and other cards' are not."""
    facts = Scheduler(board()).tuner.facts(note())
    assert [each.pid for each in facts.irq_threads] == [70, 71]
    assert [each.pid for each in facts.napi_threads] == [73]
    assert facts.irqs == {30: tuple(range(12)), 31: tuple(range(12))}
    assert Scheduler(board()).tuner.strangers({"rt0"}) == (75,)
    assert tuning.napi_of("napi/br-lan-12") == "br-lan"
    assert tuning.irq_of("irq/30-s-rt0") == 30


def test_noted_before_it_is_changed() -> None:
    """What is changed was noted before with what it had been; a kernel that does not keep it is a conflict."""
    host = board()
    scheduler = Scheduler(host)
    notes: list[Note] = []
    with pytest.raises(Conflict, match=r"interface eno3 cannot be tuned: irq/30-rt0-rx-0, .* does not stay"):
        scheduler.tuner.tune(note(), notes.append)  # this board's threads never move
    assert host.read("/proc/irq/30/smp_affinity_list") == "4"
    assert notes[0].irqs == {30: tuple(range(12)), 31: tuple(range(12))}
    assert {each.pid: each.cpus for each in notes[-1].threads} == dict.fromkeys((70, 71, 73), tuple(range(12)))
    assert scheduler.policies == {70: (1, 60), 71: (1, 60), 73: (0, 0)}


def test_reverted() -> None:
    """IRQs and surviving threads are as they were; an IRQ and a thread that are gone are clean."""
    host = board()
    scheduler = Scheduler(host)
    before = (Before(70, "irq/30-rt0-rx-0", 1, 50, (0, 1)), Before(73, "another", 1, 1, (2,)))
    changed = note(irqs={30: (0, 1, 2), 99: (0,)}, threads=before)
    assert scheduler.tuner.revert(changed) == []
    assert host.read("/proc/irq/30/smp_affinity_list") == "0-2"
    assert (scheduler.affinities, scheduler.policies) == ({70: (0, 1)}, {70: (1, 50)})


class IdleCard(Netlink):
    """A card at home that is down, whose IRQs take no other CPUs as long as that is so."""

    def __init__(self, host: RecordedHost) -> None:
        self.done: list[Step] = []
        self._read, host.read = host.read, self.read  # type: ignore[method-assign]

    def look(self, path: str) -> tuple[Link, ...]:
        """It alone."""
        return (replace(CARD, name="eno3", up=False, addresses=0),)

    def apply(self, path: str, steps: Iterable[Step]) -> None:
        """What is set while it is up counts afterwards."""
        self.done += steps

    def read(self, path: str) -> str:
        """As the kernel shows it: what is still to be done."""
        return "4\n" if path == "/proc/irq/30/smp_affinity_list" and not self.done else self._read(path)


def test_an_irq_that_never_came() -> None:
    """An IRQ that did not interrupt while a task had its card goes back all the same: the card is up for a moment."""
    host = board()
    kernel = IdleCard(host)
    changed = note(irqs={30: (0, 1, 2)})
    host.notes.put("eno3", memory.to_json(changed))
    WayHome(host, kernel, Scheduler(host).tuner).undo([changed])
    assert kernel.done == [plan.Up("eno3"), plan.Down("eno3")]
    assert host.read("/proc/irq/30/smp_affinity_list") == "0-2"
    assert host.notes.keys() == ()


def test_notes_are_read_back() -> None:
    """A note says the same after it was JSON; its known values are never overwritten by later ones."""
    full = note(irqs={30: (0, 1)}, threads=(Before(70, "irq/30", 1, 50, (0,)),), napi="0", ready=True, metadata="{}")
    assert memory.from_json(json.loads(json.dumps(memory.to_json(full)))) == full
    later = full.with_irqs({30: (4,), 31: (0,)}).with_threads((Before(70, "irq/30", 1, 60, (4,)),))
    assert later.irqs == {30: (0, 1), 31: (0,)}
    assert later.threads == full.threads


# --- namespaces ---------------------------------------------------------------------------------------------------


def test_mounts_of_namespaces() -> None:
    """A namespace's mounts are found by its number in mountinfo, blanks in their paths included."""
    lines = (
        "36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
        "40 35 0:4 net:[4026532179] /run/docker/netns/1\\040x rw shared:9 - nsfs nsfs rw\n"
        "41 35 0:4 net:[4026532180] /run/edgerm/netns/y rw - nsfs nsfs rw\n"
    )
    assert netns.mounted(lines, 4026532179) == ("/run/docker/netns/1 x",)
    assert netns.mounted(lines, 40265321) == ()


@pytest.mark.parametrize("name", ["", "..", "a/b", "a" * 101])
def test_names_of_namespaces(name: str) -> None:
    """A name that leads elsewhere is none."""
    with pytest.raises(ValueError, match="no name of a network namespace"):
        netns.path_of(name)
