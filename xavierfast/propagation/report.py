"""The measurements of networks: one Layer per layer, one Report per network, one Comparison per set of schemes."""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import Any, NamedTuple

import numpy as np

from .._core.fill import Array
from .._core.recipe import to_json
from .plots import draw_reports, printable

__all__ = ["TEXT_WIDTH", "Comparison", "Curve", "Layer", "Report"]

TEXT_WIDTH = 80  # columns of a terminal


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


class Curve(NamedTuple):
    """A smooth density of some values: its heights at the points x; one point if all values are equal, or none."""

    x: Array
    height: Array


@dataclass(frozen=True)
class Report:
    """The result of :func:`propagate`: the layers, from the inputs up, with methods to show them.

    ``print(report)`` prints :meth:`table`.
    """

    init: str
    activation: str
    batch: int
    seed: int | tuple[int, ...]
    layers: tuple[Layer, ...]
    is_bounded: bool = field(repr=False, compare=False)  # whether the activations are, as those of tanh
    activations: list[Curve] = field(repr=False, compare=False)  # one per layer: of z if bounded, else of log10(|z|)
    gradients: list[Curve] = field(repr=False, compare=False)  # one per layer: of log10(|dC/ds|)

    @property
    def forward(self) -> float:
        """The geometric mean of the factors from each layer's std of activations to the next one's.

        It is inf if a std overflows, 0 if one is 0, and nan for a single layer.
        """
        return _growth([layer.std for layer in self.layers])

    @property
    def backward(self) -> float:
        """The geometric mean of the factors from each layer's std of gradients to that of the layer below.

        It is inf if a std overflows, 0 if one is 0, and nan for a single layer.
        """
        return _growth([layer.gradient for layer in reversed(self.layers)])

    @property
    def overflow(self) -> str | None:
        """The name of the first layer where values overflow, on the way forward, then backward; None if none does."""
        up = [layer.name for layer in self.layers if layer.std == inf]
        down = [layer.name for layer in reversed(self.layers) if inf in (layer.gradient, layer.weight_gradient)]
        return next(iter(up + down), None)

    @property
    def most_saturated(self) -> Layer:
        """The layer with the largest share of saturated activations."""
        return max(self.layers, key=lambda layer: -1.0 if isnan(layer.saturated) else layer.saturated)

    @property
    def least_distinct(self) -> Layer:
        """The layer with the smallest share of distinct neurons."""
        return min(self.layers, key=lambda layer: layer.distinct / layer.width)

    def to_dict(self) -> dict[str, Any]:
        """All figures as a dict for JSON; those that are not finite are the strings "inf" or "nan"."""
        layers = [{k: v if isinstance(v, int) else to_json(v) for k, v in x._asdict().items()} for x in self.layers]
        own = {"init": self.init, "activation": self.activation, "batch": self.batch, "seed": self.seed}
        return own | {"forward": to_json(self.forward), "backward": to_json(self.backward), "layers": layers}

    def table(self) -> str:
        """A table with one row per layer, for a terminal of 80 columns.

        Examples
        --------
        >>> from xavierfast.propagation import propagate
        >>> print(propagate([64, 64, 64], "tanh", "zeros").table())
        zeros, tanh
                      n             satu-        weight
        layer    Var[W]  mean  std  rated  grad    grad  Jacobian  distinct
        layer 1       0     0    0    0 %     0       0         0   1 of 64
        layer 2       0     0    0    0 %     1       0         0   1 of 64
        """
        heads = ("layer", "n\nVar[W]", "mean", "std", "satu-\nrated", "grad", "weight\ngrad", "Jacobian", "distinct")
        rows = [(layer.name, _figure(layer.weight), _figure(layer.mean), _figure(layer.std), _percent(layer.saturated),
                 _figure(layer.gradient), _figure(layer.weight_gradient), _figure(layer.singular), _distinct(layer))
                for layer in self.layers]  # fmt: skip
        return _text_table(f"{self.init}, {self.activation}", heads, rows)

    __str__ = table

    def plot(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Draw the distributions of activations and gradients by layer, and the saturation, to an image.

        The ending of the path gives the format: .png, .svg, .pdf. An existing file is replaced only with `force`.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        OSError, ValueError
            For a path that exists or cannot be written, or an ending that matplotlib does not know.
        """
        draw_reports({self.init: self}, path, force)


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`: the reports of one network, by scheme. ``print`` prints :meth:`table`."""

    reports: dict[str, Report]

    def __getitem__(self, scheme: str) -> Report:
        return self.reports[scheme]

    def to_dict(self) -> dict[str, Any]:
        """The dicts of the reports, by scheme."""
        return {name: report.to_dict() for name, report in self.reports.items()}

    def table(self) -> str:
        """A table with one row per scheme, for a terminal of 80 columns; :func:`explain` prints what its columns mean.

        Examples
        --------
        >>> from xavierfast.propagation import compare
        >>> print(compare([64, 64, 64], "tanh", ["zeros", "xavier_normal"]).table())  # doctest: +ELLIPSIS
        tanh
                                   signal   gradient             distinct
        scheme         n Var[W]  per layer  per layer  saturated   neurons
        zeros                 0      x 0        x 0          0 %   1 of 64
        xavier_normal  ...
        """
        heads = ("scheme", "n Var[W]", "signal\nper layer", "gradient\nper layer", "saturated", "distinct\nneurons")
        rows = []
        for name, report in self.reports.items():
            weight = float(np.mean([layer.weight for layer in report.layers]))
            rows.append((name, _figure(weight), _factor(report.forward), _factor(report.backward),
                         _percent(report.most_saturated.saturated), _distinct(report.least_distinct)))  # fmt: skip
        return _text_table(", ".join({report.activation for report in self.reports.values()}), heads, rows)

    __str__ = table

    def plot(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Draw the standard deviations of all schemes by layer, then one row per scheme, as :meth:`Report.plot` does.

        Raises
        ------
        ImportError, OSError, ValueError
            As :meth:`Report.plot` does.
        """
        draw_reports(self.reports, path, force)


def _growth(stds: Sequence[float]) -> float:
    if len(stds) < 2:
        return nan
    if inf in stds or 0 in stds:
        return inf if inf in stds else 0.0
    return float((stds[-1] / stds[0]) ** (1 / (len(stds) - 1)))


# ---- tables of text


def _figure(x: float) -> str:
    return "-" if isnan(x) else f"{x:.0f}" if 9.95 <= abs(x) < 99999.5 else f"{x:.2g}"


def _factor(x: float) -> str:
    return "-" if isnan(x) else "overflow" if x == inf else f"x {x:.2f}" if 0.005 <= x < 1000 else f"x {x:.2g}"


def _percent(share: float) -> str:
    return "-" if isnan(share) else f"{share:.0%}".replace("%", " %")


def _distinct(layer: Layer) -> str:
    return f"{layer.distinct} of {layer.width}"


def _text_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out figures in columns at the right, and at the left names, which are folded where they leave no room."""
    parts = [head.split("\n") for head in heads]
    sizes = [max(*map(len, part), *(len(row[k]) for row in rows)) for k, part in enumerate(parts) if k]
    names = [printable(row[0]) for row in rows]
    longest = max(len(name) for name in [*names, heads[0]])
    gap = 2 if longest + sum(sizes) + 2 * len(sizes) <= TEXT_WIDTH else 1
    room = max(4, min(longest, TEXT_WIDTH - sum(sizes) - gap * len(sizes)))

    def line(name: str, cells: Sequence[str]) -> str:
        return name.ljust(room) + "".join(" " * gap + cell.rjust(size) for cell, size in zip(cells, sizes, strict=True))

    height = max(map(len, parts))
    padded = [[""] * (height - len(part)) + part for part in parts]
    lines = [line(column[0], column[1:]).rstrip() for column in zip(*padded, strict=True)]
    for name, row in zip(names, rows, strict=True):
        folded = textwrap.wrap(name.replace("(", "( "), room) if len(name) > room else [name]
        *above, last = [part.replace("( ", "(") for part in folded]
        lines += [*above, line(last, row[1:])]
    return "\n".join([*textwrap.wrap(printable(title), TEXT_WIDTH), *lines])
