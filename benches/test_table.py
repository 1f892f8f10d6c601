"""Rows of a table of 10^10 x 128 that does not exist, beside what users do today."""

import hashlib

import numpy as np
import pytest
from conftest import peer

import xavierfast as xf
from xavierfast._core.threads import default_threads

ROWS, WIDTH = 10**10, 128
MILLION = 10**6
BOUND = xf.Table((ROWS, WIDTH), seed=7).bound
INITS = ("xavier_uniform", "xavier_normal")
THREADS = sorted({1, default_threads()})


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(0).integers(0, ROWS, MILLION)


@pytest.fixture(scope="module")
def out():
    return np.ones((MILLION, WIDTH), np.float32)


def table(init="xavier_uniform"):
    return xf.Table((ROWS, WIDTH), init, seed=7, name="items")


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("who", ["xavierfast, rows of the table", "xavierfast, xavier_uniform(out=)"])
def test_contiguous(measure, out, who, threads):
    """The engine fills a table of the same size; the virtual one starts in the middle of 10^10 rows."""
    rows = slice(ROWS // 2, ROWS // 2 + MILLION)
    call = {
        "xavierfast, rows of the table": lambda: table().read(rows, out, threads=threads),
        "xavierfast, xavier_uniform(out=)": lambda: xf.xavier_uniform(out=out, seed=7, threads=threads),
    }[who]
    group = f"10^6 contiguous rows of 128 float32, {threads} thread{'s' * (threads > 1)}"
    measure(group, call, out.nbytes, MILLION, unit="rows")


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("who", ["xavierfast"])
def test_gather(measure, ids, out, init, threads, who):
    group = f"10^6 random rows of 128 float32 of 10^10, {init}, {threads} thread{'s' * (threads > 1)}"
    measure(group, lambda: table(init).read(ids, out, threads=threads), out.nbytes, MILLION, unit="rows")


def numpy_philox(ids):
    """A Philox for each row: the way to have a row of NumPy's by itself. Half of its words are thrown away."""

    def call():
        rows = np.empty((len(ids), WIDTH), np.float32)
        for row, i in zip(rows, ids.tolist(), strict=True):
            bits = np.random.Philox(key=7)
            bits.advance(i * WIDTH // 8)
            np.random.Generator(bits).random(out=row, dtype=np.float32)
        rows *= 2 * BOUND
        rows -= BOUND
        return rows

    return call


def numpy_hash(ids):
    """A generator for each row, seeded with a hash of its number."""

    def call():
        rows = np.empty((len(ids), WIDTH), np.float32)
        for row, i in zip(rows, ids.tolist(), strict=True):
            seed = int.from_bytes(hashlib.blake2b(i.to_bytes(8, "little"), digest_size=8).digest(), "little")
            np.random.Generator(np.random.SFC64(seed)).random(out=row, dtype=np.float32)
        rows *= 2 * BOUND
        rows -= BOUND
        return rows

    return call


SOME = 10_000
WHOLE = 1_000_000  # rows of a table that is made for the sake of some of them


def numpy_whole(ids):
    def call():
        whole = np.random.Generator(np.random.SFC64(7)).random((WHOLE, WIDTH), dtype=np.float32)
        whole *= 2 * BOUND
        whole -= BOUND
        return whole[ids % WHOLE]

    return call


def jax_whole(ids):
    jax = peer("jax")
    draw = jax.jit(lambda key: jax.nn.initializers.glorot_uniform()(key, (WHOLE, WIDTH)))
    key = jax.random.key(7)
    return lambda: np.asarray(draw(key))[ids % WHOLE]


@pytest.mark.parametrize(
    ("who", "prepare"),
    [
        ("xavierfast", lambda ids: lambda: table()[ids]),
        ("numpy, Philox.advance a row", numpy_philox),
        ("hash and SFC64 a row", numpy_hash),
        ("whole table of 10^6 rows by NumPy, indexed", numpy_whole),
        ("whole table of 10^6 rows by JAX, indexed", jax_whole),
    ],
)
def test_some_rows(measure, ids, who, prepare):
    few = ids[:SOME].copy()
    measure("10^4 random rows of 128 float32, new array", prepare(few), SOME * WIDTH * 4, SOME, unit="rows")


@pytest.mark.parametrize("who", ["xavierfast"])
def test_lookup(measure, ids, who):
    few, items = ids[:64].copy(), table()
    measure("64 random rows of 128 float32, all included", lambda: items[few], 64 * WIDTH * 4, 64, unit="rows")


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("who", ["t[:10**6, 3:7]", "t[:10**6], whole rows"])
def test_columns(measure, out, who, threads):
    """The same tiles are computed for both; GB/s are of what is written."""
    narrow = np.ones((MILLION, 4), np.float32)
    index, target = ((slice(0, MILLION), slice(3, 7)), narrow) if "3:7" in who else (slice(0, MILLION), out)
    group = f"a column slice, {threads} thread{'s' * (threads > 1)}"
    measure(group, lambda: table().read(index, target, threads=threads), target.nbytes, MILLION, unit="rows")
