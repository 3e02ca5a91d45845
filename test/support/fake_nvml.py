"""A library that calls itself a fake NVML: what `libnvidia-ml.so.1` answers, for as many cards as a test says.

It stands below NVIDIA's own Python binding, so that what our file asks of that is tried for real.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NOT_SUPPORTED, NOT_FOUND, LOST = 3, 6, 15  # nvmlReturn_t


@dataclass
class FakeCard:
    """A card, or a part of one."""

    uuid: str
    name: str = "Fake GPU 9000"
    memory_bytes: int = 8 << 30
    minor: int = 0
    pids: list[int] = field(default_factory=list)
    parts: list[FakeCard] = field(default_factory=list)
    row_failed: bool = False
    ecc_errors: int = 0
    lost: bool = False


class FakeLibrary:
    """Answers as the C library does: a status, and what was asked for through the pointers."""

    def __init__(self, cards: list[FakeCard]) -> None:
        self.cards = cards
        self._handles: dict[int, FakeCard] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        found = getattr(type(self), f"_{name}", None)
        if found is None:
            raise AttributeError(name)  # as ctypes does for a function that a library lacks
        return lambda *arguments: found(self, *arguments)

    def _card(self, handle: Any) -> FakeCard:
        return self._handles[ctypes.cast(handle, ctypes.c_void_p).value or 0]

    def _hand_out(self, pointer: Any, card: FakeCard | None) -> int:
        if card is None:
            return NOT_FOUND
        if card.lost:
            return LOST
        self._handles[id(card)] = card
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_void_p))[0] = id(card)
        return 0

    def _nvmlInitWithFlags(self, flags: Any) -> int:  # noqa: N802 - the names are NVIDIA's
        return 0

    def _nvmlShutdown(self) -> int:  # noqa: N802
        return 0

    def _nvmlErrorString(self, status: Any) -> bytes:  # noqa: N802
        return b"a fake error"

    def _nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:  # noqa: N802
        text.value = b"999.99-fake"
        return 0

    def _nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.cards)
        return 0

    def _nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        return self._hand_out(handle, self.cards[index.value])

    def _nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:  # noqa: N802
        wanted = uuid.value.decode()
        cards = [*self.cards, *(part for card in self.cards for part in card.parts)]
        return self._hand_out(handle, next((card for card in cards if card.uuid == wanted), None))

    def _nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> int:  # noqa: N802
        text.value = self._card(handle).uuid.encode()
        return 0

    def _nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> int:  # noqa: N802
        text.value = self._card(handle).name.encode()
        return 0

    def _nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.total = self._card(handle).memory_bytes
        return 0

    def _nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:  # noqa: N802
        major._obj.value, minor._obj.value = 9, 0
        return 0

    def _nvmlDeviceGetPciInfo_v3(self, handle: Any, pci: Any) -> int:  # noqa: N802
        pci._obj.busId = b"00000000:0A:00.0"
        return 0

    def _nvmlDeviceGetMinorNumber(self, handle: Any, minor: Any) -> int:  # noqa: N802
        minor._obj.value = self._card(handle).minor
        return 0

    def _nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:  # noqa: N802
        current._obj.value = pending._obj.value = int(bool(self._card(handle).parts))
        return 0

    def _nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> int:  # noqa: N802
        count._obj.value = 7 if self._card(handle).parts else 0
        return 0

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, part: Any) -> int:  # noqa: N802
        parts = self._card(handle).parts
        return self._hand_out(part, parts[index.value] if index.value < len(parts) else None)

    def _nvmlDeviceGetGpuInstanceId(self, handle: Any, number: Any) -> int:  # noqa: N802
        number._obj.value = 3
        return 0

    def _nvmlDeviceGetComputeInstanceId(self, handle: Any, number: Any) -> int:  # noqa: N802
        number._obj.value = 0
        return 0

    def _nvmlDeviceGetRemappedRows(self, handle: Any, *counts: Any) -> int:  # noqa: N802
        counts[3]._obj.value = int(self._card(handle).row_failed)
        return 0

    def _nvmlDeviceGetTotalEccErrors(self, handle: Any, kind: Any, counter: Any, count: Any) -> int:  # noqa: N802
        count._obj.value = self._card(handle).ecc_errors
        return 0

    def _nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, infos: Any) -> int:  # noqa: N802
        pids = self._card(handle).pids
        if infos is None:
            count._obj.value = len(pids)
            return 7 if pids else 0  # INSUFFICIENT_SIZE: ask again with room
        for info, pid in zip(infos, pids, strict=False):
            info.pid = pid
        count._obj.value = len(pids)
        return 0

    def _nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Any, count: Any, infos: Any) -> int:  # noqa: N802
        return NOT_SUPPORTED
