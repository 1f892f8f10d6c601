"""Rules for modules: the fans are those of the layer, and rows of padding are zero."""

import math

import pytest
from support import missing, same_bits

import xavierfast as xf

try:
    import torch
except ImportError:
    missing("torch is not installed")

import xavierfast.torch as xt

nn = torch.nn


class Experts(nn.Module):
    """Stacked matrices, of which each is used as F.linear uses its weight, or, transposed, as x @ w."""

    def __init__(self, is_transposed):
        super().__init__()
        self.is_transposed = is_transposed
        self.up = nn.Parameter(torch.empty((4, 30, 50) if is_transposed else (4, 50, 30)))


class Conv1D(nn.Module):
    """As the layer of this name in transformers' GPT-2, which computes x @ weight."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.empty(inputs, outputs))


LAYERS = {  # the layer, its parameter, and the fans of each of its matrices
    "Linear": (lambda: nn.Linear(30, 50), "weight", 30, 50),
    "Conv2d": (lambda: nn.Conv2d(6, 8, 3), "weight", 54, 72),
    "Conv2d of groups": (lambda: nn.Conv2d(32, 64, 3, groups=4), "weight", 72, 144),
    "depthwise Conv2d": (lambda: nn.Conv2d(32, 32, 3, groups=32), "weight", 9, 9),
    "depthwise with a multiplier": (lambda: nn.Conv1d(8, 24, 5, groups=8), "weight", 5, 15),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(8, 16, 3), "weight", 24, 48),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(8, 16, 3), "weight", 72, 144),
    "ConvTranspose2d of groups": (lambda: nn.ConvTranspose2d(8, 16, 3, groups=4), "weight", 18, 36),
    "depthwise ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 4, 2, groups=4), "weight", 8, 8),
    "attention's packed matrices": (lambda: nn.MultiheadAttention(16, 2), "in_proj_weight", 16, 16),
    "attention of other widths": (lambda: nn.MultiheadAttention(16, 2, kdim=4, vdim=6), "k_proj_weight", 4, 16),
    "LSTM": (lambda: nn.LSTM(10, 20), "weight_ih_l0", 10, 20),
    "GRU": (lambda: nn.GRU(10, 20, bidirectional=True), "weight_hh_l0_reverse", 20, 20),
    "RNN": (lambda: nn.RNN(10, 20), "weight_ih_l0", 10, 20),
    "LSTMCell": (lambda: nn.LSTMCell(10, 20), "weight_ih", 10, 20),
    "projected LSTM": (lambda: nn.LSTM(10, 20, proj_size=5), "weight_hr_l0", 20, 5),
    "Bilinear": (lambda: nn.Bilinear(3, 4, 5), "weight", 12, 20),
    "experts": (lambda: Experts(False), "up", 30, 50),
    "transposed experts": (lambda: Experts(True), "up", 30, 50),
    "Conv1D": (lambda: Conv1D(30, 50), "weight", 30, 50),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("init", ["xavier_uniform", "he_normal", "lecun_truncated_normal"])
def test_fans_are_those_of_the_layer(kind, init):
    make, name, fan_in, fan_out = LAYERS[kind]
    for fill in (xt.init_, xt.materialize_):
        with torch.device("meta" if fill is xt.materialize_ else "cpu"):
            model = nn.ModuleDict({"layer": make()})
        report = fill(
            model, {f"*.{name}": init, **({"*": "zeros"} if len(list(model.parameters())) > 1 else {})}, seed=0
        )
        assert not report.left
        weight = model["layer"].get_parameter(name).detach().numpy()
        expected = getattr(xf, init)(weight.shape, fan_in=fan_in, fan_out=fan_out, seed=0, name=f"layer.{name}")
        same_bits(weight, expected)


def test_standard_deviations_that_the_issue_of_groups_names():
    grouped, transposed = nn.Conv2d(32, 64, 3, groups=4), nn.ConvTranspose2d(8, 16, 3)
    xt.init_(grouped, "xavier_uniform", seed=0)
    xt.init_(transposed, "he_normal", seed=0)
    # 4,608 and 1,152 draws: five standard errors of a uniform's deviation are 3.3 %, of a normal's 10 %
    assert grouped.weight.std().item() == pytest.approx(0.0962, rel=0.033)
    assert transposed.weight.std().item() == pytest.approx(1 / 6, rel=0.1)
    assert math.sqrt(2 / 216) == pytest.approx(0.0962, abs=5e-5)


def test_a_rules_own_layout_and_fans_win():
    model = nn.Conv2d(4, 8, 3, groups=2)
    xt.init_(model, {"weight": {"init": "xavier_normal", "layout": "iohw"}, "bias": "zeros"}, seed=0)
    same_bits(model.weight.detach().numpy(), xf.xavier_normal((8, 2, 3, 3), layout="iohw", seed=0, name="weight"))
    xt.init_(model, {"weight": {"init": "xavier_normal", "fan_in": 7, "fan_out": 9}, "bias": "zeros"}, seed=0)
    same_bits(model.weight.detach().numpy(), xf.xavier_normal((8, 2, 3, 3), fan_in=7, fan_out=9, seed=0, name="weight"))


@pytest.mark.parametrize("rules", [None, "xavier_uniform", {"*": "normal"}, {"*": {"init": "constant", "value": 3.0}}])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_rows_of_padding_are_zero(rules, kind):
    model = nn.ModuleDict({"embed": kind(20, 8, padding_idx=-3)})
    for fill in (xt.init_, xt.materialize_):
        if fill is xt.materialize_:
            with torch.device("meta"):
                model = nn.ModuleDict({"embed": kind(20, 8, padding_idx=-3)})
        fill(model, rules, seed=0)
        weight = model["embed"].weight
        assert (weight[17] == 0).all() and (weight[[16, 18]] != 0).all()


def test_a_note_on_embeddings_that_a_rule_of_fans_makes_small():
    model = nn.Sequential(nn.Embedding(5000, 16), nn.Linear(16, 4))
    with pytest.warns(UserWarning, match=r"0\.weight: for an embedding of 5,000 rows, xavier_uniform gives small"):
        report = xt.init_(model, "xavier_uniform", seed=0)
    assert list(report.notes) == ["0.weight"] and "NOTE: for an embedding" in str(report)
    assert not xt.init_(model, {"0.weight": "normal", "1.*": "zeros"}, seed=0).notes
