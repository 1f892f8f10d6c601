"""Capture the calls of torch's own initialisers: ``fast_init``, for code that stays as it is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._core.dtypes import DTYPES
from .._core.stream import Seed, resolve_seed
from .._core.validation import check_threads
from .functions import kaiming_normal_, kaiming_uniform_, normal_, seed_of, trunc_normal_, uniform_
from .tensors import dtype_of, local_part

__all__ = ["Sampling", "can_fill", "fast_init"]


# The samplers that a TorchFunctionMode sees. torch.nn.init's xavier_* call these too; trunc_normal_ is patched below.
_SAMPLERS: dict[Any, Callable[..., Tensor]] = {
    torch.nn.init.uniform_: uniform_,
    torch.nn.init.normal_: normal_,
    torch.nn.init.kaiming_uniform_: kaiming_uniform_,
    torch.nn.init.kaiming_normal_: kaiming_normal_,
    Tensor.uniform_: uniform_,
    Tensor.normal_: normal_,
}


def can_fill(tensor: Any) -> bool:
    """Whether this is a strided tensor with elements in this process's CPU memory, of a dtype that we fill."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or dtype_of(tensor) not in DTYPES:
        return False
    part = local_part(tensor)[0]
    plain = type(part).__torch_dispatch__ is Tensor.__torch_dispatch__
    return plain and part.device.type == "cpu" and part.numel() > 0


class Sampling(TorchFunctionMode):
    """Redirect samplers to our kernels.

    `sample` gets our function, the tensor and the arguments; `see` gets the tensors of all other in-place calls.
    """

    def __init__(self, sample: Callable[..., Tensor], see: Callable[[Tensor], None] | None = None) -> None:
        super().__init__()
        self.sample = sample
        self.see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if not name.endswith("_") or name.startswith("__") or name in ("requires_grad_", "share_memory_", "detach_"):
            return func(*args, **kwargs)
        tensor = args[0] if args else kwargs.get("tensor", kwargs.get("self"))
        ours = _SAMPLERS.get(func)
        if ours is not None and kwargs.get("generator") is None and can_fill(tensor):
            rest = {key: value for key, value in kwargs.items() if key not in ("tensor", "self", "generator")}
            if func in (Tensor.uniform_, Tensor.normal_):  # where a and b have the names from and to
                rest = {{"from": "a", "to": "b"}.get(key, key): value for key, value in rest.items()}
            return self.sample(ours, tensor, *args[1:], **rest)
        if self.see is not None and isinstance(tensor, Tensor):
            self.see(tensor)
        return func(*args, **kwargs)

    def __enter__(self) -> "Sampling":
        _patch(+1)
        _modes.active = [*getattr(_modes, "active", ()), self]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _modes.active = _modes.active[:-1]
        _patch(-1)


_modes = threading.local()
_patched = 0
_patch_lock = threading.Lock()
_torch_trunc_normal_ = torch.nn.init._no_grad_trunc_normal_


def _patch(step: int) -> None:
    """Count the active modes up or down, and patch ``trunc_normal_`` while there are any.

    ``torch.nn.init.trunc_normal_`` bypasses TorchFunctionMode, so its inner function is replaced by one that consults
    the mode of the calling thread.
    """
    global _patched
    with _patch_lock:
        _patched += step
        torch.nn.init._no_grad_trunc_normal_ = _trunc_normal if _patched else _torch_trunc_normal_


def _trunc_normal(
    tensor: Tensor, mean: float, std: float, a: float, b: float, generator: torch.Generator | None = None
) -> Tensor:
    active = getattr(_modes, "active", ())
    if not active or generator is not None or not can_fill(tensor):
        return _torch_trunc_normal_(tensor, mean, std, a, b, generator)
    with torch._C.DisableTorchFunction():
        return active[-1].sample(trunc_normal_, tensor, mean, std, a, b)  # type: ignore[no-any-return]


@contextmanager
def fast_init(seed: Seed = None, *, threads: int | None = None) -> Iterator[None]:
    """Draw the weights of all models that are built within this context by our kernels; their code stays as it is.

    For CPU tensors of floats, our functions replace ``torch.nn.init.uniform_``, ``normal_``, ``trunc_normal_``,
    ``xavier_*``, ``kaiming_*`` and the tensors' own ``uniform_`` and ``normal_``, with the distributions that torch
    documents. Everything else passes through, and so do calls that are given a generator.

    Parameters
    ----------
    seed
        As in :func:`xavierfast.xavier_uniform`; by default taken from torch's generator, which ``torch.manual_seed``
        sets. Draw n, counted from 0, has the name "n", so the same code gives the same model. For values that do not
        depend on the order of construction use :func:`init_`.
    threads : int, optional
        As in :func:`xavierfast.xavier_uniform`.

    Examples
    --------
    >>> with fast_init(seed=0):
    ...     model = torch.nn.Linear(300, 200)
    >>> bool(model.weight.abs().max() <= 300**-0.5)
    True
    """
    if threads is not None:
        check_threads(threads)
    seed = resolve_seed(seed_of(None) if seed is None else seed)
    drawn = 0

    def sample(ours: Callable[..., Tensor], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal drawn
        drawn += 1
        return ours(tensor, *args, seed=seed, name=str(drawn - 1), threads=threads, **kwargs)

    with Sampling(sample):
        yield
