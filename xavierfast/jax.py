"""JAX: the initialisers of ``jax.nn.initializers`` by our kernels, and Tables as arrays sharded from the start.

The calling convention and the distributions are those of JAX, the bits are those of the NumPy core, and the words of
the key are the seed::

    jax.random.key(7)  ->  key_data [0, 7]  ->  xavierfast.xavier_uniform(shape, seed=[0, 7])

**As in JAX, two calls with one key give the same numbers, so give each tensor a key of its own**, by
``jax.random.split`` or ``fold_in``.

Each part of an array is computed into new memory that is aligned as XLA requires: on the CPU the array takes that
memory over, elsewhere it is copied to the device. Only the local shards of a sharded array are computed. Under ``jit``,
``vmap`` and ``eval_shape``, where a key has no value yet, the call becomes a ``jax.pure_callback`` to the same code,
which gives the same bits at the cost of a copy.
"""

import operator
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import numpy as np

from . import kernels
from ._core.dtypes import resolve_dtype
from ._core.fill import Array
from ._core.rules import InitName, Kind, Mode
from ._core.validation import check_number, check_shape
from .fans import fans
from .table import Table

try:
    import jax
    import jax.numpy as jnp
    from jax.core import Tracer
    from jax.nn.initializers import Initializer, constant, ones, zeros
    from jax.sharding import NamedSharding, PartitionSpec, Sharding
except ImportError:
    raise ImportError("xavierfast.jax needs jax: pip install 'xavierfast[jax]'") from None

__all__ = [
    "constant", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "kaiming_normal", "kaiming_uniform",
    "lecun_normal", "lecun_uniform", "make_array", "normal", "ones", "truncated_normal", "uniform", "variance_scaling",
    "xavier_normal", "xavier_uniform", "zeros",
]  # fmt: skip

Axes = int | Sequence[int]

ALIGNMENT = 64  # bytes; XLA copies memory that is aligned to less
WHOLE: Any = PartitionSpec()  # type: ignore[no-untyped-call]


# ---- arrays


def read_part(table: Table, index: Any) -> Array:
    """Read a part of a table into memory of its own, because JAX aliases the memory it is given (jax issue 37830)."""
    part = table.shard(index)
    memory = np.empty(part.nbytes + ALIGNMENT, np.uint8)
    first = -kernels.address(memory) % ALIGNMENT
    return part.read(out=memory[first : first + part.nbytes].view(part.dtype).reshape(part.shape))


def make_array(table: Table, sharding: Any = None) -> jax.Array:
    """A Table, or a shard of one, as a ``jax.Array``; each process computes only the parts that its devices hold.

    Parameters
    ----------
    table : Table
        The values of the array.
    sharding : jax.sharding.Sharding or PartitionSpec, optional
        A PartitionSpec refers to the mesh of ``jax.set_mesh``. By default the whole array is put on the default device.
        A process computes a part that several of its devices hold only once.

    Returns
    -------
    jax.Array

    Raises
    ------
    TypeError
        For a table that is no Table, and a sharding of another kind.
    ValueError
        For a float64 or complex128 table while ``jax_enable_x64`` is off, and for shardings that JAX refuses.

    Examples
    --------
    >>> table = Table((1000, 64), seed=0)
    >>> sharding = NamedSharding(jax.make_mesh((1,), ("model",)), PartitionSpec("model"))
    >>> bool((make_array(table, sharding) == np.asarray(table)).all())
    True
    """
    if not isinstance(table, Table):
        raise TypeError(
            f"table must be a xavierfast.Table, got {type(table).__name__}: xavierfast.Table(shape, ...) makes one"
        )
    _check_sharding("sharding", sharding)
    if jax.dtypes.canonicalize_dtype(table.dtype) != table.dtype:
        raise ValueError(f"a JAX array of {table.dtype} needs jax_enable_x64, which is off: turn it on, or use float32")
    if sharding is None:
        whole: jax.Array = jax.device_put(read_part(table, ...))
        return whole
    parts: dict[Any, Array] = {}

    def part(index: Any) -> Array:
        bounds = tuple((axis.start, axis.stop) for axis in index)
        if bounds not in parts:
            parts[bounds] = read_part(table, index)
        return parts[bounds]

    return jax.make_array_from_callback(table.shape, _named(sharding, jax.sharding.get_mesh), part)


def _check_sharding(name: str, sharding: Any) -> None:
    if sharding is not None and not isinstance(sharding, (Sharding, PartitionSpec)):
        raise TypeError(f"{name} must be a jax.sharding.Sharding or PartitionSpec, got {type(sharding).__name__}")


def _named(sharding: Any, mesh: Callable[[], Any]) -> Any:
    """Put a PartitionSpec, or a sharding over the abstract mesh of ``jax.set_mesh``, on the mesh of ``mesh()``."""
    spec = sharding.spec if isinstance(getattr(sharding, "mesh", None), jax.sharding.AbstractMesh) else sharding
    if not isinstance(spec, PartitionSpec):
        return sharding
    if jax.sharding.get_abstract_mesh().empty:
        raise ValueError(f"a PartitionSpec needs the mesh of jax.set_mesh, got {spec!r} outside of one")
    return NamedSharding(mesh(), spec)


def _trace(make: Callable[[Any], Table], words: Any, shape: Any, dtype: Any, sharding: Any) -> Any:
    """Make ``make_array(make(words))`` when the traced code runs; with a sharding each device asks for its own part."""
    sharding = _named(sharding, jax.sharding.get_abstract_mesh)
    if not isinstance(sharding, NamedSharding | None):
        raise TypeError(f"out_sharding must be a NamedSharding or PartitionSpec under jit, got {sharding!r}")
    spec = sharding.spec if sharding else WHOLE
    sizes = sharding.shard_shape(shape) if sharding else shape
    names = (*spec, *[None] * (len(shape) - len(spec)))
    result = jax.ShapeDtypeStruct(sizes, dtype)  # type: ignore[no-untyped-call]

    def compute(words: Any, *places: Any) -> Array:
        starts = [int(number) * size for number, size in zip(places, sizes, strict=True)]
        return read_part(make(words), tuple(slice(i, i + size) for i, size in zip(starts, sizes, strict=True)))

    def local(words: Any) -> Any:
        places = [0 if name is None else jax.lax.axis_index(name) for name in names]
        return jax.pure_callback(compute, result, words, *places, vmap_method="sequential")

    if sharding is None:  # a callback's result is on a mesh's first device: the barrier lets XLA move it
        return jax.lax.optimization_barrier(local(words))  # type: ignore[no-untyped-call]
    return jax.shard_map(local, mesh=sharding.mesh, in_specs=WHOLE, out_specs=spec, check_vma=False)(words)


# ---- initialisers


def _number(name: str, value: Any) -> float:
    return check_number(name, _plain(value))


def _bound(name: str, value: Any) -> float:
    """A number that may be negative or infinite."""
    value = _plain(value)
    return float(value) if isinstance(value, float) and abs(value) == inf else check_number(name, value, negative=True)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, jax.Array) and value.size == 1 else value


def _initializer(
    init: InitName, default: Any, axes: tuple[Axes, Axes, Axes] | None = None, **parameters: Any
) -> Initializer:
    Table((1, 1), init, seed=0, **parameters)  # raises errors here, where the arguments are given

    def initializer(key: Any, shape: Any, dtype: Any = default, out_sharding: Any = None) -> Any:
        shape = check_shape(shape)
        own = _dtype(dtype)
        _check_sharding("out_sharding", out_sharding)
        if init == "uniform" and np.issubdtype(own, np.complexfloating):
            raise TypeError(f"dtype must be real for uniform, got {own}: use variance_scaling for a disk")
        options = {} if axes is None else _options(shape, axes)

        def make(words: Any) -> Table:
            return Table(shape, init, seed=np.asarray(words), dtype=own, **options, **parameters)

        try:
            words = jax.random.key_data(key)
        except (TypeError, AttributeError):
            raise TypeError(f"key must come from jax.random.key or PRNGKey, got {type(key).__name__}") from None
        if words.ndim != 1:
            raise ValueError(f"key must be a single key, got keys of the shape {words.shape[:-1]}: use jax.vmap")
        if isinstance(words, Tracer):
            make([0])  # raises errors while tracing
            return _trace(make, words, shape, own, out_sharding)
        return make_array(make(words), out_sharding)

    return initializer


def _dtype(dtype: Any) -> np.dtype[Any]:
    wanted = resolve_dtype(jnp.result_type(float) if dtype is None else dtype).storage
    own: np.dtype[Any] = jax.dtypes.canonicalize_dtype(wanted)
    if own != wanted:
        jnp.empty(0, wanted)  # for JAX's own warning that it needs x64 for this dtype
    return own


def _options(shape: tuple[int, ...], axes: tuple[Axes, Axes, Axes]) -> dict[str, Any]:
    """The axes as a layout. As in JAX, an axis with two roles counts in neither fan: Flax's embeddings have one."""
    ndim, layout = len(shape), ["x"] * len(shape)
    for letter, name, given in zip("iob", ("in_axis", "out_axis", "batch_axis"), axes, strict=True):
        try:
            numbers = tuple(map(operator.index, given if isinstance(given, Sequence) else (given,)))
        except TypeError:
            raise TypeError(f"{name} must be an int or a sequence of ints, got {given!r:.80}") from None
        if not all(-ndim <= axis < ndim for axis in numbers):
            raise ValueError(f"{name} must name axes of the shape {shape!r}, got {given!r}: pass the axes that it has")
        for axis in {axis % ndim for axis in numbers}:
            layout[axis] = letter if layout[axis] == "x" else "b"
    if ndim > 1:
        return {"layout": "".join(layout)}
    return dict(zip(("fan_in", "fan_out"), fans((1, 1, *shape), "xx" + "".join(layout)), strict=True))


def variance_scaling(
    scale: Any, mode: Mode, distribution: Kind, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (),
    dtype: Any = None,
) -> Initializer:  # fmt: skip
    """Values of mean 0 and variance scale / n, where n is the fan that `mode` names.

    Parameters
    ----------
    scale : float
        At least 0: 1 for LeCun and Xavier, 2 for He.
    mode : {"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}
        The fan n: fan_in, fan_out, their mean or their geometric mean.
    distribution : {"uniform", "normal", "truncated_normal"}
        "truncated_normal" is cut at two standard deviations and widened so that the variance is scale / n. Complex
        dtypes use the right constant for this, where JAX has 1.9 % too much variance.
    in_axis, out_axis, batch_axis : int or sequence of ints
        The axes of inputs, of outputs and of independent copies; all other axes are the receptive field. They say the
        same as the `layout` of :func:`xavierfast.fans`.
    dtype : dtype, optional
        As in :func:`xavierfast.xavier_uniform`; by default JAX's own: float32, or float64 with ``jax_enable_x64``.

    Returns
    -------
    callable
        ``init(key, shape, dtype=dtype, out_sharding=None)``, which returns a ``jax.Array``. The key comes from
        ``jax.random.key`` or ``PRNGKey``, and calls with one key give the same numbers; `out_sharding` is like the
        sharding of :func:`make_array`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above.

    Examples
    --------
    >>> weights = variance_scaling(2.0, "fan_out", "normal", in_axis=1, out_axis=0)(jax.random.key(7), (500, 1000))
    >>> like = {"scale": 2.0, "mode": "fan_out", "distribution": "normal", "layout": "oi"}
    >>> bool((weights == np.asarray(Table((500, 1000), "variance_scaling", seed=[0, 7], **like))).all())
    True
    """
    axes = (in_axis, out_axis, batch_axis)
    scale = _number("scale", scale)
    return _initializer("variance_scaling", dtype, axes, scale=scale, mode=mode, distribution=distribution)


def glorot_uniform(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform on +-sqrt(6 / (fan_in + fan_out)): Glorot and Bengio (2010), eq. 16.

    Parameters as in :func:`variance_scaling`.

    >>> glorot_uniform()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.063, dtype=float32)
    """
    return variance_scaling(1.0, "fan_avg", "uniform", in_axis, out_axis, batch_axis, dtype)


def glorot_normal(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Truncated normal, standard deviation sqrt(2 / (fan_in + fan_out)): Glorot and Bengio, eq. 12.

    Parameters as in :func:`variance_scaling`.

    >>> glorot_normal()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.063, dtype=float32)
    """
    return variance_scaling(1.0, "fan_avg", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


def he_uniform(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform on +-sqrt(6 / fan_in): He et al. (2015).

    Parameters as in :func:`variance_scaling`.

    >>> he_uniform()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.1, dtype=float32)
    """
    return variance_scaling(2.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def he_normal(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Truncated normal, standard deviation sqrt(2 / fan_in): He et al. (2015), eq. 10.

    Parameters as in :func:`variance_scaling`.

    >>> he_normal()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.1, dtype=float32)
    """
    return variance_scaling(2.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


def lecun_uniform(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform on +-sqrt(3 / fan_in): LeCun et al. (1998).

    Parameters as in :func:`variance_scaling`.

    >>> lecun_uniform()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.071, dtype=float32)
    """
    return variance_scaling(1.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def lecun_normal(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Truncated normal, standard deviation sqrt(1 / fan_in): LeCun et al. (1998).

    Parameters as in :func:`variance_scaling`.

    >>> lecun_normal()(jax.random.key(7), (200, 300)).std().round(3)
    Array(0.071, dtype=float32)
    """
    return variance_scaling(1.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


xavier_uniform, xavier_normal = glorot_uniform, glorot_normal
kaiming_uniform, kaiming_normal = he_uniform, he_normal


def uniform(scale: Any = 1e-2, dtype: Any = None) -> Initializer:
    """Uniform from 0 to below `scale`, which must be >= 0, for the real dtypes of :func:`variance_scaling`.

    >>> values = uniform(10.0)(jax.random.key(7), (1000,))
    >>> bool(0 <= values.min() and 9.9 < values.max() < 10)
    True
    """
    return _initializer("uniform", dtype, low=0.0, high=_number("scale", scale))


def normal(stddev: Any = 1e-2, dtype: Any = None) -> Initializer:
    """Normal with mean 0 and standard deviation `stddev`, which must be >= 0.

    `dtype` is as in :func:`variance_scaling`.

    >>> normal(5.0)(jax.random.key(7), (3,)).tolist() == Table(3, "normal", std=5.0, seed=[0, 7])[:].tolist()
    True
    """
    return _initializer("normal", dtype, std=_number("stddev", stddev))


def truncated_normal(stddev: Any = 1e-2, dtype: Any = None, lower: Any = -2.0, upper: Any = 2.0) -> Initializer:
    """Normal with mean 0 and standard deviation `stddev` before it is cut at lower * stddev and upper * stddev.

    As in JAX, the variance is not corrected for the cut. `dtype` is as in :func:`variance_scaling`.

    >>> bool(abs(truncated_normal(0.5)(jax.random.key(7), (1000,))).max() <= 1)
    True
    """
    bounds = [_bound("lower", lower), _bound("upper", upper)]
    if not bounds[0] < bounds[1]:
        raise ValueError(f"lower must be less than upper, got lower={lower!r} and upper={upper!r}")
    return _initializer("truncated_normal", dtype, std=_number("stddev", stddev), low=bounds[0], high=bounds[1])
