"""The effect of each scheme on a network, in words."""

import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import isfinite, log
from typing import Any

import numpy as np

from ..model import Rule
from .activations import Activation
from .network import compare
from .plots import check_image_path
from .report import Report
from .search import suggest

__all__ = ["explain"]


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
