"""The statistics that measure measures are those of NumPy."""

import math

import numpy as np
import pytest
from file_support import BLOCK_BYTES, FORMATS, MIXED

from xavierfast import Table
from xavierfast.files import create, measure


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "dtype, init",
    [
        *[(dtype, "xavier_uniform") for dtype in ["float32", "float64", "float16", "bfloat16", "complex64"]],
        ("float32", "normal"),
        ("float8_e4m3fn", "normal"),
    ],
)
def test_stats(tmp_path, ml_dtypes, dtype, init, ending, threads):
    table = Table((9_001, 100), init, seed=7, name="w", dtype=dtype)
    create(tmp_path / f"t{ending}", table)
    calls = []
    (stats,) = measure(tmp_path / f"t{ending}", threads=threads, progress=lambda *pair: calls.append(pair))
    array = table.read()
    numbers = array.view(array.real.dtype) if dtype.startswith("complex") else array
    numbers = numbers.astype(float)
    assert (stats.name, stats.shape, stats.dtype, stats.nbytes) == ("w", (9001, 100), dtype, table.nbytes)
    assert stats.table == table
    assert stats.count == numbers.size
    assert (stats.low, stats.high) == (numbers.min(), numbers.max())
    # Both sum doubles, in another order: of a million terms the rounding is below 1e-12 of the largest.
    assert stats.mean == pytest.approx(numbers.mean(), abs=1e-12 * numbers.std())
    assert stats.std == pytest.approx(numbers.std(), rel=1e-12)
    assert stats.edges == ((-table.bound, table.bound) if table.bound else (-4 * table.std, 4 * table.std))
    assert len(stats.histogram) == 32
    within = np.count_nonzero(abs(numbers) <= stats.edges[1])
    assert sum(stats.histogram) == within
    want, _ = np.histogram(numbers, 32, stats.edges)
    # A number at the edge of a bin may fall to either side where the bins are found in the file's own precision.
    moved = abs(np.subtract(stats.histogram, want)).sum()
    assert moved <= (2 if dtype in ("float32", "complex64") else 0.02 * within)
    assert calls[-1] == (table.nbytes, table.nbytes)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u8", "?", "f2", "f4", "f8", ">f4", ">i2", "c8", "c16", "g"])
def test_stats_without_a_recipe(tmp_path, dtype):
    rng = np.random.default_rng(1)
    array = (100 * rng.random((500, 30))).astype(dtype)
    np.save(tmp_path / "t.npy", array)
    (stats,) = measure(tmp_path / "t.npy", bins=7)
    numbers = array.view(array.real.dtype).astype(float) if array.dtype.kind == "c" else array.astype(float)
    assert (stats.shape, stats.count, stats.table) == ((500, 30), numbers.size, None)
    assert (stats.low, stats.high) == (numbers.min(), numbers.max())
    assert stats.mean == pytest.approx(numbers.mean(), rel=1e-12)
    assert stats.std == pytest.approx(numbers.std(), rel=1e-9, abs=1e-12)
    assert sum(stats.histogram) == numbers.size
    assert len(stats.histogram) == 7


@pytest.mark.parametrize("dtype", ["U5", "S3", "M8[s]", "V4"])
def test_no_stats_of_what_is_no_number(tmp_path, dtype):
    np.save(tmp_path / "t.npy", np.zeros((4, 5), dtype))
    (stats,) = measure(tmp_path / "t.npy")
    assert (stats.shape, stats.count, stats.nbytes) == ((4, 5), 0, 20 * np.dtype(dtype).itemsize)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", [0, 300_000, -1])
@pytest.mark.parametrize("recipe", [False, True])
def test_stats_with_nan(tmp_path, recipe, place, threads):
    """The extremes may show a NaN or leave it out, but not what is beside it."""
    table = Table((10_000, 100), seed=7)
    create(tmp_path / "t.npy", table)
    trained = np.load(tmp_path / "t.npy", mmap_mode="r+").reshape(-1)
    trained[[place, place - 1, place - 2]] = np.nan, 9, -9
    trained.flush()
    if not recipe:
        (tmp_path / "t.npy.recipe.json").unlink()
    (stats,) = measure(tmp_path / "t.npy", threads=threads)
    assert stats.count == table.size
    assert math.isnan(stats.mean)
    assert math.isnan(stats.std)
    assert math.isnan(stats.low) or stats.low == -9
    assert math.isnan(stats.high) or stats.high == 9
    assert sum(stats.histogram) == table.size - (3 if recipe or math.isnan(stats.low) else 1)


def test_stats_of_nan_alone(tmp_path):
    np.save(tmp_path / "t.npy", np.full((5, 5), np.nan))
    (stats,) = measure(tmp_path / "t.npy")
    assert not math.isinf(stats.low)
    assert not math.isinf(stats.high)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_stats_with_infinities_warn_of_nothing(tmp_path, value):
    array = np.ones((100, 10))
    array[3, 3] = value
    np.save(tmp_path / "t.npy", array)
    (stats,) = measure(tmp_path / "t.npy")
    assert (stats.low, stats.high) == (array.min(), array.max())


def test_measure_a_sample_and_a_tensor(tmp_path):
    create(tmp_path / "m.safetensors", MIXED)
    found = measure(tmp_path / "m.safetensors")
    assert {stats.name: stats.table for stats in found} == MIXED
    assert {stats.name: stats.count for stats in found if stats.name in "bce"} == {"b": 1, "c": 0, "e": 0}
    (stats,) = measure(tmp_path / "m.safetensors", tensor="f", sample=2)
    assert stats.count in (2 * BLOCK_BYTES // 4, BLOCK_BYTES // 4 + 600_000 % (BLOCK_BYTES // 4))
    for bins, error in [(0, ValueError), (2.0, TypeError)]:
        with pytest.raises(error, match="bins"):
            measure(tmp_path / "m.safetensors", bins=bins)
