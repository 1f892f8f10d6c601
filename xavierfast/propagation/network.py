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
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf, sqrt
from typing import Any

import numpy as np

from .._core.fill import Array
from .._core.rules import RULES
from .._core.stream import Seed, resolve_seed
from .._core.validation import check_count, check_number, shown
from ..model import Rule
from ..table import Table
from .activations import GRID, Activation, Function, check_activation
from .measure import Trace, make_report
from .report import Comparison, Report

__all__ = ["SCHEMES", "check_widths", "compare", "make_inputs", "parse_layers", "propagate", "run", "weights_of"]

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


def propagate(
    widths: Sequence[int],
    activation: Activation,
    init: Rule = "xavier_uniform",
    *,
    inputs: Any = None,
    input_std: float = 1.0,
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
        By default `batch` rows of normal values with mean 0 and standard deviation `input_std`.
    input_std : float
        From 1e-20 to 1e20; without effect if `inputs` are given. The default, 1, is the scale to which data are usually
        normalised. With 0.25, the activations of a tanh layer stay where tanh is nearly a straight line, as the
        equations of Glorot and Bengio assume.
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
    MemoryError
        If the network needs more memory than the machine has, before anything is computed.

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
    widths, (label, f, slope_of) = check_widths(widths), check_activation(activation)
    title, keywords = _check_rule(init, parameters)
    seed = resolve_seed(seed)
    x = make_inputs(inputs, input_std, batch, widths, seed)
    weights = weights_of(widths, seed, keywords)
    gradient = Table((len(x), widths[-1]), "normal", seed=seed, name="gradient").read()
    with np.errstate(all="ignore"):
        traces = run(x, weights, f, slope_of, gradient)
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
        The arguments inputs, input_std, batch, seed and jacobian of :func:`propagate`.

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
    for label in labelled:
        if not isinstance(label, str):
            raise TypeError(f"labels of inits must be str, got {shown(label)}")
    if not labelled:
        raise ValueError(f"inits must name at least one initialiser, got {inits!r}")
    for rule in labelled.values():  # a rule that is wrong is reported before the first is measured
        Table((1, 1), seed=0, **_check_rule(rule, {})[1])
    keywords["seed"] = resolve_seed(keywords.get("seed", 0))
    return Comparison({label: propagate(widths, activation, rule, **keywords) for label, rule in labelled.items()})


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


# ---- forward and backward


def make_inputs(inputs: Any, input_std: Any, batch: Any, widths: tuple[int, ...], seed: Any) -> Array:
    """The inputs of a network, which are checked or drawn, if memory suffices for the network."""
    std = check_number("input_std", input_std)
    if not 1e-20 <= std <= 1e20:
        raise ValueError(f"input_std must be from 1e-20 to 1e20, since the inputs are float32, got {input_std!r}")
    x = None if inputs is None else _check_inputs(inputs, widths[0])
    count = check_count("batch", batch) if x is None else len(x)
    # float32 weights and their gradients; outputs, sums, slopes and gradients of each layer.
    needed = 4 * (2 * sum(a * b for a, b in pairwise(widths)) + 4 * count * sum(widths))
    memory = physical_memory()
    if needed > memory:
        raise MemoryError(
            f"a network must fit into memory, got one that needs about {needed / 1e9:,.0f} GB with {count:,} inputs, "
            f"and {memory / 1e9:,.0f} GB of memory: give fewer or narrower layers, or fewer inputs"
        )
    return Table((count, widths[0]), "normal", seed=seed, name="inputs", std=std).read() if x is None else x


def physical_memory() -> float:
    """The bytes of this machine's memory, or infinity where the system does not report them."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return inf


def weights_of(widths: Sequence[int], seed: Any, keywords: Mapping[str, Any]) -> list[Array]:
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


def run(
    inputs: Array,
    weights: Sequence[Array],
    f: Function,
    slope_of: Function,
    gradient: Array,
    *,
    has_weight_gradients: bool = True,
) -> list[Trace]:
    """The arrays of each layer; the gradients of the weights, a third of the work, may be left out."""
    steepest = float(np.nanmax(abs(_apply(slope_of, GRID))))
    is_bounded = bool(abs(_apply(f, GRID)).max() <= 1)
    outputs, slopes, traces = [inputs], [], []
    for weight in weights:
        s = outputs[-1] @ weight
        outputs.append(_apply(f, s))
        slopes.append(_apply(slope_of, s))
    for k in reversed(range(len(weights))):
        gradient = gradient * slopes[k]
        weight_gradient = outputs[k].T @ gradient / len(inputs) if has_weight_gradients else None
        output, slope = outputs[k + 1], slopes[k]
        traces.append(
            Trace(f"layer {k + 1}", weights[k], output, slope, steepest, gradient, weight_gradient, is_bounded)
        )
        gradient = gradient @ weights[k].T if k else gradient
    return traces[::-1]


# ---- checks


def check_widths(widths: Any) -> tuple[int, ...]:
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
