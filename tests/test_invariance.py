"""Tier 3: an element depends on (seed, name, distribution, dtype, index) and on nothing else."""

import itertools
import json
import os

import numpy as np
import pytest
from support import chosen_at_import, run, same_bits

import xavierfast as xf
from xavierfast import kernels
from xavierfast._core.distributions import Normal, Uniform
from xavierfast._core.dtypes import DTYPES as ALL
from xavierfast._core.dtypes import resolve_dtype
from xavierfast._core.fill import fill
from xavierfast._core.stream import derive_key

DTYPES = ("float32", "float64", "float16", "bfloat16")
CASES = {
    "uniform": {"bound": 0.5},
    "normal": {"std": 0.5},
    "truncated_normal": {"std": 0.5, "low": -2.0, "high": 2.0},
    "random_constant": {"bound": 0.5},
}


CANARY = 77  # the value of each byte that a draw must not write


def draw(name, shape, **keywords):
    return getattr(xf, name)(shape, seed=11, name="w", **CASES[name], **keywords)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads(use_level, ml_dtypes, name, dtype):
    shape = (1031, 1021)
    one = draw(name, shape, dtype=dtype, threads=1)
    for threads in (2, 3, 7, 64):
        same_bits(draw(name, shape, dtype=dtype, threads=threads), one, f"{threads} threads")


def test_environment_threads(monkeypatch):
    one = draw("normal", (1000, 1000), threads=1)
    monkeypatch.setenv("XAVIERFAST_THREADS", "5")
    assert (draw("normal", (1000, 1000)) == one).all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_longer_array_begins_alike(use_level, ml_dtypes, name, dtype):
    whole = draw(name, 3000, dtype=dtype)
    for n in (0, 1, 2, 127, 128, 129, 255, 256, 257, 1023, 2999):
        same_bits(draw(name, n, dtype=dtype), whole[:n])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_slices(use_level, ml_dtypes, kind, dtype):
    """A part filled from its position equals that part of the whole."""
    distribution = Uniform(1.0) if kind == "uniform" else Normal(0.0, 1.0)
    sampler = distribution.sampler(ALL[dtype], derive_key(11, "w"))
    whole = np.empty(5000, ALL[dtype].storage)
    fill(sampler, whole)
    for first, last in ((0, 1), (1, 2), (5, 300), (255, 257), (128, 640), (4999, 5000), (777, 777)):
        part = np.empty(last - first, whole.dtype)
        fill(sampler, part, first)
        same_bits(part, whole[first:last], f"from {first}")


def layouts(shape, dtype):
    """Arrays of one shape in all sorts of memory, and for each the memory to be left alone around it."""
    n = int(np.prod(shape))

    def of(size):
        return np.full(size, CANARY, np.uint8)

    size = dtype.itemsize
    yield "contiguous", of(n * size).view(dtype).reshape(shape)
    yield "fortran", of(n * size).view(dtype).reshape(shape[::-1]).T
    yield "misaligned", of(n * size + 1)[1:].view(dtype).reshape(shape)
    yield "every second", of(n * size * 2).view(dtype).reshape(*shape[:-1], -1)[..., ::2]
    yield "rows apart", of(n * size * 3).view(dtype).reshape(-1, *shape[1:])[: 3 * shape[0] : 3]
    yield "backwards", of(n * size).view(dtype).reshape(shape)[::-1, ..., ::-1]
    yield "one axis backwards", of(n * size).view(dtype).reshape(shape)[:, ::-1]
    yield (
        "within",
        of(int(np.prod([s + 2 for s in shape])) * size)
        .view(dtype)
        .reshape([s + 2 for s in shape])[tuple(slice(1, -1) for _ in shape)],
    )
    record = np.dtype([("pad", "u1"), ("value", dtype)])
    yield "in records", of(n * record.itemsize).view(record)["value"].reshape(shape)
    for axes in itertools.permutations(range(len(shape))):
        inverse = np.argsort(axes)
        yield f"axes {axes}", of(n * size).view(dtype).reshape([shape[a] for a in axes]).transpose(inverse)


@pytest.mark.parametrize("shape", [(6, 50), (4, 5, 40), (37, 2, 3, 5), (1, 700), (700, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(use_level, ml_dtypes, shape, dtype):
    want = draw("normal", shape, dtype=dtype)
    for name, out in layouts(shape, want.dtype):
        owner = out
        while owner.base is not None:
            owner = owner.base
        assert out.shape == shape
        assert draw("normal", None, dtype=dtype, out=out) is out
        same_bits(out, want, name)
        out[...] = np.full(out.itemsize, CANARY, np.uint8).view(out.dtype)[0]
        assert (owner == CANARY).all(), f"{name}: written outside of out"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_large_strided(threads):
    shape = (1500, 1100)
    want = draw("uniform", shape)
    for out in (
        np.empty(shape, "f4", order="F"),
        np.empty((1500, 1300), "f4")[:, 100:1200],
        np.empty((3000, 1100), "f4")[::-2],
    ):
        assert (draw("uniform", None, out=out, threads=threads) == want).all()


def test_memmap(tmp_path):
    path = tmp_path / "table.npy"
    table = np.lib.format.open_memmap(path, mode="w+", dtype="f4", shape=(1000, 300))
    draw("uniform", None, out=table[100:900, 10:290])
    table.flush()
    assert (np.load(path)[100:900, 10:290] == draw("uniform", (800, 280))).all()


def test_buffers():
    want = draw("uniform", (5, 7))
    memory = bytearray(5 * 7 * 4)
    filled = draw("uniform", (5, 7), out=memory)
    same_bits(filled, want)
    same_bits(np.frombuffer(memory, want.dtype).reshape(want.shape), want)
    view = memoryview(bytearray(140)).cast("f", (5, 7))
    same_bits(draw("uniform", None, out=view), want)
    same_bits(np.asarray(view), want)


def test_bfloat16_bits(ml_dtypes):
    out = np.zeros((40, 50), np.uint16)
    assert draw("normal", None, dtype="bfloat16", out=out) is out
    assert (out.view(ml_dtypes.bfloat16) == draw("normal", (40, 50), dtype=ml_dtypes.bfloat16)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["normal", "truncated_normal"])
def test_sixteen_bits_are_the_float32_values_rounded(ml_dtypes, name, dtype):
    single = draw(name, 10_000)
    assert (draw(name, 10_000, dtype=dtype) == single.astype(ALL[dtype].storage)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_uniforms_are_clamped_to_the_bound(ml_dtypes, dtype):
    bound = 0.3337  # between two numbers of either dtype, and nearer to the upper
    single = xf.uniform(200_000, bound=bound, seed=0)
    low = xf.uniform(200_000, bound=bound, seed=0, dtype=dtype)
    last = ALL[dtype].storage.type(0.3335 if dtype == "float16" else 0.332)
    assert float(last) <= bound < float(np.nextafter(last, last.dtype.type(1)))
    want = np.clip(single.astype(low.dtype).astype("f4"), -float(last), float(last))
    assert (low.astype("f4") == want).all()
    assert (abs(single.astype(low.dtype).astype("f4")) > bound).any(), "nothing was clamped"


def test_empty_and_scalar():
    assert draw("uniform", (0, 5)).shape == (0, 5)
    assert draw("uniform", ()).shape == ()
    assert draw("uniform", ()) == draw("uniform", 1)[0]
    assert xf.xavier_uniform((0, 5), seed=0).shape == (0, 5)
    assert xf.he_normal((5, 0), seed=0).shape == (5, 0)
    out = np.empty((3, 0, 2), order="F")
    assert draw("normal", None, out=out, dtype="float64") is out


def test_streams_differ():
    first = xf.uniform(1000, seed=1, name="a")
    for seed, name in ((2, "a"), (1, "b"), (1, ""), ([1], "a"), (1 << 64 | 1, "a")):
        assert (xf.uniform(1000, seed=seed, name=name) != first).mean() > 0.99


@pytest.mark.parametrize(
    "spelling", ["float32", "f4", np.float32, np.dtype("f4"), "<f4" if np.little_endian else ">f4"]
)
def test_dtype_spellings(spelling):
    assert resolve_dtype(spelling).name == "float32"
    assert draw("uniform", 3, dtype=spelling).dtype == np.float32


def test_python_float_is_float64():
    assert draw("uniform", 3, dtype=float).dtype == np.float64


def test_use_level_is_as_if_forced(use_level):
    """No module keeps a kernel or a constant of another level: all are as under XAVIERFAST_LEVEL."""
    name = use_level.__name__.rpartition(".")[2]
    code = f"""
        import json, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import xavierfast
        from support import chosen_at_import
        print(json.dumps(chosen_at_import()))
    """
    forced = json.loads(run(code, XAVIERFAST_LEVEL=name))
    assert forced["xavierfast.kernels"]["fill"] == f"{use_level.__name__}.fill"
    found = chosen_at_import()
    for module, chosen in forced.items():
        assert found[module] == chosen, module


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_streaming_stores(use_level, monkeypatch, ml_dtypes, name, dtype):
    """Memory larger than a cache gets the same bits past it, from those kernels that are faster than memory."""
    want = draw(name, 3000, dtype=dtype)
    asked = []

    def fill(*arguments):
        asked.append(arguments[7:] == (True,))
        use_level.fill(*arguments)

    monkeypatch.setattr(kernels, "fill", fill)
    for limit in ("STREAMING_MIN_BYTES", "PARALLEL_MIN_BYTES"):
        monkeypatch.setattr(f"xavierfast._core.fill.{limit}", 0)
    out = np.empty_like(want)
    draw(name, None, dtype=dtype, out=out)
    same_bits(out, want)
    fast = ("random_constant",) if kernels.level == "portable" else ("random_constant", "uniform")
    assert asked[-1] is (name in fast)


@pytest.mark.parametrize("shape", [(3, 500, 400), (2, 3, 500, 400)])
def test_large_rows_in_fortran_order(shape):
    """An index of the first axis alone is more than a cache holds."""
    out = np.empty(shape, np.float32, order="F")
    assert (draw("uniform", None, out=out) == draw("uniform", shape)).all()
    table = xf.Table((4, *shape), "uniform", seed=11)
    assert (table.read((2, slice(None, None, -1)), out) == np.asarray(table)[2, ::-1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "complex64", "float8_e4m3fn"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("size", [3, 700])
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_only_the_memory_of_an_array_counts(dtype, order, size, ml_dtypes):
    """Masked elements, which a hard mask keeps from assignments, are filled too; a matrix stays a matrix."""
    shape = (size, size + 1)
    expected = xf.uniform(shape, seed=0, dtype=dtype)
    masked = np.ma.masked_array(np.zeros_like(expected, order=order), mask=np.eye(*shape, dtype=bool), hard_mask=True)
    assert xf.uniform(out=masked, seed=0, dtype=dtype) is masked
    same_bits(masked.data, expected)
    matrix = np.matrix(np.zeros_like(expected))
    assert xf.uniform(out=matrix, seed=0, dtype=dtype) is matrix
    same_bits(np.asarray(matrix), expected)
    rows = np.ma.masked_array(np.zeros_like(expected[:2]), mask=True, hard_mask=True)
    xf.Table(shape, "uniform", seed=0, dtype=dtype).read([1, 0], rows)
    same_bits(rows.data, expected[[1, 0]])
    table, ids = xf.Table(shape, "uniform", seed=0, dtype=dtype), np.array([[0, 1, 2], [2, 1, 0]])
    out = np.ma.masked_array(np.zeros((3, 2), expected.dtype).T, mask=True, hard_mask=True)
    assert table.read((ids, ids[::-1]), out) is out  # in memory in which the gathered axes have no single stride
    same_bits(out.data, expected[ids, ids[::-1]])


@pytest.mark.parametrize("dtype", ["float32", "float8_e4m3fn"])
def test_forty_axes_in_any_order(dtype, ml_dtypes):
    shape = (1,) * 30 + (2,) * 10
    kind = xf.Table(1, "uniform", dtype=dtype).dtype
    out = np.zeros(shape, kind).transpose(range(39, -1, -1))
    xf.uniform(out=out, seed=0, dtype=dtype)
    same_bits(np.ascontiguousarray(out), xf.uniform(out.shape, seed=0, dtype=dtype))
