"""The smallest program that only waits, for a container that shall hold a network namespace and nothing else.

Its bytes are made here, so that no image has to be fetched; static, a few instructions for Linux. Sources: elf(5),
syscall(2). What does not live here: the container (`networks`).
"""

from __future__ import annotations

import io
import struct
import tarfile
from hashlib import sha256

NAME = "edgerm-hold"  # of the process too: 15 characters at most
BASE = 0x40_0000
HEAD = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
EM_X86_64, EM_AARCH64 = 62, 183
ET_EXEC, PT_LOAD, READ_EXECUTE = 2, 1, 5
PAGE_MAX = 0x1_0000  # of any aarch64 kernel

X86_64 = bytes.fromhex(
    "b822000000"  # begin: mov eax, 34 (pause)
    "0f05"  # syscall
    "ebf7"  # jmp begin
)
AARCH64 = struct.pack(
    "<7I",
    0xD2800000,  # begin: mov x0, #0
    0xD2800001,  # mov x1, #0
    0xD2800002,  # mov x2, #0
    0xD2800003,  # mov x3, #0
    0xD2800928,  # mov x8, #73 (ppoll: of nothing, for ever)
    0xD4000001,  # svc #0
    0x17FFFFFA,  # b begin
)
MACHINES = {"x86_64": (EM_X86_64, X86_64), "aarch64": (EM_AARCH64, AARCH64)}


def executable(machine: str) -> bytes:
    """An ELF file for this machine, as `uname -m` and the engine call it. Raises `KeyError` for others."""
    number, code = MACHINES[machine]
    start = HEAD.size + SEGMENT.size
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little endian, version 1
    head = HEAD.pack(ident, ET_EXEC, number, 1, BASE + start, HEAD.size, 0, 0, HEAD.size, SEGMENT.size, 1, 0, 0, 0)
    size = start + len(code)
    return head + SEGMENT.pack(PT_LOAD, READ_EXECUTE, 0, BASE, BASE, size, size, PAGE_MAX) + code


def image(machine: str) -> tuple[str, bytes]:
    """What its image is called, by what is in it, and the tar file for `docker import`. Raises `KeyError`."""
    program = executable(machine)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo(NAME)
        entry.size, entry.mode = len(program), 0o555
        tar.addfile(entry, io.BytesIO(program))
    return f"{NAME}:{machine}-{sha256(program).hexdigest()[:12]}", file.getvalue()
