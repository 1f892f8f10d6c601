"""An initialised tensor that can be indexed before it exists.

A Table is a Sampler and a shape: it holds everything that decides its values, but none of the values. An index selects
elements by a position in the stream and one stride per axis of the result::

    t = Table((n, d))             element (i, j) is number i * d + j of the stream
    t[a:b, 3:7]                   position a * d + 3, shape (b - a, 4), strides (d, 1)
    t[ids]                        position 0, shape (len(ids), d), strides (d, 1), axis 0 gathered by ids

Only these elements are computed, in whole tiles of 256, straight into the result. A shard is a Table whose own shape
and strides lie within those of a larger one; it keeps the fans and values of the larger.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import EllipsisType
from typing import Any, Unpack, overload

import numpy as np

from . import kernels
from ._core.dtypes import DTypeLike, DTypeName, resolve_dtype
from ._core.fill import Array, Gather, c_strides, collapse, fill
from ._core.indexing import BadIndex, Selection, select
from ._core.recipe import check_recipe, check_view, int_to_json, to_json
from ._core.rules import InitName, Parameters, Rule, resolve_rule
from ._core.stream import STREAM_VERSION, Seed, derive_key, resolve_seed
from ._core.validation import Out, Shape, check_count, check_out, check_shape, check_shard, plain, shard_range
from .fans import fans

__all__ = ["Table"]

# The number of elements that an iterator computes at a time, and of ids that are converted to positions at a time.
CHUNK = 1 << 16
# The default size of a block of rows: large enough for all cores, small enough to be handed on before the next one.
BLOCK_BYTES = 1 << 24


class Table:
    """A virtual array of initial weights.

    Parameters
    ----------
    shape : int or tuple of ints
        The shape of the array, which must have less than 2**63 bytes.
    init : str
        The name of an initialiser, such as "xavier_uniform" or "normal".
    seed, name, dtype, layout, groups, fan_in, fan_out
        As in :func:`xavier_uniform`. **Two Tables without names under one seed hold the same numbers.** A seed of None
        takes 256 bits from the operating system, which the attribute `seed` then holds.
    **parameters
        The initialiser's own parameters: gain, std, bound, ...

    Examples
    --------
    >>> t = Table((10_000_000_000, 128), seed=7, name="items")
    >>> t
    Table((10000000000, 128), 'xavier_uniform', seed=7, name='items')
    >>> t[5_000_000_000, :3]
    array([ 5.9993463e-06, -1.5883310e-05,  5.3818608e-06], dtype=float32)
    >>> t[np.array([3, 10**9, 17])].shape
    (3, 128)
    """

    __slots__ = (
        "_distribution",
        "_fans",
        "_name",
        "_options",
        "_parameters",
        "_position",
        "_rule",
        "_sampler",
        "_seed",
        "_shape",
        "_view_strides",
        "_whole",
    )

    def __init__(
        self,
        shape: Shape,
        init: InitName | Callable[..., Any] = "xavier_uniform",
        *,
        seed: Seed = None,
        name: str = "",
        dtype: DTypeLike = "float32",
        layout: str | None = None,
        groups: int = 1,
        fan_in: int | None = None,
        fan_out: int | None = None,
        **parameters: Unpack[Parameters],
    ) -> None:
        whole = check_shape(shape)
        rule = resolve_rule(init)
        kind = resolve_dtype(dtype)
        if math.prod(filter(None, whole)) * kind.itemsize >= 1 << 63:  # NumPy too leaves out the sizes that are 0
            raise ValueError(f"an array must have less than 2**63 bytes, got the shape {whole!r} of {kind.name}")
        if type(name) is not str:
            name = plain(name)
        if layout is not None:
            layout = plain(layout)
        if type(groups) is not int:
            groups = check_count("groups", groups)
        if fan_in is not None:
            fan_in = check_count("fan_in", fan_in)
        if fan_out is not None:
            fan_out = check_count("fan_out", fan_out)
        given = layout is not None or groups != 1 or fan_in is not None or fan_out is not None
        fan = _resolve_fans(whole, layout, groups, fan_in, fan_out) if rule.uses_fans or given else None
        self._seed = resolve_seed(seed)
        key = derive_key(self._seed, name)
        complete = rule.complete(parameters)
        self._distribution = rule.drawn(fan, kind.is_complex, complete)
        self._sampler = self._distribution.sampler(kind, key)
        self._whole = self._shape = whole
        self._view_strides: tuple[int, ...] | None = None  # None for a whole table, in C order
        self._position = 0
        self._rule: Rule = rule
        self._parameters = complete
        self._options = (layout, groups, fan_in, fan_out)
        self._fans = fan
        self._name = name

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the arrays returned."""
        return self._sampler.dtype.storage

    @property
    def dtype_name(self) -> DTypeName:
        """The dtype's name; available for bfloat16 and float8 even without ml_dtypes."""
        return self._sampler.dtype.name

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def size(self) -> int:
        return math.prod(self._shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._sampler.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the array that the Table represents."""
        return self.size * self.itemsize

    @property
    def key(self) -> bytes:
        """The 32-byte key of the stream, which is derived from seed and name."""
        return self._sampler.key

    @property
    def fan_in(self) -> int | None:
        """The fan-in of the whole table, also for a shard; None where the shape has no fans."""
        return self._known_fans[0]

    @property
    def fan_out(self) -> int | None:
        return self._known_fans[1]

    @property
    def _known_fans(self) -> tuple[int, int] | tuple[None, None]:
        if self._fans is None and len(self._whole) > 1:
            self._fans = fans(self._whole)
        return self._fans or (None, None)

    @property
    def bound(self) -> float | None:
        """The largest magnitude (for complex values: modulus) of the distribution; None if it is unbounded."""
        bound = max(map(abs, self.support))
        return bound if bound < math.inf else None

    @property
    def support(self) -> tuple[float, float]:
        """The ends of the interval that contains all values, infinite for a normal; for complex values, plus and minus
        the bound of the modulus.

        Examples
        --------
        >>> Table(9, "truncated_normal", mean=5.0, std=0.5, low=-2, high=float("inf"), seed=0).support
        (4.0, inf)
        """
        return self._distribution.support

    @property
    def mean(self) -> complex:
        """The mean of the distribution, before the dtype rounds it.

        Examples
        --------
        >>> Table(9, "uniform", low=0, high=3, seed=0).mean
        1.5
        """
        return self._distribution.mean

    @property
    def std(self) -> float:
        """The standard deviation of the distribution, before the dtype rounds it."""
        return self._distribution.std(self._sampler.dtype)

    def density(self, x: Any) -> Any:
        """The probability density at a number `x`, or at each number of an array.

        The result is None if all values are equal, and for complex values.

        Examples
        --------
        >>> Table((4, 4), "uniform", bound=0.5, seed=0).density([0.0, 0.25, 0.75])
        array([1., 1., 0.])
        """
        try:
            numbers = np.asarray(x, float)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"x must be a number or an array of numbers, got {type(x).__name__}") from None
        return None if self._sampler.dtype.is_complex else self._distribution.density(numbers)

    @property
    def init(self) -> InitName:
        """The initialiser's name; glorot_* is reported as xavier_*, and kaiming_* as he_*."""
        return self._rule.name

    @property
    def seed(self) -> int | tuple[int, ...]:
        """The seed as an int or a tuple of ints, which gives the same table again, whatever it was made from."""
        return self._seed

    @property
    def name(self) -> str:
        return self._name

    def __repr__(self) -> str:
        layout, groups, fan_in, fan_out = self._options
        keywords = {
            "seed": (self._seed, ...), "name": (self._name, ""), "dtype": (self.dtype_name, "float32"),
            "layout": (layout, None), "groups": (groups, 1), "fan_in": (fan_in, None), "fan_out": (fan_out, None),
            **{k: (v, self._rule.defaults[k]) for k, v in self._parameters.items()},
        }  # fmt: skip
        text = "".join(f", {k}={_paste(v)}" for k, (v, default) in keywords.items() if v != default)
        whole = f"Table({self._whole!r}, {self.init!r}{text})"
        if self._view_strides is None:
            return whole
        return f"<shard of shape {self._shape} at element {self._position} of {whole}>"

    def describe(self) -> str:
        """Describe fans, bound, standard deviation, bytes and key in a text of several lines.

        Examples
        --------
        >>> print(Table((50_000, 768), seed=0, name="embed").describe())
        Table((50000, 768), 'xavier_uniform', seed=0, name='embed')
        shape       (50000, 768), 38,400,000 elements of float32, 153,600,000 bytes
        fans        fan_in 50,000, fan_out 768
        bound       0.0108712779
        std         0.00627653522
        key         8db6aadb1ddeac9d34a9533ce9f1b93fe45bd65b0c43f3b0157f78e22c1f8bd9, stream version 1
        note        for an embedding of 50,000 rows, xavier_uniform gives small values: nothing sums over
                    rows. Usual are uniform(bound=0.03608) and normal(std=0.03608), from 1 / sqrt(768)
        """
        fan_in, fan_out = self._known_fans
        lines = [
            f"{self!r}",
            f"shape       {self._shape}, {self.size:,} elements of {self.dtype_name}, {self.nbytes:,} bytes",
            f"fans        fan_in {fan_in:,}, fan_out {fan_out:,}" if fan_in is not None else "fans        none",
            f"bound       {self.bound:.9g}" if self.bound is not None else "bound       none",
            *([f"mean        {self.mean:.9g}"] if self.mean else []),
            f"std         {self.std:.9g}",
            f"key         {self.key.hex()}, stream version {STREAM_VERSION}",
        ]
        for note in self._notes():
            lines += textwrap.wrap(note, 100, initial_indent="note        ", subsequent_indent=" " * 12)
        return "\n".join(lines)

    def _notes(self) -> list[str]:
        """Sentences about an initialisation that is probably not what the caller wants."""
        whole, notes = self._whole, []
        if self._rule.uses_fans and len(whole) >= 4 and self._options == (None, 1, None, None) and 0 not in whole:
            layout = "oi" + "xyz"[: len(whole) - 2].ljust(len(whole) - 2, "z")
            fan_in, fan_out = fans(whole, layout)
            if (fan_in, fan_out) != self._known_fans:
                notes.append(
                    "without a layout the axes before the last two are the receptive field, as in Keras and JAX; "
                    f"in PyTorch's order, layout={layout!r}, the fans would be {fan_in:,} and {fan_out:,}"
                )
        if self._rule.uses_fans and len(whole) == 2 and whole[0] >= 64 * whole[1] > 0:
            usual = 1 / math.sqrt(whole[1])
            notes.append(
                f"for an embedding of {whole[0]:,} rows, {self.init} gives small values: nothing sums over rows. "
                f"Usual are uniform(bound={usual:.4g}) and normal(std={usual:.4g}), from 1 / sqrt({whole[1]})"
            )
        return notes

    # ---- recipes and copies

    @property
    def recipe(self) -> dict[str, Any]:
        """A dict for JSON from which ``Table.from_recipe`` makes an equal Table on any machine.

        Examples
        --------
        >>> recipe = Table((3, 4), "normal", std=0.02, seed=7).recipe
        >>> recipe["stream"], recipe["shape"], recipe["init"], recipe["parameters"], recipe["seed"]
        (1, [3, 4], 'normal', {'mean': 0.0, 'std': 0.02}, 7)
        """
        layout, groups, fan_in, fan_out = self._options
        parameters = {k: to_json(v) for k, v in self._parameters.items() if v is not None}
        recipe: dict[str, Any] = {
            "stream": STREAM_VERSION,
            "shape": list(self._whole),
            "init": self._rule.name,
            "parameters": parameters or ({"bound": self.bound} if self._rule.name == "uniform" else {}),
            "dtype": self.dtype_name,
            "layout": layout,
            "groups": groups,
            "fan_in": fan_in,
            "fan_out": fan_out,
            "seed": [int_to_json(s) for s in self._seed] if isinstance(self._seed, tuple) else int_to_json(self._seed),
            "name": self._name,
        }
        if self._view_strides is not None:
            recipe["view"] = {"position": self._position, "shape": list(self._shape), "steps": list(self._strides)}
        return recipe

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> "Table":
        """The Table of a recipe, which may come from an untrusted source.

        Raises
        ------
        TypeError, ValueError
            If the version of the stream, a field, a type or a value is not as :attr:`recipe` writes it.

        Examples
        --------
        >>> t = Table((3, 4), seed=7)
        >>> Table.from_recipe(t.recipe) == t
        True
        """
        try:
            fields = check_recipe(recipe)
            view = fields.pop("view")
            table = cls(**fields.pop("parameters"), **fields)
        except OverflowError as error:
            raise ValueError(f"recipe holds a number that is too large: {error}") from None
        return table if view is None else table._view(*check_view(table.size, view))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        # The texts of distributions tell 0.0 from -0.0, which are equal as numbers and as values in recipes.
        return self.recipe == other.recipe and repr(self._distribution) == repr(other._distribution)

    def __hash__(self) -> int:
        return hash((self.key, self._whole, self.dtype_name, self._distribution, self._position, self._shape))

    def __reduce__(self) -> tuple[Any, ...]:
        return Table.from_recipe, (self.recipe,)

    def __dask_tokenize__(self) -> str:  # the pickles of equal tables may differ
        return f"xavierfast.Table {sorted(self.recipe.items())}"

    def __copy__(self) -> "Table":
        return self

    def __deepcopy__(self, memo: object) -> "Table":
        return self

    @property
    def _strides(self) -> tuple[int, ...]:
        return c_strides(self._whole) if self._view_strides is None else self._view_strides

    # ---- elements

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of a Table without axes")
        return self._shape[0]

    @overload
    def __getitem__(self, index: slice | EllipsisType | list[Any] | Array | None) -> Array: ...

    @overload
    def __getitem__(self, index: Any) -> Any: ...

    def __getitem__(self, index: Any) -> Any:
        result = self.read(index)
        if result.ndim or index is Ellipsis or (isinstance(index, tuple) and any(item is Ellipsis for item in index)):
            return result
        return result[()]  # a scalar

    def __iter__(self) -> Iterator[Any]:
        if not self._shape:
            raise TypeError("a Table without axes cannot be iterated over")
        rows = max(1, CHUNK // max(1, math.prod(self._shape[1:])))
        return (row for first in range(0, len(self), rows) for row in self.read(slice(first, first + rows)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a Table has no memory to share: its array is always made, do not ask for copy=False")
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, **keywords: Any) -> Any:
        if keywords.get("copy") is False:
            raise BufferError("a Table has no memory to share: its array is always made, do not ask for copy=False")
        if not self._sampler.dtype.is_native:
            raise BufferError(
                f"NumPy exports no {self.dtype_name} by DLPack, got a Table of it: pass its bits, "
                f'table.read().view("u{self.itemsize}"), and view these as {self.dtype_name}'
            )
        return self.read().__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # kDLCPU

    def __arrow_array__(self, type: Any = None) -> Any:
        """The rows as a pyarrow.Array, which has lists of a fixed size in place of the axes after the first."""
        import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]  # the caller has it

        if not self._shape:
            raise TypeError("an Arrow array needs at least one axis, got a Table without axes")
        if self.dtype_name not in ("float16", "float32", "float64"):
            raise TypeError(
                f"Arrow has no {self.dtype_name}, got a Table of it: make one of float16, float32 or float64"
            )
        if 0 in self._shape[1:]:
            raise ValueError(f"Arrow's lists of a fixed size must not be empty, got the shape {self._shape!r}")
        rows = pyarrow.array(self.read().reshape(-1))
        for size in reversed(self._shape[1:]):
            rows = pyarrow.FixedSizeListArray.from_arrays(rows, size)
        return rows if type is None else rows.cast(type)

    def blocks(self, rows: int | None = None, *, threads: int | None = None) -> Iterator[tuple[int, Array]]:
        """Iterate over the table in blocks of rows, for programs that take it piece by piece.

        Parameters
        ----------
        rows : int, optional
            The number of rows in a block; the last block may have fewer. By default, a block has about 16 MiB.
        threads : int, optional
            As in :func:`xavier_uniform`.

        Returns
        -------
        iterator of (int, numpy.ndarray)
            The number of a block's first row, and the block. Each block is new memory, computed when it is asked for.

        Raises
        ------
        TypeError
            If the table has no axes.
        TypeError, ValueError
            If an argument is not as described above.

        Examples
        --------
        >>> [(first, block.shape) for first, block in Table((250, 64), seed=0).blocks(rows=100)]
        [(0, (100, 64)), (100, (100, 64)), (200, (50, 64))]
        """
        if not self._shape:
            raise TypeError("a Table without axes has no rows")
        row_bytes = max(1, math.prod(self._shape[1:]) * self.itemsize)
        step = max(1, BLOCK_BYTES // row_bytes) if rows is None else check_count("rows", rows)
        if threads is not None:
            threads = check_count("threads", threads)
        return ((first, self.read(slice(first, first + step), threads=threads)) for first in range(0, len(self), step))

    def read(self, index: Any = ..., out: Out = None, *, threads: int | None = None) -> Array:
        """Compute ``self[index]`` as an array, in new memory or in `out`.

        Parameters
        ----------
        index
            An index as for an ndarray: ints, slices, Ellipsis, newaxis, arrays of ints or bools, and mixtures of them.
        out : numpy.ndarray or buffer, optional
            Memory to write to, of the result's shape and the table's dtype, in any memory layout.
        threads : int, optional
            As in :func:`xavier_uniform`.

        Returns
        -------
        numpy.ndarray

        Raises
        ------
        IndexError
            As in NumPy. For an object that cannot index at all, the error is a TypeError too.
        TypeError, ValueError
            If `out` is not as described above. Nothing is written then.

        Examples
        --------
        >>> out = np.empty((2, 4), np.float32)
        >>> Table((10**9, 4), seed=0).read([5, -1], out) is out
        True
        """
        if threads is not None:
            threads = check_count("threads", threads)
        chosen, dtype = self._select(index), self._sampler.dtype
        new = out is None
        array = np.empty(chosen.shape, dtype.storage) if new else check_out(out, dtype, chosen.shape)
        target = np.asarray(array)  # of a masked array or a matrix only the memory, not how it takes assignments
        if chosen.shape != chosen.flat_shape:  # ids of several axes, gathered as one axis
            memory_strides = _strides_as_one(target, chosen)
            if memory_strides is None:  # in the memory of out, no single stride covers these axes
                target[...] = self.read(index, threads=threads)
                return array
            target = np.lib.stride_tricks.as_strided(target, chosen.flat_shape, memory_strides)
        if not target.size:
            return array
        if chosen.axis is None:
            strides = None if chosen.strides == c_strides(chosen.flat_shape) else chosen.strides
            fill(self._sampler, target, chosen.position, strides, threads=threads, new=new)
        else:
            self._gather(chosen, target, threads)
        return array

    def _read_whole(self, out: Array | None, threads: int | None) -> Array:
        """``read(..., out)``, where `out` is None or has been checked by ``check_out``."""
        if threads is not None:
            threads = check_count("threads", threads)
        array: Array = np.empty(self._shape, self._sampler.dtype.storage) if out is None else out
        fill(self._sampler, array, self._position, self._view_strides, threads=threads, new=out is None)
        return array

    def _read_flat(self, first: int, out: Array) -> Array:
        """Write elements `first`, `first` + 1, ... in C order to contiguous bytes, on the caller's thread if these are
        fewer than ``fill.PARALLEL_MIN_BYTES``."""
        numbers = out.view(self._sampler.dtype.bits)
        if self._view_strides is None:
            fill(self._sampler, numbers, first)
        else:
            shape, _, strides = collapse(self._shape, c_strides(self._shape), self._view_strides)
            self._read_runs(first, numbers, self._position, shape, strides)
        return out

    def _equals_flat(self, first: int, data: Array) -> bool:
        """Whether contiguous bytes equal those of elements `first`, `first` + 1, ... in C order."""
        if self._view_strides is None and not self._sampler.dtype.is_small:
            return self._sampler.equals(kernels.address(data), first, data.size // self.itemsize)
        return bool((self._read_flat(first, np.empty_like(data)) == data).all())

    def _read_runs(
        self, first: int, out: Array, position: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        """Write rows of a view in C order from element `first` on: incomplete rows at either end of `out` one by one,
        and all rows between them at once."""
        row = math.prod(shape[1:])
        index, skip = divmod(first, row)
        while out.size:
            start = position + index * strides[0]
            whole = 0 if skip else out.size // row
            if whole:
                count = whole * row
                fill(self._sampler, out[:count].reshape(whole, *shape[1:]), start, strides)
            else:
                count = min(row - skip, out.size)
                self._read_runs(skip, out[:count], start, shape[1:], strides[1:])
            out, index, skip = out[count:], index + max(1, whole), 0

    def _gather(self, chosen: Selection, out: Array, threads: int | None) -> None:
        axis, strides = chosen.axis or 0, list(chosen.strides)
        if any(np.may_share_memory(item.array, out) for item in chosen.ids):  # they would be overwritten while in use
            chosen = chosen._replace(ids=tuple(item._replace(array=item.array.copy()) for item in chosen.ids))
        first_ids = chosen.ids[0].array
        as_it_is = first_ids.dtype == np.int64 and first_ids.flags.c_contiguous and first_ids.flags.aligned
        if len(chosen.ids) == 1 and as_it_is:
            ids, strides[axis], length = chosen.ids[0]
            gather = Gather(axis, ids, length)
            fill(self._sampler, out, chosen.position, tuple(strides), gather, threads=threads)
            return
        strides[axis] = 1
        shape = chosen.shape[axis : axis + len(chosen.shape) - len(chosen.flat_shape) + 1]
        arrays = [np.broadcast_to(item.array, shape) for item in chosen.ids]
        if len(shape) > 32:  # the limit of `flat`
            arrays = [array.reshape(-1) for array in arrays]
        before = (slice(None),) * axis
        for first in range(0, out.shape[axis], CHUNK):
            last = min(first + CHUNK, out.shape[axis])
            positions = np.zeros(last - first, np.int64)
            for array, item in zip(arrays, chosen.ids, strict=True):
                part = array.flat[first:last].astype(np.int64)
                part[part < 0] += item.length
                positions += part * item.stride
            part_out, gather = out[(*before, slice(first, last))], Gather(axis, positions, 0)
            fill(self._sampler, part_out, chosen.position, tuple(strides), gather, threads=threads)

    # ---- views

    def shard(self, index: Any, *, of: int | None = None) -> "Table":
        """Make a Table that is a part of this one, with the values and fans of the whole; nothing is computed.

        Parameters
        ----------
        index
            Ints, slices, Ellipsis and newaxis. To select rows by an array of numbers, index the table itself. With
            `of`, the number of a shard, from 0 to ``of`` - 1, as ranks are counted.
        of : int, optional
            The number of shards into which the rows are cut. Shard k has the rows from ``rows * k // of`` to before
            ``rows * (k + 1) // of``.

        Raises
        ------
        IndexError, TypeError, ValueError
            As in NumPy for an index; also if the index is an array, or if `of` shards have none of this number.

        Examples
        --------
        >>> t = Table((1000, 16), seed=0)
        >>> rank = t.shard(1, of=4)
        >>> rank.shape, rank.fan_in, bool((rank[3] == t[253]).all())
        ((250, 16), 1000, True)
        >>> rank == t.shard(slice(250, 500))
        True
        """
        if of is not None:
            k, of = check_shard(index, of)
            if not self._shape:
                raise TypeError("a Table without axes has no rows to cut into shards")
            index = slice(*shard_range(len(self), k, of))
        chosen = self._select(index)
        if chosen.axis is not None:
            raise BadIndex(f"a shard is cut by ints and slices, got {index!r}: index the table itself for an array")
        return self._view(chosen.position, chosen.shape, chosen.strides)

    def _view(self, position: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> "Table":
        view = object.__new__(Table)
        for slot in Table.__slots__:
            setattr(view, slot, getattr(self, slot))
        # The strides of axes with one element and of empty tables have no effect. Those of C order replace them, so
        # that equal tables compare equal.
        empty = 0 in shape
        view._position, view._shape = 0 if empty else position, shape
        plain = c_strides(shape)
        if empty:
            strides = plain
        else:
            strides = tuple(p if size == 1 else s for size, s, p in zip(shape, strides, plain, strict=True))
        is_whole = (shape, view._position, strides) == (self._whole, 0, c_strides(self._whole))
        view._view_strides = None if is_whole else strides
        return view

    def _select(self, index: Any) -> Selection:
        return select(index, self._shape, self._strides, self._position)


def _strides_as_one(array: Array, chosen: Selection) -> tuple[int, ...] | None:
    """The memory strides with which `array` has the selection's flat shape, or None if no such strides exist."""
    axis, count = chosen.axis or 0, len(chosen.shape) - len(chosen.flat_shape) + 1
    gathered = slice(axis, axis + count)
    sizes = array.shape[gathered]
    _, strides, _ = collapse(sizes, array.strides[gathered], c_strides(sizes))
    return (*array.strides[:axis], *strides, *array.strides[axis + count :]) if len(strides) == 1 else None


def _resolve_fans(
    shape: tuple[int, ...], layout: str | None, groups: int, fan_in: int | None, fan_out: int | None
) -> tuple[int, int]:
    if fan_in and fan_out and layout is None and groups == 1:
        return fan_in, fan_out
    computed = fans(shape, layout, groups)
    return fan_in or computed[0], fan_out or computed[1]


def _paste(value: Any) -> str:
    """The text of a value in a repr, which gives the value again."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, complex):  # 1 - 0j is not the number whose repr is (1-0j)
        return f"complex({value.real!r}, {value.imag!r})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_paste, value))}{',' * (len(value) == 1)})"
    return hex(value) if isinstance(value, int) and value >= 1 << 64 else repr(value)
