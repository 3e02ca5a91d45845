"""What a task in a container gets, on a real engine: image, limits, environment, ports, volumes, networks, labels."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.containers import DEADLINE_S, containers_of, executing, launch, new_agent, run, shell, started
from support.engine import IMAGE, REGISTRY, TestEngine
from support.slow_registry import slow_registry

from edgerm.core.errors import NotFound
from edgerm.core.ids import AgentId
from edgerm.plugin.device import Mount
from edgerm.plugin.executor import ExitReason, Handle, LaunchFailed, Limits, PortMapping
from edgerm_agent.executors.docker import container
from edgerm_agent.executors.docker.executor import DockerExecutor

MIB = 1 << 20


@pytest.fixture
def agent_id() -> AgentId:
    """Of this test."""
    return new_agent()


@pytest.fixture
async def executor(engine: TestEngine, agent_id: AgentId) -> AsyncIterator[DockerExecutor]:
    """Of this test."""
    async with executing(engine, agent_id) as made:
        yield made


def inspect(engine: TestEngine, agent_id: AgentId, key: object) -> dict[str, object]:
    """The container, as the engine has it."""
    with engine.client() as client:
        return dict(client.inspect_container(container.name_of(agent_id, key)))  # type: ignore[arg-type]


# --- images ---


async def test_an_image_that_is_there_is_not_pulled(executor: DockerExecutor, tmp_path: Path) -> None:
    """A side-loaded image runs though no registry has it, and nothing is told about it; its own command is run."""
    told: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        exit_ = await executor.wait(await executor.start(launch(tmp_path), told.append))
    assert (exit_.code, exit_.tail, told) == (0, "the default\n", [])


@pytest.fixture
def pushed(engine: TestEngine) -> str:
    """An image that only Debian's registry has."""
    if not (engine.folder / "registry.yml").exists():
        engine.start_registry()
    image = f"{REGISTRY}/pushed:1"
    with engine.client() as client:
        engine.import_image(image, ballast=b"".join(i.to_bytes(4, "big") for i in range(3 * MIB)))
        said = client.push(f"{REGISTRY}/pushed", tag="1")
        assert "digest" in said, said
        client.remove_image(image)
    return image


async def test_a_pull_tells_its_progress(
    engine: TestEngine, executor: DockerExecutor, tmp_path: Path, pushed: str
) -> None:
    """An image that is not there is pulled, with progress in lines, for all who wait for it; then it is there."""
    told: list[str] = []
    specs = [launch(tmp_path, "true", image=pushed) for _ in range(2)]
    async with asyncio.timeout(DEADLINE_S):
        handles = await asyncio.gather(*(executor.start(spec, told.append) for spec in specs))
        assert [(await executor.wait(handle)).code for handle in handles] == [0, 0]
        assert told[0] == f"pulling {pushed}"
        assert any(line.startswith(f"pulling {pushed}: ") and " % of " in line for line in told)
        told.clear()
        await executor.wait(await executor.start(launch(tmp_path, "true", image=pushed), told.append))
        assert told == []
        await executor.start(launch(tmp_path, "true", image=pushed, force_pull=True), told.append)
        assert told[0] == f"pulling {pushed}"
        await executor.end_tasks()
    with engine.client() as client:
        client.remove_image(pushed, force=True)


async def test_a_pull_that_stalls_is_given_up(engine: TestEngine, tmp_path: Path) -> None:
    """A pull without progress for its time limit is a failed launch that names the image; it holds up no other task."""
    async with slow_registry(engine) as registry, executing(engine, pull_stall_s=1.0) as executor:
        slow = asyncio.create_task(executor.start(launch(tmp_path, image=registry.image)))
        async with asyncio.timeout(DEADLINE_S):
            await registry.asked.wait()
            other = await executor.start(launch(tmp_path))
            assert (await executor.wait(other)).code == 0
            with pytest.raises(LaunchFailed, match="no progress for 1 s") as caught:
                await slow
        assert registry.image in str(caught.value)
        assert (await executor.inspect()).held == (other,)


async def test_a_pull_that_goes_on_arrives(engine: TestEngine, executor: DockerExecutor, tmp_path: Path) -> None:
    """A registry that stands still for less than the limit delivers; a start that nobody wants ends at once."""
    async with slow_registry(engine) as registry, asyncio.timeout(DEADLINE_S):
        unwanted, wanted = (launch(tmp_path, "true", image=registry.image) for _ in range(2))
        starts = [asyncio.create_task(executor.start(spec)) for spec in (unwanted, wanted)]
        await registry.asked.wait()
        await executor.abandon(unwanted.key)
        with pytest.raises(LaunchFailed):
            await starts[0]
        registry.go_on.set()
        with pytest.raises(LaunchFailed, match='"true"'):  # the image arrived, and has no program at all
            await starts[1]


@pytest.mark.parametrize(
    ("image", "words"),
    [("127.0.0.1:9/no/such:1", "connection refused"), ("No Such", "invalid reference format"), ("", "names no image")],
)
async def test_an_image_that_cannot_be_had(executor: DockerExecutor, tmp_path: Path, image: str, words: str) -> None:
    """No registry, no such image, no name at all: each is a failed launch, told in one line."""
    with pytest.raises(LaunchFailed, match=words) as caught:
        await executor.start(launch(tmp_path, image=image))
    assert "\n" not in str(caught.value)


# --- limits ---


async def test_limits_are_applied(
    engine: TestEngine, executor: DockerExecutor, agent_id: AgentId, tmp_path: Path
) -> None:
    """CPU, memory without swap and the number of processes are limited as the kernel sees it, and the log in size."""
    spec = launch(tmp_path, "sleep", "1000", limits=Limits(cpus_milli=500, memory_bytes=64 * MIB))
    await executor.start(spec)
    host = inspect(engine, agent_id, spec.key)["HostConfig"]
    assert isinstance(host, dict)
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (64 * MIB, 64 * MIB, container.PIDS_MAX)
    assert host["LogConfig"]["Type"] == "local"
    found = str(inspect(engine, agent_id, spec.key)["Id"])
    assert (_group("cpu", found) / "cpu.cfs_quota_us").read_text().strip() == "50000"
    assert (_group("memory", found) / "memory.limit_in_bytes").read_text().strip() == str(64 * MIB)
    assert (_group("pids", found) / "pids.max").read_text().strip() == str(container.PIDS_MAX)


def _group(kind: str, name: str) -> Path:
    (path,) = Path("/sys/fs/cgroup", kind).glob(f"*/{name}")
    return path


async def test_more_cpus_than_there_are(executor: DockerExecutor, tmp_path: Path) -> None:
    """A task that may use more CPUs than the box has is not refused by the engine."""
    assert (await run(executor, launch(tmp_path, limits=Limits(cpus_milli=1_000_000)))).code == 0


async def test_out_of_memory_is_told(executor: DockerExecutor, tmp_path: Path) -> None:
    """A container that reaches its memory limit ends with reason MEMORY, whoever of it the kernel killed."""
    spec = shell(tmp_path, "sleep 0.3; exec tail /dev/zero", limits=Limits(memory_bytes=16 * MIB))
    exit_ = await run(executor, spec)
    assert (exit_.reason, exit_.signal) == (ExitReason.MEMORY, signal.SIGKILL)
    assert "memory limit" in exit_.message


async def test_a_killed_container_is_not_out_of_memory(executor: DockerExecutor, tmp_path: Path) -> None:
    """SIGKILL alone is no sign of a memory limit."""
    exit_ = await run(
        executor, shell(tmp_path, "kill -KILL $$; sleep 1; exit 137", limits=Limits(memory_bytes=64 * MIB))
    )
    assert (exit_.reason, exit_.signal) == (ExitReason.ENDED, signal.SIGKILL)


async def test_the_sandbox_quota(executor: DockerExecutor, tmp_path: Path) -> None:
    """A container whose sandbox outgrows its quota is killed and reported with reason DISK."""
    mount = Mount("/mnt/mesos/sandbox", str(tmp_path), read_only=False, named=False)
    script = "head -c 3000000 /dev/zero > /mnt/mesos/sandbox/big; sleep 1000"
    exit_ = await run(executor, shell(tmp_path, script, mounts=(mount,), limits=Limits(disk_bytes=1_000_000)))
    assert exit_.reason is ExitReason.DISK
    assert "1000000 are allowed" in exit_.message


# --- surroundings ---


async def test_the_environment(executor: DockerExecutor, tmp_path: Path) -> None:
    """The task's variables go beside the image's, and win over them."""
    env = (("NAME", "ä = b"), ("FROM_IMAGE", "no"), ("EMPTY", ""))
    lines = (await run(executor, launch(tmp_path, "env", env=env))).tail.splitlines()
    assert {"NAME=ä = b", "FROM_IMAGE=no", "EMPTY=", "PATH=/bin"} <= set(lines)


async def test_ports_are_reached(engine: TestEngine, executor: DockerExecutor, tmp_path: Path) -> None:
    """A mapped port of the box leads to the container; one that is taken fails the launch and leaves nothing."""
    ports = (PortMapping(31_000, 80, "tcp"), PortMapping(31_001, 53, "udp"))
    spec = shell(tmp_path, "echo up; echo hello | nc -l -p 80; sleep 1000", network="bridge", ports=ports)
    await started(executor, spec)
    with engine.connect(31_000) as connection:
        assert await asyncio.to_thread(connection.recv, 100) == b"hello\n"
    taken = launch(tmp_path, "true", network="bridge", ports=ports[:1])
    with pytest.raises(LaunchFailed, match="31000"):
        await executor.start(taken)
    assert [handle.key for handle in (await executor.inspect()).held] == [spec.key]
    for network in ("host", "none"):
        with pytest.raises(LaunchFailed, match="port mappings need"):
            await executor.start(launch(tmp_path, network=network, ports=ports))


async def test_volumes(engine: TestEngine, executor: DockerExecutor, tmp_path: Path) -> None:
    """Directories and files of the box and volumes of the engine are mounted, read-only where that is said."""
    (tmp_path / "in:put").write_text("from the box\n")
    mounts = (
        Mount("/input", str(tmp_path / "in:put"), read_only=True, named=False),
        Mount("/output", str(tmp_path), read_only=False, named=False),
        Mount("/kept", "edgerm-test-kept", read_only=False, named=True),
    )
    script = "cat /input > /output/copy; echo kept >> /kept/file; echo no >> /input"
    exit_ = await run(executor, shell(tmp_path, script, mounts=mounts))
    assert exit_.code == 1
    assert "Read-only" in exit_.tail
    assert (tmp_path / "copy").read_text() == "from the box\n"
    assert (await run(executor, launch(tmp_path, "cat", "/kept/file", mounts=mounts[2:]))).tail == "kept\n"
    await executor.end_tasks()
    with engine.client() as client:
        client.remove_volume("edgerm-test-kept")
    missing = Mount("/x", str(tmp_path / "missing"), read_only=True, named=False)
    with pytest.raises(LaunchFailed, match="missing"):
        await executor.start(launch(tmp_path, mounts=(missing,)))


async def test_networks(engine: TestEngine, executor: DockerExecutor, tmp_path: Path) -> None:
    """Host, bridge, none and a network of the engine are each what they say; one that is not there fails the launch."""
    links = {}
    with engine.client() as client:
        client.create_network("edgerm-test-net", driver="bridge")
        try:
            for network in ("host", "bridge", "none", "edgerm-test-net"):
                links[network] = (
                    await run(executor, shell(tmp_path, "ls /sys/class/net", network=network))
                ).tail.split()
            await executor.end_tasks()
        finally:
            client.remove_network("edgerm-test-net")
    assert "docker0" in links["host"]
    assert links["bridge"] == links["edgerm-test-net"] == ["eth0", "lo"]
    assert links["none"] == ["lo"]
    for network, words in (("no-such-net", "no-such-net"), ("container:x", "no name of a network")):
        with pytest.raises(LaunchFailed, match=words):
            await executor.start(launch(tmp_path, network=network))
    assert (await executor.inspect()).held == ()


async def test_labels_name_the_task(
    engine: TestEngine, executor: DockerExecutor, agent_id: AgentId, tmp_path: Path
) -> None:
    """A container says whose it is with its full key, and no parameter can make it another's."""
    spec = launch(tmp_path, "sleep", "1000", parameters=(("label", "a=b=c"),))
    await executor.start(spec)
    (found,) = containers_of(engine, f"{container.AGENT}={agent_id}")
    assert container.key_of(found["Labels"]) == spec.key
    assert found["Labels"]["a"] == "b=c"
    with pytest.raises(LaunchFailed, match="edgerm"):
        await executor.start(launch(tmp_path, parameters=(("label", "edgerm.task=another"),)))


async def test_parameters_reach_the_engine(executor: DockerExecutor, tmp_path: Path) -> None:
    """Options of `docker run` have the effect that they have there."""
    given = {
        "hostname": "named", "workdir": "/tmp", "env": "EXTRA=1", "tmpfs": "/scratch:size=1m", "read-only": "true",
        "add-host": "other:192.0.2.1", "ulimit": "nofile=77:99", "entrypoint": "/bin/sh", "init": "false",
    }  # fmt: skip
    script = "hostname; pwd; echo $EXTRA; ulimit -n; grep -c other /etc/hosts; touch /scratch/x; touch /y; id -u"
    exit_ = await run(executor, launch(tmp_path, "-c", f"({script}) 2>&1", parameters=tuple(given.items())))
    assert exit_.tail == "named\n/tmp\n1\n77\n1\ntouch: /y: Read-only file system\n0\n"


async def test_rights_need_the_operators_word(engine: TestEngine, executor: DockerExecutor, tmp_path: Path) -> None:
    """Parameters that give rights over the box are refused unless the operator allows them; then they work."""
    spec = shell(tmp_path, "grep CapEff /proc/self/status", parameters=(("cap-add", "NET_ADMIN"),))
    with pytest.raises(LaunchFailed, match=r"executors\.docker\.privileged"):
        await executor.start(spec)
    with pytest.raises(LaunchFailed, match=r"known are: .*add-host"):
        await executor.start(launch(tmp_path, parameters=(("volume", "/:/host"),)))
    async with executing(engine, privileged=True) as trusted:
        assert (await run(trusted, spec)).tail.split()[-1][-4] in "13579bdf"


# --- ends, output ---


async def test_the_stop_signal_comes_first(executor: DockerExecutor, tmp_path: Path) -> None:
    """A container ends by itself on the signal that it wants; a later stop with less grace brings SIGKILL earlier."""
    script = "trap 'echo bye; exit 7' USR1; echo up; while :; do sleep 0.05; done"
    handle, _ = await started(executor, shell(tmp_path, script, parameters=(("stop-signal", "SIGUSR1"),)))
    async with asyncio.timeout(DEADLINE_S):
        await executor.stop(handle, DEADLINE_S * 2)
        exit_ = await executor.wait(handle)
        assert (exit_.code, exit_.tail) == (7, "up\nbye\n")
        handle, _ = await started(executor, shell(tmp_path, "trap '' TERM; echo up; while :; do sleep 0.05; done"))
        await executor.stop(handle, DEADLINE_S * 10)
        await executor.stop(handle, 0.05)
        await executor.stop(handle, DEADLINE_S * 10)
        assert (await executor.wait(handle)).signal == signal.SIGKILL


async def test_long_output_is_read_whole(executor: DockerExecutor, tmp_path: Path) -> None:
    """Output larger than any buffer is read in pieces, in order, once, while the container runs and after its end."""
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i of the output; i=$((i+1)); done; echo end >&2; sleep 1000"
    handle = await executor.start(shell(tmp_path, script))
    wanted = "".join(f"line {i} of the output\n" for i in range(20_000)).encode()
    got = b""
    async with asyncio.timeout(DEADLINE_S):
        while len(got) < len(wanted):
            chunk = await executor.output(handle, "stdout", len(got), 30_000, DEADLINE_S)
            assert (chunk.offset, chunk.ended) == (len(got), False)
            got += chunk.data
        assert got == wanted
        end = await executor.output(handle, "stdout", -10, 100, 0)
        assert (end.offset, end.data, end.ended) == (len(wanted) - 10, wanted[-10:], False)
        await executor.stop(handle, 0)
        await executor.wait(handle)
        again = await executor.output(handle, "stdout", 0, 1 << 20, 0)
        rest = await executor.output(handle, "stdout", len(again.data), 1 << 20, 0)
    assert again.data + rest.data == wanted
    assert rest.ended


async def test_a_log_is_bounded(engine: TestEngine, tmp_path: Path) -> None:
    """The engine keeps the end of a container's output within the size that the operator set, about."""
    async with executing(engine, log_bytes=40_000) as executor, asyncio.timeout(DEADLINE_S):
        script = "i=0; while [ $i -lt 20000 ]; do echo line $i of the output; i=$((i+1)); done"
        handle = await executor.start(shell(tmp_path, script))
        await executor.wait(handle)
        chunk = await executor.output(handle, "stdout", 0, 1 << 20, 0)
    assert len(chunk.data) < 80_000
    assert chunk.data.endswith(b"line 19999 of the output\n")


async def test_usage_is_measured(executor: DockerExecutor, tmp_path: Path) -> None:
    """CPU time grows with the work, memory is that of the container."""
    handle, _ = await started(executor, shell(tmp_path, "echo up; while :; do :; done"))
    async with asyncio.timeout(DEADLINE_S):
        while (usage := await executor.usage(handle)) is None or usage.cpu_s < 0.2:
            await asyncio.sleep(0.02)
    assert 0 < usage.memory_bytes < 64 * MIB


async def test_a_container_that_somebody_removes(
    engine: TestEngine, executor: DockerExecutor, agent_id: AgentId, tmp_path: Path
) -> None:
    """A task whose container is removed behind our back has ended, and can be released."""
    handle = await executor.start(launch(tmp_path, "sleep", "1000"))
    with engine.client() as client:
        client.remove_container(container.name_of(agent_id, handle.key), force=True)
    async with asyncio.timeout(DEADLINE_S):
        assert (await executor.wait(handle)).reason is ExitReason.EXECUTOR_DIED
        with pytest.raises(NotFound):
            await executor.output(handle, "stdout", 0, 100, 0)
        await executor.release(handle)
    assert not await executor.adopt(handle)


async def test_a_container_that_somebody_restarts(
    engine: TestEngine, executor: DockerExecutor, agent_id: AgentId, tmp_path: Path
) -> None:
    """A container that is started again after its end was told is no task any more: it goes with the task's release."""
    handle, _ = await started(executor, shell(tmp_path, "echo up; trap 'exit 4' TERM; while :; do sleep 0.05; done"))
    name = container.name_of(agent_id, handle.key)
    with engine.client() as client:
        client.kill(name, "SIGTERM")
        async with asyncio.timeout(DEADLINE_S):
            exit_ = await executor.wait(handle)
            assert exit_.code == 4
            client.start(name)
            assert await executor.wait(handle) == exit_
            await executor.release(handle)
        assert list(containers_of(engine, f"{container.AGENT}={agent_id}")) == []


async def test_a_name_that_is_taken_is_not_ours(
    engine: TestEngine, executor: DockerExecutor, agent_id: AgentId, tmp_path: Path
) -> None:
    """A container of somebody else that has a task's name is neither used nor removed."""
    spec = launch(tmp_path, "sleep", "1000")
    with engine.client() as client:
        made = client.create_container(IMAGE, name=container.name_of(agent_id, spec.key))
        try:
            with pytest.raises(LaunchFailed, match="already in use"):
                await executor.start(spec)
            assert not await executor.adopt(Handle(spec.key, "docker", await executor.instance()))
        finally:
            client.remove_container(made["Id"])


async def test_a_false_report_of_an_end(executor: DockerExecutor, tmp_path: Path) -> None:
    """A container that runs has not ended, whatever was told of it: its end is still awaited, and told right."""
    handle, _ = await started(executor, shell(tmp_path, "echo up; trap 'exit 4' TERM; while :; do sleep 0.05; done"))
    key = handle.key
    labels = {container.FRAMEWORK: key.framework_id, container.TASK: key.task_id, container.LAUNCH: key.launch_id}
    executor._happened({"Action": "die", "Actor": {"Attributes": labels}})
    waiting = asyncio.create_task(executor.wait(handle))
    async with asyncio.timeout(DEADLINE_S):
        while executor._held[key].ended.is_set():
            await asyncio.sleep(0.02)
        assert not waiting.done()
        await executor.stop(handle, DEADLINE_S)
        assert (await waiting).code == 4
