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
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgerm.core.tasks import TaskState
from edgerm.sdk import Cluster, TaskHandle
from edgerm.sdk.claims import Claims
from edgerm.store.sqlite import SqliteStore
from edgerm.transport.local import ask
from edgerm_agent.core.records import GrantRecord
from edgerm_agent.journal import JOURNAL, inspect
from support import dying_agent
from support.agent import AgentProcess

DYING = (sys.executable, str(Path(dying_agent.__file__)))
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


class DyingAgent(AgentProcess):
    """An agent that can be started with a cut. `steps` of the latest start are in `trace`."""

    @property
    def trace(self) -> Path:
        return self.data_dir.parent / "trace"

    async def launch(self, cut: str = "") -> None:
        """Start it, and wait for nothing."""
        self.trace.write_text("")
        environ = {**os.environ, "EDGERM_CUT": cut, "EDGERM_TRACE": str(self.trace)}
        environ["PYTHONPATH"] = str(Path(__file__).parents[1])
        with (self.data_dir.parent / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *DYING, *self.flags, stdout=asyncio.subprocess.PIPE, stderr=log, env=environ
            )

    async def ready(self) -> str:
        """The line that it says then; empty: it has ended."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode()

    async def dies(self, cut: str) -> None:
        """Wait for the cut. Nothing exclusive may be given twice then."""
        status = await self.process.wait()
        steps = self.trace.read_text()
        assert status == -signal.SIGKILL, f"{cut}: {status} after\n{steps}{self.log()[-3000:]}"
        assert given_twice(self.data_dir) == [], cut


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
        first, second = await self._task("first", WAIT), None
        ending: asyncio.Task[Any] | None = None
        for cut in cuts:
            await self.agent.launch(cut.at)
            if cut.ends:
                assert await self.agent.ready(), self.agent.log()
                await first.started()
                assert self.said() == ["first begins"]
                second = await self._task("second", "say ends")
                ending = asyncio.create_task(first.kill(0.0 if self.options.get("docker") else None))
            await self.agent.dies(cut.at)
        assert ending is not None
        assert second is not None
        await self.agent.launch()
        assert await self.agent.ready(), self.agent.log()
        assert (await ending).state is TaskState.KILLED
        assert (await second.wait()).state is TaskState.FINISHED, second.status
        begun = [line for line in self.said() if line != "first ends"]  # it may be killed before it says so
        assert begun == ["first begins", "second begins", "second ends"]
        await self._offered_again()

    def said(self) -> list[str]:
        """What both tasks have said, in order."""
        return self.ledger.read_text().splitlines()

    def seen(self, name: str) -> str:
        """What a task saw of its devices when it began."""
        return self.ledger.with_name(f"{self.ledger.name}.{name}").read_text()

    async def _task(self, name: str, work: str) -> TaskHandle:
        script = TASK.format(name=name, ledger=self.ledger, look=self.look, work=work)
        argv = ["sh", "-c", script]
        how = {"args": argv} if "docker" in self.options else {"process": argv}
        return await self.cluster.launch(name=name, claims=self.claims, **how, **self.options)

    async def _offered_again(self) -> None:
        """Every device is there for whoever comes next; plugins, and the core, have forgotten all tasks."""
        found = await ask(self.agent.data_dir, "devices")
        wrong = [row for row in found["devices"] if row["holder"] or row["quarantine"] or row["health"] != "Healthy"]
        assert wrong == []
        assert notes(self.agent.data_dir) == []
