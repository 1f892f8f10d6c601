"""Several at once: processes and threads that make one table, and files that appear meanwhile."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
import threading

import pytest
from file_support import contents, middle, small, undisturbed, whole

from xavierfast import Table
from xavierfast.files import blocks, create, plan, posix, resume, verify

# ---- processes


class Workers:
    """Processes that run a function of a path at the same time."""

    def __init__(self, *bodies):
        self.processes = []
        for body in bodies:
            code = f"""
                import sys
                from xavierfast import Table
                from xavierfast.files import create, resume, verify
                for path in map(str.strip, sys.stdin):
                    try:
                        {body}
                        print("done", flush=True)
                    except OSError as error:
                        print(type(error).__name__, flush=True)
            """
            command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.processes.append(subprocess.Popen(command, **pipes))

    def __enter__(self):
        return self

    def __call__(self, path):
        for process in self.processes:
            process.stdin.write(f"{path}\n")
        for process in self.processes:
            process.stdin.flush()
        return [process.stdout.readline().strip() for process in self.processes]

    def __exit__(self, *_):
        for process in self.processes:
            process.communicate()


def test_two_creators(tmp_path):
    body = "create(path, Table((10_000, 64), seed=7, name='items'))"
    with Workers(body, body) as workers:
        workers(tmp_path / "none" / "t.npy")  # both have begun
        for k in range(12):
            path = tmp_path / f"{k}" / "t.npy"
            path.parent.mkdir()
            answers = workers(path)
            assert answers.count("done") == 1
            assert set(answers) <= {"done", "FileExistsError", "BlockingIOError"}
            assert whole(path, middle())
            assert sorted(os.listdir(path.parent)) == ["t.npy", "t.npy.recipe.json"]


def test_parts_of_several_processes(tmp_path):
    bodies = [f"create(path, Table((10_000, 64), seed=7, name='items'), shard=({k}, 3))" for k in range(3)]
    want = undisturbed(tmp_path / "want", "t.npy", middle())
    with Workers(*bodies) as workers:
        workers(tmp_path / "none" / "t.npy")
        for k in range(5):
            path = tmp_path / f"{k}" / "t.npy"
            path.parent.mkdir()
            assert workers(path) == ["done"] * 3
            assert not path.exists()
            assert resume(path) == 0
            assert contents(path.parent) == want


def test_hosts_that_share_a_resume(tmp_path):
    """All end at about the same time, and one of them gives the file its name."""
    bodies = [f"resume(path, shard=({k}, 3))" for k in range(3)]
    want = undisturbed(tmp_path / "want", "t.npy", middle())
    with Workers(*bodies) as workers:
        workers(tmp_path / "none" / "t.npy")
        for k in range(12):
            path = tmp_path / f"{k}" / "t.npy"
            path.parent.mkdir()
            create(path, middle(), shard=(0, 2))
            assert workers(path) == ["done"] * 3
            assert contents(path.parent) == want


# ---- one after the other, at the worst moment


@pytest.fixture
def at_first_opening(monkeypatch):
    """Do something after a call has looked at the folder, before it opens the first file of its own."""

    def arrange(action):
        real = plan.write_locked

        def write_locked(*arguments):
            monkeypatch.setattr(plan, "write_locked", real)
            action()
            return real(*arguments)

        monkeypatch.setattr(plan, "write_locked", write_locked)

    return arrange


def test_a_creator_that_looked_too_early(tmp_path, at_first_opening):
    path = tmp_path / "t.npy"
    theirs = undisturbed(tmp_path / "theirs", "t.npy", small(8))
    shutil.rmtree(tmp_path / "theirs")
    at_first_opening(lambda: create(path, small(8)))
    with pytest.raises(FileExistsError):
        create(path, small())
    assert path.read_bytes() == theirs["t.npy"]
    assert verify(path).ok
    assert contents(tmp_path) == theirs


def test_a_part_that_looked_too_early(tmp_path, at_first_opening):
    path = tmp_path / "t.npy"
    create(path, small(), rows=(0, 5))
    at_first_opening(lambda: resume(path))
    with pytest.raises(FileExistsError):
        create(path, small(), rows=(5, 10))
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", small())


@pytest.mark.parametrize("rows", [None, (0, 5)])
def test_whoever_completes_it_removes_the_beginning_of_another(tmp_path, rows, monkeypatch):
    """The temporary file of a second process' plan looks like one that a crash has left."""
    path, real = tmp_path / "t.npy", posix.move

    def move(folder, source, target, replace):
        monkeypatch.setattr(posix, "move", real)
        create(path, small())
        real(folder, source, target, replace)

    monkeypatch.setattr(posix, "move", move)
    with pytest.raises(FileExistsError, match="another process has just completed"):
        create(path, small(), rows=rows)
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", small())


@pytest.mark.parametrize("rows", [None, (0, 9000)])
def test_nobody_else_while_it_is_written(tmp_path, rows):
    path = tmp_path / "t.npy"
    errors = []

    def progress(done, total):
        if done:
            return
        for call in (
            lambda: resume(path),
            lambda: resume(path, middle()),
            lambda: create(path, middle()),
            lambda: create(path, middle(), force=True),
            lambda: create(path, middle(), force=True, rows=(0, 5)),
            *[lambda: create(path, middle(), rows=(0, 5))] * (rows is None),
        ):
            with pytest.raises((BlockingIOError, FileExistsError, ValueError)) as caught:
                call()
            errors.append(type(caught.value))

    create(path, middle(), rows=rows, progress=progress)
    expected = [BlockingIOError] * 4 + [ValueError]
    assert errors == expected + [BlockingIOError] * (rows is None)
    if rows:
        resume(path)
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", middle())


@pytest.mark.parametrize("name", ["t.npy", "m.safetensors"])
def test_whoever_is_giving_names_is_let_finish(tmp_path, name, monkeypatch):
    """No file is partial any more, and the plan still stands: others may not take that for something abandoned."""
    table, options = (
        (small(), {}) if name == "t.npy" else ({"a": small(), "b": small()}, {"max_shard_size": small().nbytes})
    )
    move, refused = plan.move, []

    def others_come(folder, source, target, replace):
        move(folder, source, target, replace)
        for call in (lambda: create(tmp_path / name, table, force=True, **options), lambda: resume(tmp_path / name)):
            with pytest.raises(BlockingIOError, match="another process is writing this file"):
                call()
            refused.append(target)

    monkeypatch.setattr(plan, "move", others_come)
    create(tmp_path / name, table, **options)
    assert len(refused) == 2 * (1 if name == "t.npy" else 2)
    monkeypatch.undo()
    assert contents(tmp_path) == undisturbed(tmp_path / "alone", name, table, **options)


def test_somebody_finishes_meanwhile(tmp_path):
    """A file of this name that another program wrote stays as it is, and so does what describes it."""
    path = tmp_path / "t.npy"
    theirs = undisturbed(tmp_path / "theirs", "t.npy", small(8))
    shutil.rmtree(tmp_path / "theirs")

    def progress(done, total):
        if done == total:
            for name, data in theirs.items():
                (tmp_path / name).write_bytes(data)

    with pytest.raises(FileExistsError, match="has been created in the meantime"):
        create(path, small(), progress=progress)
    assert path.read_bytes() == theirs["t.npy"]
    with pytest.raises(FileExistsError):
        resume(path)
    assert contents(tmp_path).items() >= theirs.items()
    for name in theirs:
        (tmp_path / name).unlink()
    assert resume(path) == 0
    assert whole(path, small())


def test_the_partial_is_another_by_now(tmp_path):
    """The file published under the name is the one written, not one that another program put in its place."""
    path, partial = tmp_path / "t.npy", tmp_path / "t.npy.partial"

    def progress(done, total):
        if done == total:
            partial.unlink()
            partial.write_bytes(b"half of another")

    with pytest.raises(OSError):
        create(path, small(), progress=progress)
    assert not path.exists()


def test_hosts_with_different_seeds(tmp_path):
    path = tmp_path / "t.npy"
    create(path, middle(), rows=(0, 5000))
    before = contents(tmp_path)
    for other in (middle(8), Table((10_000, 64), name="items"), small()):
        with pytest.raises(FileExistsError, match="another recipe"):
            create(path, other, rows=(0, 100))
        assert contents(tmp_path) == before


# ---- threads


def test_a_thread_that_finds_its_block_right_hides_no_other(tmp_path, monkeypatch):
    """The first block is read while the second one is found to differ."""
    path = tmp_path / "t.npy"
    create(path, middle())
    with path.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damaged")
    monkeypatch.setattr(blocks, "PARALLEL_MIN_BYTES", 0)
    real, differing = blocks.read_block, threading.Event()

    def read_block(span, first, last, buffer):
        found = real(span, first, last, buffer)
        if not found[1]:
            differing.set()
        elif not first:
            assert differing.wait(30)
        return found

    monkeypatch.setattr(blocks, "read_block", read_block)
    with pytest.raises(FileExistsError, match="already finished, and differs"):
        create(path, middle(), shard=(0, 1), threads=2)


def test_many_threads_of_one_process_make_tables(tmp_path):
    def make(k):
        create(tmp_path / f"{k}.npy", middle(k), threads=1 + k % 3)
        results[k] = verify(tmp_path / f"{k}.npy").ok

    results = [None] * 8
    callers = [threading.Thread(target=make, args=(k,)) for k in range(len(results))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [True] * 8


# ---- file systems without locks


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path, monkeypatch, code):
    """One warning in a process, however many files it writes."""

    def flock(fd, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(posix, "_warned_of_locks", False)
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(RuntimeWarning, match="no locks.*only one process at a time may write a table here") as caught:
        for name in ("t.npy", "u.npy"):
            create(tmp_path / name, middle(), shard=(0, 2))
            resume(tmp_path / name)
            assert whole(tmp_path / name, middle())
    assert len(caught) == 1


def test_a_lock_that_fails(tmp_path, monkeypatch):
    def flock(fd, how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    for part in ({}, {"shard": (0, 2)}):
        with pytest.raises(OSError, match="Input/output error") as caught:
            create(tmp_path / "t.npy", middle(), **part)
        assert caught.value.filename == "t.npy.partial.recipe.json"
        assert os.listdir(tmp_path) == []
