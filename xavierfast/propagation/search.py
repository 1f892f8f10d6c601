"""The search for the initialiser and the gain that keep a network's signals and gradients level."""

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np

from .._core.fill import Array
from .._core.stream import Seed, resolve_seed
from ..table import Table
from .activations import Activation, Function, check_activation
from .measure import std_of
from .network import check_widths, make_inputs, propagate, run, weights_of
from .report import Report

__all__ = ["Suggestion", "search", "suggest"]


class Suggestion(NamedTuple):
    """The result of :func:`suggest`: an initialiser, its parameters, and the report of the network with them."""

    init: str
    parameters: dict[str, Any]
    report: Report

    @property
    def gain(self) -> float:
        return float(self.parameters["gain"])


def suggest(
    activation: Activation,
    widths: Sequence[int] = (256,) * 9,
    *,
    inputs: Any = None,
    input_std: float = 1.0,
    batch: int = 64,
    seed: Seed = 0,
) -> Suggestion:
    """Find the scheme and gain that keep variances of activations and gradients closest to level from layer to layer.

    The search tries gains from 1/8 to 16 with Xavier, and with LeCun (of which He is a multiple) by fan_in and by
    fan_out. The best has the least mean square of the logarithms of the factors by which standard deviations change
    from layer to layer, forward and backward.

    Parameters
    ----------
    activation, widths, inputs, input_std, batch, seed
        As in :func:`propagate`. With equal widths all schemes are the same, and Xavier is returned.

    Returns
    -------
    Suggestion

    Raises
    ------
    TypeError, ValueError
        As in :func:`propagate`, for fewer than two layers, and if no gain lets signals and gradients through.

    Examples
    --------
    He et al. (2015) derive sqrt(2) for the rectifier.

    >>> found = suggest("relu")
    >>> found.init, round(found.gain, 1)
    ('xavier_uniform', 1.4)
    """
    widths, (_, f, slope_of), seed = check_widths(widths), check_activation(activation), resolve_seed(seed)
    if len(widths) < 3:
        raise ValueError(f"widths must be three ints or more, got {widths!r}: signals change from layer to layer")
    x = make_inputs(inputs, input_std, batch, widths, seed)
    rule = search(widths, f, slope_of, x, seed)
    if rule is None:
        raise ValueError(f"activation must let signals and gradients through two layers or more, got {activation!r}")
    init = rule.pop("init")
    return Suggestion(init, rule, propagate(widths, activation, init, inputs=x, seed=seed, **rule))


def search(widths: tuple[int, ...], f: Function, slope_of: Function, x: Array, seed: Any) -> dict[str, Any] | None:
    """The rule that keeps variances closest to level, as a dict with "init" and "gain"; None if no gain does."""
    gradient = Table((len(x), widths[-1]), "normal", seed=seed, name="gradient").read()
    schemes: list[dict[str, Any]] = [{"init": "xavier_uniform"}]
    if len(set(widths)) > 1:
        schemes += [{"init": "lecun_uniform", "mode": mode} for mode in ("fan_in", "fan_out")]

    def badness(weights: list[Array], exponent: float) -> float:
        scale = np.float32(2**exponent)
        with np.errstate(all="ignore"):
            scaled = [scale * weight for weight in weights]
            traces = run(x, scaled, f, slope_of, gradient, has_weight_gradients=False)
            stds = np.array([[std_of(trace.output), std_of(trace.gradient)] for trace in traces])
            logs = np.diff(np.log(stds), axis=0)
        return float(np.mean(logs**2)) if logs.size and np.isfinite(logs).all() else inf

    best: tuple[float, float, dict[str, Any]] = inf, 0.0, {}
    for scheme in schemes:
        weights = weights_of(widths, seed, scheme)
        trials, found = list(np.arange(-3, 4.5, 0.5)), (inf, 0.0)
        for step in (0.25, 0.125, 0.06, 0.03, 0.015, 0.0):
            found = min(found, *((badness(weights, float(exponent)), float(exponent)) for exponent in trials))
            trials = [found[1] - step, found[1] + step]
        if found[0] < 0.95 * best[0]:  # where all widths shrink alike, schemes differ only by a gain
            best = (*found, scheme)
    return None if best[0] == inf else best[2] | {"gain": round(2 ** best[1], 2)}
