"""The modules in the tree: built from their texts, and `windowed_stats` as its Python double says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_frameworks.modules import SENSOR, SPIN, WINDOWED_STATS, sensor_lines, windowed_stats_lines

BUILD = Path(__file__).parents[2] / "fixtures/wasm/build.py"


def load_build() -> ModuleType:
    """The script that builds the modules."""
    spec = importlib.util.spec_from_file_location("build_wasm", BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_modules_are_fresh() -> None:
    """Each `.wasm` is what its `.wat` gives today (`python test/fixtures/wasm/build.py` makes them)."""
    build = load_build()
    sources = build.sources()
    assert {path.with_suffix(".wat") for path in (WINDOWED_STATS, SENSOR, SPIN)} <= set(sources)
    stale = [path.name for path in sources if path.with_suffix(".wasm").read_bytes() != build.assemble(path)]
    assert stale == []


ENGINE = wasmtime.Engine()
MODULES = {path: wasmtime.Module.from_file(ENGINE, path) for path in (WINDOWED_STATS, SENSOR, SPIN)}
LINKER = wasmtime.Linker(ENGINE)
LINKER.define_wasi()


def run(path: Path, folder: Path, text: str, *args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a module on this input."""
    (folder / "in").write_text(text)
    wasi = wasmtime.WasiConfig()
    wasi.argv = [path.stem, *args]
    wasi.stdin_file = folder / "in"
    wasi.stdout_file = str(folder / "out")
    wasi.stderr_file = str(folder / "err")
    code = 0
    with wasmtime.Store(ENGINE) as store:
        store.set_wasi(wasi)
        start = LINKER.instantiate(store, MODULES[path]).exports(store)["_start"]
        assert isinstance(start, wasmtime.Func)
        try:
            start(store)
        except wasmtime.ExitTrap as exit_:
            code = exit_.code
    return code, (folder / "out").read_text(), (folder / "err").read_text()


def stats(folder: Path, text: str, *args: str) -> tuple[int, str, str]:
    """`windowed_stats` on this input."""
    return run(WINDOWED_STATS, folder, text, *args)


def line_of(thousandths: int) -> str:
    """A sample as a sensor writes it."""
    sign = "-" if thousandths < 0 else ""
    return f"{sign}{abs(thousandths) // 1000}.{abs(thousandths) % 1000:03d}"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(10**12) + 1, 10**12 - 1) | st.integers(-3000, 3000), max_size=80),
    st.integers(1, 90),
    st.booleans(),
)
def test_windowed_stats_is_exact(
    tmp_path_factory: pytest.TempPathFactory, samples: list[int], window: int, stamped: bool
) -> None:
    """For any series and window the module prints, digit for digit, what the Python double computes."""
    lines = [f"{1_700_000_000 + at} {line_of(x)}" if stamped else line_of(x) for at, x in enumerate(samples)]
    result = stats(tmp_path_factory.mktemp("stats"), "\n".join(lines), str(window))
    assert result == (0, "".join(f"{line}\n" for line in windowed_stats_lines(samples, window)), "")


def test_windowed_stats_by_hand(tmp_path: Path) -> None:
    """Figures computed by hand: blanks, commas, empty lines, cut decimals, and a short last window."""
    text = "1\n\n2.5\n1700000000,\t-3.0009\r\n.25\n"
    assert stats(tmp_path, text, "3") == (0, "0 3 -3.000 2.500 0.167 2.321\n1 1 0.250 0.250 0.250 0.000\n", "")


def test_a_large_series(tmp_path: Path) -> None:
    """A series larger than the module's buffers, in a window that needs more memory than it starts with."""
    samples = [(at * 7919) % 200_001 - 100_000 for at in range(60_000)]
    text = "".join(f"{line_of(sample)}\n" for sample in samples)
    for window in (60_000, 7):
        code, out, _ = stats(tmp_path, text, str(window))
        assert (code, out.splitlines()) == (0, windowed_stats_lines(samples, window))


@pytest.mark.parametrize("line", ["x", "1.2.3", "-", ".", "--1", "1-", "1000000000", "9999999999999999", "1 2 three"])
def test_bad_lines_are_named(tmp_path: Path, line: str) -> None:
    """A line that holds no number ends the module with code 2 and the line's number, after the windows before it."""
    code, out, err = stats(tmp_path, f"1\n2\n{line}\n", "2")
    assert (code, out) == (2, "0 2 1.000 2.000 1.500 0.500\n")
    assert err == "windowed_stats: no number, or one of more than 9 digits, in line 3\n"


@pytest.mark.parametrize("args", [(), ("0",), ("x",), ("",), ("1000001",), ("1", "2")])
def test_bad_arguments_are_refused(tmp_path: Path, args: tuple[str, ...]) -> None:
    """A window size that is none is answered with the usage and code 2."""
    code, out, err = stats(tmp_path, "1\n", *args)
    assert (code, out) == (2, "")
    assert err.startswith("usage: windowed_stats SAMPLES_PER_WINDOW")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**18 - 1), st.integers(1, 300), st.integers(1, 40))
def test_sensor_is_exact(tmp_path_factory: pytest.TempPathFactory, seed: int, readings: int, every: int) -> None:
    """For any arguments the sensor prints, digit for digit, what the Python double computes."""
    result = run(SENSOR, tmp_path_factory.mktemp("sensor"), "", str(seed), str(readings), str(every), "0")
    assert result == (0, "".join(f"{line}\n" for line in sensor_lines(seed, readings, every)), "")


@pytest.mark.parametrize(
    "args", [(), ("1", "1", "1"), ("1", "1", "0", "0"), ("1", "", "1", "0"), ("-1", "1", "1", "0"), ("1" * 19, *"111")]
)
def test_bad_arguments_of_the_sensor_are_refused(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Too few, no numbers, or means of nothing are answered with the usage and code 2."""
    assert run(SENSOR, tmp_path, "", *args) == (2, "", "usage: sensor SEED READINGS EVERY PERIOD_MS\n")


def test_spin_tells_how_long_it_took(tmp_path: Path) -> None:
    """One line, the nanoseconds of its work."""
    code, out, err = run(SPIN, tmp_path, "")
    assert (code, err) == (0, "")
    assert int(out) > 1_000_000  # twenty million dependent steps take longer than that on any processor
