"""Tables on disk, beside what the disk takes and what users do today.

Each round writes a file that is not there, after what earlier rounds wrote has reached the disk. "Page cache" stops
when the system has the bytes, "on disk" when the disk has them. Files lie in pytest's temporary folder (--basetemp).
"""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import peer

import xavierfast as xf
from xavierfast import files
from xavierfast._core.threads import default_threads, parallel_for
from xavierfast.files import posix as disk
from xavierfast.files.blocks import BLOCK_BYTES

SIZE = 1 << 32
SHAPE = (SIZE // 512, 128)
BOUND = xf.Table(SHAPE, seed=0).bound
THREADS = default_threads()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "items.npy"
    yield str(path)
    for file in tmp_path.iterdir():
        file.unlink()


@pytest.fixture
def measure_files(benchmark, path):
    def run(group, call, size=SIZE, clear=True):
        def setup():
            if clear:
                for name in os.listdir(os.path.dirname(path)):
                    os.unlink(os.path.join(os.path.dirname(path), name))
            os.sync()

        benchmark.group = group
        benchmark.extra_info.update(size=size, elements=size // 4, unit="elements")
        benchmark.pedantic(call, setup=setup, rounds=6)

    return run


def constant(path, sync):
    """One buffer, again and again: what the system takes from threads that compute nothing."""

    def call():
        buffer = np.full(BLOCK_BYTES, 7, np.uint8)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        assert disk.fallocate(fd, SIZE) == 0

        def work(begin, end):
            for first in range(begin, end, BLOCK_BYTES):
                disk.pwrite(fd, buffer.data, first)

        parallel_for(SIZE, BLOCK_BYTES, BLOCK_BYTES, THREADS, work)
        if sync:
            os.fsync(fd)
        os.close(fd)

    return call


def memmap(path, fill):
    def call():
        table = np.lib.format.open_memmap(path, "w+", np.float32, SHAPE)
        fill(table)

    return call


def numpy_uniform(out):
    np.random.Generator(np.random.SFC64(0)).random(out=out, dtype=np.float32)
    out *= np.float32(2 * BOUND)
    out -= np.float32(BOUND)


CREATORS = {
    "xavierfast create": lambda path: lambda: files.create(path, xf.Table(SHAPE, seed=0), sync=False),
    "a constant buffer, pwrite": lambda path: constant(path, False),
    "open_memmap, xavier_uniform(out=)": lambda path: memmap(path, lambda out: xf.xavier_uniform(out=out, seed=0)),
    "numpy into open_memmap": lambda path: memmap(path, numpy_uniform),
}


@pytest.mark.parametrize("who", CREATORS)
def test_create(measure_files, path, who):
    measure_files("create 4 GiB float32 uniform, page cache", CREATORS[who](path))


@pytest.mark.parametrize("who", ["xavierfast create", "a constant buffer, pwrite"])
def test_create_on_disk(measure_files, path, who):
    call = constant(path, True) if who.startswith("a") else lambda: files.create(path, xf.Table(SHAPE, seed=0))
    measure_files("create 4 GiB float32 uniform, on disk", call)


def pread(path):
    buffers = threading.local()

    def call():
        fd = os.open(path, os.O_RDONLY)

        def work(begin, end):
            if not hasattr(buffers, "buffer"):
                buffers.buffer = np.empty(BLOCK_BYTES, np.uint8)
            for first in range(begin, end, BLOCK_BYTES):
                disk.pread(fd, buffers.buffer.data, first)

        parallel_for(SIZE, BLOCK_BYTES, BLOCK_BYTES, THREADS, work)
        os.close(fd)

    return call


def kernel():
    """The table, computed into a buffer that the cache holds: as fast as verifying could be without reading."""
    table = xf.Table(SHAPE, seed=0)
    buffers = threading.local()

    def work(begin, end):
        if not hasattr(buffers, "buffer"):
            buffers.buffer = np.empty(BLOCK_BYTES // 4, np.float32)
        for first in range(begin, end, BLOCK_BYTES):
            table._read_flat(first // 4, buffers.buffer)

    return lambda: parallel_for(SIZE, BLOCK_BYTES, BLOCK_BYTES, THREADS, work)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("verify") / "items.npy")
    files.create(path, xf.Table(SHAPE, seed=0))
    yield path
    os.unlink(path)


@pytest.mark.parametrize("who", ["xavierfast verify", "pread alone", "the kernel alone"])
def test_verify(measure_files, written, who):
    call = {
        "xavierfast verify": lambda: files.verify(written),
        "pread alone": pread(written),
        "the kernel alone": kernel(),
    }[who]
    measure_files("verify 4 GiB float32 uniform in the page cache", call, clear=False)


# ---- time and memory of whole programs

PROGRAMS = {
    "xavierfast create": """
from xavierfast import Table, files
table = Table(SHAPE, seed=0)
def main(): files.create(PATH, table)
""",
    "numpy, np.save(uniform)": """
import numpy as np
def main(): np.save(PATH, np.random.default_rng(0).uniform(-BOUND, BOUND, SHAPE).astype(np.float32))
""",
    "numpy, np.save(random float32)": """
import numpy as np
def main():
    table = np.random.default_rng(0).random(SHAPE, np.float32)
    table *= np.float32(2 * BOUND)
    table -= np.float32(BOUND)
    np.save(PATH, table)
""",
    "numpy into open_memmap": """
import numpy as np
def main():
    table = np.lib.format.open_memmap(PATH, "w+", np.float32, SHAPE)
    np.random.default_rng(0).random(out=table, dtype=np.float32)
    table *= np.float32(2 * BOUND)
    table -= np.float32(BOUND)
    table.flush()
""",
    "torch xavier_uniform_, save_file": """
import torch
from safetensors.torch import save_file
def main(): save_file({"items": torch.nn.init.xavier_uniform_(torch.empty(SHAPE))}, PATH + ".safetensors")
""",
}
WHOLE = (1 << 21, 128)
RUN = """
import json, os, time
def peak():  # ru_maxrss begins at that of the process which started this one
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
begin = time.perf_counter()
main()
os.sync()
seconds = time.perf_counter() - begin
print(json.dumps([seconds, peak() - before]))
"""


@pytest.mark.parametrize("who", PROGRAMS)
def test_programs(benchmark, path, who):
    if "torch" in who:
        peer("torch")
        peer("safetensors")
    bound = xf.Table(WHOLE, seed=0).bound
    code = f"SHAPE, PATH, BOUND = {WHOLE}, {path!r}, {bound}\n{PROGRAMS[who]}\n{RUN}"
    results = []

    def call():
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout))

    def setup():
        for name in os.listdir(os.path.dirname(path)):
            os.unlink(os.path.join(os.path.dirname(path), name))
        os.sync()

    benchmark.group = (
        "a 1 GiB table on disk, synced, in a process of its own: time after the imports, memory beyond them"
    )
    benchmark.pedantic(call, setup=setup, rounds=3)
    seconds, memory = min(results)
    benchmark.extra_info.update(size=0, elements=0, unit="", seconds=seconds, memory=memory)
