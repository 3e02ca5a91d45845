"""What is the same whatever carries the link: which master is next, what comes of requests, who hears the doorbell.

What does not live here: how anything is carried (`http.py`, `coap.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from urllib.parse import urlsplit

from edgerm import logs
from edgerm.core.errors import EdgermError, Unavailable
from edgerm.core.ids import AgentId
from edgerm.core.link import BEAT_INTERVAL_S, COAP, HTTP, Beat, Carrier, Join, Launch, Welcome
from edgerm.core.scheduler import BlobRef
from edgerm_agent.blobs import Blobs, Body
from edgerm_agent.core.effects import Send
from edgerm_agent.core.events import BeatAnswered, CarrierChanged, Event, JoinAnswered, Rang, RequestFailed
from edgerm_agent.link.face import Face, Moved

REDIRECTS_MAX = 3
DOORBELL_RETRY_FIRST_S = 1.0
DOORBELL_RETRY_MAX_S = 60.0
SILENT_BEATS = 3  # a doorbell says something at every beat interval; so many without a word: it is dead
BLOCK_BYTES = 1024

log = logs.get("agent.link")


def carrier_of(master: str) -> Carrier:
    """What carries the link to this master."""
    return COAP if urlsplit(master).scheme == "coap" else HTTP


class Link:
    """Speaks with one master at a time, of those that were named. All methods are for the event loop.

    `block_bytes`: of blobs over CoAP, at a time.
    """

    def __init__(self, masters: Sequence[str], blobs: Blobs, agent_id: AgentId, block_bytes: int = BLOCK_BYTES) -> None:
        self._masters = tuple(masters)
        self._master = masters[0] if masters else ""  # nothing is sent without one
        self._blobs = blobs
        self._agent_id = agent_id
        self._block_bytes = block_bytes
        self._faces: dict[str, Face] = {}
        self._post: Callable[[Event], None] = lambda event: None
        self._answered: Callable[[], None] = lambda: None
        self._requests: set[asyncio.Task[None]] = set()
        self._doorbell: asyncio.Task[None] | None = None
        self._back = asyncio.Event()
        self._up: bool | None = None
        self._beat_interval_s = BEAT_INTERVAL_S

    @property
    def carrier(self) -> Carrier:
        """What carries the link now."""
        return carrier_of(self._master)

    def begin(self, post: Callable[[Event], None], answered: Callable[[], None]) -> None:
        """Whom to tell what happened, and whom that a beat was answered."""
        self._post, self._answered = post, answered

    def send(self, effect: Send) -> None:
        """Send a request; what comes of it is posted."""
        task = asyncio.create_task(self._exchange(effect.request, effect.body), name="link request")
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def listen(self, session: int) -> None:
        """Listen to the doorbell of this session, and to no other."""
        if self._doorbell is not None:
            self._doorbell.cancel()
        work = self._listen(session, SILENT_BEATS * self._beat_interval_s)
        self._doorbell = asyncio.create_task(work, name="doorbell")

    def get_blob(self, ref: BlobRef, offset_bytes: int) -> AbstractAsyncContextManager[Body]:
        """See `blobs.Source`."""
        return self._face().get_blob(self._master, ref, offset_bytes)

    async def close(self) -> None:
        """End all connections."""
        tasks = [*self._requests, *([self._doorbell] if self._doorbell else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for face in self._faces.values():
            await face.close()

    def _face(self) -> Face:
        name = self.carrier.name
        if name not in self._faces:
            self._faces[name] = self._make_face()
        return self._faces[name]

    def _make_face(self) -> Face:
        """Of what the agent does not use it must not bear the memory, so it is not imported."""
        if self.carrier is COAP:
            from edgerm_agent.link.coap import CoapFace  # noqa: PLC0415

            return CoapFace(self._agent_id, self._block_bytes)
        from edgerm_agent.link.http import HttpFace  # noqa: PLC0415

        return HttpFace(self._agent_id)

    # --- requests ---

    async def _exchange(self, request: int, body: Join | Beat) -> None:
        try:
            event = await (self._join(request, body) if isinstance(body, Join) else self._beat(request, body))
        except EdgermError as error:
            self._lost(error)
            event = RequestFailed(request)
        except Exception as error:
            log.error("a request failed by a fault of ours", exc_info=error)
            event = RequestFailed(request)
        else:
            self._found()
        self._post(event)
        if isinstance(event, BeatAnswered):
            self._answered()

    async def _join(self, request: int, join: Join) -> Event:
        for _ in range(REDIRECTS_MAX):
            try:
                told = await self._face().join(self._master, join)
            except Moved as moved:
                self._turn_to(moved.url)
                log.info("the master sends us to another one", master=self._master)
                continue
            if isinstance(told, Welcome):
                self._beat_interval_s = told.beat_interval_s
            return JoinAnswered(request, told)
        raise Unavailable(f"{self._master} and others sent us {REDIRECTS_MAX} times to another master")

    async def _beat(self, request: int, beat: Beat) -> Event:
        answer = await self._face().beat(self._master, beat)
        needs = {
            ref.digest for order in answer.orders if isinstance(order.body, Launch) for ref in order.body.task.needs
        }
        present = frozenset([digest for digest in needs if await self._blobs.touch(digest)])
        return BeatAnswered(request, answer, present)

    def _found(self) -> None:
        if self._up is not True:
            log.info("the master answers", master=self._master)
            self._back.set()
        self._up = True

    def _lost(self, error: BaseException) -> None:
        """Say it once; the next request goes to the next master of the list."""
        if self._up is not False:
            log.warning("the master does not answer", master=self._master, error=str(error) or type(error).__name__)
        self._up = False
        here = self._masters.index(self._master) if self._master in self._masters else -1
        self._turn_to(self._masters[(here + 1) % len(self._masters)])

    def _turn_to(self, master: str) -> None:
        before, self._master = self.carrier, master
        if self.carrier is not before:
            self._post(CarrierChanged(self.carrier))

    # --- the doorbell ---

    async def _listen(self, session: int, silence_s: float) -> None:
        wait_s = DOORBELL_RETRY_FIRST_S

        def rang() -> None:
            nonlocal wait_s
            wait_s = DOORBELL_RETRY_FIRST_S
            self._post(Rang())

        while True:
            try:
                await self._face().listen(self._master, session, silence_s, rang)
                return
            except EdgermError as error:
                log.debug("the doorbell is silent", error=str(error))
            except Exception as error:
                log.error("the doorbell failed by a fault of ours", exc_info=error)
            self._back.clear()
            with suppress(TimeoutError):  # sooner when the master is back
                async with asyncio.timeout(wait_s):
                    await self._back.wait()
            wait_s = min(2 * wait_s, DOORBELL_RETRY_MAX_S)
