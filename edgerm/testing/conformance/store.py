"""The suite that every store passes (`edgerm.store.api.Store`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TypeAlias

import pytest

from edgerm.core.effects import BATCH_OPERATIONS_MAX
from edgerm.core.errors import Conflict, Invalid, TooLarge
from edgerm.store.api import (
    BATCH_BYTES_MAX,
    KEY_BYTES_MAX,
    VERSION_MAX,
    Change,
    Delete,
    Put,
    Row,
    StaleFence,
    Store,
)

Open: TypeAlias = Callable[[], Store]


class StoreSuite:
    """Subclass it as `TestMyStore` and define `make_store`."""

    def make_store(self, path: Path) -> Store:
        """A store on what belongs to `path`, empty at first: stores of one path share their content."""
        raise NotImplementedError

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[Open]:
        """Opens any number of stores on one content; all are closed in the end."""
        stores: list[Store] = []

        def open_one() -> Store:
            stores.append(self.make_store(tmp_path))
            return stores[-1]

        yield open_one
        for store in stores:
            store.close()

    def test_a_new_store_is_empty(self, open_store: Open) -> None:
        """A store that nothing was put into loads nothing."""
        assert list(open_store().load()) == []

    def test_rows_come_back_in_order(self, open_store: Open) -> None:
        """Rows load as they were put, by kind and then by key in the order of code points, whatever came first."""
        store = open_store()
        names = [
            ("task", "b"),
            ("agent", "z"),
            ("task", "a"),
            ("task", "B"),
            ("task", "é/\U0001f4e6"),
            ("task", "\uffee"),
        ]
        store.apply([Put(kind, key, 7, key.encode()) for kind, key in names], store.take_over())
        assert list(store.load()) == [Row(kind, key, 7, key.encode()) for kind, key in sorted(names)]

    def test_content_outlives_the_store(self, open_store: Open) -> None:
        """What was applied is there after the store was closed and opened again, and so is the fence."""
        store = open_store()
        fence = store.take_over()
        store.apply([Put("task", "a", 1, b"\x00\xff")], fence)
        store.close()
        again = open_store()
        assert list(again.load()) == [Row("task", "a", 1, b"\x00\xff")]
        again.apply([Delete("task", "a")], fence)
        assert again.take_over() > fence

    def test_an_applied_batch_is_visible_to_a_second_store(self, open_store: Open) -> None:
        """A batch is there for others as soon as `apply` returns, not only at close."""
        writer, reader = open_store(), open_store()
        writer.apply([Put("task", "a", 1, b"x")], writer.take_over())
        assert list(reader.load()) == [Row("task", "a", 1, b"x")]

    def test_a_put_replaces_and_a_delete_removes(self, open_store: Open) -> None:
        """A put replaces version and blob, a delete removes just its row, and an absent row is already removed."""
        store = open_store()
        fence = store.take_over()
        store.apply([Put("task", "a", 1, b"old"), Put("agent", "a", 1, b"other")], fence)
        store.apply([Put("task", "a", 2, b"")], fence)
        assert list(store.load()) == [Row("agent", "a", 1, b"other"), Row("task", "a", 2, b"")]
        store.apply([Delete("task", "a"), Delete("task", "never")], fence)
        assert list(store.load()) == [Row("agent", "a", 1, b"other")]

    def test_the_last_change_of_a_row_wins(self, open_store: Open) -> None:
        """Several changes of one row in a batch act as if done one after the other."""
        store = open_store()
        store.apply(
            [Put("t", "a", 1, b"1"), Delete("t", "a"), Put("t", "a", 2, b"2"), Put("t", "b", 1, b""), Delete("t", "b")],
            store.take_over(),
        )
        assert list(store.load()) == [Row("t", "a", 2, b"2")]

    def test_an_empty_batch_changes_nothing(self, open_store: Open) -> None:
        """An empty batch is allowed, and still meets the fence."""
        store = open_store()
        fence = store.take_over()
        store.apply([], fence)
        open_store().take_over()
        with pytest.raises(StaleFence):
            store.apply([], fence)

    def test_fences_rise(self, open_store: Open) -> None:
        """Each take-over gives a higher fence than all before, from whichever store it comes."""
        one, two = open_store(), open_store()
        fences = [one.take_over(), two.take_over(), one.take_over(), two.take_over()]
        assert fences == sorted(set(fences))

    def test_an_older_fence_is_refused(self, open_store: Open) -> None:
        """After a take-over the former owner changes nothing any more, and the new one does."""
        former, owner = open_store(), open_store()
        stale = former.take_over()
        former.apply([Put("t", "a", 1, b"kept")], stale)
        fence = owner.take_over()
        with pytest.raises(StaleFence, match=str(stale)):
            former.apply([Delete("t", "a"), Put("t", "b", 1, b"late")], stale)
        owner.apply([Put("t", "c", 1, b"new")], fence)
        assert [(row.key, row.blob) for row in owner.load()] == [("a", b"kept"), ("c", b"new")]

    def test_a_fence_never_given_is_refused(self, open_store: Open) -> None:
        """A fence from the future (say, of a store restored from an older backup) is refused like an old one."""
        store = open_store()
        with pytest.raises(StaleFence):
            store.apply([Put("t", "a", 1, b"")], store.take_over() + 1)

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (Put("", "a", 1, b""), Invalid),
            (Put("Task", "a", 1, b""), Invalid),
            (Put("a/b", "a", 1, b""), Invalid),
            (Put("k" * 65, "a", 1, b""), Invalid),
            (Put("t", "", 1, b""), Invalid),
            (Put("t", "a\0b", 1, b""), Invalid),
            (Put("t", "\ud800", 1, b""), Invalid),
            (Put("t", "é" * (KEY_BYTES_MAX // 2 + 1), 1, b""), Invalid),
            (Delete("t", "\n"), Invalid),
            (Put("t", "a", -1, b""), Invalid),
            (Put("t", "a", VERSION_MAX + 1, b""), Invalid),
            (Put("t", "a", 1, bytes(BATCH_BYTES_MAX)), TooLarge),
        ],
    )
    def test_a_bad_change_spoils_its_batch(self, open_store: Open, bad: Change, error: type[Exception]) -> None:
        """A change outside the bounds is refused with a clear error, and nothing of its batch is done."""
        store = open_store()
        fence = store.take_over()
        with pytest.raises(error):
            store.apply([Put("t", "good", 1, b""), bad], fence)
        assert list(store.load()) == []

    def test_the_largest_batch_passes_and_one_more_does_not(self, open_store: Open) -> None:
        """A batch at both bounds is done; one operation or one byte more is refused whole."""
        store = open_store()
        fence = store.take_over()
        most = [Put("t", f"{n:03}", 1, b"") for n in range(BATCH_OPERATIONS_MAX)]
        room = BATCH_BYTES_MAX - 4 * BATCH_OPERATIONS_MAX
        store.apply([Put("t", "000", 1, bytes(room)), *most[1:]], fence)
        assert sum(len(row.blob) for row in store.load()) == room
        with pytest.raises(TooLarge):
            store.apply([Put("t", "000", 1, bytes(room + 1)), *most[1:]], fence)
        with pytest.raises(TooLarge):
            store.apply([*most, Delete("t", "000")], fence)
        assert sum(len(row.blob) for row in store.load()) == room

    def test_a_closed_store_says_so(self, open_store: Open) -> None:
        """Close may be called again; anything else on a closed store is a Conflict and no crash."""
        store = open_store()
        fence = store.take_over()
        store.close()
        store.close()
        with pytest.raises(Conflict):
            store.apply([Put("t", "a", 1, b"")], fence)
        with pytest.raises(Conflict):
            list(store.load())
        with pytest.raises(Conflict):
            store.take_over()

    @pytest.mark.parametrize("seed", range(5))
    def test_a_store_is_a_dictionary(self, open_store: Open, seed: int) -> None:
        """Random batches, take-overs and reopenings leave what the same operations leave in a dictionary."""
        random, model = Random(seed), dict[tuple[str, str], Row]()
        store = open_store()
        fence = store.take_over()
        for _ in range(60):
            batch = [random_change(random) for _ in range(random.randrange(8))]
            store.apply(batch, fence)
            apply_to_model(model, batch)
            if random.random() < 0.1:
                store.close()
                store = open_store()
            if random.random() < 0.1:
                fence = store.take_over()
            assert list(store.load()) == [row for _, row in sorted(model.items())]


def random_change(random: Random) -> Change:
    """A put or a delete of one of 24 rows, with a small blob."""
    kind, key = random.choice(["agent", "task"]), f"key{random.randrange(12)}"
    if random.random() < 0.3:
        return Delete(kind, key)
    return Put(kind, key, random.randrange(3), random.randbytes(random.randrange(40)))


def apply_to_model(model: dict[tuple[str, str], Row], batch: list[Change]) -> None:
    """What a batch means."""
    for change in batch:
        if isinstance(change, Put):
            model[change.kind, change.key] = Row(change.kind, change.key, change.version, change.blob)
        else:
            model.pop((change.kind, change.key), None)
