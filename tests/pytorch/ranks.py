"""A process of a group: it fills DTensors and sharded models, and checks that the whole does not depend on the group.

``python ranks.py FOLDER SIZE ...`` starts groups of SIZE processes, each of which runs all functions named
``check_...``. The first of a group writes digests of what all have in common to FOLDER, so that groups can be compared.
"""

import hashlib
import json
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor._shards_wrapper import LocalShardsWrapper
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import xavierfast as xf
import xavierfast.torch as xt

nn = torch.nn
digests = {}


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def note(name, model):
    """Note a digest of a model, which must be that of all ranks and of all sizes of a group."""
    digest = hashlib.sha256()
    for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
        value = whole(tensor.detach())
        assert not (value.is_floating_point() and value.isnan().any()), (name, key)
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    digests[name] = digest.hexdigest()
    same_everywhere(digests[name])


def same_everywhere(value):
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    assert all(other == values[0] for other in values), values


def sharded(build, *blocks):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    with torch.device("meta"):
        model = build()
    for block in blocks:
        for part in model.get_submodule(block).children():
            fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


class Net(nn.Module):
    """A router of 3 outputs, whose shards are empty on the fourth rank, and an embedding with padding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6, padding_idx=4)
        self.router = nn.Linear(6, 3)
        self.attention = nn.MultiheadAttention(6, 2)
        self.head = nn.Linear(6, 11)
        self.scale = nn.Parameter(torch.randn(2))

    def init_weights(self):
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.trunc_normal_(self.router.weight, std=0.02)
        nn.init.uniform_(self.router.bias.data, -1, 1)
        noise = torch.randn_like(self.scale)
        with torch.no_grad():
            self.scale.copy_(noise.mul(0.5).add(1.0))


def check_tensors():
    size = dist.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    for shape in ((11, 7), (3, 5), (size, 2), (4, 6, 5)):
        for placement in (Shard(0), Shard(1), Shard(-1), Replicate()):
            for dtype in (torch.float32, torch.bfloat16):
                tensor = distribute_tensor(torch.zeros(shape, dtype=dtype), mesh, [placement])
                for fill in (
                    lambda t: xt.xavier_normal_(t, seed=1, name="w"),
                    lambda t: xt.uniform_(t, 1, 2, seed=1),
                    lambda t: xt.normal_(t, 0.0, 1e5, seed=1),
                ):
                    assert torch.equal(whole(fill(tensor)), fill(torch.zeros(shape, dtype=dtype))), (shape, placement)
    if size == 4:
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        for placements in ([Shard(0), Shard(0)], [Shard(0), Shard(1)], [Shard(1), Shard(0)], [Replicate(), Shard(0)]):
            tensor = distribute_tensor(torch.zeros(13, 6), grid, placements)
            xt.xavier_uniform_(tensor, seed=1)
            assert torch.equal(whole(tensor), xt.xavier_uniform_(torch.zeros(13, 6), seed=1)), placements


def check_padded_tensors():
    """The table lies at the beginning; zeros lie beyond, also where a whole shard does."""
    size = dist.get_world_size()
    meshes = [(init_device_mesh("cpu", (size,)), [[Shard(0)], [Shard(1)], [Replicate()]])]
    if size == 4:
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        meshes.append((grid, [[Shard(0), Shard(1)], [Shard(0), Shard(0)], [Replicate(), Shard(0)]]))
    for dtype in (torch.float32, torch.bfloat16):
        table = xf.Table((13, 6), seed=2, name="vocabulary", dtype=str(dtype).removeprefix("torch."))
        for padded in ((16, 6), (16, 8), (33, 6), (13, 6)):
            expected = torch.zeros(padded, dtype=dtype)
            xt.fill_(expected[:13, :6], table)
            for mesh, choices in meshes:
                for placements in choices:
                    tensor = distribute_tensor(torch.ones(padded, dtype=dtype), mesh, placements)
                    xt.fill_(tensor, table, pad=True)
                    assert torch.equal(whole(tensor), expected), (padded, placements)


def check_several_shards_in_one_process():
    """As torchrec holds them: each rank has two blocks of columns of its rows."""
    table = xf.Table((8, 6), "normal", seed=2)
    size, rank = dist.get_world_size(), dist.get_rank()
    if 8 % size:
        return
    rows = 8 // size
    mesh = init_device_mesh("cpu", (size,))
    shards = [torch.zeros(rows, 2), torch.zeros(rows, 4)]
    local = LocalShardsWrapper(shards, [(rank * rows, 0), (rank * rows, 2)])
    tensor = DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=torch.Size((8, 6)), stride=(6, 1))
    xt.fill_(tensor, table)
    assert torch.equal(torch.cat(shards, 1), torch.from_numpy(table[rank * rows : (rank + 1) * rows]))


def plain():
    return nn.Sequential(nn.Linear(10, 13), nn.LayerNorm(13), nn.Linear(13, 7))


def check_sharded_models():
    size = dist.get_world_size()
    expected = plain()
    xt.init_(expected, seed=5)

    def check(model):
        for (name, got), want in zip(model.named_parameters(), expected.parameters(), strict=True):
            assert torch.equal(whole(got.detach()), want), name

    if size == 4:
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        with torch.device("meta"):
            model = plain()
        parallelize_module(model, grid["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        fully_shard(model, mesh=grid["dp"])
        xt.materialize_(model, seed=5)
        assert any("Strided" in repr(p.placements) for p in model.parameters())
        check(model)
    mesh = init_device_mesh("cpu", (size,))
    for policy in (None, CPUOffloadPolicy(pin_memory=False)):
        with torch.device("meta"):
            model = plain()
        keywords = {"offload_policy": policy} if policy else {}
        fully_shard(model[0], mesh=mesh, **keywords)
        fully_shard(model, mesh=mesh, **keywords)
        report = xt.materialize_(model, seed=5)
        assert set(report.filled) == {name for name, _ in model.named_parameters()} and not report.left
        check(model)
        if size > 1:  # every rank has another shard
            shards = [None] * size
            dist.all_gather_object(shards, model[0].weight.to_local().detach().numpy().tobytes())
            assert len(set(shards)) == size
        model(torch.ones(2, 10)).sum().backward()


def check_models_by_name():
    for rules in (None, {"*.weight": "he_normal", "scale": "normal", "*bias*": "zeros"}):
        if rules:
            rules = {"embed.weight": "normal", "attention.in_proj_weight": "xavier_uniform", **rules}
        model = sharded(Net)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            report = xt.materialize_(model, rules, seed=5)
        assert not report.left
        same_everywhere((report.filled, report.left))
        note(f"by name, {bool(rules)}", model)
        expected = Net()
        xt.init_(expected, rules, seed=5)
        for (name, got), want in zip(model.named_parameters(), expected.parameters(), strict=True):
            assert torch.equal(whole(got.detach()), want), name
        assert not whole(model.embed.weight)[4].any()


def check_numbers_of_draws():
    model = sharded(Net)
    model.to_empty(device="cpu")
    with xt.fast_init(seed=3), torch.no_grad():
        model.init_weights()
        for part in (model.router, model.attention.out_proj, model.head):  # torch cannot zero the padding of a DTensor
            part.reset_parameters()
        model.attention._reset_parameters()
        replicated = torch.randn(5)
    same_everywhere(replicated.tolist())
    note("by number", model)
    digests["replicated"] = replicated.tolist()


def check_transformers():
    try:
        import transformers
    except ImportError:
        return
    transformers.logging.set_verbosity_error()
    gpt2 = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=33, n_positions=8)
    llama = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=33,
    )  # fmt: skip
    for config, blocks in ((gpt2, "h"), (llama, "layers")):
        kind = config.model_type
        model = sharded(lambda config=config: transformers.AutoModel.from_config(config), blocks)
        assert not xt.materialize_(model, seed=1).left
        note(f"{kind} by name", model)
        model.to_empty(device="cpu")
        for part in model.modules():
            part._is_hf_initialized = False
        with torch.no_grad():
            for tensor in model.buffers():
                tensor.zero_()
        with xt.fast_init(seed=2):
            model.initialize_weights()
        note(f"{kind} by number", model)


def check_tensors_without_a_seed_agree():
    size = dist.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    torch.manual_seed(100 + dist.get_rank())
    for placement in (Replicate(), Shard(0), Shard(1)):
        tensor = distribute_tensor(torch.zeros(5, 3), mesh, [placement])
        xt.xavier_uniform_(tensor)
        with xt.fast_init():
            other = distribute_tensor(torch.zeros(5, 3), mesh, [placement]).normal_()
        for values in (tensor, other):
            same_everywhere(whole(values).tolist())
            assert whole(values).std() > 0
    for _ in range(2):
        model = sharded(Net)
        xt.materialize_(model)
        same_everywhere([whole(p.detach()).tolist() for p in model.parameters()])
    if size == 4:
        grid = init_device_mesh("cpu", (2, 2))
        tensor = distribute_tensor(torch.zeros(6, 4), grid, [Replicate(), Shard(0)])
        xt.normal_(tensor)
        same_everywhere(whole(tensor).tolist())


def check_wrappers():
    expected = Net()
    report = xt.init_(expected, {"head.weight": "he_normal"}, seed=4)
    model = DistributedDataParallel(Net())
    assert xt.init_(model, {"head.weight": "he_normal"}, seed=4).filled == report.filled
    for got, want in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(got, want)


def main(rank, size, folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{size}", rank=rank, world_size=size)
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            try:
                check()
            except BaseException as error:
                error.add_note(f"in {name}, rank {rank} of {size}")
                raise
    if not rank:
        Path(folder, f"{size}.json").write_text(json.dumps(digests))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # all is checked, and the end of the interpreter aborts now and then with gloo's threads about


if __name__ == "__main__":
    with suppress(ImportError):
        import transformers  # noqa: F401  # once, and not in each of the processes, which are forks
    folder, *sizes = sys.argv[1:]
    for size in map(int, sizes):
        torch.multiprocessing.start_processes(main, (size, folder), size, start_method="fork")
