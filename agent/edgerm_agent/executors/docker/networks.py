"""Network namespaces for containers: each is owned by a container that only waits, and that the task's one joins.

It has our label, so that whatever removes all our containers removes it too, and none of a task. What does not live
here: what is moved into the namespace (`devices.nic`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from edgerm.core.errors import Conflict, Unavailable
from edgerm.core.ids import AgentId, TaskKey
from edgerm_agent import netns
from edgerm_agent.executors.docker import container, idle_program
from edgerm_agent.executors.docker.engine import Engine, EngineError, NoSuchImage
from edgerm_agent.executors.docker.held import ask
from edgerm_agent.executors.docker.watch import Watch

Json = dict[str, Any]


class Networks:
    """Those of one agent on one engine; see `edgerm.plugin.executor.Networks`."""

    def __init__(self, agent_id: AgentId, engine: Engine, watch: Watch) -> None:
        self._agent_id = agent_id
        self._engine = engine
        self._watch = watch
        self._importing = asyncio.Lock()

    async def make(self, key: TaskKey) -> str:
        """The path of the task's namespace. Raises `Unavailable`, and `Conflict` where no namespace of the engine's
        can be reached."""
        info = await self._watch.ensure()
        name = container.network_name_of(self._agent_id, key)
        found = await ask(self._engine.inspect(name))
        if found is None or not found["State"]["Running"]:
            if found is not None:
                await ask(self._engine.remove(name, force=True))
            await self._launch(name, key, info)
            found = await ask(self._engine.inspect(name))
        pid = int(found["State"]["Pid"]) if found is not None else 0
        if pid <= 0:
            raise Unavailable(f"the container {name} that holds a task's network does not run")
        if netns.name_of_process(pid) != idle_program.NAME:
            raise Conflict(
                f"the Docker engine at {self._engine.url} runs elsewhere, or hides its processes: no interface of this "
                "box can go to its containers"
            )
        return netns.path_of_process(pid)

    async def drop(self, key: TaskKey) -> None:
        """Nothing of it stays. Raises `Unavailable`."""
        await self._watch.ensure()
        await ask(self._engine.remove(container.network_name_of(self._agent_id, key), force=True))

    async def remove_images(self) -> None:
        """The images of such containers go, if no agent's container uses them. Raises `Unavailable`."""
        await self._watch.ensure()
        for image in await ask(self._engine.images(idle_program.NAME)):
            await ask(self._engine.remove_image(image))

    async def _launch(self, name: str, key: TaskKey, info: Json) -> None:
        machine = str(info.get("Architecture"))
        if machine not in idle_program.MACHINES:
            raise Conflict(
                f"a task's network needs an engine on {' or '.join(idle_program.MACHINES)}, not on {machine}"
            )
        image, data = idle_program.image(machine)
        body = container.network_body_of(self._agent_id, key, image)
        try:
            await self._start(name, body)
        except NoSuchImage:
            await self._import(image, data)
            await self._start(name, body)

    async def _start(self, name: str, body: Json) -> None:
        try:
            await self._engine.launch(name, body, lambda found: found["Config"]["Labels"] == body["Labels"])
        except NoSuchImage:
            raise
        except EngineError as error:
            raise Unavailable(f"the Docker engine makes no network for a task: {error}") from error

    async def _import(self, image: str, data: bytes) -> None:
        """Once: a second import would leave an image without a name."""
        async with self._importing:
            if not await ask(self._engine.has_image(image)):
                await ask(self._engine.import_image(image, data))
