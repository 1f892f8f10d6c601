"""Tables on disk: create writes what NumPy and safetensors read, load and tables_of read it back."""

import errno
import importlib
import json
import os
from time import perf_counter, sleep

import numpy as np
import pytest
from file_support import (
    BLOCK_BYTES,
    FORMATS,
    MIXED,
    SHARD,
    SHARDED,
    contents,
    flip,
    middle,
    npy,
    small,
    undisturbed,
    unfinished,
    whole,
)
from support import run, same_bits

from xavierfast import Table
from xavierfast.files import (
    FormatError,
    Timings,
    blocks,
    create,
    estimate,
    handles,
    load,
    measure,
    resume,
    tables_of,
    verify,
)

# ---- create


def raw(table):
    return np.ascontiguousarray(table.read()).tobytes()


@pytest.mark.parametrize("slow", ["computing", "writing", "syncing"])
@pytest.mark.parametrize("part", [{}, {"shard": (0, 2)}])
def test_timings_tell_what_is_slow(tmp_path, monkeypatch, slow, part):
    def late(call):
        def slowed(*arguments):
            sleep(0.02)
            return call(*arguments)

        return slowed

    module = importlib.import_module("xavierfast.files.create")
    if slow == "syncing":
        monkeypatch.setattr(os, "fsync", late(os.fsync))
    else:
        owner, name = {"computing": (module, "recompute"), "writing": (handles.File, "write")}[slow]
        monkeypatch.setattr(owner, name, late(getattr(owner, name)))
    timings = Timings()
    begin = perf_counter()
    create(tmp_path / "t.npy", middle(), timings=timings, **part)
    seconds = perf_counter() - begin
    assert max(vars(timings), key=vars(timings).get) == slow
    assert min(vars(timings).values()) > 0
    assert sum(vars(timings).values()) <= seconds


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
    monkeypatch.setattr(blocks, "PARALLEL_MIN_BYTES", 0)
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
    monkeypatch.setattr(blocks, "PARALLEL_MIN_BYTES", 0)
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
        assert [stats.name for stats in measure(name)] == list(SHARDED)
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
    "call", [resume, verify, measure, lambda path, threads: estimate(path, small(), threads=threads)]
)
def test_threads_are_checked_first(tmp_path, call):
    with pytest.raises(ValueError, match="threads"):
        call(tmp_path / "none" / "t.npy", threads=0)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("call", [create, resume, verify, measure])
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
    assert len(done) >= middle().nbytes // BLOCK_BYTES


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


# ---- load and tables_of


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


@pytest.mark.parametrize("mode", [None, "r", "r+", "c"])
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64"]
)
def test_load_of_safetensors(tmp_path, ml_dtypes, dtype, mode):
    tables = {name: Table((300, 7), "normal", std=0.1, seed=7, dtype=dtype, name=name) for name in "ab"}
    create(tmp_path / "one.safetensors", tables["a"])
    same_bits(load(tmp_path / "one.safetensors", mode), tables["a"].read())
    create(tmp_path / "two.safetensors", tables)
    create(tmp_path / "set.safetensors", tables, max_shard_size=1)
    for name in ("two.safetensors", "set.safetensors", "set.safetensors.index.json"):
        for tensor in "ab":
            same_bits(load(tmp_path / name, mode, tensor=tensor), tables[tensor].read())
    array = load(tmp_path / "one.safetensors", mode)
    assert array.flags.writeable == (mode != "r")
    if mode == "r+":
        array[0] = 0
        array.flush()
        assert verify(tmp_path / "one.safetensors").tensors[0].differ == 1


def test_load_of_safetensors_without_a_recipe(tmp_path, safetensors):
    arrays = {"w": np.arange(6, dtype=np.int16).reshape(2, 3)}
    safetensors.numpy.save_file(arrays, tmp_path / "t.safetensors")
    same_bits(load(tmp_path / "t.safetensors"), arrays["w"])
    os.truncate(tmp_path / "t.safetensors", os.stat(tmp_path / "t.safetensors").st_size - 1)
    with pytest.raises(FormatError, match=r"must have .* bytes, got"):
        load(tmp_path / "t.safetensors")


def test_safetensors_says_what_it_holds(tmp_path):
    with pytest.raises(ValueError, match=r"holds float32, .*bfloat16.*; got complex128 for 'items'.*or a \.npy file"):
        create(tmp_path / "t.safetensors", small(dtype="complex128"))


def test_what_load_refuses(tmp_path):
    create(tmp_path / "t.safetensors", {"a": small(), "b": small()})
    with pytest.raises(ValueError, match="load reads one tensor, got a file of 2: choose one with tensor="):
        load(tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match="tensor must be the name of a tensor in the file, got 'c'"):
        load(tmp_path / "t.safetensors", tensor="c")
    np.save(tmp_path / "t.npy", np.ones(3))
    with pytest.raises(FileNotFoundError, match="recipe"):
        load(tmp_path / "t.npy")
    create(tmp_path / "t.bin", small())
    os.truncate(tmp_path / "t.bin", 1000)
    for mode in (None, "r", "r+", "c"):
        with pytest.raises(ValueError):
            load(tmp_path / "t.bin", mode)
        assert (tmp_path / "t.bin").stat().st_size == 1000


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
