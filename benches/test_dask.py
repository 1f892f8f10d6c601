"""Tables through dask and zarr, on two processes, beside one process that writes a file and beside dask's own random.

The cluster is started before anything is timed. Each round writes what is not there, after what earlier rounds wrote
has reached the disk; rounds end when the system has the bytes. Stores lie in the temporary folder of pytest
(--basetemp). The last group is what the scheduler takes for all tasks of a table of 10 TB.
"""

import os
import shutil
from functools import partial

import numpy as np
import pytest
from conftest import peer

import xavierfast as xf
from xavierfast import files

da = peer("dask.array")
zarr = peer("zarr")
distributed = peer("distributed")
import xavierfast.dask as xd  # noqa: E402

SIZE = 1 << 31
SHAPE = (SIZE // 512, 128)
TABLE = xf.Table(SHAPE, seed=0)
WHOLE = xf.Table((20_000_000_000, 128), seed=0)  # 10.24 TB


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def path(tmp_path):
    yield str(tmp_path / "items.npy")
    shutil.rmtree(tmp_path)


def measure(benchmark, path, group, call, size=SIZE, clear=True):
    def setup():
        folder = os.path.dirname(path)
        for name in os.listdir(folder) if clear else ():
            name = os.path.join(folder, name)
            (shutil.rmtree if os.path.isdir(name) else os.unlink)(name)
        os.sync()

    benchmark.group = group
    benchmark.extra_info.update(size=size, elements=size // 4, unit="elements")
    setup()
    call()
    benchmark.pedantic(call, setup=setup, rounds=4)


def zarr_itself(path):
    """dask.array.to_zarr of the same blocks as ``create`` writes."""
    array = zarr.create_array(
        path, shape=SHAPE, dtype="float32", chunks=(2048, 128), shards=(32768, 128), compressors=None, filters=None
    )
    xd.from_table(TABLE, (32768, 128)).store(array, lock=False)


CREATORS = {
    "xavierfast files.create, one process": lambda path, client: files.create(path, TABLE, sync=False),
    "xavierfast dask.create, zarr": lambda path, client: xd.create(TABLE, path, client=client),
    "xavierfast dask.create_file": lambda path, client: xd.create_file(TABLE, path, client, sync=False, parts=8),
    "xavierfast from_table, dask's store into zarr": lambda path, client: zarr_itself(path),
}


@pytest.mark.parametrize("who", CREATORS)
def test_create(benchmark, client, path, who):
    measure(benchmark, path, "create 2 GiB float32 uniform, page cache", lambda: CREATORS[who](path, client))


@pytest.mark.parametrize("who", ["xavierfast files.verify, one process", "xavierfast dask.verify, zarr"])
def test_verify(benchmark, client, path, who):
    group = "verify 2 GiB float32 uniform in the page cache"
    if "zarr" in who:
        xd.create(TABLE, path, client=client)
        measure(benchmark, path, group, lambda: xd.verify(path, client=client), clear=False)
    else:
        files.create(path, TABLE)
        measure(benchmark, path, group, lambda: files.verify(path), clear=False)


SUMS = {
    "xavierfast from_table(t).sum()": lambda: xd.from_table(TABLE).sum(),
    "dask.array.random, float32, .sum()": lambda: (
        da.random.default_rng(0).random(SHAPE, dtype=np.float32, chunks=(262144, 128)).sum()
    ),
}


@pytest.mark.parametrize("who", SUMS)
def test_sum(benchmark, client, path, who):
    measure(benchmark, path, "the sum of 2 GiB float32 uniform", lambda: client.compute(SUMS[who]()).result())


def nothing(store, numbers):
    """What a task gets and gives, without its work."""
    return len(numbers)


@pytest.mark.parametrize("who", ["xavierfast dask.create, all tasks of 10.24 TB without their work"])
def test_scheduling(benchmark, client, path, who):
    array = xd._new_array(path, WHOLE, (2048, 128), (32768, 128))

    def call():
        store = xd._Store(array, WHOLE)
        assert sum(xd._run(partial(nothing, store), store.tasks(client), client)) == 610_352

    benchmark.extra_info["tasks"] = len(xd._Store(array, WHOLE).tasks(client))
    measure(benchmark, path, "scheduling", call, size=WHOLE.nbytes, clear=False)
