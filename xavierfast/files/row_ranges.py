"""Sets of row numbers, collected in any order and held as sorted ranges, each from its first to before its last row."""

import numpy as np

from .._core.fill import Array

# The maximal number of ranges that a TensorCheck lists.
MAX_RANGES = 1000
# Twice as many are kept while rows are added: ranges that become adjacent are joined, and more than MAX_RANGES remain.
_KEPT_RANGES = 2 * MAX_RANGES


class RowRanges:
    """The rows that differ, as ranges. The count is exact; the memory is bounded unless `may_repeat` is set.

    Parameters
    ----------
    may_repeat : bool
        Whether a row may be added more than once. Then every range is kept, because the count needs them all.
        Otherwise only the ranges of the first rows are kept.
    """

    def __init__(self, may_repeat: bool) -> None:
        self._may_repeat = may_repeat
        self._count = 0
        self._ranges = np.empty((0, 2), np.int64)
        self._added: list[Array] = []
        self._room = 0  # the number of ranges that may be added until all are merged
        self._kept_until: int | None = None  # rows from this one on are counted, but their ranges are not kept

    def add(self, ranges: Array) -> None:
        """Add the rows of ranges, given as an array of shape (n, 2)."""
        self._count += int((ranges[:, 1] - ranges[:, 0]).sum())
        self._added.append(ranges)
        self._room -= len(ranges)
        if self._room < 0:
            self._merge()

    def count(self) -> int:
        """The number of different rows."""
        if not self._may_repeat:
            return self._count
        self._merge()
        return int((self._ranges[:, 1] - self._ranges[:, 0]).sum())

    def first(self, limit: int = MAX_RANGES) -> tuple[tuple[int, int], ...]:
        """The first `limit` ranges; none of them overlap or touch."""
        self._merge()
        return tuple((first, last) for first, last in self._ranges[:limit].tolist())

    def _merge(self) -> None:
        merged = _joined(np.concatenate([self._ranges, *self._added]))
        self._added = []
        if not self._may_repeat:
            if self._kept_until is not None:
                merged = merged[merged[:, 0] < self._kept_until]
            if len(merged) > _KEPT_RANGES:
                self._kept_until = int(merged[_KEPT_RANGES, 0])
                merged = merged[:_KEPT_RANGES]
        self._ranges = merged
        self._room = max(_KEPT_RANGES, len(merged))  # so that merging takes O(n log n) in total


def ranges_of(rows: Array) -> Array:
    """The ranges of ascending row numbers, as an array of shape (n, 2)."""
    if not rows.size:
        return np.empty((0, 2), np.int64)
    ends = np.flatnonzero(np.diff(rows) != 1)
    return np.stack([rows[np.r_[0, ends + 1]], rows[np.r_[ends, rows.size - 1]] + 1], axis=1)


def _joined(ranges: Array) -> Array:
    """Sort ranges, and join those that touch or overlap."""
    if not len(ranges):
        return ranges
    ranges = ranges[np.argsort(ranges[:, 0])]
    lasts = np.maximum.accumulate(ranges[:, 1])
    cuts = np.flatnonzero(ranges[1:, 0] > lasts[:-1])
    return np.stack([ranges[np.r_[0, cuts + 1], 0], lasts[np.r_[cuts, -1]]], axis=1)
