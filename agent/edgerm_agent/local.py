"""The local face: what somebody on this box may ask the agent, over the socket in its data directory.

Devices, local grants, shared memories. A local grant is a task of the framework `local`, in the same core and journal
as all others; no master hears of it. What does not live here: the socket (`edgerm.transport.local`), what is granted
(`edgerm.core.granting`, the core).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from edgerm.core.claims import Claim, check_all, expression, json_text
from edgerm.core.devices import Device, resources_of
from edgerm.core.errors import Conflict, Invalid, NotFound, Unavailable
from edgerm.core.granting import grant
from edgerm.core.ids import AgentId, LaunchId, TaskId, TaskKey, check_task_id
from edgerm.core.metadata import read
from edgerm.core.resources import NOTHING
from edgerm.core.scheduler import TaskSpec
from edgerm.transport.local import Handler, Object
from edgerm_agent.core.effects import LocalEnded, LocalRefused
from edgerm_agent.core.events import KillLocal, LaunchLocal
from edgerm_agent.core.records import LOCAL, Phase
from edgerm_agent.core.task import Task
from edgerm_agent.devices.manager import Devices
from edgerm_agent.devices.shm.memories import Memories
from edgerm_agent.devices.shm.plugin import SharedMemories
from edgerm_agent.executors.local import LOCAL as EXECUTOR
from edgerm_agent.executors.local import LocalExecutor
from edgerm_agent.shell import AgentShell

GRANT_S = 90.0  # plugins have their own, shorter bounds
RELEASE_S = 30.0
BUSY = "local grant {!r} is being made or given back: ask again"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"  # the kubelet's words


class LocalFace:
    """Answers local calls. `executor` holds the local grants; `make_memories` adds the plugin of shared memories."""

    def __init__(
        self,
        agent_id: AgentId,
        shell: AgentShell,
        devices: Devices,
        executor: LocalExecutor,
        make_memories: Callable[[], None],
    ) -> None:
        self._agent_id = agent_id
        self._shell = shell
        self._devices = devices
        self._executor = executor
        self._make_memories = make_memories
        self._awaited: dict[TaskKey, asyncio.Future[str]] = {}  # → why it is not there, or over; empty: as asked

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """What it answers, by the name of the call."""
        return {
            "devices": self.devices,
            "grant": self.grant,
            "release": self.release,
            "create_memory": self.create_memory,
            "resize_memory": self.resize_memory,
            "delete_memory": self.delete_memory,
        }

    def begin(self) -> None:
        """Listen to what becomes of local grants."""
        self._shell.on(LocalRefused, lambda effect: self._tell(effect.key, effect.why))
        self._shell.on(LocalEnded, lambda effect: self._tell(effect.key, effect.why))
        self._executor.started = lambda key: self._tell(key, "")

    def _tell(self, key: TaskKey, why: str) -> None:
        awaited = self._awaited.pop(key, None)
        if awaited is not None and not awaited.done():
            awaited.set_result(why)

    # --- devices ---

    async def devices(self, request: Object) -> Object:
        """Each device, as `edgerm devices --json` lists it."""
        inventory = self._shell.core.spec.inventory
        holders = self._holders()
        rows = [_row(device, holders.get((device.name, device.id), [])) for device in inventory.devices]
        without = [each for each in inventory.classes if all(each.name != device.name for device in inventory.devices)]
        return {"devices": rows, "classes": [{"class": each.name, "problem": each.problem} for each in without]}

    def _holders(self) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        for key, holding in self._shell.core.grants.items():
            for device in holding.devices() if not holding.returning else ():
                found.setdefault(device, []).append(key.task_id)
        return found

    # --- local grants ---

    async def grant(self, request: Object) -> Object:
        """Devices for `id`: what they are, and what the holder gets. Asked again for the same, the same is answered.

        Fails at once where a claim cannot be served: nobody waits here.
        """
        name, claims = _id(request), check_all(_claims(request.get("claims")))
        app = check_task_id(_text(request, "app")) if request.get("app") else name
        task = self._task(name)
        if task is None:
            task = await self._begin(name, claims, app)
        elif task.record.task.claims != claims:
            raise Conflict(f"local grant {name!r} has other claims: release it first, or choose another id")
        elif task.run.phase is not Phase.RUNNING or task.run.kill_asked:
            raise Unavailable(BUSY.format(name))
        holding = self._shell.core.grants.get(task.key)
        setup = await self._devices.setup(task.key, holding.records if holding else (), self._executor)
        return {"granted": [asdict(each) for each in task.record.task.granted], "setup": asdict(setup)}

    async def _begin(self, name: str, claims: tuple[Claim, ...], app: str) -> Task:
        core = self._shell.core
        asked = TaskSpec(TaskId(name), self._agent_id, NOTHING, name, EXECUTOR, claims=claims, app=app)
        spec = grant(asked, resources_of(core.free), core.spec)
        if spec.fault:
            raise Conflict(spec.fault)
        key = TaskKey(LOCAL, TaskId(name), LaunchId(secrets.token_hex(8)))
        why = await self._until(LaunchLocal(key, spec), GRANT_S)
        task = core.tasks.get(key)
        if why or task is None:
            raise Conflict(why or f"local grant {name!r} was given back meanwhile")
        return task

    async def release(self, request: Object) -> Object:
        """Give back what `id` has. `quarantine`: what was found on devices that are not clean, by class."""
        task = self._task(_id(request))
        if task is None:
            raise NotFound(f"there is no local grant {_id(request)!r}")
        await self._until(KillLocal(task.key), RELEASE_S)
        holding = self._shell.core.grants.get(task.key)
        return {"quarantine": {each.name: each.evidence for each in holding.records} if holding else {}}

    def _task(self, name: str) -> Task | None:
        tasks = self._shell.core.tasks
        return next((task for key, task in tasks.items() if key.framework_id == LOCAL and key.task_id == name), None)

    async def _until(self, event: LaunchLocal | KillLocal, within_s: float) -> str:
        """Let it happen, and wait for what comes of it."""
        if event.key in self._awaited:
            raise Unavailable(BUSY.format(event.key.task_id))
        awaited = self._awaited[event.key] = asyncio.Future[str]()
        self._shell.post(event)
        try:
            async with asyncio.timeout(within_s):
                return await awaited
        except TimeoutError:
            raise Unavailable(f"local grant {event.key.task_id!r}: nothing came of it within {within_s:g} s") from None
        finally:
            self._awaited.pop(event.key, None)

    # --- shared memories ---

    async def create_memory(self, request: Object) -> Object:
        """Make a shared memory: `name`, `size`, `labels`, `permissions`."""
        permissions = request.get("permissions")
        if permissions is not None and not isinstance(permissions, dict):
            raise Invalid(f"permissions {permissions!r:.60} are no object: write an app's name and what it may have")
        for app, given in (permissions or {}).items():
            if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
                raise Invalid(f"permissions of {app[:60]!r} are {given!r:.60}: write a list of texts")
        await self._memories().create(_text(request, "name"), _text(request, "size"), _texts(request), permissions)
        return {}

    async def resize_memory(self, request: Object) -> Object:
        """Give a memory that nobody uses another size: `name`, `size`."""
        await self._memories().resize(_text(request, "name"), _text(request, "size"))
        return {}

    async def delete_memory(self, request: Object) -> Object:
        """End a memory that nobody uses: `name`."""
        await self._memories().delete(_text(request, "name"))
        return {}

    def _memories(self) -> Memories:
        """An agent without any has no plugin of them until somebody makes the first."""
        if self._devices.plugin("shm") is None:
            self._make_memories()
        plugin = self._devices.plugin("shm")
        if not isinstance(plugin, SharedMemories):
            raise Unavailable("this agent has no shared memories: see its log for why their plugin is not there")
        return plugin.memories


def _row(device: Device, holders: Sequence[str]) -> dict[str, object]:
    return {
        "class": device.name,
        "id": device.id,
        "pool": "shared" if device.shared else "exclusive",
        "health": UNHEALTHY if device.problem else HEALTHY,
        "problem": device.problem,
        "holder": ",".join(holders),
        "metadata": dict(read(device.metadata)),
        "quarantine": device.quarantine,
        "fake": device.fake,
        "gives": list(device.gives),
    }


def _id(request: Object) -> str:
    return check_task_id(_text(request, "id"))


def _text(request: Object, name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise Invalid(f"{name} {value!r:.60} is no text, or empty")
    return value


def _texts(request: Object) -> tuple[str, ...]:
    labels = request.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise Invalid(f"labels {labels!r:.60} are no list of texts")
    return tuple(labels)


def _claims(found: object) -> list[Claim]:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Invalid(f"claims {found!r:.60} are no list of objects")
    if not found:
        raise Invalid("claims are none: say what to take")
    return [_claim(each) for each in found]


def _claim(found: Object) -> Claim:
    """A claim by the names of its fields; `expressions` and `config` as plain JSON."""
    kind, count, shared = found.get("type"), found.get("count", 1), found.get("shared")
    optional, name = found.get("optional", False), found.get("name") or kind
    if not isinstance(kind, str):
        raise Invalid(f"a claim's type {kind!r:.60} is no text: name a class")
    if not isinstance(name, str):
        raise Invalid(f"claim of {kind[:80]!r}: name {name!r:.60} is no text")
    if not isinstance(optional, bool):
        raise Invalid(f"claim of {kind[:80]!r}: optional {optional!r:.60} is neither true nor false")
    if not isinstance(count, int) or isinstance(count, bool):
        raise Invalid(f"claim of {kind[:80]!r}: count {count!r:.60} is no natural number")
    if shared is not None and not isinstance(shared, bool):
        raise Invalid(f"claim of {kind[:80]!r}: shared {shared!r:.60} is neither true nor false")
    expressions = found.get("expressions") or []
    if not isinstance(expressions, list) or not all(isinstance(each, dict) for each in expressions):
        raise Invalid(f"claim of {kind[:80]!r}: expressions {expressions!r:.60} are no list of objects")
    return Claim(
        name=name,
        type=kind,
        count=count,
        expressions=tuple(
            expression(each.get("key"), each.get("operator"), each.get("values")) for each in expressions
        ),
        shared=shared,
        optional=optional,
        config=json_text("config", found["config"]) if found.get("config") else "",
    )
