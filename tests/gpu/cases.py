"""The GPU's kernels against the CPU's, bit for bit. These tests run in two ways: ``test_interpreter.py`` runs them in
Triton's interpreter, in a process of its own and on tensors in the CPU's memory, and ``test_card.py`` on a GPU."""

import math
import os
from contextlib import nullcontext
from math import inf

import numpy as np
import pytest
import torch
from support import same_bits

import xavierfast as xf
import xavierfast.torch as xt
from xavierfast import kernels
from xavierfast._core.distributions import Constant, Normal, TruncatedNormal, Uniform, UniformRange
from xavierfast._core.dtypes import DTYPES
from xavierfast._core.fill import fill
from xavierfast.kernels import gpu
from xavierfast.torch import device as devices
from xavierfast.torch.device import BACKENDS
from xavierfast.torch.tensors import as_array

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda" if torch.cuda.is_available() else "xpu"
KEY = bytes(range(120, 152))  # words below and above 2^31
TILE, PROGRAM = 256, 256 * gpu.TILES
DISTRIBUTIONS = {
    "uniform": Uniform(0.3), "range": UniformRange(-0.2, 1.1), "normal": Normal(0.0, 0.02), "mean": Normal(0.5, 0.25),
    "truncated": TruncatedNormal(0.0, 0.3, -2.0, 2.0), "narrow": TruncatedNormal(0.7, 0.3, -0.5, 0.5),
    "wide": TruncatedNormal(0.1, 0.25, -3.0, 3.0), "infinite": TruncatedNormal(0.0, 0.25, -inf, inf),
    "constant": Constant(-0.0), "third": Constant(1 / 3),
}  # fmt: skip
CASES = [
    *((distribution, "float32") for distribution in DISTRIBUTIONS.values()),
    *((DISTRIBUTIONS[name], "float64") for name in ("uniform", "range", "normal", "mean", "constant")),
    *((DISTRIBUTIONS[name], dtype) for dtype in list(gpu.FORMATS)[2:] for name in ("uniform", "mean", "third")),
    (DISTRIBUTIONS["wide"], "bfloat16"), (DISTRIBUTIONS["truncated"], "float8_e5m2"),
    *((Normal(0.0, 1.5 * DTYPES[dtype].smallest), dtype) for dtype in gpu.FORMATS),  # subnormal, in 16 and 8 bits
    *((UniformRange(-DTYPES[dtype].largest, DTYPES[dtype].largest), dtype) for dtype in gpu.FORMATS),
]  # fmt: skip
INTEGERS = {1: torch.int8, 2: torch.int16}


def teach_fma():
    """Let the interpreter of Triton before 3.9, which multiplies and then adds, round once."""
    from reference import fused
    from triton.runtime import interpreter

    if hasattr(getattr(interpreter, "_interpreter", None), "fma_fp32"):
        return

    def create_fma(self, x, y, z):
        assert z.data.dtype == np.float32
        return interpreter.TensorHandle(fused(x.data, y.data, z.data), z.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = create_fma


if INTERPRETED:
    teach_fma()


@pytest.fixture(autouse=True)
def launches(monkeypatch):
    """Let CPU tensors take the way of a GPU's where the kernels are interpreted; count the launches."""
    if INTERPRETED:
        monkeypatch.setitem(BACKENDS, "cpu", "gpu")
        monkeypatch.setattr(devices, "_current", lambda device: nullcontext())
    names, launch = [], gpu._launch

    def count(kernel, *arguments, **options):
        names.append(kernel.__name__.removesuffix("_kernel"))
        launch(kernel, *arguments, **options)

    monkeypatch.setattr(gpu, "_launch", count)
    return names


def sampler_of(distribution, dtype):
    return distribution.sampler(DTYPES[dtype], KEY)


def empty(shape, dtype, value=77):
    """Memory on the device whose bytes are known."""
    kind = getattr(torch, dtype)
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    return torch.full((count * kind.itemsize,), value, dtype=torch.uint8, device=DEVICE).view(kind).view(shape)


def bits_of(tensor):
    """A copy of the bits of a tensor, wherever it is, as an array of ints."""
    size = tensor.element_size()
    whole = tensor.detach().clone(memory_format=torch.contiguous_format).cpu()
    return whole.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}[size]).numpy()


def wanted(sampler, position, n):
    array = np.zeros(n, sampler.dtype.bits)
    fill(sampler, array, position)
    return array.view({1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[array.itemsize])


def check_fill(distribution, dtype, position, n):
    """Fill n elements within longer memory; those around them must stay as they were."""
    sampler = sampler_of(distribution, dtype)
    memory = empty(n + 8, dtype)
    before = bits_of(memory)
    out = memory[4 : 4 + n]
    if memory.element_size() < 4:
        out = out.view(INTEGERS[memory.element_size()])
    if n:
        gpu.fill(sampler, out, position, n)
    before[4 : 4 + n] = wanted(sampler, position, n)
    same_bits(bits_of(memory), before, f"{dtype} {distribution} at {position}, {n}")


@pytest.mark.parametrize(("distribution", "dtype"), CASES, ids=str)
def test_kernels(distribution, dtype):
    """A program with an incomplete tile and one without."""
    tile, position = (128, 2**33 + 28) if dtype == "float64" else (256, 2**34 + 156)
    check_fill(distribution, dtype, position, 2 * tile * gpu.TILES - position % tile)


POSITIONS = [0, 1, TILE - 1, 2**31 - 1, 2**32 - 1, 2**34, 2**36 - 1, 2**40 + 2**12 - 1, 2**63 - TILE]


@pytest.mark.parametrize(
    ("dtype", "position"),
    [*(("float32", p) for p in POSITIONS), *((d, p) for d in ("float64", "bfloat16") for p in POSITIONS[-2:])],
)
def test_positions(dtype, position):
    check_fill(DISTRIBUTIONS["normal"], dtype, position, TILE)


@pytest.mark.parametrize("n", [*range(9), TILE - 1, TILE, TILE + 1, PROGRAM - 1, PROGRAM, PROGRAM + 1])
def test_lengths(n):
    if n in (1, 8) or n >= TILE - 1:
        check_fill(DISTRIBUTIONS["uniform"], "float32", 2**32 - 3, n)
    for position in (0, 1, TILE - 1, PROGRAM - 3):
        check_fill(DISTRIBUTIONS["third"], "float32", position, n)


# ---- tensors


def check(tensor, table, launches, how, ids=None):
    """Fill by ``fill_``, in launches of the kernels `how`; elements between those of a strided tensor stay."""
    base = tensor if tensor._base is None else tensor._base  # its memory, in whatever dtype
    before = base.detach().clone()
    inside = before.view(tensor.dtype)
    version = tensor._version
    assert xt.fill_(tensor, table, ids) is tensor
    assert launches == how and tensor._version > version
    rows = ... if ids is None else ids.cpu().numpy()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    array = as_array(copy)
    table.read(rows, array)
    same_bits(bits_of(tensor), bits_of(copy), f"{table}")
    view = torch.as_strided(inside, tensor.shape, tensor.stride(), tensor.storage_offset())
    view.copy_(copy)
    same_bits(bits_of(base), bits_of(before), "the memory around it")


def table_of(*shape, dtype="float32", init="normal"):
    return xf.Table(shape, init, seed=3, name="t", dtype=dtype)


LAYOUTS = {
    "contiguous": lambda: (empty((30, 70), "float32"), table_of(30, 70), ["fill"]),
    "no axes": lambda: (empty((), "float32"), table_of(), ["fill"]),
    "one element": lambda: (empty((1, 1), "float32"), table_of(1, 1), ["fill"]),
    "empty": lambda: (empty((0, 4), "float32"), table_of(0, 4), []),
    "every other": lambda: (empty((9, 80), "float32")[::2, 3::2], table_of(5, 39), ["gather"]),
    "transposed": lambda: (empty((300, 5), "bfloat16").T, table_of(5, 300, dtype="bfloat16"), ["gather"]),
    "channels last": lambda: (empty((2, 3, 3, 4), "float16").permute(0, 3, 1, 2),
                              table_of(2, 4, 3, 3, dtype="float16"), ["gather"]),
    "five axes": lambda: (empty((3, 2, 2, 3, 2), "float8_e4m3fn").permute(4, 3, 2, 1, 0)[:, :, :1],
                          table_of(2, 3, 1, 2, 3, dtype="float8_e4m3fn", init="xavier_uniform"), ["gather"] * 2),
    "rows of a shard": lambda: (empty((3, 20), "float64"), table_of(10**9, 20, dtype="float64").shard(slice(77, 80)),
                                ["fill"]),
    "columns of a shard": lambda: (empty((6, 20), "float32"), table_of(10**9, 100).shard(np.s_[5000:5006, 70:90]),
                                   ["gather"]),
    "a block of a shard": lambda: (empty((3, 2, 5), "float8_e5m2"),
                                   table_of(9, 7, 300, dtype="float8_e5m2").shard(np.s_[2:5, 4:6, 250:255]),
                                   ["gather"]),
    "long runs": lambda: (empty((2, 700), "float32"), table_of(9, 1000).shard(np.s_[3:5, 250:950]), ["gather"]),
    "steps": lambda: (empty((3, 4), "float32"), table_of(900, 50).shard(np.s_[::300, ::-13]), ["gather"]),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, launches):
    check(*LAYOUTS[layout]()[:2], launches, LAYOUTS[layout]()[2])


@pytest.mark.parametrize("shape", [(10**9, 128), (10**7, 100), (2**40, 3), (2**50,), (10**6, 2, 300)])
def test_rows_by_ids(shape, launches):
    rows = shape[0]
    ids = torch.tensor([5, rows - 1, -1, -rows, 0, 2**31 % rows, 5], device=DEVICE)
    check(empty((7, *shape[1:]), "float32"), table_of(*shape), launches, ["gather"], ids)


def test_ids_of_other_kinds(launches):
    """Short ids, strided ones, into strided memory; none at all; an id that is no row writes nothing."""
    table = table_of(1000, 6, dtype="float16")
    ids = torch.tensor([[3, -4], [999, 8], [-1000, 8]], dtype=torch.int16, device=DEVICE)[:, 0]
    check(empty((3, 12), "float16")[:, ::2], table, launches, ["gather"], ids)
    check(empty((0, 6), "float16"), table, launches, ["gather"], ids[:0])
    tensor = empty((3, 6), "float16")
    xt.fill_(tensor, table, torch.tensor([1000, 7, -1001], device=DEVICE))
    assert (bits_of(tensor)[[0, 2]] == 77 * 257).all()
    same_bits(tensor[1].cpu().numpy(), table[7])


def test_memory_that_overlaps_is_refused(launches):
    with pytest.raises(ValueError, match="must not overlap itself"):
        xt.fill_(empty((1, 4), "float32").expand(3, 4), table_of(3, 4))
    assert not launches


@pytest.mark.parametrize("dtype", ["complex64", "float8_e4m3fnuz", "float64"])
def test_what_has_no_kernel(dtype, launches):
    """It is computed on the CPU."""
    table = table_of(3, 40, dtype=dtype, init="truncated_normal" if dtype == "float64" else "normal")
    tensor = torch.zeros(3, 40, dtype=getattr(torch, dtype), device=DEVICE)
    xt.fill_(tensor, table)
    assert not launches
    copy = torch.zeros(3, 40, dtype=tensor.dtype)
    table.read(..., as_array(copy))
    same_bits(bits_of(tensor), bits_of(copy))


# ---- all that fills tensors


def test_functions(launches):
    for name, arguments, table in (
        ("xavier_uniform_", (), xf.Table((4, 9), "xavier_uniform", layout="oi", seed=0, name="w")),
        ("kaiming_normal_", (), xf.Table((4, 9), "he_normal", layout="oi", seed=0, name="w", gain=2**0.5)),
        ("uniform_", (2, 3), xf.Table((4, 9), "uniform", low=2, high=3, seed=0, name="w")),
        ("trunc_normal_", (0.0, 1.0, -3.0, 3.0), xf.Table((4, 9), "truncated_normal", std=1.0, low=-3, high=3, seed=0,
                                                          name="w")),
    ):  # fmt: skip
        tensor = torch.nn.Parameter(empty((4, 9), "float32"))
        getattr(xt, name)(tensor, *arguments, seed=0, name="w")
        same_bits(tensor.detach().cpu().numpy(), np.asarray(table), name)
    assert launches == ["fill"] * 4


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(5, 8, padding_idx=1)
        self.conv = torch.nn.Conv1d(4, 6, 3, groups=2)
        self.head = torch.nn.Linear(8, 5)
        torch.nn.init.trunc_normal_(self.head.weight, std=0.02)


def on_cpu(build):
    """The state of a model that the CPU's kernels fill."""
    saved = BACKENDS.pop("cpu", None)
    try:
        return build("cpu")
    finally:
        if saved:
            BACKENDS["cpu"] = saved


def fast(device):
    with torch.device(device), xt.fast_init(seed=1):
        return Model(), torch.randn(3, 5), torch.rand(4, dtype=torch.float16), torch.empty(6).normal_(0.5, 0.1)


def by_name(device):
    model = Model().to(device)
    report = xt.init_(model, {"*.weight": "xavier_normal"}, seed=1)
    assert not report.left and "by its module" not in report.filled["head.bias"]
    return (model,)


def from_meta(device):
    with torch.device("meta"):
        model = Model()
    assert not xt.materialize_(model, seed=1, device=device).left
    assert {p.device.type for p in model.parameters()} == {device}
    return (model,)


def compiled(device):
    table = xf.Table((100, 4), "normal", seed=1)

    def body(x, y, ids):
        xt.normal_(x, std=0.02, seed=1, name="x")
        xt.fill_(y, table, ids)
        return x * 1

    x, y = torch.zeros(3, 5, device=device), torch.zeros(2, 4, device=device)
    ids = torch.tensor([7, -1], device=device)
    z = torch.compile(body, fullgraph=True, backend="eager" if INTERPRETED else "inductor")(x, y, ids)
    return x, y, z


@pytest.mark.parametrize("build", [fast, by_name, from_meta, compiled])
def test_the_model_of_the_cpu(build, launches):
    want = on_cpu(build)
    assert not launches
    got = build(DEVICE)
    assert launches
    for one, other in zip(got, want, strict=True):
        pairs = [[x] if isinstance(x, torch.Tensor) else x.state_dict().values() for x in (one, other)]
        for a, b in zip(*pairs, strict=True):
            assert a.device.type == DEVICE
            same_bits(bits_of(a), bits_of(b))


def test_shards_of_dtensors(launches):
    """Rank 1 of 4 by rows and by columns, rank (0, 1) of a mesh of 2 by 2; nothing is communicated."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    init_process_group("fake", store=FakeStore(), rank=1, world_size=4)
    try:
        whole = np.asarray(table_of(8, 12))
        for mesh, placements, part in (
            ((4,), [Shard(0)], np.s_[2:4]),
            ((4,), [Shard(1)], np.s_[:, 3:6]),
            ((2, 2), [Shard(0), Shard(1)], np.s_[0:4, 6:12]),
        ):
            local = empty(whole[part].shape, "float32")
            tensor = DTensor.from_local(local, init_device_mesh(DEVICE, mesh), placements, run_check=False)
            assert tensor.shape == (8, 12)
            xt.fill_(tensor, table_of(8, 12))
            same_bits(local.cpu().numpy(), whole[part])
    finally:
        destroy_process_group()
    assert launches == ["fill", "gather", "gather"]


def test_kernels_that_are_served():
    """Each kernel and format is one that a test above compares."""
    numbers = {sampler_of(distribution, "float32").kernel for distribution in DISTRIBUTIONS.values()}
    assert numbers == gpu._KERNELS
    assert numbers == {
        kernels.CONSTANT, kernels.UNIFORM, kernels.RANGE, kernels.NORMAL, kernels.TRUNCATED_2SIGMA,
        kernels.TRUNCATED_SYMMETRIC,
    }  # fmt: skip
