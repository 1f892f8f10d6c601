"""The functions of ``torch.nn.init`` by our kernels: plain functions that share one body."""

import json
import warnings
from collections.abc import Mapping
from fractions import Fraction
from math import inf, isfinite, nextafter
from typing import Any

import torch
from torch import Tensor

from .._core.dtypes import DTypeName
from .._core.rules import InitName
from .._core.stream import Seed
from ..initializers import calculate_gain
from ..table import Table
from .draws import agreed_seed, draws_in_force
from .layers import weight_fans
from .tensors import can_fill, check_dtype, fill_, local_part

__all__ = [
    "constant_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_", "trunc_normal_", "uniform_",
    "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip

Number = float | Tensor  # a tensor of one element, as torch's own functions take it


def _plain(number: Any) -> Any:
    """A tensor without axes, or a NumPy scalar, as a Python number."""
    return number.item() if getattr(number, "ndim", None) == 0 else number


def _fill(
    tensor: Tensor, init: InitName, parameters: Mapping[str, Any], generator: torch.Generator | None, seed: Seed,
    name: str, layout: str | None, threads: int | None, groups: int = 1, transposed: bool = False,
) -> Tensor:  # fmt: skip
    """Fill a tensor from a Table of its shape and dtype."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}")
    if torch.compiler.is_compiling():
        return _fill_in_graph(tensor, init, parameters, generator, seed, name, layout, threads, groups, transposed)
    parameters = {key: _plain(value) for key, value in parameters.items()}
    has_elements = tensor.numel() > 0 and not tensor.is_meta
    if not has_elements:
        seed = 0  # nothing is drawn, and the arguments are still checked
    elif seed is None and generator is None and (draws := draws_in_force.get()) is not None and can_fill(tensor):
        stream = draws.stream(tensor, init, parameters)
        if stream is None:
            return tensor
        seed, name, threads = stream.seed, name or stream.name, threads or stream.threads
    elif seed is None:
        seed = agreed_seed(generator, tensor)
    fans = weight_fans(tuple(tensor.shape), layout, groups, transposed)
    dtype = check_dtype(tensor)
    mean = 0
    if tensor.is_complex() and init == "normal":  # our complex normals have the mean 0
        mean, parameters = parameters["mean"], parameters | {"mean": 0.0}
    arguments: dict[str, Any] = {"seed": seed, "name": name, **fans, **parameters}
    try:
        table = Table(tuple(tensor.shape), init, dtype=dtype, **arguments)
    except ValueError as error:  # values may overflow or underflow, which torch rounds to infinity or 0
        wide: DTypeName = "complex128" if tensor.is_complex() else "float64"
        try:
            table = Table(tuple(tensor.shape), init, dtype=wide, **arguments)
        except ValueError:
            raise error from None
    if has_elements and table.dtype_name == dtype:
        fill_(tensor, table, threads=threads)
    elif has_elements:
        part, index = local_part(tensor)
        with torch.no_grad():
            part.copy_(torch.from_numpy(table.read(index, threads=threads)))
    if mean and has_elements:  # torch adds it to both parts
        with torch.no_grad():
            tensor.add_(complex(mean, mean))
    return tensor


def xavier_uniform_(
    tensor: Tensor, gain: Number = 1.0, generator: torch.Generator | None = None, *, seed: Seed = None,
    name: str = "", layout: str | None = None, groups: int = 1, transposed: bool = False, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.xavier_uniform_`` by our kernels.

    Each function here with the name of one in ``torch.nn.init`` takes the same arguments and the further ones below.
    Numbers may be tensors without axes or NumPy scalars. A tensor on the meta device is left as it is.

    **Two tensors without names under one seed hold the same numbers, so give each tensor a name.**

    Parameters
    ----------
    tensor : torch.Tensor
        The tensor to fill, as in :func:`fill_`.
    generator : torch.Generator, optional
        The source of the seed if `seed` is None; by default torch's own generator, which ``torch.manual_seed`` sets.
        For a DTensor the first rank of its mesh draws the seed for all.
    seed, name, threads
        As in :func:`xavierfast.xavier_uniform`.
    layout : str, optional
        As in :func:`xavierfast.xavier_uniform`; by default "oi...", as in torch.
    groups : int
        The number of groups of a grouped or depthwise convolution. torch's own function leaves it out (its issue
        23854).
    transposed : bool
        Whether this is the weight of a transposed convolution, whose first axis is the input. torch's own function
        takes it for the output.

    Returns
    -------
    torch.Tensor
        `tensor`, filled.

    Examples
    --------
    >>> import xavierfast
    >>> weight = torch.nn.Linear(3, 2).weight
    >>> bool((xavier_uniform_(weight, seed=0).detach().numpy() == xavierfast.xavier_uniform((2, 3), seed=0)).all())
    True
    >>> weight = torch.nn.Conv2d(32, 64, 3, groups=4).weight
    >>> bool(xavier_uniform_(weight, seed=0, groups=4).abs().max() <= 1 / 6)  # sqrt(6 / (72 + 144))
    True
    """
    return _fill(
        tensor, "xavier_uniform", {"gain": gain}, generator, seed, name, layout, threads, groups, transposed
    )  # fmt: skip


def xavier_normal_(
    tensor: Tensor, gain: Number = 1.0, generator: torch.Generator | None = None, *, seed: Seed = None,
    name: str = "", layout: str | None = None, groups: int = 1, transposed: bool = False, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.xavier_normal_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> f"{xavier_normal_(torch.empty(2000, 3000), seed=0).std().item():.3f}"  # sqrt(2 / 5000)
    '0.020'
    """
    return _fill(
        tensor, "xavier_normal", {"gain": gain}, generator, seed, name, layout, threads, groups, transposed
    )  # fmt: skip


def kaiming_uniform_(
    tensor: Tensor, a: Number = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "", layout: str | None = None,
    groups: int = 1, transposed: bool = False, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.kaiming_uniform_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> bool(kaiming_uniform_(torch.empty(5, 600), seed=0).abs().max() <= 0.1)  # sqrt(2) * sqrt(3 / 600)
    True
    """
    if _is_empty(tensor):
        return tensor
    parameters = _kaiming(a, mode, nonlinearity)
    return _fill(tensor, "he_uniform", parameters, generator, seed, name, layout, threads, groups, transposed)


def kaiming_normal_(
    tensor: Tensor, a: Number = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "", layout: str | None = None,
    groups: int = 1, transposed: bool = False, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.kaiming_normal_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> f"{kaiming_normal_(torch.empty(5000, 200), seed=0).std().item():.3f}"  # sqrt(2 / 200)
    '0.100'
    """
    if _is_empty(tensor):
        return tensor
    parameters = _kaiming(a, mode, nonlinearity)
    return _fill(tensor, "he_normal", parameters, generator, seed, name, layout, threads, groups, transposed)


def _kaiming(a: Number, mode: str, nonlinearity: str) -> dict[str, Any]:
    return {"gain": _gain(nonlinearity, a), "mode": mode.lower() if isinstance(mode, str) else mode}


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _gain(nonlinearity: str, a: Number) -> float:
    return calculate_gain(nonlinearity, _plain(a))


def _is_empty(tensor: Any) -> bool:
    """Whether a tensor has no elements, of which torch's ``kaiming_*`` warn; its other functions do not."""
    if isinstance(tensor, Tensor) and 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return True
    return False


def uniform_(
    tensor: Tensor, a: Number = 0.0, b: Number = 1.0, generator: torch.Generator | None = None, *, seed: Seed = None,
    name: str = "", layout: str | None = None, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.uniform_``: uniform on [a, b); b is never drawn. Parameters as in :func:`xavier_uniform_`.

    Both parts of complex numbers are uniform on [a, b), as in torch.

    Examples
    --------
    >>> x = uniform_(torch.empty(10_000), 2, 3, seed=0)
    >>> bool(x.min() >= 2), bool(x.max() < 3)
    (True, True)
    """
    if not a <= b:
        raise ValueError(f"a must be at most b, got {a!r} and {b!r}")
    if isinstance(tensor, Tensor) and tensor.is_complex():
        uniform_(torch.view_as_real(tensor.detach()), a, b, generator, seed=seed, name=name, threads=threads)
        return tensor
    return _fill(tensor, "uniform", {"low": a, "high": b}, generator, seed, name, layout, threads)


def normal_(
    tensor: Tensor, mean: Number = 0.0, std: Number = 1.0, generator: torch.Generator | None = None, *,
    seed: Seed = None, name: str = "", layout: str | None = None, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.normal_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> f"{normal_(torch.empty(1_000_000, dtype=torch.bfloat16), std=0.02, seed=0).float().std():.4f}"
    '0.0200'
    """
    return _fill(tensor, "normal", {"mean": mean, "std": std}, generator, seed, name, layout, threads)


def trunc_normal_(
    tensor: Tensor, mean: Number = 0.0, std: Number = 1.0, a: Number = -2.0, b: Number = 2.0,
    generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "", layout: str | None = None,
    threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.trunc_normal_`` with its absolute bounds, which hold exactly.

    Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> x = trunc_normal_(torch.empty(1_000_000), std=0.02, a=-0.05, b=0.05, seed=0)
    >>> bool(x.abs().max() <= 0.05)
    True
    """
    middle, scale, low, high = map(_plain, (mean, std, a, b))
    if not low <= high:
        raise ValueError(f"a must be at most b, got {low!r} and {high!r}")
    if not scale or low == high:
        value = min(max(middle, low), high)
        return _fill(tensor, "constant", {"value": value}, generator, seed, name, layout, threads)
    parameters = {"mean": middle, "std": scale, **_relative_bounds(middle, scale, low, high)}
    return _fill(tensor, "truncated_normal", parameters, generator, seed, name, layout, threads)


def _relative_bounds(mean: float, std: float, a: float, b: float) -> dict[str, float]:
    """The bounds a and b as `low` and `high` in standard deviations about the mean, rounded so that
    mean + low * std >= a and mean + high * std <= b hold exactly."""
    low, high = (a - mean) / std, (b - mean) / std
    if isfinite(mean) and isfinite(std):
        middle, unit = Fraction(mean), Fraction(std)
        while isfinite(low) and middle + Fraction(low) * unit < a:
            low = nextafter(low, inf)
        while isfinite(high) and middle + Fraction(high) * unit > b:
            high = nextafter(high, -inf)
    return {"low": low, "high": high}


def constant_(
    tensor: Tensor, val: complex | Tensor, *, seed: Seed = None, name: str = "", layout: str | None = None,
    threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.constant_``, by torch itself: any dtype, any value, any device.

    `seed`, `name`, `layout` and `threads` have no effect: all functions here accept them.

    Examples
    --------
    >>> constant_(torch.empty(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}")
    with torch.no_grad():
        return tensor.fill_(val)


def ones_(
    tensor: Tensor, *, seed: Seed = None, name: str = "", layout: str | None = None, threads: int | None = None
) -> Tensor:
    """``torch.nn.init.ones_``. Parameters as in :func:`constant_`.

    Examples
    --------
    >>> ones_(torch.empty(2))
    tensor([1., 1.])
    """
    return constant_(tensor, 1.0)


def zeros_(
    tensor: Tensor, *, seed: Seed = None, name: str = "", layout: str | None = None, threads: int | None = None
) -> Tensor:
    """``torch.nn.init.zeros_``. Parameters as in :func:`constant_`.

    Examples
    --------
    >>> zeros_(torch.empty(2))
    tensor([0., 0.])
    """
    return constant_(tensor, 0.0)


# ---- within torch.compile: one opaque operation, which the compiler does not look into


@torch.library.custom_op("xavierfast::fill_", mutates_args=("tensor",))
def _fill_op(
    tensor: Tensor, init: str, numbers: str, values: list[float], fan_mode: str, seed: str, name: str,
    layout: str | None, threads: int | None, groups: int, transposed: bool,
) -> None:  # fmt: skip
    parameters: dict[str, Any] = dict(zip(numbers.split(","), values, strict=True))
    if fan_mode:
        parameters["mode"] = fan_mode
    _fill(tensor, init, parameters, None, json.loads(seed), name, layout, threads, groups, transposed)  # type: ignore[arg-type]


@_fill_op.register_fake
def _(*arguments: Any) -> None:
    return None


def _fill_in_graph(
    tensor: Tensor, init: str, parameters: Mapping[str, Any], generator: torch.Generator | None, seed: Seed, name: str,
    layout: str | None, threads: int | None, groups: int, transposed: bool,
) -> Tensor:  # fmt: skip
    """Call ``_fill`` when the compiled code runs. Its arguments are those that an operation of torch can have."""
    if generator is not None:
        raise ValueError(
            "within torch.compile a seed must be an int or a sequence of ints, got a generator: pass seed="
        )
    numbers = [key for key in parameters if key != "mode"]
    text = "null" if seed is None else str(seed) if isinstance(seed, int) else str(list(seed))  # type: ignore[arg-type]
    values = [float(parameters[key]) for key in numbers]
    mode = parameters.get("mode", "")
    with torch.no_grad():
        _fill_op(
            tensor.detach(), init, ",".join(numbers), values, mode, text, name, layout, threads, groups, transposed
        )
    return tensor
