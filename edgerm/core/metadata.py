"""Metadata of devices: a JSON object of texts, numbers, lists and objects, kept as one canonical text.

As text it can be compared, shared and sent without a look inside; `read` gives the look. What does not live here: the
schema of a class (`edgerm_agent.devices`), how filters go through it (`matching`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache

from edgerm.core.errors import Invalid

METADATA_BYTES_MAX = 64 * 1024
DEPTH_MAX = 16


def to_text(metadata: Mapping[str, object]) -> str:
    """The canonical text; empty for no metadata. Raises `Invalid` for what is no metadata, naming the key."""
    if not metadata:
        return ""
    _check("", metadata, DEPTH_MAX)
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if len(text.encode("utf-8", "surrogatepass")) > METADATA_BYTES_MAX:
        raise Invalid(f"metadata of {len(text)} characters; at most {METADATA_BYTES_MAX} bytes are allowed")
    return text


@lru_cache(maxsize=4096)
def read(text: str) -> Mapping[str, object]:
    """The metadata in a text that `to_text` wrote; for reading only, as everybody gets the same."""
    found: Mapping[str, object] = json.loads(text) if text else {}
    return found


def _check(where: str, value: object, depth: int) -> None:
    """Booleans are no metadata values (false never equals 0), nor is null."""
    if depth == 0:
        raise Invalid(f"metadata {where or 'object'}: nested deeper than {DEPTH_MAX}")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or not key:
                raise Invalid(f"metadata {where or 'object'}: a key is a text that is not empty, not {key!r:.40}")
            _check(f"{where}.{key}" if where else key, inner, depth - 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(where, inner, depth - 1)
    elif isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Invalid(f"metadata {where}: {value!r:.40} is no text, number, list or object")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"metadata {where}: {value} is no number")
