"""Which versions this master tells."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

MESOS_VERSION: Final = "1.11.0"
"""The Mesos version that we speak; clients take it apart, so it is digits and dots only."""
EDGERM_VERSION: Final = version("edgerm")
