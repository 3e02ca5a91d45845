"""The cache of compiled modules, with a compiler that only counts."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgerm_agent.executors.wasm_host import code_cache
from edgerm_agent.executors.wasm_host.code_cache import CodeCache


class Compiler:
    """Reverses the module."""

    def __init__(self) -> None:
        self.calls = 0
        self.lock = threading.Lock()

    def __call__(self, wasm: bytes) -> bytes:
        with self.lock:
            self.calls += 1
        if wasm == b"bad":
            raise ValueError("bad module")
        return wasm[::-1]


@pytest.fixture
def compiler() -> Compiler:
    """A compiler."""
    return Compiler()


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A module."""
    path = tmp_path / "module.wasm"
    path.write_bytes(b"some code")
    return path


def make(tmp_path: Path, compiler: Compiler, tag: str = "engine-1") -> CodeCache:
    """A cache as a new host has it."""
    return CodeCache(tmp_path / "cache", tag, compiler)


def test_fifty_at_once_compile_once(tmp_path: Path, module: Path, compiler: Compiler) -> None:
    """Fifty threads that want the same module at once get the same code, compiled once."""
    cache = make(tmp_path, compiler)
    with ThreadPoolExecutor(50) as pool:
        paths = set(pool.map(lambda _: cache.get(module), range(50)))
    assert [path.read_bytes() for path in paths] == [b"edoc emos"]
    assert compiler.calls == 1


def test_a_new_host_finds_the_code(tmp_path: Path, module: Path, compiler: Compiler) -> None:
    """Code that an earlier host compiled is used again, under whatever name the module comes."""
    first = make(tmp_path, compiler).get(module)
    other = tmp_path / "other.wasm"
    other.write_bytes(module.read_bytes())
    assert make(tmp_path, compiler).get(other) == first
    assert compiler.calls == 1


def test_another_engine_compiles_anew(tmp_path: Path, module: Path, compiler: Compiler) -> None:
    """Code of one engine is never handed to another version or configuration."""
    assert make(tmp_path, compiler).get(module) != make(tmp_path, compiler, "engine-2").get(module)
    assert compiler.calls == 2


@pytest.mark.parametrize("damage", [b"", b"edoc emos!", b"edoc emoz"])
def test_damaged_code_is_compiled_again(tmp_path: Path, module: Path, compiler: Compiler, damage: bytes) -> None:
    """A file whose bytes are not those that were written is not used but replaced."""
    path = make(tmp_path, compiler).get(module)
    path.write_bytes(damage)
    assert make(tmp_path, compiler).get(module).read_bytes() == b"edoc emos"
    assert compiler.calls == 2


def test_a_missing_sum_or_file_is_made_again(tmp_path: Path, module: Path, compiler: Compiler) -> None:
    """A crash between code and checksum, or a cleaned folder, costs a compilation and nothing else."""
    cache = make(tmp_path, compiler)
    path = cache.get(module)
    path.with_suffix(".sum").unlink()
    assert make(tmp_path, compiler).get(module) == path
    path.unlink()
    assert cache.get(module).read_bytes() == b"edoc emos"
    assert compiler.calls == 3


def test_a_changed_module_is_another(tmp_path: Path, module: Path, compiler: Compiler) -> None:
    """A module file with new content gets new code, though its name is the same."""
    cache = make(tmp_path, compiler)
    cache.get(module)
    fresh = module.with_suffix(".new")
    fresh.write_bytes(b"new code!")
    fresh.replace(module)
    assert cache.get(module).read_bytes() == b"!edoc wen"


def test_a_bad_module_is_told_to_all(tmp_path: Path, module: Path, compiler: Compiler) -> None:
    """What the compiler refuses raises for each who asked, and leaves nothing behind."""
    module.write_bytes(b"bad")
    cache = make(tmp_path, compiler)
    for _ in range(2):
        with pytest.raises(ValueError, match="bad module"):
            cache.get(module)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_module_over_the_bound_is_not_read(tmp_path: Path, module: Path, compiler: Compiler) -> None:
    """A module over 64 MiB is refused by its size."""
    os.truncate(module, code_cache.MODULE_BYTES_MAX + 1)
    with pytest.raises(ValueError, match="at most 67108864"):
        make(tmp_path, compiler).get(module)
    assert compiler.calls == 0


def test_the_longest_unused_goes(tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache stays within its bound: what was not used for longest is removed with its checksum."""
    monkeypatch.setattr(code_cache, "CACHE_BYTES_MAX", 20)
    cache = make(tmp_path, compiler)
    paths = []
    for number in range(3):
        module = tmp_path / f"{number}.wasm"
        module.write_bytes(b"%09d" % number)
        paths.append(cache.get(module))
        os.utime(paths[-1], (number, number))
    assert [path.exists() for path in paths] == [False, True, True]
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_the_folder_is_ours_alone(tmp_path: Path, compiler: Compiler) -> None:
    """Nobody else may write what we execute."""
    make(tmp_path, compiler)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
