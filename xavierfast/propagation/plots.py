"""Plots, which need the extra ``plot``."""

import os
import warnings
from collections.abc import Mapping
from math import inf, nan
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .._core.extras import how_to_install

if TYPE_CHECKING:
    from ..files import TensorStats
    from .report import Report


__all__ = ["plot_histogram"]

# The characters of a tensor's name in a title.
MAX_TITLE = 80


def new_figure(**keywords: Any) -> Any:
    """A matplotlib figure without a window."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(f"a plot needs matplotlib: {how_to_install('plot')}") from None
    return Figure(**keywords)


def plot_histogram(stats: "TensorStats", path: str | os.PathLike[str] | BinaryIO, format: str | None = None) -> None:
    """Draw the measured histogram of a tensor in a file against the density that the tensor's recipe asks for.

    Parameters
    ----------
    stats : TensorStats
        The measurements of one tensor by :func:`xavierfast.files.measure`.
    path : str, path or binary file
        The image to write.
    format : str, optional
        "png", "svg" or "pdf"; by default, the path's ending says it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is nothing to draw, or for an ending that matplotlib does not know.

    Examples
    --------
    >>> from xavierfast import Table
    >>> from xavierfast.files import create, measure
    >>> create("weights.npy", Table((1000, 64), seed=7))
    256000
    >>> plot_histogram(*measure("weights.npy"), "weights.png")
    """
    if not sum(stats.histogram):
        raise ValueError(f"a plot needs numbers, got none in {stats.name!r} of {stats.dtype}")
    edges = np.linspace(*stats.edges, len(stats.histogram) + 1)
    width = edges[1] - edges[0]
    heights = np.array(stats.histogram) / (sum(stats.histogram) * width)
    figure = new_figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(edges[:-1], heights, width, align="edge", alpha=0.6, label=f"measured, std {stats.std:.4g}")
    if stats.table is not None:
        margin = 0.1 * (edges[-1] - edges[0])
        x = np.linspace(edges[0] - margin, edges[-1] + margin, 1001)
        ideal = stats.table.density(x)
        if ideal is not None:
            axes.plot(x, ideal, color="black", label=f"{stats.table.init}, std {stats.table.std:.4g}")
    axes.set(xlabel="weight", ylabel="density")
    axes.legend()
    # The name may come from an untrusted file: it is not parsed as mathematics, and characters that no font has are
    # drawn as boxes, not named in warnings, which would print them.
    name = stats.name if len(stats.name) <= MAX_TITLE else f"{stats.name[:MAX_TITLE]}..."
    name = name if name.isprintable() else repr(name)
    axes.set_title(f"{name or 'table'} {stats.shape} {stats.dtype}", parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ ")
        figure.savefig(path, format=format)


def check_image_path(path: Any) -> None:
    """Check, before the work, that matplotlib can be imported and the folder exists."""
    new_figure()
    folder = os.path.dirname(os.fspath(path))
    if folder and not os.path.isdir(folder):
        raise FileNotFoundError(f"a plot must go to a folder that exists, got {os.fspath(path)!r}: make the folder")


_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


def draw_reports(reports: Mapping[str, "Report"], path: str | os.PathLike[str]) -> None:
    """Draw histograms like Glorot and Bengio's figures 6 and 7, and below them the variances by depth."""
    check_image_path(path)
    shown = {label: report for label, report in reports.items() if 0 < report.layers[0].gradient < inf}
    figure = new_figure(figsize=(10, 2.6 * len(shown) + 3.9), layout="constrained")
    axes = figure.subplots(len(shown) + 1, 2, squeeze=False)
    for (label, report), pair in zip(shown.items(), axes, strict=False):
        chosen = sorted({round(k) for k in np.linspace(0, len(report.layers) - 1, 6)})
        for ax, what in zip(pair, ("activations", "gradients"), strict=True):
            edges, densities = getattr(report, what)
            for k, layer in enumerate(chosen):
                x, name = (edges[1:] + edges[:-1]) / 2, report.layers[layer].name
                ax.plot(x, densities[layer], label=name, **_style(k, len(chosen)))
            ax.set(title=f"{label}, {report.activation}: {what}", ylabel="density", ylim=(0, None))
        pair[1].legend(fontsize="small")
    for ax, name, title in zip(axes[-1], ("std", "gradient"), ("activations", "gradients dC/ds"), strict=True):
        logs, stds = [0.0], np.empty(0)
        for k, (label, report) in enumerate(reports.items()):
            stds = np.array([getattr(layer, name) for layer in report.layers])
            variances = np.where((stds > 0) & (stds < inf), stds, nan) ** 2
            logs = [*logs, *np.log10(variances[variances > 0])]
            note = f" (overflow in {report.overflow})" if report.overflow else "" if stds.all() else " (0)"
            depth = range(1, len(stds) + 1)
            ax.plot(depth, variances, marker="osv^Dx*P"[k % 8], label=label + note, **_style(k, len(reports)))
        low, high = min(logs[1:] or logs), max(logs[1:] or logs)
        margin = max(0.2 + 0.04 * (high - low), 1 - (high - low) / 2)  # two decades or more: level curves must look so
        ax.set(yscale="log", ylim=(10 ** (low - margin), 10 ** (high + margin)))
        ax.set_xlim(0.8 - 0.02 * len(stds), 0.2 + 1.02 * len(stds))
        ax.set(title=f"variance of the {title}", xlabel="layer")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.legend(*axes[-1][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=100)


def _style(k: int, count: int) -> dict[str, Any]:
    """The style of curve k of `count`: both lightness and dashes differ, so that grey print shows them apart too."""
    from matplotlib import colormaps

    return {"color": colormaps["viridis"](0.8 * k / max(1, count - 1)), "linestyle": _LINES[k % len(_LINES)]}
