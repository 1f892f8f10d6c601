"""NumPy's indexing for an array that does not exist: an index, a shape and strides give positions in the stream."""

import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import zip_longest
from operator import index
from typing import Any, NamedTuple

import numpy as np

from .fill import Array
from .validation import MAX_AXES, shown

__all__ = ["BadIndex", "Ids", "Selection", "clip", "select"]


class BadIndex(IndexError, TypeError):
    """The error for an object that is no index: NumPy raises IndexError for it, Python's own sequences TypeError."""


class Ids(NamedTuple):
    """Indices along one axis, with the axis's stride and length; they broadcast with the indices of other axes."""

    array: Array
    stride: int
    length: int


class Selection(NamedTuple):
    """The positions in the stream of a result's elements. Axes that are gathered together form one axis of
    `flat_shape`, and `strides` has one stride per axis of `flat_shape`."""

    shape: tuple[int, ...]
    flat_shape: tuple[int, ...]
    position: int
    strides: tuple[int, ...]
    axis: int | None = None
    ids: tuple[Ids, ...] = ()


def _parts(given: Any) -> list[Any]:
    """The items of an index as slices, None, Ellipsis, ints and arrays of ints; a mask of k axes becomes a pair of k
    arrays and its shape."""
    parts: list[Any] = []
    for item in given if isinstance(given, tuple) else (given,):
        if item is None or item is Ellipsis or isinstance(item, slice) or type(item) is int:
            parts.append(item)
            continue
        if not isinstance(item, (np.ndarray, bool, np.bool_)) and hasattr(item, "__index__"):
            with suppress(Exception):  # as in NumPy, which then tries the object as an array
                parts.append(index(item))
                continue
        try:
            array = np.asarray(item)
        except (ValueError, RuntimeError):  # ragged lists; PyTorch's tensors that require a gradient
            array = np.asarray("no index")
        if not array.size and not isinstance(item, np.ndarray):
            array = array.astype(np.int64)
        if array.dtype == bool:
            found = array.nonzero() if array.ndim else (np.zeros(int(array), np.int64),)
            parts.append((found, array.shape))
        elif array.dtype.kind in "iu":
            parts.append(array if array.ndim else int(array))
        else:
            raise BadIndex(
                "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean arrays "
                f"are valid indices, got {shown(item)}"
            )
    return parts


def select(given: Any, shape: tuple[int, ...], strides: tuple[int, ...], position: int) -> Selection:
    parts = _parts(given)
    ellipses = sum(part is Ellipsis for part in parts)
    if ellipses > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if not ellipses:
        parts.append(Ellipsis)
    consumed = sum(
        len(part[1]) if isinstance(part, tuple) else part is not None and part is not Ellipsis for part in parts
    )
    if consumed > len(shape):
        raise IndexError(f"too many indices for array: array is {len(shape)}-dimensional, but {consumed} were indexed")
    advanced = any(isinstance(part, (np.ndarray, tuple)) for part in parts)

    axis = 0
    axes: list[tuple[int, int]] = []  # size and stride of each axis of the result that is not gathered
    ids: list[Ids] = []
    gathered: list[int] = []  # the axis of each item of ids
    first: int | None = None  # where among `axes` the gathered axes begin
    apart = after = False  # whether anything stands between gathered axes, or after one
    for part in parts:
        if isinstance(part, (np.ndarray, tuple)) or (advanced and isinstance(part, int)):
            first = len(axes) if first is None else first
            apart = apart or after
            if isinstance(part, tuple) and not part[1]:  # a bare bool: an axis of its own, of one element or none
                gathered.append(axis)
                ids.append(Ids(part[0][0], 0, 1))
                continue
            for k, array in enumerate(part[0] if isinstance(part, tuple) else [np.asarray(part)]):
                if isinstance(part, tuple) and part[1][k] not in (0, shape[axis]):  # 0 fits any axis
                    raise IndexError(
                        f"boolean index did not match indexed array along axis {axis}; size of axis is {shape[axis]} "
                        f"but size of corresponding boolean axis is {part[1][k]}"
                    )
                if isinstance(part, int):
                    _check_ids(array, axis, shape[axis])
                gathered.append(axis)
                ids.append(Ids(array, strides[axis], shape[axis]))
                axis += 1
            continue
        after = first is not None
        if part is None:
            axes.append((1, 0))
        elif part is Ellipsis:
            rest = len(shape) - consumed
            axes.extend(zip(shape[axis : axis + rest], strides[axis : axis + rest], strict=True))
            axis += rest
        elif isinstance(part, slice):
            start, stop, step = part.indices(shape[axis])
            size = len(range(start, stop, step))
            position += start * strides[axis] if size else 0
            axes.append((size, step * strides[axis]))
            axis += 1
        else:
            if not -shape[axis] <= part < shape[axis]:
                raise IndexError(f"index {part} is out of bounds for axis {axis} with size {shape[axis]}")
            position += (part + shape[axis] if part < 0 else part) * strides[axis]
            axis += 1
    axis_count = len(axes) + max((item.array.ndim for item in ids), default=0)
    if axis_count > MAX_AXES:
        raise IndexError(
            f"number of dimensions must be within [0, {MAX_AXES}], indexing result would have {axis_count}"
        )
    sizes, kept = tuple(size for size, _ in axes), tuple(step for _, step in axes)
    if first is None:
        return Selection(sizes, sizes, position, kept)
    together = _broadcast([item.array.shape for item in ids])
    if math.prod(together):  # NumPy checks no ids if nothing is selected
        for item, axis in zip(ids, gathered, strict=True):
            _check_ids(item.array, axis, item.length)
    at = 0 if apart else first
    return Selection(
        (*sizes[:at], *together, *sizes[at:]),
        (*sizes[:at], math.prod(together), *sizes[at:]),
        position,
        (*kept[:at], 0, *kept[at:]),
        at,
        tuple(ids),
    )


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of arrays that are broadcast together; np.broadcast_shapes takes at most 32 axes."""
    together = []
    for sizes in zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
        longer = {size for size in sizes if size != 1}
        if len(longer) > 1:
            listed = " ".join(map(str, shapes))
            raise IndexError(f"shape mismatch: indexing arrays could not be broadcast together with shapes {listed}")
        together.append(longer.pop() if longer else 1)
    return tuple(reversed(together))


def _check_ids(ids: Array, axis: int, length: int) -> None:
    for worst in (int(ids.min()), int(ids.max())):
        if not -length <= worst < length:
            raise IndexError(f"index {worst} is out of bounds for axis {axis} with size {length}")


def clip(part: Sequence[range], shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The elements that a part of a padded array has from the array itself, which lies at its beginning and has this
    shape: their index in the array, and their index in the part, which selects a view of it."""
    inside = [range(min(axis.start, size), min(axis.stop, size)) for axis, size in zip(part, shape, strict=True)]
    return tuple(slice(axis.start, axis.stop) for axis in inside), (*(slice(len(axis)) for axis in inside), ...)
