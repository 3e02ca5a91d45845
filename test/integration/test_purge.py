"""`edgerm agent --purge` on real parts: what a stopped agent left ends and goes, and nothing else."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from support.agent import agent_process, gone
from support.containers import containers_of, executing, launch, new_agent, started
from support.engine import IMAGE, TestEngine
from support.master import running_master
from support.processes import processes_of

from edgerm.core.claims import Granted
from edgerm.core.errors import Conflict, Invalid
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.sdk import Cluster
from edgerm.sdk import framework as spec
from edgerm_agent.cgroups import open_cgroups
from edgerm_agent.config import Config
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.executors.docker import container, idle_program
from edgerm_agent.purge import Found, give_back
from edgerm_agent.purge import purge as run_purge
from edgerm_master.main import Served

DEADLINE_S = 60
COMMAND = (sys.executable, "-c", "from edgerm.cli.entry import main; main()", "agent", "--purge")
SLEEPER = Path(__file__).parents[1] / "fixtures" / "wasm" / "sleep.wasm"


async def purge(data_dir: Path, *args: str) -> tuple[int, str]:
    """Run the command; status and what it says."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        f"--data-dir={data_dir}",
        *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def purge_here(data_dir: Path, **settings: object) -> tuple[int, str]:
    """The same in this process; 2 for a directory that is no agent's, as the command has it."""
    said: list[str] = []

    def agreed(found: Found) -> bool:
        said.append(str(found))
        return True

    config = msgspec.convert({"data_dir": str(data_dir), **settings}, Config)
    try:
        return await asyncio.to_thread(run_purge, config, agreed, said.append), "\n".join(said)
    except Invalid as error:
        return 2, str(error)


async def run_tasks(master: Served, *wishes: Mapping[str, object]) -> None:
    """Let tasks run that outlive this call."""
    cluster = await Cluster(master.url, spec("purge", failover_timeout_s=1000)).__aenter__()
    try:
        handles = [await cluster.launch(**wish) for wish in wishes]  # type: ignore[arg-type]
        for handle in handles:
            status = await asyncio.wait_for(handle.started(), DEADLINE_S)
            assert status.state.name == "RUNNING", status
    finally:
        await cluster.close()


def entries(data_dir: Path) -> list[str]:
    """What lies in a directory."""
    return sorted(path.name for path in data_dir.iterdir())


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Path]:
    """A file that is not the agent's."""
    path = tmp_path / "precious"
    path.write_text("not the agent's\n")
    yield path
    assert path.read_text() == "not the agent's\n"


async def test_what_runs_ends_and_the_next_start_is_a_new_agent(master: Served, tmp_path: Path, stranger: Path) -> None:
    """A process, a WASM module and what holds them end, all data go but the lock; links are not followed."""
    data_dir, pid_file = tmp_path / "agent", tmp_path / "pid"
    async with agent_process(data_dir, master.url) as agent:
        script = f"ln -s {stranger} link; ln -s {tmp_path} folder; mkdir shut; chmod 0 shut; echo $$ > {pid_file}"
        await run_tasks(
            master,
            {"process": ["sh", "-c", f"{script}; exec sleep 1000"], "name": "p"},
            {"wasm": SLEEPER, "args": ["1000000"], "name": "w"},
        )
        first, holders = agent.agent_id, [agent.holder_pid("keeper"), agent.holder_pid("wasm-host")]
        with pytest.raises(Conflict, match=f"as process {agent.process.pid}"):
            await purge_here(data_dir)
        await agent.end()
        os.kill(int(pid_file.read_text()), 0)
        status, said = await purge(data_dir)
        assert (status, "say --yes" in said, first in said) == (2, True, True)
        assert "2 live tasks (process, wasm)" in said
        assert "2 sandboxes" in said
        os.kill(int(pid_file.read_text()), 0)
        (data_dir / "notes.txt").write_text("a person's\n")
        status, said = await purge(data_dir, "--yes")
        assert (status, "notes.txt" in said, f"edgerm drain {first} --gone" in said) == (0, True, True), said
        assert entries(data_dir) == ["lock", "notes.txt"]
        for pid in (*holders, int(pid_file.read_text())):
            await asyncio.wait_for(gone(pid), DEADLINE_S)
        assert open_cgroups(first[:8]).orphans(()) == []
        (data_dir / "notes.txt").unlink()
        assert await purge_here(data_dir) == (0, f"nothing to remove: {data_dir} has no agent's data")
        await agent.start()
        assert agent.agent_id != first


async def test_containers_go_too(
    engine: TestEngine, master: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's containers are removed, another agent's are not."""
    monkeypatch.setenv("EDGERM_EXECUTORS_DOCKER_SOCKET", engine.url)
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    async with agent_process(tmp_path / "agent", master.url) as agent, executing(engine, new_agent()) as stranger:
        handle, _ = await started(stranger, launch(sandbox, "sh", "-c", "echo runs; exec sleep 1000"))
        wish = {"docker": IMAGE, "args": ["sleep", "1000"], "network": "none", "name": "c"}
        await run_tasks(master, wish)
        await agent.end()
        assert len(list(containers_of(engine, f"{container.AGENT}={agent.agent_id}"))) == 1
        status, said = await purge_here(tmp_path / "agent", executors={"docker": {"socket": engine.url}})
        assert (status, "1 live tasks (docker)" in said) == (0, True), said
        assert list(containers_of(engine, f"{container.AGENT}={agent.agent_id}")) == []
        assert await stranger.adopt(handle)


async def test_the_image_of_holders_goes(engine: TestEngine, tmp_path: Path) -> None:
    """What was imported for containers that hold networks is removed, unless a container uses it; no other image is."""
    async with agent_process(tmp_path / "agent", "") as agent:
        await agent.end()
        settings = {"executors": {"docker": {"socket": engine.url}}}
        with engine.client() as client:
            for tag in ("used", "free"):
                client.import_image_from_data(idle_program.image("x86_64")[1], idle_program.NAME, tag)
            made = client.create_container(f"{idle_program.NAME}:used", ["/x"])["Id"]
            try:
                assert (await purge_here(tmp_path / "agent", **settings))[0] == 0
                left = {name for image in client.images() for name in image["RepoTags"] or ()}
            finally:
                client.remove_container(made)
                client.remove_image(f"{idle_program.NAME}:used")
    assert {name for name in left if name.startswith(idle_program.NAME)} == {f"{idle_program.NAME}:used"}
    assert IMAGE in left


async def test_devices_that_nobody_carries_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plugin that is gone for good nobody waits for anything; of one that cannot be made now that is told."""
    key = TaskKey(FrameworkId("f"), TaskId("t"), LaunchId("l"))
    chip = "siemens.com/gpio"
    grants = tuple(GrantRecord(key, name, (Granted(name, name, ("one",)),), "process") for name in ("x.io/gone", chip))
    found = Found(tmp_path, AgentId("a"), 0, frozenset(), 0, 0, 0, (), grants)
    assert await give_back(found, Config()) == []
    monkeypatch.setitem(sys.modules, "gpiod", None)
    chips = msgspec.convert({"devices": {"gpio": {"chips": [{"path": "/dev/no"}]}}}, Config)
    [line] = await give_back(found, chips)
    assert f"a device of {chip} of task 't'" in line
    assert "edgerm[gpio]" in line


async def test_a_killed_agent_leaves_nothing_else(tmp_path: Path) -> None:
    """Its socket, too, is one of its own things."""
    async with agent_process(tmp_path / "agent", "") as agent:
        await agent.end(kill=True)
        assert "agent.sock" in entries(tmp_path / "agent")
        status, said = await purge_here(tmp_path / "agent")
        assert (status, "what is not the agent's" in said) == (0, False), said
        assert entries(tmp_path / "agent") == ["lock"]


async def test_a_keeper_that_died_leaves_nothing(master: Served, tmp_path: Path) -> None:
    """Processes whose keeper was killed are found all the same."""
    data_dir, pid_file = tmp_path / "agent", tmp_path / "pid"
    async with agent_process(data_dir, master.url) as agent:
        await run_tasks(master, {"process": ["sh", "-c", f"echo $$ > {pid_file}; exec sleep 1000"], "name": "p"})
        await agent.end()
        keeper = agent.holder_pid("keeper")
        os.kill(keeper, 9)
        await asyncio.wait_for(gone(keeper), DEADLINE_S)
        assert (await purge_here(data_dir))[0] == 0
        await asyncio.wait_for(gone(int(pid_file.read_text())), DEADLINE_S)
        assert processes_of(data_dir) == {}


async def test_other_directories_are_left_alone(tmp_path: Path, stranger: Path) -> None:
    """No agent's directory, a master's, a link to one: refused and untouched; one that is not there: nothing to do."""
    foreign, link = tmp_path / "foreign", tmp_path / "link"
    foreign.mkdir()
    (foreign / "journal.db").write_text("a novel\n")
    (foreign / "sandboxes").mkdir()
    link.symlink_to(foreign)
    for path, why in ((foreign, "is no agent's data directory"), (link, "is a link"), (stranger, "something else has")):
        status, said = await purge_here(path)
        assert (status, why in said) == (2, True), said
    assert entries(foreign) == ["journal.db", "sandboxes"]
    assert (foreign / "journal.db").read_text() == "a novel\n"
    async with running_master(tmp_path):
        pass
    before = entries(tmp_path / "master")
    assert (await purge_here(tmp_path / "master"))[0] == 2
    assert entries(tmp_path / "master") == before
    assert (await purge_here(tmp_path / "nowhere"))[0] == 0
    assert not (tmp_path / "nowhere").exists()


async def test_what_cannot_be_removed_is_told_and_the_rest_can_be_repeated(master: Served, tmp_path: Path) -> None:
    """With something in the way the status is 1 and it is named; the journal stays, so the next purge finishes it."""
    data_dir = tmp_path / "agent"
    async with agent_process(data_dir, master.url) as agent:
        await agent.end()
        blocked = data_dir / "sandboxes" / "mounted"
        blocked.mkdir(parents=True)
        mount = await asyncio.create_subprocess_exec("mount", "--bind", str(tmp_path), str(blocked))
        if await mount.wait():
            pytest.skip("needs the right to mount: run as root")
        try:
            status, said = await purge_here(data_dir)
            assert (status, f"left: {blocked}: something is mounted there" in said) == (1, True), said
            assert "journal.db" in entries(data_dir)
        finally:
            await (await asyncio.create_subprocess_exec("umount", str(blocked))).wait()
        assert (await purge_here(data_dir))[0] == 0
        assert entries(data_dir) == ["lock"]
