"""The master's settings: frozen, read once. `docs/examples/master.toml` shows them all.

What does not live here: how file, environment and flags are merged (`edgerm.config`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from edgerm import config
from edgerm.core.errors import Invalid

DEFAULT_FILE = Path("/etc/edgerm/master.toml")

HIDDEN = "(hidden)"
_SECRET = ("token", "secret", "password", "credential", "key")

Seconds = Annotated[float, msgspec.Meta(gt=0, le=366 * 86_400)]
Bytes = Annotated[int, msgspec.Meta(ge=1024, le=1 << 50)]


class Address(NamedTuple):
    """Where a socket listens."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


class Log(msgspec.Struct, frozen=True):
    """`[log]`"""

    form: Literal["auto", "console", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Limits(msgspec.Struct, frozen=True):
    """`[limits]`: what one peer may cost."""

    call_bytes: Bytes = 16 << 20  # a body of the scheduler and operator API
    stream_bytes: Bytes = 16 << 20  # events that wait for a slow reader before its stream is closed


class Artifacts(msgspec.Struct, frozen=True):
    """`[artifacts]`: the blobs that travel by their digest."""

    blob_bytes: Bytes = 64 << 20
    total_bytes: Bytes = 4 << 30


class Agents(msgspec.Struct, frozen=True):
    """`[agents]`: how often agents beat, when silence means unreachable, and what output may cost a thin line."""

    beat_interval_s: Seconds = 15.0
    missed_beats: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    coap_log_bytes_s: Bytes = 8192  # of tasks' output, from each agent behind CoAP


class Config(msgspec.Struct, frozen=True):
    """All settings of a master."""

    http: str = "127.0.0.1:5050"
    coap: str = "127.0.0.1:5683"
    data_dir: str = ""
    insecure: bool = False
    offer_timeout_s: Seconds = 300.0
    recovery_s: Seconds = 600.0
    log: Log = Log()
    limits: Limits = Limits()
    artifacts: Artifacts = Artifacts()
    agents: Agents = Agents()

    @property
    def address(self) -> Address:
        """`http` taken apart; raises `Invalid`."""
        return parse_address(self.http)

    @property
    def coap_address(self) -> Address | None:
        """`coap` taken apart, None for no CoAP; raises `Invalid`."""
        return parse_address(self.coap) if self.coap else None

    @property
    def data_path(self) -> Path:
        """The data directory, absolute."""
        return Path(self.data_dir or default_data_dir()).expanduser().absolute()


def load(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Config:
    """The settings that hold now; raises `Invalid` with the remedy."""
    settings = config.load(Config, file=file, default_file=DEFAULT_FILE, flags=flags)
    for name, address in (("http", settings.address), ("coap", settings.coap_address)):
        if address is not None and not address.loopback and not settings.insecure:
            raise Invalid(
                f"{name} = {getattr(settings, name)!r} can be reached from other machines, and nothing checks who "
                "they are: listen on 127.0.0.1, or accept that with --insecure"
            )
    return settings


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[V6]:PORT` or `:PORT`; raises `Invalid`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535 or (":" in host and host[0] != "["):
        raise Invalid(f"{text!r} is no address: write HOST:PORT, such as 127.0.0.1:5050 (port 0 picks a free one)")
    return Address(host.strip("[]") or "0.0.0.0", int(port))


def default_data_dir() -> Path:
    """Where a master keeps its data when nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/edgerm/master")
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "edgerm" / "master"


def flags(settings: msgspec.Struct, above: str = "") -> Iterator[tuple[str, str]]:
    """Every setting by its name in the file, with the value that holds; what may be a secret is not shown."""
    for field in msgspec.structs.fields(settings):
        name, value = f"{above}{field.name}", getattr(settings, field.name)
        if isinstance(value, msgspec.Struct):
            yield from flags(value, f"{name}.")
        elif value and any(word in field.name.lower() for word in _SECRET):
            yield name, HIDDEN
        else:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)
