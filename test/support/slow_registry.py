"""A registry that has one image, and stops in the middle of its layer until it is told to go on."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from support.engine import TestEngine

LAYER_BYTES = 1 << 20
TLS = b"\x16"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class SlowRegistry:
    """Serves `image`; `asked` is set when the layer stands still."""

    def __init__(self, address: str) -> None:
        self.image = f"{address}/slow:1"
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self._layer, plain = _layer()
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": _rootfs(plain)}
        self._config = json.dumps(config).encode()
        self._manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _entry("application/vnd.docker.container.image.v1+json", self._config),
                "layers": [_entry("application/vnd.docker.image.rootfs.diff.tar.gzip", self._layer)],
            }
        ).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            first = await reader.readexactly(1)
            if first == TLS:  # the engine tries that first
                writer.close()
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
            method, path = head.split(" ")[:2]
            body, kind = self._find(path)
            half = len(body) // 2 if body is self._layer else len(body)
            lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", f"Content-Type: {kind}", "Connection: close"]
            lines += [f"Docker-Content-Digest: {_digest(body)}", "Docker-Distribution-Api-Version: registry/2.0"]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            if method == "GET":
                writer.write(body[:half])
                await writer.drain()
                if half < len(body):
                    self.asked.set()
                    await self.go_on.wait()
                    writer.write(body[half:])
                    await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def _find(self, path: str) -> tuple[bytes, str]:
        if "/manifests/" in path:
            return self._manifest, MANIFEST
        for body in (self._config, self._layer):
            if _digest(body) in path:
                return body, "application/octet-stream"
        return b"{}", "application/json"


def _layer() -> tuple[bytes, bytes]:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        entry = tarfile.TarInfo("noise")
        entry.size = LAYER_BYTES
        tar.addfile(entry, io.BytesIO(os.urandom(LAYER_BYTES)))
    return gzip.compress(plain.getvalue(), 1), plain.getvalue()


def _rootfs(plain: bytes) -> dict[str, object]:
    return {"type": "layers", "diff_ids": [_digest(plain)]}


def _entry(kind: str, body: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(body), "digest": _digest(body)}


def _digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


@asynccontextmanager
async def slow_registry(engine: TestEngine) -> AsyncIterator[SlowRegistry]:
    """A registry on the loopback that the engine sees."""
    listener = engine.room.socket()
    listener.bind(("127.0.0.1", 0))
    registry = SlowRegistry(f"127.0.0.1:{listener.getsockname()[1]}")
    server = await asyncio.start_server(registry.serve, sock=listener)
    try:
        yield registry
    finally:
        registry.go_on.set()
        server.close()
        await server.wait_closed()
