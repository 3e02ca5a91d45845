"""Batches are cut within their bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerm.core.errors import TooLarge
from edgerm.store.api import BATCH_BYTES_MAX, Change, Delete, Put, checked, size_bytes, split

SIZES = st.one_of(st.integers(0, 50), st.integers(200_000, BATCH_BYTES_MAX - 2))


def change_of(size: int) -> Change:
    """A delete for size 0, else a put with a blob of that size (plus 2 bytes of names)."""
    return Put("t", "k", 1, bytes(size)) if size else Delete("t", "k")


@given(st.lists(SIZES, max_size=20), st.integers(0, 400))
def test_split_keeps_order_and_bounds(sizes: list[int], deletes: int) -> None:
    """Split yields all changes, in order, in batches that a store accepts and none of which is empty."""
    changes = [change_of(size) for size in sizes] + [change_of(0)] * deletes
    batches = list(split(changes))
    for batch in batches:
        assert checked(batch)
    assert [change for batch in batches for change in batch] == changes


@given(st.lists(SIZES, max_size=20), st.integers(0, 400))
def test_split_makes_no_more_batches_than_needed(sizes: list[int], deletes: int) -> None:
    """The first change of a batch would not have fitted the batch before."""
    batches = list(split([change_of(size) for size in sizes] + [change_of(0)] * deletes))
    for batch, following in pairwise(batches):
        with pytest.raises(TooLarge):
            checked([*batch, following[0]])


def test_split_refuses_what_no_batch_admits() -> None:
    """A change of more than BATCH_BYTES_MAX is refused by name, after the changes before it came out."""
    fits, over = Put("t", "k", 1, bytes(BATCH_BYTES_MAX - 2)), Put("t", "big", 1, bytes(BATCH_BYTES_MAX))
    assert size_bytes(fits) == BATCH_BYTES_MAX
    assert list(split([fits])) == [[fits]]
    with pytest.raises(TooLarge, match="'big'"):
        list(split([fits, over]))
