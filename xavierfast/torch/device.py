"""Tensors that are not in the CPU's memory: filled by kernels on their device, or computed on the CPU and copied.

``BACKENDS`` names, for a type of device, the module of ``xavierfast.kernels`` with its kernels. Such a module has
``serves``, ``fill`` and ``gather``, as ``kernels/gpu.py`` has them, and is imported with the first tensor that needs
it. The values are the same in each way; only the time differs.
"""

import warnings
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .._core.fill import c_strides, collapse
from .._core.sampler import Sampler
from .._core.validation import check_no_overlap

__all__ = ["BACKENDS", "backend_of", "fill"]

BACKENDS = {"cuda": "gpu", "xpu": "gpu"}  # ROCm calls its devices "cuda" too
# The integers whose memory stands for that of floats which the kernels round by themselves.
_INTEGERS = {1: torch.int8, 2: torch.int16}


def backend_of(tensor: Tensor, sampler: Sampler) -> Any:
    """The module whose kernels can write a sampler's elements to a tensor; None if the CPU must compute them."""
    name = BACKENDS.get(tensor.device.type)
    module = _backend(name) if name else None
    return module if module is not None and module.serves(sampler) else None


@cache
def _backend(name: str) -> Any:
    try:
        return import_module(f"xavierfast.kernels.{name}")
    except ImportError as error:
        warnings.warn(
            "tensors on a GPU are computed on the CPU and copied, which is slower, since Triton cannot be imported "
            f"({error}): pip install 'triton>=3.7'",
            stacklevel=1,
        )
        return None


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which a device is the current one of its type, on whose current stream Triton launches."""
    return torch.get_device_module(device).device(device)  # type: ignore[no-any-return]


def fill(
    backend: Any,
    sampler: Sampler,
    tensor: Tensor,
    position: int,
    strides: tuple[int, ...],
    ids: Tensor | None,
    rows: int,
) -> None:
    """Write elements of a sampler to a tensor on its device, without waiting for them: index (i, j, ...) gets element
    position + i * strides[0] + j * strides[1] + ...

    With `ids`, int64s beside the tensor, ids[i] stands for i in the first axis, counted from `rows` if negative.
    """
    out = tensor.detach()
    if out.itemsize < 4:
        out = out.view(_INTEGERS[out.itemsize])
    shape = tuple(out.shape)
    with _current(tensor.device):
        if ids is None and out.is_contiguous() and strides == c_strides(shape):
            backend.fill(sampler, out, position, out.numel())
            return
        check_no_overlap(shape, out.stride())
        merged = 0 if ids is None else 1  # an axis of ids is not merged with others
        axes = [(s[:merged], s[merged:]) for s in (shape, out.stride(), strides)]
        rest = collapse(*(s for _, s in axes)) if out.ndim > merged else ((), (), ())
        shape, memory_strides, strides = ((*first, *last) for (first, _), last in zip(axes, rest, strict=True))
        if ids is None and memory_strides == strides == (1,):
            backend.fill(sampler, out, position, out.numel())
        else:
            _gather(backend, sampler, out.as_strided(shape, memory_strides), position, strides, ids, rows)


def _gather(
    backend: Any, sampler: Sampler, out: Tensor, position: int, strides: tuple[int, ...], ids: Tensor | None, rows: int
) -> None:
    """Call ``backend.gather`` for at most as many axes as it takes."""
    if out.ndim <= backend.MAX_AXES:
        backend.gather(sampler, out, position, tuple(out.shape), out.stride(), strides, ids, rows)
        return
    axis = 0 if ids is None else 1
    for i in range(out.shape[axis]):
        rest = (*strides[:axis], *strides[axis + 1 :])
        _gather(backend, sampler, out.select(axis, i), position + i * strides[axis], rest, ids, rows)
