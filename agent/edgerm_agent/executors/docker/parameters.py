"""Options of `docker run` that a task may give as Mesos' `DockerInfo.parameters`. Pure: into a ContainerCreate body."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from edgerm.plugin.executor import LaunchFailed

Json: TypeAlias = dict[str, Any]
Set: TypeAlias = Callable[[Json, str], None]

UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
OURS = "edgerm."
TRUE = {"": True, "true": True, "1": True, "false": False, "0": False}


def apply(given: Iterable[tuple[str, str]], body: Json, *, privileged: bool) -> None:
    """Put `given` into `body`, in order. Raises `LaunchFailed` for an option that is unknown, not allowed or no value.

    `privileged`: options that give a container rights over the box are allowed.
    """
    for key, value in given:
        name = key.lstrip("-").lower()
        name = ALIASES.get(name, name)
        if name in GIVES_RIGHTS and not privileged:
            raise LaunchFailed(f"the parameter {key} gives rights over the box: set executors.docker.privileged there")
        setter = KNOWN.get(name) or GIVES_RIGHTS.get(name)
        if setter is None:
            known = ", ".join(sorted(KNOWN.keys() | GIVES_RIGHTS.keys()))
            raise LaunchFailed(f"the parameter {key[:40]!r} is not known here; known are: {known}")
        try:
            setter(body, value)
        except ValueError as error:
            raise LaunchFailed(f"the parameter {key}={value[:80]!r} is no value of its kind: {error}") from error


def _host(body: Json) -> Json:
    host: Json = body["HostConfig"]
    return host


def _text(name: str) -> Set:
    def put(body: Json, value: str) -> None:
        body[name] = value

    return put


def _host_text(name: str) -> Set:
    def put(body: Json, value: str) -> None:
        _host(body)[name] = value

    return put


def _host_list(name: str) -> Set:
    def put(body: Json, value: str) -> None:
        _host(body).setdefault(name, []).append(value)

    return put


def _host_flag(name: str) -> Set:
    def put(body: Json, value: str) -> None:
        if value.lower() not in TRUE:
            raise ValueError("write true or false")
        _host(body)[name] = TRUE[value.lower()]

    return put


def _host_number(name: str, low: int, high: int) -> Set:
    def put(body: Json, value: str) -> None:
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"{low} to {high} are allowed")
        _host(body)[name] = number

    return put


def _host_bytes(name: str) -> Set:
    def put(body: Json, value: str) -> None:
        _host(body)[name] = size_of(value)

    return put


def size_of(text: str) -> int:
    """`64m` as bytes, with the units of `docker run`. Raises `ValueError`."""
    match = re.fullmatch(r"(\d{1,15})([bkmg]?)b?", text.strip().lower())
    if match is None:
        raise ValueError("write a number of bytes, or one with k, m or g")
    return int(match[1]) * UNITS[match[2]]


def _label(body: Json, value: str) -> None:
    name, _, text = value.partition("=")
    if not name or name.startswith(OURS):
        raise ValueError(f"a label has a name, which does not begin with {OURS!r}")
    body["Labels"][name] = text


def _env(body: Json, value: str) -> None:
    name, equals, _ = value.partition("=")
    if not name or not equals:
        raise ValueError("write NAME=VALUE")
    body["Env"] = [entry for entry in body["Env"] if not entry.startswith(f"{name}=")] + [value]


def _entrypoint(body: Json, value: str) -> None:
    """One program, as `docker run --entrypoint` has it."""
    body["Entrypoint"] = [value] if value else []


def _tmpfs(body: Json, value: str) -> None:
    path, _, options = value.partition(":")
    if not path.startswith("/"):
        raise ValueError("write /PATH or /PATH:OPTIONS")
    _host(body).setdefault("Tmpfs", {})[path] = options


def _ulimit(body: Json, value: str) -> None:
    name, _, numbers = value.partition("=")
    soft, _, hard = numbers.partition(":")
    entry = {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    _host(body).setdefault("Ulimits", []).append(entry)


def _sysctl(body: Json, value: str) -> None:
    name, equals, text = value.partition("=")
    if not name or not equals:
        raise ValueError("write NAME=VALUE")
    _host(body).setdefault("Sysctls", {})[name] = text


def _device(body: Json, value: str) -> None:
    parts = value.split(":")
    if not 1 <= len(parts) <= 3 or not parts[0].startswith("/"):
        raise ValueError("write DEVICE[:PATH[:rwm]]")
    inside = parts[1] if len(parts) > 1 else parts[0]
    rights = parts[2] if len(parts) > 2 else "rwm"
    entry = {"PathOnHost": parts[0], "PathInContainer": inside, "CgroupPermissions": rights}
    _host(body).setdefault("Devices", []).append(entry)


ALIASES = {"l": "label", "e": "env", "u": "user", "w": "workdir", "h": "hostname"}

KNOWN: dict[str, Set] = {
    "add-host": _host_list("ExtraHosts"),
    "cap-drop": _host_list("CapDrop"),
    "cpu-shares": _host_number("CpuShares", 2, 262_144),
    "cpuset-cpus": _host_text("CpusetCpus"),
    "dns": _host_list("Dns"),
    "dns-option": _host_list("DnsOptions"),
    "dns-search": _host_list("DnsSearch"),
    "domainname": _text("Domainname"),
    "entrypoint": _entrypoint,
    "env": _env,
    "hostname": _text("Hostname"),
    "init": _host_flag("Init"),
    "label": _label,
    "memory-reservation": _host_bytes("MemoryReservation"),
    "oom-score-adj": _host_number("OomScoreAdj", 0, 1000),
    "read-only": _host_flag("ReadonlyRootfs"),
    "shm-size": _host_bytes("ShmSize"),
    "stop-signal": _text("StopSignal"),
    "sysctl": _sysctl,
    "tmpfs": _tmpfs,
    "ulimit": _ulimit,
    "workdir": _text("WorkingDir"),
}
"""Those that any task may use."""

GIVES_RIGHTS: dict[str, Set] = {
    "cap-add": _host_list("CapAdd"),
    "cgroupns": _host_text("CgroupnsMode"),
    "device": _device,
    "device-cgroup-rule": _host_list("DeviceCgroupRules"),
    "group-add": _host_list("GroupAdd"),
    "ipc": _host_text("IpcMode"),
    "pid": _host_text("PidMode"),
    "privileged": _host_flag("Privileged"),
    "security-opt": _host_list("SecurityOpt"),
    "user": _text("User"),
    "userns": _host_text("UsernsMode"),
    "uts": _host_text("UTSMode"),
}
"""Those with which a container may reach the box itself, or be a user whom the operator did not name."""
