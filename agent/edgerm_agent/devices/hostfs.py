"""The door to the box's devices and files: whether what the operator names is there."""

from __future__ import annotations

import stat
from pathlib import Path


def problem_of_node(path: str) -> str:
    """Why `path` is no device node of this box, nor a directory of them; empty: it is."""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        return _missing(path, error)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISDIR(mode):
        return ""
    return f"{path} is no device node"


def problem_of_volume(path: str) -> str:
    """Why `path` cannot be mounted; empty: it can."""
    try:
        Path(path).stat()
    except OSError as error:
        return _missing(path, error)
    return ""


def _missing(path: str, error: OSError) -> str:
    return f"{path} is missing" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
