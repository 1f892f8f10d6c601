"""Tables, folders and accidents that the tests of files share."""

import builtins
import io
import itertools
import os

import numpy as np
import pytest

from xavierfast import Table

# Whoever imports this module first, as the tests beside it do, is skipped where xavierfast.files cannot run.
pytest.importorskip("fcntl", reason="xavierfast.files needs a POSIX system")
from xavierfast.files import create, resume, verify

BLOCK_BYTES = 1 << 19
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
    """A table of one block."""
    return Table((1000, 64), seed=seed, name="items", **options)


def middle(seed=7):
    """A table of several blocks, large enough for threads."""
    return Table((10_000, 64), seed=seed, name="items")


def contents(folder):
    """The bytes of each file of a folder, by name."""
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def undisturbed(folder, name, tables, **options):
    """The files that a creation leaves when nothing disturbs it."""
    folder.mkdir()
    create(folder / name, tables, **options)
    return contents(folder)


def npy(table):
    """The bytes that NumPy itself would save."""
    file = io.BytesIO()
    np.save(file, table.read())
    return file.getvalue()


def whole(path, table):
    """Whether a .npy file has the bytes that NumPy itself would save."""
    return path.read_bytes() == npy(table)


def flip(path, *bits):
    """Flip bits of a file, each given by its number from the first byte on."""
    with builtins.open(path, "r+b") as file:
        for bit in bits:
            file.seek(bit // 8)
            (byte,) = file.read(1)
            file.seek(bit // 8)
            file.write(bytes([byte ^ 1 << bit % 8]))


class Stop(Exception):
    """An error that tests raise in place of a crash."""


def stop_after(calls):
    """A progress callback that raises Stop once it has been called this many times."""
    count = itertools.count()

    def progress(done, total):
        if next(count) >= calls:
            raise Stop

    return progress


def unfinished(path, tables, calls=5, **options):
    """Begin a creation and stop it: its partial files and its plan remain."""
    with pytest.raises(Stop):
        create(path, tables, threads=1, progress=stop_after(calls), **options)


def finish(path, tables, **options):
    """Do what the owner of a table does after a crash: resume it, or create it where nothing is left to resume."""
    try:
        resume(path, tables, max_shard_size=options.get("max_shard_size"))
    except FileNotFoundError:
        try:
            done = verify(path, tables).ok
        except FileNotFoundError:
            done = False
        if not done:
            create(path, tables, **options)
