"""Measure the effect of an initialisation on a deep network, by a batch forward and a random gradient backward.

::

    z[0] = inputs      s[i] = z[i-1] @ W[i]          z[i] = f(s[i])                  i = 1 ... d, no biases
    C = sum(g * z[d])  d[i] = dC/ds[i] = f'(s[i]) * (d[i+1] @ W[i+1].T)              g normal, of std 1

All arrays are float32. The weights are Tables under one seed with the names "layer 1", "layer 2", ...; g and, unless
they are given, the inputs are normal Tables with the names "gradient" and "inputs". So a report depends only on its
arguments, except for the last bits, which depend on the machine's BLAS.

Source: Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural networks", section
4.2. Variances stay level from layer to layer forward if fan_in * Var[W] = 1 (eq. 10), backward if fan_out * Var[W] = 1
(eq. 11); Xavier's Var[W] = 2 / (fan_in + fan_out) is the compromise (eq. 12).
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from math import inf, isfinite, log, nan, pi, sqrt
from typing import Any, NamedTuple

import numpy as np

from .._core.fill import Array
from .._core.recipe import to_json
from .._core.rules import RULES
from .._core.stream import Seed, resolve_seed
from .._core.validation import check_count, shown
from ..model import Rule
from ..table import Table
from .plots import check_image_path, draw_reports

__all__ = [
    "ACTIVATIONS", "MODULES", "SCHEMES", "Comparison", "Layer", "Report", "Suggestion", "compare", "explain",
    "parse_layers", "propagate", "suggest",
]  # fmt: skip

Function = Callable[[Array], Array]
Activation = str | tuple[Function, Function]


# ---- activations: f and f', both of the pre-activation


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

SCHEMES: dict[str, Rule] = {
    "zeros": "zeros",
    "random_constant": "random_constant",
    "normal": "normal",
    # U[-1/sqrt(fan_in), 1/sqrt(fan_in)], Glorot and Bengio's eq. 1: LeCun's bound is sqrt(3 / fan_in).
    "old_heuristic": {"init": "lecun_uniform", "gain": 1 / sqrt(3)},
    "xavier_uniform": "xavier_uniform",
    "xavier_normal": "xavier_normal",
    "xavier_truncated_normal": "xavier_truncated_normal",
    "he_normal": "he_normal",
    "lecun_normal": "lecun_normal",
}


# ---- reports


class Layer(NamedTuple):
    """The measurements of one layer by :func:`propagate`. A standard deviation is inf where values overflow float32."""

    name: str
    width: int  # neurons
    weight: float  # fan_in * Var[W]
    mean: float  # mean of the activations z; nan where they overflow
    std: float  # std of the activations z
    saturated: float  # share of the activations where |f'| < 1 % of its maximum; nan where f is unknown
    gradient: float  # std of dC/ds
    weight_gradient: float  # std of dC/dW, C the mean over the batch
    singular: float  # mean singular value of dz[i]/dz[i-1] at the first sample; nan if not computed, or overflow
    distinct: int  # number of different responses to the batch among the neurons


Histograms = tuple[Array, list[Array]]  # bin edges, and one density per layer


@dataclass(frozen=True)
class Report:
    """The result of :func:`propagate`: the layers, from the inputs up, with methods to show them."""

    init: str
    activation: str
    batch: int
    seed: int | tuple[int, ...]
    layers: tuple[Layer, ...]
    activations: Histograms = field(repr=False, compare=False)
    gradients: Histograms = field(repr=False, compare=False)

    @property
    def forward(self) -> float:
        """The geometric mean of the factors from each layer's std of activations to the next one's, or nan."""
        return _growth([layer.std for layer in self.layers])

    @property
    def backward(self) -> float:
        """The geometric mean of the factors from each layer's std of gradients to that of the layer below, or nan."""
        return _growth([layer.gradient for layer in reversed(self.layers)])

    @property
    def overflow(self) -> str | None:
        """The name of the first layer where values overflow, on the way forward, then backward; None if none does."""
        up = [layer.name for layer in self.layers if layer.std == inf]
        down = [layer.name for layer in reversed(self.layers) if inf in (layer.gradient, layer.weight_gradient)]
        return next(iter(up + down), None)

    def to_dict(self) -> dict[str, Any]:
        """All figures as a dict for JSON; those that are not finite are the strings "inf" or "nan"."""
        layers = [{k: v if isinstance(v, int) else to_json(v) for k, v in x._asdict().items()} for x in self.layers]
        own = {"init": self.init, "activation": self.activation, "batch": self.batch, "seed": self.seed}
        return own | {"forward": to_json(self.forward), "backward": to_json(self.backward), "layers": layers}

    def table(self) -> Any:
        """A ``rich.table.Table`` with one row per layer; raises ImportError without rich."""
        return _grid(f"{self.init}, {self.activation}", Layer._fields, self.layers)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw histograms by layer and variances by depth to an image, in the format of the path's ending.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        OSError, ValueError
            For a path that cannot be written, or an ending that matplotlib does not know.
        """
        draw_reports({self.init: self}, path)


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`: the reports of one network, by scheme."""

    reports: dict[str, Report]

    def __getitem__(self, scheme: str) -> Report:
        return self.reports[scheme]

    def to_dict(self) -> dict[str, Any]:
        return {name: report.to_dict() for name, report in self.reports.items()}

    def table(self) -> Any:
        """A ``rich.table.Table`` with one row per scheme: figures of the first and last layer, factors and extremes."""
        columns = ("scheme", "weight", "std, first", "std, last", "forward", "gradient, last", "gradient, first",
                   "backward", "saturated, most", "singular", "distinct, least")  # fmt: skip
        rows = []
        for name, report in self.reports.items():
            first, last = report.layers[0], report.layers[-1]
            rows.append((name, last.weight, first.std, last.std, report.forward, last.gradient, first.gradient,
                         report.backward, max(layer.saturated for layer in report.layers),
                         float(np.mean([layer.singular for layer in report.layers])),
                         min(layer.distinct for layer in report.layers)))  # fmt: skip
        return _grid(", ".join({report.activation for report in self.reports.values()}), columns, rows)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw one row of histograms per scheme, then the variances of all by depth, as :meth:`Report.plot` does."""
        draw_reports(self.reports, path)


class Suggestion(NamedTuple):
    """The result of :func:`suggest`: an initialiser, its parameters, and the report of the network with them."""

    init: str
    parameters: dict[str, Any]
    report: Report

    @property
    def gain(self) -> float:
        return float(self.parameters["gain"])


def _growth(stds: Sequence[float]) -> float:
    if len(stds) < 2 or not all(0 < std < inf for std in stds):
        return nan
    return float((stds[-1] / stds[0]) ** (1 / (len(stds) - 1)))


def _grid(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Any:
    try:
        from rich.table import Table as Grid
    except ImportError:
        raise ImportError("a table needs rich: pip install 'xavierfast[cli]'") from None
    grid = Grid(title=title, box=None, title_justify="left")
    for k, column in enumerate(columns):
        grid.add_column(column.replace("_", " "), justify="right" if k else "left")
    for row in rows:
        grid.add_row(*(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row))
    return grid


# ---- forward, backward, and the measurements


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


def _weights(widths: Sequence[int], seed: Any, keywords: Mapping[str, Any]) -> list[Array]:
    tables = [Table(shape, seed=seed, name=f"layer {k}", **keywords) for k, shape in enumerate(pairwise(widths), 1)]
    return [table.read() for table in tables]


def _apply(function: Function, x: Array) -> Array:
    y = np.asarray(function(x))
    if y.dtype.kind not in "biuf" or y.shape != x.shape:
        raise ValueError(
            "activation must be functions that give an array of real numbers of the shape that they get, "
            f"got {y.dtype} of the shape {y.shape} for {x.shape}"
        )
    return y.astype(x.dtype, copy=False)


def _run(inputs: Array, weights: Sequence[Array], f: Function, slope_of: Function, gradient: Array) -> list[Trace]:
    steepest = float(np.nanmax(abs(_apply(slope_of, GRID))))
    outputs, slopes, traces = [inputs], [], []
    for weight in weights:
        s = outputs[-1] @ weight
        outputs.append(_apply(f, s))
        slopes.append(_apply(slope_of, s))
    for k in reversed(range(len(weights))):
        gradient = gradient * slopes[k]
        weight_gradient = outputs[k].T @ gradient / len(inputs)
        output, slope = outputs[k + 1], slopes[k]
        traces.append(Trace(f"layer {k + 1}", weights[k], output, slope, steepest, gradient, weight_gradient))
        gradient = gradient @ weights[k].T
    return traces[::-1]


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
    return Layer(name, z.shape[1], len(weight) * _std(weight) ** 2, mean, _std(z), saturated, _std(gradient),
                 nan if weight_gradient is None else _std(weight_gradient), singular, count_distinct(z))  # fmt: skip


def _std(x: Array) -> float:
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


def propagate(
    widths: Sequence[int],
    activation: Activation,
    init: Rule = "xavier_uniform",
    *,
    inputs: Any = None,
    batch: int = 256,
    seed: Seed = 0,
    jacobian: bool = True,
    **parameters: Any,
) -> Report:
    """Send a batch forward and a random gradient backward through a dense network, and measure both in each layer.

    Parameters
    ----------
    widths : sequence of ints
        The width of the inputs, then of each layer: d + 1 ints >= 1 for d layers.
    activation : str or pair of functions
        "sigmoid", "tanh", "softsign", "hard_tanh", "relu", "leaky_relu" (of slope 0.01), "gelu", "silu", "linear", or
        a pair (f, f'). Both functions take the pre-activations, an array of any shape, and return an array of the same
        shape.
    init : str, function or mapping
        An initialiser or its name; "old_heuristic" for U[-1/sqrt(fan_in), 1/sqrt(fan_in)]; or a dict with "init" and
        parameters.
    inputs : array of shape (k, widths[0]), optional
        By default `batch` rows of normal values with standard deviation 1.
    batch : int
        At least 1; without effect if `inputs` are given.
    seed
        As in :func:`xavier_uniform`, but 0 by default, so that a measurement can be repeated. The weights of layer i
        are ``Table((widths[i - 1], widths[i]), init, seed=seed, name=f"layer {i}")``.
    jacobian : bool
        Whether to compute the mean singular values of the layers' Jacobians, which takes most of the time.
    **parameters
        The initialiser's own parameters, such as gain.

    Returns
    -------
    Report
        Values that overflow float32 raise no error: the report then contains inf and nan.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above, before anything is computed.

    Examples
    --------
    Glorot and Bengio's section 4.2: the factors of a tanh layer forward and backward, and its mean singular value.

    >>> for init in "old_heuristic", "xavier_uniform":
    ...     report = propagate([300] * 6, "tanh", init)
    ...     print(f"{init:<14} {report.forward:.1f} {report.backward:.1f} {report.layers[-1].singular:.1f}")
    old_heuristic  0.6 0.5 0.5
    xavier_uniform 0.8 0.8 0.8
    """
    if not isinstance(jacobian, (bool, np.bool_)):
        raise TypeError(f"jacobian must be True or False, got {jacobian!r:.80}")
    widths, (label, f, slope_of) = _check_widths(widths), _check_activation(activation)
    title, keywords = _check_rule(init, parameters)
    seed = resolve_seed(seed)
    if inputs is None:
        x = Table((check_count("batch", batch), widths[0]), "normal", seed=seed, name="inputs").read()
    else:
        x = _check_inputs(inputs, widths[0])
    weights = _weights(widths, seed, keywords)
    gradient = Table((len(x), widths[-1]), "normal", seed=seed, name="gradient").read()
    with np.errstate(all="ignore"):
        traces = _run(x, weights, f, slope_of, gradient)
        return make_report(title, label, len(x), seed, traces, jacobian)


def compare(
    widths: Sequence[int],
    activation: Activation,
    inits: Iterable[Rule] | Mapping[str, Rule] | None = None,
    **keywords: Any,
) -> Comparison:
    """Measure one network under several initialisation schemes, with the same inputs and the same gradient.

    Parameters
    ----------
    widths, activation
        As in :func:`propagate`.
    inits : iterable of inits, or mapping of labels to inits, optional
        Initialisers as in :func:`propagate`; by default ``SCHEMES``: zeros, one random value, N(0, 1), the old
        heuristic, the three of Xavier, and the normals of He and LeCun.
    **keywords
        The arguments inputs, batch, seed and jacobian of :func:`propagate`.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        As in :func:`propagate`.

    Examples
    --------
    Zeros, and one value for all weights, leave all neurons of a layer alike.

    >>> compared = compare([100, 100, 100], "sigmoid", ["zeros", "random_constant", "xavier_normal"])
    >>> {init: [layer.distinct for layer in report.layers] for init, report in compared.reports.items()}
    {'zeros': [1, 1], 'random_constant': [1, 1], 'xavier_normal': [100, 100]}
    """
    rules = SCHEMES if inits is None else inits
    if isinstance(rules, str) or not isinstance(rules, Iterable) or isinstance(rules, np.ndarray):
        raise TypeError(f"inits must be a list of initialisers, got {rules!r:.80}: put it into one")
    labelled: dict[Any, Rule] = (
        dict(rules) if isinstance(rules, Mapping) else {_check_rule(rule, {})[0]: rule for rule in rules}
    )
    if not labelled:
        raise ValueError(f"inits must name at least one initialiser, got {inits!r}")
    keywords["seed"] = resolve_seed(keywords.get("seed", 0))
    return Comparison({label: propagate(widths, activation, rule, **keywords) for label, rule in labelled.items()})


def suggest(
    activation: Activation, widths: Sequence[int] = (256,) * 9, *, batch: int = 64, seed: Seed = 0
) -> Suggestion:
    """Find the scheme and gain that keep variances of activations and gradients closest to level from layer to layer.

    The search tries gains from 1/8 to 16 with Xavier, and with LeCun (of which He is a multiple) by fan_in and by
    fan_out. The best has the least mean square of the logarithms of the factors by which standard deviations change
    from layer to layer, forward and backward.

    Parameters
    ----------
    activation, widths, batch, seed
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
    widths, (_, f, slope_of), seed = _check_widths(widths), _check_activation(activation), resolve_seed(seed)
    if len(widths) < 3:
        raise ValueError(f"widths must be three ints or more, got {widths!r}: signals change from layer to layer")
    x = Table((check_count("batch", batch), widths[0]), "normal", seed=seed, name="inputs").read()
    gradient = Table((batch, widths[-1]), "normal", seed=seed, name="gradient").read()
    schemes: list[dict[str, Any]] = [{"init": "xavier_uniform"}]
    if len(set(widths)) > 1:
        schemes += [{"init": "lecun_uniform", "mode": mode} for mode in ("fan_in", "fan_out")]

    def badness(weights: list[Array], exponent: float) -> float:
        scale = np.float32(2**exponent)
        with np.errstate(all="ignore"):
            traces = _run(x, [scale * weight for weight in weights], f, slope_of, gradient)
            stds = np.array([[_std(trace.output), _std(trace.gradient)] for trace in traces])
            logs = np.diff(np.log(stds), axis=0)
        return float(np.mean(logs**2)) if logs.size and np.isfinite(logs).all() else inf

    best: tuple[float, float, dict[str, Any]] = inf, 0.0, {}
    for scheme in schemes:
        weights = _weights(widths, seed, scheme)
        trials, found = list(np.arange(-3, 4.5, 0.5)), (inf, 0.0)
        for step in (0.25, 0.125, 0.06, 0.03, 0.015, 0.0):
            found = min(found, *((badness(weights, float(exponent)), float(exponent)) for exponent in trials))
            trials = [found[1] - step, found[1] + step]
        if found[0] < 0.95 * best[0]:  # where all widths shrink alike, schemes differ only by a gain
            best = (*found, scheme)
    if best[0] == inf:
        raise ValueError(f"activation must let signals and gradients through two layers or more, got {activation!r}")
    parameters: dict[str, Any] = best[2] | {"gain": round(2 ** best[1], 2)}
    init = parameters.pop("init")
    return Suggestion(init, parameters, propagate(widths, activation, init, batch=batch, seed=seed, **parameters))


def explain(
    widths: Sequence[int],
    activation: Activation = "tanh",
    *,
    inits: Iterable[Rule] = ("zeros", "random_constant", "normal", "old_heuristic", "xavier_uniform", "he_normal"),
    plot: str | os.PathLike[str] | None = None,
    **keywords: Any,
) -> str:
    """Describe the effect of each scheme on a network, in plain sentences with the figures of this run.

    Parameters
    ----------
    widths, activation, inits
        As in :func:`compare`.
    plot : str or path, optional
        The path of an image; if it is given, :meth:`Comparison.plot` is drawn to it.
    **keywords
        The arguments inputs, batch, seed and jacobian of :func:`propagate`.

    Returns
    -------
    str
        A heading, one line per scheme, and for two layers or more the result of :func:`suggest`.

    Raises
    ------
    TypeError, ValueError, ImportError, OSError
        As in :func:`propagate` and :meth:`Report.plot`.

    Examples
    --------
    >>> print(explain([200] * 3, "tanh", inits=["zeros", "old_heuristic"]))  # doctest: +ELLIPSIS
    A network of 2 layers, tanh, widths 200 x 3: 256 inputs go forward, a random gradient comes back.
    zeros: all neurons of a layer are alike, so that training cannot make them differ; nothing arrives at the top.
    old_heuristic: fan_in Var[W] is 0.33; activations shrink on the way up, std 0.46 to 0.25, a factor of 0.5...
    Closest to level is xavier_uniform(gain=...
    """
    if plot is not None:
        check_image_path(plot)
    compared = compare(widths, activation, inits, **keywords)
    if plot is not None:
        compared.plot(plot)
    first = next(iter(compared.reports.values()))
    size = f"{len(first.layers)} layer{'s' if len(first.layers) > 1 else ''}, {first.activation}"
    lines = [f"A network of {size}, widths {_widths_text(widths)}: {first.batch} inputs go forward, a random gradient "
             "comes back."]  # fmt: skip
    lines += [f"{name}: {_story(report)}" for name, report in compared.reports.items()]
    if len(first.layers) > 1:
        found = suggest(activation, widths, seed=first.seed)
        lines += [f"Closest to level is {found.report.init}: {_story(found.report)}"]
    return "\n".join(lines)


def _widths_text(widths: Iterable[int]) -> str:
    runs = ((width, len(list(run))) for width, run in groupby(widths))
    return ", ".join(f"{width} x {count}" if count > 1 else str(width) for width, count in runs)


def _story(report: Report) -> str:
    first, last = report.layers[0], report.layers[-1]
    worst = max(report.layers, key=lambda layer: layer.saturated)
    alike = all(layer.distinct == 1 for layer in report.layers)
    if report.overflow:
        return f"values overflow float32, first in {report.overflow}."
    parts = [f"fan_in Var[W] is {' to '.join(dict.fromkeys(f'{layer.weight:.2f}' for layer in (first, last)))}"]
    if alike:
        parts = ["all neurons of a layer are alike, so that training cannot make them differ"]
    if not last.std or not first.gradient:
        parts += [f"nothing arrives at the {'bottom' if last.std else 'top'}"]
    if worst.saturated >= 0.01:
        parts += [f"{worst.saturated:.0%} of {worst.name} is saturated"]
    for what, begin, end, factor in (
        ("activations {} on the way up", first.std, last.std, report.forward),
        ("gradients {} on the way down", last.gradient, first.gradient, report.backward),
    ):
        if isfinite(factor) and not alike:
            verb = "stay level" if abs(log(factor)) < 0.05 else "shrink" if factor < 1 else "grow"
            parts += [f"{what.format(verb)}, std {begin:.2g} to {end:.2g}, a factor of {factor:.2f} a layer"]
    if isfinite(last.singular) and not alike:
        singular = np.mean([layer.singular for layer in report.layers])
        parts += [f"the mean singular value of a layer's Jacobian is {singular:.2f}"]
    return "; ".join(parts) + "."


def parse_layers(text: str) -> tuple[int, ...]:
    """Parse widths: "784,512x3,10" lists all of them, and a single "1000x5" means 5 layers of 1000 on 1000 inputs.

    Raises
    ------
    TypeError, ValueError
        If the text is not of this form, or asks for too many layers.

    Examples
    --------
    >>> parse_layers("784,512x3,10"), parse_layers("100x2")
    ((784, 512, 512, 512, 10), (100, 100, 100))
    """
    if not isinstance(text, str):
        raise TypeError(f"layers must be a str, such as '1000x5' or '784,512x3,10', got {text!r:.80}")
    widths: list[int] = []
    most = 100_000  # layers
    parts = text.split(",")
    for part in parts:
        width, x, count = part.strip().partition("x")
        if not (width.isdecimal() and (count.isdecimal() if x else True)):
            raise ValueError(f"layers must be widths, such as 1000x5 or 784,512x3,10, got {text!r}")
        if x and int(count) > most - len(widths):
            raise ValueError(f"layers must be at most {most:,}, got {text!r:.80}")
        widths += [int(width)] * (int(count) if x else 1)
    return tuple(widths + widths[-1:] if len(parts) == 1 and "x" in text else widths)


# ---- checks


def _check_widths(widths: Any) -> tuple[int, ...]:
    way = "give the width of the inputs, then that of each layer"
    try:
        given = None if isinstance(widths, (str, bytes)) else tuple(widths)
    except TypeError:
        given = None
    if given is None:
        raise TypeError(f"widths must be a sequence of ints, got {widths!r:.80}: {way}")
    checked = tuple(check_count("each of widths", width) for width in given)
    if len(checked) < 2:
        raise ValueError(f"widths must be two ints or more, got {widths!r}: {way}")
    return checked


def _check_activation(activation: Any) -> tuple[str, Function, Function]:
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}, or a pair of functions, got {activation!r}")
        return activation, *ACTIVATIONS[activation]
    if not (isinstance(activation, tuple) and len(activation) == 2 and all(map(callable, activation))):
        raise TypeError(f"activation must be a name or a pair of functions (f, f'), got {activation!r:.80}")
    return getattr(activation[0], "__name__", "f"), *activation


def _check_rule(init: Any, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A label for reports, and the arguments of a Table."""
    rule = SCHEMES.get(init, init) if isinstance(init, str) else init
    keywords = {**(rule if isinstance(rule, Mapping) else {"init": rule}), **parameters}
    name = keywords["init"] = getattr(keywords.get("init"), "__name__", keywords.get("init"))
    if not isinstance(name, str) or name not in RULES:
        raise ValueError(f"init must be one of old_heuristic, {', '.join(RULES)}; got {shown(name)}")
    for reserved in ("shape", "seed", "name", "dtype"):
        if reserved in keywords:
            raise TypeError(f"parameters must be the initialiser's own, such as gain, got {reserved!r}: leave it out")
    label, own = (init, parameters) if isinstance(init, str) else (name, {**keywords})
    text = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in own.items() if k != "init")
    return f"{label}({text})" if text else label, keywords


def _check_inputs(inputs: Any, width: int) -> Array:
    try:
        array = np.asarray(inputs)
    except ValueError:  # rows of several lengths
        array = np.empty((0, 0), object)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"inputs must be an array of real numbers, got {type(inputs).__name__} of {array.dtype}")
    if array.ndim != 2 or array.shape[1] != width or not len(array):
        raise ValueError(f"inputs must have the shape (samples, {width}), got {array.shape}: widths begin with theirs")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise ValueError(f"inputs must be finite in float32, got {bad} NaN or infinite values: clean or scale them")
    return array
