"""Verify finds the rows that differ from their recipe, all of them and no others."""

import os
import re

import numpy as np
import pytest
from file_support import BLOCK_BYTES, FORMATS, MIXED, Stop, flip, middle, small, stop_after, unfinished

from xavierfast import Table, files
from xavierfast.files import FormatError, create, load, measure, tables_of, verify

# ---- differences


def differing_rows(path, table):
    """By NumPy, of a .npy file."""
    got = np.load(path).view(np.uint8).reshape(len(table), -1)
    return (got != table.read().view(np.uint8).reshape(len(table), -1)).any(axis=1)


def as_ranges(differ):
    edges = np.flatnonzero(np.diff(np.r_[False, differ, False]))
    return tuple(map(tuple, edges.reshape(-1, 2).tolist()))


@pytest.mark.parametrize("bit", [0, 7, 8 * 1_280_000 + 3, 8 * 2_560_000 - 1])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("ending", FORMATS)
def test_one_flipped_bit(tmp_path, ending, bit, threads):
    path, table = tmp_path / f"t{ending}", middle()
    create(path, table)
    flip(path, 8 * (path.stat().st_size - table.nbytes) + bit)
    found = verify(path, threads=threads)
    row = bit // 8 // 256
    assert not found.ok
    assert found.extra == 0
    assert found.tensors == (files.TensorCheck("items", 10_000, 1, ((row, row + 1),)),)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("density", [0.0001, 0.01, 0.5, 0.999])
def test_rows_are_those_that_numpy_finds(tmp_path, density, threads):
    table = Table((150_000, 9), seed=1, name="w")
    path = tmp_path / "t.npy"
    create(path, table)
    rng = np.random.default_rng(int(1000 * density) + threads)
    rows = np.flatnonzero(rng.random(len(table)) < density)
    trained = np.load(path, mmap_mode="r+")
    trained[rows, rng.integers(9, size=rows.size)] += 1
    trained.flush()
    differ = differing_rows(path, table)
    assert np.array_equal(np.flatnonzero(differ), rows)
    found = verify(path, threads=threads, report=tmp_path / "rows.npy")
    (check,) = found.tensors
    assert (check.rows, check.differ, check.ranges) == (150_000, rows.size, as_ranges(differ)[:1000])
    report = np.load(tmp_path / "rows.npy")
    assert report.dtype == bool
    assert np.array_equal(report, differ)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("first", [0, 1])
def test_alternating_rows(tmp_path, first, threads):
    table = Table((100_000, 8), seed=1, name="w")
    create(tmp_path / "t.npy", table)
    trained = np.load(tmp_path / "t.npy", mmap_mode="r+")
    trained[first::2] += 1
    trained.flush()
    (check,) = verify(tmp_path / "t.npy", threads=threads).tensors
    assert check.differ == 50_000
    assert check.ranges == tuple((row, row + 1) for row in range(first, first + 2000, 2))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("width", [131_072, 131_073, 200_000, 600_000])
def test_rows_larger_than_a_block(tmp_path, width, threads):
    table = Table((7, width), seed=1, name="w")
    create(tmp_path / "t.npy", table, threads=threads)
    trained = np.load(tmp_path / "t.npy", mmap_mode="r+")
    trained[1] += 1
    trained[2, -1] += 1
    trained[5, [0, width // 2, -1]] += 1
    trained.flush()
    (check,) = verify(tmp_path / "t.npy", threads=threads, report=tmp_path / "r.npy").tensors
    assert (check.rows, check.differ, check.ranges) == (7, 3, ((1, 3), (5, 6)))
    assert np.load(tmp_path / "r.npy").tolist() == [False, True, True, False, False, True, False]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("left", [0, 1, 255, 256, 257, 2_000_000, 2_559_999])
def test_truncated_data(tmp_path, ending, left):
    path, table = tmp_path / f"t{ending}", middle()
    create(path, table)
    os.truncate(path, path.stat().st_size - table.nbytes + left)
    (check,) = verify(path).tensors
    assert check.differ == 10_000 - left // 256
    assert check.ranges == ((left // 256, 10_000),)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("left", [0, 1, 255, 256, 257, 2_000_000, 2_559_999])
def test_a_report_of_truncated_data(tmp_path, ending, left):
    """The rows that are missing differ, so that nobody takes them for untouched."""
    path, table = tmp_path / f"t{ending}", middle()
    create(path, table)
    os.truncate(path, path.stat().st_size - table.nbytes + left)
    if left > 1000:
        flip(path, 8 * (path.stat().st_size - left + 300))
    (check,) = verify(path, report=tmp_path / "r.npy").tensors
    report = np.load(tmp_path / "r.npy")
    assert np.flatnonzero(~report).tolist() == [row for row in range(left // 256) if left < 1000 or row != 1]
    assert check.differ == report.sum()


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_truncated_header(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    create(path, small())
    header = path.stat().st_size - small().nbytes
    for length in (header - 1, header - 2, header // 2, 11, 9, 8, 7, 1, 0):
        os.truncate(path, length)
        for call in (verify, measure):
            with pytest.raises(FormatError) as caught:
                call(path)
            assert path.name in "".join(caught.value.__notes__)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("extra", [1, 1000])
def test_extra_bytes(tmp_path, ending, extra):
    path = tmp_path / f"t{ending}"
    create(path, small())
    with path.open("ab") as file:
        file.write(bytes(extra))
    found = verify(path)
    assert (found.ok, found.extra, found.tensors[0].differ) == (False, extra, 0)


# ---- options and recipes


def test_report_refusals_leave_nothing(tmp_path):
    path, report = tmp_path / "t.npy", tmp_path / "r.npy"
    create(path, middle())
    before = set(os.listdir(tmp_path))
    with pytest.raises(Stop):
        verify(path, report=report, progress=stop_after(2))
    with pytest.raises(ValueError, match=r"\.npy"):
        verify(path, report=tmp_path / "r.bin")
    with pytest.raises(FileNotFoundError):
        verify(path, report=tmp_path / "none" / "r.npy")
    create(tmp_path / "m.safetensors", MIXED)
    with pytest.raises(ValueError, match="tensor="):
        verify(tmp_path / "m.safetensors", report=report)
    assert set(os.listdir(tmp_path)) == before | {"m.safetensors"}
    report.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        verify(path, report=report)
    assert report.read_bytes() == b"precious"
    report.unlink()
    verify(tmp_path / "m.safetensors", tensor="f", report=report)
    assert np.load(report).tolist() == [False, False]


def test_sample(tmp_path):
    path = tmp_path / "t.npy"
    create(path, middle())
    assert verify(path, sample=2).nbytes in (2 * BLOCK_BYTES, BLOCK_BYTES + middle().nbytes % BLOCK_BYTES)
    assert verify(path, sample=10**9).nbytes == middle().nbytes
    (np.load(path, mmap_mode="r+"))[...] += 1
    found = verify(path, sample=2)
    assert found.tensors[0].differ == found.nbytes // 256
    for sample, error in [(0, ValueError), (0.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="sample"):
            verify(path, sample=sample)


def test_tensor(tmp_path):
    path = tmp_path / "m.safetensors"
    create(path, MIXED)
    flip(path, 8 * path.stat().st_size - 1)
    last = verify(path).tensors
    (name,) = [check.name for check in last if check.differ]
    assert name == "e" or MIXED[name].itemsize == 2
    assert not verify(path, tensor=name).ok
    found = verify(path, tensor="f")
    assert (found.ok, found.nbytes, [check.name for check in found.tensors]) == (True, 2_400_000, ["f"])
    with pytest.raises(ValueError, match="'none'"):
        verify(path, tensor="none")
    with pytest.raises(ValueError, match="'none'"):
        measure(path, tensor="none")


@pytest.mark.parametrize("ending", FORMATS)
def test_trained_files_without_a_recipe(tmp_path, safetensors, ending):
    table = small()
    trained = table.read()
    trained[[3, 10, 11]] += 1
    path, origin = tmp_path / f"trained{ending}", tmp_path / f"origin{ending}"
    if ending == ".safetensors":
        safetensors.numpy.save_file({"items": trained}, path)
    elif ending == ".npy":
        np.save(path, trained)
    else:
        trained.tofile(path)
    with pytest.raises(FileNotFoundError, match="recipe"):
        verify(path)
    create(origin, table)
    recipes = [table, {"items": table}, origin, str(origin)]
    if ending != ".safetensors":
        recipes.append(f"{origin}.recipe.json")
    for recipe in recipes:
        assert verify(path, recipe).tensors == (files.TensorCheck("items", 1000, 3, ((3, 4), (10, 12))),)


@pytest.mark.parametrize("before, after", [(b" ", b""), (b"\r \t\n", b"\n "), (b"", b"  ")])
def test_white_space_around_a_safetensors_header(tmp_path, safetensors, before, after):
    path, data = tmp_path / "t.safetensors", small().read().tobytes()
    text = b'{"items":{"dtype":"F32","shape":[1000,64],"data_offsets":[0,%d]}}' % len(data)
    header = before + text + after
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    assert verify(path, small()).ok
    assert files.measure(path)[0].shape == (1000, 64)
    assert safetensors.numpy.load_file(path)["items"].tobytes() == data
    for other in (b"\0", b"\v", b"\xef\xbb\xbf", b"\xc2\xa0"):  # which JSON does not count as white space
        header = other + text
        path.write_bytes(len(header).to_bytes(8, "little") + header + data)
        with pytest.raises(files.FormatError, match="not JSON"):
            verify(path, small())


def test_a_recipe_for_the_wrong_array(tmp_path):
    path = tmp_path / "t.npy"
    for array, problem in [
        (np.zeros((1000, 63), np.float32), r"its shape is \(1000, 63\)"),
        (np.zeros((1000, 64), np.float64), "its dtype is float64, and its recipe says float32"),
        (np.zeros((1000, 64), np.int32), "its dtype is int32"),
        (np.zeros((1000, 64), ">f4"), "its dtype is >f4"),
    ]:
        np.save(path, array)
        found = verify(path, small())
        assert (found.ok, found.nbytes) == (False, 0)
        assert re.search(problem, found.tensors[0].problem)
    for array in (np.zeros((1000, 64), np.float32, order="F"), np.zeros(3, "f4,i4"), np.zeros(3, "V0")):
        np.save(path, array)
        with pytest.raises(FormatError):
            verify(path, small())
    create(path, small(), force=True)
    with pytest.raises(ValueError, match="recipes of 2"):
        verify(path, {"a": small(), "b": small()})


def test_tensors_without_recipe_and_recipes_without_tensor(tmp_path):
    path = tmp_path / "t.safetensors"
    create(path, {"a": small(), "b": small(8)})
    found = verify(path, {"b": small(8), "c": small(9)})
    problems = {check.name: check.problem for check in found.tensors}
    assert problems == {"a": "it has no recipe", "b": "", "c": "it is missing"}
    assert not found.ok


def test_nothing_to_verify(tmp_path):
    path = tmp_path / "t.npy"
    with pytest.raises(FileNotFoundError):
        verify(path)
    unfinished(path, middle())
    for call in (verify, measure, tables_of, load):
        with pytest.raises(FileNotFoundError, match="unfinished"):
            call(path)
    path.mkdir()
    with pytest.raises(OSError, match="is a folder, not a regular file"):
        verify(path)
