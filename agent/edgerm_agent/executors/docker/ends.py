"""How a container is made to end, and how its end is read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from signal import SIGKILL

from edgerm import logs
from edgerm.core.errors import Unavailable
from edgerm.plugin.executor import Exit, ExitReason, Stream
from edgerm_agent.executors.docker import container
from edgerm_agent.executors.docker.engine import Engine, EngineError
from edgerm_agent.executors.docker.held import RETRY_FIRST_S, RETRY_MAX_S, Held, ask, is_set
from edgerm_agent.executors.docker.watch import Watch
from edgerm_agent.keeper import protocol

TAIL_LINES = 200
STREAMS: tuple[Stream, ...] = ("stderr", "stdout")  # the first with any text tells how it ended
OOM_S = 1.0

log = logs.get("agent.docker")


class Ends:
    """The ends of one engine's containers."""

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self._engine = engine
        self._watch = watch

    async def read(self, held: Held) -> Exit:
        """How it ended, however long the engine is away: it often is, when it has just ended all its containers.

        A container that somebody has restarted meanwhile has not ended.
        """
        while True:
            await held.ended.wait()
            try:
                await self._watch.ensure()
                if (exit_ := await self._ask_exit(held)) is not None:
                    return exit_
            except Unavailable as error:
                log.info("how a container ended is not known yet", container=held.name, error=str(error))
                await self._watch.came(RETRY_MAX_S)
                await asyncio.sleep(RETRY_FIRST_S)

    async def _ask_exit(self, held: Held) -> Exit | None:
        """None: it runs."""
        found = await ask(self._engine.inspect(held.name))
        if found is not None and found["State"]["Running"]:
            held.ended.clear()
            found = await ask(self._engine.inspect(held.name))  # had it died again before that, nobody would tell
            if found is not None and found["State"]["Running"]:
                return None
            held.ended.set()
        if found is None:
            return Exit(ExitReason.EXECUTOR_DIED, message="its container was removed by somebody else")
        limited = bool((found.get("HostConfig") or {}).get("Memory"))
        exit_ = container.exit_of(found["State"], memory_limited=limited, oom_seen=held.oom.is_set())
        if limited and exit_.signal == SIGKILL and exit_.reason is ExitReason.ENDED and held.kill_at is None:
            oom_seen = await is_set(held.oom, OOM_S)  # nobody asked for it: the engine may tell why a moment later
            exit_ = container.exit_of(found["State"], memory_limited=True, oom_seen=oom_seen)
            if not oom_seen:  # the engine misses it where it happens in a container's first milliseconds
                exit_ = replace(exit_, message=f"{exit_.message}, which no stop asked for: maybe at its memory limit")
        if held.over_quota:
            exit_ = replace(exit_, reason=ExitReason.DISK, message=held.over_quota)
        return replace(exit_, tail=await self._tail(held))

    async def _tail(self, held: Held) -> str:
        tails = await asyncio.gather(*(self._end_of(held, stream) for stream in STREAMS))
        return protocol.tail_text(next((data for data in tails if data), b""))

    async def _end_of(self, held: Held, stream: Stream) -> bytes:
        _, data = await ask(self._engine.tail(held.name, stream, protocol.TAIL_BYTES_MAX, TAIL_LINES))
        if not data:
            held.silent.add(stream)
        return data

    async def stop(self, held: Held, grace_s: float) -> None:
        """As `Executor.stop`."""
        kill_at = asyncio.get_running_loop().time() + grace_s
        if held.ended.is_set() or (held.kill_at is not None and kill_at >= held.kill_at):
            return
        if held.kill_at is None and grace_s > 0:
            await self._ask_to_end(held.name)
        held.kill_at = kill_at
        if held.killer is not None:
            held.killer.cancel()
        held.killer = asyncio.create_task(self.kill(held, grace_s), name=f"kill {held.name}")

    async def _ask_to_end(self, name: str) -> None:
        """Send the signal that the image or the task wants to be stopped with."""
        try:
            found = await self._engine.inspect(name)
            if found is not None:
                await self._engine.signal(name, (found.get("Config") or {}).get("StopSignal") or "SIGTERM")
        except EngineError as error:  # it will be killed
            log.warning("a container cannot be asked to end", container=name, error=str(error))

    async def kill(self, held: Held, grace_s: float) -> None:
        """SIGKILL when the grace is over, again while the engine is away."""
        wait_s = RETRY_FIRST_S
        await asyncio.sleep(grace_s)
        while not held.ended.is_set():
            try:
                await self._watch.ensure()
                await self._engine.signal(held.name, "SIGKILL")
                return
            except (Unavailable, EngineError) as error:
                log.warning("a container cannot be killed yet", container=held.name, error=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)
