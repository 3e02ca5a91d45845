"""A program of its own: thousands of agents that join, beat, listen, run what they are told, and come back.

Speaks the real link over HTTP or CoAP and keeps to the real agent's times; what runs is only remembered. It reads
commands, one a line, and answers each with a line of JSON. What does not live here: a task, a journal, and what
carries it all (`crowd_carriers`).
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

BEAT_RETRY_FIRST_S = 1.0  # as `edgerm.core.link` has it
DOORBELL_RETRY_FIRST_S, DOORBELL_RETRY_MAX_S = 1.0, 60.0  # as the agent's dialer has it
JOINS_AT_ONCE = 50  # at the start only


def main() -> int:
    """`url agents doorbells` (0 or 1)."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    url, agents, doorbells = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"
    asyncio.run(Crowd(url, agents, doorbells).run())
    return 0


@dataclass
class Told:
    """What the crowd knows of itself."""

    joins: int = 0
    joined: int = 0  # that have a session now
    first_join_s: float = 0.0  # since the last `mark`; CLOCK_MONOTONIC, the same for all processes
    last_join_s: float = 0.0
    beats: int = 0
    rings: int = 0
    tasks: int = 0
    rejoins: int = 0  # sessions that the master did not know
    faults: list[str] = field(default_factory=list)


class Crowd:
    """All agents of this process."""

    def __init__(self, url: str, agents: int, doorbells: bool) -> None:
        self.told = Told()
        self.gate = asyncio.Semaphore(JOINS_AT_ONCE)
        self.url = url
        self._members = [Member(self, number, doorbells) for number in range(agents)]

    async def run(self) -> None:
        """Until the end of input."""
        works = [asyncio.create_task(member.live()) for member in self._members]
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while command := (await reader.readline()).strip():
            if command == b"mark":
                self.told.first_join_s = self.told.last_join_s = 0.0
                self.told.joins = self.told.rejoins = 0
            self.told.joined = sum(member.joined for member in self._members)
            print(json.dumps(vars(self.told)), flush=True)
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)


class Member:
    """One agent."""

    def __init__(self, crowd: Crowd, number: int, doorbell: bool) -> None:
        from bench.crowd_carriers import CoapCarrier, HttpCarrier
        from bench.fleet import make_spec

        from edgerm.core.ids import AgentId

        self.joined = False
        self._crowd = crowd
        self._agent_id = AgentId(random.randbytes(16).hex())
        self._spec = make_spec(number)
        self._incarnation = 0
        self._wants_bell = doorbell
        self._bell: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._tasks: dict[Any, Any] = {}  # by key: the report of a task that runs
        self._updates: list[Any] = []
        self._uuids = count(1)
        self._carrier = CoapCarrier(crowd.url) if crowd.url.startswith("coap") else HttpCarrier(crowd.url)

    async def live(self) -> None:
        """Join, beat, come back, for ever."""
        async with self._crowd.gate:
            await asyncio.sleep(0)
        failures = 0
        while True:
            try:
                interval_s, session = await self._join()
                failures = 0
                await self._beats(session, interval_s)
            except (OSError, TimeoutError, RuntimeError, asyncio.IncompleteReadError) as error:
                self.joined = False
                if len(self._crowd.told.faults) < 20:
                    self._crowd.told.faults.append(f"{type(error).__name__}: {error}"[:100])
                await self._carrier.close()
                wait_s = min(BEAT_RETRY_FIRST_S * 2.0**failures, 15.0)
                failures += 1
                await asyncio.sleep(wait_s * (1 - random.random() / 2))

    async def _join(self) -> tuple[float, int]:
        from edgerm.core.link import Join, Welcome
        from edgerm.wire.codec import link as codec

        self._incarnation += 1
        join = Join(self._agent_id, self._incarnation, self._spec, "", tuple(self._tasks.values()))
        async with self._crowd.gate:
            answer = codec.decode_join_answer(await self._carrier.ask("join", codec.encode_join(join)))
        assert isinstance(answer, Welcome), answer
        told = self._crowd.told
        told.joins += 1
        told.last_join_s = monotonic()
        told.first_join_s = told.first_join_s or told.last_join_s
        self.joined = True
        self._updates = []
        self._session = answer.session
        if self._wants_bell:
            if self._bell is not None:
                self._bell.cancel()
            self._bell = asyncio.create_task(self._listen(answer.session))
        return answer.beat_interval_s, answer.session

    async def _beats(self, session: int, interval_s: float) -> None:
        from edgerm.core.link import Beat, next_turn_s
        from edgerm.wire.codec import link as codec

        seen, persisted, more = 0, 0, True
        while True:
            if not more:
                with suppress(TimeoutError):
                    turn_s = next_turn_s(self._agent_id, interval_s, monotonic())
                    async with asyncio.timeout(turn_s - monotonic()):
                        await self._news.wait()
            self._news.clear()
            beat = Beat(session, seen, tuple(self._updates[:100]))
            data = await self._carrier.ask("beat", codec.encode_beat(beat, self._agent_id))
            self._crowd.told.beats += 1
            answer = codec.decode_beat_answer(data, self._agent_id)
            if answer.join:
                self.joined = False
                self._crowd.told.rejoins += 1
                return
            if answer.persisted > persisted:
                del self._updates[: answer.persisted - persisted]
                persisted = answer.persisted
            number = persisted + len(self._updates)
            for order in answer.orders:
                if order.number > seen:
                    seen = order.number
                    number += self._obey(order.body, number + 1)
            more = bool(self._updates or answer.orders or answer.more)

    def _obey(self, body: Any, number: int) -> int:
        """Take an order over; how many updates that made."""
        from edgerm.core.link import Forget, Kill, Launch, TaskReport, Update
        from edgerm.core.scheduler import Status
        from edgerm.core.tasks import Source, TaskState

        if isinstance(body, Forget):
            self._tasks.pop(body.key, None)
            return 0
        state, seq = TaskState.RUNNING, 1
        if isinstance(body, Launch) and body.key not in self._tasks:
            self._tasks[body.key] = TaskReport(body.key, state, seq, body.role, body.task)
            self._crowd.told.tasks += 1
        elif isinstance(body, Kill) and body.key in self._tasks:
            state, seq = TaskState.KILLED, 2
            self._crowd.told.tasks -= 1
        else:
            return 0
        uuid = next(self._uuids).to_bytes(16)
        key = body.key
        status = Status(key.task_id, state, self._agent_id, Source.EXECUTOR, uuid=uuid, launch_id=key.launch_id)
        self._updates.append(Update(key, seq, status, number))
        return 1

    async def _listen(self, session: int) -> None:
        wait_s = DOORBELL_RETRY_FIRST_S

        def rang() -> None:
            nonlocal wait_s
            wait_s = DOORBELL_RETRY_FIRST_S
            self._crowd.told.rings += 1
            self._news.set()

        while True:
            with suppress(OSError, TimeoutError, RuntimeError, asyncio.IncompleteReadError):
                if not await self._carrier.listen(session, rang):
                    return  # the session is not known: a beat is told of it
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, DOORBELL_RETRY_MAX_S)


if __name__ == "__main__":
    sys.exit(main())
