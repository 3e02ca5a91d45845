"""An agent on real parts: real master, keeper, WASM host, processes and modules, over loopback HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from support.agent import FACES, OURSELVES, agent_here, agent_process, gone, url_of
from support.master import Framework, Json, running_master, status_of, task

from edgerm_agent import blobs
from edgerm_agent.running import Running
from edgerm_master.main import Served

DEADLINE_S = 30
MODULES = Path(__file__).parents[1] / "fixtures" / "wasm"


@pytest_asyncio.fixture(params=FACES)
async def agent(request: pytest.FixtureRequest, tmp_path: Path, master: Served) -> AsyncIterator[Running]:
    """An agent of that master, in this process, over each face of the link."""
    async with agent_here(tmp_path / "agent", url_of(master, request.param)) as running:
        yield running


@pytest_asyncio.fixture
async def framework(master: Served, agent: Running) -> AsyncIterator[Framework]:
    """A framework that holds no offer yet."""
    async with Framework(master.url) as framework:
        yield framework


async def put(master: Served, data: bytes) -> Json:
    """Put a blob to the master; as TaskInfo names it."""
    digest = hashlib.sha256(data)
    async with (
        aiohttp.ClientSession() as http,
        http.put(f"{master.url}/artifacts/{digest.hexdigest()}", data=data) as answer,
    ):
        assert answer.status in (200, 201)
    return {"sha256": base64.b64encode(digest.digest()).decode(), "size_bytes": len(data)}


async def launched(framework: Framework, task_id: str, **more: object) -> Json:
    """Launch; the first status, acknowledged."""
    async with asyncio.timeout(DEADLINE_S):
        offer = await framework.offer()
    assert await framework.launch(offer, task(offer, task_id, **more)) == 202  # type: ignore[arg-type]
    return await status_of(framework)


async def ended(framework: Framework, task_id: str, **more: object) -> Json:
    """Launch; the status in which the task ends."""
    status = await launched(framework, task_id, **more)
    while status["state"] in ("TASK_RUNNING", "TASK_KILLING"):
        status = await status_of(framework)
    return status


@asynccontextmanager
async def waiting_task(framework: Framework, agent: Running, code: int) -> AsyncIterator[Path]:
    """A process task that runs until somebody opens the FIFO for writing, then exits with `code`."""
    await framework.call("REVIVE")
    status = await launched(
        framework, "waits", command={"value": f"mkfifo fifo; echo up; read line < fifo; exit {code}"}
    )
    assert status["state"] == "TASK_RUNNING"
    handle = next(task.run.handle for task in agent.shell.core.tasks.values() if task.run.handle)
    await agent.roster.executors["process"].output(handle, "stdout", 0, 10, DEADLINE_S)
    yield next(Path(f"/proc/{handle.pid}/cwd").glob("fifo")).resolve()


def wasm(module: Json, **more: object) -> Json:
    """A container that runs this module."""
    return {"type": "MESOS", "wasm": {"module": module, **more}}


async def test_a_process_task(framework: Framework, agent: Running) -> None:
    """A process task runs in a sandbox of its own with a bare environment, and is told with exit code and tail."""
    os.environ["EDGERM_SECRET_OF_TEST"] = "leaks"
    try:
        offer = await framework.offer()
        status = await ended_of(
            framework,
            offer,
            {
                **task(offer, "t1"),
                "resources": [
                    {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
                    {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31002, "end": 31003}]}},
                ],
                "command": {
                    "value": "env | sort; umask; pwd; exit 3",
                    "environment": {
                        "variables": [
                            {"name": "COLOUR", "value": "blue"},
                            {"name": "EDGERM_TASK_ID", "value": "somebody else"},
                        ]
                    },
                },
            },
        )
    finally:
        del os.environ["EDGERM_SECRET_OF_TEST"]
    assert (status["state"], status["exit_code"]) == ("TASK_FAILED", 3)
    assert status["reason"] == "REASON_COMMAND_EXECUTOR_FAILED"
    lines = status["output_tail"].splitlines()
    assert lines[:6] == [
        "COLOUR=blue",
        f"EDGERM_AGENT_ID={agent.agent_id}",
        f"EDGERM_FRAMEWORK_ID={framework.framework_id}",
        "EDGERM_PORTS=31002-31003",
        "EDGERM_TASK_ID=t1",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    assert lines[6].startswith("PWD=")
    assert (lines[7], len(lines)) == ("0022", 9)
    assert "/agent/sandboxes/" in lines[8]


async def ended_of(framework: Framework, offer: Json, message: Json) -> Json:
    """Launch this TaskInfo; the second status."""
    assert await framework.launch(offer, message) == 202
    assert (await status_of(framework))["state"] == "TASK_RUNNING"
    return await status_of(framework)


async def test_a_wasm_task(framework: Framework, master: Served) -> None:
    """A module that the agent lacks is fetched, gets arguments and input, and its exit code is told."""
    module = await put(master, (MODULES / "say.wasm").read_bytes())
    status = await ended(
        framework, "w1", container=wasm(module), command={"shell": False, "arguments": ["say", "7", "out", "err"]}
    )
    assert (status["state"], status["exit_code"], status["output_tail"]) == ("TASK_FAILED", 7, "err")
    await framework.call("REVIVE")
    echo, text = await put(master, (MODULES / "echo.wasm").read_bytes()), await put(master, b"the input\n" * 10)
    status = await ended(framework, "w2", container=wasm(echo), command={"shell": False}, input=text)
    assert (status["state"], status["output_tail"]) == ("TASK_FINISHED", "the input\n" * 10)


async def test_a_big_task_info_travels_as_a_blob(framework: Framework) -> None:
    """A TaskInfo above the inline bound reaches the task whole."""
    variables = [{"name": f"N{number}", "value": "x" * 100} for number in range(100)]
    status = await ended(
        framework, "big", command={"value": "env | grep -c ^N", "environment": {"variables": variables}}
    )
    assert (status["state"], status["output_tail"]) == ("TASK_FINISHED", "100\n")


async def test_a_kill_waits_for_the_grace(framework: Framework, agent: Running) -> None:
    """A killed task is asked first, and is told as TASK_KILLED although it then exits with 0."""
    script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 1000 & wait; done"
    status = await launched(framework, "k1", command={"value": script})
    handle = next(task.run.handle for task in agent.shell.core.tasks.values() if task.run.handle)
    await agent.roster.executors["process"].output(handle, "stdout", 0, 10, DEADLINE_S)
    assert await framework.call("KILL", task_id=status["task_id"], agent_id=status["agent_id"]) == 202
    while (status := await status_of(framework))["state"] == "TASK_KILLING":
        pass
    assert (status["state"], status["exit_code"]) == ("TASK_KILLED", 0)
    assert status["output_tail"].endswith("asked\n")


async def test_an_endless_module_is_killed(framework: Framework, master: Served) -> None:
    """A module that never ends is ended by a kill."""
    module = await put(master, (MODULES / "endless.wasm").read_bytes())
    status = await launched(framework, "e1", container=wasm(module), command={"shell": False})
    assert await framework.call("KILL", task_id=status["task_id"], agent_id=status["agent_id"]) == 202
    while (status := await status_of(framework))["state"] == "TASK_KILLING":
        pass
    assert status["state"] == "TASK_KILLED"


async def test_a_program_that_is_missing(framework: Framework) -> None:
    """A command that does not exist is told as a failed launch that names it, and never as running."""
    status = await launched(framework, "m1", command={"shell": False, "value": "/no/such/program"})
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED")
    assert "/no/such/program" in status["message"]


@pytest.mark.parametrize("harm", ["missing", "corrupted"])
async def test_a_blob_that_cannot_be_had(
    framework: Framework, master: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """A module that the master lost, or that came with other bytes, fails the task, and the message names the blob."""
    monkeypatch.setattr(blobs, "RETRY_FIRST_S", 0.001)
    data = (MODULES / "say.wasm").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    module: Json = {"sha256": base64.b64encode(bytes.fromhex(digest)).decode(), "size_bytes": len(data)}
    if harm == "corrupted":
        await put(master, data)
        next((tmp_path / "master").rglob(digest)).write_bytes(bytes(len(data)))
    status = await launched(framework, "b1", container=wasm(module), command={"shell": False})
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED")
    assert digest in status["message"]


@pytest.mark.parametrize("holder", ["keeper", "wasm-host"])
async def test_what_holds_a_task_is_killed(
    framework: Framework, master: Served, agent: Running, tmp_path: Path, holder: str
) -> None:
    """When the keeper or the WASM host dies, its task fails as EXECUTOR_TERMINATED, and the next task runs again."""
    module = await put(master, (MODULES / "endless.wasm").read_bytes())
    echo = await put(master, (MODULES / "echo.wasm").read_bytes())
    runs: Json = {"keeper": {"command": {"value": "exec sleep 1000"}}}
    ends: Json = {"keeper": {"command": {"value": "true"}}}
    runs["wasm-host"] = {"command": {"shell": False}, "container": wasm(module)}
    ends["wasm-host"] = {"command": {"shell": False}, "container": wasm(echo)}
    assert (await launched(framework, "x1", **runs[holder]))["state"] == "TASK_RUNNING"
    pid = next(task.run.handle.pid for task in agent.shell.core.tasks.values() if task.run.handle)
    os.kill(int((tmp_path / "agent" / f"{holder}.lock").read_text()), signal.SIGKILL)
    status = await status_of(framework)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_EXECUTOR_TERMINATED")
    if pid is not None and holder == "keeper":
        await gone(pid)
    await framework.call("REVIVE")
    assert (await ended(framework, "x2", **ends[holder]))["state"] == "TASK_FINISHED"


async def test_the_master_is_away_when_a_task_ends(tmp_path: Path) -> None:
    """A task that ends while no master is there is told, with its exit code, to the framework that comes back."""
    async with asyncio.timeout(DEADLINE_S), running_master(tmp_path) as first:
        url = first.url
        framework = Framework(url, info={"failover_timeout": 1000.0})
        agent_block = agent_here(tmp_path / "agent", url)
        agent = await agent_block.__aenter__()
        await framework.__aenter__()
        task_block = waiting_task(framework, agent, 5)
        fifo = await task_block.__aenter__()
    try:
        async with asyncio.timeout(DEADLINE_S):
            handle = next(task.run.handle for task in agent.shell.core.tasks.values() if task.run.handle)
            assert handle.pid is not None
            fifo.write_text("go\n")
            await gone(handle.pid)
            async with running_master(tmp_path, http=url.removeprefix("http://")):
                await framework.subscribe()
                status = await status_of(framework)
        assert (status["state"], status["exit_code"]) == ("TASK_FAILED", 5)
    finally:
        await framework.__aexit__()
        await agent_block.__aexit__(None, None, None)


async def test_only_users_of_the_list_count(tmp_path: Path, master: Served) -> None:
    """A task that asks for a user whom the operator does not list fails, saying where; for the agent's own it runs."""
    async with agent_here(tmp_path / "agent", master.url), Framework(master.url) as framework:
        status = await ended(framework, "u1", command={"value": "id -un", "user": OURSELVES})
        assert (status["state"], status["output_tail"]) == ("TASK_FINISHED", f"{OURSELVES}\n")
        status = await ended(framework, "u2", command={"value": "id -un", "user": "nobody"})
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED")
    assert "user 'nobody', whom executors.process.users of this agent does not name" in status["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: tasks run as another user")
async def test_a_listed_user_reaches_its_sandbox(tmp_path: Path, master: Served) -> None:
    """A task may ask for a user of the list, owns its sandbox, reaches it by its path, and reads nothing of ours."""
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    (tmp_path / "agent.toml").write_text('[executors.process]\nusers = ["nobody"]\n')
    script = 'id -un; echo x > "$PWD/f" && cat "$PWD/f"; stat -c %U .; cat ../../../journal.db; ls ../..'
    agent = agent_process(tmp_path / "agent", master.url, f"--config={tmp_path / 'agent.toml'}")
    async with agent, Framework(master.url) as framework:
        status = await ended(framework, "u1", command={"value": f"({script}) 2>/dev/null", "user": "nobody"})
    assert status["output_tail"] == "nobody\nx\nnobody\n", status


async def test_output_is_read_through_the_master(framework: Framework, master: Served, agent: Running) -> None:
    """A task's output is read through the master while it runs, and again when it has ended."""
    async with waiting_task(framework, agent, 0) as fifo:
        assert await read_log(master, follow=False) == b"up\n"
        fifo.write_text("go\n")
    assert (await status_of(framework))["state"] == "TASK_FINISHED"
    assert await read_log(master, follow=True) == b"up\n"


async def read_log(master: Served, *, follow: bool) -> bytes:
    """The standard output of the one task, as the master gives it."""
    call = {"type": "READ_LOG", "read_log": {"task_id": {"value": "waits"}, "stream": "STDOUT", "follow": follow}}
    data = b""
    async with aiohttp.ClientSession() as http, http.post(f"{master.url}/api/v1/edgerm", json=call) as answer:
        assert answer.status == 200, await answer.text()
        while line := await answer.content.readline():
            record = json.loads(await answer.content.readexactly(int(line)))["read_log"]
            data += base64.b64decode(record.get("data", ""))
    return data


async def test_health_and_version(agent: Running) -> None:
    """The agent answers on loopback that it lives, and which version it is, at the port that it told the master."""
    url = f"http://127.0.0.1:{agent.shell.core.spec.port}"
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/health") as answer:
            assert answer.status == 200
        async with http.get(f"{url}/version") as answer:
            assert set(await answer.json()) == {"version", "edgerm_version"}
