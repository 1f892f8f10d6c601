"""Tables of torchrec, sharded over 1, 2 and 4 ranks: ``python tests/evidence/torchrec_shards.py [PYTHON]``.

An EmbeddingBagCollection of eight tables is sharded over gloo ranks on the CPU in each way that torchrec has: by rows,
also with fewer rows than ranks, as a whole, by columns, also with two column shards on one rank, by the rows of one
host, in a grid of columns over hosts and rows within them, and as copies. Its tables are filled in three ways:

    init_fn       by the ``init_fn`` of each table, which finds the places of its local tensor in the sharding plan
    state_dict    after the sharding, from the metadata of the ShardedTensors in ``state_dict()``
    DTensor       the same for the DTensors that an environment with ``output_dtensor`` gives

The shards of all ranks, put together, must be the elements of the ``xavierfast.Table`` bit for bit, whatever the number
of ranks and the way; lookups through the sharded modules must give its rows. A planted fault, an ``init_fn`` that takes
its local tensor for the whole table, must be noticed.

The script makes a virtual environment with the versions below, which belong together; the package index must have
them. PYTHON is a Python that has them and xavierfast already.
"""

import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

VERSIONS = ["torch==2.13.0", "fbgemm-gpu-cpu==1.8.0", "torchrec==1.8.0"]
# torchrec asks for fbgemm-gpu, which needs CUDA and overwrites the files of fbgemm-gpu-cpu; these are its other needs.
NEEDED = ["tensordict", "torchmetrics==1.0.3", "tqdm", "pyre-extensions"]
RANKS = (1, 2, 4)
TABLES = {
    "rows": ((100_003, 64), "uniform", {"bound": 64**-0.5}),
    "few": ((3, 8), "normal", {"std": 8**-0.5}),
    "whole": ((20_000, 32), "truncated_normal", {"std": 0.02, "dtype": "float16"}),
    "columns": ((10_007, 128), "xavier_uniform", {}),
    "stacked": ((1009, 64), "xavier_normal", {}),
    "host": ((5003, 16), "normal", {"std": 0.01, "dtype": "float16"}),
    "grid": ((997, 256), "he_normal", {}),  # torchrec makes grids of 128 columns a host
    "copies": ((500, 24), "xavier_truncated_normal", {}),
}
WAYS = ("init_fn", "state_dict", "DTensor")
FAULT = "fault"
BATCH = 256


# ---- in the environment: one rank


def index_of(offsets, sizes):
    return tuple(slice(first, first + size) for first, size in zip(offsets, sizes, strict=True))


def fill_by_plan(local, table, sharding, rank):
    """Fill what an init_fn is given: nothing, a copy, one shard, or several column shards, one below the other."""
    import xavierfast.torch as xt

    if sharding.sharding_spec is None:  # copies
        xt.fill_(local, table)
        return
    first = 0
    for shard in sharding.sharding_spec.shards:
        if shard.placement.rank() == rank:
            part = local.detach()[first : first + shard.shard_sizes[0]]
            xt.fill_(part, table.shard(index_of(shard.shard_offsets, shard.shard_sizes)))
            first += len(part)
    assert first == len(local)


def local_shards(tensor):
    """Pairs of the offsets and the memory of the shards of a tensor in a state_dict that are on this rank."""
    from torch.distributed._shard.sharded_tensor import ShardedTensor
    from torch.distributed.tensor import DTensor

    if isinstance(tensor, ShardedTensor):
        return [(shard.metadata.shard_offsets, shard.tensor) for shard in tensor.local_shards()]
    if isinstance(tensor, DTensor):
        local = tensor.to_local()  # torchrec's LocalShardsWrapper
        return list(zip(local.local_offsets(), local.local_shards(), strict=False))  # an empty one has one offset
    return [((0, 0), tensor)]


def run(rank, ranks, folder):
    import numpy as np
    import torch
    import torch.distributed as dist
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
    from torchrec.distributed import DistributedModelParallel
    from torchrec.distributed import sharding_plan as sharding
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.types import ShardingEnv, ShardingPlan
    from torchrec.modules.embedding_configs import DataType

    import xavierfast as xf
    import xavierfast.torch as xt

    for name in ("torch", "torchrec"):
        logging.getLogger(name).setLevel(logging.ERROR)
    hosts = min(2, ranks)  # of equally many ranks each
    os.environ |= {"RANK": f"{rank}", "WORLD_SIZE": f"{ranks}", "LOCAL_WORLD_SIZE": f"{ranks // hosts}"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/met{ranks}", rank=rank, world_size=ranks)
    tables = {name: xf.Table(shape, init, seed=7, name=name, **own) for name, (shape, init, own) in TABLES.items()}
    kinds = {
        "rows": sharding.row_wise(),
        "few": sharding.row_wise(),
        "whole": sharding.table_wise(rank=ranks - 1),
        "columns": sharding.column_wise(ranks=list(range(ranks))),
        "stacked": sharding.column_wise(ranks=[0, 0, ranks - 1, ranks - 1]),
        "host": sharding.table_row_wise(host_index=hosts - 1),
        "grid": sharding.grid_shard(host_indexes=[0, 1]) if hosts == 2 else sharding.row_wise(),
        "copies": sharding.data_parallel(),
    }

    def init_fn_of(name, way):
        def init_fn(local):
            with torch.no_grad():
                if way == "init_fn":
                    fill_by_plan(local, tables[name], plan[name], rank)
                elif way == FAULT and local.numel():
                    _, init, own = TABLES[name]
                    xt.fill_(local, xf.Table(tuple(local.shape), init, seed=7, name=name, **own))
                else:
                    local.fill_(torch.nan)

        return init_fn

    for way in (*WAYS, FAULT):
        collection = EmbeddingBagCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingBagConfig(
                    name=name, num_embeddings=table.shape[0], embedding_dim=table.shape[1],
                    data_type=DataType.FP16 if table.dtype_name == "float16" else DataType.FP32,
                    feature_names=[f"id {name}"], init_fn=init_fn_of(name, way),
                )
                for name, table in tables.items()
            ],
        )  # fmt: skip
        sharder = EmbeddingBagCollectionSharder()
        plan = sharding.construct_module_sharding_plan(
            collection, kinds, sharder=sharder, local_size=ranks // hosts, world_size=ranks, device_type="cpu"
        )
        env = ShardingEnv(ranks, rank, dist.group.WORLD, output_dtensor=way == "DTensor")
        model = DistributedModelParallel(
            torch.nn.Sequential(collection), env=env, device=torch.device("cpu"), sharders=[sharder],
            plan=ShardingPlan({"0": plan}),
        )  # fmt: skip
        state = {key.split(".")[-2]: tensor for key, tensor in model.state_dict().items()}
        assert state.keys() == tables.keys(), state.keys()
        parts = {name: local_shards(tensor) for name, tensor in state.items()}
        if way in ("state_dict", "DTensor"):
            for name, shards in parts.items():
                for offsets, local in shards:
                    xt.fill_(local, tables[name].shard(index_of(offsets, local.shape)))
        pieces = {}
        for name, shards in parts.items():
            for offsets, local in shards:
                pieces[f"{name} {offsets[0]} {offsets[1]}"] = local.detach().numpy()
        np.savez(folder / f"{way} {ranks} {rank}.npz", **pieces)
        if way != FAULT:  # one id per bag: a lookup gives the row itself
            ids = {n: np.random.default_rng([ranks, rank]).integers(0, len(t), BATCH) for n, t in tables.items()}
            found = model(
                KeyedJaggedTensor.from_lengths_sync(
                    [f"id {name}" for name in ids],
                    torch.tensor(np.concatenate(list(ids.values()))),
                    torch.ones(BATCH * len(ids), dtype=torch.int64),
                )
            )
            for name, table in tables.items():
                got = found[f"id {name}"].detach().float().numpy()
                assert (got == table[ids[name]].astype(np.float32)).all(), f"lookups in {name}, {way}, {ranks} ranks"
    dist.destroy_process_group()


# ---- in the environment: all ranks


def gather(folder, way, ranks):
    """The whole tables, from the pieces of all ranks, NaN where there is none; and the number of pieces of each."""
    import numpy as np

    import xavierfast as xf

    whole = {
        name: np.full(shape, np.nan, xf.Table(shape, init, seed=7, **own).dtype)
        for name, (shape, init, own) in TABLES.items()
    }
    pieces: Counter[str] = Counter()
    for rank in range(ranks):
        with np.load(folder / f"{way} {ranks} {rank}.npz") as saved:
            for key, piece in saved.items():
                name, row, column = key.split()
                place = whole[name][index_of((int(row), int(column)), piece.shape)]
                assert name == "copies" or np.isnan(place).all(), f"{name}: two ranks have the same elements"
                place[...] = piece
                pieces[name] += 1
    return whole, pieces


def inside(folder: Path) -> int:
    """Run all ranks and compare; the last line is the finding."""
    import fbgemm_gpu
    import numpy as np
    import torch
    import torchrec

    import xavierfast as xf

    wanted = {
        name: np.asarray(xf.Table(shape, init, seed=7, name=name, **own)) for name, (shape, init, own) in TABLES.items()
    }
    elements, bad = sum(array.size for array in wanted.values()), []
    default = torchrec.EmbeddingBagConfig(num_embeddings=400, embedding_dim=16, name="t", feature_names=["f"])
    print(f"torchrec {torchrec.__version__}, torch {torch.__version__}, fbgemm_gpu {fbgemm_gpu.__version__}; ", end="")
    print(f"the default bound of a table of 400 rows of 16 is {default.get_weight_init_max()}")  # 1 / sqrt(400) = 0.05
    for ranks in RANKS:
        torch.multiprocessing.spawn(run, (ranks, folder), ranks)
        for way in (*WAYS, FAULT):
            whole, pieces = gather(folder, way, ranks)
            differ = [name for name in wanted if whole[name].tobytes() != wanted[name].tobytes()]
            print(f"{ranks} ranks  {way:11}{pieces.total():3} shards  {'differ: ' * bool(differ)}", end="")
            print(", ".join(differ) or "equal")
            # What is whole on its rank is right in spite of the fault.
            expected = [name for name in wanted if way == FAULT and pieces[name] > 1 and name != "copies"]
            if differ != expected:
                bad.append(f"{way} on {ranks} ranks")
    print(
        f"{len(wanted)} tables of {elements:,} elements on {', '.join(map(str, RANKS))} ranks, filled in "
        f"{len(WAYS)} ways: " + (f"wrong: {'; '.join(bad)}" if bad else "bit for bit the Tables; the fault is noticed")
    )
    return 1 if bad else 0


# ---- the environment


def install(folder: Path) -> str:
    """Make the environment, and return its Python."""
    from sources import copy_sources

    copy_sources(folder / "sources")
    python = f"{folder}/venv/bin/python"
    pip = [python, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    for command in (
        [sys.executable, "-m", "venv", f"{folder}/venv"],
        [*pip, *VERSIONS[:2], *NEEDED, f"{folder}/sources"],
        [*pip, "--no-deps", VERSIONS[2]],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr[-3000:])
            print(f"cannot run here: {' '.join(command[1:])} failed")
            sys.exit(77)
    return python


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        python = sys.argv[1] if len(sys.argv) > 1 else install(folder)
        command = [python, "-W", "ignore", __file__, "--inside", name]  # fbgemm_gpu warns of its own old modules
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(inside(Path(sys.argv[2])) if sys.argv[1:2] == ["--inside"] else main())
