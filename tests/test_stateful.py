"""Tables and files in long random histories, each step of which a model foretells.

Of a Table the model is an array that tests/reference.py computed; of a folder, the bytes that each file must have.
A run in depth: ``pytest tests/test_stateful.py --hypothesis-profile deep``.
"""

import copy
import json
import os
import pickle
import shutil
import tempfile
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import reference
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import basic, mixed, same, same_bits

import xavierfast as xf
from xavierfast import files, table
from xavierfast._core import fill
from xavierfast.files import blocks

DEEP = settings.get_current_profile_name() == "deep"
FEW = settings() if DEEP else settings(max_examples=40, stateful_step_count=25, deadline=None)


class Patched(RuleBasedStateMachine):
    """With sizes at which small tables are cut into blocks for several threads."""

    def __init__(self):
        super().__init__()
        sizes = [(fill, "PARALLEL_MIN_BYTES", 0), (fill, "PIECE_BYTES", 1 << 12), (table, "CHUNK", 7)]
        sizes += [(blocks, "PARALLEL_MIN_BYTES", 0), (blocks, "BLOCK_BYTES", 1 << 12)]
        self.patches = [mock.patch.object(*size) for size in sizes]
        for patch in self.patches:
            patch.start()

    def teardown(self):
        for patch in self.patches:
            patch.stop()


# ---- a Table


THREADS = st.integers(1, 4)
DTYPES = ["float32", "float64", "float16", "complex64"]
INITS = ["uniform", "normal", "xavier_truncated_normal", "he_uniform"]


def layouts(shape, dtype, kind):
    """An array in some memory layout, and the memory that surrounds it."""
    size = int(np.prod(shape)) * dtype.itemsize
    if kind == "misaligned":
        memory = np.full(size + 3, 0xA5, np.uint8)
        return memory[1 : 1 + size].view(dtype).reshape(shape), memory
    if kind == "Fortran":
        memory = np.full(size + 2, 0xA5, np.uint8)
        return memory[2:].view(dtype).reshape(shape, order="F"), memory
    memory = np.full(2 ** len(shape) * size, 0xA5, np.uint8)
    step = 2 if kind == "strided" else -2
    return memory.view(dtype).reshape([2 * s for s in shape])[(*[slice(None, None, step)] * len(shape), ...)], memory


def agree(table, model, index, threads=1):
    """The result is NumPy's, or the error is of NumPy's kind; what the array holds there."""
    try:
        want = model[index]
    except (IndexError, ValueError, DeprecationWarning) as error:  # the last in place of the first before NumPy 2.3
        with pytest.raises(ValueError if isinstance(error, ValueError) else IndexError):
            table[index]
        return None
    same(table[index], want)
    same(table.read(index, threads=threads), np.asarray(want))
    return np.asarray(want)


class Tables(Patched):
    @initialize(
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=11),
        init=st.sampled_from(INITS), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 5),
    )  # fmt: skip
    def make(self, shape, init, dtype, seed):
        self.table = xf.Table(shape, init, seed=seed, dtype=dtype, fan_in=30, fan_out=20)
        sampler = self.table._sampler
        values = reference.elements(
            sampler.kernel, sampler.dtype.code, sampler.key, sampler.constants, 0, self.table.size
        )
        self.model = self.whole_model = values.reshape(shape)
        self.whole = self.table

    @rule(data=st.data(), threads=THREADS)
    def index(self, data, threads):
        index = data.draw(st.one_of(basic(self.table.shape), mixed(self.table.shape)))
        agree(self.table, self.model, index, threads)

    @rule(data=st.data())
    def wrong_index(self, data):
        """One that may be wrong: both refuse it, or neither does."""
        shape = self.table.shape
        item = st.one_of(
            st.integers(-13, 13), st.slices(5), st.just(Ellipsis), st.none(), st.booleans(), st.just(1.5), st.just("a"),
            hnp.arrays(bool, hnp.array_shapes(max_dims=2, max_side=4)),
            hnp.arrays(np.int8, hnp.array_shapes(max_dims=2, max_side=4), elements=st.integers(-13, 13)),
        )  # fmt: skip
        index = tuple(data.draw(st.lists(item, max_size=len(shape) + 2)))
        agree(self.table, self.model, index)

    @precondition(lambda self: self.table.shape and self.table.shape[0])
    @rule(data=st.data(), dtype=st.sampled_from([np.int64, np.int32, np.int8, ">i8", "<i2"]), threads=THREADS)
    def gather(self, data, dtype, threads):
        n = self.table.shape[0]
        ids = data.draw(hnp.arrays(dtype, st.integers(0, 30), elements=st.integers(-n, n - 1)))
        same(self.table.read(ids, threads=threads), self.model[ids])
        same(self.table[ids[::-1].tolist()], self.model[ids[::-1].tolist()])

    @rule(data=st.data(), kind=st.sampled_from(["misaligned", "Fortran", "strided", "reversed"]), threads=THREADS)
    def read_into(self, data, kind, threads):
        """All of `out`, and nothing around it."""
        index = data.draw(st.one_of(basic(self.table.shape), mixed(self.table.shape)))
        want = agree(self.table, self.model, index)
        if want is None:
            return
        out, memory = layouts(want.shape, want.dtype, kind)
        twin, expected = layouts(want.shape, want.dtype, kind)
        twin[...] = want
        assert self.table.read(index, out, threads=threads) is out
        same_bits(memory, expected)

    @rule(kind=st.sampled_from(["shape", "dtype", "read-only"]))
    def wrong_out(self, kind):
        shape = (*self.table.shape, 2) if kind == "shape" else self.table.shape
        out = np.zeros(shape, np.int16 if kind == "dtype" else self.table.dtype)
        out.flags.writeable = kind != "read-only"
        with pytest.raises(TypeError if kind == "dtype" else ValueError):
            self.table.read(..., out)
        assert not out.any()

    @rule(data=st.data())
    def flat(self, data):
        size = self.table.size
        first = data.draw(st.integers(0, size))
        count = data.draw(st.integers(0, size - first))
        want = self.model.reshape(-1)[first : first + count]
        out = np.empty(count, want.dtype)
        if self.table.size:
            self.table._read_flat(first, out)
            same(out, np.ascontiguousarray(want))
        if count:
            raw = np.frombuffer(bytearray(want.tobytes()), np.uint8)
            assert self.table._equals_flat(first, raw)
            raw[data.draw(st.integers(0, raw.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
            assert not self.table._equals_flat(first, raw)

    @rule(data=st.data())
    def shard(self, data):
        index = data.draw(basic(self.table.shape))
        index = index if isinstance(index, tuple) else (index,)
        self.table = self.table.shard(index)
        self.model = self.model[index if Ellipsis in index else (*index, ...)]

    @rule()
    def start_over(self):
        self.table, self.model = self.whole, self.whole_model

    @rule(how=st.sampled_from(["pickle", "recipe", "deepcopy"]))
    def twin(self, how):
        """Goes on with the twin."""
        twin = {
            "pickle": lambda t: pickle.loads(pickle.dumps(t)),
            "recipe": lambda t: xf.Table.from_recipe(json.loads(json.dumps(t.recipe))),
            "deepcopy": copy.deepcopy,
        }[how](self.table)
        assert twin == self.table
        assert hash(twin) == hash(self.table)
        self.table = twin

    @invariant()
    def is_the_model(self):
        if not hasattr(self, "model"):
            return
        same(np.asarray(self.table), np.ascontiguousarray(self.model).reshape(self.model.shape))
        assert (self.table.size, self.table.nbytes, self.table.ndim) == (
            self.model.size, self.model.nbytes, self.model.ndim,
        )  # fmt: skip
        if self.model.ndim:
            assert len(self.table) == len(list(self.table)) == len(self.model)


# ---- a folder


NAMES = st.sampled_from(["a.npy", "b.bin", "c.safetensors", "d.safetensors"])
SEEDS = st.integers(0, 1)


def tables_for(name, seed):
    if name.endswith(".safetensors"):
        return {f"w{k}": xf.Table((30 + k, 50), seed=seed, name=f"w{k}") for k in range(3)}
    return xf.Table((70, 50), "normal", std=1.0, seed=seed, name="w", dtype="float16" if name == "b.bin" else "float32")


def most_for(name):
    return 13_000 if name == "d.safetensors" else None


@cache
def image(name, seed):
    """The files of a creation that nothing disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        files.create(Path(folder, name), tables_for(name, seed), max_shard_size=most_for(name), sync=False)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def is_table(name):
    return name.endswith((".npy", ".bin", ".safetensors"))


def headers(name, file):
    """Those that a file may have."""
    for whole in (image(name, seed)[file] for seed in (0, 1) if file in image(name, seed)):
        size = 8 + int.from_bytes(whole[:8], "little") if file.endswith(".safetensors") else 128 * file.endswith(".npy")
        yield whole[:size]


class Broken(OSError):
    """In the place of whatever stops a creation."""


class Folder(Patched):
    """`files` holds what each finished file must be; `partials` and `plans` are of the unfinished, whose bytes vary."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.files: dict[str, bytes] = {}
        self.partials: set[str] = set()
        self.plans: dict[str, tuple[int, bool]] = {}

    def teardown(self):
        super().teardown()
        shutil.rmtree(self.folder)

    # ---- what the model says

    def targets(self, name, seed=0):
        return [file for file in image(name, seed) if is_table(file)]

    def unfinished(self, name):
        return name in self.plans or any(target in self.partials for target in self.targets(name))

    def taken(self, name, seed):
        """Whether a file is there that only force replaces: any but the record of a removed table like this one."""
        own = image(name, seed)
        same_record = {file for file in own if file.endswith(".recipe.json") and self.files.get(file) == own[file]}
        return bool((own.keys() - same_record) & self.files.keys())

    def finished(self, name, seed):
        self.files |= image(name, seed)
        self.partials -= set(self.targets(name))
        self.plans.pop(name, None)

    @invariant()
    def nothing_else_is_there(self):
        left = {f"{name}.partial.recipe.json" for name in self.plans} | {f"{name}.partial" for name in self.partials}
        assert set(os.listdir(self.folder)) == self.files.keys() | left
        for name, data in self.files.items():
            assert (self.folder / name).read_bytes() == data, name

    # ---- what is done

    @rule(name=NAMES, seed=SEEDS, force=st.booleans(), threads=THREADS)
    def create(self, name, seed, force, threads):
        self.attempt(name, seed, force, threads)

    @rule(name=NAMES, seed=SEEDS, force=st.booleans(), threads=THREADS, calls=st.integers(0, 12))
    def stop(self, name, seed, force, threads, calls):
        """From the progress, at which the plan and the file's beginning are there."""
        count = iter(range(calls))

        def progress(done, total):
            if next(count, None) is None:
                raise Broken

        self.attempt(name, seed, force, threads, progress=progress)

    @rule(name=NAMES, seed=SEEDS, force=st.booleans(), threads=THREADS, calls=st.integers(0, 12))
    def break_disk(self, name, seed, force, threads, calls):
        """At any of the system calls that write, the first of which write the plan and the headers."""
        count, pwrite = iter(range(calls)), os.pwrite
        image(name, 0), image(name, 1)  # which are undisturbed

        def broken(*arguments):
            if next(count, None) is None:
                raise Broken
            return pwrite(*arguments)

        with mock.patch("os.pwrite", broken):
            headers = len(self.targets(name)) * (not name.endswith(".bin"))
            self.attempt(name, seed, force, threads, begun=calls > headers, changed=calls > 0)

    def attempt(self, name, seed, force, threads, begun=True, changed=True, progress=None):
        """A creation, stopped or not; of one that is stopped, `begun` says whether it leaves its plan, and `changed`
        whether it has removed an earlier one."""
        options = {"max_shard_size": most_for(name), "force": force, "sync": False, "threads": threads}
        arguments = self.folder / name, tables_for(name, seed)
        if not force and (self.taken(name, seed) or self.unfinished(name)):
            with pytest.raises(FileExistsError):
                files.create(*arguments, **options, progress=progress)
            return
        try:
            files.create(*arguments, **options, progress=progress)
        except Broken:
            if not changed:
                return
            self.partials -= set(self.targets(name))
            self.plans.pop(name, None)
            if begun:
                # The last writes are those of sidecar and index, when all or some have their names.
                there = {file for file in self.targets(name) if (self.folder / f"{file}.partial").exists()}
                self.partials |= there
                self.plans[name] = seed, force
                named = set(self.targets(name)) - there
                assert not named or (named == set(self.targets(name)) and f"{name}.index.json" in image(name, seed))
                self.files |= {file: image(name, seed)[file] for file in named}
        else:
            self.finished(name, seed)

    @rule(name=st.sampled_from(["a.npy", "b.bin"]), seed=SEEDS, ends=st.tuples(st.integers(0, 70), st.integers(0, 70)))
    def part(self, name, seed, ends):
        arguments = self.folder / name, tables_for(name, seed)
        if self.taken(name, seed) or self.plans.get(name, (seed, False)) != (seed, False):
            whole, found = image(name, seed)[name], self.files.get(name, b"")
            first, last = (end * 50 * tables_for(name, 0).itemsize for end in sorted(ends))
            begin = len(whole) - tables_for(name, 0).nbytes
            try:
                assert files.create(*arguments, rows=tuple(sorted(ends)), sync=False) == 0
            except FileExistsError:
                return
            # The table is finished already, and has what the part would write.
            assert len(found) == len(whole) and found[:begin] == whole[:begin]
            assert found[begin + first : begin + last] == whole[begin + first : begin + last]
            return
        files.create(*arguments, rows=tuple(sorted(ends)), sync=False)
        self.partials.add(name)
        self.plans[name] = seed, False
        # What this part holds is right, whatever the others do.
        first, last = (end * 50 * tables_for(name, 0).itemsize for end in sorted(ends))
        begin = len(image(name, seed)[name]) - tables_for(name, 0).nbytes
        written = (self.folder / f"{name}.partial").read_bytes()[begin + first : begin + last]
        assert written == image(name, seed)[name][begin + first : begin + last]

    @rule(name=NAMES, threads=THREADS)
    def resume(self, name, threads):
        path = self.folder / name
        if name not in self.plans:
            self.repair(name, path, threads)
            return
        seed, force = self.plans[name]
        whole = image(name, seed)
        right = {file for file in self.targets(name) if self.files.get(file) == whole[file]}
        in_the_way = [
            file for file in self.targets(name)
            if file in self.files and not force and (file in self.partials or file not in right)
        ]  # fmt: skip
        if in_the_way:
            before = {file for file in self.targets(name) if (self.folder / f"{file}.partial").exists()}
            with pytest.raises(FileExistsError):
                files.resume(path, sync=False, threads=threads)
            # Those before it may have been begun.
            after = {file for file in self.targets(name) if (self.folder / f"{file}.partial").exists()}
            assert before <= after
            self.partials |= after
            return
        missing = 0
        for file in self.targets(name):
            if file in self.partials or file not in right:
                there = (self.folder / f"{file}.partial").read_bytes() if file in self.partials else b""
                missing += there[: len(whole[file])] != whole[file]
        assert (files.resume(path, sync=False, threads=threads) > 0) == (missing > 0)
        self.finished(name, seed)

    def repair(self, name, path, threads):
        """A finished file is right afterwards, by its own recipe, or it is as it was."""
        before = dict(self.files)
        try:
            written = files.resume(path, sync=False, threads=threads)
        except (FileNotFoundError, FileExistsError, ValueError):
            return
        found = {file: (self.folder / file).read_bytes() for file in image(name, 0) if (self.folder / file).exists()}
        assert found in (image(name, 0), image(name, 1))
        kept = {file for file in found if before.get(file) == found[file]}
        cut = {file for file in found.keys() - kept if before.get(file, b"").startswith(found[file])}
        assert (written > 0) == (kept | cut != found.keys())
        self.files |= found

    # ---- what is looked at

    @rule(name=NAMES, threads=THREADS)
    def verify(self, name, threads):
        path = self.folder / name
        try:
            found = files.verify(path, threads=threads)
        except FileNotFoundError:
            index, record = f"{name}.index.json", f"{name}.recipe.json"
            lacks = {name, index}.isdisjoint(self.files) or (not name.endswith("s") and record not in self.files)
            assert lacks or (name not in self.files and not self.files.keys() >= set(self.targets(name)))
            return
        except ValueError:
            there = [file for file in {name, *self.targets(name)} if file in self.files]
            assert not all(any(self.files[file].startswith(h) for h in headers(name, file)) for file in there)
            return
        read = [name] if name in self.files else self.targets(name)
        record = f"{name}.recipe.json"
        wholes = [image(name, s) for s in (0, 1) if image(name, s).get(record) == self.files.get(record)]
        if len(read) > 1:  # each file knows its own
            right = all(any(self.files[file] == whole[file] for whole in wholes) for file in read)
        else:
            right = any(self.files[name] == whole[name] for whole in wholes)
        assert found.ok == right
        if name == "a.npy" and found.tensors and not found.tensors[0].problem:
            self.check_rows(found, wholes[0][name], self.files[name])

    def check_rows(self, found, want, have):
        """The rows that NumPy finds."""
        begin = len(want) - 70 * 200
        have = have[begin : len(want)]
        made = np.frombuffer(want[begin:], np.uint8).reshape(70, 200)
        padded = np.frombuffer(have[: len(have) // 200 * 200], np.uint8).reshape(-1, 200)
        rows = set(np.flatnonzero((padded != made[: len(padded)]).any(axis=1)).tolist()) | set(range(len(padded), 70))
        (check,) = found.tensors
        assert check.differ == len(rows)
        assert {row for first, last in check.ranges for row in range(first, last)} == rows
        assert found.extra == max(0, len(self.files["a.npy"]) - len(want))

    @precondition(lambda self: {"a.npy", "a.npy.recipe.json"} <= self.files.keys())
    @rule(mode=st.sampled_from([None, "r", "c"]))
    def load(self, mode):
        data, size = self.files["a.npy"], len(image("a.npy", 0)["a.npy"])
        if len(data) < size:
            with pytest.raises(ValueError, match=r"bytes|header"):
                files.load(self.folder / "a.npy", mode)
            return
        loaded = files.load(self.folder / "a.npy", mode)
        assert loaded.tobytes() == data[size - 70 * 200 : size]
        (stats,) = files.measure(self.folder / "a.npy", threads=1)
        if np.isfinite(loaded).all():
            assert (stats.count, stats.low, stats.high) == (3500, loaded.min(), loaded.max())

    # ---- what others do

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def delete(self, data):
        name = data.draw(st.sampled_from(sorted(self.files)))
        (self.folder / name).unlink()
        del self.files[name]

    @precondition(lambda self: self.partials)
    @rule(data=st.data())
    def delete_partial(self, data):
        name = data.draw(st.sampled_from(sorted(self.partials)))
        (self.folder / f"{name}.partial").unlink()
        self.partials.remove(name)

    @precondition(lambda self: self.partials)
    @rule(data=st.data())
    def rename_partial(self, data):
        """Somebody who cannot wait."""
        name = data.draw(st.sampled_from(sorted(self.partials)))
        (self.folder / f"{name}.partial").rename(self.folder / name)
        self.partials.remove(name)
        self.files[name] = (self.folder / name).read_bytes()

    def damaged(self, data, draw):
        """Bits of the values flipped, the end cut off, or something appended."""
        how = draw(st.sampled_from(["flip", "cut", "append"]))
        if how == "append":
            return data + b"?" * draw(st.integers(1, 300))
        if how == "cut" or len(data) < 3000:
            return data[: draw(st.integers(0, max(0, len(data) - 1)))]
        place = draw(st.integers(len(data) - 2000, len(data) - 1))
        return data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1 :]

    @precondition(lambda self: any(map(is_table, self.files)))
    @rule(data=st.data())
    def damage(self, data):
        name = data.draw(st.sampled_from(sorted(filter(is_table, self.files))))
        self.files[name] = self.damaged(self.files[name], data.draw)
        (self.folder / name).write_bytes(self.files[name])

    @precondition(lambda self: self.partials)
    @rule(data=st.data())
    def damage_partial(self, data):
        path = self.folder / f"{data.draw(st.sampled_from(sorted(self.partials)))}.partial"
        path.write_bytes(self.damaged(path.read_bytes(), data.draw))


TestTables, TestFolder = Tables.TestCase, Folder.TestCase
TestTables.settings = TestFolder.settings = FEW
