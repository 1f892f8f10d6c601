"""Whatever happens to a creation, resuming gives the bytes of an undisturbed one, and nothing else."""

import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from functools import cache

import pytest
from file_support import (
    BLOCK_BYTES,
    FORMATS,
    MIXED,
    SHARD,
    SHARDED,
    Stop,
    contents,
    finish,
    flip,
    middle,
    small,
    undisturbed,
    unfinished,
    whole,
)
from support import run

from xavierfast import Table, files
from xavierfast.files import create, plan, resume, status, verify

# ---- after a crash


LARGE = Table((400_000, 128), seed=7, name="items")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The bytes of an undisturbed creation, and how long it took."""
    folder = tmp_path_factory.mktemp("large")
    begin = time.perf_counter()
    create(folder / "t.npy", LARGE)
    took = time.perf_counter() - begin
    found = contents(folder)
    shutil.rmtree(folder)
    return found, took


@pytest.mark.parametrize("moment", range(8))
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_signals(tmp_path, large, name, moment):
    want, took = large
    path = tmp_path / "t.npy"
    code = f"""
        from xavierfast import Table
        from xavierfast.files import create
        table = Table((400_000, 128), seed=7, name="items")
        print(flush=True)
        create({os.fspath(path)!r}, table)
    """
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        time.sleep(took * (moment + random.random()) / 12)  # the first creation of a process is slow
        process.send_signal(getattr(signal, name))
    partial = {"t.npy.partial", "t.npy.partial.recipe.json", "t.npy.recipe.json"}
    if path.exists():
        assert path.read_bytes() == want["t.npy"]
    else:
        assert {entry for entry in os.listdir(tmp_path) if not entry.startswith(".")} <= partial
    finish(path, LARGE)
    assert contents(tmp_path) == want


CRASHES = {  # before, the call that dies, what finishes it
    "single": ("pass", "create('t.npy', small)", "finish('t.npy', small)"),
    "no sidecar": ("pass", "create('t.safetensors', small)", "finish('t.safetensors', small)"),
    "force": (
        "create('t.npy', other)",
        "create('t.npy', small, force=True)",
        "finish('t.npy', small, force=True)",
    ),
    "force, begun": (
        "create('t.npy', other, rows=(0, 10))",
        "create('t.npy', small, force=True)",
        "finish('t.npy', small, force=True)",
    ),
    "sharded": (
        "pass",
        "create('m.safetensors', sharded, max_shard_size=160_000)",
        "finish('m.safetensors', sharded, max_shard_size=160_000)",
    ),
    "sharded, force": (
        "create('m.safetensors', {n: Table((9, 9), seed=1) for n in 'abc'}, max_shard_size=300)",
        "create('m.safetensors', sharded, max_shard_size=160_000, force=True)",
        "finish('m.safetensors', sharded, max_shard_size=160_000, force=True)",
    ),
    "a file in place of a set": (
        "create('m.safetensors', {n: t.shard(slice(0, 150)) for n, t in sharded.items()}, max_shard_size=60_000)",
        "create('m.safetensors', sharded, force=True)",
        "finish('m.safetensors', sharded, force=True)",
    ),
    "a set in place of a file": (
        "create('m.safetensors', {n: t.shard(slice(0, 150)) for n, t in sharded.items()})",
        "create('m.safetensors', sharded, max_shard_size=160_000, force=True)",
        "finish('m.safetensors', sharded, max_shard_size=160_000, force=True)",
    ),
    "a smaller set in place of a set": (
        "create('m.safetensors', {n: t.shard(slice(0, 150)) for n, t in sharded.items()}, max_shard_size=30_000)",
        "create('m.safetensors', sharded, max_shard_size=160_000, force=True)",
        "finish('m.safetensors', sharded, max_shard_size=160_000, force=True)",
    ),
    "a file in place of half a set": (
        "half_a_set()",
        "create('m.safetensors', small, force=True)",
        "finish('m.safetensors', small, force=True)",
    ),
    "repair": (
        "create('t.npy', small); damage('t.npy')",
        "resume('t.npy')",
        "resume('t.npy')",
    ),
    "repair of a truncated file": (
        "create('m.safetensors', sharded); os.truncate('m.safetensors', 100)",
        "resume('m.safetensors', sharded)",
        "resume('m.safetensors', sharded)",
    ),
    "repair of a set": (
        "create('m.safetensors', sharded, max_shard_size=160_000); damage('m-00002-of-00003.safetensors');"
        "os.unlink('m-00003-of-00003.safetensors'); os.truncate('m.safetensors.index.json', 9)",
        "resume('m.safetensors', sharded, max_shard_size=160_000)",
        "resume('m.safetensors', sharded, max_shard_size=160_000)",
    ),
    "repair of a sidecar": (
        "create('t.bin', small); os.truncate('t.bin.recipe.json', 9)",
        "resume('t.bin', small)",
        "resume('t.bin', small)",
    ),
    "shared": (
        "create('t.npy', small, shard=(0, 3)); resume('t.npy', shard=(2, 3))",
        "resume('t.npy', shard=(0, 3)); resume('t.npy', shard=(1, 3))",
        "[resume('t.npy', shard=(k, 3)) for k in (0, 1)]",
    ),
    "shared, of several files": (
        "create('m.safetensors', sharded, max_shard_size=160_000, shard=(1, 2))",
        "resume('m.safetensors', shard=(0, 2)); resume('m.safetensors', shard=(1, 2))",
        "[resume('m.safetensors', shard=(k, 2)) for k in (0, 1)]",
    ),
    "extend": (
        "create('t.npy', growing); trained('t.npy')",
        "extend('t.npy', 1500)",
        "extend('t.npy', 1500)",
    ),
    "extend, then resume": (
        "create('t.bin', growing); trained('t.bin')",
        "extend('t.bin', (1500, 64))",
        "resume('t.bin') if os.path.exists('t.bin.partial.recipe.json') else extend('t.bin', 1500)",
    ),
    "part": (
        "create('t.npy', small, rows=(0, 10))",
        "create('t.npy', small, rows=(10, 20)); resume('t.npy')",
        "finish('t.npy', small)",
    ),
}


@cache
def crashed(case):
    """A line for each change of the disk before which a death left something that could not be finished."""
    before, call, after = CRASHES[case]
    return run(f"""
        import os, tempfile
        from xavierfast import Table
        from xavierfast.files import create, extend, resume, verify

        small = Table((1000, 64), seed=7, name="items")
        growing = Table((1000, 64), "normal", std=0.02, seed=7, name="items")
        other = Table((1000, 64), seed=8, name="items")
        sharded = {{f"w{{k}}": Table((200 + 50 * k, 64), seed=5, name=f"w{{k}}") for k in range(4)}}

        def contents():
            return {{name: open(name, "rb").read() for name in sorted(os.listdir())}}

        def finish(path, tables, force=False, **options):
            try:
                resume(path, tables, **options)
            except FileNotFoundError:
                try:
                    done = verify(path, tables).ok
                except FileNotFoundError:
                    done = False
                if not done:
                    create(path, tables, force=force, **options)
            except (FileExistsError, ValueError):  # the death was before what force may replace was recorded
                if not force:
                    raise
                create(path, tables, force=True, **options)

        def damage(name):
            with open(name, "r+b") as file:
                file.seek(9000)
                file.write(b"damaged")

        trained = damage

        def looks_right(name):
            try:
                return verify(name).ok
            except ValueError:
                return False

        def half_a_set():
            # The creation of a set that stops among its renames
            if not os.fork():
                die_at(0)
                create('m.safetensors', sharded, max_shard_size=160_000)
            os.wait()
            assert len(os.listdir()) == 4, os.listdir()

        def die_at(k):
            count = 0
            for name in ("open", "link", "rename", "unlink", "fsync", "ftruncate", "pwrite"):
                def wrapped(*arguments, real=getattr(os, name), **options):
                    nonlocal count
                    count += 1
                    if count == k or (k == 0 and count > 6 and "index" in str(arguments[0])):
                        os._exit(9)
                    return real(*arguments, **options)
                setattr(os, name, wrapped)

        def enter():
            os.chdir(tempfile.mkdtemp(dir=root))
            {before}

        with tempfile.TemporaryDirectory() as root:
            enter()
            old = contents()
            {call}
            want = contents()
            status, k = 1, 0
            while status:
                k += 1
                enter()
                child = os.fork()
                if not child:
                    try:
                        die_at(k)
                        {call}
                        os._exit(0)
                    finally:
                        os._exit(1)
                status = os.waitpid(child, 0)[1]
                assert status >> 8 in (0, 9), status
                left = contents()
                for name in want.keys() & left.keys():
                    if not name.endswith(".json") and left[name] not in (want[name], old.get(name)):
                        kept = left[name][128:].startswith(old.get(name, b"-")[128:])
                        if {"extend" in case}:
                            if not kept:
                                print(k, name, "has lost rows that were trained")
                        elif not {"repair" in case} or looks_right(name):
                            print(k, name, "is neither old nor new")
                try:
                    {after}
                except Exception as error:
                    print(k, type(error).__name__, error, "after", *left)
                found = contents()
                hidden = [name for name in found if name.startswith(".")]
                if hidden:
                    print(k, "hidden", *hidden)
                wrong = [name for name in want | found if found.get(name) != want.get(name) and name not in hidden]
                if wrong:
                    print(k, "wrong", *wrong, "after", *left)
            assert k > 8, k
    """).splitlines()


@pytest.mark.parametrize("case", CRASHES)
def test_a_death_before_any_change(case):
    assert [line for line in crashed(case) if " hidden " not in line] == []


@pytest.mark.parametrize("case", CRASHES)
def test_a_death_leaves_no_hidden_files(case):
    assert [line for line in crashed(case) if " hidden " in line] == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name, tables, most", [("t.npy", small(), None), ("m.safetensors", SHARDED, SHARD)])
@pytest.mark.parametrize("function", ["move", "write_small"])
def test_failures_between_the_renames(tmp_path, monkeypatch, name, tables, most, force, function):
    options = {"max_shard_size": most} if most else {}
    old = {key: table.shard(slice(0, 150)) for key, table in tables.items()} if most else small(8)
    want = undisturbed(tmp_path / "want", name, tables, **options)
    real = getattr(plan, function)
    for k in itertools.count():
        folder = tmp_path / f"{k}"
        folder.mkdir()
        if force:
            create(folder / name, old, max_shard_size=60_000 if most else None)
        before = contents(folder)
        calls = itertools.count()

        def fail(*arguments, k=k, calls=calls):
            if next(calls) == k:
                raise OSError(errno.EIO, "a test's")
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(plan, function, fail)
            try:
                create(folder / name, tables, force=force, **options)
                break
            except OSError as error:
                assert error.errno == errno.EIO
        left = contents(folder)
        for file, data in before.items():
            assert left[file] in (data, want.get(file))
        finish(folder / name, tables, force=force, **options)
        assert contents(folder) == want  # without the files of an older table that had more of them
    assert k >= 1
    assert contents(folder) == want


# ---- damaged or foreign leftovers


def damage_flip(path):
    flip(path, 8 * 200 + 1, 8 * 1_000_000, 8 * path.stat().st_size - 1)


def damage_garbage(path):
    path.write_bytes(random.Random(1).randbytes(3_000_000))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "damage",
    [
        damage_flip,
        damage_garbage,
        *[lambda path, n=n: os.truncate(path, n) for n in (0, 7, 100, 1_000_000)],
        lambda path: path.unlink(),
        lambda path: None,
    ],
)
def test_a_damaged_partial(tmp_path, damage, ending, threads):
    path, name = tmp_path / f"t{ending}", f"t{ending}"
    want = undisturbed(tmp_path / "want", name, middle())
    shutil.rmtree(tmp_path / "want")
    unfinished(path, middle(), 3)
    damage(tmp_path / f"{name}.partial")
    resume(path, threads=threads)
    assert contents(tmp_path) == want


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_resume_counts_bytes(tmp_path, threads):
    path, partial = tmp_path / "t.npy", tmp_path / "t.npy.partial"
    create(path, middle(), rows=(0, 10_000))
    assert partial.stat().st_size == 128 + middle().nbytes
    flip(partial, 8 * (128 + 100), 8 * (128 + 200), 8 * (128 + middle().nbytes) - 1)
    assert resume(path, threads=threads) == BLOCK_BYTES + middle().nbytes % BLOCK_BYTES
    create(tmp_path / "u.npy", middle(), rows=(0, 10_000))
    flip(tmp_path / "u.npy.partial", 3)
    assert resume(tmp_path / "u.npy", threads=threads) == 128
    assert whole(path, middle())
    assert whole(tmp_path / "u.npy", middle())


def test_nothing_to_resume(tmp_path):
    path = tmp_path / "t.npy"
    for tables in (None, small()):
        with pytest.raises(FileNotFoundError, match="has no unfinished file"):
            resume(path, tables)
    create(path, small())
    before = contents(tmp_path)
    for tables in (None, small()):
        assert resume(path, tables) == 0
    assert contents(tmp_path) == before


@pytest.mark.parametrize("other", [small(), middle(8), middle().shard(slice(1, None)), {"x": middle()}])
def test_resume_with_other_tables(tmp_path, other):
    path = tmp_path / "t.npy"
    unfinished(path, middle())
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        resume(path, other)
    assert contents(tmp_path) == before
    resume(path, middle())
    assert whole(path, middle())


def test_resume_with_another_shard_size(tmp_path):
    path = tmp_path / "m.safetensors"
    unfinished(path, SHARDED, 1, max_shard_size=SHARD)
    for most in (None, SHARD + 1):
        with pytest.raises(ValueError, match="another recipe"):
            resume(path, SHARDED, max_shard_size=most)
    resume(path, SHARDED, max_shard_size=SHARD)
    assert verify(path).ok


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: text[:-3],
        lambda text: text.replace(b'"stream": 1', b'"stream": 99'),
        lambda text: text.replace(b"xavier_uniform", b"__import__"),
        lambda text: text.replace(b'"force"', b'"farce"'),
        lambda text: text.replace(b'"shape": [10000, 64]', b'"shape": [-1, 64]'),
        lambda text: text.replace(b'"shape": [10000, 64]', b'"shape": 7'),
        lambda text: text.replace(b'"max_shard_size": null', b'"max_shard_size": 5'),
        lambda text: text.replace(b'"max_shard_size": null', b'"max_shard_size": "x"'),
        lambda text: b"[" * 100_000,
        lambda text: b"[]",
        lambda text: b"\xff\xfe",
        lambda text: b'{"max_shard_size": null, "force": false, "tables": {}}',
        lambda text: b'{"max_shard_size": null, "force": false, "tables": []}',
    ],
)
def test_a_damaged_plan(tmp_path, damage):
    path, plan = tmp_path / "t.npy", tmp_path / "t.npy.partial.recipe.json"
    unfinished(path, middle())
    text = plan.read_bytes()
    assert damage(text) != text
    plan.write_bytes(damage(text))
    before = contents(tmp_path)
    for tables in (None, middle()):
        with pytest.raises((ValueError, TypeError)):
            resume(path, tables)
    assert contents(tmp_path) == before
    create(path, middle(), force=True)
    assert contents(tmp_path).keys() == {"t.npy", "t.npy.recipe.json"}
    assert whole(path, middle())


def test_the_plan_was_never_written(tmp_path):
    path = tmp_path / "t.npy"
    (tmp_path / "t.npy.partial").touch()
    with pytest.raises(FileNotFoundError):
        resume(path)
    with pytest.raises(FileExistsError, match="resume"):
        create(path, middle())
    assert resume(path, middle()) >= middle().nbytes
    assert whole(path, middle())
    assert contents(tmp_path).keys() == {"t.npy", "t.npy.recipe.json"}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, Stop])
def test_an_error_leaves_what_can_be_resumed(tmp_path, error, threads):
    path = tmp_path / "t.npy"

    def progress(done, total):
        if done > total / 2:
            raise error

    with pytest.raises(error) as caught:
        create(path, middle(), threads=threads, progress=progress)
    assert any("resume()" in note for note in caught.value.__notes__)
    assert sorted(os.listdir(tmp_path)) == ["t.npy.partial", "t.npy.partial.recipe.json"]
    with pytest.raises(error) as caught:
        resume(path, threads=threads, progress=progress)
    assert any("resume()" in note for note in caught.value.__notes__)
    assert 0 < resume(path, threads=threads) < middle().nbytes
    assert whole(path, middle())


# ---- parts, which resume puts together


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("ending", FORMATS)
def test_rows_in_any_order(tmp_path, ending, order):
    path = tmp_path / f"t{ending}"
    rows = [(0, 3000), (3000, 3001), (2500, 10_000)]
    for k in (*order, order[0]):
        first, last = rows[k]
        assert create(path, middle(), rows=rows[k]) == (last - first) * 256
        assert not path.exists()
    assert resume(path) == 0
    assert contents(tmp_path) == undisturbed(tmp_path / "want", path.name, middle())


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("tables", [middle(), {"w": middle(), "v": small()}, MIXED, Table((3, 1), seed=1, name="w")])
def test_shards_of_n(tmp_path, tables, n):
    path = tmp_path / "t.safetensors"
    parts = list(range(n))
    random.Random(n).shuffle(parts)
    written = [create(path, tables, shard=(k, n)) for k in parts]
    total = tables.nbytes if isinstance(tables, Table) else sum(table.nbytes for table in tables.values())
    assert sum(written) == total
    assert resume(path, tables) == 0
    assert contents(tmp_path) == undisturbed(tmp_path / "want", path.name, tables)


def test_a_shard_is_that_of_the_table(tmp_path):
    """Whole rows; elements only where there are fewer rows than shards."""
    path = tmp_path / "t.npy"
    assert create(path, middle(), shard=(2, 7)) == middle().shard(2, of=7).nbytes
    (ranges,) = (check.ranges for check in status(path).tensors)
    assert ranges == ((0, 20_000 // 7), (30_000 // 7, 10_000))
    wide = Table((2, 1000), seed=1, name="w")
    assert [create(tmp_path / "w.npy", wide, shard=(k, 4)) for k in range(4)] == [2000] * 4
    for shard in ((1,), (0, 1, 2), 3, "012"):
        with pytest.raises(TypeError, match="shard must be a pair"):
            create(tmp_path / "x.npy", wide, shard=shard)


def test_missing_parts_are_made(tmp_path):
    path = tmp_path / "t.npy"
    create(path, middle(), rows=(4000, 4001))
    assert create(path, middle(), rows=(7, 7)) == 0
    assert resume(path) == middle().nbytes
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", middle())


def test_a_part_of_a_finished_table(tmp_path):
    """A job that writes its part again, after another host has finished the table, has nothing left to do."""
    path = tmp_path / "t.npy"
    create(path, middle(), rows=(0, 5000))
    resume(path)
    before = contents(tmp_path)
    for part in ({"rows": (5000, 10_000)}, {"shard": (0, 3)}, {"rows": (0, 0)}):
        assert create(path, middle(), **part) == 0
    differs = pytest.raises(FileExistsError, match="already finished, and differs from the part")
    for other in (middle(seed=8), Table((10_000, 32), seed=7, name="items"), Table((10_001, 64), seed=7, name="items")):
        with differs:
            create(path, other, rows=(5000, 10_000))
    assert contents(tmp_path) == before
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert create(path, middle(), rows=(0, 9999)) == create(path, middle(), shard=(0, 2)) == 0
    for part in ({"rows": (9999, 10_000)}, {"shard": (1, 2)}):
        with differs:
            create(path, middle(), **part)
    path.write_bytes(data[:-1])
    with differs:
        create(path, middle(), rows=(0, 1))


@pytest.mark.parametrize("order", list(itertools.permutations((0, 1, 2))))
def test_parts_of_a_model_of_several_files(tmp_path, order):
    path = tmp_path / "m.safetensors"
    for k in order:
        create(path, SHARDED, shard=(k, 3), max_shard_size=SHARD)
        left = tuple(sorted(set(order) - set(order[: order.index(k) + 1])))
        assert status(path, shards=3).missing == left
    with pytest.raises(FileExistsError, match="another recipe"):
        create(path, SHARDED, shard=(0, 3), max_shard_size=SHARD + 10_000)
    assert resume(path) == 0
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "m.safetensors", SHARDED, max_shard_size=SHARD)
    assert create(path, SHARDED, shard=(2, 3), max_shard_size=SHARD) == 0
    assert status(path) == files.Status(True, files.verify(path).tensors)


# ---- resume, shared out


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize(
    "name, tables, options",
    [
        ("t.npy", middle(), {}),
        ("t.bin", middle(), {}),
        ("t.safetensors", MIXED, {}),
        ("m.safetensors", SHARDED, {"max_shard_size": SHARD}),
    ],
)
def test_resume_shared_out(tmp_path, name, tables, options, order):
    """The last of the hosts, whichever it is, gives the file its name."""
    path = tmp_path / name
    create(path, tables, shard=(1, 4), **options)
    written = []
    for k in order:
        assert not path.exists() and not (tmp_path / f"{name}.index.json").exists()
        assert not status(path).finished
        written.append(resume(path, shard=(k, 3)))
    want = undisturbed(tmp_path / "want", name, tables, **options)
    shutil.rmtree(tmp_path / "want")
    assert contents(tmp_path) == want
    total = sum(table.nbytes for table in (tables.values() if isinstance(tables, dict) else [tables]))
    assert 0 < sum(written) <= total
    assert [resume(path, shard=(k, 3)) for k in order] == [0, 0, 0]  # jobs that are run again
    assert contents(tmp_path) == want


def test_each_host_repairs_its_own_shard(tmp_path):
    path, partial = tmp_path / "t.npy", tmp_path / "t.npy.partial"
    create(path, middle(), rows=(0, 10_000))
    flip(partial, 8 * 1000, 8 * 2_500_000)
    assert resume(path, shard=(1, 3)) == 0
    assert resume(path, shard=(2, 3)) > 0
    assert resume(path, shard=(2, 3)) == 0
    flip(partial, 3)  # the header is everybody's
    assert resume(path, shard=(0, 3)) == BLOCK_BYTES + 128
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", middle())
    flip(path, 8 * 1000)
    assert resume(path, shard=(1, 3)) == 0
    assert resume(path, shard=(0, 3)) == BLOCK_BYTES


def test_records_are_those_of_one_division_and_one_plan(tmp_path):
    path, plan_file = tmp_path / "t.npy", tmp_path / "t.npy.partial.recipe.json"
    create(path, middle(), shard=(0, 2))
    resume(path, shard=(0, 2))
    resume(path, shard=(1, 3))
    assert not path.exists()
    (tmp_path / "t.npy.partial").unlink()  # nobody's shards are right any more
    resume(path, shard=(1, 2))
    assert not path.exists()
    resume(path, shard=(0, 2))
    assert whole(path, middle())
    assert sorted(os.listdir(tmp_path)) == ["t.npy", "t.npy.recipe.json"]
    create(tmp_path / "u.npy", middle(), shard=(0, 2))
    resume(tmp_path / "u.npy", shard=(0, 2))
    unfinished(tmp_path / "u.npy", middle(), force=True)  # which starts over
    resume(tmp_path / "u.npy", shard=(1, 2))
    assert not (tmp_path / "u.npy").exists()
    resume(tmp_path / "u.npy")
    assert whole(tmp_path / "u.npy", middle())
    assert not plan_file.exists() and len(os.listdir(tmp_path)) == 4


def test_a_failed_fsync_takes_the_records_back(tmp_path, monkeypatch):
    path = tmp_path / "t.npy"
    create(path, middle(), shard=(0, 2))
    resume(path, shard=(0, 2))
    real = os.fsync

    def fail(fd):
        if os.fstat(fd).st_size > 1_000_000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="fsync failed"):
            resume(path, shard=(1, 2))
    resume(path, shard=(1, 2))
    assert not path.exists()
    resume(path, shard=(0, 2))
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", middle())


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0), (0, 1.5), 1, (0, 1, 2), "01"])
def test_wrong_shards_of_resume(tmp_path, shard):
    create(tmp_path / "t.npy", middle(), shard=(0, 2))
    before = contents(tmp_path)
    with pytest.raises((TypeError, ValueError)):
        resume(tmp_path / "t.npy", shard=shard)
    assert contents(tmp_path) == before


def test_nothing_to_resume_together(tmp_path):
    with pytest.raises(FileNotFoundError):
        resume(tmp_path / "t.npy", shard=(0, 2))
    with pytest.raises(FileNotFoundError):
        resume(tmp_path / "t.npy", middle(), shard=(0, 2))
    (tmp_path / "t.npy.partial").touch()  # before a plan was written
    for k in range(2):
        resume(tmp_path / "t.npy", middle(), shard=(k, 2))
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", middle())


# ---- status


def test_status_of_rows_and_shards(tmp_path):
    path = tmp_path / "t.npy"
    with pytest.raises(FileNotFoundError, match="no such file, finished or unfinished"):
        status(path)
    for k in (0, 2, 4, 6):
        create(path, middle(), shard=(k, 7))
    assert status(path, shards=7).missing == status(f"{path}.partial", shards=7, threads=2).missing == (1, 3, 5)
    found = status(path)
    expected = tuple((10_000 * k // 7, 10_000 * (k + 1) // 7) for k in (1, 3, 5))  # whole rows
    assert found.tensors[0].ranges == expected and not found.finished and not found.complete
    assert status(path, shards=1).missing == (0,)
    before = contents(tmp_path)
    for k in (1, 3):
        create(path, middle(), shard=(k, 7))
    assert status(path, shards=7).missing == (5,)
    assert contents(tmp_path).keys() == before.keys()
    create(path, middle(), shard=(5, 7))
    assert status(path, shards=7).complete and status(path).complete and not status(path).finished
    os.truncate(f"{path}.partial", 1_000_000)
    assert status(path, shards=7).missing == (2, 3, 4, 5, 6)
    resume(path)
    assert status(path).finished and status(path, shards=7).complete
    for shards, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="shards must be"):
            status(path, shards=shards)


def test_status_of_files_that_nobody_has_begun(tmp_path):
    path = tmp_path / "m.safetensors"
    create(path, SHARDED, shard=(0, 2), max_shard_size=SHARD)
    os.unlink(next(tmp_path.glob("m-00002-*.partial")))
    assert status(path, shards=2).missing == (0, 1)
    lost = [check for check in status(path).tensors if check.differ == check.rows]
    assert lost and all(check.ranges == ((0, check.rows),) for check in lost)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"rows": (0, 5), "shard": (1, 2)}, ValueError),
        ({"rows": (-1, 5)}, ValueError),
        ({"rows": (6, 5)}, ValueError),
        ({"rows": (0, 1001)}, ValueError),
        ({"rows": (0, 10**30)}, ValueError),
        ({"rows": (0,)}, (TypeError, ValueError)),
        ({"rows": (0, 1, 2)}, (TypeError, ValueError)),
        ({"rows": 5}, TypeError),
        ({"rows": (0, 5.0)}, TypeError),
        ({"rows": (0.5, 5)}, TypeError),
        ({"rows": ("0", "5")}, TypeError),
        ({"shard": (2, 2)}, ValueError),
        ({"shard": (3, 2)}, ValueError),
        ({"shard": (-1, -1)}, ValueError),
        ({"shard": (1.0, 2)}, TypeError),
        ({"shard": (1, 2.0)}, TypeError),
        ({"shard": ("1", "2")}, TypeError),
        ({"shard": 1}, TypeError),
        ({"rows": (0, 5), "force": True}, ValueError),
        ({"rows": (0, 5), "threads": 0}, ValueError),
    ],
)
def test_wrong_parts_create_nothing(tmp_path, options, error):
    with pytest.raises(error):
        create(tmp_path / "t.npy", small(), **options)
    assert os.listdir(tmp_path) == []


def test_rows_of_many_tables_and_parts_of_many_files(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="shard"):
        create(path, SHARDED, rows=(0, 5))
    with pytest.raises(ValueError, match="shard"):
        create(path, SHARDED, rows=(0, 5), max_shard_size=SHARD)
    assert os.listdir(tmp_path) == []
