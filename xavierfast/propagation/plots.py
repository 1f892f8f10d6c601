"""Pictures, which need matplotlib."""

import io
import os
import secrets
import stat
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from errno import EEXIST
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.extras import how_to_install
from .._core.fill import Array

if TYPE_CHECKING:
    from ..files import TensorStats
    from .report import Curve, Report


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


def plot_histogram(stats: "TensorStats", path: str | os.PathLike[str], force: bool = False) -> None:
    """Draw the measured histogram of a tensor in a file against the density that the tensor's recipe asks for.

    Parameters
    ----------
    stats : TensorStats
        The measurements of one tensor by :func:`xavierfast.files.measure`.
    path : str or path
        The image to write: .png, .svg, .pdf or another ending that matplotlib knows.
    force : bool
        Whether to replace an existing file.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the image exists, or its folder does not.
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
    check_image(path, force)
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
    # The name may come from an untrusted file: it is not parsed as mathematics.
    name = stats.name if len(stats.name) <= MAX_TITLE else f"{stats.name[:MAX_TITLE]}..."
    name = name if name.isprintable() else repr(name)
    axes.set_title(f"{name or 'table'} {stats.shape} {stats.dtype}", parse_math=False)
    save(figure, path, force)


def printable(text: str) -> str:
    """The text with control characters escaped: labels and the names of modules may come from anywhere."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def check_image(path: Any, force: bool) -> None:
    """Check, before the work, that matplotlib can be imported and that an image may be written there."""
    known = new_figure().canvas.get_supported_filetypes()
    name = os.fspath(path)
    folder = os.path.dirname(name)
    if folder and not os.path.isdir(folder):
        raise FileNotFoundError(f"a plot must go to a folder that exists, got {name!r}: make the folder")
    ending = os.path.splitext(name)[1][1:].lower()
    if ending not in known:
        raise ValueError(f"a plot must end in one of .{', .'.join(sorted(known))}, got {name!r}")
    try:
        mode = os.lstat(name).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise FileExistsError(EEXIST, "is no regular file, so that a plot cannot replace it; choose another name", name)
    if not force:
        kind = "is a symlink" if stat.S_ISLNK(mode) else "already exists"
        raise FileExistsError(EEXIST, f"{kind}; pass force=True to replace it", name)


def save(figure: Any, path: str | os.PathLike[str], force: bool) -> None:
    """Write a figure to a file that appears complete; a symlink is replaced, not followed. A file that replaces another
    keeps its mode."""
    check_image(path, force)
    name = os.fspath(path)
    folder, base = os.path.split(name)
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ ")  # characters that no font has are drawn as boxes
        figure.savefig(image, format=os.path.splitext(base)[1][1:].lower(), dpi=120)
    temporary = os.path.join(folder, f".{base}.{secrets.token_hex(8)}") if force else name
    file = open(temporary, "xb")  # noqa: SIM115
    try:  # from here on the file is this function's, to remove where it fails
        with file:
            file.write(image.getvalue())
            file.flush()
            os.fsync(file.fileno())
        if force:
            with suppress(FileNotFoundError):
                mode = os.lstat(name).st_mode
                if stat.S_ISREG(mode):
                    os.chmod(temporary, stat.S_IMODE(mode))
            os.replace(temporary, name)
    except BaseException:  # such as a full disk
        os.unlink(temporary)
        raise


# ---- the effect of initialisations

# Okabe and Ito (2008), "Color Universal Design", without yellow, which is too pale for lines on white, but with a grey.
COLORS = ("#000000", "#E69F00", "#56B4E9", "#D55E00", "#555555", "#0072B2", "#009E73", "#CC79A7")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), "-", (0, (6, 2)), (0, (1, 1)))
MARKERS = "xosv^D*P"
MOST_SHAPES = 8  # the layers of a deep network whose distributions are drawn
LEAST_DECADES = 2  # curves that are level must look so


class Decades:
    """A logarithmic axis for standard deviations, in decades, with a place for 0 at its bottom, for overflow on top."""

    def __init__(self, stds: Sequence[float]) -> None:
        logs = np.log10([std for std in stds if 0 < std < inf] or [1.0])
        margin = max(0.0, (LEAST_DECADES - np.ptp(logs)) / 2)
        self.high = float(logs.max()) + max(0.7, margin)  # with the tails of the distributions
        self.low = float(logs.min()) - max(0.4, margin)
        step = 0.15 * (self.high - self.low)
        self.zero, self.overflow = self.low - step, self.high + step
        self.has_zero, self.has_overflow = 0 in stds, inf in stds

    def places(self, stds: Sequence[float]) -> Array:
        with np.errstate(divide="ignore"):
            logs = np.log10(stds)
        return np.where(np.equal(stds, 0), self.zero, np.where(np.equal(stds, inf), self.overflow, logs))

    def label(self, ax: Any) -> None:
        every = max(1, round((self.high - self.low) / 4))
        powers = [k for k in range(-100 * every, 100 * every, every) if self.low <= k <= self.high]
        ticks = {float(k): f"{10.0**k:g}" if -4 < k < 4 else f"1e{k}" for k in powers}
        ends = {self.zero: "0"} if self.has_zero else {}
        ends |= {self.overflow: "overflow"} if self.has_overflow else {}
        for y in ends:
            ax.axhline(y, color="0.8", linewidth=0.8, zorder=0)
        ax.set_yticks([*ticks, *ends], [*ticks.values(), *ends.values()])
        margin = 0.05 * (self.high - self.low)
        low = self.zero if self.has_zero else self.low
        high = self.overflow if self.has_overflow else self.high
        ax.set_ylim(low - margin, high + margin)


def draw_reports(reports: Mapping[str, "Report"], path: str | os.PathLike[str], force: bool) -> None:
    """Draw standard deviations by layer, one curve per scheme, and below them the distributions, one row per scheme."""
    check_image(path, force)
    depth = max(len(report.layers) for report in reports.values())
    is_bounded = all(report.is_bounded for report in reports.values())
    figure = new_figure(figsize=(8.5, 3.9 + 1.3 * len(reports)), layout="constrained")
    axes = figure.subplots(1 + len(reports), 3, sharex="col", height_ratios=[2] + [1] * len(reports))
    layers = [layer for report in reports.values() for layer in report.layers]
    top = {
        "std": "Signal: std of the activations",
        "gradient": "Gradients: std of dC/ds",
        "weight_gradient": "Weights' gradients: std of dC/dW",
    }
    scales = {what: Decades([getattr(layer, what) for layer in layers]) for what in top}
    for ax, (what, title) in zip(axes[0], top.items(), strict=True):
        for k, report in enumerate(reports.values()):
            places = scales[what].places([getattr(layer, what) for layer in report.layers])
            style = {"color": COLORS[k % 8], "linestyle": LINES[k % 8], "marker": MARKERS[k % 8], "markersize": 5}
            ax.plot(range(1, len(places) + 1), places, markevery=max(1, depth // 20), **style)
        scales[what].label(ax)
        ax.set_title(title, fontsize=9)
    for k, (label, report) in enumerate(reports.items()):
        left, middle, right = axes[k + 1]
        _draw_shapes(left, report.activations, COLORS[k % 8], None if report.is_bounded else scales["std"])
        _draw_shapes(middle, report.gradients, COLORS[k % 8], scales["gradient"])
        shares = np.nan_to_num([layer.saturated for layer in report.layers])
        right.bar(range(1, len(shares) + 1), shares, 0.6, color=COLORS[k % 8])
        right.set_ylim(0, 1.05)
        right.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        left.set_ylabel("activations" if report.is_bounded else "|activations|", fontsize="small")
        middle.set_ylabel("|gradients|", fontsize="small")
        right.set_ylabel("saturated", fontsize="small")
        left.set_title(printable(label), fontsize=9, fontweight="bold", loc="left", parse_math=False)
    if is_bounded:
        ends = [x for report in reports.values() for curve in report.activations for x in (*curve.x[:1], *curve.x[-1:])]
        low, high = min(ends, default=-1.0), max(ends, default=1.0)
        margin = 0.06 * (high - low) or 1.0
        for ax in axes[1:, 0]:
            ax.set_ylim(low - margin, high + margin)
    for ax in axes.flat:
        ax.set_xlim(0.8 - _shape_width(depth), depth + 0.2 + _shape_width(depth))
        ax.tick_params(labelsize="small")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    for ax in (*axes[0], *axes[-1]):
        ax.set_xlabel("layer", fontsize="small")
        ax.tick_params(labelbottom=True)
    figure.supxlabel(
        "Inputs enter at layer 1; the gradient starts at the last layer. A shape is the distribution of the values in "
        "one layer:\nwhere it is wide, there are many. On the logarithmic scales, 0 has a place of its own below.",
        fontsize="small",
    )
    first, lines = next(iter(reports.values())), axes[0][0].get_lines()[: len(reports)]
    legend = figure.legend(lines, map(str, lines), loc="outside upper center", ncols=4, fontsize="small")
    legend.set_title(f"{first.activation}, {first.batch} inputs")
    legend.get_title().set_parse_math(False)
    for text, label in zip(legend.get_texts(), reports, strict=True):
        text.set(text=printable(label), parse_math=False)  # here, since a legend leaves out labels with a leading "_"
    save(figure, path, force)


def _shape_width(depth: int) -> float:
    """Half of the width of a distribution, in layers."""
    return 0.42 * max(1.0, (depth - 1) / (MOST_SHAPES - 1))


def _draw_shapes(ax: Any, curves: Sequence["Curve"], color: str, scale: Decades | None) -> None:
    """Draw the densities of some layers as shapes, as wide as many values are there; without a scale, y is linear."""
    chosen = sorted({round(k) for k in np.linspace(0, len(curves) - 1, MOST_SHAPES)})
    width = _shape_width(len(curves))
    for k in chosen:
        x, height = curves[k]
        if x.size > 1:
            if scale is not None:
                x, height = x[inside := (scale.low <= x) & (x <= scale.high)], height[inside]
            half = width * height / max(height, default=1.0)
            ax.fill_betweenx(x, k + 1 - half, k + 1 + half, color=color, linewidth=0)
        elif x.size or scale is not None:  # all values are equal; on a logarithmic axis perhaps 0
            y = x[0] if x.size or scale is None else scale.zero
            ax.hlines(y, k + 1 - width, k + 1 + width, color=color, linewidth=2)
    if scale is not None:
        scale.label(ax)
