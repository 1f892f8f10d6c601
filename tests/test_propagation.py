"""What an initialisation does to a network: the passes against autograd, the figures, the paper's claims, bad input."""

import builtins
import json
import math
import re
import stat
import warnings
from errno import ENOSPC
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from support import missing, need

import xavierfast as xf
from xavierfast import files
from xavierfast._core.extras import how_to_install
from xavierfast.propagation import (
    ACTIVATIONS,
    SCHEMES,
    compare,
    explain,
    explanation,
    measure,
    network,
    parse_layers,
    plot_histogram,
    plots,
    propagate,
    suggest,
)
from xavierfast.propagation.explanation import EXPLAINED

ROOT = Path(__file__).parent.parent
PNG = b"\x89PNG\r\n\x1a\n"
DEEP = [300] * 6


def figures(report, name):
    return [getattr(layer, name) for layer in report.layers]


def small_inputs(width, std=0.25):
    return xf.normal((256, width), std=std, seed=1)


@pytest.fixture
def torch():
    return need("torch")


@pytest.fixture
def matplotlib():
    return need("matplotlib")


def propagate_module(model, inputs):
    """``xavierfast.torch.propagate``, imported where PyTorch is."""
    from xavierfast.torch import propagate

    return propagate(model, inputs)


@pytest.fixture
def without(monkeypatch):
    """Make imports of a package fail."""

    def block(package):
        original = builtins.__import__

        def refuse(name, *args, **keywords):
            if name.split(".")[0] == package:
                raise ImportError(name)
            return original(name, *args, **keywords)

        monkeypatch.setattr(builtins, "__import__", refuse)

    return block


# ---- the passes


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes_are_derivatives(activation):
    f, slope = ACTIVATIONS[activation]
    x = np.linspace(-6, 6, 999)  # no kink at a point or within 1e-6 of one
    # Central differences err by 1e-10; GELU's own f by up to 1e-7, at nodes of its fit, whence the step of 1e-2.
    step = 1e-2 if activation == "gelu" else 1e-6
    smooth = np.ones(len(x), bool) if activation == "gelu" else np.minimum(abs(x), abs(abs(x) - 1)) > 1e-5
    difference = (f(x + step) - f(x - step)) / (2 * step)
    np.testing.assert_allclose(slope(x)[smooth], difference[smooth], atol=1e-4 if activation == "gelu" else 1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float32_stays_float32_and_extremes_are_quiet(activation):
    x = np.array([-3e38, -100, -0.5, 0, 0.5, 100, 3e38], np.float32)
    with np.errstate(over="ignore"):  # x * x, and sums near the largest float32
        for function in ACTIVATIONS[activation]:
            assert function(x).dtype == np.float32
            assert np.isfinite(function(x)).all(), activation


def test_activations_are_torchs(torch):
    functional = torch.nn.functional
    theirs = {
        "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softsign": functional.softsign, "relu": torch.relu,
        "hard_tanh": functional.hardtanh, "leaky_relu": functional.leaky_relu, "gelu": functional.gelu,
        "silu": functional.silu, "linear": lambda x: x,
    }  # fmt: skip
    assert sorted(ACTIVATIONS) == sorted(theirs)
    x = np.linspace(-8, 8, 1001)
    for name, function in theirs.items():
        ours = ACTIVATIONS[name][0](x)
        # 8 times the 7.5e-8 of GELU's distribution function; the others are exact but for the last bits.
        np.testing.assert_allclose(ours, function(torch.from_numpy(x)).numpy(), atol=6e-7 if name == "gelu" else 1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_backward_pass_is_autograds(torch, activation):
    generator = np.random.default_rng(0)
    widths = (7, 5, 6, 4)
    weights = [generator.standard_normal(shape) for shape in pairwise(widths)]
    x, g = generator.standard_normal((9, 7)), generator.standard_normal((9, 4))
    traces = network.run(x, weights, *ACTIVATIONS[activation], g)
    functional = torch.nn.functional
    f = {"hard_tanh": functional.hardtanh, "linear": lambda x: x}.get(activation) or getattr(functional, activation)
    z, sums = torch.from_numpy(x), []
    tensors = [torch.from_numpy(weight).requires_grad_() for weight in weights]
    for weight in tensors:
        sums.append(z @ weight)
        z = f(sums[-1])
    theirs = torch.autograd.grad(z, [*sums, *tensors], torch.from_numpy(g))
    for k, trace in enumerate(traces):
        # float64 against float64: 1e-12 is far above rounding, and GELU's f is within 1e-7 of the true one.
        tolerance = 1e-5 if activation == "gelu" else 1e-12
        np.testing.assert_allclose(trace.gradient, theirs[k].numpy(), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(trace.weight_gradient * 9, theirs[3 + k].numpy(), rtol=tolerance, atol=tolerance)


def test_weights_inputs_and_gradient_are_tables():
    report = propagate([6, 5, 4], "tanh", "he_normal", batch=8, seed=3, gain=1.2)
    x = xf.normal((8, 6), seed=3, name="inputs")
    first = xf.he_normal((6, 5), seed=3, name="layer 1", gain=1.2)
    second = xf.he_normal((5, 4), seed=3, name="layer 2", gain=1.2)
    gradient = xf.normal((8, 4), seed=3, name="gradient")
    z = np.tanh(x @ first)
    top = np.tanh(z @ second)
    delta = gradient * (1 - top**2)
    below = delta @ second.T * (1 - z**2)
    one, two = report.layers
    # float32, in another order of sums at most.
    approx = lambda value: pytest.approx(float(value), rel=1e-5)  # noqa: E731
    assert (one.std, two.std, two.mean) == (approx(z.std()), approx(top.std()), approx(top.mean()))
    assert (one.gradient, two.gradient) == (approx(below.std()), approx(delta.std()))
    assert one.weight_gradient == approx((x.T @ below / 8).std())
    assert two.weight_gradient == approx((z.T @ delta / 8).std())
    assert one.weight == approx(6 * first.astype(np.float64).var())
    for layer, weight, output in ((one, first, z), (two, second, top)):
        jacobian = weight * (1 - output[0] ** 2)
        assert layer.singular == approx(np.linalg.svd(jacobian, compute_uv=False).mean())
    assert report.init == "he_normal(gain=1.2)"


def test_reports_are_reproducible():
    first, second = (propagate([50, 40, 30], "gelu", "xavier_normal", seed=7) for _ in range(2))
    assert first == second
    assert first != propagate([50, 40, 30], "gelu", "xavier_normal", seed=8)
    assert propagate([50, 40], "gelu", xf.xavier_normal, seed=7).layers[0] == first.layers[0]._replace(
        **{name: getattr(propagate([50, 40], "gelu", "xavier_normal", seed=7).layers[0], name)
           for name in ("gradient", "weight_gradient")}
    )  # fmt: skip
    fresh = propagate([5, 5], "tanh", seed=None)
    assert fresh == propagate([5, 5], "tanh", seed=fresh.seed)


def test_inputs_of_ones_own():
    inputs = xf.normal((256, 20), seed=0, name="inputs")
    assert propagate([20, 30], "relu", inputs=inputs) == propagate([20, 30], "relu")
    assert propagate([20, 30], "relu", inputs=inputs.tolist()) == propagate([20, 30], "relu")
    assert propagate([20, 30], "relu", inputs=np.ones((3, 20), int)).batch == 3


def test_functions_of_ones_own():
    pair = np.tanh, lambda s: 1 - np.tanh(s) ** 2
    assert propagate([20, 30, 10], pair).layers == propagate([20, 30, 10], "tanh").layers
    assert propagate([20, 30, 10], pair).activation == "tanh"


# ---- the figures


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softsign", "linear"])
@pytest.mark.parametrize("width", [1, 31, 300])
def test_zeros_and_one_value_leave_neurons_alike(activation, width):
    for init in ("zeros", "random_constant", xf.random_constant, {"init": "constant", "value": 0.01}):
        assert figures(propagate([40, width, width], activation, init), "distinct") == [1, 1]
    assert figures(propagate([40, width, width], activation, "xavier_uniform"), "distinct") == [width, width]


def test_same_columns_count_once():
    z = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)
    many = z[:, [0, 3, 3, 5, 0, 7, 7, 7]]
    assert measure.count_distinct(many) == 4
    assert measure.count_distinct(many * (1 + 1e-7 * np.arange(8, dtype=np.float32))) == 4  # rounding


def test_saturation():
    for activation, inputs, share in (
        ("hard_tanh", [[0.5, 2.0, -0.5, -2.0]], 0.5),
        ("relu", [[1.0, -1.0, -1.0, -1.0]], 0.75),
        ("leaky_relu", [[1.0, -1.0, -1.0, -1.0]], 0.0),  # a slope of 1 % is not less than that
        ("tanh", [[0.0, 2.9, 3.1, -3.1]], 0.5),  # tanh' is 0.01 at 2.993
        ("sigmoid", [[0.0, 5.9, 6.1, -6.1]], 0.5),  # twice as far
        ("linear", [[1e30, 0.0, 1.0, 2.0]], 0.0),
    ):
        eye = {"init": "constant", "value": 1.0}
        values = [propagate([1, 1], activation, eye, inputs=[[x]]).layers[0].saturated for x in inputs[0]]
        assert np.mean(values) == share, activation
    assert propagate(DEEP, "tanh", "normal").layers[1].saturated > 0.7


def test_a_network_of_one_layer():
    report = propagate([4, 3], "tanh")
    assert math.isnan(report.forward)
    assert len(report.layers) == 1
    text = str(explain([4, 3], inits=["xavier_uniform"]))
    assert "A network of 1 layer of tanh, widths 4, 3." in text
    assert "takes two layers to see" in text


@pytest.mark.parametrize(
    ("activation", "std", "layers"), [("relu", 50.0, 59), ("linear", 50.0, 59), ("gelu", 50.0, 59), ("tanh", 1.0, 200)]
)
def test_overflow_is_a_finding(activation, std, layers):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = propagate([30] * (layers + 1), activation, "normal", std=std, jacobian=activation != "tanh")
        found = explain([30] * (layers + 1), activation, inits={"big": {"init": "normal", "std": std}})
    assert found.sentence("big") == f"The weights are too large: values overflow float32, first in {report.overflow}."
    forward, backward = figures(report, "std"), figures(report, "gradient")
    assert (forward[-1] == math.inf) == (activation != "tanh")
    assert backward[0] == math.inf or activation == "relu"  # whose f' is 0 at NaN
    json.dumps(report.to_dict(), allow_nan=False)
    assert len(report.table().splitlines()) == 3 + layers  # a title and two lines of heads
    assert max(map(len, report.table().splitlines())) <= 80


def test_jacobian_may_be_left_out():
    with_it, without_it = (propagate([30, 20, 10], "tanh", jacobian=jacobian) for jacobian in (True, False))
    assert all(map(math.isnan, figures(without_it, "singular")))
    assert [x._replace(singular=0) for x in with_it.layers] == [x._replace(singular=0) for x in without_it.layers]


def test_table_and_dict():
    report = propagate([30, 20, 10], "tanh")
    title, _, heads, first, _ = report.table().splitlines()
    assert (title, heads.split()[:3], first[:7]) == ("xavier_uniform, tanh", ["layer", "Var[W]", "mean"], "layer 1")
    assert str(report) == report.table()
    fields = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert fields["layers"][0]["std"] == report.layers[0].std
    assert (fields["init"], fields["seed"], fields["forward"]) == ("xavier_uniform", 0, report.forward)
    compared = compare([30, 20, 10], "tanh")
    assert list(compared.reports) == list(SCHEMES)
    assert [line.split()[0] for line in compared.table().splitlines()[3:]] == list(SCHEMES)
    assert str(compared) == compared.table()
    assert compared["xavier_uniform"] == report
    json.dumps(compared.to_dict(), allow_nan=False)
    labelled = compare([30, 20], "tanh", {"mine": {"init": "normal", "std": 0.1}}, seed=None)
    assert labelled["mine"].init == "normal(std=0.1)"


def test_compare_draws_one_seed():
    reports = compare([10, 10], "tanh", ["xavier_uniform", "xavier_normal"], seed=np.random.default_rng(0)).reports
    assert len({report.seed for report in reports.values()}) == 1


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plots(matplotlib, tmp_path, ending):
    path = tmp_path / f"plot.{ending}"
    compare([30] * 4, "relu", ["zeros", "normal", "he_normal"]).plot(path)
    assert path.read_bytes().startswith({"png": PNG, "svg": b"<?xml", "pdf": b"%PDF"}[ending])


@pytest.fixture
def drawn(matplotlib, monkeypatch):
    """Draw a comparison and return its figure, rather than a file."""
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path, force: figures.append(figure))

    def draw(report):
        report.plot("never-written.png")
        figures[-1].draw_without_rendering()  # so that the scales are final
        return figures[-1]

    return draw


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_what_a_picture_shows(drawn, activation):
    compared = compare([60] * 6, activation, [*EXPLAINED, {"init": "xavier_uniform", "gain": 2.0}], jacobian=False)
    figure = drawn(compared)
    axes = np.reshape(figure.axes, (1 + len(compared.reports), 3))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(compared.reports)
    assert not any(ax.get_legend() for ax in figure.axes)
    for column in axes.T:
        assert len({ax.get_xlim() for ax in column}) == 1
        assert len({ax.get_ylim() for ax in column[1:]}) == 1
        assert column[-1].get_xlabel() == "layer"
        assert all(ax.get_ylabel() for ax in column[1:])
    for ax in axes[0]:
        lines = ax.get_lines()[: len(compared.reports)]
        for style in ("color", "marker"):
            assert len({getattr(line, f"get_{style}")() for line in lines}) == len(lines)
        assert {line.get_color() for line in lines} <= set(plots.COLORS)
        for line, report in zip(lines, compared.reports.values(), strict=True):
            assert len(line.get_ydata()) == 5
            low, high = ax.get_ylim()
            assert ((low < line.get_ydata()) & (line.get_ydata() < high)).all(), report.init
    zeros = axes[0][1].get_lines()[0].get_ydata()
    assert zeros[0] == axes[0][1].get_yticks()[[text.get_text() for text in axes[0][1].get_yticklabels()].index("0")]
    for row, report in zip(axes[1:], compared.reports.values(), strict=True):
        assert [bar.get_height() for bar in row[2].patches] == figures(report, "saturated")
        assert all(len(ax.collections) == 5 for ax in row[:2])  # a shape for each layer


def test_colours_differ_for_all_eyes():
    """Machado, Oliveira and Fernandes (2009), "A physiologically-based model ...": their matrices for full severity."""
    matrices = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "normal": np.eye(3),
    }
    colors = np.array([[int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)] for color in plots.COLORS])
    for kind, matrix in matrices.items():
        seen = (colors**2.2 @ np.transpose(matrix)).clip(0, 1) ** (1 / 2.2)
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(len(seen))
        assert distances.min() > 0.15, kind  # of sqrt(3) from black to white
    styles = set(zip(map(str, plots.LINES), plots.MARKERS, strict=True))
    assert len(styles) == len(plots.COLORS)  # in grey print, markers tell them apart


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_shapes_are_smooth(activation):
    """The densities of layers under Xavier have one peak, or two where they saturate, and integrate to 1."""
    report = propagate([1000] * 6, activation, "xavier_uniform", input_std=0.25, jacobian=False)
    for curve in (*report.activations, *report.gradients):
        slopes = np.sign(np.diff(curve.height[curve.height > 0.05 * curve.height.max()]))
        assert np.count_nonzero(np.diff(slopes[slopes != 0])) <= 3, activation
        step = curve.x[1] - curve.x[0]
        assert curve.height.sum() * step == pytest.approx(1, abs=0.02)  # some of the kernel's mass leaves at the ends


def test_plots_of_what_is_not_there(matplotlib, tmp_path):
    huge = {"init": "normal", "std": 1e37}  # sums of which infinity - infinity is one
    cases = [([3, 4], "zeros"), ([100] * 60, "normal"), ([1, 1], "xavier_uniform"), ([30] * 4, huge)]
    for k, ((widths, init), activation) in enumerate(product(cases, ("relu", "tanh"))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            propagate(widths, activation, init, jacobian=False).plot(tmp_path / f"{k}.png")
        assert (tmp_path / f"{k}.png").read_bytes().startswith(PNG)


def test_explain(matplotlib, tmp_path):
    found = explain([100] * 6, "tanh", plot=str(tmp_path / "why.png"))
    assert (tmp_path / "why.png").read_bytes().startswith(PNG)
    head, grid, legend, stories = str(found).split("\n\n")
    assert head.replace("\n", " ") == (
        "A network of 5 layers of tanh, widths 100 x 6. 256 inputs of standard deviation 1 go up, a random gradient "
        "comes back down."
    )
    labels = list(found.comparison.reports)
    assert labels[:-1] == [
        "zeros", "random_constant", "normal(std=0.01)", "normal", "old_heuristic", "xavier_uniform", "he_normal",
    ]  # fmt: skip
    assert labels[-1] == found.suggested
    assert found.suggested.startswith("xavier_uniform(gain=1.")
    assert [line.split()[0] for line in grid.splitlines()[2:]] == labels
    for label in labels:
        assert f"{label}: {found.sentence(label)}" in stories.replace("\n ", "")
    assert "the slope of tanh is below 1 %" in legend.replace("\n", " ")
    assert len({str(explain([9] * 4, "tanh", inits=["he_normal"], seed=seed)) for seed in (1, 2, 1)}) == 2


@pytest.mark.parametrize(
    ("activation", "scheme", "parts"),
    [
        ("tanh", "zeros", ["All neurons of a layer are alike", "No signal reaches the top and no gradient reaches"]),
        ("sigmoid", "random_constant", ["All neurons of a layer are alike", "100 % of the activations are saturated"]),
        ("tanh", "normal(std=0.01)", ["The weights are too small: the signal shrinks by a factor of 0.1 per layer"]),
        ("tanh", "normal", ["The weights are too large: ", "the gradient grows by a factor of ", "hardly be adjusted"]),
        ("tanh", "old_heuristic", ["The weights are too small: the signal shrinks by a factor of 0.5"]),
        ("tanh", "xavier_uniform", ["Nearly level: the signal shrinks slowly", "the gradient shrinks slowly"]),
        ("sigmoid", "xavier_uniform", ["The weights are too small: ", "the gradient shrinks by a factor of 0.2"]),
        ("relu", "he_normal", ["Level: the signal stays level on its way up, and the gradient stays level on its way"]),
        ("linear", "normal", ["The weights are too large: the signal grows by a factor of 10 per layer"]),
        ("relu", "zeros", ["All neurons of a layer are alike"]),
        ("relu", "normal(std=1e-20)", ["The weights are too small: no signal reaches the top"]),
    ],
)  # fmt: skip
def test_sentences(activation, scheme, parts):
    sentence = explained(activation).sentence(scheme)
    for part in parts:
        assert part in sentence


@cache
def explained(activation):
    return explain([100] * 6, activation, inits=[*EXPLAINED, {"init": "normal", "std": 1e-20}])


def test_nothing_is_level():
    """Without a gain that lets anything through there is no suggestion, but the schemes are explained."""
    found = explain([9] * 4, (np.zeros_like, np.zeros_like), inits=["xavier_uniform"])
    assert found.suggested is None
    assert list(found.comparison.reports) == ["xavier_uniform"]
    assert "No signal reaches the top" in found.sentence("xavier_uniform")


@pytest.mark.parametrize("widths", [[8] * 3, [8] * 60, [3, 70000, 3], [5, 4]])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_text_fits_a_terminal_whole(widths, activation):
    """Names that leave no room are folded, so that no figure and no name is cut off."""
    long = {"init": "variance_scaling", "scale": 1.25, "mode": "fan_geo_avg", "distribution": "truncated_normal"}
    label = "variance_scaling(scale=1.25, mode=fan_geo_avg, distribution=truncated_normal)"
    inits = [long, "xavier_truncated_normal", {"init": "normal", "std": 1e-7}, {"init": "normal", "std": 1e7}]
    found = explain(widths, activation, inits=inits, batch=8)
    for text in (str(found), *map(str, found.comparison.reports.values())):
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
    assert label in found.comparison.reports
    squeezed = "".join(str(found).split())
    assert squeezed.count("".join(f"{label}:".split())) == 1
    _, _, heads, *rows = found.comparison.table().splitlines()
    names = [row[: heads.index("n Var[W]") + len("n Var[W]")] for row in rows]
    last = next(k for k, row in enumerate(rows) if "%" in row)  # the row in which the figures of the first scheme are
    assert "".join("".join([*names[:last], names[last].rsplit(maxsplit=1)[0]]).split()) == label.replace(" ", "")


def test_names_cannot_break_the_text(matplotlib, tmp_path):
    found = explain([5, 4, 3], inits={"a\nb\x1b[31m": "zeros", "$x_{1}^$ \\frac": "xavier_uniform"})
    assert r"a\nb\x1b[31m" in str(found)
    assert "\x1b" not in str(found)
    found.plot(tmp_path / "names.svg")
    with pytest.raises(TypeError, match=r"^labels of inits must be str, got 3$"):
        compare([5, 3], "tanh", {3: "zeros"})


def test_json_keys():
    """The keys are those that docs/why.md lists."""
    fields = json.loads(json.dumps(explain([9, 9, 9], "tanh", inits=["xavier_uniform"]).to_dict(), allow_nan=False))
    assert list(fields) == ["widths", "input_std", "suggested", "schemes"]
    scheme, last = fields["schemes"]
    assert (fields["widths"], fields["input_std"], fields["suggested"]) == ([9, 9, 9], 1.0, last["scheme"])
    assert list(scheme) == [
        "scheme",
        "init",
        "activation",
        "batch",
        "seed",
        "forward",
        "backward",
        "layers",
        "sentence",
    ]
    assert list(scheme["layers"][0]) == [
        "name", "width", "weight", "mean", "std", "saturated", "gradient", "weight_gradient", "singular", "distinct",
    ]  # fmt: skip
    page = ROOT / "docs/why.md"
    if not page.exists():
        missing("the documentation is not beside the tests")
    documented = page.read_text(encoding="utf-8")
    for key in (*fields, *scheme, *scheme["layers"][0]):
        assert f"`{key}`" in documented


def test_input_std():
    """The inputs are those of the documentation: a Table named "inputs" with this standard deviation."""
    inputs = xf.normal((256, 30), std=0.25, seed=0, name="inputs")
    assert propagate([30] * 4, "tanh", input_std=0.25) == propagate([30] * 4, "tanh", inputs=inputs)
    assert propagate([30] * 4, "tanh", input_std=1) == propagate([30] * 4, "tanh")
    small = explain([30] * 4, "tanh", input_std=0.25)
    assert "256 inputs of standard deviation 0.25" in str(small).replace("\n", " ")
    assert small.comparison["xavier_uniform"] == propagate([30] * 4, "tanh", input_std=0.25, jacobian=False)
    given = explain([30] * 4, "tanh", inputs=inputs)
    assert "256 inputs that were given go up" in str(given).replace("\n", " ")
    assert given.to_dict()["input_std"] is None
    for bad, error in ((0, ValueError), (-1, ValueError), (math.nan, ValueError), (math.inf, ValueError),
                       (1e21, ValueError), (1e-21, ValueError), ("1", TypeError), (True, TypeError)):  # fmt: skip
        for function in (propagate, lambda *a, **k: suggest("tanh", [5, 4, 3], **k), lambda *a, **k: explain(*a, **k)):
            with pytest.raises(error, match=r"^input_std must be "):
                function([5, 4, 3], "tanh", input_std=bad)


def test_parse_layers():
    assert parse_layers("1000x5") == (1000,) * 6
    assert parse_layers("784, 512x3, 10") == (784, 512, 512, 512, 10)
    assert parse_layers("10,5") == (10, 5)
    with pytest.raises(ValueError, match="at most 100,000"):
        parse_layers("1x9999999999")
    for text in ("", "x5", "5x", "a", "10,,5", "1e3x5", "-3x2", "10x2x3"):
        with pytest.raises(ValueError, match=r"layers must be widths, such as 1000x5 .*, got "):
            parse_layers(text)


# ---- suggestions


def test_suggestions():
    # He et al. (2015), eq. 10, for rectifiers, and 1 for what is linear; 256 neurons are some 3 % of noise.
    for activation, gain in (("relu", math.sqrt(2)), ("leaky_relu", math.sqrt(2 / 1.0001)), ("linear", 1.0)):
        found = suggest(activation)
        assert (found.init, found.gain) == ("xavier_uniform", pytest.approx(gain, rel=0.04))
        assert found.report.forward == pytest.approx(1, abs=0.03)
        assert found.report.backward == pytest.approx(1, abs=0.03)


def test_suggestions_beat_other_gains():
    def badness(report):
        logs = [np.diff(np.log(figures(report, name))) for name in ("std", "gradient")]
        return np.mean(np.square(logs))

    found = suggest("tanh")
    for gain in (0.7 * found.gain, found.gain / 0.7, 1.0, math.sqrt(2)):
        other = propagate([256] * 9, "tanh", "xavier_uniform", gain=gain, batch=64, jacobian=False)
        assert badness(found.report) < badness(other)


def test_where_widths_differ_xavier_is_the_compromise():
    """Equations 10 to 12, of widths that halve: what a layer does to a std, to 3 % of noise."""
    widths = [1024, 512, 256, 128, 64]
    for init, forward, backward in (
        ("lecun_uniform", 1, math.sqrt(1 / 2)),
        ({"init": "lecun_uniform", "mode": "fan_out"}, math.sqrt(2), 1),
        ("xavier_uniform", math.sqrt(4 / 3), math.sqrt(2 / 3)),
    ):
        report = propagate(widths, "linear", init, jacobian=False)
        assert (report.forward, report.backward) == (
            pytest.approx(forward, rel=0.03),
            pytest.approx(backward, rel=0.03),
        )
    for several in (widths, [400, 100] * 4):
        assert suggest("linear", several).init == "xavier_uniform"


# ---- the paper: Glorot and Bengio (2010), tanh and five hidden layers; their width is 1000, which docs/why.md measures


def test_equations_10_to_16():
    """n Var[W] is 1/3 for the old heuristic, 1 for Xavier: of 90 000 weights to 1 %, eight standard errors."""
    assert figures(propagate(DEEP, "tanh", "old_heuristic"), "weight") == [pytest.approx(1 / 3, rel=0.01)] * 5
    for init in ("xavier_uniform", "xavier_normal", "xavier_truncated_normal"):
        assert figures(propagate(DEEP, "tanh", init, jacobian=False), "weight") == [pytest.approx(1, rel=0.02)] * 5
    bound = xf.Table((300, 200), **SCHEMES["old_heuristic"], seed=0).bound
    assert bound == pytest.approx(1 / math.sqrt(300), rel=1e-6)


def test_figures_6_and_7_with_small_inputs():
    """Where tanh is nearly linear, as the equations suppose: level within 5 % a layer, or a factor of 1/sqrt(3)."""
    compared = compare(DEEP, "tanh", ["old_heuristic", "xavier_uniform"], inputs=small_inputs(300))
    old, xavier = compared["old_heuristic"], compared["xavier_uniform"]
    for factor in (xavier.forward, xavier.backward):
        assert factor == pytest.approx(0.955, abs=0.03)
    for factor in (old.forward, old.backward):
        assert factor == pytest.approx(1 / math.sqrt(3), abs=0.02)
    assert figures(old, "std") == sorted(figures(old, "std"), reverse=True)
    assert figures(old, "gradient") == sorted(figures(old, "gradient"))
    # Section 4.2.1, eq. 14: the weights' gradients are level under both.
    for report in (old, xavier):
        stds = figures(report, "weight_gradient")
        assert max(stds) / min(stds) < 1.1


def test_singular_values_of_section_4_2():
    compared = compare(DEEP, "tanh", ["old_heuristic", "xavier_uniform"], inputs=small_inputs(300))
    assert figures(compared["old_heuristic"], "singular") == [pytest.approx(0.49, abs=0.02)] * 5
    assert figures(compared["xavier_uniform"], "singular") == [pytest.approx(0.81, abs=0.03)] * 5
    # The limit without a nonlinearity: the mean of the quarter circle, 8 / (3 pi).
    linear = propagate([400, 400], "linear").layers[0].singular
    assert linear == pytest.approx(8 / (3 * math.pi), rel=0.01)


def test_large_inputs_saturate_the_first_layers():
    old, xavier = (propagate(DEEP, "tanh", init) for init in ("old_heuristic", "xavier_uniform"))
    assert xavier.backward == pytest.approx(0.80, abs=0.03)
    assert old.backward == pytest.approx(0.54, abs=0.03)
    assert xavier.layers[0].gradient / old.layers[0].gradient > 3


# ---- PyTorch


def linear_chain(torch, widths, activation, **keywords):
    layers = []
    for k, shape in enumerate(pairwise(widths), 1):
        linear = torch.nn.Linear(*shape)
        weight = xf.Table(shape, "xavier_uniform", seed=0, name=f"layer {k}").read()
        linear.weight.data, linear.bias.data = torch.from_numpy(weight.T.copy()), torch.zeros(shape[1])
        layers += [linear, activation(**keywords)]
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize(("activation", "module"), [("tanh", "Tanh"), ("relu", "ReLU"), ("silu", "SiLU")])
def test_a_module_is_as_its_arrays(torch, activation, module):
    widths = [40, 30, 20]
    inputs = xf.normal((256, 40), seed=0, name="inputs")
    ours = propagate(widths, activation)
    keywords = [{}] if module == "Tanh" else [{}, {"inplace": True}]
    for keyword in keywords:
        model = linear_chain(torch, widths, getattr(torch.nn, module), **keyword)
        theirs = propagate_module(model, inputs)
        assert (theirs.init, theirs.activation, theirs.batch) == ("Sequential", module, 256)
        for one, other in zip(ours.layers, theirs.layers, strict=True):
            # Two libraries' sums in float32; of a mean near 0 in absolute terms.
            assert one[1:] == pytest.approx(other[1:], rel=1e-4, abs=1e-6)


def test_modules_of_many_kinds(torch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, bias=False)
            self.norm = torch.nn.BatchNorm2d(8)
            self.act = torch.nn.ReLU(inplace=True)
            self.up = torch.nn.ConvTranspose2d(8, 4, 2)
            self.drop = torch.nn.Dropout(0.5)
            self.head = torch.nn.Linear(4, 5)
            self.unused = torch.nn.Linear(5, 5)

        def forward(self, x):
            z = self.act(self.norm(self.conv(x)))
            return self.head(self.drop(self.up(z)).mean((2, 3)))

    model = Net()
    model.conv.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    report = propagate_module(model, torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert [(x.name, x.width) for x in report.layers] == [("conv", 8), ("up", 4), ("head", 5)]
    conv, up, head = report.layers
    assert math.isnan(conv.weight_gradient)
    assert 0.3 < conv.saturated < 0.7  # half of a rectifier behind a batch norm
    assert up.weight_gradient > 0
    assert math.isnan(head.saturated)
    assert up.weight == pytest.approx(8 * 4 * float(model.up.weight.detach().double().var(correction=0)), rel=1e-5)
    assert report.overflow is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_symmetric_modules_and_other_dtypes(torch):
    model = linear_chain(torch, [8, 6, 6], torch.nn.Sigmoid)
    for parameter in model.parameters():
        parameter.data.fill_(0.1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for inputs in (torch.ones(4, 8, dtype=dtype), np.ones((4, 8))):
            assert figures(propagate_module(model.to(dtype), inputs), "distinct") == [1, 1]


def test_modules_of_tokens(torch):
    model = torch.nn.Sequential(torch.nn.Embedding(10, 6), torch.nn.Linear(6, 7), torch.nn.Tanh())
    report = propagate_module(model, torch.arange(12).reshape(4, 3) % 10)
    assert [(x.name, x.width) for x in report.layers] == [("1", 7)]


def test_bad_modules(torch):
    check = propagate_module
    with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module, got str$"):
        check("model", torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"^inputs must be finite, got NaN or infinity: clean them first$"):
        check(torch.nn.Linear(2, 2), torch.tensor([[1.0, math.nan]]))
    for nothing in (torch.ones(0, 2), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"^inputs must have samples along their first axis, got the shape \("):
            check(torch.nn.Linear(2, 2), nothing)
    with pytest.raises(ValueError, match=r"^model must call a module whose weight has two axes or more, got Tanh$"):
        check(torch.nn.Tanh(), torch.ones(2, 2))
    with pytest.raises(TypeError, match=r"^model must return a tensor of floats, got tuple: wrap it$"):
        check(torch.nn.LSTM(2, 2), torch.ones(2, 2))


# ---- bad input


@pytest.mark.parametrize(
    ("widths", "error", "text"),
    [
        (
            [],
            ValueError,
            r"widths must be two ints or more, got \[\]: give the width of the inputs, then that of each layer",
        ),
        ([5], ValueError, r"widths must be two ints or more, got \[5\]: "),
        ([5, 0], ValueError, r"each of widths must be at least 1, got 0"),
        ([5, -3], ValueError, r"each of widths must be at least 1, got -3"),
        ([5, 2.5], TypeError, r"each of widths must be an int >= 1, got 2\.5"),
        ([5, True], TypeError, r"each of widths must be an int >= 1, got True"),
        ("55", TypeError, r"widths must be a sequence of ints, got '55': "),
        (5, TypeError, r"widths must be a sequence of ints, got 5: "),
        (None, TypeError, r"widths must be a sequence of ints, got None: "),
    ],
)
def test_bad_widths(widths, error, text):
    for function in (lambda: propagate(widths, "tanh"), lambda: suggest("tanh", widths), lambda: explain(widths)):
        with pytest.raises(error, match="^" + text):
            function()


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        (np.ones((4, 6)), ValueError, r"inputs must have the shape \(samples, 5\), got \(4, 6\): "),
        (np.ones(5), ValueError, r"inputs must have the shape \(samples, 5\), got \(5,\): "),
        (np.ones((0, 5)), ValueError, r"inputs must have the shape \(samples, 5\), got \(0, 5\): "),
        ([[1, 2, 3, 4, math.nan]], ValueError, r"inputs must be finite in float32, got 1 NaN or infinite values: "),
        ([[1, 2, -math.inf, 4, math.nan]], ValueError, r"inputs must be finite in float32, got 2 NaN or infinite"),
        ([[1, 2, 3, 4, 1e39]], ValueError, r"inputs must be finite in float32, got 1 NaN or infinite values: "),
        ([["a"] * 5], TypeError, r"inputs must be an array of real numbers, got list of <U1"),
        ([[1j] * 5], TypeError, r"inputs must be an array of real numbers, got list of complex128"),
        ([[1, 2], [3]], TypeError, r"inputs must be an array of real numbers, got list of object"),
        ("inputs", TypeError, r"inputs must be an array of real numbers, got str of "),
    ],
)
def test_bad_inputs(inputs, error, text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match="^" + text):
            propagate([5, 3], "tanh", inputs=inputs)


def test_unknown_names_list_the_known_ones():
    known = ", ".join(ACTIVATIONS)
    with pytest.raises(ValueError, match=rf"^activation must be one of {known}, or a pair of functions, got 'swish'$"):
        propagate([5, 3], "swish")
    for bad in (None, np.tanh, (np.tanh,), (np.tanh, 1), ["tanh"]):
        with pytest.raises(TypeError, match=r"^activation must be a name or a pair of functions \(f, f'\), got "):
            propagate([5, 3], bad)
    for bad in ("glorot", None, 3, len, {"gain": 2.0}, {"init": "glorot"}):
        with pytest.raises(ValueError, match=r"^init must be one of old_heuristic, .*xavier_uniform.*; got "):
            propagate([5, 3], "tanh", bad)
        with pytest.raises(ValueError, match=r"^init must be one of old_heuristic, "):
            compare([5, 3], "tanh", [bad])


def test_other_bad_arguments():
    for inits in ("zeros", 3):
        with pytest.raises(TypeError, match=r"^inits must be a list of initialisers, got .*: put it into one$"):
            compare([5, 3], "tanh", inits)
    with pytest.raises(ValueError, match=r"^inits must name at least one initialiser, got \[\]$"):
        compare([5, 3], "tanh", [])
    for reserved in ("shape", "name", "dtype"):
        with pytest.raises(TypeError, match=rf"^parameters must be .*, got '{reserved}': leave it out$"):
            propagate([5, 3], "tanh", **{reserved: 1})
    with pytest.raises(TypeError, match="gian"):
        propagate([5, 3], "tanh", gian=2.0)
    for batch in (0, 2.5):
        with pytest.raises((TypeError, ValueError), match=r"^batch must be "):
            propagate([5, 3], "tanh", batch=batch)
    with pytest.raises(
        ValueError, match=r"^activation must be functions that give an array .*, got \w+ of the shape \(\) for "
    ):
        propagate([5, 3], (np.sum, np.ones_like))
    nothing = np.zeros_like, np.zeros_like
    with pytest.raises(ValueError, match=r"^activation must let signals and gradients through two layers or more"):
        suggest(nothing)


def test_plots_that_cannot_be_made(matplotlib, tmp_path, without, monkeypatch):
    report = propagate([5, 3], "tanh")
    missing_folder = tmp_path / "no" / "plot.png"
    for function in (lambda: report.plot(missing_folder), lambda: explain([5, 3], plot=missing_folder)):
        with pytest.raises(
            FileNotFoundError, match=r"^a plot must go to a folder that exists, got .*: make the folder"
        ):
            function()
    with pytest.raises(ValueError, match=r"^a plot must end in one of .*\.png.*, got .*plot\.nonsense"):
        report.plot(tmp_path / "plot.nonsense")
    without("matplotlib")
    monkeypatch.setattr(explanation, "compare", lambda *_, **__: pytest.fail("it must be refused before the work"))
    for function in (lambda: report.plot(tmp_path / "a.png"), lambda: explain([5, 3], plot=tmp_path / "a.png")):
        with pytest.raises(ImportError, match=f"^a plot needs matplotlib: {re.escape(how_to_install('plot'))}$"):
            function()


def test_plots_replace_nothing_unasked(matplotlib, tmp_path, monkeypatch):
    report = propagate([5, 3], "tanh")
    other, taken, link, folder = (tmp_path / name for name in ("other.txt", "taken.png", "link.png", "folder.png"))
    other.write_text("precious")
    taken.write_text("also")
    link.symlink_to(other)
    folder.mkdir()
    np.save(tmp_path / "weights.npy", xf.xavier_uniform((30, 4), seed=0))
    (stats,) = files.measure(tmp_path / "weights.npy")
    functions = (report.plot, lambda path: explain([5, 3], plot=path), lambda path: plot_histogram(stats, path))
    for path, reason in ((taken, "already exists"), (link, "is a symlink"), (folder, "is no regular file")):
        for function in functions:
            with pytest.raises(FileExistsError, match=reason):
                function(path)
    assert taken.read_text() == "also"
    taken.chmod(0o640)
    report.plot(taken, force=True)
    plot_histogram(stats, link, force=True)
    with pytest.raises(FileExistsError, match="is no regular file"):
        report.plot(folder, force=True)
    assert taken.read_bytes().startswith(PNG) and stat.S_IMODE(taken.stat().st_mode) == 0o640
    assert link.read_bytes().startswith(PNG)
    assert not link.is_symlink()
    assert other.read_text() == "precious"
    monkeypatch.setattr(plots.os, "replace", Mock(side_effect=OSError(ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space left on device"):
        report.plot(taken, force=True)
    assert len(list(tmp_path.iterdir())) == 5  # no temporary files


def test_networks_that_are_too_large_are_refused_before_the_work():
    for widths in ([10**9, 10**9], [1, 10**12], (10**6,) * 3):
        for function in (propagate, compare, explain):
            with pytest.raises(MemoryError, match=r"^a network must fit into memory, got one that needs about "):
                function(widths, "tanh")
    with pytest.raises(MemoryError, match="must fit into memory"):
        propagate([10, 10], "tanh", batch=10**14)
