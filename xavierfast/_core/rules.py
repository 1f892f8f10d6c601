"""The initialisers as data: each name maps to parameters with defaults, and to the distribution that they give.

Sources: Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural networks", eq. 12
(the variance) and 16 (the uniform's bound); He, Zhang, Ren and Sun (2015), "Delving deep into rectifiers", eq. 10;
LeCun, Bottou, Orr and Mueller (1998), "Efficient backprop", section 4.6.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import isnan, sqrt
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypedDict, get_args

import numpy as np

from .. import kernels
from .distributions import Constant, Distribution, Normal, RandomConstant, TruncatedNormal, Uniform, UniformRange
from .validation import PLAIN_TYPES, check_number, did_you_mean, plain, shown

__all__ = ["RULES", "SQRT_2", "Fans", "InitName", "Kind", "Mode", "Parameters", "Rule", "resolve_rule"]

InitName = Literal[
    "xavier_uniform", "xavier_normal", "xavier_truncated_normal", "glorot_uniform", "glorot_normal",
    "glorot_truncated_normal", "he_uniform", "he_normal", "he_truncated_normal", "kaiming_uniform", "kaiming_normal",
    "kaiming_truncated_normal", "lecun_uniform", "lecun_normal", "lecun_truncated_normal", "variance_scaling",
    "uniform", "normal", "truncated_normal", "constant", "zeros", "random_constant",
]  # fmt: skip

Kind = Literal["uniform", "normal", "truncated_normal"]
Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]


class Parameters(TypedDict, total=False):
    """The parameters of all initialisers; each takes some of them."""

    gain: float
    scale: float
    mode: Mode
    distribution: Kind
    bound: float | None
    low: float | None
    high: float | None
    mean: float
    std: float
    value: complex


KINDS: tuple[Kind, ...] = get_args(Kind)
MODES: Mapping[Mode, Callable[[int, int], float]] = {
    "fan_in": lambda fan_in, fan_out: fan_in,
    "fan_out": lambda fan_in, fan_out: fan_out,
    "fan_avg": lambda fan_in, fan_out: (fan_in + fan_out) / 2,
    "fan_geo_avg": lambda fan_in, fan_out: sqrt(fan_in * fan_out),
}
# Standard deviation of a standard normal truncated to (-2, 2).
STD_TRUNCATED_AT_2 = 0.87962566103423978
# Standard deviation of a standard complex normal truncated to a modulus of 2: sqrt(1 - 4 / (e^4 - 1)). JAX has
# 0.95311164380491208, which is sqrt(1 - 5 e^-4): the integral over the disk is not divided by the disk's mass, which
# gives 1.9 % too much variance.
STD_COMPLEX_TRUNCATED_AT_2 = 0.96196182800821351
SQRT_2 = sqrt(2)
REQUIRED = object()  # stands in place of a default


class Fans(NamedTuple):
    """The fans of a weight, and whether it is complex: a rule may depend on these and on its parameters only."""

    fan_in: int
    fan_out: int
    is_complex: bool


class Rule(NamedTuple):
    """An initialiser: its parameters with their defaults, and the distribution that parameters and fans give.

    A rule that `uses_fans` passes them to `distribution` as the first argument.
    """

    name: InitName
    defaults: Mapping[str, Any]
    distribution: Callable[..., Distribution]
    uses_fans: bool = False

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The given parameters as Python's own numbers and texts, and defaults for those that are not given."""
        complete = {**self.defaults, **given}
        for name, value in given.items():
            if type(value) not in PLAIN_TYPES:
                complete[name] = plain(value)
        if len(complete) > len(self.defaults):
            unknown = next(name for name in given if name not in self.defaults)
            known = f"takes {', '.join(self.defaults)}" if self.defaults else "takes no parameters"
            hint = did_you_mean(unknown, self.defaults)
            raise TypeError(f"{self.name} {known}, got the unexpected keyword argument {unknown!r}{hint}")
        if len(given) < len(complete):
            for name, value in complete.items():
                if value is REQUIRED:
                    raise TypeError(f"{self.name} needs {name}=, which was not given")
        return complete

    def drawn(self, fans: tuple[int, int] | None, is_complex: bool, complete: Mapping[str, Any]) -> Distribution:
        """The distribution of completed parameters and, for a rule that uses them, of fans."""
        if self.name == "constant":  # the one rule for which the sign of a zero counts, and it is not cached
            return self.distribution(**complete)
        used = (*fans, is_complex) if self.uses_fans and fans else None
        try:
            return _cached(self.name, used, *complete.values())
        except TypeError:  # also for a parameter that cannot be hashed, which the rule itself refuses
            return _cached.__wrapped__(self.name, used, *complete.values())


# Types tell True from 1. The sign of a zero, which the cache does not see, is dropped by check_number.
@lru_cache(maxsize=1024, typed=True)
def _cached(name: str, fans: tuple[int, int, bool] | None, *parameters: Any) -> Distribution:
    arguments = (Fans(*fans), *parameters) if fans else parameters
    distribution: Distribution = kernels.in_default_fp_environment(RULES[name].distribution, *arguments)
    return distribution


def _scaled(kind: str, gain: float, mode: Mode, fans: Fans) -> Distribution:
    """The distribution with standard deviation gain / sqrt(n), where n is the fan that `mode` names."""
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {shown(mode)}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"distribution must be one of {', '.join(KINDS)}, got {shown(kind)}")
    n = MODES[mode](fans.fan_in, fans.fan_out)
    gain = check_number("gain", gain)
    if not n:  # only for a weight without elements: fans that are given are at least 1
        return Constant(0.0)
    if kind == "uniform":
        return Uniform(gain * sqrt((2 if fans.is_complex else 3) / n))
    std = gain * sqrt(1 / n)
    if kind == "normal":
        return Normal(0.0, std)
    return TruncatedNormal(
        0.0, std / (STD_COMPLEX_TRUNCATED_AT_2 if fans.is_complex else STD_TRUNCATED_AT_2), -2.0, 2.0
    )


def _variance_scaling(fans: Fans, scale: float, mode: Mode, distribution: Kind) -> Distribution:
    return _scaled(distribution, sqrt(check_number("scale", scale)), mode, fans)


def _uniform(bound: float | None, low: float | None, high: float | None) -> Distribution:
    if low is None and high is None:
        return Uniform(check_number("bound", 1.0 if bound is None else bound))
    if bound is not None or low is None or high is None:
        given = ", ".join(
            f"{k}={shown(v)}" for k, v in (("bound", bound), ("low", low), ("high", high)) if v is not None
        )
        raise TypeError(f"uniform takes bound, or low and high, got {given}")
    first, last = check_number("low", low, negative=True), check_number("high", high, negative=True)
    if first > last:
        raise ValueError(f"low must be at most high, got low={low!r} and high={high!r}")
    return UniformRange(first, last)


def _normal(mean: float, std: float) -> Distribution:
    return Normal(check_number("mean", mean, negative=True), check_number("std", std))


def _truncated_normal(mean: float, std: float, low: float, high: float) -> Distribution:
    for name, value in (("low", low), ("high", high)):
        if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be a number, got {shown(value)}")
        if isinstance(value, Integral):
            check_number(name, value, negative=True)  # which refuses ints that are too large for a float
        elif isnan(value):
            raise ValueError(f"{name} must not be NaN, got {value!r}")
    if not low < high:
        raise ValueError(f"low must be less than high, got low={low!r} and high={high!r}")
    middle = check_number("mean", mean, negative=True)
    return TruncatedNormal(middle, check_number("std", std), float(low) or 0.0, float(high) or 0.0)


def _constant(value: complex) -> Distribution:
    for part in (value.real, value.imag) if isinstance(value, complex) else (value,):
        check_number("value", part, negative=True)
    return Constant(value if isinstance(value, complex) else float(value))  # with the sign of a zero


def _rules() -> dict[str, Rule]:
    rules = {}

    def add(name: Any, distribution: Callable[..., Distribution], uses_fans: bool = False, /, **defaults: Any) -> None:
        rules[name] = Rule(name, defaults, distribution, uses_fans)

    for kind in KINDS:
        add(f"xavier_{kind}", lambda fans, gain, kind=kind: _scaled(kind, gain, "fan_avg", fans), True, gain=1.0)
        for family, gain in (("he", SQRT_2), ("lecun", 1.0)):
            by_mode = lambda fans, gain, mode, kind=kind: _scaled(kind, gain, mode, fans)  # noqa: E731
            add(f"{family}_{kind}", by_mode, True, gain=gain, mode="fan_in")
        rules[f"glorot_{kind}"], rules[f"kaiming_{kind}"] = rules[f"xavier_{kind}"], rules[f"he_{kind}"]
    add("variance_scaling", _variance_scaling, True, scale=1.0, mode="fan_in", distribution="truncated_normal")
    add("uniform", _uniform, bound=None, low=None, high=None)
    add("normal", _normal, mean=0.0, std=1.0)
    add("truncated_normal", _truncated_normal, mean=0.0, std=1.0, low=-2.0, high=2.0)
    add("constant", _constant, value=REQUIRED)
    add("zeros", lambda: Constant(0.0))
    add("random_constant", lambda bound: RandomConstant(check_number("bound", bound)), bound=1.0)
    return rules


RULES: Mapping[str, Rule] = MappingProxyType(_rules())


def resolve_rule(init: Any) -> Rule:
    """The rule for the name of an initialiser, or for the function of that name."""
    name = getattr(init, "__name__", init)
    if not isinstance(name, str) or name not in RULES:
        hint = did_you_mean(name, RULES)
        raise ValueError(
            f"init must be the name of an initialiser, got {shown(init)}{hint}; the names are {', '.join(RULES)}"
        )
    return RULES[name]
