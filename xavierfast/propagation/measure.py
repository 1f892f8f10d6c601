"""From the arrays of each layer to a Report: standard deviations, saturation, singular values, distinct neurons."""

from collections.abc import Sequence
from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from .._core.fill import Array
from .report import Curve, Layer, Report

__all__ = ["Trace", "count_distinct", "make_report", "std_of"]

CURVE_SAMPLE = 1 << 16  # values of a layer from which its density is estimated
CURVE_BINS = 400


class Trace(NamedTuple):
    """The arrays to measure of one layer with m neurons, over k samples."""

    name: str
    weight: Array  # (fan_in, m)
    output: Array  # (k, m)
    slope: Array | None  # (k, m): f'
    steepest: float  # the maximum of |f'|
    gradient: Array  # (k, m): dC/ds
    weight_gradient: Array | None
    is_bounded: bool  # whether f is
    is_dense: bool = True


def make_report(init: str, activation: str, batch: int, seed: Any, traces: Sequence[Trace], jacobian: bool) -> Report:
    layers = tuple(_measure(trace, jacobian) for trace in traces)
    is_bounded = all(trace.is_bounded for trace in traces)
    activations = [_curve(trace.output, is_log=not is_bounded) for trace in traces]
    gradients = [_curve(trace.gradient, is_log=True) for trace in traces]
    return Report(init, activation, batch, seed, layers, is_bounded, activations, gradients)


def _measure(trace: Trace, jacobian: bool) -> Layer:
    name, weight, z, slope, steepest, gradient, weight_gradient, _, is_dense = trace
    saturated = nan if slope is None else float((abs(slope) < 0.01 * steepest).mean())
    singular = _mean_singular(weight * slope[0]) if jacobian and is_dense and slope is not None else nan
    mean = float(z.mean(dtype=np.float64)) if np.isfinite(z).all() else nan
    return Layer(name, z.shape[1], len(weight) * std_of(weight) ** 2, mean, std_of(z), saturated, std_of(gradient),
                 nan if weight_gradient is None else std_of(weight_gradient), singular, count_distinct(z))  # fmt: skip


def std_of(x: Array) -> float:
    return float(x.std(dtype=np.float64)) if np.isfinite(x).all() else inf


def _mean_singular(matrix: Array) -> float:
    """The mean singular value, from the eigenvalues of the smaller Gram matrix, in a third of the time of an SVD.

    float64 resolves singular values down to 1e-8 of the largest.
    """
    if not np.isfinite(matrix).all():
        return nan
    matrix = matrix.astype(np.float64)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).mean())


def count_distinct(z: Array) -> int:
    """Count the columns that differ by more than rounding, since BLAS may sum a matrix's last ones in another order."""
    z = np.nan_to_num(z)
    mark = np.random.default_rng(0).standard_normal(len(z), np.float32) @ z
    z = z[:, np.argsort(mark)]  # equal columns are neighbours now
    return 1 + int((abs(np.diff(z, axis=1)).max(axis=0) > 1e-5 * abs(z).max()).sum())


def _curve(x: Array, *, is_log: bool) -> Curve:
    """The density of x, or of log10(|x|), where x is finite: a histogram of fine bins, smoothed by a normal kernel."""
    x = x[: max(1, CURVE_SAMPLE // x.shape[1])].astype(np.float64)
    used = np.isfinite(x) & (x != 0) if is_log else np.isfinite(x)  # no exact zeros, as half of a rectifier's outputs
    x = np.log10(abs(x), where=used, out=np.zeros_like(x)) if is_log else x
    values = x[used]
    if not values.size or values.min() == values.max():
        return Curve(values[:1], np.ones(len(values[:1])))
    counts, edges = np.histogram(values, CURVE_BINS)
    # Kish (1965), "Survey Sampling", 5.4: where neurons differ more than their responses to several inputs do, as those
    # of a sigmoid, each neuron counts as one value.
    numbers = used.sum(axis=0)
    means = (x * used).sum(axis=0)[numbers > 0] / numbers[numbers > 0]
    alike = min(1.0, means.var() / values.var())
    effective = values.size / (1 + (values.size / len(means) - 1) * alike)
    # Silverman (1986), "Density Estimation", eq. 3.31: the width of the kernel for data like a normal distribution's.
    quarter, three_quarters = np.quantile(values, (0.25, 0.75))
    spread = min(values.std(), (three_quarters - quarter) / 1.34) or values.std()
    width = max(0.9 * spread * effective**-0.2 / (edges[1] - edges[0]), 1.0)  # in bins
    reach = min(int(4 * width) + 1, CURVE_BINS)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    # Mirrored at the ends, so that what piles up at a bound, as in saturation, stays within it.
    heights = np.convolve(np.pad(counts, reach, "symmetric"), kernel / kernel.sum(), "valid")
    return Curve((edges[1:] + edges[:-1]) / 2, heights / (values.size * (edges[1] - edges[0])))
