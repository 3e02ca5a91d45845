"""Tasks that flood, spin, take memory or fill the disk, beside tasks that only want to get their work done."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from support.processes import Box, running_box

from edgerm.core.scheduler import Status
from edgerm.core.tasks import Reason, TaskState
from edgerm.sdk import Cluster, connect
from edgerm.sdk.handle import TaskHandle
from edgerm_agent.keeper.processes import READ_BYTES
from edgerm_agent.keeper.protocol import PAYLOAD_BYTES_MAX
from edgerm_agent.keeper.ring import RING_BYTES
from edgerm_frameworks.modules import WINDOWED_STATS, windowed_stats_lines

DEADLINE_S = 120
MODULES = Path(__file__).parents[1] / "fixtures/wasm"
RESOURCES = "cpus:64;mem:8192;disk:8192;ports:[31000-31099]"
# An agent that lets one whole interval pass without a beat is called unreachable; a late beat is still one.
SETTINGS = {"EDGERM_AGENTS_BEAT_INTERVAL_S": "1.0", "EDGERM_AGENTS_MISSED_BEATS": "2"}
BEATS = 5
ROUNDS = 5
KIB, MIB = 1 << 10, 1 << 20

SAMPLES = [((index * 7919) % 10_007) - 5_000 for index in range(2_000)]
SERIES = "".join(f"{sample / 1000:.3f}\n" for sample in SAMPLES).encode()
STATS = "".join(f"{line}\n" for line in windowed_stats_lines(SAMPLES, 100)).encode()
SQUARES = "print(sum(number * number for number in range(300_000)))"
HUNGRY = "held = [bytearray(1 << 20) for _ in range(500)]; print(len(held))"
GREEDY = "head -c 3000000 /dev/zero > big; exec sleep 1000"

# Of each task the keeper (and so the WASM host) has two rings, which grow in steps by up to an eighth; beside that one
# read of a pipe and one reply per task that is just looked at, and what the allocator keeps of them.
RINGS_BYTES = 2 * RING_BYTES * 9 // 8
PASSING_BYTES = READ_BYTES + 2 * PAYLOAD_BYTES_MAX
SLACK_BYTES = 2 * MIB


class Beats:
    """Watches how the master sees the agent."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.count = 0
        self.states: set[str] = set()
        self.joined: set[int] = set()

    async def watch(self) -> None:
        """For ever."""
        before_s = 0.0
        while True:
            (agent,) = (await self._cluster.operator.agents()).agents
            self.count += agent.last_beat_s < before_s
            before_s = agent.last_beat_s
            self.states.add(agent.link_state)
            self.joined.add(agent.registered_time.nanoseconds)
            await asyncio.sleep(0.05)


def resident_bytes(pid: int, field: str) -> int:
    """VmRSS or VmHWM, its highest so far."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * KIB


async def work(cluster: Cluster) -> None:
    """The two neighbours; each must come to its right result."""
    stats, squares = await asyncio.gather(
        cluster.run(wasm=WINDOWED_STATS, args=["100"], input=SERIES, cpus=0.5, mem=32),
        cluster.run(process=[sys.executable, "-I", "-S", "-c", SQUARES], cpus=0.5, mem=32),
    )
    assert (stats.state, stats.output) == (TaskState.FINISHED, STATS), stats
    assert (squares.state, squares.output) == (TaskState.FINISHED, b"8999955000050000\n"), squares


async def test_neighbours_of_bad_tasks_get_their_work_done(tmp_path: Path) -> None:
    """Beside endless, flooding and hungry tasks neighbours get right results, no beat is missed, memory is bounded."""
    async with (
        asyncio.timeout(DEADLINE_S),
        running_box(tmp_path, RESOURCES, settings=SETTINGS) as box,
        connect(box.url) as cluster,
    ):
        await warm_up(cluster)
        pids = box.holders()
        before = {name: resident_bytes(pid, "VmRSS") for name, pid in pids.items()}
        beats = Beats(cluster)
        watching = asyncio.create_task(beats.watch())
        bad = [
            await cluster.launch(wasm=MODULES / "endless.wasm", cpus=0.3, mem=8),
            await cluster.launch(wasm=MODULES / "flood.wasm", cpus=0.3, mem=8),
            await cluster.launch(process=["yes"], cpus=0.3, mem=8),
        ]
        await asyncio.gather(*(handle.started() for handle in bad))
        hungry = [await eat(cluster) for _ in range(2)]
        for _ in range(ROUNDS):
            await work(cluster)
        for module, process in hungry:
            assert_out_of_memory(await module.ended())
            assert_out_of_memory_or_refused(await process.ended(), box)
        while beats.count < BEATS:
            await asyncio.sleep(0.05)
        assert [handle.status.state for handle in bad] == [TaskState.RUNNING] * 3
        ends = [await handle.kill() for handle in bad]
        assert [(end.state, end.trap) for end in ends[:2]] == [(TaskState.KILLED, "killed")] * 2
        assert ends[2].state is TaskState.KILLED
        await work(cluster)
        watching.cancel()
        assert beats.states == {"joined"}
        assert len(beats.joined) == 1, "the agent had to join again"
        assert box.holders() == pids
        assert_memory(pids, before)


async def warm_up(cluster: Cluster) -> None:
    """Let keeper and host load and compile whatever they will need, so that the rest is the tasks' own."""
    await work(cluster)
    for name in ("endless", "flood", "hog"):
        handle = await cluster.launch(wasm=MODULES / f"{name}.wasm", cpus=0.3, mem=2)
        await handle.started()
        await handle.kill()


async def eat(cluster: Cluster) -> tuple[TaskHandle, TaskHandle]:
    """A module and a process that want more memory than they may have."""
    return (
        await cluster.launch(wasm=MODULES / "hog.wasm", cpus=0.5, mem=8),
        await cluster.launch(process=[sys.executable, "-I", "-S", "-c", HUNGRY], cpus=0.5, mem=64),
    )


def assert_out_of_memory(status: Status) -> None:
    """Told as Mesos tells it."""
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LIMITATION_MEMORY), status


def assert_out_of_memory_or_refused(status: Status, box: Box) -> None:
    """Where no cgroup limits memory the address space is limited: the task is refused more, and fails by itself."""
    if box.enforces("mem") == "rlimit":
        assert (status.state, status.reason) == (TaskState.FAILED, Reason.COMMAND_EXECUTOR_FAILED), status
        assert "MemoryError" in status.output_tail
    else:
        assert_out_of_memory(status)


def assert_memory(pids: dict[str, int], before: dict[str, int]) -> None:
    """At its highest each had its rings more than before, and the host the memory that its guests were allowed."""
    held = {"keeper": 1 + 2 + 1, "wasm-host": 2 + 2 + 1}  # at once: bad, hungry and a neighbour
    guests = {"keeper": 0, "wasm-host": (2 + 2) * 8 * MIB + 32 * MIB}
    for name, pid in pids.items():
        grown = resident_bytes(pid, "VmHWM") - before[name]
        bound = held[name] * RINGS_BYTES + guests[name] + PASSING_BYTES + SLACK_BYTES
        assert grown < bound, name


async def test_a_sandbox_over_its_quota_ends_its_task_alone(tmp_path: Path) -> None:
    """A task that writes more than its disk fails with REASON_CONTAINER_LIMITATION_DISK; a neighbour does not."""
    async with asyncio.timeout(DEADLINE_S), running_box(tmp_path, RESOURCES) as box, connect(box.url) as sdk:
        greedy = await sdk.launch(process=["sh", "-c", GREEDY], cpus=0.1, mem=16, disk=1)
        modest = await sdk.launch(process=["sh", "-c", GREEDY], cpus=0.1, mem=16, disk=8)
        status = await greedy.ended()
        assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LIMITATION_DISK), status
        assert f"{MIB} are allowed" in status.message
        await work(sdk)
        assert modest.status.state is TaskState.RUNNING
        assert (await modest.kill(grace_s=0)).state is TaskState.KILLED
