"""Row ranges: the count is that of the set of rows, the ranges are its first ones, in any order of addition."""

import numpy as np
import pytest

from xavierfast.files import row_ranges
from xavierfast.files.row_ranges import RowRanges, ranges_of


def expected(rows):
    """The ranges of a set of rows, one row after the other."""
    ranges = []
    for row in sorted(rows):
        if ranges and ranges[-1][1] == row:
            ranges[-1] = (ranges[-1][0], row + 1)
        else:
            ranges.append((row, row + 1))
    return tuple(ranges)


def test_ranges_of():
    assert ranges_of(np.array([], np.int64)).tolist() == []
    assert ranges_of(np.array([5])).tolist() == [[5, 6]]
    assert ranges_of(np.array([0, 1, 2, 4, 6, 7])).tolist() == [[0, 3], [4, 5], [6, 8]]


def test_nothing_added():
    for may_repeat in (False, True):
        rows = RowRanges(may_repeat)
        assert (rows.count(), rows.first()) == (0, ())


@pytest.mark.parametrize("seed", range(20))
def test_blocks_in_any_order(seed, monkeypatch):
    """Blocks of rows that do not repeat, as files are compared."""
    monkeypatch.setattr(row_ranges, "_KEPT_RANGES", 40)
    rng = np.random.default_rng(seed)
    differ = np.flatnonzero(rng.random(2000) < rng.choice([0.02, 0.3, 0.9]))
    blocks = [differ[differ // 100 == k] for k in rng.permutation(20)]
    rows = RowRanges(may_repeat=False)
    for block in blocks:
        rows.add(ranges_of(block))
    assert rows.count() == differ.size
    assert rows.first(20) == expected(differ.tolist())[:20]  # 20 joins at the ends of blocks leave 20 of 40
    assert len(rows.first(1000)) <= 40


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_repeat(seed, monkeypatch):
    """Parts of the same rows, as blocks side by side report them."""
    monkeypatch.setattr(row_ranges, "_KEPT_RANGES", 10)
    rng = np.random.default_rng(seed)
    rows, everything = RowRanges(may_repeat=True), set()
    for _ in range(30):
        some = np.unique(rng.integers(0, 500, rng.integers(0, 40)))
        everything |= set(some.tolist())
        rows.add(ranges_of(some))
        if rng.random() < 0.2:
            assert rows.count() == len(everything)
    assert rows.count() == len(everything)
    assert rows.first(10**6) == expected(everything)


def test_memory_is_bounded():
    rows = RowRanges(may_repeat=False)
    for first in range(0, 10**6, 1000):
        rows.add(ranges_of(np.arange(first, first + 1000, 2)))
        held = len(rows._ranges) + sum(map(len, rows._added))
        assert held <= 2 * row_ranges._KEPT_RANGES
    assert rows.count() == 500_000
    assert rows.first() == tuple((row, row + 1) for row in range(0, 2000, 2))
