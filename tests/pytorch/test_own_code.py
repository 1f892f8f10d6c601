"""Without rules: the code with which models initialise themselves, in place and after the meta device."""

import math
import warnings

import pytest
from support import missing, need, same_bits

import xavierfast as xf

try:
    import torch
except ImportError:
    missing("torch is not installed")

import xavierfast.torch as xt

nn = torch.nn


def same_in_place_and_from_meta(build, seed=0, **keywords):
    """Fill a model in place and on meta, compare them, and return both reports and the models."""
    real = build()
    with torch.device("meta"):
        meta = build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = xt.init_(real, seed=seed, **keywords), xt.materialize_(meta, seed=seed, **keywords)
    assert {k: v for k, v in second.filled.items() if k in first.filled} == first.filled
    for (name, a), b in zip(meta.state_dict().items(), real.state_dict().values(), strict=True):
        assert name in second.left or torch.equal(a, b), name
    return first, second, real, meta


# ---- transformers

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "head_dim": 16, "n_embd": 32,
    "n_layer": 2, "n_head": 2, "n_positions": 64, "d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 64,
    "d_kv": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_local_experts": 4, "num_experts": 4,
    "moe_intermediate_size": 32, "depths": [1, 1, 2, 1], "hidden_sizes": [8, 8, 16, 16], "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
KINDS = ["gpt2", "bert", "llama", "mixtral", "qwen3_moe", "gpt_oss", "t5", "bart", "vit", "convnext", "whisper", "rwkv"]


def transformers_model(kind):
    transformers = need("transformers")
    transformers.logging.set_verbosity_error()
    config = transformers.CONFIG_MAPPING[kind]()
    for key, value in SIZES.items():
        if getattr(config, key, None) is not None:
            setattr(config, key, value)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:2]
    return lambda: transformers.AutoModel.from_config(config)


def random_parameters(build):
    """The names of the parameters that torch's own generator decides."""
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(build())
    pairs = zip(states[0].named_parameters(), states[1].parameters(), strict=True)
    return {name for (name, a), b in pairs if not torch.equal(a, b)}, states[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_transformers(kind):
    build = transformers_model(kind)
    random, theirs = random_parameters(build)
    with xt.fast_init(seed=0):
        first = build()
    torch.rand(3)
    with xt.fast_init(seed=0):
        again = build()
    with xt.fast_init(seed=1):
        other = build()
    assert random
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == (name not in random), name
    one, two, real, _ = same_in_place_and_from_meta(build)
    assert not one.left and not two.left
    for name, parameter in theirs.named_parameters():
        for ours in (first.get_parameter(name), real.get_parameter(name)):
            if name not in random:
                assert torch.equal(ours, parameter), name
            elif ours.numel() > 500:  # ten standard errors of the ratio of two deviations
                ratio = ours.std().item() / parameter.std().item()
                assert ratio == pytest.approx(1, rel=10 / math.sqrt(ours.numel())), name
    tied = {name for name, value in one.filled.items() if "(" not in value}
    if kind != "rwkv":  # whose matrices are orthogonal, made of temporary draws
        assert not random & tied


@pytest.mark.filterwarnings("ignore")
def test_marks_that_code_of_transformers_sets_and_reads_as_it_runs():
    """An embedding of ViT-MAE leaves its class token as it is where its projection has been initialised before."""
    first, second, model, meta = same_in_place_and_from_meta(transformers_model("vit_mae"))
    assert list(first.left) == list(second.left) == ["embeddings.cls_token", "embeddings.position_embeddings"]
    assert all(part._is_hf_initialized for part in (*model.modules(), *meta.modules()))


@pytest.mark.filterwarnings("ignore")
def test_transformers_draws_have_the_names_of_their_parameters():
    model = transformers_model("gpt2")()
    xt.init_(model, seed=7)
    name = "h.1.mlp.c_proj.weight"  # normal(0.02 / sqrt(2 * layers))
    expected = xf.normal((128, 32), std=0.02 / math.sqrt(4), seed=7, name=name)
    same_bits(model.get_parameter(name).detach().numpy(), expected)


@pytest.mark.filterwarnings("ignore")
def test_buffers_that_a_models_code_computes():
    _, report, real, meta = same_in_place_and_from_meta(transformers_model("llama"))
    assert report.filled["rotary_emb.inv_freq"] == "by its module"
    assert torch.equal(meta.rotary_emb.inv_freq, real.rotary_emb.inv_freq)


# ---- models of other styles


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)
        self.norm = nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.ones(8))


class ByLayer(nn.Module):
    """In the style of nanoGPT: one function for each layer."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


class Whole(nn.Module):
    """In the style of timm and torchtitan: one method for all, which also changes what defaults have drawn."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(8, 4)
        self.register_buffer("angles", torch.empty(3))
        self.init_weights()

    def init_weights(self, mode="", scale=0.5):
        for block in self.blocks:
            nn.init.trunc_normal_(block.up.weight, std=0.02)
            nn.init.ones_(block.scale)
        with torch.no_grad():
            self.head.weight.mul_(scale)
            self.head.bias[1:].fill_(2.0)
            self.angles.copy_(torch.arange(3.0))


class States(Whole):
    init_weights = None

    def __init__(self):
        nn.Module.__init__(self)
        self.blocks, self.head = nn.ModuleList(Block() for _ in range(2)), nn.Linear(8, 4)
        self.register_buffer("angles", torch.empty(3), persistent=False)
        self.init_states()

    def init_states(self, *, buffer_device=None):
        Whole.init_weights(self)
        self.angles = torch.arange(3.0, device=buffer_device)


def test_a_function_for_each_layer():
    first, second, model, meta = same_in_place_and_from_meta(ByLayer, seed=2)
    name = "blocks.1.up.weight"
    assert first.filled[name] == "normal(mean=0.0, std=0.02)"
    same_bits(model.get_parameter(name).detach().numpy(), xf.normal((32, 8), std=0.02, seed=2, name=name))
    assert (model.blocks[0].norm.weight == 1).all() and not model.blocks[0].up.bias.any()
    assert list(second.left) == list(first.left) == ["blocks.0.scale", "blocks.1.scale"]
    assert meta.blocks[0].scale.isnan().all() and (model.blocks[0].scale == 1).all()


@pytest.mark.parametrize("kind", [Whole, States])
def test_one_method_for_all(kind):
    first, second, model, meta = same_in_place_and_from_meta(kind, seed=2)
    assert not first.left and not second.left
    assert torch.equal(meta.angles, torch.arange(3.0)) and torch.equal(model.angles, torch.arange(3.0))
    default = xf.he_uniform((4, 8), gain=math.sqrt(1 / 3), layout="oi", seed=2, name="head.weight")
    same_bits(model.head.weight.detach().numpy(), default * 0.5)  # its default, which the method halves
    assert first.filled["head.weight"].endswith(", then changed by its module")
    assert (model.head.bias[1:] == 2).all() and 0 < abs(model.head.bias[0]) <= 8**-0.5
    same_bits(
        model.blocks[1].up.weight.detach().numpy(),
        xf.truncated_normal((32, 8), std=0.02, low=-100, high=100, seed=2, name="blocks.1.up.weight"),
    )
    assert "uniform" in first.filled["blocks.0.down.weight"]  # which only its layer's reset_parameters fills


def test_rules_come_before_own_code():
    model = Whole()
    report = xt.init_(model, {"head.weight": "xavier_normal", "*.up.weight": "he_normal"}, seed=3)
    same_bits(model.head.weight.detach().numpy(), xf.xavier_normal((4, 8), layout="oi", seed=3, name="head.weight"))
    name = "blocks.0.up.weight"
    same_bits(model.get_parameter(name).detach().numpy(), xf.he_normal((32, 8), layout="oi", seed=3, name=name))
    assert report.filled["head.weight"].startswith("Table(") and (model.head.bias[1:] == 2).all()


def test_what_only_a_constructor_computes_is_nan_and_reported():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.scale = nn.Linear(3, 3), nn.Parameter(torch.ones(4))
            self.register_buffer("angles", torch.arange(3.0))
            self.register_buffer("positions", torch.arange(5))
            self.norm = nn.BatchNorm1d(3, affine=False)

    with torch.device("meta"):
        model = Model()
    with pytest.warns(
        UserWarning, match=r"materialize_ left 3 parameters or buffers unfilled: scale: no rule .*angles:"
    ):
        report = xt.materialize_(model, seed=0)
    assert list(report.left) == ["scale", "angles", "positions"]
    assert model.scale.isnan().all() and model.angles.isnan().all() and not model.positions.any()
    assert (model.norm.running_var == 1).all() and not model.norm.running_mean.any()


def test_one_unfilled_parameter_of_many_is_one_line():
    model = nn.Sequential(*(nn.LayerNorm(2) for _ in range(500)))
    model.scale = nn.Parameter(torch.ones(2))
    with pytest.warns(UserWarning, match=r"init_ left 1 parameters unfilled: scale: no rule") as caught:
        xt.init_(model, seed=0)
    assert len(caught) == 1 and len(str(caught[0].message).splitlines()) == 1 and len(str(caught[0].message)) < 200


def test_partitioned_parameters_are_left_before_anything_is_drawn():
    """As DeepSpeed's ZeRO-3 leaves them: without elements, their shape beside them."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Embedding(7, 3, padding_idx=1))
    for parameter in (model[0].weight, model[0].bias, model[2].weight):
        parameter.ds_shape = parameter.shape
        parameter.data = torch.empty(0)
    with pytest.warns(UserWarning, match="left 3 parameters unfilled: 0.weight: it has no elements: DeepSpeed"):
        report = xt.init_(model, seed=0)
    assert list(report.left) == ["0.weight", "0.bias", "2.weight"] and list(report.filled) == ["1.weight", "1.bias"]
    expected = nn.Sequential(nn.Identity(), nn.Linear(5, 6))
    xt.init_(expected, seed=0)
    assert torch.equal(model[1].weight, expected[1].weight)
    half = nn.Sequential(nn.Linear(4, 5))
    half[0].weight.data = torch.empty(0)
    with pytest.warns(UserWarning, match="0.bias: its layer's code needs another parameter"):
        assert list(xt.init_(half, seed=0).left) == ["0.weight", "0.bias"]
    with pytest.warns(UserWarning, match="left 1 parameters"):
        assert list(xt.init_(half, {"0.bias": "zeros"}, seed=0).filled) == ["0.bias"]


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_and_sparse_parameters_are_left():
    model = nn.Sequential(nn.LazyLinear(5), nn.Linear(5, 6))
    model.sparse = nn.Parameter(torch.eye(3).to_sparse())
    with pytest.warns(UserWarning, match="left 3 parameters unfilled"):
        report = xt.init_(model, seed=0)
    assert list(report.left) == ["sparse", "0.weight", "0.bias"] and list(report.filled) == ["1.weight", "1.bias"]


def test_without_a_seed_torchs_generator_decides():
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(nn.Sequential(nn.Linear(5, 6)))
        xt.init_(models[-1])
    assert torch.equal(models[0][0].weight, models[1][0].weight)
    assert not torch.equal(models[0][0].weight, models[2][0].weight)
    torch.manual_seed(1)
    with torch.device("meta"):
        meta = nn.Sequential(nn.Linear(5, 6))
    with torch.device("meta"):
        xt.materialize_(meta)
    assert meta[0].weight.shape == (6, 5) and not meta[0].weight.is_meta


def test_the_callers_generator_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(5, 6))
    state = torch.get_rng_state()
    xt.init_(model, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_marks_of_transformers_on_loaded_tensors_do_not_matter():
    build = transformers_model("llama")
    model, loaded = build(), build()
    for tensor in loaded.parameters():
        tensor._is_hf_initialized = True
    xt.init_(model, seed=1)
    xt.init_(loaded, seed=1)
    for a, b in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b) and b._is_hf_initialized
    assert all(module._is_hf_initialized for module in loaded.modules())
