"""Names of parameters: views of one buffer, wrappers, prefixes, ties."""

import copy

import pytest
from support import missing, same_bits

import xavierfast as xf

try:
    import torch
except ImportError:
    missing("torch is not installed")

import xavierfast.torch as xt

nn = torch.nn


def build():
    return nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4)), nn.Linear(4, 6))


def state(model):
    return dict(model.named_parameters())


def flattened(model):
    """All parameters as views of one buffer, as DeepSpeed, Megatron, apex and FSDP make them."""
    parameters = list(model.parameters())
    flat = torch.full((sum(p.numel() for p in parameters) + 3,), float("nan"))
    begin = 3
    for parameter in parameters:
        parameter.data = flat[begin : begin + parameter.numel()].view_as(parameter)
        begin += parameter.numel()
    return flat


@pytest.mark.parametrize("rules", [None, "xavier_uniform", {"?.weight": "he_normal"}])
def test_views_of_one_buffer(rules):
    plain, flat = build(), build()
    buffer = flattened(flat)
    expected, report = xt.init_(plain, rules, seed=1), xt.init_(flat, rules, seed=1)
    assert report == expected
    for name, parameter in state(flat).items():
        assert torch.equal(parameter, state(plain)[name]), name
    assert buffer[:3].isnan().all() and not buffer[3:].isnan().any()


def test_four_layers_whose_weights_are_slices_of_one_tensor():
    buffer = torch.zeros(4, 8, 8)
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4)))
    for k, layer in enumerate(model):
        layer.weight = nn.Parameter(buffer[k])
    report = xt.init_(model, seed=0)
    assert len(report.filled) == 4
    assert len({tuple(layer.weight.flatten().tolist()) for layer in model}) == 4


def test_views_that_interleave():
    """Columns of one matrix: the extents of their memory overlap, their elements do not."""
    for rules in ({"a": "normal", "b": "uniform"}, None):
        whole = torch.zeros(20, 6)

        class Model(nn.Module):
            def __init__(self, whole=whole):
                super().__init__()
                self.a, self.b = nn.Parameter(whole[:, :2]), nn.Parameter(whole[:, 2:])

            def reset_parameters(self):
                for parameter in (self.b, self.a):
                    for row in parameter.data:
                        row.normal_()

        model = Model()
        report = xt.init_(model, rules, seed=0)
        assert set(report.filled) == {"a", "b"}
        if rules is None:
            same_bits(model.a.detach().numpy()[3], xf.normal(2, seed=0, name="a[3]"))
            same_bits(model.b.detach().numpy()[3], xf.normal(4, seed=0, name="b[3]"))
        else:
            same_bits(model.a.detach().numpy(), xf.normal((20, 2), seed=0, name="a"))
            same_bits(model.b.detach().numpy(), xf.uniform((20, 4), seed=0, name="b"))


@pytest.mark.parametrize("tie", ["object", "memory", "view"])
def test_tied_parameters(tie):
    model = nn.ModuleDict({"embed": nn.Embedding(20, 8), "head": nn.Linear(8, 20, bias=False)})
    weight = model["embed"].weight
    model["head"].weight = {"object": weight, "memory": nn.Parameter(weight.data), "view": nn.Parameter(weight[:])}[tie]
    for rules in (None, "xavier_uniform"):
        report = xt.init_(model, rules, seed=0)
        assert not report.left
        assert torch.equal(model["head"].weight, model["embed"].weight)
        if rules:
            same_bits(weight.detach().numpy(), xf.xavier_uniform((20, 8), seed=0, name="embed.weight"))


def wrappers():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper, offload_wrapper
    from torch.optim.swa_utils import AveragedModel

    return {
        "compiled": lambda m: torch.compile(m, backend="eager"),
        "data parallel": lambda m: nn.DataParallel(m),
        "checkpoint": checkpoint_wrapper,
        "offload": offload_wrapper,
        "averaged": AveragedModel,
        "several": lambda m: torch.compile(checkpoint_wrapper(m), backend="eager"),
    }


@pytest.mark.parametrize("kind", ["compiled", "data parallel", "checkpoint", "offload", "averaged", "several"])
def test_wrappers_do_not_change_names(kind):
    try:
        wrap = wrappers()[kind]
    except ImportError:
        missing("this torch has no checkpoint wrappers")
    expected = build()
    rules = {"1.0.weight": "he_normal", "2.bias": {"init": "normal", "std": 0.5}}
    report = xt.init_(expected, rules, seed=3)
    whole, parts = wrap(build()), build()
    parts[1], parts[0] = wrap(parts[1]), wrap(parts[0])
    for model in (whole, parts, wrap(copy.deepcopy(parts))):
        assert xt.init_(model, rules, seed=3).filled == report.filled
        for parameter, other in zip(model.parameters(), expected.parameters(), strict=True):
            assert torch.equal(parameter, other)


@pytest.mark.parametrize(
    ("kind", "attribute"),
    [
        ("FullyShardedDataParallel", "_fsdp_wrapped_module"),
        ("DeepSpeedEngine", "module"),
        ("Float16Module", "module"),
        ("DistributedDataParallel", "module"),
    ],
)
def test_wrappers_are_known_by_the_names_of_their_classes(kind, attribute):
    """Wrappers that need a GPU, or a package that is not installed, are imitated by classes of the same names."""
    expected, wrapped = build(), build()

    def init(self, model):
        nn.Module.__init__(self)
        setattr(self, attribute, model)

    wrapper = type(kind, (nn.Module,), {"__init__": init})
    wrapped[1] = wrapper(wrapped[1])
    assert xt.init_(wrapper(wrapped), seed=3).filled == xt.init_(expected, seed=3).filled
    for parameter, other in zip(wrapped.parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, other)


def test_a_module_that_is_called_module_is_no_wrapper():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(3, 4)

    assert list(xt.init_(Model(), seed=0).filled) == ["module.weight", "module.bias"]


def test_a_part_with_a_prefix_is_that_part_of_the_whole():
    def make():
        block = nn.TransformerEncoderLayer(8, 2, 16)
        block.extra = nn.Linear(4, 4)
        nn.init.orthogonal_(block.extra.weight)
        return block

    whole = nn.ModuleDict({"layers": nn.ModuleList(make() for _ in range(4))})
    rules = {"layers.3.linear1.weight": "he_normal", "*.linear?.bias": "zeros"}
    xt.init_(whole, rules | {"layers.0.*": "normal"}, seed=0)
    stage = make()
    report = xt.init_(stage, rules, seed=0, prefix="layers.3.")
    assert all(name.startswith("layers.3.") for name in report.filled)
    for name, parameter in stage.named_parameters():
        assert torch.equal(parameter, whole["layers"][3].get_parameter(name)), name
    with torch.device("meta"):
        meta = make()
    xt.materialize_(meta, rules, seed=0, prefix="layers.3.")
    for name, parameter in meta.named_parameters():
        assert torch.equal(parameter, whole["layers"][3].get_parameter(name)), name
    with pytest.raises(TypeError, match="prefix must be a str"):
        xt.init_(stage, seed=0, prefix=3)


class Orthogonal(nn.Linear):
    """Draws a temporary tensor, and permutes by torch's generator."""

    def reset_parameters(self):
        nn.init.orthogonal_(self.weight)
        with torch.no_grad():
            self.weight.copy_(self.weight[torch.randperm(len(self.weight))])
            self.bias.zero_()


def test_temporary_tensors_of_a_part_are_those_of_the_whole():
    whole = nn.ModuleDict({"layers": nn.ModuleList(Orthogonal(6, 6) for _ in range(3))})
    xt.init_(whole, seed=0)
    assert not torch.equal(whole["layers"][1].weight, whole["layers"][2].weight)
    stage = Orthogonal(6, 6)
    xt.init_(stage, seed=0, prefix="layers.2.")
    assert torch.equal(stage.weight, whole["layers"][2].weight)
