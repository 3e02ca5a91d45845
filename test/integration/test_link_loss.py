"""Master, agent and framework as programs of their own, over links that lose, delay, double, reorder, rebind and cut.

What a link does is drawn from a seed, which is printed: `EDGERM_LOSS_SEED=… pytest test/integration/test_link_loss.py`
draws the same again (which datagram meets it is the machine's affair).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.processes import Box, running_box, until
from support.relays import Address, Weather, tcp_relay, udp_relay

from edgerm.core.scheduler import Offer, Status
from edgerm.core.tasks import TaskState
from edgerm.sdk import Driver, Scheduler, Session, framework, process_task, wasm_task
from edgerm.sdk.operator import Name, Operator
from edgerm.sdk.tasks import Task

SEED = int(os.environ.get("EDGERM_LOSS_SEED") or secrets.randbits(32))
DEADLINE_S = 300.0  # it takes about two minutes
INPUT_BYTES = 1 << 20
RESOURCES = "cpus:4;mem:1024;disk:1024;ports:[31000-31009]"
ECHO = Path(__file__).parents[1] / "fixtures/wasm/echo.wasm"
BEATS = {"EDGERM_AGENTS_BEAT_INTERVAL_S": "5.0", "EDGERM_AGENTS_MISSED_BEATS": "30"}  # a lost ring costs 5 s
STORM = Weather(dropped=0.3, doubled=0.1, delay_s=(0.75, 1.25), rebinds=True)


class Listener(Scheduler):
    """Keeps its offers, and all that it is told of each task."""

    def __init__(self) -> None:
        self.told: dict[str, list[Status]] = {}

    def offers(self, driver: Session, offers: tuple[Offer, ...]) -> None:
        """They are kept."""

    def update(self, driver: Session, status: Status) -> None:
        """Keep it."""
        self.told.setdefault(status.task_id, []).append(status)

    def ended(self, name: str) -> bool:
        """Whether the task has ended."""
        return any(status.state.terminal for status in self.told.get(name, []))


async def test_coap_in_a_storm(tmp_path: Path) -> None:
    """With 30 % of datagrams lost, round trips of 2 s, doubles, another order and a new source address at each packet
    everything arrives, and once."""
    say(f"EDGERM_LOSS_SEED={SEED}")

    @asynccontextmanager
    async def storm(master: Address) -> AsyncIterator[str]:
        async with udp_relay(master, STORM, SEED) as relay:
            yield f"coap://127.0.0.1:{relay.address[1]}"
            say(relay.counts)
            assert relay.counts["dropped"] > 100
            assert relay.counts["doubled"] > 50

    async with asyncio.timeout(DEADLINE_S), running_box(tmp_path, RESOURCES, storm, BEATS) as box:
        await assert_all_arrives(box)


async def test_http_that_is_cut(tmp_path: Path) -> None:
    """Over connections that are cut at any byte and any time everything arrives, and once."""
    say(f"EDGERM_LOSS_SEED={SEED}")

    @asynccontextmanager
    async def cut(master: Address) -> AsyncIterator[str]:
        async with tcp_relay(master, 1 << 18, 2.0, SEED) as relay:
            yield f"http://127.0.0.1:{relay.address[1]}"
            say(relay.counts)
            assert relay.counts["cut"] > 3

    async with asyncio.timeout(DEADLINE_S), running_box(tmp_path, RESOURCES, cut, BEATS) as box:
        await assert_all_arrives(box)


async def assert_all_arrives(box: Box) -> None:
    """Three tasks, one with a megabyte of input: each is told RUNNING and FINISHED once, its output has no gap."""
    given = random.Random(SEED).randbytes(INPUT_BYTES)
    listener = Listener()
    async with Driver(listener, box.url, framework("through")) as driver:
        whole, module = await driver.keep(given), await driver.keep(ECHO)
        few = await driver.keep(b"a module's input\n")
        tasks = [
            process_task("sum", ["/bin/sh", "-c", "sha256sum; seq 1 200"], input=whole, cpus=0.1),
            process_task("talk", ["/bin/sh", "-c", "seq 1 250; sleep 1; seq 251 500"], cpus=0.1),
            wasm_task("module", module, input=few, cpus=0.1),
        ]
        await until(lambda: driver.session.held)
        launch(driver, tasks)
        names = [str(task.task_id) for task in tasks]
        operator = Operator(driver.client)
        async with asyncio.TaskGroup() as group:
            outputs = {name: group.create_task(read(operator, listener, name)) for name in names}
        say({name: [status.state.name for status in told] for name, told in listener.told.items()})
        assert outputs["talk"].result() == lines(1, 500)
        assert outputs["sum"].result() == hashlib.sha256(given).hexdigest().encode() + b"  -\n" + lines(1, 200)
        assert outputs["module"].result() == b"a module's input\n"
        await until(lambda: all(map(listener.ended, names)))
        for name in names:
            states = Counter(status.state for status in listener.told[name])
            assert states[TaskState.RUNNING] == states[TaskState.FINISHED] == 1, states
            assert states.keys() <= {TaskState.STARTING, TaskState.RUNNING, TaskState.FINISHED}
    assert len(box.sandboxes()) == len(names), "a task was launched twice"


def launch(driver: Driver, tasks: list[Task]) -> None:
    """Put all tasks on the offer that there is."""
    (offer,) = driver.session.held.values()
    left, placed = offer.resources, []
    for task in tasks:
        placed.append(task.on(offer, left))
        left = left - placed[-1].resources
    driver.session.accept([offer], placed)


async def read(operator: Operator, listener: Listener, task: str) -> bytes:
    """A task's whole output, from when it runs; there must be no gap in it."""
    await until(lambda: listener.told.get(task))
    output = bytearray()
    async for chunk in operator.read_log(Name(task, None), follow=True):
        assert chunk.offset == len(output)
        output += chunk.data
    return bytes(output)


def lines(first: int, last: int) -> bytes:
    """What `seq` prints."""
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


def say(*what: object) -> None:
    """Shown by pytest if the test fails."""
    print(*what)  # noqa: T201
