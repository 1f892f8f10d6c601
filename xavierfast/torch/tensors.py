"""PyTorch tensors as memory: strided, sharded over a mesh, of any dtype that a Table can have, on any device."""

import json
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from .._core.dtypes import DTYPES, resolve_dtype
from .._core.fill import Array
from .._core.huge_pages import advise_huge_pages
from .._core.indexing import clip
from .._core.validation import check_out, check_padded_shape, check_threads
from ..table import Table
from .device import backend_of
from .device import fill as fill_on_device
from .draws import draws_in_force

__all__ = ["advise_new_memory", "as_array", "can_fill", "check_dtype", "dtype_of", "fill_", "is_plain", "local_part"]

INTS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def dtype_of(tensor: Tensor) -> Any:
    return str(tensor.dtype).removeprefix("torch.")


def check_dtype(tensor: Tensor) -> Any:
    """The name of a tensor's dtype, which must be one that a Table can have."""
    dtype = dtype_of(tensor)
    if dtype not in DTYPES:
        raise TypeError(f"a tensor to fill must hold one of {', '.join(DTYPES)}, got {tensor.dtype}")
    return dtype


def can_fill(tensor: Any) -> bool:
    """Whether this is a strided tensor with elements in the memory of a device, of a dtype that we fill.

    For a DTensor the answer is the same on all ranks: a rank's own part may be empty.
    """
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or dtype_of(tensor) not in DTYPES:
        return False
    placements = getattr(tensor, "placements", ())
    if tensor.is_meta or not tensor.numel() or any(placement.is_partial() for placement in placements):
        return False
    return is_plain(tensor.to_local() if placements else tensor)  # type: ignore[attr-defined]


def is_plain(tensor: Any) -> bool:
    """Whether a tensor has memory of its own, as fake tensors and others of a subclass may not."""
    base: Any = Tensor
    return type(tensor).__torch_dispatch__ is base.__torch_dispatch__


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
    """The memory of a CPU tensor as a NumPy array; for bfloat16, which NumPy does not have, the bits as uint16."""
    dtype = check_dtype(tensor)
    tensor = tensor.detach()
    advise_new_memory(tensor)
    if dtype == "bfloat16":
        return tensor.view(torch.uint16).numpy()
    if tensor.itemsize == 1:
        return tensor.view(torch.uint8).numpy().view(DTYPES[dtype].storage)
    return tensor.numpy()


def advise_new_memory(tensor: Tensor) -> None:
    """Ask for huge pages for that part of a tensor's memory that has not been touched yet."""
    if tensor.device.type == "cpu" and tensor.is_contiguous():
        advise_huge_pages(tensor.data_ptr(), tensor.nbytes)


def fill_(
    tensor: Tensor, table: Table, ids: Tensor | None = None, *, pad: bool = False, threads: int | None = None
) -> Tensor:
    """Write a Table, a shard of one, or some of its rows to a tensor.

    Parameters
    ----------
    tensor : torch.Tensor
        A tensor of the table's shape and dtype, with any strides, on any device. Each rank fills its own shard of a
        DTensor. Kernels on a CUDA, ROCm or XPU device write to its memory; see docs/gpu.md.
    table : Table
        The values to write.
    ids : torch.Tensor, optional
        The numbers of the table's rows to write, along one axis: ``tensor[i]`` gets row ``ids[i]``. They may be on the
        tensor's device. Negative ids count from the end.
    pad : bool
        Whether the tensor may be larger than the table along some axes. Elements beyond the table are set to 0. The
        table keeps its values, and the fans of its own shape.
    threads : int, optional
        As in :func:`xavierfast.xavier_uniform`. It has no effect on GPUs.

    Returns
    -------
    torch.Tensor
        `tensor`.

    Raises
    ------
    TypeError, ValueError
        If the tensor is not as described above. Nothing is written then.
    IndexError
        If an id is not one of the table's rows. A GPU's kernels, for which nothing waits, raise no errors: they write
        nothing for such an id.

    Examples
    --------
    >>> table = Table((10**9, 64), seed=7, name="items")
    >>> rank = fill_(torch.empty(1000, 64), table.shard(slice(5000, 6000)))
    >>> bool((rank.numpy()[3] == table[5003]).all())
    True
    >>> rows = fill_(torch.empty(2, 64), table, torch.tensor([5003, -1]))
    >>> bool((rows[0] == rank[3]).all())
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
    if ids is not None and (not isinstance(ids, Tensor) or ids.dtype not in INTS):
        kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"ids must be a torch.Tensor of ints, got {kind}")
    if torch.compiler.is_compiling():
        with torch.no_grad():
            _fill_from_recipe(tensor.detach(), _recipe_of(table), ids, pad, threads)
        return tensor
    shape, given = table.shape, tuple(tensor.shape)
    if ids is not None:
        if ids.ndim != 1 or not table.ndim or hasattr(tensor, "placements"):
            raise ValueError(
                "ids must have one axis and select rows for a tensor that is no DTensor, "
                f"got ids of shape {tuple(ids.shape)}, {type(tensor).__name__} and {table!r}"
            )
        shape = (len(ids), *table.shape[1:])
    if dtype_of(tensor) != table.dtype_name or (given != shape and (ids is not None or not pad)):
        rows = "" if ids is None else f" and {len(ids)} ids"
        way = "" if ids is not None or given == shape else ": use pad=True to fill a larger tensor"
        raise ValueError(f"tensor and table must agree, got {tensor.dtype} {given} and {table!r}{rows}{way}")
    check_padded_shape("tensor", given, shape)
    if tensor.is_meta:
        raise ValueError("a tensor to fill must have memory, got one on meta: use materialize_ for modules")
    draws = draws_in_force.get()
    if draws is not None and not draws.may_write(tensor):
        return tensor
    part, index = local_part(tensor)
    several: Any = part
    if hasattr(several, "local_shards"):  # several parts of torchrec's tables in one process
        for shard, offsets in zip(several.local_shards(), several.local_offsets(), strict=True):
            _write_padded(shard, [range(o, o + n) for o, n in zip(offsets, shard.shape, strict=True)], table, threads)
            torch.autograd.graph.increment_version(shard)
        return tensor
    if given == shape:
        _write(part, table, index, ids, threads)
    else:
        bounds = (slice(None),) * len(given) if index is ... else index
        _write_padded(part, [range(n)[axis] for axis, n in zip(bounds, given, strict=True)], table, threads)
    torch.autograd.graph.increment_version(part)
    return tensor


def _write_padded(part: Tensor, ranges: list[range], table: Table, threads: int | None) -> None:
    """Write the part of a padded table at these ranges to a tensor; 0 beyond the table."""
    inside, within = clip(ranges, table.shape)
    target = part.detach()[within]
    with torch.no_grad(), _disable_current_modes():
        if target.shape != part.shape:
            part.zero_()
    if target.numel():
        _write(target, table, inside, None, threads)


def _write(part: Tensor, table: Table, index: Any, ids: Tensor | None, threads: int | None) -> None:
    """Write ``table[index]``, or the rows `ids` of the table, to a tensor on any device."""
    backend = backend_of(part, table._sampler)
    if backend is not None:
        if threads is not None:
            check_threads(threads)
        if ids is not None:
            ids = ids.detach().to(part.device, torch.int64).contiguous()
        position, strides = table._position, table._strides
        if index is not ...:
            chosen = table._select(index)
            position, strides = chosen.position, chosen.strides
        if part.numel():
            fill_on_device(backend, table._sampler, part, position, strides, ids, table.shape[0] if table.ndim else 0)
        return
    if ids is not None:
        index = ids.detach().cpu().numpy()
    if part.device.type == "cpu":
        table.read(index, check_out(as_array(part), resolve_dtype(table.dtype_name), None), threads=threads)
        return
    with torch.no_grad(), _disable_current_modes():  # modes of ours would take the copy for a model's own
        staged = torch.empty(part.shape, dtype=part.dtype, device="cpu")
        table.read(index, check_out(as_array(staged), resolve_dtype(table.dtype_name), None), threads=threads)
        part.copy_(staged)


# ---- within torch.compile: one opaque operation, which the compiler does not look into


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _recipe_of(table: Table) -> str:
    return json.dumps(table.recipe)


@torch.library.custom_op("xavierfast::fill_from_recipe", mutates_args=("tensor",))
def _fill_from_recipe(tensor: Tensor, recipe: str, ids: Tensor | None, pad: bool, threads: int | None) -> None:
    fill_(tensor, Table.from_recipe(json.loads(recipe)), ids, pad=pad, threads=threads)


@_fill_from_recipe.register_fake
def _(tensor: Tensor, recipe: str, ids: Tensor | None, pad: bool, threads: int | None) -> None:
    return None
