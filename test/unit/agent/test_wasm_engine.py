"""One guest on the real engine: how runs end, what limits hold, what a kill reaches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import pytest

from edgerm_agent.executors.wasm_host import shim
from edgerm_agent.executors.wasm_host.engine import Guest, Settings, Shared, compile_module, detect_settings
from edgerm_agent.executors.wasm_host.tasks import is_near_limit
from edgerm_agent.executors.wasm_host.values import BadModule, GuestSpec, Outcome

MODULES = Path(__file__).parents[2] / "fixtures/wasm"


@dataclass(frozen=True)
class Result:
    """What came of a guest."""

    outcome: Outcome
    stdout: bytes
    memory_bytes: int


Run: TypeAlias = Callable[..., Result]


@pytest.fixture(params=[True, False], ids=["wide", "narrow"])
def settings(request: pytest.FixtureRequest) -> Settings:
    """Both widths of address reservations."""
    if request.param and not detect_settings().wide:
        pytest.skip("this box has no 256 GiB of addresses")
    return Settings(wide=request.param)


@pytest.fixture
def shared(settings: Settings, tmp_path: Path) -> Shared:
    """What guests share."""

    def compiled(wasm: bytes) -> Path:
        path = tmp_path / f"{abs(hash(wasm))}.cwasm"
        path.write_bytes(compile_module(settings, wasm))
        return path

    return Shared(settings, compiled)


@pytest.fixture
def run(settings: Settings, shared: Shared, tmp_path: Path) -> Iterator[Run]:
    """Runs a module to its end; its output must fit a pipe."""
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)

    def run_one(name: str, *args: str, before: Callable[[Guest], None] | None = None, **fields: object) -> Result:
        code = tmp_path / f"{name}.cwasm"
        code.write_bytes(compile_module(settings, (MODULES / f"{name}.wasm").read_bytes()))
        spec = GuestSpec([name, *args], [], str(sandbox), None, write_end, write_end, None, "_start")
        guest = Guest(shared)
        try:
            if before:
                before(guest)
            guest.load(code, replace(spec, **fields))  # type: ignore[arg-type]
            outcome = guest.run()
            os.write(write_end, b"\n")
            return Result(outcome, os.read(read_end, 65536)[:-1], guest.memory_bytes())
        finally:
            guest.close()

    yield run_one
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize(("said", "code"), [(0, 0), (3, 3), (125, 125), (126, 126), (255, 255), (256, 0)])
def test_every_exit_code_arrives(run: Run, said: int, code: int) -> None:
    """Each exit code from 0 to 255 is reported, those above 125 too, which the engine's own proc_exit refuses."""
    assert run("say", str(said), "hello").outcome == Outcome(code=code)


def test_a_trap_tells_cause_and_place(run: Run) -> None:
    """A trap is reported with its cause in the first line and the function it happened in."""
    trap = run("trap").outcome.trap
    assert trap is not None
    assert trap.splitlines()[0] == "wasm trap: wasm `unreachable` instruction executed"
    assert "inner" in trap.splitlines()[1]


def test_deep_recursion_is_a_trap(run: Run) -> None:
    """A guest that uses up its stack traps, and its long backtrace is cut."""
    trap = run("recursion").outcome.trap
    assert trap is not None
    assert trap.startswith("wasm trap: call stack exhausted")
    assert trap.endswith("…")


def test_memory_stops_at_the_limit(run: Run) -> None:
    """A guest gets its limit to the last page and not one more."""
    result = run("hog", memory_bytes=(3 << 20) + 1000)
    assert result.outcome == Outcome(code=1)
    assert result.memory_bytes == 3 << 20


def test_a_module_that_starts_too_large(run: Run) -> None:
    """A module whose first memory is over the limit is refused with both numbers."""
    with pytest.raises(BadModule, match="starts with 65536 bytes of memory, its limit is 65535"):
        run("hog", memory_bytes=65535)


def test_surroundings_are_as_given(run: Run) -> None:
    """A guest sees exactly the arguments and the environment that it was given."""
    result = run("surroundings", "a b", "", env=[("NAME", "value=1"), ("EMPTY", "")])
    assert result.stdout == b"surroundings\0a b\0\0NAME=value=1\0EMPTY=\0"


def test_stdin_is_the_file(run: Run, tmp_path: Path) -> None:
    """A guest reads the whole of its stdin file, and nothing where there is none."""
    data = os.urandom(30_000)
    (tmp_path / "input").write_bytes(data)
    assert run("echo", stdin=str(tmp_path / "input")).stdout == data
    assert run("echo").stdout == b""


def test_open_files_are_bounded(run: Run, tmp_path: Path) -> None:
    """A guest that opens files without end is stopped by an errno at its own bound; closing gives room again."""
    assert run("files").outcome == Outcome(code=shim.FILES_MAX)
    assert (tmp_path / "sandbox/f").read_bytes() == b"ok"
    assert run("files", "closing").outcome == Outcome(code=0)


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside"])
def test_the_sandbox_has_walls(run: Run, tmp_path: Path, target: str) -> None:
    """A link that leads out of the sandbox is not followed: errno `perm`."""
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "sandbox/f").symlink_to(target)
    assert run("reader").outcome == Outcome(code=63)


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("no_start", {}, "exports no function '_start'; it exports: helper"),
        ("trap", {"entry_point": "memory"}, "exports no function 'memory'; it exports: _start"),
        ("foreign_import", {}, "unknown import: `env::telephone` has not been defined"),
    ],
)
def test_modules_that_cannot_run(run: Run, name: str, fields: dict[str, object], reason: str) -> None:
    """What a module lacks is said in one line."""
    with pytest.raises(BadModule) as caught:
        run(name, **fields)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wasm", "reason"),
    [
        (b"", "no WebAssembly"),
        (b"(module)", "no WebAssembly"),
        (b"\0asm\x0d\0\x01\0", "component"),
        (b"\0asm\x01\0\0\0garbage", "."),
    ],
)
def test_bytes_that_are_no_module(settings: Settings, wasm: bytes, reason: str) -> None:
    """Bytes that are no module, text included, are refused in one line."""
    with pytest.raises(BadModule, match=reason) as caught:
        compile_module(settings, wasm)
    assert "\n" not in str(caught.value)


def test_a_kill_before_the_run_wins(run: Run) -> None:
    """A guest that was killed before it ran does not run, even if it would spin for ever."""
    assert run("endless", before=Guest.kill).outcome.trap is not None
    assert run("sleep", "1000000000", before=Guest.kill).stdout == b""


def test_a_sleep_ends_by_itself(run: Run) -> None:
    """A sleep that nobody ends lasts its time, then the guest goes on."""
    assert run("sleep", "5").stdout == b"up\nwoke\n"


@pytest.mark.parametrize(
    ("memory_bytes", "limit", "near"),
    [(16 << 20, 16 << 20, True), (15 << 20, 16 << 20, True), (13 << 20, 16 << 20, False), (5, None, False)],
)
def test_what_is_near_the_limit(memory_bytes: int, limit: int | None, near: bool) -> None:
    """A failure counts as one of memory in the last eighth below the limit, and never without a limit."""
    assert is_near_limit(memory_bytes, limit) is near
