"""Capture draws wherever they are asked for: ``fast_init``, for code that stays as it is.

Code reaches torch's samplers in many ways: by functions of ``torch.nn.init``, imported by name or replaced by a
library's own, by methods of tensors, by ``torch.randn``. All end in a few operations of torch's dispatcher, where a
TorchDispatchMode sees them. Two functions are caught before that, as their operations no longer tell what was asked
for: ``kaiming_uniform_``, by a TorchFunctionMode, and ``trunc_normal_``, a loop of operations, by a patch of its inner
function.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .._core.stream import Seed, derive_key, resolve_seed
from .._core.validation import check_threads
from .draws import Draws, Stream, agreed_seed, draws_in_force
from .functions import kaiming_uniform_, normal_, trunc_normal_, uniform_
from .tensors import can_fill

__all__ = ["Modes", "capturing", "fast_init", "reseed"]

aten = torch.ops.aten
_IN_PLACE = {aten.uniform_.default: uniform_, aten.normal_.default: normal_}
# Operations that make a tensor: the operation that makes it empty, and the draw that fills it.
_NEW = {
    aten.rand.default: (aten.empty.memory_format, uniform_),
    aten.randn.default: (aten.empty.memory_format, normal_),
    aten.rand_like.default: (aten.empty_like.default, uniform_),
    aten.randn_like.default: (aten.empty_like.default, normal_),
}


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Let our functions make the draws of torch's operations; hand all other operations to the Draws in force."""

    def __init__(self, modes: "Modes", draws: Draws) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modes, self.draws = modes, draws

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is None:
            if func in _IN_PLACE and can_fill(args[0]):
                return _IN_PLACE[func](*args)
            if func is aten.normal.float_float:
                mean, std, *size = args
                tensor = aten.empty.memory_format(*size, **{k: v for k, v in kwargs.items() if k != "generator"})
                return normal_(tensor, mean, std) if can_fill(tensor) else func(*args, **kwargs)
            if func in _NEW:
                make, fill = _NEW[func]
                tensor = make(*args, **kwargs)
                return fill(tensor) if can_fill(tensor) else func(*args, **kwargs)
        return self.draws.operate(self.modes, func, args, kwargs)


class _Functions(TorchFunctionMode):
    """Let our ``kaiming_uniform_`` take the place of torch's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        # torch's function asks about whatever object has its name in torch.nn.init, which a library may have replaced.
        if func is torch.nn.init.kaiming_uniform_ and kwargs.get("generator") is None:
            tensor = kwargs.get("tensor", args[0] if args else None)
            if can_fill(tensor) and not tensor.is_complex():  # of which torch fills a square, and ours a disk
                given = {key: kwargs[key] for key in ("a", "mode", "nonlinearity") if key in kwargs}
                return kaiming_uniform_(tensor, *args[1:], **given)
        return func(*args, **kwargs)


class Modes:
    """Both modes. A handler of one of them, in which they are suspended, may enter them again."""

    def __init__(self, draws: Draws) -> None:
        self.functions, self.operations = _Functions(), _Operations(self, draws)

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self.functions, self.operations:
            yield


class _Patch:
    """Replaces the inner function of ``torch.nn.init.trunc_normal_`` while any thread captures draws."""

    def __init__(self) -> None:
        self.lock, self.count = threading.Lock(), 0
        self.replaced: Any = torch.nn.init._no_grad_trunc_normal_

    def __enter__(self) -> None:
        with self.lock:
            if not self.count:
                self.replaced = torch.nn.init._no_grad_trunc_normal_
                torch.nn.init._no_grad_trunc_normal_ = self.trunc_normal
            self.count += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.count -= 1
            if not self.count:
                torch.nn.init._no_grad_trunc_normal_ = self.replaced

    def trunc_normal(
        self, tensor: Tensor, mean: float, std: float, a: float, b: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Fill by our function in threads that capture draws, and by the replaced one in all others."""
        if draws_in_force.get() is None or generator is not None or not can_fill(tensor) or tensor.is_complex():
            return self.replaced(tensor, mean, std, a, b, generator)  # type: ignore[no-any-return]
        with torch._C.DisableTorchFunction():
            return trunc_normal_(tensor, mean, std, a, b)


_patch = _Patch()


def _generators() -> list[torch.Generator]:
    """Torch's own generators: the CPU's, and those of all devices that have been used."""
    found = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found += torch.cuda.default_generators
    if torch.xpu.is_initialized():  # type: ignore[no-untyped-call]
        found += torch.xpu.default_generators
    if torch.backends.mps.is_available():
        found.append(torch.mps._get_default_mps_generator())
    return found


def reseed(seed: int | tuple[int, ...], name: str) -> None:
    """Seed torch's own generators, for operations that are not draws of ours, such as ``randperm``."""
    number = int.from_bytes(derive_key(seed, name)[:8], "little")
    for generator in _generators():
        generator.manual_seed(number)


@contextmanager
def capturing(draws: Draws) -> Iterator[None]:
    """Put Draws in force, and torch's generators back to their state at the end."""
    modes = Modes(draws)
    states = [(generator, generator.get_state()) for generator in _generators()]
    with _patch:
        token = draws_in_force.set(draws)
        try:
            with modes.entered():
                yield
        finally:
            draws_in_force.reset(token)
            for generator, state in states:
                generator.set_state(state)


class _Numbered(Draws):
    """Draws whose names are their numbers."""

    def __init__(self, seed: Seed, threads: int | None) -> None:
        self.given = seed is not None
        self.seed = resolve_seed(agreed_seed() if seed is None else seed)
        self.threads, self.drawn = threads, 0
        self.agreed: dict[Any, Seed] = {}  # for each mesh, if no seed was given

    def stream(self, tensor: Tensor, init: str, parameters: Mapping[str, Any]) -> Stream:
        seed: Seed = self.seed
        mesh = getattr(tensor, "device_mesh", None)
        if mesh is not None and not self.given:
            if mesh not in self.agreed:
                self.agreed[mesh] = agreed_seed(None, tensor)
            seed = self.agreed[mesh]
        self.drawn += 1
        return Stream(seed, str(self.drawn - 1), self.threads)


@contextmanager
def fast_init(seed: Seed = None, *, threads: int | None = None) -> Iterator[None]:
    """Draw the weights of all models that are built within this context by our kernels; their code stays as it is.

    Every uniform and normal draw on a tensor of floats is ours, in whatever way the code asks for it: by the
    functions of ``torch.nn.init``, or those of a library that wraps or replaces them; by ``Tensor.uniform_`` and
    ``normal_``; by ``torch.rand``, ``randn``, ``rand_like``, ``randn_like`` and ``normal``; by the functions of
    ``xavierfast.torch``. The distributions are those that torch documents. Draws that are given a generator go to
    torch. All other random functions, such as ``randperm``, use torch's generator, which is seeded from `seed` within
    the context and gets its former state back at the end: the same code gives the same model, whatever was drawn
    before. That generator is shared by all threads, the captured draws are those of the calling thread.

    Parameters
    ----------
    seed
        As in :func:`xavierfast.xavier_uniform`; by default taken from torch's generator, which ``torch.manual_seed``
        sets. Draw n, counted from 0, has the name "n". For values that do not depend on the order of construction use
        :func:`init_`.
    threads : int, optional
        As in :func:`xavierfast.xavier_uniform`.

    Examples
    --------
    >>> with fast_init(seed=0):
    ...     model = torch.nn.Linear(300, 200)
    >>> bool(model.weight.abs().max() <= 300**-0.5)
    True
    """
    if torch.compiler.is_compiling():
        raise RuntimeError("fast_init cannot be compiled: build the model outside of the function that torch compiles")
    if threads is not None:
        check_threads(threads)
    draws = _Numbered(seed, threads)
    with capturing(draws):
        reseed(draws.seed, "torch's generator")
        yield
