"""Between a task and a container: names, labels, what is asked of the engine, how an end is read. Pure translation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from signal import Signals
from typing import Any

from edgerm.core import cpulists
from edgerm.core.errors import Invalid
from edgerm.core.ids import AgentId, FrameworkId, LaunchId, TaskId, TaskKey
from edgerm.plugin.device import DeviceNode, Mount
from edgerm.plugin.executor import ContainerSpec, Exit, ExitReason, LaunchFailed, LaunchSpec, Limits, PortMapping, Usage
from edgerm_agent.executors.docker import idle_program, parameters

AGENT, FRAMEWORK, TASK, LAUNCH = "edgerm.agent", "edgerm.framework", "edgerm.task", "edgerm.launch"
VERSION, SANDBOX, DISK = "edgerm.version", "edgerm.sandbox", "edgerm.disk_bytes"
NETWORK_OF = "edgerm.network"  # of a container that holds a task's network, and is none of the task's: its key
LABELS_VERSION = "1"  # of what the labels mean

PIDS_MAX = 4096  # a bound against fork bombs, not a limit that a service meets
NANO_PER_MILLI = 1_000_000
MILLI_MIN = 10  # the engine takes no less than a hundredth of a CPU
LOG_FILES = 2
SIGNAL_BASE = 128
SIGNAL_MAX = 64

NETWORK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")

Json = dict[str, Any]


def name_of(agent_id: AgentId, key: TaskKey) -> str:
    """The container's name, the same each time: so a task never has two."""
    return f"edgerm-{_digest(agent_id, key)}"


def network_name_of(agent_id: AgentId, key: TaskKey) -> str:
    """Likewise of the container that holds its network."""
    return f"edgerm-net-{_digest(agent_id, key)}"


def _digest(agent_id: AgentId, key: TaskKey) -> str:
    return sha256("\0".join((agent_id, *key)).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def labels_of(agent_id: AgentId, spec: LaunchSpec) -> dict[str, str]:
    """What the container says about itself, also to an agent that has lost its journal."""
    labels = {
        AGENT: agent_id,
        FRAMEWORK: spec.key.framework_id,
        TASK: spec.key.task_id,
        LAUNCH: spec.key.launch_id,
        VERSION: LABELS_VERSION,
    }
    if spec.limits.disk_bytes is not None:
        labels |= {SANDBOX: str(spec.sandbox), DISK: str(spec.limits.disk_bytes)}
    return labels


def key_of(labels: Mapping[str, str] | None) -> TaskKey | None:
    """The task of a container with these labels; None: they are not a task's."""
    found = labels or {}
    if not all(name in found for name in (FRAMEWORK, TASK, LAUNCH)):
        return None
    return TaskKey(FrameworkId(found[FRAMEWORK]), TaskId(found[TASK]), LaunchId(found[LAUNCH]))


def network_body_of(agent_id: AgentId, key: TaskKey, image: str) -> Json:
    """The request that creates the container which holds a task's network: it has no rights, and nothing to do."""
    return {
        "Image": image,
        "Entrypoint": [f"/{idle_program.NAME}"],
        "Labels": {AGENT: agent_id, VERSION: LABELS_VERSION, NETWORK_OF: str(key)},
        "User": "65534:65534",
        "HostConfig": {
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "ReadonlyRootfs": True,
            "PidsLimit": 16,  # one, and the threads of what starts it
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
        },
    }


def body_of(agent_id: AgentId, spec: LaunchSpec, *, privileged: bool, log_bytes: int, cpus: int) -> Json:
    """The request that creates the container (Engine API, ContainerCreate). Raises `LaunchFailed`.

    `privileged`: parameters that give rights are allowed; `cpus`: how many the engine has.
    """
    container = spec.container
    if container is None or not container.image:
        raise LaunchFailed(f"task {spec.key.task_id} names no image")
    _check_network(container.network, container.ports)
    host: Json = {
        "NetworkMode": _held_network(agent_id, spec, container) if spec.network else container.network,
        "PortBindings": _bindings(container.ports),
        "Mounts": [_mount(mount) for mount in container.mounts],
        "Devices": [_node(node) for node in container.nodes],
        "Privileged": container.privileged,
        "PidsLimit": PIDS_MAX,
        "LogConfig": {"Type": "local", "Config": _log_config(log_bytes)},
        "RestartPolicy": {"Name": "no"},
        **_limits(spec.limits, cpus),
        **_granted(container),
    }
    body: Json = {
        "Image": container.image,
        "Env": [f"{name}={value}" for name, value in spec.env],
        "Labels": dict(container.annotations),
        "ExposedPorts": {_port(port): {} for port in container.ports},
        "HostConfig": host,
    }
    if spec.program:
        body["Entrypoint"] = [spec.program]
    if spec.argv:
        body["Cmd"] = list(spec.argv)
    if spec.stdin_open:
        body |= {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
    if container.hostname:
        body["Hostname"] = container.hostname
    if spec.user:
        body["User"] = spec.user
    parameters.apply(container.parameters, body, privileged=privileged or container.privileged)
    if spec.cpus:
        _bind(host, spec.cpus)
    body["Labels"] |= labels_of(agent_id, spec)  # last: no parameter may claim to be another task
    return body


def _check_network(network: str, ports: Sequence[PortMapping]) -> None:
    if NETWORK.fullmatch(network) is None:  # container:ID would be somebody else's
        raise LaunchFailed(f"{network[:40]!r} is no name of a network")
    if ports and network in ("host", "none"):
        raise LaunchFailed(f"port mappings need the network bridge or one of your own, not {network!r}")


def _held_network(agent_id: AgentId, spec: LaunchSpec, container: ContainerSpec) -> str:
    """The network that is held for the task is all that it has. Raises `LaunchFailed` for what would need another."""
    if container.network not in ("host", "bridge", "none"):
        raise LaunchFailed(f"a task that claims network interfaces cannot be in the network {container.network!r} too")
    if container.ports:
        raise LaunchFailed("a task that claims network interfaces has no other network: it can have no port mappings")
    if container.hostname:
        raise LaunchFailed("a task that claims network interfaces has a network made before it: it can set no hostname")
    return f"container:{network_name_of(agent_id, spec.key)}"


def _port(port: PortMapping) -> str:
    return f"{port.container_port}/{port.protocol}"


def _bindings(ports: Sequence[PortMapping]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        bindings.setdefault(_port(port), []).append({"HostPort": str(port.host_port)})
    return bindings


def _mount(mount: Mount) -> Json:
    """As a mount, not as a `-v` text, in which a colon would mean something; what does not exist is not made."""
    kind = "volume" if mount.named else "bind"
    return {"Type": kind, "Source": mount.source, "Target": mount.container_path, "ReadOnly": mount.read_only}


def _node(node: DeviceNode) -> Json:
    return {
        "PathOnHost": node.host_path,
        "PathInContainer": node.container_path,
        "CgroupPermissions": node.permissions,
    }


def _granted(container: ContainerSpec) -> Json:
    """What devices ask of the engine beside nodes and mounts."""
    found: Json = {}
    if container.cdi_names:
        found["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": list(container.cdi_names)}]
    if container.runtime:
        found["Runtime"] = container.runtime
    return found


def _bind(host: Json, cpus: tuple[int, ...]) -> None:
    """The container runs on these CPUs alone. Raises `LaunchFailed` for a parameter that asks for others."""
    try:
        asked = cpulists.parse(host.get("CpusetCpus", ""))
    except Invalid as error:
        raise LaunchFailed(f"the parameter cpuset-cpus: {error}") from error
    if not set(asked) <= set(cpus):
        raise LaunchFailed(
            f"the parameter cpuset-cpus={cpulists.to_text(asked)} asks for CPUs that the task does not have: "
            f"it has {cpulists.to_text(cpus)}"
        )
    host["CpusetCpus"] = cpulists.to_text(asked or cpus)


def _log_config(log_bytes: int) -> dict[str, str]:
    return {"max-size": str(max(log_bytes // LOG_FILES, 1)), "max-file": str(LOG_FILES), "compress": "false"}


def _limits(limits: Limits, cpus: int) -> Json:
    found: Json = {}
    if limits.cpus_milli is not None:  # all CPUs are no limit, and the engine refuses more
        milli = min(max(limits.cpus_milli, MILLI_MIN), cpus * 1000)
        found["NanoCpus"] = milli * NANO_PER_MILLI
    if limits.memory_bytes is not None:
        found |= {"Memory": limits.memory_bytes, "MemorySwap": limits.memory_bytes}
    return found


def exit_of(state: Mapping[str, Any], *, memory_limited: bool, oom_seen: bool) -> Exit:
    """How a container ended, by its State (ContainerInspect); without the tail.

    The engine tells a signal as 128 + its number, as a shell does; no program of its own accord should use these codes.
    """
    code = int(state.get("ExitCode") or 0)
    oom = bool(state.get("OOMKilled")) or oom_seen
    number = code - SIGNAL_BASE if SIGNAL_BASE < code <= SIGNAL_BASE + SIGNAL_MAX else None
    message = f"exited with code {code}" if number is None else f"killed by {_signal_name(number)}"
    if error := str(state.get("Error") or ""):
        message = " ".join(f"{message}: {error}".split())
    if oom and code != 0 and memory_limited:
        return Exit(ExitReason.MEMORY, None if number else code, number, message=f"{message}: out of its memory limit")
    return Exit(ExitReason.ENDED, None if number else code, number, message=message)


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def usage_of(stats: Mapping[str, Any]) -> Usage | None:
    """CPU time and memory by one ContainerStats; None of a container that does not run.

    Memory without the page cache that the kernel would give back first, as `docker stats` counts.
    """
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    memory = stats.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    detail = memory.get("stats") or {}
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    return Usage(cpu_s=int(cpu.get("total_usage", 0)) / 1e9, memory_bytes=max(int(memory["usage"]) - int(cache), 0))
