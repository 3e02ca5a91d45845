"""How far a pull is, from the engine's lines about it (Engine API, ImageCreate). Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

MIB = 1 << 20
DONE = ("Status: Downloaded newer image", "Status: Image is up to date")
COUNTED = ("Downloading", "Download complete", "Pull complete", "Already exists", "Extracting", "Verifying Checksum")
FULL = ("Download complete", "Pull complete", "Extracting", "Verifying Checksum")
LAYERS_MAX = 1000


@dataclass(slots=True)
class Progress:
    """One pull. `error` and `done` tell how it ended, if it did."""

    image: str
    error: str = ""
    done: bool = False
    _layers: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # status, current and total bytes

    def feed(self, line: bytes) -> bool:
        """Take one line; whether it shows that the pull goes on. A line that is none is ignored."""
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            return False
        if not isinstance(told, dict):
            return False
        if "error" in told:
            self.error = " ".join(str(told["error"]).split())
            return True
        status, layer = str(told.get("status", "")), told.get("id")
        if status.startswith(DONE):
            self.done = True
            return True
        return isinstance(layer, str) and status.startswith(COUNTED) and self._note(layer, status, told)

    def _note(self, layer: str, status: str, told: dict[str, object]) -> bool:
        detail = told.get("progressDetail")
        current, total = _number(detail, "current"), _number(detail, "total")
        before = self._layers.get(layer, ("", 0, 0))
        if status == "Downloading":
            now = (status, current, max(total, before[2]))
        elif status.startswith(FULL):
            now = (f"{status} {current}", before[2], before[2])
        else:
            now = (status, before[1], before[2])
        if len(self._layers) < LAYERS_MAX or layer in self._layers:
            self._layers[layer] = now
        return now != before

    @property
    def text(self) -> str:
        """`pulling busybox:1: 43 % of 12 MiB`; without figures while there are none. Sizes grow as layers turn up."""
        total = sum(layer[2] for layer in self._layers.values())
        if not total:
            return f"pulling {self.image}"
        current = sum(min(layer[1], layer[2]) for layer in self._layers.values())
        size = f"{total / MIB:.0f} MiB" if total >= 10 * MIB else f"{total / MIB:.1f} MiB"
        return f"pulling {self.image}: {100 * current // total} % of {size}"


def _number(detail: object, name: str) -> int:
    value = detail.get(name) if isinstance(detail, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0
