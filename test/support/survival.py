"""An agent with devices that is killed at one step after another of one task's life, and what must hold all along.

Two tasks want the same devices. The first has them while its agent dies and starts anew, again and again, each time a
step later; the second waits, and gets them in the end. What does not live here: which devices a box has (the tests of
`integration` and `edgebox`), how an agent dies at a step (`support.dying_agent`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgerm.core.ids import AgentId
from edgerm.core.tasks import TaskState
from edgerm.sdk import Cluster, TaskHandle
from edgerm.sdk.claims import Claims
from edgerm.store.sqlite import SqliteStore
from edgerm.transport.local import ask
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.journal import JOURNAL, inspect
from support import dying_agent
from support.agent import OURSELVES, sweep

DEADLINE_S = 240.0
LOOK_S = 0.05
# A task says in a ledger when it begins and ends, and what it sees of its devices then.
TASK = """
say() {{ echo "{name} $1" >>{ledger}; }}
trap 'say ends; exit 0' TERM
{look} >>{ledger}.{name} 2>&1
say begins
{work}
"""
WAIT = "while :; do sleep 1000 & wait; done"


@dataclass(frozen=True, slots=True)
class Cut:
    """The agent dies at the first step that fits `at`; `ends`: once it runs, the first task is told to end."""

    at: str
    ends: bool = False


class DyingAgent:
    """One data directory, and one agent on it at a time, each with a cut. `async with`: at the end nothing runs."""

    def __init__(self, data_dir: Path, master: str, *flags: str) -> None:
        self.data_dir = data_dir
        self.agent_id = AgentId("")
        self.pid = 0  # of the agent that runs
        user = f"--process-user={OURSELVES}"
        self._flags = [f"--master={master}", f"--data-dir={data_dir}", "--port=0", user, *flags]
        self._trace = data_dir.parent / "trace"
        self._log = data_dir.parent / "agent.log"

    async def __aenter__(self) -> DyingAgent:
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        program = (sys.executable, dying_agent.__file__, str(self._trace))
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *program, *self._flags, stdin=PIPE, stdout=PIPE, stderr=log, env=environ
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()  # its output has other ends: what holds tasks, until they are swept
        await sweep(self.data_dir, self.agent_id)

    async def start(self, cut: str = "") -> None:
        """And wait for nothing."""
        self._trace.write_text("")
        assert self._process.stdin is not None
        self._process.stdin.write(f"{cut}\n".encode())
        self.pid = int(await self._said("started "))

    async def ready(self) -> None:
        """Wait until the master has taken it in."""
        self.agent_id = AgentId(await self._said("ready agent_id="))

    async def stop(self) -> None:
        """As its administrator stops it."""
        os.kill(self.pid, signal.SIGTERM)
        assert await self._said("ended ") == "0", self._complaints()
        self.pid = 0

    async def dies(self, cut: str) -> None:
        """Wait for the cut. Nothing exclusive may be given twice then."""
        status, self.pid = int(await self._said("ended ")), 0
        assert status == -signal.SIGKILL, f"{cut}: {status} after\n{self._trace.read_text()}{self._complaints()}"
        assert given_twice(self.data_dir) == [], cut

    async def _said(self, begin: str) -> str:
        """The rest of the next line that begins so."""
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode():
            if line.startswith(begin):
                return line.strip().removeprefix(begin)
            assert not line.startswith("ended"), f"{line}{self._complaints()}"
        raise AssertionError(self._complaints())

    def _complaints(self) -> str:
        return self._log.read_text()[-3000:]


def grants(data_dir: Path) -> list[GrantRecord]:
    """What the journal of an agent that does not run has of grants."""
    with closing(SqliteStore(data_dir / JOURNAL)) as store:
        return [record for record in inspect(store)[1] if isinstance(record, GrantRecord)]


def given_twice(data_dir: Path) -> list[tuple[str, str]]:
    """The exclusive devices that two grants have."""
    found = Counter(
        (record.name, device)
        for record in grants(data_dir)
        for granted in record.granted
        for device in granted.ids
        if not granted.shared
    )
    return [device for device, count in found.items() if count > 1]


def notes(data_dir: Path) -> list[str]:
    """What plugins have noted of grants. What they know of the devices themselves stays."""
    files = (data_dir / "devices").glob("*/*.json")
    kept = ("memory ", "safe ")
    return sorted(f"{file.parent.name}/{file.name}" for file in files if not file.name.startswith(kept))


@dataclass
class Survival:
    """One agent, and a framework that wants all its devices for two tasks."""

    agent: DyingAgent
    cluster: Cluster
    ledger: Path
    claims: Claims
    options: dict[str, Any] = field(default_factory=dict)  # of both tasks: what runs them
    look: str = "env | grep ^IEDGE_ | sort"

    async def through(self, cuts: Sequence[Cut]) -> None:
        """All of it: a task that lives through these deaths of its agent, another one after it, and a clean end."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._through(cuts)
        except TimeoutError as error:
            waits = [
                (task_id, self.cluster.lacking(task_id), task.status) for task_id, task in self.cluster.tasks.items()
            ]
            raise AssertionError(f"{waits}\n{await ask(self.agent.data_dir, 'devices')}") from error

    async def _through(self, cuts: Sequence[Cut]) -> None:
        first, second = await self._task("first", WAIT), None
        ending: asyncio.Task[Any] | None = None
        for cut in cuts:
            await self.agent.start(cut.at)
            if cut.ends:
                await self.agent.ready()
                await first.started()
                await self._begun()
                second = await self._task("second", "say ends")
                ending = asyncio.create_task(first.kill(0.0 if self.options.get("docker") else None))
            await self.agent.dies(cut.at)
        assert ending is not None
        assert second is not None
        await self.agent.start()
        await self.agent.ready()
        assert (await ending).state is TaskState.KILLED
        assert (await second.wait()).state is TaskState.FINISHED, second.status
        begun = [line for line in self.said() if line != "first ends"]  # it may be killed before it says so
        assert begun == ["first begins", "second begins", "second ends"]
        await self._offered_again()

    async def _begun(self) -> None:
        """A file tells nobody that it is written to, so look again and again."""
        while not self.ledger.exists():
            await asyncio.sleep(LOOK_S)
        assert self.said() == ["first begins"]

    def said(self) -> list[str]:
        """What both tasks have said, in order."""
        return self.ledger.read_text().splitlines()

    def seen(self, name: str) -> str:
        """What a task saw of its devices when it began."""
        return self.ledger.with_name(f"{self.ledger.name}.{name}").read_text()

    async def _task(self, name: str, work: str) -> TaskHandle:
        script = TASK.format(name=name, ledger=self.ledger, look=self.look, work=work)
        argv = ["sh", "-c", script]
        how: dict[str, Any] = {"args": argv} if "docker" in self.options else {"process": argv}
        return await self.cluster.launch(name=name, claims=self.claims, **how, **self.options)

    async def _offered_again(self) -> None:
        """Every device is there for whoever comes next; plugins, and the core, have forgotten all tasks."""
        found = await ask(self.agent.data_dir, "devices")
        wrong = [row for row in found["devices"] if row["holder"] or row["quarantine"] or row["health"] != "Healthy"]
        assert wrong == []
        assert notes(self.agent.data_dir) == []
