"""Pictures, of the extra ``plot``."""

import os
from typing import Any

import numpy as np

from .files import Figures

__all__ = ["plot_histogram"]


def new_figure(**keywords: Any) -> Any:
    """A matplotlib figure that no window shows."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a plot needs matplotlib: pip install 'xavierfast[plot]'") from None
    return Figure(**keywords)


def plot_histogram(figures: Figures, path: str | os.PathLike[str]) -> None:
    """Draw what :func:`xavierfast.files.inspect` measured of a tensor against the density that its recipe asks for.

    Parameters
    ----------
    figures : Figures
    path : str or path
        Of an image; its ending says which kind: .png, .svg, .pdf.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If there is nothing to draw, or for an ending that matplotlib does not know.

    Examples
    --------
    >>> from xavierfast import Table
    >>> from xavierfast.files import create, inspect
    >>> create("weights.npy", Table((1000, 64), seed=7))
    256000
    >>> plot_histogram(*inspect("weights.npy"), "weights.png")
    """
    if not sum(figures.histogram):
        raise ValueError(f"a plot needs numbers, got none in {figures.name!r} of {figures.dtype}")
    edges = np.linspace(*figures.edges, len(figures.histogram) + 1)
    width = edges[1] - edges[0]
    heights = np.array(figures.histogram) / (sum(figures.histogram) * width)
    figure = new_figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(edges[:-1], heights, width, align="edge", alpha=0.6, label=f"measured, std {figures.std:.4g}")
    if figures.table is not None:
        margin = 0.1 * (edges[-1] - edges[0])
        x = np.linspace(edges[0] - margin, edges[-1] + margin, 1001)
        ideal = figures.table.density(x)
        if ideal is not None:
            axes.plot(x, ideal, color="black", label=f"{figures.table.init}, std {figures.table.std:.4g}")
    axes.set(title=f"{figures.name or 'table'} {figures.shape} {figures.dtype}", xlabel="weight", ylabel="density")
    axes.legend()
    figure.savefig(path)
