"""JAX's and Keras's initialisers and ours: 2^26 elements on the CPU, in memory that is new each time, end to end.

Keras takes its backend from KERAS_BACKEND, here "jax" unless it is set. NumPy's row of the other benches is left out:
the peer is the framework's own initialiser of the same name.
"""

import os
import subprocess
import sys

import pytest
from conftest import peer

os.environ.setdefault("KERAS_BACKEND", "jax")
SHAPE = (8192, 8192)
SIZE = {"float32": 4, "bfloat16": 2}
JAX = ["glorot_uniform", "glorot_normal", "normal", "uniform"]
KERAS = ["GlorotUniform", "GlorotNormal", "RandomNormal"]


def jax(name, who, dtype, shape):
    jax = peer("jax")
    package = jax.nn.initializers if who == "jax" else peer("xavierfast.jax")
    init, key = getattr(package, name)(), jax.random.key(0)
    if who.endswith("under jit"):
        call = jax.jit(lambda key: init(key, shape, dtype))
        return lambda: call(key).block_until_ready()
    return lambda: init(key, shape, dtype).block_until_ready()


def keras(name, who, dtype, shape):
    keras = peer("keras")
    package = keras.initializers if who == "keras" else peer("xavierfast.keras")
    init = getattr(package, name)(seed=0)
    finish = getattr(init((1,), dtype), "block_until_ready", None)
    return (lambda: init(shape, dtype)) if finish is None else lambda: init(shape, dtype).block_until_ready()


@pytest.mark.parametrize("dtype", SIZE)
@pytest.mark.parametrize("name", JAX)
@pytest.mark.parametrize("who", ["xavierfast.jax", "xavierfast.jax under jit", "jax"])
def test_jax(measure, name, dtype, who):
    elements = SHAPE[0] * SHAPE[1]
    group = f"jax.nn.initializers.{name} of {SHAPE} {dtype}, new memory"
    measure(group, jax(name, who, dtype, SHAPE), SIZE[dtype] * elements, elements)


@pytest.mark.parametrize("dtype", SIZE)
@pytest.mark.parametrize("name", KERAS)
@pytest.mark.parametrize("who", ["xavierfast.keras", "keras"])
def test_keras(measure, name, dtype, who):
    call = keras(name, who, dtype, SHAPE)
    elements = SHAPE[0] * SHAPE[1]
    group = f"keras.initializers.{name} of {SHAPE} {dtype}, new memory, {os.environ['KERAS_BACKEND']}"
    measure(group, call, SIZE[dtype] * elements, elements)


PROGRAM = """
import sys, time
sys.path.insert(0, {folder!r})
from test_jax_keras import {framework}
def peak():  # of this program; getrusage's is at least that of the process that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
{framework}({name!r}, {who!r}, "float32", (64, 64))()
call = {framework}({name!r}, {who!r}, "float32", {shape})
before, start = peak(), time.perf_counter()
array = call()
print(time.perf_counter() - start, peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux tells a program its peak memory")
@pytest.mark.parametrize(("framework", "name", "who"), [
    *(("jax", "glorot_normal", who) for who in ("xavierfast.jax", "xavierfast.jax under jit", "jax")),
    *(("keras", "GlorotNormal", who) for who in ("xavierfast.keras", "keras")),
])  # fmt: skip
def test_memory(benchmark, framework, name, who):
    """Of one call in a process of its own: the seconds, and by how much its peak of resident memory grows."""
    peer(framework)
    code = PROGRAM.format(folder=os.path.dirname(__file__), framework=framework, name=name, who=who, shape=SHAPE)
    benchmark.group = f"{framework}'s {name} of {SHAPE} float32, 256 MiB: a first call, growth of the peak memory"
    done = benchmark.pedantic(subprocess.check_output, ([sys.executable, "-c", code],), rounds=1)
    seconds, memory = map(float, done.split())
    benchmark.extra_info.update(size=0, elements=0, unit="elements", seconds=seconds, memory=memory)
