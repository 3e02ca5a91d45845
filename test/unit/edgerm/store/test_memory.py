"""The memory store passes the suite, and its disk can be copied."""

from __future__ import annotations

from pathlib import Path

from edgerm.store.api import Delete, Put, Row, Store
from edgerm.store.memory import Disk, MemoryStore
from edgerm.testing.conformance.store import StoreSuite


class TestMemoryStore(StoreSuite):
    """The suite, on one disk per test."""

    def setup_method(self) -> None:
        self.disk = Disk()

    def make_store(self, path: Path) -> Store:
        return MemoryStore(self.disk)


def test_a_copied_disk_stays_as_it_was() -> None:
    """A copy of the disk is what a power cut at that moment leaves, whatever is done afterwards."""
    store = MemoryStore()
    fence = store.take_over()
    store.apply([Put("t", "a", 1, b"1")], fence)
    cut = store.disk.copy()
    store.apply([Delete("t", "a"), Put("t", "b", 1, b"2")], fence)
    after = MemoryStore(cut)
    assert list(after.load()) == [Row("t", "a", 1, b"1")]
    assert after.take_over() == fence + 1
