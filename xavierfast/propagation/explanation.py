"""The effect of each scheme on a network, in a table and in one or two sentences per scheme."""

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isnan, log
from typing import Any

from ..model import Rule
from .activations import Activation, check_activation
from .network import compare, make_inputs, propagate
from .plots import check_image, printable
from .report import TEXT_WIDTH, Comparison, Report
from .search import search

__all__ = ["EXPLAINED", "Explanation", "explain"]

# In the order of the argument: nothing, one value for all, too small, too large, the rule of thumb before Xavier's.
EXPLAINED: tuple[Rule, ...] = (
    "zeros", "random_constant", {"init": "normal", "std": 0.01}, "normal", "old_heuristic", "xavier_uniform",
    "he_normal",
)  # fmt: skip
SEARCH_BATCH = 64  # the inputs with which gains are compared, which takes 26 passes


@dataclass(frozen=True)
class Explanation:
    """The result of :func:`explain`: the measurements, and their meaning in words. ``print`` prints all of it.

    ``comparison`` holds the reports by scheme; ``suggested`` is the label of the one that comes closest to level, which
    is the last, or None for a network of one layer.
    """

    comparison: Comparison
    widths: tuple[int, ...]
    input_std: float | None  # None if the inputs were given
    suggested: str | None

    def __str__(self) -> str:
        reports = self.comparison.reports.values()
        first = next(iter(reports))
        depth = f"{len(first.layers)} layer{'s' if len(first.layers) > 1 else ''} of {first.activation}"
        kind = "that were given" if self.input_std is None else f"of standard deviation {self.input_std:g}"
        is_one_sided = not first.is_bounded and any(report.most_saturated.saturated for report in reports)
        head = (
            f"A network of {depth}, widths {_widths_text(self.widths)}. {first.batch} inputs {kind} go up, a random "
            "gradient comes back down."
        )
        legend = (
            "n Var[W] is the fan-in times the variance of the weights, the mean over the layers. Signal and gradient "
            "are the factors by which one layer changes the standard deviation of the activations on the way up, and "
            "of the gradients on the way down; 1 is level. Saturated is the share of activations, in the layer that "
            f"has most, where the slope of {first.activation} is below 1 % of its maximum"
            f"{' (the half that is cut off, as a rule)' if is_one_sided else ''}. Distinct neurons are those of a "
            "layer that respond differently, in the layer that has fewest; the others are copies or always 0."
        )
        stories = [f"{label}: {self.sentence(label)}" for label in self.comparison.reports]
        fold: dict[str, Any] = {"width": TEXT_WIDTH, "break_on_hyphens": False}
        head, legend = (textwrap.fill(printable(paragraph), **fold) for paragraph in (head, legend))
        told = [textwrap.fill(printable(story), subsequent_indent="  ", **fold) for story in stories]
        _, _, grid = self.table().partition("\n")  # without its title
        return "\n\n".join([head, grid, legend, "\n".join(told)])

    def table(self) -> str:
        """The table with one row per scheme."""
        return self.comparison.table()

    def sentence(self, scheme: str) -> str:
        """The effect of one scheme in words."""
        lead = "Of all gains from 1/8 to 16, this comes closest to level. " if scheme == self.suggested else ""
        return lead + _sentence(self.comparison[scheme])

    def to_dict(self) -> dict[str, Any]:
        """All figures and sentences as a dict for JSON; figures that are not finite are the strings "inf" or "nan"."""
        schemes = [
            {"scheme": label, **report.to_dict(), "sentence": self.sentence(label)}
            for label, report in self.comparison.reports.items()
        ]
        return {
            "widths": list(self.widths),
            "input_std": self.input_std,
            "suggested": self.suggested,
            "schemes": schemes,
        }

    def plot(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Draw the comparison as :meth:`Comparison.plot` does."""
        self.comparison.plot(path, force=force)


def explain(
    widths: Sequence[int],
    activation: Activation = "tanh",
    *,
    inits: Iterable[Rule] | Mapping[str, Rule] = EXPLAINED,
    inputs: Any = None,
    input_std: float = 1.0,
    batch: int = 256,
    seed: Any = 0,
    jacobian: bool = False,
    plot: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Explanation:
    """Describe the effect of each scheme on a network, in plain sentences with the figures of this run.

    Parameters
    ----------
    widths, activation, inits
        As in :func:`compare`. By default the schemes of the argument for Xavier: zeros, one random value, N(0, 0.01^2)
        and N(0, 1), the old heuristic, Xavier, and He.
    inputs, input_std, batch, seed, jacobian
        As in :func:`propagate`, but the mean singular values, which take most of the time, are left out by default.
    plot : str or path, optional
        The path of an image; if it is given, :meth:`Comparison.plot` is drawn to it.
    force : bool
        Whether the image may replace an existing file.

    Returns
    -------
    Explanation
        A table with one row per scheme, and a sentence for each; ``print`` shows them. For two layers or more, the last
        scheme is the result of :func:`suggest`.

    Raises
    ------
    TypeError, ValueError, MemoryError, ImportError, OSError
        As in :func:`propagate` and :meth:`Report.plot`, before anything is computed.

    Examples
    --------
    >>> print(explain([200] * 3, "tanh", inits=["zeros", "old_heuristic"]))  # doctest: +ELLIPSIS
    A network of 2 layers of tanh, widths 200 x 3. 256 inputs of standard deviation
    1 go up, a random gradient comes back down.
    <BLANKLINE>
                                            signal   gradient               distinct
    scheme                     n Var[W]  per layer  per layer  saturated     neurons
    zeros                             0        x 0        x 0        0 %    1 of 200
    old_heuristic                  0.33     x 0.54     x 0.47        0 %  200 of 200
    xavier_uniform(gain=1.92)       3.7     x 0.93     x 0.99       12 %  200 of 200
    <BLANKLINE>
    n Var[W] is the fan-in times the variance of the weights, ...
    <BLANKLINE>
    zeros: All neurons of a layer are alike, and training keeps those of hidden
      layers alike, since they get equal gradients: such a layer can learn no more
      than one neuron can. No signal reaches the top and no gradient reaches the
      bottom.
    ...
    """
    if plot is not None:
        check_image(plot, force)
    shared: dict[str, Any] = {"inputs": inputs, "input_std": input_std, "batch": batch, "jacobian": jacobian}
    compared = compare(widths, activation, inits, seed=seed, **shared)
    reports, suggested = dict(compared.reports), None
    first = next(iter(reports.values()))
    sizes = tuple(map(int, widths))
    if len(sizes) > 2:
        _, f, slope_of = check_activation(activation)
        x = make_inputs(inputs, input_std, batch, sizes, first.seed)[:SEARCH_BATCH]
        rule = search(sizes, f, slope_of, x, first.seed)
        if rule is not None:
            report = propagate(sizes, activation, rule, seed=first.seed, **shared)
            suggested = report.init
            reports.pop(suggested, None)
            reports[suggested] = report
    compared = Comparison(reports)
    if plot is not None:
        compared.plot(plot, force=force)
    return Explanation(compared, sizes, float(input_std) if inputs is None else None, suggested)


# ---- words


def _widths_text(widths: Iterable[int]) -> str:
    runs = ((width, len(list(run))) for width, run in groupby(widths))
    return ", ".join(f"{width} x {count}" if count > 1 else str(width) for width, count in runs)


def _sentence(report: Report) -> str:
    first, last, worst, fewest = report.layers[0], report.layers[-1], report.most_saturated, report.least_distinct
    if report.overflow:
        return f"The weights are too large: values overflow float32, first in {report.overflow}."
    share = f"{worst.saturated:.0%}".replace("%", " %")
    dead = [text for text, std in (("no signal reaches the top", last.std), ("no gradient reaches the bottom",
            first.gradient)) if not std]  # fmt: skip
    saturates = report.is_bounded and worst.saturated >= 0.25
    alike = all(layer.distinct == 1 < layer.width for layer in report.layers)
    if alike:
        parts = ["All neurons of a layer are alike, and training keeps those of hidden layers alike, since they get "
                 "equal gradients: such a layer can learn no more than one neuron can"]  # fmt: skip
        parts += [_capital(" and ".join(dead))] if dead else []
    elif dead:
        parts = [f"The weights are too {'large' if saturates else 'small'}: {' and '.join(dead)}"]
    elif isnan(report.forward):
        parts = [f"The activations have a standard deviation of {last.std:.2g}, the gradients of {last.gradient:.2g}; "
                 "how they change from layer to layer takes two layers to see"]  # fmt: skip
    else:
        verdict = _verdict(log(report.forward), log(report.backward))
        if saturates:
            is_level = verdict in ("Level", "Nearly level")
            verdict = f"{verdict}, at the price of saturation" if is_level else "The weights are too large"
        parts = [f"{verdict}: {_change('the signal', 'up', report.forward, first.std, last.std)}, and "
                 f"{_change('the gradient', 'down', report.backward, last.gradient, first.gradient)}"]  # fmt: skip
    if saturates:
        parts += [f"In {worst.name}, {share} of the activations are saturated: the slope there is nearly 0, so that "
                  "the weights below can hardly be adjusted"]  # fmt: skip
    elif report.is_bounded and worst.saturated >= 0.005:
        parts += [f"In {worst.name}, {share} of the activations are saturated"]
    elif not report.is_bounded and worst.saturated > 0.9 and not alike:
        parts += [f"In {worst.name}, {share} of the activations are cut off, and let no gradient through"]
    if not alike and fewest.distinct < 0.9 * fewest.width:
        parts += [f"In {fewest.name}, only {fewest.distinct} of {fewest.width} neurons are distinct"]
    return ". ".join(parts) + "."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


LEVEL, NEARLY_LEVEL = 0.05, 0.25  # logarithms of the factor of one layer


def _verdict(up: float, down: float) -> str:
    most = max(abs(up), abs(down))
    if most < NEARLY_LEVEL:
        return "Level" if most < LEVEL else "Nearly level"
    if max(up, down) < LEVEL:
        return "The weights are too small"
    return "The weights are too large" if min(up, down) > -LEVEL else "Not level"


def _change(what: str, way: str, factor: float, begin: float, end: float) -> str:
    if abs(log(factor)) < LEVEL:
        return f"{what} stays level on its way {way}"
    verb = "shrinks" if factor < 1 else "grows"
    slowly = " slowly" if abs(log(factor)) < NEARLY_LEVEL else ""
    per_layer = f"by a factor of {factor:.2g} per layer on its way {way}"
    return f"{what} {verb}{slowly} {per_layer} (standard deviation {begin:.2g} to {end:.2g})"
