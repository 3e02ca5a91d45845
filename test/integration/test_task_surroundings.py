"""What a task finds around it, and what its framework hears of its end: real master, agent, keeper, host and SDK."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.processes import running_box

from edgerm.core.tasks import Reason, TaskState
from edgerm.sdk import connect
from edgerm.sdk.cluster import TaskOptions

DEADLINE_S = 60
MODULES = Path(__file__).parents[1] / "fixtures/wasm"
RESOURCES = "cpus:8;mem:4096;disk:4096;ports:[31000-31001,31005-31005]"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOOK = "tr '\\0' '\\n' < /proc/$$/environ; echo; umask; pwd -P; echo ok > made"
BAD_BYTES = "head -c 100000 /dev/zero | tr '\\0' '\\377' >&2; head -c 3000 /dev/zero | tr '\\0' x >&2; exit 9"


async def test_a_task_finds_what_was_promised_and_nothing_of_the_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kinds have the EDGERM_* names, a fixed PATH and what the task sets; a process its sandbox and umask 022."""
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "leaks")
    monkeypatch.setenv("PATH", f"/somewhere/else:{PATH}")
    own = {"COLOUR": "blue", "EDGERM_AGENT_ID": "forged"}
    async with asyncio.timeout(DEADLINE_S), running_box(tmp_path, RESOURCES) as box, connect(box.url) as cluster:
        surroundings = MODULES / "surroundings.wasm"
        module = await cluster.run(wasm=surroundings, args=["a", "b c"], env=own, name="look", ports=3)
        process = await cluster.run(process=["sh", "-c", LOOK], env=own, ports=2)
        expected = {
            f"PATH={PATH}",
            "COLOUR=blue",
            f"EDGERM_FRAMEWORK_ID={cluster.framework_id}",
            f"EDGERM_AGENT_ID={box.agent_id}",
        }
        told = module.output.decode().split("\0")
        assert told[:3] == ["look", "a", "b c"]
        assert sorted(told[3:]) == sorted(
            ["", *expected, f"EDGERM_TASK_ID={module.task_id}", "EDGERM_PORTS=31000-31001,31005"]
        )
        environment, _, rest = process.output.decode().partition("\n\n")
        assert sorted(environment.split("\n")) == sorted(
            [*expected, f"EDGERM_TASK_ID={process.task_id}", "EDGERM_PORTS=31000-31001"]
        )
        umask, folder = rest.splitlines()
        assert umask == "0022"
        assert (Path(folder) / "made").read_text() == "ok\n"
        assert Path(folder).parent in box.sandboxes()


@dataclass(frozen=True)
class End:
    """A task, and what is told of its end."""

    options: TaskOptions
    state: TaskState
    reason: Reason | None
    exit_code: int | None = None
    signal: int | None = None
    trap: str = ""
    tail: str = ""  # what it ends with
    message: str = ""  # what is in it


def process(script: str) -> TaskOptions:
    """A task that is a script."""
    return {"process": ["sh", "-c", script]}


def module(name: str, *args: str) -> TaskOptions:
    """A task that is a module."""
    return {"wasm": MODULES / f"{name}.wasm", "args": args}


FAILED, FINISHED = TaskState.FAILED, TaskState.FINISHED
COMMAND, LAUNCH = Reason.COMMAND_EXECUTOR_FAILED, Reason.CONTAINER_LAUNCH_FAILED
ENDS = [
    End(process("echo out; echo last words >&2; exit 3"), FAILED, COMMAND, 3, tail="last words\n", message="code 3"),
    End(process("echo only out"), FINISHED, None, 0, tail="only out\n", message="code 0"),
    End(process("echo bye; kill -SEGV $$"), FAILED, COMMAND, None, signal.SIGSEGV, tail="bye\n", message="SIGSEGV"),
    End(process(BAD_BYTES), FAILED, COMMAND, 9, tail="x" * 3000, message="code 9"),
    End({"process": ["/no/such/program"]}, FAILED, LAUNCH, message="/no/such/program"),
    End(module("say", "7", "out", "err"), FAILED, COMMAND, 7, tail="err", message="code 7"),
    End(module("say", "0", "out"), FINISHED, None, 0, tail="out"),
    End(module("trap"), FAILED, COMMAND, trap="unreachable", message="unreachable"),
    End(module("no_start"), FAILED, LAUNCH, message="_start"),
]


async def test_a_framework_hears_how_its_tasks_ended(tmp_path: Path) -> None:
    """State, reason, exit code, signal, trap and the output's tail arrive, and the message sums them up."""
    async with asyncio.timeout(DEADLINE_S), running_box(tmp_path, RESOURCES) as box, connect(box.url) as cluster:
        results = await asyncio.gather(*(cluster.run(**end.options) for end in ENDS))
        for status, end in zip([result.status for result in results], ENDS, strict=True):
            told = (status.state, status.reason, status.exit_code, status.signal)
            assert told == (end.state, end.reason, end.exit_code, end.signal), status
            assert end.trap in status.trap, status
            assert bool(end.trap) == bool(status.trap), status
            assert status.output_tail.endswith(end.tail), status
            assert len(status.output_tail.encode()) <= 4096
            assert end.message in status.message, status
