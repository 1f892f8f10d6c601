"""The array of a key: made at once, or when the traced code runs, if the key or a number has no value yet."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from ..table import Table
from .arrays import named, put, spec_of
from .calls import call_of

__all__ = ["draw"]

WHOLE: Any = PartitionSpec()  # type: ignore[no-untyped-call]


def draw(make: Callable[[Any], Table], words: Any, sharding: Any, numbers: Mapping[str, Any]) -> Any:
    """The array of ``make(words)``, where traced `numbers` take the place of the table's parameters of these names.

    As in JAX, an array without a sharding goes where the key is, if that was put on a device.
    """
    if numbers or isinstance(words, Tracer):
        return _trace(make([0]), words, sharding, numbers)  # raises errors while tracing
    table = make(np.asarray(words))
    sharding = named(sharding, jax.sharding.get_mesh, table.ndim)
    if sharding is None and getattr(words, "committed", False):
        sharding = words.sharding
        if isinstance(sharding, NamedSharding):
            sharding = NamedSharding(sharding.mesh, WHOLE)
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, spec_of(sharding.spec, sharding.mesh, table.ndim))
    return put(table, sharding, table.shape)


def _trace(table: Table, words: Any, sharding: Any, numbers: Mapping[str, Any]) -> Any:
    if sharding is not None:
        sharding = named(sharding, jax.sharding.get_abstract_mesh, table.ndim)
        if not isinstance(sharding, NamedSharding):
            raise TypeError(f"out_sharding must be a NamedSharding or PartitionSpec under jit, got {sharding!r}")
    sizes = sharding.shard_shape(table.shape) if sharding else table.shape
    spec = sharding.spec if sharding else WHOLE
    axes = (*spec, *[None] * (table.ndim - len(spec)))
    values = [_no_derivative(jnp.asarray(number, float)) for number in numbers.values()]
    call = call_of(table, list(numbers), sizes)

    def local(*operands: Any) -> Any:
        return call(*operands, *(jnp.int32(0 if axis is None else jax.lax.axis_index(axis)) for axis in axes))

    if not sharding:
        return local(words, *values)
    whole = (WHOLE,) * (1 + len(values))
    return jax.shard_map(local, mesh=sharding.mesh, in_specs=whole, out_specs=spec, check_vma=False)(words, *values)


@jax.custom_jvp
def _no_derivative(number: Any) -> Any:
    return number


@_no_derivative.defjvp
def _(primals: Any, tangents: Any) -> Any:
    raise TypeError(
        "an initialiser has no derivative with respect to its scale, stddev or bounds: draw with the number 1, and "
        "multiply by the traced one"
    )
