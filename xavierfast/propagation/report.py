"""The measurements of networks: one Layer per layer, one Report per network, one Comparison per set of schemes."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any, NamedTuple

import numpy as np

from .._core.extras import how_to_install
from .._core.fill import Array
from .._core.recipe import to_json
from .plots import draw_reports

__all__ = ["Comparison", "Layer", "Report"]


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


def _growth(stds: Sequence[float]) -> float:
    if len(stds) < 2 or not all(0 < std < inf for std in stds):
        return nan
    return float((stds[-1] / stds[0]) ** (1 / (len(stds) - 1)))


def _grid(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Any:
    try:
        from rich.table import Table as Grid
    except ImportError:
        raise ImportError(f"a table needs rich: {how_to_install('cli')}") from None
    grid = Grid(title=title, box=None, title_justify="left")
    for k, column in enumerate(columns):
        grid.add_column(column.replace("_", " "), justify="right" if k else "left")
    for row in rows:
        grid.add_row(*(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row))
    return grid
