"""Tables on disk: whatever happens to a creation, resuming gives the bytes of an undisturbed one, and nothing else."""

import builtins
import errno
import io
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
from support import missing, run, same_bits

from xavierfast import Table

pytest.importorskip("fcntl", reason="xavierfast.files needs a POSIX system")
from xavierfast import files, pieces
from xavierfast.files import FormatError, create, estimate, inspect, load, resume, tables_of, verify

BLOCK = 1 << 19
FORMATS = [".npy", ".bin", ".safetensors"]
MIXED = {
    "a.half": Table((33, 7), "normal", std=0.1, seed=3, name="a.half", dtype="float16"),
    "b": Table((), "normal", std=0.1, seed=3, name="b", dtype="float64"),
    "c": Table((0, 5), "normal", std=0.1, seed=3, name="c"),
    "d": Table((300, 10), seed=3, name="d", dtype="complex64"),
    "e": Table((5, 0), "normal", std=0.1, seed=3, name="e", dtype="float16"),
    "f": Table((2, 300_000), seed=3, name="f"),
    "g": Table((200, 9), seed=3, name="g").shard((slice(3, 90, 2), slice(None, None, -1))),
    **{f"h.{k}": Table((k + 1, 3), seed=3, name=f"h.{k}") for k in range(40)},
}
SHARDED = {f"w{k}": Table((200 + 50 * k, 64), seed=5, name=f"w{k}") for k in range(4)}
SHARD = 160_000


def small(seed=7, **options):
    return Table((1000, 64), seed=seed, name="items", **options)


def middle(seed=7):
    """Of several blocks, and large enough for threads."""
    return Table((10_000, 64), seed=seed, name="items")


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def undisturbed(folder, name, tables, **options):
    """All files of a creation that nothing disturbs."""
    folder.mkdir()
    create(folder / name, tables, **options)
    return contents(folder)


def raw(table):
    return np.ascontiguousarray(table.read()).tobytes()


def npy(table):
    file = io.BytesIO()
    np.save(file, table.read())
    return file.getvalue()


def whole(path, table):
    """Whether a .npy file is there and right."""
    return path.read_bytes() == npy(table)


def flip(path, *bits):
    with builtins.open(path, "r+b") as file:
        for bit in bits:
            file.seek(bit // 8)
            (byte,) = file.read(1)
            file.seek(bit // 8)
            file.write(bytes([byte ^ 1 << bit % 8]))


class Stop(Exception):
    """Raised by a test in the place of a crash."""


def stop_after(calls):
    """A progress callback that raises."""
    count = itertools.count()

    def progress(done, total):
        if next(count) >= calls:
            raise Stop

    return progress


def unfinished(path, tables, calls=5, **options):
    with pytest.raises(Stop):
        create(path, tables, threads=1, progress=stop_after(calls), **options)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that small tables have several."""
    monkeypatch.setattr(pieces, "BLOCK", BLOCK)


@pytest.fixture
def safetensors():
    try:
        import safetensors.numpy
    except ImportError:
        missing("safetensors is not installed")
    return safetensors


# ---- create


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "shape, dtype",
    [
        *[((300, 7), dtype) for dtype in ["float64", "float16", "bfloat16", "float8_e4m3fn", "complex64"]],
        *[(shape, "float32") for shape in [(), (1,), (12_345,), (0, 5), (5, 0), (1, 400_000), (3, 200_000), (9, 8, 7)]],
        ((10_001, 65), "float32"),
        ((1_000_003, 3), "float8_e4m3fn"),
    ],
)
def test_create(tmp_path, monkeypatch, ml_dtypes, safetensors, shape, dtype, ending, threads):
    monkeypatch.setattr(pieces, "PARALLEL", 0)
    table = Table(shape, "normal", std=0.1, seed=7, name="w", dtype=dtype)
    path = tmp_path / f"t{ending}"
    assert create(path, table, threads=threads) == table.nbytes
    data = path.read_bytes()
    if ending == ".safetensors":
        ((name, tensor),) = safetensors.deserialize(data)
        assert (name, tuple(tensor["shape"]), bytes(tensor["data"])) == ("w", shape, raw(table))
        assert os.listdir(tmp_path) == ["t.safetensors"]
        assert data.index(raw(table)) % 64 == 0 if table.size else True
    else:
        assert data == (npy(table) if ending == ".npy" else raw(table))
        assert sorted(os.listdir(tmp_path)) == [f"t{ending}", f"t{ending}.recipe.json"]
        assert json.loads((tmp_path / f"t{ending}.recipe.json").read_text()) == json.loads(json.dumps(table.recipe))
    assert tables_of(path) == {"w": table}
    found = verify(path, threads=threads)
    assert found.ok
    assert found.nbytes == table.nbytes


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "complex64", "complex128"])
def test_numpy_loads_it(tmp_path, dtype):
    table = small(dtype=dtype)
    create(tmp_path / "t.npy", table)
    array = np.load(tmp_path / "t.npy", allow_pickle=False)
    assert array.dtype == dtype
    assert np.array_equal(array, table.read())


@pytest.mark.parametrize(
    "index",
    [slice(250, 500), slice(None, None, -3), (slice(5, 900), slice(3, 60, 2)), (slice(None), 4), 17, (3, 4)],
    ids=str,
)
@pytest.mark.parametrize("ending", FORMATS)
def test_views(tmp_path, ending, index):
    view = middle().shard(index)
    path = tmp_path / f"t{ending}"
    create(path, view)
    assert path.read_bytes()[-view.nbytes :] == raw(view) == np.ascontiguousarray(middle().read()[index]).tobytes()
    assert tables_of(path) == {"items": view}
    assert verify(path).ok
    flip(path, 8 * path.stat().st_size - 1)
    assert [check.differ for check in verify(path).tensors] == [1]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_tensors(tmp_path, monkeypatch, safetensors, threads):
    monkeypatch.setattr(pieces, "PARALLEL", 0)
    path = tmp_path / "m.safetensors"
    assert create(path, MIXED, threads=threads) == sum(table.nbytes for table in MIXED.values())
    assert path.read_bytes() == undisturbed(tmp_path / "one", "m.safetensors", MIXED, threads=1)["m.safetensors"]
    arrays = safetensors.numpy.load_file(path)
    assert arrays.keys() == MIXED.keys()
    for name, table in MIXED.items():
        assert arrays[name].dtype == table.dtype
        assert np.array_equal(arrays[name], table.read())
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata()["format"] == "pt"
        assert list(file.get_slice("f").get_shape()) == [2, 300_000]
    assert tables_of(path) == MIXED
    found = verify(path, threads=threads)
    assert found.ok
    assert {check.name for check in found.tensors} == MIXED.keys()


def test_shards_and_their_index(tmp_path, safetensors):
    path = tmp_path / "model.safetensors"
    total = sum(table.nbytes for table in SHARDED.values())
    assert create(path, SHARDED, max_shard_size=SHARD) == total
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": total}
    shards = sorted(set(index["weight_map"].values()))
    assert shards == [f"model-{k:05d}-of-00003.safetensors" for k in (1, 2, 3)]
    assert sorted(os.listdir(tmp_path)) == [*shards, "model.safetensors.index.json"]
    assert list(index["weight_map"]) == list(SHARDED)
    for shard in shards:
        arrays = safetensors.numpy.load_file(tmp_path / shard)
        assert sorted(arrays) == [name for name, file in index["weight_map"].items() if file == shard]
        assert len(arrays) == 1 or sum(array.nbytes for array in arrays.values()) <= SHARD
        assert all(np.array_equal(array, SHARDED[name].read()) for name, array in arrays.items())
    for name in (path, tmp_path / "model.safetensors.index.json"):
        assert verify(name).ok
        assert tables_of(name) == SHARDED
        assert [figures.name for figures in inspect(name)] == list(SHARDED)
    last = tmp_path / shards[-1]
    flip(last, 8 * last.stat().st_size - 1)
    assert [(check.name, check.ranges) for check in verify(path).tensors if check.differ] == [("w3", ((349, 350),))]
    last.unlink()
    with pytest.raises(FileNotFoundError):
        verify(path)


def test_one_shard_has_no_index(tmp_path):
    create(tmp_path / "model.safetensors", SHARDED, max_shard_size=10**9)
    assert os.listdir(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize("name", ["../up.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x.npy", ".."])
def test_an_index_names_files_of_its_folder(tmp_path, name):
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(FormatError, match="in its own folder"):
        verify(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "name, tables, options, error",
    [
        ("t.npy", small(), {"threads": 0}, ValueError),
        ("t.npy", small(), {"threads": 1.5}, TypeError),
        ("t.npy", small(), {"threads": "2"}, TypeError),
        ("t.npy", small(), {"max_shard_size": 100}, ValueError),
        ("t.safetensors", SHARDED, {"max_shard_size": 0}, ValueError),
        ("t.safetensors", SHARDED, {"max_shard_size": 1e6}, TypeError),
        ("t.npy", MIXED, {}, ValueError),
        ("t.bin", {}, {}, ValueError),
        ("t.npy", np.ones(3), {}, TypeError),
        ("t.safetensors", {"w": np.ones(3)}, {}, TypeError),
        ("t.safetensors", {"": small()}, {}, ValueError),
        ("t.safetensors", {"__metadata__": small()}, {}, ValueError),
        ("t.safetensors", {"w": small(dtype="complex128")}, {}, ValueError),
        ("t.txt", small(), {}, ValueError),
        ("t", small(), {}, ValueError),
        ("none/t.npy", small(), {}, FileNotFoundError),
    ],
)
def test_wrong_arguments_create_nothing(tmp_path, name, tables, options, error):
    with pytest.raises(error):
        create(tmp_path / name, tables, **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "call", [resume, verify, inspect, lambda path, threads: estimate(path, small(), threads=threads)]
)
def test_threads_are_checked_first(tmp_path, call):
    with pytest.raises(ValueError, match="threads"):
        call(tmp_path / "none" / "t.npy", threads=0)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("call", [create, resume, verify, inspect])
def test_progress(tmp_path, call, threads):
    path = tmp_path / "t.npy"
    if call is resume:
        unfinished(path, middle())
    elif call is not create:
        create(path, middle())
    calls = []
    arguments = (path, middle()) if call is create else (path,)
    call(*arguments, threads=threads, progress=lambda *pair: calls.append(pair))
    done = [done for done, _ in calls]
    assert {total for _, total in calls} == {middle().nbytes}
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, middle().nbytes)
    assert len(done) >= middle().nbytes // BLOCK


def test_without_sync(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size) or real(fd))
    create(tmp_path / "t.npy", small(), sync=False)
    assert whole(tmp_path / "t.npy", small())
    assert len(npy(small())) not in synced
    create(tmp_path / "u.npy", small(), sync=True)
    assert len(npy(small())) in synced


def test_short_writes_and_reads(tmp_path, monkeypatch):
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1000], offset))
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:999]], offset))
    create(tmp_path / "t.npy", small())
    assert whole(tmp_path / "t.npy", small())
    assert verify(tmp_path / "t.npy").ok
    flip(tmp_path / "t.npy", 8 * (len(npy(small())) - 300))
    assert verify(tmp_path / "t.npy").tensors[0].ranges == ((998, 999),)


def test_a_write_that_gets_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    with pytest.raises(OSError, match="wrote nothing"):
        create(tmp_path / "t.npy", small())


# ---- verify


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
    assert found.tensors == (files.Check("items", 10_000, 1, ((row, row + 1),)),)


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


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_truncated_header(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    create(path, small())
    header = path.stat().st_size - small().nbytes
    for length in (header - 1, header - 2, header // 2, 11, 9, 8, 7, 1, 0):
        os.truncate(path, length)
        for call in (verify, inspect):
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
    assert verify(path, sample=2).nbytes in (2 * BLOCK, BLOCK + middle().nbytes % BLOCK)
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
        inspect(path, tensor="none")


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
        assert verify(path, recipe).tensors == (files.Check("items", 1000, 3, ((3, 4), (10, 12))),)


def test_a_recipe_for_the_wrong_array(tmp_path):
    path = tmp_path / "t.npy"
    for array, problem in [
        (np.zeros((1000, 63), np.float32), r"its shape is \(1000, 63\)"),
        (np.zeros((1000, 64), np.float64), "it holds float64"),
        (np.zeros((1000, 64), np.int32), "it holds int32"),
        (np.zeros((1000, 64), ">f4"), "it holds >f4"),
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
    for call in (verify, inspect, tables_of, load):
        with pytest.raises(FileNotFoundError, match="unfinished"):
            call(path)
    path.mkdir()
    with pytest.raises(OSError, match="no regular file"):
        verify(path)


# ---- resume


def finish(path, tables, **options):
    """What its owner does after a crash: resume, or create where nothing was left to resume."""
    try:
        resume(path, tables, max_shard_size=options.get("max_shard_size"))
    except FileNotFoundError:
        try:
            done = verify(path, tables).ok
        except FileNotFoundError:
            done = False
        if not done:
            create(path, tables, **options)


LARGE = Table((400_000, 128), seed=7, name="items")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The bytes of an undisturbed creation, and how long it took."""
    folder = tmp_path_factory.mktemp("large")
    begin = time.perf_counter()
    create(folder / "t.npy", LARGE)
    took = time.perf_counter() - begin
    found = contents(folder)
    shutil.rmtree(folder)
    return found, took


@pytest.mark.parametrize("moment", range(8))
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_signals(tmp_path, large, name, moment):
    want, took = large
    path = tmp_path / "t.npy"
    code = f"""
        from xavierfast import Table
        from xavierfast.files import create
        table = Table((400_000, 128), seed=7, name="items")
        print(flush=True)
        create({os.fspath(path)!r}, table)
    """
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        time.sleep(took * (moment + random.random()) / 12)  # the first creation of a process is slow
        process.send_signal(getattr(signal, name))
    partial = {"t.npy.partial", "t.npy.partial.recipe.json", "t.npy.recipe.json"}
    if path.exists():
        assert path.read_bytes() == want["t.npy"]
    else:
        assert {entry for entry in os.listdir(tmp_path) if not entry.startswith(".")} <= partial
    finish(path, LARGE)
    assert contents(tmp_path) == want


CRASHES = {  # before, the call that dies, what finishes it
    "single": ("pass", "create('t.npy', small)", "finish('t.npy', small)"),
    "no sidecar": ("pass", "create('t.safetensors', small)", "finish('t.safetensors', small)"),
    "force": (
        "create('t.npy', other)",
        "create('t.npy', small, force=True)",
        "finish('t.npy', small, force=True)",
    ),
    "force, begun": (
        "create('t.npy', other, rows=(0, 10))",
        "create('t.npy', small, force=True)",
        "finish('t.npy', small, force=True)",
    ),
    "sharded": (
        "pass",
        "create('m.safetensors', sharded, max_shard_size=160_000)",
        "finish('m.safetensors', sharded, max_shard_size=160_000)",
    ),
    "sharded, force": (
        "create('m.safetensors', {n: Table((9, 9), seed=1) for n in 'abc'}, max_shard_size=300)",
        "create('m.safetensors', sharded, max_shard_size=160_000, force=True)",
        "finish('m.safetensors', sharded, max_shard_size=160_000, force=True)",
    ),
    "part": (
        "create('t.npy', small, rows=(0, 10))",
        "create('t.npy', small, rows=(10, 20)); resume('t.npy')",
        "finish('t.npy', small)",
    ),
}


@cache
def crashed(case):
    """A line for each change of the disk before which a death left something that could not be finished."""
    before, call, after = CRASHES[case]
    return run(f"""
        import os, tempfile
        from xavierfast import Table
        from xavierfast.files import create, resume, verify

        small = Table((1000, 64), seed=7, name="items")
        other = Table((1000, 64), seed=8, name="items")
        sharded = {{f"w{{k}}": Table((200 + 50 * k, 64), seed=5, name=f"w{{k}}") for k in range(4)}}

        def contents():
            return {{name: open(name, "rb").read() for name in sorted(os.listdir())}}

        def finish(path, tables, force=False, **options):
            try:
                resume(path, tables, **options)
            except FileNotFoundError:
                try:
                    done = verify(path, tables).ok
                except FileNotFoundError:
                    done = False
                if not done:
                    create(path, tables, force=force, **options)
            except (FileExistsError, ValueError):  # the death was before what force may replace was recorded
                if not force:
                    raise
                create(path, tables, force=True, **options)

        def die_at(k):
            count = 0
            for name in ("open", "link", "rename", "unlink", "fsync", "ftruncate", "pwrite"):
                def wrapped(*arguments, real=getattr(os, name), **options):
                    nonlocal count
                    count += 1
                    if count == k:
                        os._exit(9)
                    return real(*arguments, **options)
                setattr(os, name, wrapped)

        def enter():
            os.chdir(tempfile.mkdtemp(dir=root))
            {before}

        with tempfile.TemporaryDirectory() as root:
            enter()
            old = contents()
            {call}
            want = contents()
            status, k = 1, 0
            while status:
                k += 1
                enter()
                child = os.fork()
                if not child:
                    try:
                        die_at(k)
                        {call}
                        os._exit(0)
                    finally:
                        os._exit(1)
                status = os.waitpid(child, 0)[1]
                assert status >> 8 in (0, 9), status
                left = contents()
                for name in want.keys() & left.keys():
                    if not name.endswith(".json") and left[name] not in (want[name], old.get(name)):
                        print(k, name, "is neither old nor new")
                try:
                    {after}
                except Exception as error:
                    print(k, type(error).__name__, error, "after", *left)
                found = contents()
                hidden = [name for name in found if name.startswith(".")]
                if hidden:
                    print(k, "hidden", *hidden)
                wrong = [name for name in want | found if found.get(name) != want.get(name) and name not in hidden]
                if wrong:
                    print(k, "wrong", *wrong, "after", *left)
            assert k > 8, k
    """).splitlines()


@pytest.mark.parametrize("case", CRASHES)
def test_a_death_before_any_change(case):
    assert [line for line in crashed(case) if " hidden " not in line] == []


@pytest.mark.parametrize("case", CRASHES)
def test_a_death_leaves_no_hidden_files(case):
    assert [line for line in crashed(case) if " hidden " in line] == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name, tables, most", [("t.npy", small(), None), ("m.safetensors", SHARDED, SHARD)])
@pytest.mark.parametrize("function", ["move", "write_small"])
def test_failures_between_the_renames(tmp_path, monkeypatch, name, tables, most, force, function):
    options = {"max_shard_size": most} if most else {}
    old = {key: table.shard(slice(0, 150)) for key, table in tables.items()} if most else small(8)
    want = undisturbed(tmp_path / "want", name, tables, **options)
    real = getattr(files, function)
    for k in itertools.count():
        folder = tmp_path / f"{k}"
        folder.mkdir()
        if force:
            create(folder / name, old, max_shard_size=60_000 if most else None)
        before = contents(folder)
        calls = itertools.count()

        def fail(*arguments, k=k, calls=calls):
            if next(calls) == k:
                raise OSError(errno.EIO, "a test's")
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(files, function, fail)
            try:
                create(folder / name, tables, force=force, **options)
                break
            except OSError as error:
                assert error.errno == errno.EIO
        left = contents(folder)
        for file, data in before.items():
            assert left[file] in (data, want.get(file))
        finish(folder / name, tables, force=force, **options)
        found = contents(folder)
        assert {file: found[file] for file in want} == want
        assert found.keys() == want.keys() | before.keys()
    assert k >= (1 if function == "move" or most else 2)
    assert contents(folder).keys() == want.keys() | before.keys()


def damage_flip(path):
    flip(path, 8 * 200 + 1, 8 * 1_000_000, 8 * path.stat().st_size - 1)


def damage_garbage(path):
    path.write_bytes(random.Random(1).randbytes(3_000_000))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "damage",
    [
        damage_flip,
        damage_garbage,
        *[lambda path, n=n: os.truncate(path, n) for n in (0, 7, 100, 1_000_000)],
        lambda path: path.unlink(),
        lambda path: None,
    ],
)
def test_a_damaged_partial(tmp_path, damage, ending, threads):
    path, name = tmp_path / f"t{ending}", f"t{ending}"
    want = undisturbed(tmp_path / "want", name, middle())
    shutil.rmtree(tmp_path / "want")
    unfinished(path, middle(), 3)
    damage(tmp_path / f"{name}.partial")
    resume(path, threads=threads)
    assert contents(tmp_path) == want


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_resume_counts_bytes(tmp_path, threads):
    path, partial = tmp_path / "t.npy", tmp_path / "t.npy.partial"
    create(path, middle(), rows=(0, 10_000))
    assert partial.stat().st_size == 128 + middle().nbytes
    flip(partial, 8 * (128 + 100), 8 * (128 + 200), 8 * (128 + middle().nbytes) - 1)
    assert resume(path, threads=threads) == BLOCK + middle().nbytes % BLOCK
    create(tmp_path / "u.npy", middle(), rows=(0, 10_000))
    flip(tmp_path / "u.npy.partial", 3)
    assert resume(tmp_path / "u.npy", threads=threads) == 128
    assert whole(path, middle())
    assert whole(tmp_path / "u.npy", middle())


def test_nothing_to_resume(tmp_path):
    path = tmp_path / "t.npy"
    for tables in (None, small()):
        with pytest.raises(FileNotFoundError, match="nothing unfinished"):
            resume(path, tables)
    create(path, small())
    before = contents(tmp_path)
    for tables in (None, small()):
        with pytest.raises(FileNotFoundError, match="finished"):
            resume(path, tables)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("other", [small(), middle(8), middle().shard(slice(1, None)), {"x": middle()}])
def test_resume_with_other_tables(tmp_path, other):
    path = tmp_path / "t.npy"
    unfinished(path, middle())
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        resume(path, other)
    assert contents(tmp_path) == before
    resume(path, middle())
    assert whole(path, middle())


def test_resume_with_another_shard_size(tmp_path):
    path = tmp_path / "m.safetensors"
    unfinished(path, SHARDED, 1, max_shard_size=SHARD)
    for most in (None, SHARD + 1):
        with pytest.raises(ValueError, match="another recipe"):
            resume(path, SHARDED, max_shard_size=most)
    resume(path, SHARDED, max_shard_size=SHARD)
    assert verify(path).ok


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: text[:-3],
        lambda text: text.replace(b'"stream": 1', b'"stream": 99'),
        lambda text: text.replace(b"xavier_uniform", b"__import__"),
        lambda text: text.replace(b'"force"', b'"farce"'),
        lambda text: text.replace(b'"shape": [10000, 64]', b'"shape": [-1, 64]'),
        lambda text: text.replace(b'"shape": [10000, 64]', b'"shape": 7'),
        lambda text: text.replace(b'"max_shard_size": null', b'"max_shard_size": 5'),
        lambda text: text.replace(b'"max_shard_size": null', b'"max_shard_size": "x"'),
        lambda text: b"[" * 100_000,
        lambda text: b"[]",
        lambda text: b"\xff\xfe",
        lambda text: b'{"max_shard_size": null, "force": false, "tables": {}}',
        lambda text: b'{"max_shard_size": null, "force": false, "tables": []}',
    ],
)
def test_a_damaged_plan(tmp_path, damage):
    path, plan = tmp_path / "t.npy", tmp_path / "t.npy.partial.recipe.json"
    unfinished(path, middle())
    text = plan.read_bytes()
    assert damage(text) != text
    plan.write_bytes(damage(text))
    before = contents(tmp_path)
    for tables in (None, middle()):
        with pytest.raises((ValueError, TypeError)):
            resume(path, tables)
    assert contents(tmp_path) == before
    create(path, middle(), force=True)
    assert contents(tmp_path).keys() == {"t.npy", "t.npy.recipe.json"}
    assert whole(path, middle())


def test_the_plan_was_never_written(tmp_path):
    path = tmp_path / "t.npy"
    (tmp_path / "t.npy.partial").touch()
    with pytest.raises(FileNotFoundError):
        resume(path)
    with pytest.raises(FileExistsError, match="resume"):
        create(path, middle())
    assert resume(path, middle()) >= middle().nbytes
    assert whole(path, middle())
    assert contents(tmp_path).keys() == {"t.npy", "t.npy.recipe.json"}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, Stop])
def test_an_error_leaves_what_can_be_resumed(tmp_path, error, threads):
    path = tmp_path / "t.npy"

    def progress(done, total):
        if done > total / 2:
            raise error

    with pytest.raises(error) as caught:
        create(path, middle(), threads=threads, progress=progress)
    assert any("resume()" in note for note in caught.value.__notes__)
    assert sorted(os.listdir(tmp_path)) == ["t.npy.partial", "t.npy.partial.recipe.json"]
    with pytest.raises(error) as caught:
        resume(path, threads=threads, progress=progress)
    assert any("resume()" in note for note in caught.value.__notes__)
    assert 0 < resume(path, threads=threads) < middle().nbytes
    assert whole(path, middle())


# ---- what is in the way


@pytest.mark.parametrize("ending", FORMATS)
def test_what_exists_stays(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.write_bytes(b"precious")
    before = path.stat()
    with pytest.raises(FileExistsError, match="force"):
        create(path, small())
    with pytest.raises(FileExistsError):
        estimate(path, small())
    assert contents(tmp_path) == {path.name: b"precious"}
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    create(path, small(), force=True)
    assert verify(path).ok


@pytest.mark.parametrize("name", ["m-00002-of-00003.safetensors", "m.safetensors.index.json"])
def test_any_file_of_a_set_that_exists_stays(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=re.escape(name)):
        create(tmp_path / "m.safetensors", SHARDED, max_shard_size=SHARD)
    assert contents(tmp_path) == {name: b"precious"}
    create(tmp_path / "m.safetensors", SHARDED, max_shard_size=SHARD, force=True)
    assert verify(tmp_path / "m.safetensors").ok


def test_a_set_beside_a_file_of_its_name(tmp_path):
    """Readers prefer the single file to the index, so a new set must not hide behind an old file."""
    path = tmp_path / "m.safetensors"
    create(path, {name: table.shard(slice(0, 9)) for name, table in SHARDED.items()})
    before = contents(tmp_path)
    with pytest.raises(FileExistsError):
        create(path, SHARDED, max_shard_size=SHARD)
    assert contents(tmp_path) == before


def test_force_keeps_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "t.npy"
    create(path, small(8))
    old = contents(tmp_path)
    seen = []

    def progress(done, total):
        seen.append(contents(tmp_path).items() >= old.items())
        if done == total:
            raise Stop

    with pytest.raises(Stop):
        create(path, middle(), force=True, threads=1, progress=progress)
    assert len(seen) > 2
    assert all(seen)
    assert contents(tmp_path).items() >= old.items()
    assert verify(path).ok
    resume(path)
    assert whole(path, middle())
    assert contents(tmp_path).keys() == old.keys()


def test_force_begins_again(tmp_path):
    path = tmp_path / "m.safetensors"
    unfinished(path, SHARDED, 1, max_shard_size=SHARD)
    assert len(os.listdir(tmp_path)) == 4
    with pytest.raises(FileExistsError, match="unfinished"):
        create(path, small())
    create(path, small(), force=True)
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "m.safetensors", small())


@pytest.mark.parametrize("stale", [json.dumps(small(8).recipe), "", "[]", "{", '{"a":' * 10_000])
def test_a_stale_sidecar(tmp_path, stale):
    path, sidecar = tmp_path / "t.npy", tmp_path / "t.npy.recipe.json"
    sidecar.write_text(stale)
    with pytest.raises(FileExistsError, match="recipe"):
        create(path, small())
    assert contents(tmp_path) == {sidecar.name: stale.encode()}
    create(path, small(), force=True)
    assert verify(path).ok


def test_the_sidecar_of_a_removed_table(tmp_path):
    path = tmp_path / "t.npy"
    create(path, small())
    before = contents(tmp_path)
    path.unlink()
    create(path, small())
    assert contents(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["t.npy", "t.npy.partial", "t.npy.recipe.json", "t.npy.partial.recipe.json"])
def test_a_folder_in_the_way(tmp_path, name, force):
    (tmp_path / name).mkdir()
    with pytest.raises(OSError, match="no regular file"):
        create(tmp_path / "t.npy", small(), force=force)
    assert os.listdir(tmp_path) == [name]


NAMES = ["t.npy", "t.npy.partial", "t.npy.recipe.json", "t.npy.partial.recipe.json"]


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_symlinks_are_not_followed(tmp_path, name, dangling):
    victim, here = tmp_path / "victim", tmp_path / "here"
    here.mkdir()
    if not dangling:
        victim.write_bytes(b"precious")
    (here / name).symlink_to(victim)
    with pytest.raises(FileExistsError, match="symlink"):
        create(here / "t.npy", small())
    assert os.listdir(here) == [name]
    if "partial" in name:
        with pytest.raises(FileExistsError, match="symlink"):
            create(here / "t.npy", small(), force=True)
    else:  # the link itself is what force replaces
        create(here / "t.npy", small(), force=True)
        assert whole(here / "t.npy", small())
        assert not (here / name).is_symlink()
    assert victim.exists() != dangling
    assert dangling or victim.read_bytes() == b"precious"


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_resume_follows_no_symlink(tmp_path, name, dangling):
    victim, here = tmp_path / "victim", tmp_path / "here"
    here.mkdir()
    unfinished(here / "t.npy", middle())
    if not dangling:
        victim.write_bytes(b"precious")
    (here / name).unlink(missing_ok=True)
    (here / name).symlink_to(victim)
    if name == "t.npy.recipe.json":  # a rename replaces the link
        resume(here / "t.npy")
        assert whole(here / "t.npy", middle())
    else:
        with pytest.raises(OSError, match=r"symlink|appeared meanwhile"):
            resume(here / "t.npy", middle())
    assert victim.exists() != dangling
    assert dangling or victim.read_bytes() == b"precious"


def test_a_report_follows_no_symlink(tmp_path):
    create(tmp_path / "t.npy", small())
    (tmp_path / "r.npy").symlink_to(tmp_path / "victim.npy")
    with pytest.raises(OSError):
        verify(tmp_path / "t.npy", report=tmp_path / "r.npy")
    assert not (tmp_path / "victim.npy").exists()


def test_fifos_do_not_hang(tmp_path):
    run(
        f"""
        import os
        from pathlib import Path
        from xavierfast import Table
        from xavierfast.files import create, inspect, load, resume, tables_of, verify

        table = Table((1000, 64), seed=7)
        for name in {NAMES!r}:
            folder = Path({os.fspath(tmp_path)!r}) / name
            folder.mkdir()
            path = folder / "t.npy"
            os.mkfifo(folder / name)
            calls = [lambda: create(path, table), lambda: create(path, table, force=True)]
            calls.append(lambda: create(path, table, rows=(0, 5)))
            calls.append(lambda: resume(path, table))
            calls += [lambda: f(path) for f in (verify, inspect, tables_of)]
            for k, call in enumerate(calls):
                try:
                    call()
                except OSError:
                    continue
                if name != "t.npy.recipe.json" or k < 2:  # which a part does not need yet, and resume replaces
                    raise SystemExit(f"{{name}} {{k}} raised nothing")
        """,
        timeout=30,
    )


@pytest.mark.parametrize("name", ["t.npy", "m.safetensors"])
def test_whoever_is_giving_names_is_let_finish(tmp_path, name, monkeypatch):
    """No file is partial any more, and the plan still stands: others may not take that for something abandoned."""
    table, options = (
        (small(), {}) if name == "t.npy" else ({"a": small(), "b": small()}, {"max_shard_size": small().nbytes})
    )
    move, refused = files.move, []

    def others_come(folder, source, target, replace):
        move(folder, source, target, replace)
        for call in (lambda: create(tmp_path / name, table, force=True, **options), lambda: resume(tmp_path / name)):
            with pytest.raises(BlockingIOError, match="another process is writing it"):
                call()
            refused.append(target)

    monkeypatch.setattr(files, "move", others_come)
    create(tmp_path / name, table, **options)
    assert len(refused) == 2 * (1 if name == "t.npy" else 2)
    monkeypatch.undo()
    assert contents(tmp_path) == undisturbed(tmp_path / "alone", name, table, **options)


@pytest.mark.parametrize("name", ["t.npy", "t.bin", "t.safetensors"])
def test_a_big_endian_machine_is_refused(tmp_path, name, monkeypatch):
    create(tmp_path / f"old.{name}", small())
    before = contents(tmp_path)
    monkeypatch.setattr("sys.byteorder", "big")
    calls = [lambda: create(tmp_path / name, small()), lambda: create(tmp_path / name, small(), rows=(0, 1))]
    for call in (*calls, lambda: verify(tmp_path / f"old.{name}"), lambda: inspect(tmp_path / f"old.{name}")):
        with pytest.raises(OSError, match="tables on disk are little-endian"):
            call()
    assert contents(tmp_path) == before


def test_somebody_finishes_meanwhile(tmp_path):
    """A stranger's file of this name, and what describes it, stay as they are."""
    path = tmp_path / "t.npy"
    theirs = undisturbed(tmp_path / "theirs", "t.npy", small(8))
    shutil.rmtree(tmp_path / "theirs")

    def progress(done, total):
        if done == total:
            for name, data in theirs.items():
                (tmp_path / name).write_bytes(data)

    with pytest.raises(FileExistsError, match="meanwhile"):
        create(path, small(), progress=progress)
    assert path.read_bytes() == theirs["t.npy"]
    with pytest.raises(FileExistsError):
        resume(path)
    assert contents(tmp_path).items() >= theirs.items()
    for name in theirs:
        (tmp_path / name).unlink()
    assert resume(path) == 0
    assert whole(path, small())


def test_the_partial_is_another_by_now(tmp_path):
    """What is published under the name is what was written, not what somebody put in its place."""
    path, partial = tmp_path / "t.npy", tmp_path / "t.npy.partial"

    def progress(done, total):
        if done == total:
            partial.unlink()
            partial.write_bytes(b"half of another")

    with pytest.raises(OSError):
        create(path, small(), progress=progress)
    assert not path.exists()


# ---- disks that fail


def in_a_small_disk(folder, size, code):
    """Run with a full-size limit on `folder`, which is a file system of its own there."""
    mount = f'mount -t tmpfs -o size={size} tmpfs "{folder}" && exec "$@"'
    command = ["unshare", "-Urm", "sh", "-c", mount, "sh"]
    try:
        able = subprocess.run([*command, "true"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        able = False
    if not able:
        pytest.skip("this machine cannot mount a small file system")
    prelude = f"""
        import os, re
        from errno import ENOSPC, ENOSYS
        from xavierfast import Table, files
        from xavierfast.files import create, resume, verify

        folder = {os.fspath(folder)!r}
        os.chdir(folder)
        table = Table((20_000, 64), seed=7, name="items")  # 5,120,128 bytes

        def full(call):
            try:
                call()
            except OSError as error:
                assert error.errno == ENOSPC, error
                return str(error)
            raise SystemExit("there was room")
    """
    run(textwrap.dedent(prelude) + textwrap.dedent(code), command=command)


def test_a_full_disk_is_told_before_the_first_byte(tmp_path):
    in_a_small_disk(
        tmp_path,
        "4m",
        """
        sharded = {f"w{k}": Table((1000, 256), seed=7, name=f"w{k}") for k in range(5)}
        for promise in (True, False):
            if not promise:
                files.fallocate = lambda fd, nbytes: ENOSYS
            stat = os.statvfs(".")
            free = stat.f_bavail * stat.f_frsize
            text = full(lambda: create("t.npy", table))
            needs, says = (int(n.replace(",", "")) for n in re.findall(r"[0-9,]{5,}", text))
            assert needs == 5_120_128, text
            assert free - 65536 <= says <= free, (text, free)  # the plan takes a page
            assert os.listdir() == []
            calls = []
            progress = lambda *pair: calls.append(pair)
            full(lambda: create("m.safetensors", sharded, max_shard_size=1_100_000, progress=progress))
            if promise:  # without a promise the second file cannot know of the first
                assert (calls, os.listdir()) == ([], [])
        """,
    )


def test_a_disk_that_fills_meanwhile(tmp_path):
    in_a_small_disk(
        tmp_path,
        "8m",
        """
        files.fallocate = lambda fd, nbytes: ENOSYS

        def hog(done, total):
            if done == 1 << 20:
                try:
                    with open("hog", "wb", buffering=0) as file:
                        while file.write(bytes(65536)):
                            pass
                except OSError:
                    pass

        full(lambda: create("t.npy", table, threads=1, progress=hog))
        assert sorted(os.listdir()) == ["hog", "t.npy.partial", "t.npy.partial.recipe.json"]
        full(lambda: resume("t.npy"))
        os.unlink("hog")
        resume("t.npy")
        assert sorted(os.listdir()) == ["t.npy", "t.npy.recipe.json"]
        assert verify("t.npy").ok
        """,
    )


def test_a_file_size_limit(tmp_path):
    run(f"""
        import os, resource
        from errno import EFBIG, ENOSYS
        from xavierfast import Table, files

        os.chdir({os.fspath(tmp_path)!r})
        table = Table((20_000, 64), seed=7, name="items")
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, unlimited[1]))

        def too_large(call):
            try:
                call()
            except OSError as error:
                assert error.errno == EFBIG, error
            else:
                raise SystemExit("no limit")

        limit()
        too_large(lambda: files.create("t.npy", table))
        assert os.listdir() == [], os.listdir()
        files.fallocate = lambda fd, nbytes: ENOSYS
        too_large(lambda: files.create("t.npy", table))
        assert os.listdir() == [], os.listdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        too_large(lambda: files.create("t.npy", table, threads=1, progress=limit))
        assert sorted(os.listdir()) == ["t.npy.partial", "t.npy.partial.recipe.json"]
        too_large(lambda: files.resume("t.npy"))
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        files.resume("t.npy")
        assert sorted(os.listdir()) == ["t.npy", "t.npy.recipe.json"]
        assert files.verify("t.npy").ok
    """)


def test_a_failed_fsync_of_the_table(tmp_path, monkeypatch):
    path = tmp_path / "t.npy"
    real = os.fsync

    def fail(fd):
        if os.fstat(fd).st_size > small().nbytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="fsync failed") as caught:
            create(path, small())
    assert caught.value.errno == errno.EIO
    assert not path.exists()
    assert not (tmp_path / "t.npy.partial").exists()
    assert resume(path) >= small().nbytes
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", small())


@pytest.mark.parametrize("name, tables, most", [("t.npy", small(), None), ("m.safetensors", SHARDED, SHARD)])
def test_any_failed_fsync(tmp_path, monkeypatch, name, tables, most):
    want = undisturbed(tmp_path / "want", name, tables, max_shard_size=most)
    real = os.fsync
    for k in itertools.count():
        folder = tmp_path / f"{k}"
        folder.mkdir()
        calls = itertools.count()

        def fail(fd, k=k, calls=calls):
            if next(calls) == k:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            try:
                create(folder / name, tables, max_shard_size=most)
                break
            except OSError as error:
                assert error.errno == errno.EIO
        finish(folder / name, tables, max_shard_size=most)
        assert contents(folder) == want
    assert k >= 4


@contextmanager
def unprivileged():
    """Root may write anywhere."""
    root = not os.geteuid()
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_folder():
    folder = tempfile.mkdtemp()  # whose parents anybody may pass, unlike those of tmp_path
    try:
        create(f"{folder}/t.npy", small())
        unfinished(f"{folder}/u.npy", middle())
        before = sorted(os.listdir(folder))
        os.chmod(folder, 0o555)
        with unprivileged():
            for call in (
                lambda: create(f"{folder}/v.npy", small()),
                lambda: create(f"{folder}/t.npy", small(8), force=True),
                lambda: create(f"{folder}/v.npy", small(), rows=(0, 5)),
                lambda: resume(f"{folder}/u.npy"),
                lambda: verify(f"{folder}/t.npy", report=f"{folder}/r.npy"),
            ):
                with pytest.raises(PermissionError):
                    call()
            assert verify(f"{folder}/t.npy").ok
            assert estimate(f"{folder}/v.npy", small()).seconds is None
        assert sorted(os.listdir(folder)) == before
    finally:
        os.chmod(folder, stat.S_IRWXU)
        shutil.rmtree(folder)


def test_the_folder_is_renamed(tmp_path):
    (tmp_path / "here").mkdir()

    def progress(done, total):
        if not done:
            (tmp_path / "here").rename(tmp_path / "there")
            (tmp_path / "here").mkdir()

    create(tmp_path / "here" / "t.npy", middle(), progress=progress)
    assert os.listdir(tmp_path / "here") == []
    assert whole(tmp_path / "there" / "t.npy", middle())
    assert verify(tmp_path / "there" / "t.npy").ok


@pytest.mark.parametrize("ending", FORMATS)
def test_the_folder_is_removed(tmp_path, ending):
    def progress(done, total):
        if not done:
            shutil.rmtree(tmp_path / "here")

    (tmp_path / "here").mkdir()
    with pytest.raises(FileNotFoundError):
        create(tmp_path / "here" / f"t{ending}", middle(), progress=progress)
    assert os.listdir(tmp_path) == []


# ---- several at once


class Workers:
    """Processes that run a function of a path at the same time."""

    def __init__(self, *bodies):
        self.processes = []
        for body in bodies:
            code = f"""
                import sys
                from xavierfast import Table
                from xavierfast.files import create, resume, verify
                for path in map(str.strip, sys.stdin):
                    try:
                        {body}
                        print("done", flush=True)
                    except OSError as error:
                        print(type(error).__name__, flush=True)
            """
            command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.processes.append(subprocess.Popen(command, **pipes))

    def __enter__(self):
        return self

    def __call__(self, path):
        for process in self.processes:
            process.stdin.write(f"{path}\n")
        for process in self.processes:
            process.stdin.flush()
        return [process.stdout.readline().strip() for process in self.processes]

    def __exit__(self, *_):
        for process in self.processes:
            process.communicate()


def test_two_creators(tmp_path):
    body = "create(path, Table((10_000, 64), seed=7, name='items'))"
    with Workers(body, body) as workers:
        workers(tmp_path / "none" / "t.npy")  # both have begun
        for k in range(12):
            path = tmp_path / f"{k}" / "t.npy"
            path.parent.mkdir()
            answers = workers(path)
            assert answers.count("done") == 1
            assert set(answers) <= {"done", "FileExistsError", "BlockingIOError"}
            assert whole(path, middle())
            assert sorted(os.listdir(path.parent)) == ["t.npy", "t.npy.recipe.json"]


@pytest.fixture
def at_first_opening(monkeypatch):
    """Do something after a call has looked at the folder, before it opens the first file of its own."""

    def arrange(action):
        real = files.open_file

        def open_file(folder, name, flags):
            if not flags & os.O_CREAT:
                return real(folder, name, flags)
            monkeypatch.setattr(files, "open_file", real)
            action()
            return real(folder, name, flags)

        monkeypatch.setattr(files, "open_file", open_file)

    return arrange


def test_a_creator_that_looked_too_early(tmp_path, at_first_opening):
    path = tmp_path / "t.npy"
    theirs = undisturbed(tmp_path / "theirs", "t.npy", small(8))
    shutil.rmtree(tmp_path / "theirs")
    at_first_opening(lambda: create(path, small(8)))
    with pytest.raises(FileExistsError):
        create(path, small())
    assert path.read_bytes() == theirs["t.npy"]
    assert verify(path).ok
    assert contents(tmp_path) == theirs


def test_a_part_that_looked_too_early(tmp_path, at_first_opening):
    path = tmp_path / "t.npy"
    create(path, small(), rows=(0, 5))
    at_first_opening(lambda: resume(path))
    with pytest.raises(FileExistsError):
        create(path, small(), rows=(5, 10))
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", small())


@pytest.mark.parametrize("rows", [None, (0, 9000)])
def test_nobody_else_while_it_is_written(tmp_path, rows):
    path = tmp_path / "t.npy"
    errors = []

    def progress(done, total):
        if done:
            return
        for call in (
            lambda: resume(path),
            lambda: resume(path, middle()),
            lambda: create(path, middle()),
            lambda: create(path, middle(), force=True),
            lambda: create(path, middle(), force=True, rows=(0, 5)),
            *[lambda: create(path, middle(), rows=(0, 5))] * (rows is None),
        ):
            with pytest.raises((BlockingIOError, FileExistsError, ValueError)) as caught:
                call()
            errors.append(type(caught.value))

    create(path, middle(), rows=rows, progress=progress)
    expected = [BlockingIOError, BlockingIOError, FileExistsError, BlockingIOError, ValueError]
    assert errors == expected + [BlockingIOError] * (rows is None)
    if rows:
        resume(path)
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", middle())


# ---- parts


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("ending", FORMATS)
def test_rows_in_any_order(tmp_path, ending, order):
    path = tmp_path / f"t{ending}"
    rows = [(0, 3000), (3000, 3001), (2500, 10_000)]
    for k in (*order, order[0]):
        first, last = rows[k]
        assert create(path, middle(), rows=rows[k]) == (last - first) * 256
        assert not path.exists()
    assert resume(path) == 0
    assert contents(tmp_path) == undisturbed(tmp_path / "want", path.name, middle())


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("tables", [middle(), {"w": middle(), "v": small()}, MIXED, Table((3, 1), seed=1, name="w")])
def test_shards_of_n(tmp_path, tables, n):
    path = tmp_path / "t.safetensors"
    parts = list(range(1, n + 1))
    random.Random(n).shuffle(parts)
    written = [create(path, tables, shard=(k, n)) for k in parts]
    total = tables.nbytes if isinstance(tables, Table) else sum(table.nbytes for table in tables.values())
    assert sum(written) == total
    assert resume(path, tables) == 0
    assert contents(tmp_path) == undisturbed(tmp_path / "want", path.name, tables)


def test_missing_parts_are_made(tmp_path):
    path = tmp_path / "t.npy"
    create(path, middle(), rows=(4000, 4001))
    assert create(path, middle(), rows=(7, 7)) == 0
    assert resume(path) == middle().nbytes
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", middle())


def test_parts_of_several_processes(tmp_path):
    bodies = [f"create(path, Table((10_000, 64), seed=7, name='items'), shard=({k}, 3))" for k in (1, 2, 3)]
    want = undisturbed(tmp_path / "want", "t.npy", middle())
    with Workers(*bodies) as workers:
        workers(tmp_path / "none" / "t.npy")
        for k in range(5):
            path = tmp_path / f"{k}" / "t.npy"
            path.parent.mkdir()
            assert workers(path) == ["done"] * 3
            assert not path.exists()
            assert resume(path) == 0
            assert contents(path.parent) == want


def test_hosts_with_different_seeds(tmp_path):
    path = tmp_path / "t.npy"
    create(path, middle(), rows=(0, 5000))
    before = contents(tmp_path)
    for other in (middle(8), Table((10_000, 64), name="items"), small()):
        with pytest.raises(FileExistsError, match="another recipe"):
            create(path, other, rows=(0, 100))
        assert contents(tmp_path) == before


def test_a_part_of_a_finished_table(tmp_path):
    path = tmp_path / "t.npy"
    create(path, middle(), rows=(0, 5000))
    resume(path)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="finished"):
        create(path, middle(), rows=(5000, 10_000))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "options, error",
    [
        ({"rows": (0, 5), "shard": (1, 2)}, ValueError),
        ({"rows": (-1, 5)}, ValueError),
        ({"rows": (6, 5)}, ValueError),
        ({"rows": (0, 1001)}, ValueError),
        ({"rows": (0, 10**30)}, ValueError),
        ({"rows": (0,)}, (TypeError, ValueError)),
        ({"rows": (0, 1, 2)}, (TypeError, ValueError)),
        ({"rows": 5}, TypeError),
        ({"rows": (0, 5.0)}, TypeError),
        ({"rows": (0.5, 5)}, TypeError),
        ({"rows": ("0", "5")}, TypeError),
        ({"shard": (0, 2)}, ValueError),
        ({"shard": (3, 2)}, ValueError),
        ({"shard": (-1, -1)}, ValueError),
        ({"shard": (1.0, 2)}, TypeError),
        ({"shard": (1, 2.0)}, TypeError),
        ({"shard": ("1", "2")}, TypeError),
        ({"shard": 1}, TypeError),
        ({"rows": (0, 5), "force": True}, ValueError),
        ({"rows": (0, 5), "threads": 0}, ValueError),
    ],
)
def test_wrong_parts_create_nothing(tmp_path, options, error):
    with pytest.raises(error):
        create(tmp_path / "t.npy", small(), **options)
    assert os.listdir(tmp_path) == []


def test_rows_of_many_tables_and_parts_of_many_files(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="shard"):
        create(path, SHARDED, rows=(0, 5))
    with pytest.raises(ValueError, match="max_shard_size"):
        create(path, SHARDED, shard=(1, 2), max_shard_size=SHARD)
    assert os.listdir(tmp_path) == []


# ---- memory and time


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc on this system")
def test_memory(tmp_path):
    # Not ru_maxrss: a child begins with that of the process that started it.
    path = tmp_path / "t.npy"
    grown = run(f"""
        import re
        import xavierfast.files as files
        from xavierfast import Table

        def peak():
            with open("/proc/self/status") as file:
                return int(re.search(r"VmHWM:\\s*([0-9]+) kB", file.read())[1]) << 10

        before = peak()
        files.create({os.fspath(path)!r}, Table((1 << 21, 128), seed=7), sync=False)
        assert files.verify({os.fspath(path)!r}).ok
        print(peak() - before)
    """)
    assert path.stat().st_size == (1 << 30) + 128
    path.unlink()
    assert int(grown) < 64 << 20


@pytest.mark.parametrize(
    "name, tables, most",
    [
        *[(f"t{ending}", middle(), None) for ending in FORMATS],
        ("t.npy", Table((0, 5), "normal", seed=1), None),
        ("m.safetensors", MIXED, None),
        ("m.safetensors", SHARDED, SHARD),
    ],
)
def test_estimate(tmp_path, name, tables, most):
    found = estimate(tmp_path / name, tables, max_shard_size=most)
    assert os.listdir(tmp_path) == []
    assert found.free > 0
    assert found.seconds is None or 0 < found.seconds < 10
    create(tmp_path / name, tables, max_shard_size=most)
    data = [len(data) for file, data in contents(tmp_path).items() if not file.endswith(".json")]
    assert found.nbytes == sum(data)
    with pytest.raises(FileExistsError):
        estimate(tmp_path / name, tables, max_shard_size=most)
    assert estimate(tmp_path / name, tables, max_shard_size=most, force=True).nbytes == sum(data)


def test_estimate_of_what_fits_nowhere(tmp_path):
    table = Table((10**15, 512), seed=0, name="w")
    for ending, header in [(".bin", 0), (".npy", 128)]:
        found = estimate(tmp_path / f"t{ending}", table)
        assert found.nbytes == 4 * 512 * 10**15 + header
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="2,048,000,000,000,000,000") as caught:
        create(tmp_path / "t.bin", table)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert os.listdir(tmp_path) == []


# ---- load, tables_of, inspect


@pytest.mark.parametrize("mode", [None, "r", "r+", "c"])
@pytest.mark.parametrize("ending", [".npy", ".bin"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float8_e5m2", "complex128"])
@pytest.mark.parametrize("shape", [(300, 7), (), (0, 5)])
def test_load(tmp_path, ml_dtypes, shape, dtype, ending, mode):
    table = Table(shape, "normal", std=0.1, seed=7, dtype=dtype)
    path = tmp_path / f"t{ending}"
    create(path, table)
    before = contents(tmp_path)
    for name in (path, str(path)):
        array = load(name, mode)
        same_bits(array, table.read())
        assert array.flags.writeable == (mode != "r") or not array.size
    assert contents(tmp_path) == before
    if mode == "r+" and array.size:
        array[...] = 0
        array.flush()
        assert not np.asarray(load(path)).astype(complex).any()


def test_what_load_refuses(tmp_path):
    create(tmp_path / "t.safetensors", small())
    with pytest.raises(ValueError, match="safetensors"):
        load(tmp_path / "t.safetensors")
    np.save(tmp_path / "t.npy", np.ones(3))
    with pytest.raises(FileNotFoundError, match="recipe"):
        load(tmp_path / "t.npy")
    create(tmp_path / "t.bin", small())
    os.truncate(tmp_path / "t.bin", 1000)
    for mode in (None, "r", "r+", "c"):
        with pytest.raises(ValueError):
            load(tmp_path / "t.bin", mode)
        assert (tmp_path / "t.bin").stat().st_size == 1000


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


def test_tables_of(tmp_path):
    create(tmp_path / "t.npy", small())
    create(tmp_path / "t.bin", small().shard(slice(3, 9)))
    assert tables_of(tmp_path / "t.npy") == tables_of(str(tmp_path / "t.npy.recipe.json")) == {"items": small()}
    assert tables_of(tmp_path / "t.bin") == {"items": small().shard(slice(3, 9))}
    (tmp_path / "t.bin.recipe.json").write_text('{"stream": 1}')
    with pytest.raises(FormatError):
        tables_of(tmp_path / "t.bin")
    (tmp_path / "t.bin.recipe.json").unlink()
    with pytest.raises(FileNotFoundError, match="recipe"):
        tables_of(tmp_path / "t.bin")


def test_many_threads_of_one_process_make_tables(tmp_path):
    def make(k):
        create(tmp_path / f"{k}.npy", middle(k), threads=1 + k % 3)
        results[k] = verify(tmp_path / f"{k}.npy").ok

    results = [None] * 8
    callers = [threading.Thread(target=make, args=(k,)) for k in range(len(results))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [True] * 8


def test_what_is_written_already_needs_no_room(tmp_path, monkeypatch):
    """On a file system that cannot promise space, which has none left, a part with all its bytes is finished."""
    table = small()
    create(tmp_path / "t.npy", table, rows=(0, table.shape[0]))
    monkeypatch.setattr(files, "fallocate", lambda fd, nbytes: errno.ENOTSUP)
    full = os.statvfs_result([4096, 4096, 1000, 0, 0, 1000, 900, 900, 0, 255])
    monkeypatch.setattr(os, "statvfs", lambda fd: full)
    assert resume(tmp_path / "t.npy") == 0
    with pytest.raises(OSError, match="No space left on device"):
        create(tmp_path / "u.npy", table)
    assert whole(tmp_path / "t.npy", table)
