"""From the arrays of each layer to a Report: standard deviations, saturation, singular values, distinct neurons."""

from collections.abc import Sequence
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import numpy as np

from .._core.fill import Array
from .report import Histograms, Layer, Report

__all__ = ["Trace", "count_distinct", "make_report", "std_of"]


class Trace(NamedTuple):
    """The arrays to measure of one layer with m neurons, over k samples."""

    name: str
    weight: Array  # (fan_in, m)
    output: Array  # (k, m)
    slope: Array | None  # (k, m): f'
    steepest: float  # the maximum of |f'|
    gradient: Array  # (k, m): dC/ds
    weight_gradient: Array | None
    is_dense: bool = True


def make_report(init: str, activation: str, batch: int, seed: Any, traces: Sequence[Trace], jacobian: bool) -> Report:
    layers = tuple(_measure(trace, jacobian) for trace in traces)
    outputs = [trace.output[np.isfinite(trace.output)] for trace in traces]
    gradients = [trace.gradient[np.isfinite(trace.gradient)] for trace in traces]
    low, high = min(float(x.min(initial=inf)) for x in outputs), max(float(x.max(initial=-inf)) for x in outputs)
    reach = 3 * max((layer.gradient for layer in layers if isfinite(layer.gradient)), default=0.0)
    histograms = _histograms(outputs, low, high), _histograms(gradients, -reach, reach)
    return Report(init, activation, batch, seed, layers, *histograms)


def _measure(trace: Trace, jacobian: bool) -> Layer:
    name, weight, z, slope, steepest, gradient, weight_gradient, is_dense = trace
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


def _histograms(arrays: Sequence[Array], low: float, high: float) -> Histograms:
    if not low < high:
        low, high = (low - 1, low + 1) if low == high else (-1, 1)
    edges = np.linspace(low, high, 102)  # an odd number of bins: zero is in the middle of one
    # Exact zeros, which are half of a rectifier's outputs, are left out: they would hide the rest.
    return edges, [np.histogram(x[x != 0], edges)[0] / (max(1, x.size) * (edges[1] - edges[0])) for x in arrays]
