"""The calls that a traced draw becomes: of our handler on the CPU, of Python elsewhere; and what they run.

A call carries the recipe of its Table as text; its operands are the words of the key, traced numbers, and the place of
the part to draw, as one number per axis of the array: place n begins after n parts. On the CPU, XLA gives them to our
handler together with its own buffer. Where a result is spread over a mesh, XLA asks how to cut the call, and each
device draws its own part. On other devices a ``jax.pure_callback`` makes a part, which JAX copies.
"""
# mypy: allow-untyped-calls

import json
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import ArrayMapping, SdyShardingRule, custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from .._core.fill import Array
from ..table import Table
from .arrays import new_memory
from .xla import DTYPES, register

__all__ = ["HANDLER", "call_of"]

Call = Callable[..., Any]


def call_of(table: Table, names: Sequence[str], sizes: tuple[int, ...]) -> Call:
    """A function of the words, the numbers with these `names` and the place, which draws a part of these sizes."""
    text = json.dumps({"recipe": table.recipe, "numbers": names, "sizes": sizes})
    result = jax.ShapeDtypeStruct(sizes, table.dtype)
    by_callback = _callback_call(text, result)
    if not HANDLER or table.dtype_name not in DTYPES.values():
        return by_callback
    whole = _handler_call(text, result)
    cut = _cut_by_xla(whole, text, result)

    def call(*operands: Any) -> Any:
        by_handler = whole if jax.sharding.get_abstract_mesh().manual_axes else cut  # a shard_map cuts by itself
        return jax.lax.platform_dependent(*operands, cpu=by_handler, default=by_callback)

    return call


def _handler_call(text: str, result: Any) -> Call:
    return lambda *operands: jax.ffi.ffi_call(HANDLER, result, vmap_method="broadcast_all")(*operands, call=text)


def _callback_call(text: str, result: Any) -> Call:
    def call(*operands: Any) -> Any:
        made = jax.pure_callback(partial(_callback, text), result, *operands, vmap_method="broadcast_all")
        # The result is on a mesh's first device. The barrier lets XLA move it.
        return jax.lax.optimization_barrier(made)

    return call


def _cut_by_xla(whole: Call, text: str, result: Any) -> Call:
    """A call of the handler for a whole array, which becomes one for a part on each device of a mesh."""
    ndim = len(result.shape)

    def rule(mesh: Any, operands: Sequence[Any], results: Any) -> SdyShardingRule:
        given = ArrayMapping("words"), *[ArrayMapping()] * (len(operands) - 1)
        made = ArrayMapping(*(f"axis{axis}" for axis in range(ndim)))
        return SdyShardingRule(given, (made,), need_replication_factors=("words",))

    def partition(mesh: Any, operands: Sequence[Any], wanted: Any) -> Any:
        axes = _even_axes(wanted.sharding, result.shape)
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        sizes = sharding.shard_shape(result.shape)
        part = json.dumps(json.loads(text) | {"sizes": sizes})
        call = _handler_call(part, jax.ShapeDtypeStruct(sizes, result.dtype))

        def on_each_device(*operands: Any) -> Any:
            place = [jnp.int32(0 if axis is None else jax.lax.axis_index(axis)) for axis in axes]
            return call(*operands[: len(operands) - ndim], *place)

        replicated = NamedSharding(mesh, PartitionSpec())
        return mesh, on_each_device, sharding, (replicated,) * len(operands)

    cut = custom_partitioning(whole)
    cut.def_partition(partition, sharding_rule=rule)
    batched = jax.custom_batching.custom_vmap(cut)  # which a call that XLA cuts is not

    @batched.def_vmap
    def _(size: int, along: Sequence[bool], *operands: Any) -> Any:
        in_axes = [0 if has_axis else None for has_axis in along]
        return jax.vmap(whole, in_axes=in_axes, axis_size=size)(*operands), True

    return batched


def _even_axes(sharding: Any, shape: tuple[int, ...]) -> list[Any]:
    """The axes of a mesh that cut each axis of an array; None where they do not cut it into equal parts."""
    axes: list[Any] = [None] * len(shape)
    if isinstance(sharding, NamedSharding):
        for axis, names in enumerate(sharding.spec):
            cuts = prod(sharding.mesh.shape[name] for name in ((names,) if isinstance(names, str) else names or ()))
            if shape[axis] % cuts == 0:
                axes[axis] = names
    return axes


# ---- what runs when the traced code runs


def _fill(text: str, operands: Sequence[Array], out: Array) -> None:
    """Write the part that each element of a batch of operands asks for; without ``jax.vmap`` there is one."""
    fields = json.loads(text)
    recipe, names, sizes = fields["recipe"], fields["numbers"], fields["sizes"]
    for index in np.ndindex(out.shape[: out.ndim - len(sizes)]):
        words, *rest = (operand[index] for operand in operands)
        parameters = recipe["parameters"] | dict(zip(names, map(float, rest), strict=False))
        table = Table.from_recipe({**recipe, "seed": words.tolist(), "parameters": parameters})
        places = zip(map(int, rest[len(names) :]), sizes, strict=True)
        table.read(tuple(slice(place * size, (place + 1) * size) for place, size in places), out=out[(*index, ...)])


def _callback(text: str, *values: Any) -> Array:
    operands = [np.asarray(value) for value in values]
    fields = json.loads(text)
    dtype = Table.from_recipe(fields["recipe"]).dtype
    out = new_memory((*operands[0].shape[:-1], *fields["sizes"]), dtype)
    _fill(text, operands, out)
    return out


HANDLER = register("xavierfast_fill", _fill)  # the empty string where XLA cannot call it
