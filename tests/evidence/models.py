"""Many models of transformers: ``models.py [NAME ...]`` builds small ones of all kinds, or of the named ones.

Of each kind it checks that

- the same code under ``fast_init`` with the same seed gives the same model, whatever was drawn in between, and another
  seed changes each parameter that torch's generator decides;
- ``init_`` in place and ``materialize_`` after the meta device give the same model, but for tensors that the report
  says are left;
- their standard deviations are those of torch's own model.

To see that the checks notice faults, one model is built with a parameter that torch's generator draws by itself.
"""

import math
import sys
import warnings
from contextlib import suppress
from itertools import islice

try:
    import torch
    import transformers

    import xavierfast.torch as xt
except ImportError as error:
    print(f"needs {error.name}")
    sys.exit(77)

warnings.simplefilter("ignore")
transformers.logging.set_verbosity(50)
MAX_PARAMETERS = 3_000_000
# Whatever of these a configuration has gets this value, so that the model is small.
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "head_dim": 16, "n_embd": 32,
    "n_layer": 2, "n_head": 2, "n_positions": 64, "d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 64,
    "d_kv": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_local_experts": 4, "num_experts": 4,
    "moe_intermediate_size": 32, "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    "qk_head_dim": 16, "rotary_dim": 8, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64,
    "embedding_size": 32, "word_embed_proj_dim": 32, "d_inner": 64, "d_head": 16, "emb_dim": 32, "d_embed": 32,
    "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "image_size": 32, "patch_size": 8,
}  # fmt: skip


def shrink(config):
    for key, value in SIZES.items():
        if getattr(config, key, None) is not None:
            with suppress(AttributeError, ValueError, TypeError):
                setattr(config, key, value)
    if getattr(config, "layer_types", None):
        with suppress(AttributeError):
            config.layer_types = config.layer_types[: getattr(config, "num_hidden_layers", 2)]
    for part in vars(config).values():
        if isinstance(part, transformers.PretrainedConfig):
            shrink(part)


def small_model(kind):
    """A function that builds a small model, or None where the defaults do not allow for one."""
    try:
        config = transformers.CONFIG_MAPPING[kind]()
        shrink(config)

        def build():
            return transformers.AutoModel.from_config(config)

        with torch.device("meta"):
            if sum(p.numel() for p in build().parameters()) > MAX_PARAMETERS:
                return None
        build()
    except Exception:
        return None
    return build


def faults(build):
    """The number of parameters that torch's generator decides, and what is wrong with the model, in words."""
    wrong = []
    theirs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        theirs.append(build())
    pairs = zip(theirs[0].named_parameters(), theirs[1].parameters(), strict=True)
    random = {name for (name, a), b in pairs if not torch.equal(a, b)}
    ours = []
    for seed in (0, 0, 1):
        with xt.fast_init(seed=seed):
            ours.append(build())
        torch.rand(3)
    for (name, a), b, c in zip(ours[0].named_parameters(), ours[1].parameters(), ours[2].parameters(), strict=True):
        if not torch.equal(a, b):
            wrong.append(f"{name} does not repeat under fast_init")
        if torch.equal(a, c) == (name in random):
            wrong.append(f"{name} does not follow the seed under fast_init")
    with torch.device("meta"):
        meta = build()
    report = xt.materialize_(meta, seed=7)
    real = build()
    xt.init_(real, seed=7)
    tensors = [*meta.named_parameters(), *meta.named_buffers()]
    others = [*real.parameters(), *real.buffers()]
    for (name, a), b in zip(tensors, others, strict=True):
        if name not in report.left and not torch.equal(a, b):
            wrong.append(f"{name} differs in place and after meta")
        if name not in report.left and a.is_floating_point() and a.isnan().any():
            wrong.append(f"{name} holds NaN")
    for name, parameter in theirs[0].named_parameters():
        for model in (ours[0], real):
            other = model.get_parameter(name)
            if name in random and other.numel() > 500 and name not in report.left:
                ratio = other.std().item() / (parameter.std().item() or math.nan)
                if not abs(ratio - 1) < 15 / math.sqrt(other.numel()):
                    wrong.append(f"{name} has {ratio:.2f} times torch's standard deviation")
    return len(random), len(report.left), wrong


def main():
    names = sys.argv[1:] or list(transformers.CONFIG_MAPPING)
    models = parameters = left = 0
    wrong = []
    for kind in names:
        build = small_model(kind)
        if build is None:
            continue
        count, unfilled, found = faults(build)
        models, parameters, left = models + 1, parameters + count, left + unfilled
        wrong += [f"{kind}: {fault}" for fault in found]
        for fault in islice(found, 3):
            print(f"{kind}: {fault}", flush=True)

    def planted():
        model = small_model("gpt2")()
        model.wpe.weight.data.normal_(generator=torch.default_generator)
        return model

    if "gpt2" in names and not faults(planted)[2]:
        wrong.append("a planted fault was not noticed")
    print(
        f"{models} kinds of models, {parameters:,} random parameters, {left} tensors that only constructors compute, "
        f"{len(wrong)} faults"
    )
    return int(bool(wrong) or not models)


if __name__ == "__main__":
    sys.exit(main())
