"""Counts what goes over the loopback interface to and from a port: IP bytes, headers and all, as the kernel has them.

Needs the right to open a packet socket (root). Each packet passes loopback twice; the incoming side is counted.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

ETH_P_ALL = 0x0003
SO_RCVBUFFORCE = 33  # socket(7); Python has no name for it
BUFFER_BYTES = 1 << 24
TCP, UDP = 6, 17


@dataclass
class Count:
    """What passed."""

    packets: int = 0
    ip_bytes: int = 0  # with IP and UDP or TCP headers
    payload_bytes: int = 0  # of UDP or TCP

    def __sub__(self, other: Count) -> Count:
        return Count(
            self.packets - other.packets, self.ip_bytes - other.ip_bytes, self.payload_bytes - other.payload_bytes
        )


class Tap:
    """Counts from now on; `count` is up to date in each turn of the loop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self._socket.bind(("lo", 0))
        self._socket.setblocking(False)
        self._count = Count()

    def read(self) -> Count:
        """What has passed so far."""
        while True:
            try:
                data, address = self._socket.recvfrom(65536)
            except BlockingIOError:
                return Count(self._count.packets, self._count.ip_bytes, self._count.payload_bytes)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            self._take(data)

    def _take(self, data: bytes) -> None:
        if data[0] >> 4 != 4:
            return
        header, kind = (data[0] & 15) * 4, data[9]
        if kind not in (TCP, UDP) or self._port not in struct.unpack_from("!HH", data, header):
            return
        transport = 8 if kind == UDP else (data[header + 12] >> 4) * 4
        total = int.from_bytes(data[2:4])
        self._count.packets += 1
        self._count.ip_bytes += total
        self._count.payload_bytes += total - header - transport

    def close(self) -> None:
        """Stop."""
        self._socket.close()


@asynccontextmanager
async def tap(port: int) -> AsyncIterator[Tap]:
    """A tap; PermissionError where packet sockets are not allowed."""
    opened = Tap(port)

    async def drain() -> None:
        while True:
            opened.read()
            await asyncio.sleep(0.05)

    draining = asyncio.create_task(drain())
    try:
        yield opened
    finally:
        draining.cancel()
        opened.close()
