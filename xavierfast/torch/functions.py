"""The functions of ``torch.nn.init`` by our kernels: plain functions that share one body."""

from collections.abc import Mapping
from fractions import Fraction
from math import inf, isfinite, nextafter
from typing import Any

import torch
from torch import Tensor

from .._core.rules import InitName
from .._core.stream import Seed
from ..initializers import calculate_gain
from ..table import Table
from .tensors import dtype_of, fill_, layout_of

__all__ = [
    "constant_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_", "seed_of", "trunc_normal_", "uniform_",
    "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip


def seed_of(generator: torch.Generator | None) -> list[int]:
    """A seed of more than 256 bits from torch's generator, so that ``torch.manual_seed`` decides the values."""
    return [int(word) for word in torch.randint(0, (1 << 63) - 1, (5,), generator=generator).tolist()]


def _fill(
    tensor: Tensor, init: InitName, parameters: Mapping[str, Any], generator: torch.Generator | None, seed: Seed,
    name: str, layout: str | None, threads: int | None,
) -> Tensor:  # fmt: skip
    """Fill a tensor from a Table of its shape and dtype."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}")
    table = Table(
        tuple(tensor.shape), init, seed=seed_of(generator) if seed is None else seed, name=name,
        dtype=dtype_of(tensor), layout=layout_of(tensor.ndim) if layout is None else layout, **parameters,
    )  # fmt: skip
    return fill_(tensor, table, threads=threads)


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "",
    layout: str | None = None, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.xavier_uniform_`` by our kernels.

    Each function here with the name of one in ``torch.nn.init`` takes the same arguments and the further ones below.

    Parameters
    ----------
    tensor : torch.Tensor
        The tensor to fill, as in :func:`fill_`.
    generator : torch.Generator, optional
        The source of the seed if `seed` is None; by default torch's own generator, which ``torch.manual_seed`` sets.
    seed, name, layout, threads
        As in :func:`xavierfast.xavier_uniform`. The default layout is "oi...", as in torch.

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
    """
    return _fill(tensor, "xavier_uniform", {"gain": gain}, generator, seed, name, layout, threads)


def xavier_normal_(
    tensor: Tensor, gain: float = 1.0, generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "",
    layout: str | None = None, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.xavier_normal_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> f"{xavier_normal_(torch.empty(2000, 3000), seed=0).std().item():.3f}"  # sqrt(2 / 5000)
    '0.020'
    """
    return _fill(tensor, "xavier_normal", {"gain": gain}, generator, seed, name, layout, threads)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "", layout: str | None = None,
    threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.kaiming_uniform_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> bool(kaiming_uniform_(torch.empty(5, 600), seed=0).abs().max() <= 0.1)  # sqrt(2) * sqrt(3 / 600)
    True
    """
    return _fill(
        tensor,
        "he_uniform",
        {"gain": calculate_gain(nonlinearity, a), "mode": mode},
        generator,
        seed,
        name,
        layout,
        threads,
    )


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "", layout: str | None = None,
    threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.kaiming_normal_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> f"{kaiming_normal_(torch.empty(5000, 200), seed=0).std().item():.3f}"  # sqrt(2 / 200)
    '0.100'
    """
    return _fill(
        tensor,
        "he_normal",
        {"gain": calculate_gain(nonlinearity, a), "mode": mode},
        generator,
        seed,
        name,
        layout,
        threads,
    )


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: torch.Generator | None = None, *, seed: Seed = None,
    name: str = "", layout: str | None = None, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.uniform_``: uniform on [a, b); b is never drawn. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> x = uniform_(torch.empty(10_000), 2, 3, seed=0)
    >>> bool(x.min() >= 2), bool(x.max() < 3)
    (True, True)
    """
    if not a <= b:
        raise ValueError(f"a must be at most b, got {a!r} and {b!r}")
    return _fill(tensor, "uniform", {"low": a, "high": b}, generator, seed, name, layout, threads)


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: torch.Generator | None = None, *,
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
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
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
    if not a < b:
        raise ValueError(f"a must be less than b, got {a!r} and {b!r}")
    if not std:
        return _fill(tensor, "constant", {"value": min(max(mean, a), b)}, generator, seed, name, layout, threads)
    parameters = {"mean": mean, "std": std, **_relative_bounds(mean, std, a, b)}
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
    tensor: Tensor, val: float, generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "",
    layout: str | None = None, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.constant_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> constant_(torch.empty(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    return _fill(tensor, "constant", {"value": val}, generator, seed, name, layout, threads)


def ones_(
    tensor: Tensor, generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "",
    layout: str | None = None, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.ones_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> ones_(torch.empty(2))
    tensor([1., 1.])
    """
    return _fill(tensor, "constant", {"value": 1.0}, generator, seed, name, layout, threads)


def zeros_(
    tensor: Tensor, generator: torch.Generator | None = None, *, seed: Seed = None, name: str = "",
    layout: str | None = None, threads: int | None = None,
) -> Tensor:  # fmt: skip
    """``torch.nn.init.zeros_``. Parameters as in :func:`xavier_uniform_`.

    Examples
    --------
    >>> zeros_(torch.empty(2))
    tensor([0., 0.])
    """
    return _fill(tensor, "zeros", {}, generator, seed, name, layout, threads)
