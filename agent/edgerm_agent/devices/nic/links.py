"""Netlink: how interfaces are, and the steps of a plan done. The one file that names pyroute2, imported when used.

All calls block. What does not live here: which steps are wanted (`plan`).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from edgerm.core.errors import Conflict
from edgerm_agent import netns
from edgerm_agent.devices.nic.plan import AddVlan, Delete, Down, Flush, Link, Move, Rename, Reset, Step, Up

IFF_UP, IFF_PROMISC, IFF_ALLMULTI = 0x1, 0x100, 0x200
ADDR_GEN_MODE_NONE = 1  # include/uapi/linux/if_link.h
SIOCETHTOOL = 0x8946
ETHTOOL_GET_TS_INFO = 0x41
TS_INFO = struct.Struct("IIiI3II3I")  # struct ethtool_ts_info; the third is the clock's number


def check() -> None:
    """Raises `ModuleNotFoundError` if the library is not installed."""
    if find_spec("pyroute2") is None:
        raise ModuleNotFoundError("No module named 'pyroute2'")


class Netlink:
    """The kernel's interfaces. A path is that of a namespace, empty: the box's, which is the agent's own."""

    def look(self, path: str) -> tuple[Link, ...]:
        """All interfaces there. Raises `OSError` if there is no such namespace."""
        _library()
        return netns.run(path, _look)

    def apply(self, path: str, steps: Iterable[Step]) -> None:
        """Do these steps there, in order. Raises `Conflict` with what the kernel says to the first that it refuses."""
        _library()
        own = os.open(netns.OWN_PATH, os.O_RDONLY | os.O_CLOEXEC)
        try:
            netns.run(path, lambda: _apply(tuple(steps), own))
        finally:
            os.close(own)

    def number_of(self, path: str) -> int:
        """The kernel's number of a namespace. Raises `OSError`."""
        return netns.number_of(path)

    def find(self, number: int) -> str:
        """A path to the namespace with this number; empty: it seems to be gone."""
        return netns.find(number)


def clock_number(name: str) -> int:
    """Of the PTP clock of an interface of the box, as its driver says; negative: it has none."""
    info = ctypes.create_string_buffer(TS_INFO.pack(ETHTOOL_GET_TS_INFO, 0, -1, *[0] * 8))
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(info))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        try:
            fcntl.ioctl(door, SIOCETHTOOL, request)
        except OSError:
            return -1
    return int(TS_INFO.unpack_from(info)[2])


# --- looking ------------------------------------------------------------------------------------------------------


def _library() -> Any:
    """Before anything is timed: on a slow box the import takes seconds."""
    from pyroute2 import IPRoute  # noqa: PLC0415 - 24 MB, and only boxes with marked interfaces need it

    return IPRoute


@contextmanager
def _netlink() -> Iterator[Any]:
    """A socket in the namespace of this thread."""
    with _library()() as socket_:
        yield socket_


def _look() -> tuple[Link, ...]:
    with _netlink() as kernel:
        counts = Counter(each["index"] for each in kernel.get_addr())
        return tuple(_link(each, counts[each["index"]]) for each in kernel.get_links())


def _link(found: Any, addresses: int) -> Link:
    kind = found.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
    return Link(
        name=found.get_attr("IFLA_IFNAME"),
        index=found["index"],
        mac=found.get_attr("IFLA_ADDRESS") or "",
        permanent=found.get_attr("IFLA_PERM_ADDRESS") or "",
        kind=kind,
        bus=found.get_attr("IFLA_PARENT_DEV_NAME") or "",
        parent=(found.get_attr("IFLA_LINK") or 0) if kind == "vlan" else 0,
        master=found.get_attr("IFLA_MASTER") or 0,
        mtu=found.get_attr("IFLA_MTU") or 0,
        up=bool(found["flags"] & IFF_UP),
        addresses=addresses,
    )


# --- doing --------------------------------------------------------------------------------------------------------


def _apply(steps: tuple[Step, ...], own: int) -> None:
    with _netlink() as kernel:
        for step in steps:
            try:
                _do(kernel, step, own)
            except Exception as error:
                if not isinstance(error, OSError) and not hasattr(error, "code"):
                    raise
                raise Conflict(f"interface {step.link}: {_words(step, error)}") from error


def _words(step: Step, error: Exception) -> str:
    """The library's errors have the kernel's number as `code`."""
    number = getattr(error, "code", None) or getattr(error, "errno", None) or 0
    doing = type(step).__name__.lower()
    if isinstance(step, AddVlan) and number == errno.EOPNOTSUPP:
        return "this kernel makes no VLANs: load its module 8021q"
    if isinstance(step, Move | Rename) and number == errno.EEXIST:
        return f"another interface is called {step.name} where it is to go"
    return f"the kernel refuses ({doing}): {os.strerror(number) if number > 0 else error}"


def _do(kernel: Any, step: Step, own: int) -> None:
    index = _index(kernel, step.link)
    match step:
        case Down():
            kernel.link("set", index=index, flags=0, change=IFF_UP | IFF_PROMISC | IFF_ALLMULTI)
        case Up():
            _without_addresses(kernel, index)
            kernel.link("set", index=index, state="up")
        case Move():
            _with_namespace(step.path, own, lambda fd: kernel.link("set", index=index, net_ns_fd=fd, ifname=step.name))
        case Rename():
            kernel.link("set", index=index, ifname=step.name)
        case AddVlan():
            kernel.link("add", ifname=step.name, kind="vlan", link=index, vlan_id=step.tag)
        case Delete():
            kernel.link("del", index=index)
        case Flush():
            kernel.flush_addr(index=index)
        case Reset():
            if step.mac:
                kernel.link("set", index=index, address=step.mac)
            kernel.link("set", index=index, mtu=step.mtu)


def _index(kernel: Any, name: str) -> int:
    for each in kernel.get_links():
        if each.get_attr("IFLA_IFNAME") == name:
            return int(each["index"])
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def _without_addresses(kernel: Any, index: int) -> None:
    """The kernel would give it an IPv6 address when it comes up; a kernel without IPv6 refuses, and gives none."""
    mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_MODE_NONE)]}
    try:
        kernel.link("set", index=index, IFLA_AF_SPEC={"attrs": [("AF_INET6", mode)]})
    except Exception as error:
        if getattr(error, "code", None) not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            raise


def _with_namespace(path: str, own: int, work: Callable[[int], object]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else os.dup(own)
    try:
        work(descriptor)
    finally:
        os.close(descriptor)
