"""GPIO lines of a guest: what the two host calls answer, how long they take at most, what is left afterwards."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import wasmtime
from support.fake_gpio import FakeChip, FakeChips

from edgerm_agent.executors.wasm_host import lines
from edgerm_agent.executors.wasm_host.engine import Guest, Shared, compile_module, detect_settings
from edgerm_agent.executors.wasm_host.lines import Bank
from edgerm_agent.executors.wasm_host.values import GuestSpec, Outcome
from edgerm_agent.lines import Chip, Lines

PATH = "/dev/gpiochip0"
DEADLINE_S = 20
FOLLOWER = Path(__file__).parents[2] / "fixtures/wasm/lines.wasm"


@pytest.fixture
def chip() -> FakeChip:
    """Two free lines, and one of the kernel."""
    return FakeChip(PATH, "A", "B", "LED", hogs={2: "led-driver"})


class Stuck:
    """Chips that keep whoever opens them in the kernel until `free`."""

    def __init__(self, chip: FakeChip) -> None:
        self.free = threading.Event()
        self.asked = threading.Event()
        self._chips = FakeChips(chip)

    def look(self, path: str) -> Chip:
        return self._chips.look(path)

    def open(self, path: str, user: str) -> Lines:
        self.asked.set()
        assert self.free.wait(DEADLINE_S)
        return self._chips.open(path, user)


def test_lines_are_read_and_written(chip: FakeChip) -> None:
    """A line is read until it is written, then it is an output that reads as written; in the end all are let go."""
    bank = Bank((PATH,), lambda: FakeChips(chip))
    chip.pulls[0] = 1
    assert (bank.read(0, 0), bank.write(0, 1, 1), bank.read(0, 1)) == (1, 0, 1)
    assert chip.users == {0: lines.USER, 1: lines.USER, 2: "led-driver"}
    assert (bank.write(0, 0, 0), chip.levels()) == (0, [0, 1, 0])
    bank.close()
    assert (chip.users, chip.driven) == ({2: "led-driver"}, {})


def test_what_a_call_is_refused_for(chip: FakeChip) -> None:
    """A chip that is not the task's, a line that is not there or taken, a level that is none: an errno each."""
    bank = Bank((PATH, "/dev/gpiochip1"), lambda: FakeChips(chip))
    assert (bank.read(2, 0), bank.read(-1, 0)) == (lines.BADF, lines.BADF)
    assert (bank.read(0, 3), bank.read(0, -1), bank.write(0, 0, 2)) == (lines.INVAL,) * 3
    assert (bank.read(0, 2), bank.write(0, 2, 1)) == (lines.BUSY, lines.BUSY)
    assert bank.read(1, 0) == lines.NODEV
    assert bank.read(0, 0) == 0  # none of this is for ever
    bank.close()


def test_a_task_without_chips() -> None:
    """Without a chip the calls answer notsup, and no thread is made."""
    bank = Bank(())
    before = threading.active_count()
    assert (bank.read(0, 0), bank.write(0, 0, 1)) == (lines.NOTSUP, lines.NOTSUP)
    assert threading.active_count() == before
    bank.close()


def test_a_chip_that_hangs(chip: FakeChip) -> None:
    """A call that the kernel keeps ends by its deadline, those after it are refused at once, until the chip is free."""
    stuck = Stuck(chip)
    bank = Bank((PATH,), lambda: stuck, call_s=0.02)
    assert bank.write(0, 0, 1) == lines.TIMEDOUT
    assert bank.read(0, 0) == lines.AGAIN
    bank.close()  # does not wait for ever either
    stuck.free.set()
    assert bank._thread is not None
    bank._thread.join(DEADLINE_S)
    assert chip.users == {2: "led-driver"}


def test_a_kill_reaches_a_call(chip: FakeChip) -> None:
    """A call that waits for the kernel ends when the guest is killed."""
    stuck = Stuck(chip)
    bank = Bank((PATH,), lambda: stuck, call_s=DEADLINE_S)
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(bank.read(0, 0)))
    caller.start()
    assert stuck.asked.wait(DEADLINE_S)
    bank.wake()
    caller.join(DEADLINE_S)
    assert answers == [lines.INTR]
    stuck.free.set()
    bank.close()


# --- from a module ---

ANSWER = """(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "edgerm" "gpio_read" (func $read (param i32 i32) (result i32)))
  (import "edgerm" "gpio_write" (func $write (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.sub (i32.const 0) {}))))"""


def outcome(tmp_path: Path, wasm: bytes, *chips: str) -> Outcome:
    """How a module with these chips ends."""
    settings = detect_settings()

    def compiled(module: bytes) -> Path:
        path = tmp_path / f"{abs(hash(module))}.cwasm"
        path.write_bytes(compile_module(settings, module))
        return path

    sink = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    guest = Guest(Shared(settings, compiled))
    try:
        guest.load(compiled(wasm), GuestSpec([], [], str(tmp_path), None, sink, sink, None, "_start", chips=chips))
        return guest.run()
    finally:
        guest.close()
        os.close(sink)


@pytest.mark.parametrize(
    ("call", "chips", "code"),
    [
        ("(call $read (i32.const 0) (i32.const 0))", (), -lines.NOTSUP),
        ("(call $read (i32.const 1) (i32.const 0))", ("/dev/none",), -lines.BADF),
        ("(call $read (i32.const 0) (i32.const 0))", ("/dev/none",), -lines.NODEV),
        ("(call $write (i32.const 0) (i32.const 0) (i32.const 7))", ("/dev/none",), -lines.INVAL),
    ],
)
def test_a_module_gets_the_answer(tmp_path: Path, call: str, chips: tuple[str, ...], code: int) -> None:
    """What a call is refused for arrives in the module, with the kernel's own chips behind it."""
    assert outcome(tmp_path, bytes(wasmtime.wat2wasm(ANSWER.format(call))), *chips) == Outcome(code=code)


def test_a_module_drives_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chip: FakeChip) -> None:
    """A module copies a line to another one; when it has ended its lines are free."""
    chip.users.clear()
    chip.pulls[:] = [1, 0, 1]
    written: list[int] = []

    class Watched(dict[int, int]):
        def __setitem__(self, offset: int, level: int) -> None:
            written.append(level)
            super().__setitem__(offset, level)

    chip.driven = Watched()
    monkeypatch.setattr(Bank.__init__, "__defaults__", (lambda: FakeChips(chip), DEADLINE_S))
    assert outcome(tmp_path, FOLLOWER.read_bytes(), PATH) == Outcome(code=0)
    assert (written, chip.users) == ([1], {})
