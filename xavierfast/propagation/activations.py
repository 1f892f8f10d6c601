"""The activation functions f of a network, each with its slope f'; both are functions of the pre-activation."""

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np

from .._core.fill import Array

__all__ = ["ACTIVATIONS", "GRID", "MODULES", "Activation", "Function", "check_activation"]
Function = Callable[[Array], Array]
Activation = str | tuple[Function, Function]


def _sigmoid(x: Array) -> Array:
    return 0.5 * np.tanh(0.5 * x) + 0.5  # exp(-x) would overflow


def _normal_cdf(x: Array) -> Any:
    """The normal distribution function, by Abramowitz and Stegun 7.1.26, within 1e-7; NumPy has no erf."""
    t = 1 / (1 + 0.3275911 / sqrt(2) * abs(x))
    tail = t * (0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145))))
    tail *= np.exp(-0.5 * x * x)
    return np.where(x > 0, 1 - tail, tail)


def _silu_slope(x: Array) -> Any:
    y = _sigmoid(x)
    return y * (1 + x * (1 - y))


ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
    "hard_tanh": (lambda x: np.clip(x, -1, 1), lambda x: (abs(x) < 1).astype(x.dtype)),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(x.dtype)),
    "leaky_relu": (lambda x: np.maximum(x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01).astype(x.dtype)),
    "gelu": (lambda x: x * _normal_cdf(x), lambda x: _normal_cdf(x) + x * np.exp(-0.5 * x * x) / sqrt(2 * pi)),
    "silu": (lambda x: x * _sigmoid(x), _silu_slope),
    "linear": (lambda x: x, np.ones_like),
}
# PyTorch's elementwise modules.
MODULES = (
    "CELU", "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid", "Mish",
    "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh",
)  # fmt: skip
GRID = np.linspace(-20, 20, 4001, dtype=np.float32)  # the points at which the maximum of |f'| is sought


def check_activation(activation: Any) -> tuple[str, Function, Function]:
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}, or a pair of functions, got {activation!r}")
        return activation, *ACTIVATIONS[activation]
    if not (isinstance(activation, tuple) and len(activation) == 2 and all(map(callable, activation))):
        raise TypeError(f"activation must be a name or a pair of functions (f, f'), got {activation!r:.80}")
    return getattr(activation[0], "__name__", "f"), *activation
