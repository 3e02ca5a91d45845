"""The one file that names wasmtime: compiling modules, and one guest with an engine, a store and limits of its own.

No threads, sockets or files of ours here. Rules that the library forces (measured with 50.0.1):
- An epoch belongs to an engine, so each guest has its own, or a kill would end all.
- A Python host function must not raise: the library keeps the exception in a global, and another thread's guest
  would end with it. So the one that we have answers an errno, and `proc_exit` is WebAssembly (`shim.py`).
- Its custom output call-backs run on foreign threads that outlive the interpreter: the guest writes into pipes.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import wasmtime

from edgerm_agent.executors.wasm_host import lines, mail, polling, shim
from edgerm_agent.executors.wasm_host.values import BadModule, Facts, GuestSpec, Outcome, check, one_line, trap_text

CONFIG_VERSION = 1  # raise it when `_config` changes what the compiler makes
PAGE_BYTES = 65536
MEMORY_BYTES_MAX = 1 << 32  # a 32-bit memory has no more
TABLE_ELEMENTS_MAX = 200_000  # 8 bytes each, and no memory limit counts them
TABLES_MAX = 8
WASM_STACK_BYTES = 512 * 1024
SMALL_RESERVATION_BYTES = 1 << 20
MAP_NORESERVE = 0x4000  # of linux/mman.h on x86-64 and aarch64; the mmap module has it since 3.13
FACTS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """What all engines of a host share; compiled code fits engines with the same settings only."""

    wide: bool
    """Reserve 4 GiB of addresses per memory, so that no access needs a check of its bounds."""

    @property
    def tag(self) -> str:
        """Names the engine's version and settings in names of files."""
        width = "wide" if self.wide else "narrow"
        return f"{width}-{_library_id()}"


def _library_id() -> str:
    """Tells builds of the library apart without the cost of importing importlib.metadata (5 MiB)."""
    files = list(Path(wasmtime.__file__).parent.rglob("*wasmtime.so"))
    stats = [(path.parent.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return sha256(repr((CONFIG_VERSION, sorted(stats))).encode()).hexdigest()[:16]


def detect_settings() -> Settings:
    """Wide where 64 guests would find their addresses: not with RLIMIT_AS, nor on kernels with 39-bit addresses."""
    try:
        mmap.mmap(-1, 64 * MEMORY_BYTES_MAX, flags=mmap.MAP_PRIVATE | MAP_NORESERVE, prot=0).close()
    except (OSError, ValueError):
        return Settings(wide=False)
    return Settings(wide=True)


def _config(settings: Settings) -> wasmtime.Config:
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.max_wasm_stack = WASM_STACK_BYTES
    # Off: what would escape the limits (shared memories, a second heap) or what WASI preview 1 does not know.
    config.wasm_threads = False
    config.wasm_multi_memory = False
    config.wasm_memory64 = False
    config.wasm_component_model = False
    if not settings.wide:
        config.memory_reservation = SMALL_RESERVATION_BYTES
        config.memory_reservation_for_growth = SMALL_RESERVATION_BYTES
    return config


def compile_module(settings: Settings, wasm: bytes) -> bytes:
    """Machine code for `wasm`, for `Guest`. Blocks for as long as the compiler takes. Raises `BadModule`."""
    if wasm[:4] != b"\0asm":
        raise BadModule(f"this is no WebAssembly: it begins with {wasm[:8]!r}")
    if wasm[4:8] == b"\x0d\0\x01\0":
        raise BadModule("this is a WebAssembly component; only modules (WASI preview 1) can run so far")
    with wasmtime.Engine(_config(settings)) as engine:
        try:
            with wasmtime.Module(engine, wasm) as module:
                return bytes(module.serialize())
        except wasmtime.WasmtimeError as error:
            raise BadModule(one_line(str(error))) from None


class Shared:
    """What the guests of a host share: settings, compiled shims, facts of modules. Safe to use from many threads."""

    def __init__(self, settings: Settings, compiled: Callable[[bytes], Path]) -> None:
        self.settings = settings
        self._compiled = compiled
        self._shims: dict[str, Path] = {}
        self._facts: dict[Path, Facts] = {}

    def shim(self, text: str) -> Path:
        """The code of a shim, made when the first guest needs it: an idle host never loads the compiler."""
        if text not in self._shims:
            self._shims[text] = self._compiled(bytes(wasmtime.wat2wasm(text)))
        return self._shims[text]

    def facts(self, code: Path, module: wasmtime.Module) -> Facts:
        """The facts of the module whose code this is."""
        facts = self._facts.get(code)
        if facts is None:
            if len(self._facts) >= FACTS_KEPT:
                self._facts.clear()
            facts = self._facts[code] = _facts_of(module)
        return facts


def _facts_of(module: wasmtime.Module) -> Facts:
    imported = frozenset(item.name or "" for item in module.imports if item.module == shim.WASI)
    functions, memory_bytes = {}, 0
    for item in module.exports:
        kind = item.type
        if isinstance(kind, wasmtime.FuncType):
            functions[item.name] = not kind.params and not kind.results
        elif isinstance(kind, wasmtime.MemoryType) and item.name == "memory":
            memory_bytes = kind.limits.min * PAGE_BYTES
    ours = frozenset(item.name or "" for item in module.imports if item.module == mail.MODULE)
    return Facts(imported, functions, memory_bytes, ours)


class Guest:
    """One instance of one module. One thread makes, runs and closes it; any thread may `kill` and `memory_bytes`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._engine = wasmtime.Engine(_config(shared.settings))
        self._store = wasmtime.Store(self._engine)
        self._linker = wasmtime.Linker(self._engine)
        self._modules: list[wasmtime.Module] = []
        self._woken = threading.Event()
        self.killed = False
        """Whether `kill` was called."""
        self._open = threading.Lock()  # held while the store must not be closed
        self._closed = False
        self._memory: wasmtime.Memory | None = None
        self._guard: wasmtime.Instance | None = None
        self._entry: wasmtime.Func | None = None
        self._last_memory_bytes = 0
        self._mail: mail.Mail | None = None
        self._bank: lines.Bank | None = None

    def kill(self) -> None:
        """End the guest at its next loop or call, or wake it from its sleep; before `run`: it ends at once."""
        self.killed = True  # first: `load` looks at it after it has set its deadline
        with self._open:
            if not self._closed:
                self._engine.increment_epoch()
        self._woken.set()  # last: a sleeper that wakes must find its time over
        for waiting in (self._mail, self._bank):
            if waiting is not None:
                waiting.wake()

    def memory_bytes(self) -> int:
        """The size of its memory; after `close`, the last one."""
        with self._open:
            # The library reads the length atomically; a guest that grows meanwhile gives the old or the new one.
            if self._memory is not None and not self._closed:
                self._last_memory_bytes = self._memory.data_len(self._store)
            return self._last_memory_bytes

    def load(self, code: Path, spec: GuestSpec) -> None:
        """Instantiate the compiled module, its start section included. Raises `BadModule` or `OSError`."""
        try:
            self._load(code, spec)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            error.__traceback__ = None  # see `run`
            raise BadModule(one_line(str(error))) from None

    def _load(self, code: Path, spec: GuestSpec) -> None:
        module = self._module_of(code)
        facts = self._shared.facts(code, module)
        check(facts, spec)
        self._linker.allow_shadowing = True
        self._linker.define_wasi()
        self._store.set_limits(
            memory_size=min(spec.memory_bytes or MEMORY_BYTES_MAX, MEMORY_BYTES_MAX),
            table_elements=TABLE_ELEMENTS_MAX,
            tables=TABLES_MAX,
        )
        self._store.set_wasi(_wasi(spec))
        self._monotonic_zero_ns = time.monotonic_ns()  # the guest's monotonic clock begins here
        self._store.set_epoch_deadline(1)
        if self.killed:  # an earlier kill's epoch is before the deadline
            self._engine.increment_epoch()
        if "poll_oneoff" in facts.imported:
            self._put_poll()
        if not facts.ours.isdisjoint(mail.CALLS):
            self._put_mail(facts.ours, spec.messages)
        if not facts.ours.isdisjoint(lines.CALLS):
            self._put_lines(facts.ours, spec.chips)
        if not facts.imported.isdisjoint(shim.GUARDED):
            self._put_guard(facts.imported)
        exports = self._linker.instantiate(self._store, module).exports(self._store)
        memory, entry = exports.get("memory"), exports.get(spec.entry_point)
        if isinstance(memory, wasmtime.Memory):
            self._memory = memory
            if "path_open" in facts.imported:
                self._put_bridge(memory)
        if isinstance(entry, wasmtime.Func):
            self._entry = entry

    def _module_of(self, code: Path) -> wasmtime.Module:
        module = wasmtime.Module.deserialize_file(self._engine, str(code))
        self._modules.append(module)
        return module

    def _put_poll(self) -> None:
        i32 = wasmtime.ValType.i32
        # A type binds itself to the first engine that sees it, and with another one the library aborts the process.
        kind = wasmtime.FuncType([i32(), i32(), i32(), i32()], [i32()])
        self._linker.define_func(shim.WASI, "poll_oneoff", kind, self._poll_oneoff, access_caller=True)

    def _put_mail(self, names: frozenset[str], path: str | None) -> None:
        i32 = wasmtime.ValType.i32
        self._mail = mail.Mail(path)
        if self.killed:  # the kill may have come before there was anything to wake
            self._mail.wake()
        if mail.SEND in names:
            kind = wasmtime.FuncType([i32(), i32()], [i32()])
            self._linker.define_func(mail.MODULE, mail.SEND, kind, self._message_send, access_caller=True)
        if mail.RECEIVE in names:
            kind = wasmtime.FuncType([i32(), i32(), i32()], [i32()])
            self._linker.define_func(mail.MODULE, mail.RECEIVE, kind, self._message_receive, access_caller=True)

    def _message_send(self, caller: wasmtime.Caller, source: int, size: int) -> int:
        memory = caller.get("memory")
        source, size = source & 0xFFFFFFFF, size & 0xFFFFFFFF
        if self._mail is None or not isinstance(memory, wasmtime.Memory) or size > mail.MESSAGE_BYTES_MAX:
            return mail.MSGSIZE
        if source + size > memory.data_len(caller):
            return mail.FAULT
        try:
            return self._mail.send(bytes(memory.read(caller, source, source + size)))
        except Exception:  # none may leave here, see above
            return mail.IO

    def _message_receive(self, caller: wasmtime.Caller, target: int, cap: int, timeout_ms: int) -> int:
        memory = caller.get("memory")
        target, cap = target & 0xFFFFFFFF, cap & 0xFFFFFFFF
        if self._mail is None or not isinstance(memory, wasmtime.Memory):
            return mail.NOTSUP
        if target + cap > memory.data_len(caller):
            return mail.FAULT
        try:
            data = self._mail.receive(cap, timeout_ms)
        except Exception:  # none may leave here, see above
            return mail.IO
        if isinstance(data, int):
            return data
        memory.write(caller, bytearray(data), target)
        return len(data)

    def _put_lines(self, names: frozenset[str], chips: tuple[str, ...]) -> None:
        i32 = wasmtime.ValType.i32
        self._bank = lines.Bank(chips)
        if self.killed:  # as for messages
            self._bank.wake()
        if lines.READ in names:
            kind = wasmtime.FuncType([i32(), i32()], [i32()])
            self._linker.define_func(mail.MODULE, lines.READ, kind, self._bank.read)
        if lines.WRITE in names:
            kind = wasmtime.FuncType([i32(), i32(), i32()], [i32()])
            self._linker.define_func(mail.MODULE, lines.WRITE, kind, self._bank.write)

    def _put_guard(self, imported: frozenset[str]) -> None:
        self._guard = self._linker.instantiate(self._store, self._module_of(self._shared.shim(shim.GUARD)))
        exports = self._guard.exports(self._store)
        if "path_open" in imported:
            # The bridge needs the engine's own; keep it under another name before ours shadows it.
            self._path_open = self._linker.get(self._store, shim.WASI, "path_open")
        for name in imported.intersection(shim.GUARDED):
            self._linker.define(self._store, shim.WASI, name, exports[name])

    def _put_bridge(self, memory: wasmtime.Memory) -> None:
        assert self._guard is not None
        table = self._guard.exports(self._store)[shim.TABLE]
        self._linker.define(self._store, shim.WASI, "path_open", self._path_open)
        self._linker.define(self._store, "guest", "memory", memory)
        self._linker.define(self._store, "guard", shim.TABLE, table)
        self._linker.instantiate(self._store, self._module_of(self._shared.shim(shim.BRIDGE)))

    def run(self) -> Outcome:
        """Run the entry point to its end; blocks."""
        assert self._entry is not None, "run before load"
        try:
            self._entry(self._store)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            # The library's frame holds the exception that holds the frame, and with it the engine and its code file.
            error.__traceback__ = None
            code = self._exit_code()
            return Outcome(code=code) if code is not None else Outcome(trap=trap_text(str(error)))
        finally:
            self.memory_bytes()
        return Outcome(code=0)

    def _exit_code(self) -> int | None:
        if self._guard is None:
            return None
        exports = self._guard.exports(self._store)
        exited, code = exports[shim.EXITED], exports[shim.EXIT_CODE]
        assert isinstance(exited, wasmtime.Global)
        assert isinstance(code, wasmtime.Global)
        return int(code.value(self._store)) & 0xFF if exited.value(self._store) else None

    def close(self) -> None:
        """Free all of it, the write ends of its pipes included."""
        if self._bank is not None:  # may take a moment, in which others may ask for the memory
            self._bank.close()
        with self._open:
            if not self._closed:
                self._closed = True
                self._store.close()
                if self._mail is not None:
                    self._mail.close()
                for module in self._modules:
                    module.close()
                self._linker.close()
                self._engine.close()

    def _poll_oneoff(self, caller: wasmtime.Caller, source: int, target: int, count: int, count_out: int) -> int:
        memory = caller.get("memory")
        if not isinstance(memory, wasmtime.Memory) or not 0 < count <= polling.SUBSCRIPTIONS_MAX:
            return polling.INVAL
        source, target, count_out = (value & 0xFFFFFFFF for value in (source, target, count_out))
        last = memory.data_len(caller)
        size = count * polling.SUBSCRIPTION.size
        if source + size > last or target + count * polling.EVENT.size > last or count_out + 4 > last:
            return polling.FAULT
        now = polling.Clocks(time.time_ns(), time.monotonic_ns() - self._monotonic_zero_ns)
        poll = polling.decode(bytes(memory.read(caller, source, source + size)), now)
        self._sleep(poll.wait_ns)
        memory.write(caller, bytearray(poll.events), target)
        memory.write(caller, bytearray(poll.count.to_bytes(4, "little")), count_out)
        return polling.SUCCESS

    def _sleep(self, wait_ns: int) -> None:
        """Until then, or until `kill`; sleeps of centuries are longer than a lock can wait."""
        if wait_ns:
            self._woken.wait(min(wait_ns / 1e9, threading.TIMEOUT_MAX))


def _wasi(spec: GuestSpec) -> wasmtime.WasiConfig:
    wasi = wasmtime.WasiConfig()
    wasi.argv = spec.argv
    wasi.env = spec.env
    if spec.stdin is not None:
        wasi.stdin_file = spec.stdin
    wasi.stdout_file = f"/proc/self/fd/{spec.stdout_fd}"
    wasi.stderr_file = f"/proc/self/fd/{spec.stderr_fd}"
    wasi.preopen_dir(spec.sandbox, "/")
    for source, path, read_only in spec.mounts:
        wasi.preopen_dir(source, path, not read_only)
    return wasi
