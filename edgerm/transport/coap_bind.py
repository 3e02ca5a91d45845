"""Where a CoAP server listens: one UDP socket for IPv6 and IPv4 alike, which nobody else may listen on.

What does not live here: what is done with it (`coap_socket`).
"""

from __future__ import annotations

import asyncio
import errno
import socket

from edgerm.core.errors import Unavailable

RECEIVE_BUFFER_BYTES = 4 << 20  # a thousand agents that are rung at once beat at once


async def bind(host: str, port: int) -> socket.socket:
    """A bound socket; raises `Unavailable` with the remedy."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"{host} is no address of this machine ({error}): choose another with --coap") from None
    try:
        bound = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    except OSError as error:
        raise Unavailable(
            f"CoAP needs IPv6 in the kernel, IPv4 alone is served with it too ({error.strerror}): "
            "enable it, or do without CoAP: --coap ''"
        ) from None
    try:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        family, _, _, _, address = found[0]
        bound.bind((f"::ffff:{address[0]}", address[1], 0, 0) if family == socket.AF_INET else address)
    except OSError as error:
        bound.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
        raise Unavailable(f"{where} (UDP) {why}: end what uses it, or choose another with --coap") from None
    return bound
