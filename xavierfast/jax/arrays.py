"""Tables as arrays of JAX: on one device, or in shards on a mesh, each computed into memory that JAX takes over."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, Sharding

from .. import kernels
from .._core.dtypes import resolve_dtype
from .._core.fill import Array
from .._core.indexing import clip
from .._core.validation import check_padded_shape
from ..table import Table

__all__ = ["check_sharding", "make_array", "named", "new_memory", "put", "spec_of", "supported_dtype"]

ALIGNMENT = 64  # bytes; XLA copies memory that is aligned to less


def new_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of new, aligned memory that belongs to nothing else: JAX aliases what it is given (jax issue 37830)."""
    like: Array = np.empty(0, dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * like.itemsize
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    first = -kernels.address(memory) % ALIGNMENT
    array: Array = memory[first : first + nbytes].view(dtype).reshape(shape)
    return array


def make_array(table: Table, sharding: Any = None, *, pad_to: Any = None) -> jax.Array:
    """A Table, or a shard of one, as a ``jax.Array``; each process computes only the parts that its devices hold.

    Parameters
    ----------
    table : Table
        The values of the array.
    sharding : jax.sharding.Sharding or PartitionSpec, optional
        A PartitionSpec refers to the mesh of ``jax.set_mesh``. By default each device of that mesh gets the whole
        array, and the default device where no mesh is set. A process computes a part that several of its devices hold
        only once.
    pad_to : tuple of ints, optional
        The shape of the array, by default that of the table, which must not be larger along any axis. Elements beyond
        the table are 0. The table keeps its values, and the fans of its own shape.

    Returns
    -------
    jax.Array

    Raises
    ------
    TypeError, ValueError
        For a float64 or complex128 table while ``jax_enable_x64`` is off, for shardings that JAX refuses, and if
        `pad_to` is not as described above.

    Examples
    --------
    >>> table = Table((1000, 64), seed=0)
    >>> sharding = NamedSharding(jax.make_mesh((1,), ("model",)), PartitionSpec("model"))
    >>> bool((make_array(table, sharding) == np.asarray(table)).all())
    True
    >>> padded = make_array(table, sharding, pad_to=(1024, 64))
    >>> bool((padded[:1000] == np.asarray(table)).all()), bool((padded[1000:] == 0).all())
    (True, True)
    """
    if not isinstance(table, Table):
        raise TypeError(
            f"table must be a xavierfast.Table, got {type(table).__name__}: xavierfast.Table(shape, ...) makes one"
        )
    check_sharding("sharding", sharding)
    if jax.dtypes.canonicalize_dtype(table.dtype) != table.dtype:
        raise ValueError(f"a JAX array of {table.dtype} needs jax_enable_x64, which is off: turn it on, or use float32")
    shape = table.shape if pad_to is None else check_padded_shape("pad_to", pad_to, table.shape)
    return put(table, named(sharding, jax.sharding.get_mesh, len(shape)), shape)


def check_sharding(name: str, sharding: Any) -> None:
    if sharding is not None and not isinstance(sharding, (Sharding, PartitionSpec)):
        raise TypeError(f"{name} must be a jax.sharding.Sharding or PartitionSpec, got {type(sharding).__name__}")


def put(table: Table, sharding: Any, shape: tuple[int, ...]) -> jax.Array:
    """The table in an array of a shape that may be larger; without a sharding on the default device, uncommitted."""
    if sharding is None:
        whole: jax.Array = jax.device_put(_read_part(table, (slice(None),) * len(shape), shape))
        return whole
    parts: dict[Any, Array] = {}

    def part(index: Any) -> Array:
        bounds = tuple((axis.start, axis.stop) for axis in index)
        if bounds not in parts:
            parts[bounds] = _read_part(table, index, shape)
        return parts[bounds]

    return jax.make_array_from_callback(shape, sharding, part)


def _read_part(table: Table, index: tuple[slice, ...], shape: tuple[int, ...]) -> Array:
    """Read the part `index` of the table padded to `shape` into memory of its own."""
    ranges = [range(size)[axis] for axis, size in zip(index, shape, strict=True)]
    out = new_memory(tuple(map(len, ranges)), table.dtype)
    inside, within = clip(ranges, table.shape)
    target = out[within]
    if target.shape != out.shape:
        out[...] = 0
    table.read(inside, out=target)
    return out


# ---- where an array goes


def named(sharding: Any, mesh: Callable[[], Any], ndim: int) -> Any:
    """Put a PartitionSpec, or a sharding over the abstract mesh of ``jax.set_mesh``, on the mesh of ``mesh()``; None
    stands for a copy on each device of that mesh, if one is set.

    As in JAX, the spec of an array on a mesh with explicit axes names all axes of the array.
    """
    spec = sharding.spec if isinstance(getattr(sharding, "mesh", None), jax.sharding.AbstractMesh) else sharding
    if not isinstance(spec, PartitionSpec | None):
        return sharding
    if jax.sharding.get_abstract_mesh().empty:
        if spec is not None:
            raise ValueError(f"a PartitionSpec needs the mesh of jax.set_mesh, got {spec!r} outside of one")
        return None
    found = mesh()
    return NamedSharding(found, spec_of(() if spec is None else spec, found, ndim))


def spec_of(axes: Any, mesh: Any, ndim: int) -> Any:
    """The PartitionSpec of an array with `ndim` axes on a mesh."""
    if AxisType.Explicit in mesh.axis_types:
        axes = (*axes, *[None] * (ndim - len(axes)))
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]


def supported_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype that JAX gives for this one: float32 for float64 while ``jax_enable_x64`` is off, with its warning."""
    wanted = resolve_dtype(jnp.result_type(float) if dtype is None else dtype).storage
    own: np.dtype[Any] = jax.dtypes.canonicalize_dtype(wanted)
    if own != wanted:
        jnp.empty(0, wanted)  # for the warning
    return own
