"""Tier 1: published vectors of ChaCha8 and BLAKE2b, for the reference and for every level."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import reference

from xavierfast._core.stream import derive_key, resolve_seed
from xavierfast.kernels import UINT32, WORDS

LINES = (Path(__file__).parent / "vectors/chacha8_kat.txt").read_text().splitlines()
VECTORS = [line.split() for line in LINES if not line.startswith("#")]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector[0])
def test_reference(vector):
    _, key, counter, nonce, stream = vector
    block = reference.chacha8(bytes.fromhex(key), [int(counter)], bytes.fromhex(nonce))
    assert block.astype("<u4").tobytes().hex() == stream


# Positions are 64-bit numbers of words: they reach the blocks below 2^60 of nonce 0.
REACHED = [vector for vector in VECTORS if int(vector[2]) < 1 << 60 and not int(vector[3], 16)]


@pytest.mark.parametrize("vector", REACHED, ids=lambda vector: vector[0])
def test_level(vector, level):
    _, key, counter, _, stream = vector
    tile, lane = divmod(int(counter), 16)
    out = np.zeros(256, np.uint32)
    level.fill(WORDS, UINT32, bytes.fromhex(key), (), out.ctypes.data, 256 * tile, 256)
    assert out[lane::16].astype("<u4").tobytes().hex() == stream


def test_kat_reaches_the_levels():
    """Every level computes six of the eight vectors; only the reference has a nonce and the last block."""
    assert len(VECTORS) == 8
    assert len(REACHED) == 6
    assert [vector[0] for vector in VECTORS if vector not in REACHED] == ["TC4-block0", "ctr-2^64-1"]


@pytest.mark.parametrize(
    ("seed", "name", "encoded"),
    [
        (0, "", b"i" + bytes(8) + b"s" + bytes(8)),
        (7, "items", b"i\1" + bytes(7) + b"\7" + b"s\5" + bytes(7) + b"items"),
        (258, "é", b"i\2" + bytes(7) + b"\2\1" + b"s\2" + bytes(7) + b"\xc3\xa9"),
        ((1, 0), "x", b"t\2" + bytes(7) + b"i\1" + bytes(7) + b"\1" + b"i" + bytes(8) + b"s\1" + bytes(7) + b"x"),
    ],
)
def test_key(seed, name, encoded):
    want = hashlib.blake2b(encoded, digest_size=32, person=b"xavierfast v1").digest()
    assert derive_key(resolve_seed(seed), name) == want


def test_keys_are_length_delimited():
    seeds = [0, 1, 256, (0,), (1,), (0, 0), (1, 2), (2, 1), 2**64, 2**300]
    names = ["", "a", "ab", "a/b", "i", "\0", "s\1"]
    keys = {derive_key(seed, name) for seed in seeds for name in names}
    assert len(keys) == len(seeds) * len(names)


def test_seeds_of_256_bits(monkeypatch):
    """What NumPy's objects and the system give is all used, as the contract has it."""
    words = np.random.SeedSequence(7).generate_state(8, np.uint32)
    assert resolve_seed(np.random.SeedSequence(7)) == sum(int(word) << 32 * k for k, word in enumerate(words))
    assert resolve_seed(np.random.default_rng(7)) == int.from_bytes(np.random.default_rng(7).bytes(32), "little")
    monkeypatch.setattr("os.urandom", lambda count: bytes(range(1, count + 1)))
    assert resolve_seed(None) == int.from_bytes(bytes(range(1, 33)), "little")
