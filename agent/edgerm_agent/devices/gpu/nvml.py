"""What NVIDIA's driver tells, through its management library (NVML). Every call may block for as long as a card hangs.

What does not live here: what follows from it (`parts`, `plugin`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pynvml as nvml

from edgerm.core.errors import Unavailable
from edgerm_agent.devices.gpu.parts import Gpu

T = TypeVar("T")


class NotAnswering(Unavailable):
    """The driver does not answer."""


class Nvml:
    """The driver. Each call asks anew, so that a driver that was loaded meanwhile, or a lost card, is seen."""

    def gpus(self) -> tuple[Gpu, ...]:
        """All that can be given: whole cards, and of one that is divided (MIG) its parts. Raises `NotAnswering`."""
        return _with_driver(lambda: tuple(_all()))

    def users(self, uuid: str) -> tuple[int, ...]:
        """The processes that use a GPU, compute and graphics alike. Raises `NotAnswering`."""
        return _with_driver(lambda: _users(uuid))


def _with_driver(ask: Callable[[], T]) -> T:
    try:
        nvml.nvmlInit()
        try:
            return ask()
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        raise NotAnswering(str(error)) from None


def _all() -> Iterator[Gpu]:
    driver = nvml.nvmlSystemGetDriverVersion()
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            card = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError:
            continue  # it fell off its bus: who saw it before says so
        whole = _whole(card, driver)
        parts = tuple(_parts(card, whole))
        if parts:
            yield from parts
        elif not _asked(nvml.nvmlDeviceGetMigMode, card, default=[0])[0]:
            yield whole


def _whole(card: Any, driver: str) -> Gpu:
    return Gpu(
        uuid=nvml.nvmlDeviceGetUUID(card),
        model=nvml.nvmlDeviceGetName(card),
        memory_bytes=nvml.nvmlDeviceGetMemoryInfo(card).total,
        driver=driver,
        compute_capability=".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(card))),
        pci=nvml.nvmlDeviceGetPciInfo(card).busId,
        minor=nvml.nvmlDeviceGetMinorNumber(card),
        problem=_problem(card),
    )


def _parts(card: Any, whole: Gpu) -> Iterator[Gpu]:
    for index in range(_asked(nvml.nvmlDeviceGetMaxMigDeviceCount, card, default=0)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index)
        except nvml.NVMLError:
            continue  # places stay empty between parts
        name = nvml.nvmlDeviceGetName(part)
        yield Gpu(
            uuid=nvml.nvmlDeviceGetUUID(part),
            model=whole.model,
            memory_bytes=nvml.nvmlDeviceGetMemoryInfo(part).total,
            driver=whole.driver,
            compute_capability=whole.compute_capability,
            pci=whole.pci,
            minor=whole.minor,
            mig=name.rpartition("MIG ")[2] if "MIG " in name else name,
            gpu_instance=nvml.nvmlDeviceGetGpuInstanceId(part),
            compute_instance=nvml.nvmlDeviceGetComputeInstanceId(part),
            problem=whole.problem,
        )


def _problem(card: Any) -> str:
    """What makes a card unfit until it is reset or repaired; older cards do not tell."""
    if _asked(nvml.nvmlDeviceGetRemappedRows, card, default=(0, 0, 0, 0))[3]:
        return "a row of its memory failed and could not be remapped: the card has to be replaced"
    uncorrected = _asked(
        lambda handle: nvml.nvmlDeviceGetTotalEccErrors(
            handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        card,
        default=0,
    )
    return f"{uncorrected} errors of its memory since the driver was loaded: reset the card" if uncorrected else ""


def _asked(ask: Callable[[Any], Any], handle: Any, default: Any) -> Any:
    """What not every card and driver answers."""
    try:
        return ask(handle)
    except nvml.NVMLError:
        return default


def _users(uuid: str) -> tuple[int, ...]:
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    asked = (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses)
    return tuple(sorted({process.pid for ask in asked for process in _asked(ask, handle, default=())}))
