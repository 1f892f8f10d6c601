"""Tables in programs that know nothing of them: DLPack, Arrow, and the page about data engines."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from support import need, same_bits

import xavierfast as xf

PAGE = Path(__file__).parent.parent / "docs/engines.md"
ENGINES = ("pyarrow", "ray", "pyspark")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if PAGE.exists() else [""] * len(ENGINES)


@pytest.mark.parametrize("block", BLOCKS, ids=ENGINES)
@pytest.mark.filterwarnings("ignore")  # of the engines' own
@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")
def test_the_page_of_engines(block, tmp_path, monkeypatch):
    for engine in ENGINES:
        if f"import {engine}" in block or f"from {engine}" in block:
            need(engine) if engine == "pyarrow" else pytest.importorskip(engine)  # the others have hundreds of MB
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)  # for Spark's workers
    exec(compile(block, "engines.md", "exec"), {})


def test_the_page_has_a_block_for_each_engine():
    assert len(BLOCKS) == len(ENGINES)


# ---- DLPack


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (70, 3), (5, 6, 7)])
def test_dlpack_gives_the_array(shape, dtype):
    table = xf.Table(shape, "normal", seed=1, dtype=dtype)
    same_bits(np.from_dlpack(table), table.read())
    shard = xf.Table((9, *shape), "normal", seed=1, dtype=dtype).shard(slice(7, 2, -2))
    same_bits(np.from_dlpack(shard), shard.read())


def test_torch_takes_a_table_as_an_array(monkeypatch):
    torch = need("torch")
    table = xf.Table((50, 3), seed=1)
    monkeypatch.delattr(xf.Table, "__len__")  # and not as a sequence of rows
    monkeypatch.delattr(xf.Table, "__getitem__")
    for make in (torch.as_tensor, torch.asarray, torch.tensor, torch.from_dlpack):
        same_bits(make(table).numpy(), table.read())


def test_what_dlpack_cannot_export(ml_dtypes):
    for dtype, bits in (("bfloat16", 2), ("float8_e4m3fn", 1)):
        with pytest.raises(BufferError, match=rf'no {dtype} by DLPack.*view\("u{bits}"\)'):
            np.from_dlpack(xf.Table((5, 3), seed=1, dtype=dtype))
    with pytest.raises(BufferError, match="do not ask for copy=False"):
        xf.Table((5, 3), seed=1).__dlpack__(copy=False)  # as np.from_dlpack(copy=False) asks, from NumPy 2.1 on


# ---- Arrow


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(0,), (7,), (0, 3), (70, 3), (5, 6, 7)])
def test_arrow_gives_lists_of_a_fixed_size(shape, dtype):
    pa = need("pyarrow")
    table = xf.Table(shape, "normal", seed=1, dtype=dtype)
    rows = pa.array(table)
    assert len(rows) == len(table)
    for size in shape[1:]:
        assert rows.type.list_size == size
        rows = rows.flatten()
    same_bits(rows.to_numpy(), table.read().reshape(-1))


def test_arrow_casts_and_refuses():
    pa = need("pyarrow")
    assert pa.array(xf.Table((7, 3), seed=1), pa.list_(pa.float64())).type == pa.list_(pa.float64())
    for table, error, message in (
        (xf.Table((), "normal", seed=1), TypeError, "at least one axis"),
        (xf.Table((7, 3), seed=1, dtype="complex64"), TypeError, "Arrow has no complex64"),
        (xf.Table((7, 3), seed=1, dtype="bfloat16"), TypeError, "Arrow has no bfloat16"),
        (xf.Table((7, 0), seed=1), ValueError, r"must not be empty, got the shape \(7, 0\)"),
    ):
        with pytest.raises(error, match=message):
            pa.array(table)


# ---- blocks


@pytest.mark.parametrize("shape", [(0,), (7,), (0, 3), (3, 0), (70, 3), (5, 6, 7)])
@pytest.mark.parametrize("rows", [None, 1, 4, 70, 1000])
def test_blocks_are_the_rows_in_order(shape, rows):
    table = xf.Table(shape, "normal", seed=1)
    blocks = list(table.blocks(rows))
    assert [first for first, _ in blocks] == list(range(0, shape[0], rows or 10**6))
    assert all(len(block) == min(rows or 10**6, shape[0] - first) for first, block in blocks)
    same_bits(np.concatenate([np.empty((0, *shape[1:]), np.float32), *(block for _, block in blocks)]), table.read())


def test_blocks_have_a_size_and_are_not_computed_before():
    table = xf.Table((10**10, 128), seed=1)
    first, block = next(iter(table.blocks()))
    assert first == 0 and block.nbytes == 1 << 24
    assert next(iter(xf.Table((10, 1 << 23), seed=1).blocks()))[1].shape == (1, 1 << 23)
    for call, error, message in (
        (lambda: table.blocks(0), ValueError, "rows must be"),
        (lambda: table.blocks(1.5), TypeError, "rows must be"),
        (lambda: table.blocks(threads=0), ValueError, "threads must be"),
        (lambda: xf.Table((), "normal", seed=1).blocks(), TypeError, "has no rows"),
    ):
        with pytest.raises(error, match=message):
            call()
