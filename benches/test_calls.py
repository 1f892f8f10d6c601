"""Small calls, all included, and the import."""

import os
import subprocess
import sys
from math import sqrt

import numpy as np
import pytest
from conftest import peer

import xavierfast as xf


def numpy(shape):
    generator = np.random.default_rng(0)
    bound = sqrt(6 / sum(shape))
    return lambda: generator.uniform(-bound, bound, shape).astype(np.float32)


def torch(shape):
    torch = peer("torch")
    torch.set_num_threads(1)
    return lambda: torch.nn.init.xavier_uniform_(torch.empty(shape))


def jax(shape):
    jax = peer("jax")
    draw = jax.nn.initializers.glorot_uniform()
    key = jax.random.key(0)
    return lambda: draw(key, shape).block_until_ready()


def into(shape):
    out = np.ones(shape, np.float32)
    return lambda: xf.xavier_uniform(out=out, seed=0, name="w")


CALLS = {
    "xavierfast": lambda shape: lambda: xf.xavier_uniform(shape, seed=0, name="w"),
    "xavierfast, out=": into,
    "numpy": numpy,
    "torch": torch,
    "jax": jax,
}


@pytest.mark.parametrize("who", CALLS)
@pytest.mark.parametrize("shape", [(16, 16), (256, 256)], ids=str)
def test_call(measure, shape, who):
    n = shape[0] * shape[1]
    measure(f"xavier_uniform of {shape} float32, all included", CALLS[who](shape), n * 4, n)


@pytest.mark.parametrize("who", ["xavierfast"])
def test_import(benchmark, who):
    """Of xavierfast after NumPy, in processes of their own; the time is taken inside them."""
    code = "import time, numpy; t = time.perf_counter(); import xavierfast; print(time.perf_counter() - t)"
    command = [sys.executable, "-P", "-c", code]
    # With its bytecode cached, as pip leaves it.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.check_output(command, env=environment)
    times = sorted(float(subprocess.check_output(command, env=environment)) for _ in range(11))
    benchmark.group = "import xavierfast beyond import numpy"
    benchmark.extra_info.update(size=0, elements=0, import_seconds=times[5])
    benchmark.pedantic(subprocess.check_output, args=[command], kwargs={"env": environment}, rounds=3)
