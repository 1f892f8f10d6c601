"""The array of a key: made at once, or when the traced code runs, if the key or a number has no value yet.

A traced call carries the recipe of its Table as text; the words of the key, traced numbers and the place of the part
on the mesh are its operands. On the CPU XLA gives them to our handler together with its own buffer, on other devices to
a ``jax.pure_callback``, whose result is copied. Both write the part with ``_fill``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from .._core.fill import Array
from ..table import Table
from .arrays import named, new_memory, put, spec_of
from .xla import DTYPES, register

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
    result = jax.ShapeDtypeStruct(sizes, table.dtype)  # type: ignore[no-untyped-call]
    call = json.dumps({"recipe": table.recipe, "numbers": list(numbers), "sizes": sizes})

    def by_handler(*operands: Any) -> Any:
        return jax.ffi.ffi_call(HANDLER, result, vmap_method="broadcast_all")(*operands, call=call)

    def by_callback(*operands: Any) -> Any:
        made = jax.pure_callback(partial(_callback, call), result, *operands, vmap_method="broadcast_all")
        # The result is on a mesh's first device. The barrier lets XLA move it.
        return jax.lax.optimization_barrier(made)  # type: ignore[no-untyped-call]

    def local(*operands: Any) -> Any:
        places = [0 if axis is None else jax.lax.axis_index(axis) for axis in axes]
        operands = (*operands, *(jnp.int32(place) for place in places))
        if not HANDLER or table.dtype_name not in DTYPES.values():
            return by_callback(*operands)
        return jax.lax.platform_dependent(*operands, cpu=by_handler, default=by_callback)

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


# ---- what runs when the traced code runs


def _fill(call: str, operands: Sequence[Array], out: Array) -> None:
    """Write the part that each element of a batch of operands asks for; without ``jax.vmap`` there is one."""
    fields = json.loads(call)
    recipe, names, sizes = fields["recipe"], fields["numbers"], fields["sizes"]
    for index in np.ndindex(out.shape[: out.ndim - len(sizes)]):
        words, *rest = (operand[index] for operand in operands)
        parameters = recipe["parameters"] | dict(zip(names, map(float, rest), strict=False))
        table = Table.from_recipe({**recipe, "seed": words.tolist(), "parameters": parameters})
        places = zip(map(int, rest[len(names) :]), sizes, strict=True)
        table.read(tuple(slice(place * size, (place + 1) * size) for place, size in places), out=out[(*index, ...)])


def _callback(call: str, *values: Any) -> Array:
    operands = [np.asarray(value) for value in values]
    fields = json.loads(call)
    dtype = Table.from_recipe(fields["recipe"]).dtype
    out = new_memory((*operands[0].shape[:-1], *fields["sizes"]), dtype)
    _fill(call, operands, out)
    return out


HANDLER = register("xavierfast_fill", _fill)  # the empty string where XLA cannot call it
