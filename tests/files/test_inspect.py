"""The statistics that inspect measures are those of NumPy."""

import math

import numpy as np
import pytest
from file_support import BLOCK, FORMATS, MIXED

from xavierfast import Table
from xavierfast.files import create, inspect


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
def test_figures(tmp_path, ml_dtypes, dtype, init, ending, threads):
    table = Table((9_001, 100), init, seed=7, name="w", dtype=dtype)
    create(tmp_path / f"t{ending}", table)
    calls = []
    (figures,) = inspect(tmp_path / f"t{ending}", threads=threads, progress=lambda *pair: calls.append(pair))
    array = table.read()
    numbers = array.view(array.real.dtype) if dtype.startswith("complex") else array
    numbers = numbers.astype(float)
    assert (figures.name, figures.shape, figures.dtype, figures.nbytes) == ("w", (9001, 100), dtype, table.nbytes)
    assert figures.table == table
    assert figures.count == numbers.size
    assert (figures.low, figures.high) == (numbers.min(), numbers.max())
    # Both sum doubles, in another order: of a million terms the rounding is below 1e-12 of the largest.
    assert figures.mean == pytest.approx(numbers.mean(), abs=1e-12 * numbers.std())
    assert figures.std == pytest.approx(numbers.std(), rel=1e-12)
    assert figures.edges == ((-table.bound, table.bound) if table.bound else (-4 * table.std, 4 * table.std))
    assert len(figures.histogram) == 32
    within = np.count_nonzero(abs(numbers) <= figures.edges[1])
    assert sum(figures.histogram) == within
    want, _ = np.histogram(numbers, 32, figures.edges)
    # A number at the edge of a bin may fall to either side where the bins are found in the file's own precision.
    moved = abs(np.subtract(figures.histogram, want)).sum()
    assert moved <= (2 if dtype in ("float32", "complex64") else 0.02 * within)
    assert calls[-1] == (table.nbytes, table.nbytes)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u8", "?", "f2", "f4", "f8", ">f4", ">i2", "c8", "c16", "g"])
def test_figures_without_a_recipe(tmp_path, dtype):
    rng = np.random.default_rng(1)
    array = (100 * rng.random((500, 30))).astype(dtype)
    np.save(tmp_path / "t.npy", array)
    (figures,) = inspect(tmp_path / "t.npy", bins=7)
    numbers = array.view(array.real.dtype).astype(float) if array.dtype.kind == "c" else array.astype(float)
    assert (figures.shape, figures.count, figures.table) == ((500, 30), numbers.size, None)
    assert (figures.low, figures.high) == (numbers.min(), numbers.max())
    assert figures.mean == pytest.approx(numbers.mean(), rel=1e-12)
    assert figures.std == pytest.approx(numbers.std(), rel=1e-9, abs=1e-12)
    assert sum(figures.histogram) == numbers.size
    assert len(figures.histogram) == 7


@pytest.mark.parametrize("dtype", ["U5", "S3", "M8[s]", "V4"])
def test_no_figures_of_what_is_no_number(tmp_path, dtype):
    np.save(tmp_path / "t.npy", np.zeros((4, 5), dtype))
    (figures,) = inspect(tmp_path / "t.npy")
    assert (figures.shape, figures.count, figures.nbytes) == ((4, 5), 0, 20 * np.dtype(dtype).itemsize)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", [0, 300_000, -1])
@pytest.mark.parametrize("recipe", [False, True])
def test_figures_with_nan(tmp_path, recipe, place, threads):
    """The extremes may show a NaN or leave it out, but not what is beside it."""
    table = Table((10_000, 100), seed=7)
    create(tmp_path / "t.npy", table)
    trained = np.load(tmp_path / "t.npy", mmap_mode="r+").reshape(-1)
    trained[[place, place - 1, place - 2]] = np.nan, 9, -9
    trained.flush()
    if not recipe:
        (tmp_path / "t.npy.recipe.json").unlink()
    (figures,) = inspect(tmp_path / "t.npy", threads=threads)
    assert figures.count == table.size
    assert math.isnan(figures.mean)
    assert math.isnan(figures.std)
    assert math.isnan(figures.low) or figures.low == -9
    assert math.isnan(figures.high) or figures.high == 9
    assert sum(figures.histogram) == table.size - (3 if recipe or math.isnan(figures.low) else 1)


def test_figures_of_nan_alone(tmp_path):
    np.save(tmp_path / "t.npy", np.full((5, 5), np.nan))
    (figures,) = inspect(tmp_path / "t.npy")
    assert not math.isinf(figures.low)
    assert not math.isinf(figures.high)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_figures_with_infinities_warn_of_nothing(tmp_path, value):
    array = np.ones((100, 10))
    array[3, 3] = value
    np.save(tmp_path / "t.npy", array)
    (figures,) = inspect(tmp_path / "t.npy")
    assert (figures.low, figures.high) == (array.min(), array.max())


def test_inspect_a_sample_and_a_tensor(tmp_path):
    create(tmp_path / "m.safetensors", MIXED)
    found = inspect(tmp_path / "m.safetensors")
    assert {figures.name: figures.table for figures in found} == MIXED
    assert {figures.name: figures.count for figures in found if figures.name in "bce"} == {"b": 1, "c": 0, "e": 0}
    (figures,) = inspect(tmp_path / "m.safetensors", tensor="f", sample=2)
    assert figures.count in (2 * BLOCK // 4, BLOCK // 4 + 600_000 % (BLOCK // 4))
    for bins, error in [(0, ValueError), (2.0, TypeError)]:
        with pytest.raises(error, match="bins"):
            inspect(tmp_path / "m.safetensors", bins=bins)
