"""Dask and zarr: the same bits from any blocks, workers and accidents; what is on disk is what zarr itself reads."""

import asyncio
import errno
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support import missing, same_bits

import xavierfast as xf
from xavierfast import files
from xavierfast._core.extras import how_to_install

try:
    import dask
    import dask.array as da
    import zarr
    from dask.base import tokenize
    from dask.diagnostics import ProgressBar
    from distributed import Client, LocalCluster

    import xavierfast.dask as xd
except ImportError as error:
    missing(str(error))

T = xf.Table((1000, 24), seed=7, name="items")
SHAPES = [(1000, 24), (7,), (0, 5), (3, 0), (31, 5, 7), (2, 3000)]


@pytest.fixture(scope="module")
def cluster():
    """Start workers, each a process of its own, once for each number of them."""
    started = {}

    def start(workers):
        if workers not in started:
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
            )
            started[workers] = cluster, Client(cluster, set_as_default=False)
        return started[workers][1]

    yield start
    for cluster, client in started.values():
        client.close()
        cluster.close()


@pytest.fixture
def client(cluster):
    return cluster(2)


# ---- arrays


@pytest.mark.parametrize("shape", [*SHAPES, ()])
@pytest.mark.parametrize("make", [da.from_array, xd.from_table])
def test_blocks_do_not_change_values(make, shape):
    table = xf.Table(shape, "normal", std=1, seed=3)
    for chunks in ("auto", -1, 2, 17, tuple(max(1, size // 3) for size in shape)):
        same_bits(make(table, chunks=chunks).compute(), table[...])


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_do_not_change_values(cluster, workers):
    client = cluster(workers)
    assert len(client.nthreads()) == workers
    for chunks in ((100, 24), (77, 5)):
        x = xd.from_table(T, chunks)
        same_bits(client.gather(client.compute(x)), T[...])
    shard = T.shard((slice(900, 100, -3), slice(3, 9)))
    same_bits(client.gather(client.compute(xd.from_table(shard, (50, 4)))), shard[...])


def test_auto_blocks_are_whole_rows_of_the_configured_size():
    assert xd.from_table(xf.Table((10**6, 1000), seed=0)).chunksize == (33554, 1000)
    assert xd.from_table(xf.Table((3, 1 << 40), "normal", seed=0)).chunksize == (1, 1 << 25)
    with dask.config.set({"array.chunk-size": "1MiB"}):
        assert xd.from_table(T).chunksize == (1000, 24)
        assert xd.from_table(xf.Table((10**6, 1024), seed=0)).chunksize == (256, 1024)


def test_only_the_blocks_that_are_asked_for_are_computed():
    huge = xf.Table((10**10, 128), seed=7)
    for x in (xd.from_table(huge), da.from_array(huge, (10**8, 128)), xd.from_table(huge, (10**8, 64))):
        assert x._meta.shape == (0, 0) and x.dtype == np.float32
        same_bits(x[5 * 10**9 : 5 * 10**9 + 3, 2:].compute(), huge[5 * 10**9 : 5 * 10**9 + 3, 2:])


def test_the_graph_holds_recipes_and_no_data(client):
    table = xf.Table((10**10, 128), seed=7, name="items")
    for x in (xd.from_table(table, (10**8, 128)), da.from_array(table, (10**8, 128))):
        assert len(pickle.dumps(x)) < 4096
    tasks = xd.from_table(xf.Table((1 << 16, 1024), seed=7), (1 << 10, 1024)).dask
    assert max(len(pickle.dumps(task)) for task in dict(tasks).values()) < 2048


def test_tokens_are_those_of_the_recipe():
    # Pickles of these two differ: in one of them a text is there twice, in the other it is the same object twice.
    a = xf.Table((40, 4), "normal", std=1, seed=7, name="normal")
    b = xf.Table((40, 4), "normal", std=1.0, seed=7, name="".join(["nor", "mal"]))
    code = """
import xavierfast as xf, xavierfast.dask as xd
from dask.base import tokenize
print(tokenize(xf.Table((40, 4), "normal", std=1, seed=7, name="normal"), ensure_deterministic=True))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert tokenize(a, ensure_deterministic=True) == tokenize(b) == done.stdout.strip()
    assert xd.from_table(a).name == xd.from_table(b).name
    others = [a.shard(slice(20)), xf.Table((40, 4), "normal", std=1, seed=8, name="normal"), T]
    assert len({tokenize(table) for table in [a, *others]}) == 4
    assert len({xd.from_table(a, chunks).name for chunks in ("auto", 7, (40, 1))}) == 3


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "bfloat16", "float8_e4m3fn"])
def test_dtypes(dtype, ml_dtypes, tmp_path):
    table = xf.Table((300, 20), seed=1, dtype=dtype)
    same_bits(xd.from_table(table, 70).compute(), table[...])
    assert xd.create(table, tmp_path / "z", chunks=16, shards=128) == table.nbytes
    plain = zarr.open(tmp_path / "z", mode="r")
    same_bits(plain[...].view(table.dtype), table[...])
    assert plain.dtype.name == {"bfloat16": "uint16", "float8_e4m3fn": "uint8"}.get(dtype, dtype)
    assert plain.attrs["xavierfast"]["dtype"] == dtype
    same_bits(xd.load(tmp_path / "z").compute(), table[...])
    assert xd.verify(tmp_path / "z").ok


# ---- a worker dies


class SlowStore(zarr.storage.LocalStore):
    """Time enough to die in."""

    async def set(self, key, value):
        time.sleep(0.02)
        await super().set(key, value)


def killed(client, begun, work):
    """The result of `work`, one of whose workers is killed as soon as it has begun."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    pids = client.run(os.getpid)
    thread.start()
    while not begun() and thread.is_alive():
        time.sleep(0.001)
    assert thread.is_alive()
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    thread.join(60)
    assert client.run(os.getpid) != pids
    (result,) = results
    return result


def test_an_array_survives_the_death_of_a_worker(client, tmp_path):
    def slow(block):
        (tmp_path / f"{time.monotonic_ns()}").touch()
        time.sleep(0.02)
        return block

    x = xd.from_table(T, (10, 24)).map_blocks(slow, dtype=T.dtype, meta=np.empty((0, 0), T.dtype))
    same_bits(killed(client, lambda: any(tmp_path.iterdir()), lambda: client.compute(x).result()), T[...])


def test_a_store_survives_the_death_of_a_worker(client, tmp_path):
    store = SlowStore(tmp_path / "z")
    begun = (tmp_path / "z" / "c" / "2").exists
    assert killed(client, begun, lambda: xd.create(T, store, shards=10, client=client)) == T.nbytes
    same_bits(zarr.open(tmp_path / "z")[...], T[...])


def test_a_file_survives_the_death_of_a_worker(client, tmp_path):
    table = xf.Table((1 << 17, 128), seed=7)
    path = tmp_path / "items.npy"
    begun = (tmp_path / "items.npy.partial").exists
    assert killed(client, begun, lambda: xd.create_file(table, path, client, parts=64)) == table.nbytes
    same_bits(np.load(path), table[...])


# ---- stores


def shards_of(path):
    """Each shard's file, and when it was written."""
    return {
        str(file.relative_to(path)): file.stat().st_mtime_ns
        for file in sorted((path / "c").rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cut", [("auto", "auto"), (4, 12), (1, 1), (100, 10**6)])
def test_zarr_reads_what_the_table_holds(tmp_path, shape, cut):
    table = xf.Table(shape, "normal", std=1, seed=3)
    assert xd.create(table, tmp_path / "z", chunks=cut[0], shards=cut[1]) == table.nbytes
    same_bits(zarr.open(tmp_path / "z", mode="r")[...], table[...])
    same_bits(xd.load(tmp_path / "z").compute(), table[...])
    found = xd.verify(tmp_path / "z")
    assert found.ok and found.nbytes == table.nbytes and found.tensors[0].rows == shape[0]


def test_shards_are_byte_for_byte_those_of_zarr(tmp_path):
    table = xf.Table((31, 10, 7), "normal", std=1, seed=3)
    xd.create(table, tmp_path / "a", chunks=(4, 4, 3), shards=(8, 8, 6))
    made = zarr.open(tmp_path / "a", mode="r")
    settings = {"dtype": made.dtype, "chunks": made.chunks, "shards": made.shards, "compressors": None, "filters": None}
    theirs = zarr.create_array(tmp_path / "b", shape=made.shape, fill_value=0, **settings)
    theirs[...] = table[...]
    names = shards_of(tmp_path / "a").keys()
    assert names == shards_of(tmp_path / "b").keys() and len(names) == 16
    # zarr orders the chunks of a shard by Morton; where a shard is one column of them, both orders are the same.
    xd.create(T, tmp_path / "c", chunks=16, shards=128)
    settings |= {"chunks": (16, 24), "shards": (128, 24), "dtype": "float32"}
    theirs = zarr.create_array(tmp_path / "d", shape=T.shape, fill_value=0, **settings)
    theirs[...] = T[...]
    for name in shards_of(tmp_path / "c"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "d" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_write_and_verify(cluster, workers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # workers have other folders
    client = cluster(workers)
    assert xd.create(T, "z", chunks=8, shards=16, client=client) == T.nbytes
    same_bits(zarr.open("z", mode="r")[...], T[...])
    assert len(shards_of(tmp_path / "z")) == 63
    assert xd.verify("z", client=client).ok


def test_axes_have_the_names_of_xarray(tmp_path):
    zarr.open_group(tmp_path / "model", mode="w")
    for shape in SHAPES:
        xd.create(xf.Table(shape, "normal", seed=1), tmp_path / "z", force=True)
        assert zarr.open(tmp_path / "z").metadata.dimension_names == ("dim_0", "dim_1", "dim_2")[: len(shape)]
    xarray = pytest.importorskip("xarray")
    xd.create(T, tmp_path / "model" / "items")
    opened = xarray.open_zarr(tmp_path / "model", consolidated=False)["items"]
    assert opened.dims == ("dim_0", "dim_1")
    same_bits(opened.to_numpy(), T[...])


def test_auto_cuts():
    for shape, chunks, shards in (
        ((10**6, 128), (2048, 128), (32768, 128)),
        ((10**6, 1000), (262, 1000), (4192, 1000)),
        ((2, 1 << 30), (1, 1 << 18), (1, 1 << 22)),
        ((100,), (100,), (100,)),
    ):
        table = xf.Table(shape, "normal", seed=0)
        store = zarr.storage.MemoryStore()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(xd, "_run", lambda *_: [])
            with pytest.raises(FileNotFoundError, match="workers must share the store"):
                xd.create(table, store)
        array = zarr.open_array(store, mode="r")
        assert (array.chunks, array.shards) == (chunks, shards)


def test_resume_writes_what_is_missing_or_wrong_and_nothing_else(client, tmp_path):
    path = tmp_path / "z"
    xd.create(T, path, chunks=8, shards=16, client=client)
    assert xd.create(T, path, resume=True, client=client) == 0
    for name in ("c/3/0", "c/40/0", "c/62/0"):
        (path / name).unlink()
    data = bytearray((path / "c/7/0").read_bytes())
    data[100] ^= 1
    (path / "c/7/0").write_bytes(data)
    (path / "c/8/0").write_bytes(data[:50])
    before = shards_of(path)
    assert np.isnan(zarr.open(path, mode="r")[48:64]).all()
    found = xd.verify(path, client=client)
    assert not found.ok and found.tensors[0].differ == 16 + 1 + 16 + 16 + 8
    assert found.tensors[0].ranges == ((48, 64), (113, 114), (128, 144), (640, 656), (992, 1000))
    assert xd.create(T, path, resume=True, client=client) == (4 * 16 + 8) * 24 * 4
    after = shards_of(path)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"c/3/0", "c/40/0", "c/62/0", "c/7/0", "c/8/0"}
    same_bits(zarr.open(path, mode="r")[...], T[...])
    assert xd.verify(path, client=client).ok


def test_resume_begins_where_nothing_is(tmp_path):
    assert xd.create(T, tmp_path / "z", resume=True) == T.nbytes


def test_any_damage_is_found_and_repaired(tmp_path):
    path = tmp_path / "z"
    xd.create(T, path, chunks=8, shards=16)
    whole = (path / "c/7/0").read_bytes()
    for at in (0, 1535, 1536, 1544, 1552, 1560, 1567, 1568, 1571):  # data, index, checksum
        (path / "c/7/0").write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        assert not xd.verify(path).ok
        (path / "c/7/0").write_bytes(whole[:at])
        assert not xd.verify(path).ok
    assert xd.create(T, path, resume=True) == 16 * 24 * 4
    assert xd.verify(path).ok


def test_verify_finds_the_rows_that_training_has_touched(tmp_path):
    for cut in ({"chunks": 8, "shards": 16}, {"chunks": (8, 4), "shards": (16, 12)}):
        xd.create(T, tmp_path / "z", **cut, force=True)
        trained = zarr.open(tmp_path / "z")
        touched = [0, 15, 16, 17, 500, 501, 777, 999]
        for row in touched:
            trained[row, :] = trained[row] + 1
        trained[300, 20] = 0
        (check,) = xd.verify(tmp_path / "z").tensors
        assert check.ranges == ((0, 1), (15, 18), (300, 301), (500, 502), (777, 778), (999, 1000))
        assert check.differ == 9


def test_verify_reads_arrays_of_others(tmp_path):
    theirs = zarr.create_array(tmp_path / "z", shape=T.shape, dtype="float32", chunks=(100, 24))
    theirs[...] = T[...]
    with pytest.raises(ValueError, match="must have a recipe"):
        xd.verify(tmp_path / "z")
    assert xd.verify(tmp_path / "z", T).ok
    theirs[5, 5] = 9
    assert xd.verify(tmp_path / "z", T).tensors[0].ranges == ((5, 6),)
    same_bits(xd.load(tmp_path / "z").compute(), theirs[...])
    for other, problem in (
        (xf.Table((7, 24), seed=0), "shape"),
        (xf.Table(T.shape, seed=0, dtype="float64"), "dtype is"),
    ):
        found = xd.verify(tmp_path / "z", other)
        assert not found.ok and problem in found.tensors[0].problem


def test_an_array_that_is_there_stays(tmp_path):
    path = tmp_path / "z"
    xd.create(T, path, chunks=8, shards=16)
    before = shards_of(path)
    with pytest.raises(FileExistsError, match="pass resume=True to finish it, or force=True to replace it"):
        xd.create(T, path)
    for other in (xf.Table(T.shape, seed=8, name="items"), xf.Table((999, 24), seed=7, name="items")):
        with pytest.raises(ValueError, match="must have the table's recipe"):
            xd.create(other, path, resume=True)
    assert shards_of(path) == before
    other = xf.Table((50, 3), seed=8)
    assert xd.create(other, path, force=True) == other.nbytes
    same_bits(zarr.open(path, mode="r")[...], other[...])
    assert len(shards_of(path)) == 1


def test_another_layout_is_not_taken_for_ours(tmp_path):
    xd.create(T, tmp_path / "z")
    file = tmp_path / "z" / "zarr.json"
    for path, value in (
        ("index_location", "start"),
        ("codecs", [{"name": "bytes", "configuration": {"endian": "big"}}]),
    ):
        whole = file.read_text()
        fields = json.loads(whole)
        fields["codecs"][0]["configuration"][path] = value
        file.write_text(json.dumps(fields))
        assert not xd.verify(tmp_path / "z").ok
        with pytest.raises(ValueError, match="must have shards of uncompressed bytes"):
            xd.create(T, tmp_path / "z", resume=True)
        file.write_text(whole)
    assert xd.verify(tmp_path / "z").ok
    zarr.open(tmp_path / "z").attrs["note"] = "mine"
    assert xd.create(T, tmp_path / "z", resume=True) == 0


def test_workers_must_share_the_store(client):
    with pytest.raises(FileNotFoundError, match="all workers must share the store"):
        xd.create(T, zarr.storage.MemoryStore(), client=client)


def test_other_stores():
    for store in (zarr.storage.MemoryStore(), "memory://bucket/items.zarr"):
        assert xd.create(T, store, chunks=8, shards=16) == T.nbytes
        same_bits(zarr.open(store, mode="r")[...], T[...])
        assert xd.verify(store).ok
        assert xd.create(T, store, resume=True) == 0


# ---- several writers of one store

OTHER = xf.Table(T.shape, seed=8, name="items")


class GatedStore(zarr.storage.LocalStore):
    """A folder in which only three shards are written until its gate opens."""

    gate = threading.Event()

    async def set(self, key, value):
        while len(shards_of(self.root)) == 3 and not self.gate.is_set():
            await asyncio.sleep(0.001)
        await super().set(key, value)


def meanwhile(path, act, **keywords):
    """Create the array of T, call `act` when the first shards are written, and return the error or None."""
    errors = []

    def work():
        try:
            xd.create(T, GatedStore(path), chunks=8, shards=8, **keywords)
        except (OSError, ValueError) as error:
            errors.append(error)

    GatedStore.gate.clear()
    with dask.config.set(scheduler="synchronous"):  # both writers would share a pool of threads
        thread = threading.Thread(target=work)
        thread.start()
        while len(shards_of(path)) < 3:
            time.sleep(0.001)
        try:
            act()
        finally:
            GatedStore.gate.set()
            thread.join(60)
    return errors[0] if errors else None


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "z"

    def others():
        for table, keywords, error, message in (
            (OTHER, {"force": True}, FileExistsError, "was claimed by process [0-9]+ on .* and is unfinished"),
            (T, {"force": True}, FileExistsError, "was claimed by"),  # of another layout
            (OTHER, {}, FileExistsError, "already exists"),
            (OTHER, {"resume": True}, ValueError, "must have the table's recipe"),
        ):
            with pytest.raises(error, match=message):
                xd.create(table, path, **keywords)
        (path / "zarr.json").rename(tmp_path / "away")
        for keywords in ({}, {"resume": True}, {"force": True}):
            with pytest.raises(FileExistsError, match="was claimed by"):
                xd.create(OTHER, path, **keywords)
        (tmp_path / "away").rename(path / "zarr.json")

    assert meanwhile(path, others) is None
    same_bits(zarr.open(path, mode="r")[...], T[...])
    assert sorted(os.listdir(path)) == ["c", "zarr.json"]


@pytest.mark.parametrize("make", [lambda path: path, lambda path: f"memory://{path}"])
def test_of_many_writers_at_once_one_wins(tmp_path, make):
    for attempt in range(5):
        store, barrier, results = make(tmp_path / f"z{attempt}"), threading.Barrier(4), {}

        def work(seed, store=store, barrier=barrier, results=results):
            table = xf.Table((64, 24), seed=seed)
            barrier.wait()
            try:
                xd.create(table, store, chunks=8, shards=8)
                results[seed] = table
            except FileExistsError:
                pass

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        (winner,) = results.values()
        same_bits(zarr.open(store, mode="r")[...], winner[...])
        assert xd.verify(store).ok


def test_what_is_removed_meanwhile_is_noticed(tmp_path):
    for k, (name, message) in enumerate(
        (("zarr.json", "was removed while"), ("c/*/0", "is missing, though"), (xd.CLAIM, "is missing: all workers"))
    ):
        path = tmp_path / str(k)
        error = meanwhile(path, lambda path=path, name=name: next(path.glob(name)).unlink())
        assert isinstance(error, FileNotFoundError) and message in str(error)
        assert xd.create(T, path, resume=True, chunks=8, shards=8) >= 0
        same_bits(zarr.open(path, mode="r")[...], T[...])


def test_what_is_replaced_meanwhile_is_noticed(tmp_path):
    def replace(path):
        fields = json.loads((path / "zarr.json").read_text())
        fields["attributes"]["xavierfast"]["seed"] = 8
        (path / "zarr.json").write_text(json.dumps(fields))

    error = meanwhile(tmp_path / "a", lambda: replace(tmp_path / "a"))
    assert isinstance(error, FileExistsError) and "was replaced while" in str(error)

    def remove_and_create(path):
        path.rename(tmp_path / "away")
        xd.create(OTHER, path, chunks=8, shards=8)

    error = meanwhile(tmp_path / "b", lambda: remove_and_create(tmp_path / "b"))
    # A task may look before the second writer has given up its claim, after that, or miss the folder that it writes to.
    assert isinstance(error, (FileExistsError, FileNotFoundError))
    same_bits(zarr.open(tmp_path / "b", mode="r")[...], OTHER[...])


@pytest.mark.parametrize("keywords", [{"resume": True}, {"force": True, "chunks": 8, "shards": 8}])
def test_a_writer_of_the_same_bytes_takes_over(tmp_path, keywords):
    path = tmp_path / "z"
    error = meanwhile(path, lambda: xd.create(T, path, **keywords))
    assert isinstance(error, OSError)  # FileExistsError, or FileNotFoundError if the second has finished already
    same_bits(zarr.open(path, mode="r")[...], T[...])
    assert sorted(os.listdir(path)) == ["c", "zarr.json"]


@pytest.mark.parametrize("times", [1, 3])
def test_a_shard_that_is_added_while_the_store_is_cleared(tmp_path, monkeypatch, times):
    """As by the writer whose place a second one takes, until it notices that."""
    real, keys = zarr.storage.LocalStore.delete, []

    async def delete(self, key):
        if key == "c" and len(keys) < times:
            keys.append(key)
            raise IsADirectoryError(errno.EISDIR, "Is a directory", key)
        await real(self, key)

    xd.create(OTHER, tmp_path / "z")
    monkeypatch.setattr(zarr.storage.LocalStore, "delete", delete)
    assert xd.create(T, tmp_path / "z", force=True) == T.nbytes
    assert len(keys) == times
    same_bits(zarr.open(tmp_path / "z", mode="r")[...], T[...])


def test_the_claim_of_a_crash_is_for_the_same_array(tmp_path, monkeypatch):
    path = tmp_path / "z"
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(xd, "_write", lambda *_: 1 // 0)
        xd.create(T, path, shards=10)
    claim = json.loads((path / xd.CLAIM).read_text())
    assert claim["recipe"] == T.recipe and claim["process"] == os.getpid()
    with pytest.raises(FileExistsError, match="was claimed by"):
        xd.create(OTHER, path, force=True)
    assert xd.create(T, path, resume=True) == T.nbytes
    assert not (path / xd.CLAIM).exists()
    assert xd.create(OTHER, path, force=True) == T.nbytes
    for damaged in (b"", b"[]", b"\xff"):
        (path / xd.CLAIM).write_bytes(damaged)
        with pytest.raises(FileExistsError, match="was claimed by"):
            xd.create(OTHER, path, resume=True)


def test_resume_keeps_the_layout_or_refuses_another(tmp_path):
    path = tmp_path / "z"
    xd.create(T, path, chunks=8, shards=16)
    assert xd.create(T, path, resume=True) == xd.create(T, path, resume=True, chunks=8, shards=16) == 0
    assert xd.create(T, path, resume=True, chunks=8) == xd.create(T, path, resume=True, shards=16) == 0
    for keywords, message in (
        ({"chunks": 4}, r"must have the table's chunks, \[4, 24\], got \[8, 24\]"),
        ({"shards": 32}, r"must have the table's shards, \[32, 24\], got \[16, 24\]"),
        ({"chunks": (8, 12), "shards": 16}, "table's chunks"),
    ):
        with pytest.raises(ValueError, match=message):
            xd.create(T, path, resume=True, **keywords)
    assert not (path / xd.CLAIM).exists()


def test_partial_files_of_killed_workers_are_removed(tmp_path):
    path = tmp_path / "z"
    xd.create(T, path, shards=16)
    names = [f"c/3/0.{'0a' * 16}.partial", f"zarr.{'b1' * 16}.partial"]
    for name in [*names, "c/3/mine.partial"]:
        (path / name).touch()
    assert xd.create(T, path, resume=True) == 0
    assert not any((path / name).exists() for name in names) and (path / "c/3/mine.partial").exists()


def test_force_removes_whatever_array_was_there(tmp_path):
    for store in (tmp_path / "z", "memory://forced.zarr"):
        zarr.create_array(store, shape=(90, 4), dtype="f4", chunks=(5, 4), zarr_format=2)[...] = 1
        assert xd.create(T, store, force=True) == T.nbytes
        same_bits(zarr.open(store, mode="r")[...], T[...])
    assert sorted(os.listdir(tmp_path / "z")) == ["c", "zarr.json"]


def test_a_store_without_removal_is_refused(tmp_path):
    with zarr.storage.ZipStore(tmp_path / "z.zip", mode="w") as store, pytest.raises(ValueError, match="got ZipStore"):
        xd.create(T, store)


# ---- one file


@pytest.mark.parametrize("name", ["items.npy", "items.safetensors"])
def test_workers_write_a_file(client, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert xd.create_file(T, name, client, parts=7) == T.nbytes
    assert files.verify(name).ok
    assert sorted(os.listdir()) == [name, "items.npy.recipe.json"][: 1 + name.endswith("npy")]
    with pytest.raises(FileExistsError):
        xd.create_file(T, name, client)


def test_a_file_without_a_cluster(tmp_path):
    assert xd.create_file(T, tmp_path / "items.bin") == T.nbytes
    same_bits(files.load(tmp_path / "items.bin"), T[...])


# ---- progress


@pytest.mark.parametrize("with_client", [False, True])
def test_progress(request, tmp_path, with_client):
    client = request.getfixturevalue("client") if with_client else None
    for call in (
        lambda **keywords: xd.create(T, tmp_path / "z", shards=20, **keywords),
        lambda **keywords: xd.verify(tmp_path / "z", **keywords),
        lambda **keywords: xd.create_file(T, tmp_path / "t.npy", parts=5, **keywords),
    ):
        reports, out = [], io.StringIO()
        with ProgressBar(out=out, minimum=0, dt=0.01):
            call(client=client, progress=lambda *report, reports=reports: reports.append(report))
        assert len(reports) >= 5 and reports == sorted(reports) and reports[-1] == (T.nbytes, T.nbytes)
        assert {total for _, total in reports} == {T.nbytes}
        assert "100% Completed" in out.getvalue()


@pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler:UserWarning")  # by dask before 2025.4
def test_the_current_client_is_used(client, tmp_path, monkeypatch):
    """dask's own functions use it too, and its bar draws nothing then unless the tasks are the client's futures."""
    used = []
    monkeypatch.setattr(
        client, "map", lambda *args, **keywords: used.append(1) or type(client).map(client, *args, **keywords)
    )
    with client.as_current():
        out = io.StringIO()
        with ProgressBar(out=out, minimum=0, dt=0.01):
            xd.create(T, tmp_path / "z", shards=20)
        assert xd.verify(tmp_path / "z").ok and len(used) == 2
        assert "100% Completed" in out.getvalue()
        with dask.config.set(scheduler="threads"):
            assert xd.verify(tmp_path / "z").ok and len(used) == 2
    assert xd.verify(tmp_path / "z").ok and len(used) == 2


def test_a_client_of_another_kind_is_refused(tmp_path):
    for call in (lambda: xd.create(T, tmp_path / "z", client="c"), lambda: xd.create_file(T, tmp_path / "t.npy", "c")):
        with pytest.raises(TypeError, match=r"client must be a dask\.distributed\.Client, got str"):
            call()
    assert not os.listdir(tmp_path)


def test_progress_of_a_failure(client, tmp_path):
    ended = []
    with dask.callbacks.Callback(finish=lambda dsk, state, failed: ended.append(failed)), pytest.raises(OSError):
        xd.create_file(T, tmp_path / "none" / "t.npy", client)
    assert ended == [True]
    assert not dask.callbacks.Callback.active


# ---- stores that answer late


class LateStore(zarr.storage.MemoryStore):
    """A store each of whose requests takes 50 ms, and that counts the shards on their way."""

    most = on_their_way = 0

    async def set(self, key, value):
        type(self).on_their_way += 1
        type(self).most = max(self.most, self.on_their_way)
        await asyncio.sleep(0.05)
        type(self).on_their_way -= 1
        await super().set(key, value)


def test_a_task_writes_several_shards_at_a_time():
    store = LateStore()
    with dask.config.set(scheduler="synchronous"):
        assert xd.create(T, store, chunks=2, shards=2) == T.nbytes
    assert LateStore.most == xd.REQUESTS_PER_TASK
    same_bits(zarr.open(store, mode="r")[...], T[...])
    assert xd.verify(store).ok


# ---- errors


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: xd.from_table(np.ones(3)), TypeError, "table must be a Table, got ndarray"),
        (lambda: xd.create(np.ones(3), "z"), TypeError, "table must be a Table, got ndarray"),
        (lambda: xd.create_file(np.ones(3), "z.npy"), TypeError, "table must be a Table, got ndarray"),
        (
            lambda: xd.create(xf.Table((), "normal", seed=0), "z"),
            ValueError,
            r"must have at least one axis, got the shape \(\)",
        ),
        (lambda: xd.create(T, "z", resume=True, force=True), ValueError, "got both"),
        (lambda: xd.create(T, "z", chunks=(1, 2, 3)), ValueError, r"chunks must be .* 2 sizes, got \(1, 2, 3\)"),
        (lambda: xd.create(T, "z", shards="big"), ValueError, "shards must be .* got 'big'"),
        (lambda: xd.create(T, "z", chunks=0), ValueError, "chunks must be"),
        (lambda: xd.create_file(T, "z.npy", parts=0), ValueError, "parts must be"),
        (lambda: xd.verify("z"), FileNotFoundError, "z"),
        (lambda: xd.load("z"), FileNotFoundError, "z"),
    ],
)
def test_errors(call, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        call()
    assert not list(tmp_path.iterdir())


def test_a_failure_says_how_to_go_on(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(xd, "_write", fail)
    with pytest.raises(OSError, match="disk full") as raised:
        xd.create(T, tmp_path / "z")
    assert "resume=True" in raised.value.__notes__[0]


@pytest.mark.parametrize("package", ["dask", "zarr"])
def test_a_missing_package_is_one_sentence(package):
    code = f"import sys; sys.modules['{package}'] = None; import xavierfast.dask"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert f"ImportError: xavierfast.dask needs {package}: {how_to_install('dask')}" in done.stderr
