"""An initialised tensor that can be indexed before it exists.

A Table holds what decides its values and none of them: shape, dtype, distribution and key. An index says which elements
are wanted, as a place in the stream for each axis of the result::

    t = Table((n, d))             element (i, j) is number i * d + j of the stream
    t[a:b, 3:7]                   position a * d + 3, shape (b - a, 4), steps (d, 1)
    t[ids]                        position 0, shape (len(ids), d), steps (d, 1), axis 0 looked up in ids

so only these are computed, in whole tiles of 256, straight into the result. A shard is a Table whose own shape and
steps lie within a larger one, whose fans and values it keeps.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from . import kernels
from .distributions import (
    DTYPES,
    INITIALIZERS,
    Distribution,
    Stream,
    Weight,
    density,
    expected_mean,
    expected_std,
    format_of,
    own_parameters,
    resolve_dtype,
    storage,
    stream,
    support,
)
from .fans import check_count, check_shape, fans
from .fill import Array, Lookup, c_steps, collapse, fill
from .indexing import BadIndex, Place, locate
from .recipes import STREAM_VERSION, check_recipe, check_view, int_to_json, to_json
from .streams import Seed, derive_key, resolve_seed

__all__ = ["Table"]

# Lookups that are converted to places in the stream at a time.
CHUNK = 1 << 16


class Table:
    """A virtual array of initial weights.

    Parameters
    ----------
    shape : int or tuple of ints
        Of any size that a 63-bit number of bytes can hold.
    init : str
        The name of an initialiser, such as "xavier_uniform" or "normal".
    seed, name, dtype, layout, groups, fan_in, fan_out
        As in :func:`xavier_uniform`. A seed of None takes 256 bits of the operating system, which `seed` then holds.
    **parameters
        The initialiser's own: gain, std, bound, ...

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
        "_dtype",
        "_fans",
        "_init",
        "_name",
        "_options",
        "_parameters",
        "_position",
        "_seed",
        "_shape",
        "_stream",
        "_view_steps",
        "_whole",
        "key",
    )

    def __init__(
        self,
        shape: Any,
        init: Any = "xavier_uniform",
        *,
        seed: Seed = None,
        name: str = "",
        dtype: Any = "float32",
        layout: str | None = None,
        groups: int = 1,
        fan_in: int | None = None,
        fan_out: int | None = None,
        **parameters: Any,
    ) -> None:
        whole = check_shape(shape)
        init = getattr(init, "__name__", init)
        function = INITIALIZERS.get(init) if isinstance(init, str) else None
        if function is None:
            raise ValueError(f"init must be the name of an initialiser, {', '.join(INITIALIZERS)}; got {init!r}")
        dtype = resolve_dtype(dtype)
        if math.prod(whole) * item_size(dtype) >= 1 << 63:
            raise ValueError(f"an array must have less than 2**63 bytes, got the shape {whole!r} of {dtype}")
        takes_weight, _ = own_parameters(init)
        given = layout is not None or groups != 1 or fan_in is not None or fan_out is not None
        fan = _resolve_fans(whole, layout, groups, fan_in, fan_out) if takes_weight or given else None
        weight = (Weight(*fan, dtype.startswith("complex")),) if takes_weight and fan else ()
        self._seed = resolve_seed(seed)
        self.key: bytes = derive_key(self._seed, name)
        distribution, self._stream = kernels.exactly(_draw, function, weight, parameters, dtype, self.key)
        self._whole = self._shape = whole
        self._view_steps: tuple[int, ...] | None = None  # of the whole: those of C order
        self._position = 0
        self._init: str = init
        self._parameters = parameters
        self._options = (layout, groups, fan_in, fan_out)
        self._fans = fan
        self._distribution = distribution
        self._dtype: str = dtype
        self._name = name

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the arrays it gives."""
        return storage(self._dtype)

    @property
    def dtype_name(self) -> str:
        """Of `dtype`, which bfloat16 and float8 have without ml_dtypes too."""
        return self._dtype

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def size(self) -> int:
        return math.prod(self._shape)

    @property
    def itemsize(self) -> int:
        return item_size(self._dtype)

    @property
    def nbytes(self) -> int:
        """Of the array that it would be."""
        return self.size * self.itemsize

    @property
    def fan_in(self) -> int | None:
        """Of the whole table, whatever part this is; None where the shape has no fans."""
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
        """The largest magnitude (of complex values: modulus) that the distribution has; None for the normal."""
        bound = max(map(abs, self.support))
        return bound if bound < math.inf else None

    @property
    def support(self) -> tuple[float, float]:
        """The ends between which all values lie, infinite for a normal; of complex values, of the modulus, with both
        signs.

        Examples
        --------
        >>> Table(9, "truncated_normal", mean=5.0, std=0.5, low=-2, high=float("inf"), seed=0).support
        (4.0, inf)
        """
        return support(self._distribution)

    @property
    def mean(self) -> complex:
        """The mean of the distribution, before the dtype rounds it.

        Examples
        --------
        >>> Table(9, "uniform", low=0, high=3, seed=0).mean
        1.5
        """
        return expected_mean(self._distribution)

    @property
    def std(self) -> float:
        """The standard deviation of the distribution, before the dtype rounds it."""
        return expected_std(self._distribution, self._dtype)

    def density(self, x: Any) -> Any:
        """The probability density at `x`; None where all values are alike, and for
        complex ones.

        Examples
        --------
        >>> Table((4, 4), "uniform", bound=0.5, seed=0).density([0.0, 0.25, 0.75])
        array([1., 1., 0.])
        """
        return None if self._dtype.startswith("complex") else density(self._distribution, np.asarray(x, float))

    @property
    def init(self) -> str:
        """The initialiser's name."""
        return self._init

    @property
    def seed(self) -> int | tuple[int, ...]:
        """The seed as an int or ints, which give the same table again whatever they were made from."""
        return self._seed

    @property
    def name(self) -> str:
        return self._name

    def __repr__(self) -> str:
        layout, groups, fan_in, fan_out = self._options
        keywords = {
            "seed": self._seed, "name": self._name, "dtype": self._dtype, "layout": layout, "groups": groups,
            "fan_in": fan_in, "fan_out": fan_out,
        }  # fmt: skip
        usual = inspect.signature(Table).parameters
        own = {p.name: p.default for p in own_parameters(self._init)[1]}
        given = {k: v for k, v in keywords.items() if k == "seed" or v != usual[k].default}
        given |= {k: v for k, v in self._parameters.items() if v != own[k]}
        text = "".join(f", {k}={_paste(v)}" for k, v in given.items())
        whole = f"Table({self._whole!r}, {self._init!r}{text})"
        if not self.size and self._view_steps is not None:
            return f"Table.from_recipe({self.recipe!r})"
        index = self._index_in_whole()
        return whole if index is None else f"{whole}.shard({index})"

    def _index_in_whole(self) -> str | None:
        """The index that makes this view of the whole table, None for all of it."""
        if self._view_steps is None:
            return None
        items, left = [], self._position
        sizes = list(zip(self._shape, self._steps, strict=True))
        for axis, step in enumerate(c_steps(self._whole)):
            place, left = divmod(left, step)
            while sizes and sizes[0][0] == 1:
                items.append("None")
                sizes.pop(0)
            if (
                sizes
                and sizes[0][1] % step == 0
                and 0 <= place + (sizes[0][0] - 1) * (sizes[0][1] // step) < self._whole[axis]
            ):
                size, stride = sizes.pop(0)
                stride //= step
                stop = place + size * stride
                items.append(f"slice({place}, {stop if stop >= 0 else None}, {stride})")
            else:
                items.append(str(place))
        return "(" + ", ".join(items + ["None"] * len(sizes)) + ",)"

    def describe(self) -> str:
        """Fans, bound, standard deviation, bytes and key, in lines for a person.

        Examples
        --------
        >>> print(Table((50_000, 768), seed=0, name="embed").describe())
        Table((50000, 768), 'xavier_uniform', seed=0, name='embed')
        shape       (50000, 768), 38,400,000 elements of float32, 153,600,000 bytes
        fans        fan_in 50,000, fan_out 768
        bound       0.0108712779
        std         0.00627653522
        key         8db6aadb1ddeac9d34a9533ce9f1b93fe45bd65b0c43f3b0157f78e22c1f8bd9, stream version 1
        note        for an embedding of 50,000 rows this is small: nothing sums over rows. Usual are
                    uniform(bound=0.03608) and normal(std=0.03608), 1 / sqrt(768)
        """
        fan_in, fan_out = self._known_fans
        lines = [
            f"{self!r}",
            f"shape       {self._shape}, {self.size:,} elements of {self._dtype}, {self.nbytes:,} bytes",
            f"fans        fan_in {fan_in:,}, fan_out {fan_out:,}" if fan_in is not None else "fans        none",
            f"bound       {self.bound:.9g}" if self.bound is not None else "bound       none",
            *([f"mean        {self.mean:.9g}"] if self.mean else []),
            f"std         {self.std:.9g}",
            f"key         {self.key.hex()}, stream version {STREAM_VERSION}",
        ]
        whole = self._whole
        if own_parameters(self._init)[0] and len(whole) == 2 and whole[0] >= 64 * whole[1] > 0:
            usual = 1 / math.sqrt(whole[1])
            lines += [
                f"note        for an embedding of {whole[0]:,} rows this is small: nothing sums over rows. Usual are",
                f"            uniform(bound={usual:.4g}) and normal(std={usual:.4g}), 1 / sqrt({whole[1]})",
            ]
        return "\n".join(lines)

    # ---- the same anywhere

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
        _, own = own_parameters(self._init)
        parameters = {p.name: p.default for p in own if p.default is not p.empty} | self._parameters
        parameters = {k: v for k, v in parameters.items() if v is not None}
        if self._init == "uniform" and not parameters:
            parameters = {"bound": self.bound}
        recipe: dict[str, Any] = {
            "stream": STREAM_VERSION,
            "shape": list(self._whole),
            "init": INITIALIZERS[self._init].__name__,
            "parameters": {k: to_json(v) for k, v in parameters.items()},
            "dtype": self._dtype,
            "layout": layout,
            "groups": int(groups),
            "fan_in": None if fan_in is None else int(fan_in),
            "fan_out": None if fan_out is None else int(fan_out),
            "seed": [int_to_json(s) for s in self._seed] if isinstance(self._seed, tuple) else int_to_json(self._seed),
            "name": self._name,
        }
        if self._view_steps is not None:
            recipe["view"] = {"position": self._position, "shape": list(self._shape), "steps": list(self._steps)}
        return recipe

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> "Table":
        """The Table of a recipe, which may come from a stranger.

        Raises
        ------
        TypeError, ValueError
            For a version of the stream, a field, a type or a value that is not as :attr:`recipe` writes it.

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
        return self.recipe == other.recipe if isinstance(other, Table) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.key, self._whole, self._dtype, self._distribution, self._position, self._shape))

    def __reduce__(self) -> tuple[Any, ...]:
        return Table.from_recipe, (self.recipe,)

    def __dask_tokenize__(self) -> str:  # equal tables' pickles may differ
        return f"xavierfast.Table {sorted(self.recipe.items())}"

    def __copy__(self) -> "Table":
        return self

    def __deepcopy__(self, memo: object) -> "Table":
        return self

    @property
    def _steps(self) -> tuple[int, ...]:
        return c_steps(self._whole) if self._view_steps is None else self._view_steps

    # ---- elements

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of a Table without axes")
        return self._shape[0]

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

    def read(self, index: Any = ..., out: Any = None, *, threads: int | None = None) -> Array:
        """What ``self[index]`` holds, as an array, or written to `out`.

        Parameters
        ----------
        index
            As of an ndarray: ints, slices, Ellipsis, newaxis, arrays of ints or bools, and mixtures.
        out : numpy.ndarray or buffer, optional
            Of the result's shape and the table's dtype, in whatever memory layout.
        threads : int, optional
            As in :func:`xavier_uniform`.

        Raises
        ------
        IndexError
            As NumPy raises it. What cannot index at all is a TypeError too.
        TypeError, ValueError
            If `out` is not as above. Nothing is written then.

        Examples
        --------
        >>> out = np.empty((2, 4), np.float32)
        >>> Table((10**9, 4), seed=0).read([5, -1], out) is out
        True
        """
        if threads is not None:
            threads = check_count("threads", threads)
        place = self._locate(index)
        new = out is None
        array = np.empty(place.shape, storage(self._dtype)) if new else check_out(out, self._dtype, place.shape)
        if place.shape != place.flat_shape:  # lookups of several axes as one
            strides = _strides_as_one(array, place)
            if strides is None:  # they do not lie evenly in the memory of out
                array[...] = self.read(index, threads=threads)
                return array
            target = np.lib.stride_tricks.as_strided(array, place.flat_shape, strides)
        else:
            target = array
        if not target.size:
            return array
        if place.axis is None:
            steps = None if place.steps == c_steps(place.flat_shape) else place.steps
            fill(self._stream, self.key, target, place.position, steps, threads=threads, new=new)
        else:
            self._gather(place, target, threads)
        return array

    def read_all(self, out: Any, threads: int | None) -> Array:
        """``read(..., out)`` for an `out` that ``check_out`` has seen, or None."""
        if threads is not None:
            threads = check_count("threads", threads)
        array: Array = np.empty(self._shape, storage(self._dtype)) if out is None else out
        fill(self._stream, self.key, array, self._position, self._view_steps, threads=threads, new=out is None)
        return array

    def read_flat(self, first: int, out: Array) -> None:
        """Elements `first`, `first` + 1, ... in C order into a contiguous `out` of one axis, on the caller's thread if
        it holds less than ``fill.PARALLEL`` bytes; a uint16 one for the bits of bfloat16."""
        if self._view_steps is None:
            fill(self._stream, self.key, out, first)
        else:
            shape, _, steps = collapse(self._shape, c_steps(self._shape), self._view_steps)
            self._read_runs(first, out, self._position, shape, steps)

    def equals_flat(self, first: int, data: Array) -> bool:
        """Whether contiguous bytes are those of elements `first`, `first` + 1, ... in C order."""
        distribution, form, p, limit = self._stream
        if self._view_steps is None and not limit:
            count = data.size // self.itemsize
            return bool(kernels.equals(distribution, form, self.key, p, kernels.address(data), first, count))
        return bool((self.bytes_flat(first, np.empty_like(data)) == data).all())

    def bytes_flat(self, first: int, out: Array) -> Array:
        """``read_flat`` into contiguous bytes."""
        self.read_flat(first, out.view(np.uint16 if self._dtype == "bfloat16" else storage(self._dtype)))
        return out

    def _read_runs(self, first: int, out: Array, position: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> None:
        """The rows that `out` cuts by halves, and all between them at once."""
        row = math.prod(shape[1:])
        index, skip = divmod(first, row)
        while out.size:
            place = position + index * steps[0]
            whole = 0 if skip else out.size // row
            if whole:
                count = whole * row
                fill(self._stream, self.key, out[:count].reshape(whole, *shape[1:]), place, steps)
            else:
                count = min(row - skip, out.size)
                self._read_runs(skip, out[:count], place, shape[1:], steps[1:])
            out, index, skip = out[count:], index + max(1, whole), 0

    def _gather(self, place: Place, out: Array, threads: int | None) -> None:
        axis, steps, position = place.axis or 0, list(place.steps), place.position
        first_ids = place.ids[0].array
        as_it_is = first_ids.dtype == np.int64 and first_ids.flags.c_contiguous and first_ids.flags.aligned
        if len(place.ids) == 1 and as_it_is:
            ids, steps[axis], length = place.ids[0]
            fill(self._stream, self.key, out, position, tuple(steps), Lookup(axis, ids, length), threads=threads)
            return
        steps[axis] = 1
        arrays = np.broadcast_arrays(*(item.array for item in place.ids))
        before = (slice(None),) * axis
        for first in range(0, out.shape[axis], CHUNK):
            last = min(first + CHUNK, out.shape[axis])
            places = np.zeros(last - first, np.int64)
            for array, item in zip(arrays, place.ids, strict=True):
                part = array.flat[first:last].astype(np.int64)
                part[part < 0] += item.length
                places += part * item.step
            part_out = out[(*before, slice(first, last))]
            fill(self._stream, self.key, part_out, position, tuple(steps), Lookup(axis, places, 0), threads=threads)

    # ---- views

    def shard(self, index: Any) -> "Table":
        """A Table of a part of this one, with the values and fans of the whole; nothing is computed.

        Parameters
        ----------
        index
            Ints, slices, Ellipsis, newaxis. For rows by their numbers, index the table itself.

        Examples
        --------
        >>> t = Table((1000, 16), seed=0)
        >>> rank = t.shard(slice(250, 500))
        >>> rank.shape, rank.fan_in, bool((rank[3] == t[253]).all())
        ((250, 16), 1000, True)
        """
        place = self._locate(index)
        if place.axis is not None:
            raise BadIndex(f"a shard is cut by ints and slices, got {index!r}: index the table itself for an array")
        return self._view(place.position, place.shape, place.steps)

    def _view(self, position: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> "Table":
        view = object.__new__(Table)
        for slot in Table.__slots__:
            setattr(view, slot, getattr(self, slot))
        # Steps of axes without a second element, and of empty tables, decide nothing: equal tables have equal ones.
        empty = 0 in shape
        view._position, view._shape = 0 if empty else position, shape
        plain = c_steps(shape)
        steps = plain if empty else tuple(p if size == 1 else s for size, s, p in zip(shape, steps, plain, strict=True))
        view._view_steps = None if (shape, view._position, steps) == (self._whole, 0, c_steps(self._whole)) else steps
        return view

    def _locate(self, index: Any) -> Place:
        return locate(index, self._shape, self._steps, self._position)


def _strides_as_one(array: Array, place: Place) -> tuple[int, ...] | None:
    """Those of an array of a place's flat shape in the same memory, or None where there is none."""
    axis, count = place.axis or 0, len(place.shape) - len(place.flat_shape) + 1
    looked_up = slice(axis, axis + count)
    sizes = array.shape[looked_up]
    _, strides, _ = collapse(sizes, array.strides[looked_up], c_steps(sizes))
    return (*array.strides[:axis], *strides, *array.strides[axis + count :]) if len(strides) == 1 else None


def _draw(
    function: Callable[..., Distribution], weight: tuple[Weight, ...], own: dict[str, Any], dtype: str, key: bytes
) -> tuple[Distribution, Stream]:
    distribution = function(*weight, **own)
    return distribution, stream(distribution, dtype, key)


# ---- checks


def item_size(dtype: str) -> int:
    """Bytes of an element; bfloat16 has two, whether or not ml_dtypes is there to say so."""
    own = format_of(dtype).storage
    return own.itemsize if own is not None else 2


def _resolve_fans(
    shape: tuple[int, ...], layout: str | None, groups: int, fan_in: int | None, fan_out: int | None
) -> tuple[int, int]:
    if fan_in is not None:
        fan_in = check_count("fan_in", fan_in)
    if fan_out is not None:
        fan_out = check_count("fan_out", fan_out)
    if fan_in and fan_out and layout is None and groups == 1:
        return fan_in, fan_out
    computed = fans(shape, layout, groups)
    return fan_in or computed[0], fan_out or computed[1]


def check_out(out: Any, dtype: str, shape: Any) -> Array:
    """The array to fill in the memory of `out`, or an error before anything is written."""
    array: Array = out
    if not isinstance(out, np.ndarray):
        try:
            array = np.asarray(memoryview(out))
        except (TypeError, ValueError):
            raise TypeError(f"out must be a NumPy array or a buffer, got {type(out).__name__}") from None
        if array.dtype.itemsize == 1:  # raw memory: a bytearray, an mmap, shared memory
            kind = np.dtype(np.uint16) if dtype == "bfloat16" else storage(dtype)
            try:
                array = array.view(kind) if shape is None else array.view(kind).reshape(check_shape(shape))
            except ValueError:
                asked = "a multiple of" if shape is None else f"{check_shape(shape)} of"
                raise ValueError(f"out must hold {asked} {dtype}, got {array.nbytes} contiguous bytes") from None
    own = format_of(dtype).storage
    if array.dtype is not own and array.dtype.name != dtype and not (dtype == "bfloat16" and array.dtype == np.uint16):
        known = array.dtype.name in DTYPES
        hint = " or uint16" if dtype == "bfloat16" else f"; pass dtype={array.dtype.name!r}" if known else ""
        raise TypeError(f"out must hold {dtype} (the dtype to fill){hint}, got an array of {array.dtype}")
    if not array.dtype.isnative:
        raise TypeError(f"out must have this machine's byte order, got {array.dtype.str!r}: fill a native array first")
    if not array.flags.writeable:
        raise ValueError("out must be writable, got a read-only array or buffer")
    if shape is not None and array.shape != shape and array.shape != check_shape(shape):
        raise ValueError(f"shape and out must agree, got {check_shape(shape)} and an array of {array.shape}")
    if not array.flags.c_contiguous and array.size:
        reach = array.itemsize
        steps = sorted((abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True))
        for stride, size in steps:
            if size > 1 and stride < reach:
                raise ValueError(
                    f"out must not overlap itself, got the shape {array.shape} with strides {array.strides}"
                )
            reach += (size - 1) * stride
    return array


def _paste(value: Any) -> str:
    return f"float({str(value)!r})" if isinstance(value, float) and not math.isfinite(value) else repr(value)
