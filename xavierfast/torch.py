"""PyTorch: the in-place initialisers of ``torch.nn.init`` by our kernels, and models of any size filled in one call.

A tensor's memory is filled where it lies, whatever its strides, and not at all copied. Of a ``DTensor`` each rank fills
its own shard, with the fans and the bits of the whole tensor. A stream is a seed and a name: of a module's parameters
the qualified names, so that neither the order of construction nor other parameters matter; under ``fast_init``, where
modules do not yet have names, the number of the call.
"""

import ctypes
import inspect
import mmap
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import wraps
from math import inf, isfinite, nextafter
from string import ascii_lowercase
from typing import Any, NamedTuple

from .distributions import DTYPES, storage
from .fill import Array, check_threads
from .initializers import calculate_gain
from .model import Rule, check_rules, first_match
from .propagation import propagate_module as propagate
from .streams import Seed, resolve_seed
from .table import Table, check_out

try:
    import torch
    from torch.overrides import TorchFunctionMode
except ImportError:
    raise ImportError("xavierfast.torch needs PyTorch: pip install torch") from None

__all__ = [
    "Report", "constant_", "fast_init", "fill_", "init_", "kaiming_normal_", "kaiming_uniform_", "materialise_",
    "normal_", "ones_", "propagate", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip

Tensor = torch.Tensor

# Bytes. New memory in pages of 4 KiB takes longer to touch than to fill; NumPy asks for huge ones from here on too.
HUGE = 1 << 22
PAGE = mmap.PAGESIZE
MADV_HUGEPAGE = 14


# ---- tensors as arrays


def _dtype_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _layout_of(ndim: int) -> str | None:
    """PyTorch's: out, in, receptive field."""
    return "oi" + ascii_lowercase.replace("i", "").replace("o", "").replace("b", "")[: ndim - 2] if ndim > 1 else None


def _local(tensor: Tensor) -> tuple[Tensor, Any]:
    """What of a tensor this process holds, and its index in the whole."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return tensor, ...
    part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    if mesh.get_coordinate() is None:
        return part, (slice(0, 0),) * tensor.ndim
    index = [range(size) for size in tensor.shape]
    # FSDP over tensor parallelism says _StridedShard of what it cuts last, although its axis of the mesh comes first.
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


def _array(tensor: Tensor) -> Array:
    """A tensor's memory as NumPy sees it: the bits, where it has no such dtype."""
    if tensor.device.type != "cpu":
        raise ValueError(f"a tensor to fill must be on the CPU, got one on {tensor.device}: initialise, then move it")
    dtype = _dtype_of(tensor)
    if dtype not in DTYPES:
        raise TypeError(f"a tensor to fill must hold one of {', '.join(DTYPES)}, got {tensor.dtype}")
    tensor = tensor.detach()
    if tensor.nbytes >= HUGE and tensor.is_contiguous():
        _advise_huge_pages(tensor)
    if dtype == "bfloat16":
        return tensor.view(torch.uint16).numpy()
    if tensor.itemsize == 1:
        return tensor.view(torch.uint8).numpy().view(storage(dtype))
    return tensor.numpy()


def _advise_huge_pages(tensor: Tensor) -> None:
    """Ask Linux for pages of 2 MiB, where the memory has not been touched yet."""
    madvise = getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
    if madvise is not None:
        begin = -(-tensor.data_ptr() // PAGE) * PAGE
        end = (tensor.data_ptr() + tensor.nbytes) // PAGE * PAGE
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_HUGEPAGE)


def fill_(tensor: Tensor, table: Table, *, threads: int | None = None) -> Tensor:
    """Write a Table, or a shard of one, to a tensor.

    Parameters
    ----------
    tensor : torch.Tensor
        On the CPU, of the table's shape and dtype, in whatever strides. Of a DTensor each rank fills its own shard.
    table : Table
    threads : int, optional
        As in :func:`xavierfast.xavier_uniform`.

    Returns
    -------
    torch.Tensor
        `tensor`.

    Raises
    ------
    TypeError, ValueError
        If the tensor is not as above. Nothing is written then.

    Examples
    --------
    >>> table = Table((10**9, 64), seed=7, name="items")
    >>> rank = fill_(torch.empty(1000, 64), table.shard(slice(5000, 6000)))
    >>> bool((rank.numpy()[3] == table[5003]).all())
    True
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}")
    if tuple(tensor.shape) != table.shape or _dtype_of(tensor) != table.dtype_name:
        raise ValueError(f"tensor and table must agree, got {tensor.dtype} {tuple(tensor.shape)} and {table!r}")
    if tensor.is_meta:
        raise ValueError("a tensor to fill must have memory, got one on meta: use materialise_ for modules")
    part, index = _local(tensor)
    table.read(index, check_out(_array(part), table.dtype_name, None), threads=threads)
    torch.autograd.graph.increment_version(part)
    return tensor


# ---- the functions of torch.nn.init


class _Draw(NamedTuple):
    """An initialiser and its parameters."""

    init: str
    parameters: dict[str, Any]


def _seed_of(generator: torch.Generator | None) -> list[int]:
    """256 bits of torch's generator: ``torch.manual_seed`` decides the values."""
    return [int(word) for word in torch.randint(0, (1 << 63) - 1, (5,), generator=generator).tolist()]


def _fill_draw(tensor: Tensor, draw: _Draw, seed: Seed, name: str, layout: str | None, threads: int | None) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}")
    shape, dtype = tuple(tensor.shape), _dtype_of(tensor)
    layout = _layout_of(tensor.ndim) if layout is None else layout
    table = Table(shape, draw.init, seed=seed, name=name, dtype=dtype, layout=layout, **draw.parameters)
    return fill_(tensor, table, threads=threads)


def _in_place(draw: Callable[..., _Draw]) -> Callable[..., Tensor]:
    """The public function of a draw: its parameters, then those that all share."""
    own = list(inspect.signature(draw).parameters.values())
    by_position = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in own]
    generator = inspect.Parameter("generator", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
    signature = inspect.Signature([*by_position, generator])

    @wraps(draw)
    def function(
        tensor: Tensor,
        *args: Any,
        seed: Seed = None,
        name: str = "",
        layout: str | None = None,
        threads: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        generator = bound.arguments.pop("generator", None)
        drawn = draw(**bound.arguments)
        return _fill_draw(tensor, drawn, _seed_of(generator) if seed is None else seed, name, layout, threads)

    shared = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [shared[0], *by_position, generator, *(p for p in shared if p.kind is p.KEYWORD_ONLY)], return_annotation=Tensor
    )
    return function


@_in_place
def xavier_uniform_(gain: float = 1.0) -> _Draw:
    """``torch.nn.init.xavier_uniform_`` by our kernels. All functions with torch's names take what torch's take, and:

    Parameters
    ----------
    tensor : torch.Tensor
        As in :func:`fill_`.
    generator : torch.Generator, optional
        Where the seed comes from, if none is given; torch's own by default, which ``torch.manual_seed`` sets.
    seed, name, layout, threads
        As in :func:`xavierfast.xavier_uniform`. The layout is "oi..." by default, as torch's are.

    Returns
    -------
    torch.Tensor
        `tensor`.

    Examples
    --------
    >>> import xavierfast
    >>> weight = torch.nn.Linear(3, 2).weight
    >>> bool((xavier_uniform_(weight, seed=0).detach().numpy() == xavierfast.xavier_uniform((2, 3), seed=0)).all())
    True
    """
    return _Draw("xavier_uniform", {"gain": gain})


@_in_place
def xavier_normal_(gain: float = 1.0) -> _Draw:
    """``torch.nn.init.xavier_normal_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> f"{xavier_normal_(torch.empty(2000, 3000), seed=0).std().item():.3f}"  # sqrt(2 / 5000)
    '0.020'
    """
    return _Draw("xavier_normal", {"gain": gain})


@_in_place
def kaiming_uniform_(a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> _Draw:
    """``torch.nn.init.kaiming_uniform_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> bool(kaiming_uniform_(torch.empty(5, 600), seed=0).abs().max() <= 0.1)  # sqrt(2) * sqrt(3 / 600)
    True
    """
    return _Draw("he_uniform", {"gain": calculate_gain(nonlinearity, a), "mode": mode})


@_in_place
def kaiming_normal_(a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> _Draw:
    """``torch.nn.init.kaiming_normal_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> f"{kaiming_normal_(torch.empty(5000, 200), seed=0).std().item():.3f}"  # sqrt(2 / 200)
    '0.100'
    """
    return _Draw("he_normal", {"gain": calculate_gain(nonlinearity, a), "mode": mode})


@_in_place
def uniform_(a: float = 0.0, b: float = 1.0) -> _Draw:
    """``torch.nn.init.uniform_``: on [a, b), so that b is never drawn. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> x = uniform_(torch.empty(10_000), 2, 3, seed=0)
    >>> bool(x.min() >= 2), bool(x.max() < 3)
    (True, True)
    """
    if not a <= b:
        raise ValueError(f"a must be at most b, got {a!r} and {b!r}")
    return _Draw("uniform", {"low": a, "high": b})


@_in_place
def normal_(mean: float = 0.0, std: float = 1.0) -> _Draw:
    """``torch.nn.init.normal_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> f"{normal_(torch.empty(1_000_000, dtype=torch.bfloat16), std=0.02, seed=0).float().std():.4f}"
    '0.0200'
    """
    return _Draw("normal", {"mean": mean, "std": std})


@_in_place
def trunc_normal_(mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> _Draw:
    """``torch.nn.init.trunc_normal_``: its bounds are absolute, and exact. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> x = trunc_normal_(torch.empty(1_000_000), std=0.02, a=-0.05, b=0.05, seed=0)
    >>> bool(x.abs().max() <= 0.05)
    True
    """
    if not a < b:
        raise ValueError(f"a must be less than b, got {a!r} and {b!r}")
    if not std:
        return _Draw("constant", {"value": min(max(mean, a), b)})
    return _Draw("truncated_normal", {"mean": mean, "std": std, **_relative_bounds(mean, std, a, b)})


def _relative_bounds(mean: float, std: float, a: float, b: float) -> dict[str, float]:
    """a and b in standard deviations about the mean, rounded so that mean + low * std >= a and mean + high * std <= b
    hold exactly."""
    low, high = (a - mean) / std, (b - mean) / std
    if isfinite(mean) and isfinite(std):
        middle, unit = Fraction(mean), Fraction(std)
        while isfinite(low) and middle + Fraction(low) * unit < a:
            low = nextafter(low, inf)
        while isfinite(high) and middle + Fraction(high) * unit > b:
            high = nextafter(high, -inf)
    return {"low": low, "high": high}


@_in_place
def constant_(val: float) -> _Draw:
    """``torch.nn.init.constant_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> constant_(torch.empty(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    return _Draw("constant", {"value": val})


@_in_place
def ones_() -> _Draw:
    """``torch.nn.init.ones_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> ones_(torch.empty(2))
    tensor([1., 1.])
    """
    return _Draw("constant", {"value": 1.0})


@_in_place
def zeros_() -> _Draw:
    """``torch.nn.init.zeros_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> zeros_(torch.empty(2))
    tensor([0., 0.])
    """
    return _Draw("zeros", {})


# ---- calls that are not ours, made ours

# What samples, as a mode sees it. torch.nn.init's xavier_* and trunc_normal_ call these, or are patched, see below.
_SAMPLERS: dict[Any, Callable[..., Tensor]] = {
    torch.nn.init.uniform_: uniform_,
    torch.nn.init.normal_: normal_,
    torch.nn.init.kaiming_uniform_: kaiming_uniform_,
    torch.nn.init.kaiming_normal_: kaiming_normal_,
    Tensor.uniform_: uniform_,
    Tensor.normal_: normal_,
}


def _can_fill(tensor: Any) -> bool:
    """Whether it is a tensor that has memory here, of a dtype that we fill."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or _dtype_of(tensor) not in DTYPES:
        return False
    part = _local(tensor)[0]
    plain = type(part).__torch_dispatch__ is Tensor.__torch_dispatch__
    return plain and part.device.type == "cpu" and part.numel() > 0


class _Sampling(TorchFunctionMode):
    """Sends samplers to our kernels: `sample` gets our function, the tensor, and its arguments."""

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
        if ours is not None and kwargs.get("generator") is None and _can_fill(tensor):
            rest = {key: value for key, value in kwargs.items() if key not in ("tensor", "self", "generator")}
            if func in (Tensor.uniform_, Tensor.normal_):  # whose names for them are from and to
                rest = {{"from": "a", "to": "b"}.get(key, key): value for key, value in rest.items()}
            return self.sample(ours, tensor, *args[1:], **rest)
        if self.see is not None and isinstance(tensor, Tensor):
            self.see(tensor)
        return func(*args, **kwargs)

    def __enter__(self) -> "_Sampling":
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
    """torch.nn.init.trunc_normal_ asks no mode: while one is entered, its inner function asks the thread's."""
    global _patched
    with _patch_lock:
        _patched += step
        torch.nn.init._no_grad_trunc_normal_ = _trunc_normal if _patched else _torch_trunc_normal_


def _trunc_normal(
    tensor: Tensor, mean: float, std: float, a: float, b: float, generator: torch.Generator | None = None
) -> Tensor:
    active = getattr(_modes, "active", ())
    if not active or generator is not None or not _can_fill(tensor):
        return _torch_trunc_normal_(tensor, mean, std, a, b, generator)
    with torch._C.DisableTorchFunction():
        return active[-1].sample(trunc_normal_, tensor, mean, std, a, b)  # type: ignore[no-any-return]


@contextmanager
def fast_init(seed: Seed = None, *, threads: int | None = None) -> Iterator[None]:
    """Within it, what builds a model draws its weights by our kernels; the code stays as it is.

    ``torch.nn.init.uniform_``, ``normal_``, ``trunc_normal_``, ``xavier_*``, ``kaiming_*`` and the tensors' own
    ``uniform_`` and ``normal_`` are ours for CPU tensors of floats, with the distributions that torch documents; all
    else passes through, and so does what is given a generator.

    Parameters
    ----------
    seed
        As in :func:`xavierfast.xavier_uniform`; by default from torch's generator, which ``torch.manual_seed`` sets.
        The n-th draw has the name "n", so the same code gives the same model. For values that do not depend on the
        order of construction use :func:`init_`.
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
    seed = resolve_seed(_seed_of(None) if seed is None else seed)
    drawn = 0

    def sample(ours: Callable[..., Tensor], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal drawn
        drawn += 1
        return ours(tensor, *args, seed=seed, name=str(drawn - 1), threads=threads, **kwargs)

    with _Sampling(sample):
        yield


# ---- whole modules


@dataclass
class Report:
    """What :func:`init_` did: how each parameter was filled, and what was left as it was, and why."""

    filled: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(map(len, [*self.filled, *self.left]), default=0)
        lines = [f"{name:{width}}  {how}" for name, how in self.filled.items()]
        return "\n".join(lines + [f"{name:{width}}  NOT FILLED: {why}" for name, why in self.left.items()])


def init_(
    module: torch.nn.Module,
    rules: str | Mapping[str, Rule] | None = None,
    seed: Seed = 0,
    *,
    threads: int | None = None,
) -> Report:
    """Fill all parameters of a module, each from the stream of its qualified name.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU. DTensors are filled shard by shard, with the bits of the whole on any number of ranks. A parameter
        that several modules share is filled once, by its first name.
    rules : str or mapping, optional
        By default each parameter is drawn as its module's own ``reset_parameters`` draws it. A mapping of patterns, as
        in :func:`xavierfast.init`, goes before that, for the names that it matches. The name of an initialiser, such as
        "xavier_uniform", stands for such a rule for all parameters of two axes and more.
    seed
        As in :func:`xavierfast.xavier_uniform`.
    threads : int, optional
        As in :func:`xavierfast.xavier_uniform`.

    Returns
    -------
    Report
        Parameters that were not filled are also told by a warning: those on meta, of ints, without elements, and those
        that no rule matches and no ``reset_parameters`` touches.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    >>> print(init_(model, "xavier_uniform", seed=0))
    0.weight  Table((4, 3), 'xavier_uniform', seed=0, name='0.weight', layout='oi')
    0.bias    uniform_(a=-0.5773502691896258, b=0.5773502691896258)
    1.weight  by its module
    1.bias    by its module
    """
    seed = resolve_seed(seed)
    report = Report()
    parameters = dict(module.named_parameters())
    places = {}
    for name, parameter in parameters.items():
        reason = _why_not(parameter)
        if reason:
            report.left[name] = reason
        else:
            places[_storage_of(parameter)] = name
    ruled = _ruled(parameters, rules, seed, report.left)
    temporaries: Counter[str] = Counter()
    owner = ""

    def name_of(tensor: Tensor) -> str:
        """The parameter's; of a part of one, or of a tensor that a module makes on its way, one of its own."""
        if not _can_fill(tensor):
            return ""
        name = places.get(_storage_of(tensor), "")
        if name and parameters[name].shape == tensor.shape:
            return name
        within = name or f"{owner}."
        temporaries[within] += 1
        return f"{within}[{temporaries[within] - 1}]"

    def see(tensor: Tensor) -> None:
        name = places.get(_storage_of(tensor), "") if _can_fill(tensor) else ""
        if name and name not in ruled:
            report.filled.setdefault(name, "by its module")

    def sample(ours: Callable[..., Tensor], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = name_of(tensor)
        if name in ruled:
            return tensor
        given = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
        report.filled[name.split("[")[0]] = f"{ours.__name__}({', '.join(given)})"
        return ours(tensor, *args, seed=seed, name=name, threads=threads, **kwargs)

    with _Sampling(sample, see):
        for owner, part in reversed(list(module.named_modules())):  # noqa: B007, name_of reads it
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if reset is not None and any(True for _ in part.parameters()):
                reset()
    for name, table in ruled.items():
        fill_(parameters[name], table, threads=threads)
        report.filled[name] = repr(table)
    report.filled = {name: report.filled[name] for name in parameters if name in report.filled}
    for name in parameters.keys() - report.filled.keys() - report.left.keys():
        report.left[name] = "no rule matches it, and no reset_parameters touches it"
    report.left = {name: report.left[name] for name in parameters if name in report.left}
    if report.left:
        warnings.warn(f"init_ left {len(report.left)} parameters as they were\n{report}", stacklevel=2)
    return report


def _why_not(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "it is on meta: use materialise_"
    if not tensor.numel():
        return "it has no elements"
    if _dtype_of(tensor) not in DTYPES:
        return f"it holds {tensor.dtype}"
    part = _local(tensor)[0]
    return "" if part.device.type == "cpu" else f"it is on {part.device}: initialise, then move"


def _storage_of(tensor: Tensor) -> int:
    """The address of the memory that a tensor is a view of, by which it is known even as ``.data`` or a slice."""
    return _local(tensor)[0].untyped_storage().data_ptr()


def _ruled(
    parameters: Mapping[str, Tensor], rules: str | Mapping[str, Rule] | None, seed: Seed, left: Mapping[str, str]
) -> dict[str, Table]:
    """Tables of the parameters that a rule matches."""
    if rules is None:
        return {}
    of_weights = isinstance(rules, str)
    pairs = check_rules({"*": rules} if isinstance(rules, str) else rules)
    tables, used = {}, set()
    for name, parameter in parameters.items():
        match = first_match(name, pairs)
        if match is None or name in left or (of_weights and parameter.ndim < 2):
            continue
        pattern, rule = match
        used.add(pattern)
        keywords = {"dtype": _dtype_of(parameter), "layout": _layout_of(parameter.ndim), **rule}
        tables[name] = Table(tuple(parameter.shape), seed=seed, name=name, **keywords)
    unused = [pattern for pattern, _ in pairs if pattern not in used]
    if unused:
        raise ValueError(f"each rule must match a parameter, got {', '.join(map(repr, unused))} that match none first")
    return tables


def materialise_(
    module: torch.nn.Module,
    rules: str | Mapping[str, Rule] | None = None,
    seed: Seed = 0,
    *,
    threads: int | None = None,
) -> Report:
    """Give a module that was built on the meta device its memory, on the CPU, and fill it.

    Parameters
    ----------
    module : torch.nn.Module
        Also one of DTensors, as FSDP2's ``fully_shard`` and tensor parallelism make them: each rank holds and computes
        its shards alone. Parameters that were tied stay tied.
    rules, seed, threads
        As in :func:`init_`.

    Returns
    -------
    Report
        As of :func:`init_`. Buffers that no ``reset_parameters`` fills are told with a warning, and hold NaN, or 0 if
        they are of ints: what they held on meta is not known to anyone but their module.

    Examples
    --------
    >>> with torch.device("meta"):
    ...     model = torch.nn.Linear(3, 4)
    >>> materialise_(model, seed=0).left
    {}
    >>> model.weight.device
    device(type='cpu')
    """
    first: dict[int, tuple[torch.nn.Module, str]] = {}
    tied = []
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and first.setdefault(id(parameter), (part, name)) != (part, name):
                tied.append((part, name, first[id(parameter)]))
    meta = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    module.to_empty(device="cpu")
    for part, name, (owner, original) in tied:
        part._parameters[name] = owner._parameters[original]
    buffers = {name: buffer for name, buffer in module.named_buffers() if name in meta}
    with torch.no_grad():
        for buffer in buffers.values():
            buffer.fill_(float("nan") if buffer.is_floating_point() else 0)
    report = init_(module, rules, seed, threads=threads)
    hollow = [name for name, buffer in buffers.items() if buffer.is_floating_point() and buffer.isnan().any()]
    if hollow:
        warnings.warn(f"materialise_ cannot know what these buffers held: {', '.join(hollow)}", stacklevel=2)
    return report
