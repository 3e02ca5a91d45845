"""The plugin of GPIO chips: which there are, what a task gets of one, and that it is safe when no task has it."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Iterator, Mapping

from edgerm.core.devices import Device, Inventory
from edgerm.core.errors import Conflict
from edgerm.core.ids import TaskKey
from edgerm.plugin.device import DeviceNode, GpioChip, Grant, HostFiles, NotClean, Setup
from edgerm_agent.config import Gpio as Settings
from edgerm_agent.devices.gpio import parts
from edgerm_agent.devices.gpio.parts import GPIO_CLASS, Declared
from edgerm_agent.devices.gpio.safety import Safety
from edgerm_agent.lines import CharacterDevices, Chip, Chips

BOOT_ID = "/proc/sys/kernel/random/boot_id"
LOOK_S = 10.0
GRANT = "grant "  # how the names of notes begin
GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)


def create(settings: Settings, host: HostFiles) -> GpioPlugin:
    """The plugin, with the kernel's chips. Raises `Invalid` for a wrong setting."""
    return GpioPlugin(settings, host, CharacterDevices())


class GpioPlugin:
    """Class `siemens.com/gpio`: exclusive."""

    name = "gpio"

    def __init__(self, settings: Settings, host: HostFiles, chips: Chips, look_s: float = LOOK_S) -> None:
        self._declared = {chip.id: chip for chip in parts.declared(settings.chips)}
        self._host = host
        self._chips = chips
        self._safety = Safety(chips, host.notes)
        self._look_s = look_s
        self._lock = threading.Lock()  # a thread goes on when whoever waits for it has given up
        self._seen: dict[str, Chip] = {}

    async def watch(self) -> AsyncIterator[Inventory]:
        """At once, when what must be safe is; and whenever a look finds something else.

        At its end what no task drives is made safe once more, and let go.
        """
        told: Inventory | None = None
        try:
            while True:
                found = Inventory((GPIO_CLASS,), await asyncio.to_thread(self._look))
                if found != told:
                    yield found
                    told = found
                await asyncio.sleep(self._look_s)
        finally:
            for chip in self._declared.values():
                self._safety.apply(chip.id, chip.path)
            self._safety.close()

    async def prepare(self, grant: Grant) -> Setup:
        """See `DevicePlugin`. What is safe is noted here, before the task has the chip."""
        return await asyncio.to_thread(self._prepare, grant)

    async def release(self, grant: Grant) -> None:
        """Lines with a safe level are driven to it first; then nobody else may have a line that had none before."""
        if problems := await asyncio.to_thread(self._release, grant.task):
            raise NotClean("; ".join(problems))

    # --- in a thread --------------------------------------------------------------------------------------------

    def _look(self) -> tuple[Device, ...]:
        with self._lock:
            return tuple(self._device(chip) for chip in self._declared.values())

    def _device(self, chip: Declared) -> Device:
        problem = ""
        try:
            self._seen[chip.id] = found = self._chips.look(chip.path)
            if len(found.lines) > parts.LINES_MAX:
                problem = f"{found.name} has {len(found.lines)} lines, at most {parts.LINES_MAX} are told"
            elif not self._may_be_driven(chip.id):
                self._safety.check(found, chip.id)
                problem = "; ".join(self._safety.apply(chip.id, chip.path))
        except OSError as error:
            self._safety.let_go(chip.id)  # when it comes again it is another one
            problem = f"{chip.path}: {error.strerror}"
        return parts.device_of(chip, self._seen.get(chip.id), problem)

    def _may_be_driven(self, chip: str) -> bool:
        """Whether a task may drive it now: it was given to one, and the box has not been off since."""
        boot = self._host.read(BOOT_ID).strip()
        return any(chip in _chips(note) and note.get("boot") == boot for note in self._grants())

    def _grants(self) -> Iterator[Mapping[str, object]]:
        keys = self._host.notes.keys()
        notes = (self._host.notes.get(key) for key in keys if key.startswith(GRANT))
        return (note for note in notes if note is not None)

    def _prepare(self, grant: Grant) -> Setup:
        with self._lock:
            return self._give(grant)

    def _give(self, grant: Grant) -> Setup:
        given: list[tuple[str, Declared, Chip]] = []
        levels: dict[str, dict[int, int]] = {}
        for claim in grant.given:
            name = parts.claimed_id(claim.claim, claim.config)
            for device in claim.devices:
                chip, found = self._find(device.id)
                levels[chip.id] = parts.safe_levels(claim.claim, claim.config, found)
                parts.check_free(claim.claim, found, levels[chip.id], self._safety.held(chip.id))
                given.append((name, chip, found))
        self._note(grant.task, [(chip.id, found) for _, chip, found in given])
        for chip_id, wanted in levels.items():
            self._safety.state(chip_id, wanted)
            self._safety.let_go(chip_id)
        return Setup(
            env=parts.columns((name, found) for name, _, found in given),
            nodes=tuple(DeviceNode(found.path, found.path, "rw") for _, _, found in given),
            chips=tuple(GpioChip(name, found.path) for name, _, found in given),
        )

    def _find(self, name: str) -> tuple[Declared, Chip]:
        chip = self._declared.get(name)
        if chip is None:
            raise Conflict(f"GPIO chip {name!r} is not in the agent's settings any more")
        try:
            return chip, self._chips.look(chip.path)
        except OSError as error:
            raise Conflict(f"GPIO chip {name!r}: {chip.path}: {error.strerror}") from error

    def _note(self, task: TaskKey, chips: list[tuple[str, Chip]]) -> None:
        """Which lines others had before: a kernel's driver keeps them. The first note of a grant tells."""
        key = f"{GRANT}{task}"
        if self._host.notes.get(key) is None:
            used = {
                name: [line.offset for line in chip.lines if line.user and line.offset not in self._safety.held(name)]
                for name, chip in chips
            }
            self._host.notes.put(key, {"chips": used, "boot": self._host.read(BOOT_ID).strip()})

    def _release(self, task: TaskKey) -> list[str]:
        with self._lock:
            return self._take(task)

    def _take(self, task: TaskKey) -> list[str]:
        key = f"{GRANT}{task}"
        note = self._host.notes.get(key)
        problems: list[str] = []
        for name, used in _chips(note).items():
            chip = self._declared.get(name)
            if chip is not None:
                problems += self._take_back(chip, used)
            else:
                self._safety.state(name, {})
        if not problems:
            self._host.notes.drop(key)
        return problems

    def _take_back(self, chip: Declared, used_before: object) -> list[str]:
        """What is not clean of it. One that is gone is taken back: it is made safe when it comes again."""
        before = used_before if isinstance(used_before, list) else []
        try:
            unsafe = self._safety.apply(chip.id, chip.path)
            found = self._chips.look(chip.path)
        except OSError as error:
            return [] if error.errno in GONE else [f"{chip.path}: {error.strerror}"]
        ours = self._safety.held(chip.id)
        strangers = [line for line in found.lines if line.user and line.offset not in ours]
        left = [f"{parts.in_use(found, line)}" for line in strangers if line.offset not in before]
        return left or list(unsafe)


def _chips(note: Mapping[str, object] | None) -> Mapping[str, object]:
    chips = note.get("chips") if note else None
    return chips if isinstance(chips, Mapping) else {}
