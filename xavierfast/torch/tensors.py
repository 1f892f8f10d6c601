"""PyTorch tensors as memory: strided, sharded over a mesh, of any dtype that a Table can have."""

import json
from typing import Any

import torch
from torch import Tensor

from .._core.dtypes import DTYPES, resolve_dtype
from .._core.fill import Array
from .._core.huge_pages import advise_huge_pages
from .._core.indexing import clip
from .._core.validation import check_out, check_padded_shape
from ..table import Table
from .draws import draws_in_force

__all__ = ["advise_new_memory", "as_array", "can_fill", "dtype_of", "fill_", "local_part"]


def dtype_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def can_fill(tensor: Any) -> bool:
    """Whether this is a strided tensor with elements in CPU memory, of a dtype that we fill.

    For a DTensor the answer is the same on all ranks: a rank's own part may be empty.
    """
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or dtype_of(tensor) not in DTYPES:
        return False
    placements = getattr(tensor, "placements", ())
    if tensor.device.type != "cpu" or not tensor.numel() or any(placement.is_partial() for placement in placements):
        return False
    part = tensor.to_local() if placements else tensor  # type: ignore[attr-defined]
    return type(part).__torch_dispatch__ is Tensor.__torch_dispatch__


def local_part(tensor: Tensor) -> tuple[Tensor, Any]:
    """The part of a tensor that this process holds, and that part's index in the whole tensor."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return tensor, ...
    part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    if mesh.get_coordinate() is None:
        return part, (slice(0, 0),) * tensor.ndim
    index = [range(size) for size in tensor.shape]
    # FSDP over tensor parallelism marks with _StridedShard the axis that it cuts last although its mesh axis is first.
    order = sorted(range(len(placements)), key=lambda axis: hasattr(placements[axis], "split_factor"))
    for axis in order:
        placement = placements[axis]
        if placement.is_replicate():
            continue
        if not hasattr(placement, "dim"):
            raise ValueError(f"a DTensor to fill must be sharded or replicated, got {placements!r}")
        dim, rank = placement.dim % tensor.ndim, mesh.get_local_rank(axis)
        step = -(-len(index[dim]) // mesh.size(axis))  # as torch.chunk cuts
        index[dim] = index[dim][rank * step : (rank + 1) * step]
    return part, tuple(slice(i.start, i.stop) for i in index)


def as_array(tensor: Tensor) -> Array:
    """A tensor's memory as a NumPy array; for bfloat16, which NumPy does not have, the bits as uint16."""
    if tensor.device.type != "cpu":
        raise ValueError(f"a tensor to fill must be on the CPU, got one on {tensor.device}: initialise, then move it")
    dtype = dtype_of(tensor)
    if dtype not in DTYPES:
        raise TypeError(f"a tensor to fill must hold one of {', '.join(DTYPES)}, got {tensor.dtype}")
    tensor = tensor.detach()
    advise_new_memory(tensor)
    if dtype == "bfloat16":
        return tensor.view(torch.uint16).numpy()
    if tensor.itemsize == 1:
        return tensor.view(torch.uint8).numpy().view(DTYPES[dtype].storage)
    return tensor.numpy()


def advise_new_memory(tensor: Tensor) -> None:
    """Ask for huge pages for that part of a tensor's memory that has not been touched yet."""
    if tensor.is_contiguous():
        advise_huge_pages(tensor.data_ptr(), tensor.nbytes)


def fill_(tensor: Tensor, table: Table, *, pad: bool = False, threads: int | None = None) -> Tensor:
    """Write a Table, or a shard of one, to a tensor.

    Parameters
    ----------
    tensor : torch.Tensor
        A CPU tensor of the table's shape and dtype, with any strides. Each rank fills its own shard of a DTensor.
    table : Table
        The values to write.
    pad : bool
        Whether the tensor may be larger than the table along some axes. Elements beyond the table are set to 0. The
        table keeps its values, and the fans of its own shape.
    threads : int, optional
        As in :func:`xavierfast.xavier_uniform`.

    Returns
    -------
    torch.Tensor
        `tensor`.

    Raises
    ------
    TypeError, ValueError
        If the tensor is not as described above. Nothing is written then.

    Examples
    --------
    >>> table = Table((10**9, 64), seed=7, name="items")
    >>> rank = fill_(torch.empty(1000, 64), table.shard(slice(5000, 6000)))
    >>> bool((rank.numpy()[3] == table[5003]).all())
    True
    >>> vocabulary = Table((1000, 64), "normal", std=0.02, seed=7)
    >>> padded = fill_(torch.empty(1024, 64), vocabulary, pad=True)
    >>> bool((padded.numpy()[:1000] == vocabulary).all()), padded[1000:].any().item()
    (True, False)
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}")
    if not isinstance(table, Table):
        raise TypeError(f"table must be a xavierfast.Table, got {type(table).__name__}")
    if torch.compiler.is_compiling():
        with torch.no_grad():
            _fill_from_recipe(tensor.detach(), _recipe_of(table), pad, threads)
        return tensor
    shape = tuple(tensor.shape)
    if dtype_of(tensor) != table.dtype_name or (shape != table.shape and not pad):
        way = "" if shape == table.shape else ": use pad=True to fill a larger tensor"
        raise ValueError(f"tensor and table must agree, got {tensor.dtype} {shape} and {table!r}{way}")
    check_padded_shape("tensor", shape, table.shape)
    if tensor.is_meta:
        raise ValueError("a tensor to fill must have memory, got one on meta: use materialize_ for modules")
    draws = draws_in_force.get()
    if draws is not None and not draws.may_write(tensor):
        return tensor
    part, index = local_part(tensor)
    several: Any = part
    if hasattr(several, "local_shards"):  # several parts of torchrec's tables in one process
        for shard, offsets in zip(several.local_shards(), several.local_offsets(), strict=True):
            _fill_part(shard, [range(o, o + n) for o, n in zip(offsets, shard.shape, strict=True)], table, threads)
        return tensor
    if shape == table.shape:
        table.read(index, check_out(as_array(part), resolve_dtype(table.dtype_name), None), threads=threads)
        torch.autograd.graph.increment_version(part)
    else:
        bounds = (slice(None),) * len(shape) if index is ... else index
        _fill_part(part, [range(n)[axis] for axis, n in zip(bounds, shape, strict=True)], table, threads)
    return tensor


def _fill_part(part: Tensor, ranges: list[range], table: Table, threads: int | None) -> None:
    """Fill the part of a tensor at these ranges; 0 beyond the table."""
    if not part.numel():
        return
    array = check_out(as_array(part), resolve_dtype(table.dtype_name), None)
    inside, within = clip(ranges, table.shape)
    target = array[within]
    if target.shape != array.shape:
        array[...] = 0
    table.read(inside, target, threads=threads)
    torch.autograd.graph.increment_version(part)


# ---- within torch.compile: one opaque operation, which the compiler does not look into


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _recipe_of(table: Table) -> str:
    return json.dumps(table.recipe)


@torch.library.custom_op("xavierfast::fill_from_recipe", mutates_args=("tensor",))
def _fill_from_recipe(tensor: Tensor, recipe: str, pad: bool, threads: int | None) -> None:
    fill_(tensor, Table.from_recipe(json.loads(recipe)), pad=pad, threads=threads)


@_fill_from_recipe.register_fake
def _(tensor: Tensor, recipe: str, pad: bool, threads: int | None) -> None:
    return None
