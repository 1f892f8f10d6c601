"""What is in the way of a table on disk stays as it is: files, leftovers, folders, symlinks and pipes."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import socket

import numpy as np
import pytest
from file_support import FORMATS, SHARD, SHARDED, Stop, contents, middle, small, undisturbed, unfinished, whole
from support import run

from xavierfast import files
from xavierfast.files import (
    FormatError,
    create,
    estimate,
    handles,
    load,
    measure,
    posix,
    reader,
    resume,
    target,
    verify,
)

# ---- files, folders and leftovers


@pytest.mark.parametrize("ending", FORMATS)
def test_what_exists_stays(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.write_bytes(b"precious")
    before = path.stat()
    with pytest.raises(FileExistsError, match="force"):
        create(path, small())
    with pytest.raises(FileExistsError):
        estimate(path, small())
    assert contents(tmp_path) == {path.name: b"precious"}
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    create(path, small(), force=True)
    assert verify(path).ok


@pytest.mark.parametrize("name", ["m-00002-of-00003.safetensors", "m.safetensors.index.json"])
def test_any_file_of_a_set_that_exists_stays(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=re.escape(name)):
        create(tmp_path / "m.safetensors", SHARDED, max_shard_size=SHARD)
    assert contents(tmp_path) == {name: b"precious"}
    create(tmp_path / "m.safetensors", SHARDED, max_shard_size=SHARD, force=True)
    assert verify(tmp_path / "m.safetensors").ok


def test_a_set_beside_a_file_of_its_name(tmp_path):
    """Readers prefer the single file to the index, so a new set must not hide behind an old file."""
    path = tmp_path / "m.safetensors"
    create(path, {name: table.shard(slice(0, 9)) for name, table in SHARDED.items()})
    before = contents(tmp_path)
    with pytest.raises(FileExistsError):
        create(path, SHARDED, max_shard_size=SHARD)
    assert contents(tmp_path) == before


def test_force_keeps_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "t.npy"
    create(path, small(8))
    old = contents(tmp_path)
    seen = []

    def progress(done, total):
        seen.append(contents(tmp_path).items() >= old.items())
        if done == total:
            raise Stop

    with pytest.raises(Stop):
        create(path, middle(), force=True, threads=1, progress=progress)
    assert len(seen) > 2
    assert all(seen)
    assert contents(tmp_path).items() >= old.items()
    assert verify(path).ok
    resume(path)
    assert whole(path, middle())
    assert contents(tmp_path).keys() == old.keys()


def test_force_begins_again(tmp_path):
    path = tmp_path / "m.safetensors"
    unfinished(path, SHARDED, 1, max_shard_size=SHARD)
    assert len(os.listdir(tmp_path)) == 4
    with pytest.raises(FileExistsError, match="unfinished"):
        create(path, small())
    create(path, small(), force=True)
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "m.safetensors", small())


@pytest.mark.parametrize("stale", [json.dumps(small(8).recipe), "", "[]", "{", '{"a":' * 10_000])
def test_a_stale_sidecar(tmp_path, stale):
    path, sidecar = tmp_path / "t.npy", tmp_path / "t.npy.recipe.json"
    sidecar.write_text(stale)
    with pytest.raises(FileExistsError, match="recipe"):
        create(path, small())
    assert contents(tmp_path) == {sidecar.name: stale.encode()}
    create(path, small(), force=True)
    assert verify(path).ok


def test_the_sidecar_of_a_removed_table(tmp_path):
    path = tmp_path / "t.npy"
    create(path, small())
    before = contents(tmp_path)
    path.unlink()
    create(path, small())
    assert contents(tmp_path) == before


NAMES = ["t.npy", "t.npy.partial", "t.npy.recipe.json", "t.npy.partial.recipe.json"]


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # a socket's path is short
        server.bind(path.name)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("make", "kind"), [(os.mkdir, "a folder"), (os.mkfifo, "a named pipe"), (make_socket, "a device or a socket")]
)
def test_only_files_can_be_replaced(tmp_path, name, force, make, kind):
    make(tmp_path / name)
    with pytest.raises(FileExistsError) as caught:
        create(tmp_path / "t.npy", small(), force=force)
    final = "replaces only files and symlinks" in str(caught.value)
    assert final == ("partial" not in name)
    assert f"is {kind}" in str(caught.value)
    assert caught.value.filename == name
    assert os.listdir(tmp_path) == [name]


# ---- symlinks and pipes


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_symlinks_are_not_followed(tmp_path, name, dangling):
    victim, here = tmp_path / "victim", tmp_path / "here"
    here.mkdir()
    if not dangling:
        victim.write_bytes(b"precious")
    (here / name).symlink_to(victim)
    with pytest.raises(FileExistsError, match="symlink"):
        create(here / "t.npy", small())
    assert os.listdir(here) == [name]
    if "partial" in name:
        with pytest.raises(FileExistsError, match="symlink"):
            create(here / "t.npy", small(), force=True)
    else:  # the link itself is what force replaces
        create(here / "t.npy", small(), force=True)
        assert whole(here / "t.npy", small())
        assert not (here / name).is_symlink()
    assert victim.exists() != dangling
    assert dangling or victim.read_bytes() == b"precious"


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_resume_follows_no_symlink(tmp_path, name, dangling):
    victim, here = tmp_path / "victim", tmp_path / "here"
    here.mkdir()
    unfinished(here / "t.npy", middle())
    if not dangling:
        victim.write_bytes(b"precious")
    (here / name).unlink(missing_ok=True)
    (here / name).symlink_to(victim)
    if name == "t.npy.recipe.json":  # a rename replaces the link
        resume(here / "t.npy")
        assert whole(here / "t.npy", middle())
    else:
        with pytest.raises(OSError, match=r"symlink|created in the meantime"):
            resume(here / "t.npy", middle())
    assert victim.exists() != dangling
    assert dangling or victim.read_bytes() == b"precious"


def test_a_report_follows_no_symlink(tmp_path):
    create(tmp_path / "t.npy", small())
    (tmp_path / "r.npy").symlink_to(tmp_path / "victim.npy")
    with pytest.raises(OSError):
        verify(tmp_path / "t.npy", report=tmp_path / "r.npy")
    assert not (tmp_path / "victim.npy").exists()


def test_fifos_do_not_hang(tmp_path):
    run(
        f"""
        import os
        from pathlib import Path
        from xavierfast import Table
        from xavierfast.files import create, measure, load, resume, tables_of, verify

        table = Table((1000, 64), seed=7)
        for name in {NAMES!r}:
            folder = Path({os.fspath(tmp_path)!r}) / name
            folder.mkdir()
            path = folder / "t.npy"
            os.mkfifo(folder / name)
            calls = [lambda: create(path, table), lambda: create(path, table, force=True)]
            calls.append(lambda: create(path, table, rows=(0, 5)))
            calls.append(lambda: resume(path, table))
            calls += [lambda: f(path) for f in (verify, measure, tables_of)]
            for k, call in enumerate(calls):
                try:
                    call()
                except OSError:
                    continue
                if name != "t.npy.recipe.json" or k < 2:  # which a part does not need yet, and resume replaces
                    raise SystemExit(f"{{name}} {{k}} raised nothing")
        """,
        timeout=30,
    )


# ---- files of others


def foreign(path):
    """Let a file belong to another user, which only root can do."""
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 65534, -1)


@pytest.mark.parametrize("name", ["t.npy.partial", "t.npy.partial.recipe.json"])
def test_unfinished_files_of_another_user(tmp_path, name):
    path = tmp_path / "t.npy"
    create(path, small(), shard=(0, 2))
    (tmp_path / name).chmod(0o666)
    foreign(tmp_path / name)
    before = contents(tmp_path)
    for call in (
        lambda: resume(path),
        lambda: resume(path, small(), shard=(0, 2)),
        lambda: create(path, small(), shard=(1, 2)),
        *[lambda: create(path, small(), force=True)] * ("recipe" in name),
    ):
        with pytest.raises(PermissionError, match=r"belongs to another user \(uid 65534\)") as caught:
            call()
        assert caught.value.filename == name
        assert contents(tmp_path) == before


def test_a_record_of_another_user_proves_nothing(tmp_path):
    path = tmp_path / "t.npy"
    create(path, small(), shard=(0, 2))
    identity = json.loads((tmp_path / "t.npy.partial.recipe.json").read_text())["identity"]
    record = tmp_path / "t.npy.partial.verified-1-of-2"
    record.write_text(identity)
    foreign(record)
    with pytest.raises(PermissionError, match="belongs to another user"):
        resume(path, shard=(0, 2))
    assert not path.exists()
    record.write_text("0" * 32)  # of an earlier table
    os.chown(record, os.geteuid(), -1)
    resume(path, shard=(0, 2))
    assert not path.exists()
    resume(path, shard=(1, 2))
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", small())


@pytest.mark.parametrize("begun", [False, True])
def test_a_hard_link_in_the_place_of_an_unfinished_file(tmp_path, begun):
    path, victim = tmp_path / "t.npy", tmp_path / "victim"
    victim.write_bytes(b"precious")
    if begun:
        create(path, small(), shard=(0, 2))
        (tmp_path / "t.npy.partial").unlink()
    os.link(victim, tmp_path / "t.npy.partial")
    for call in (
        lambda: create(path, small(), shard=(1, 2)),
        lambda: resume(path, small()),
        lambda: resume(path, small(), shard=(1, 2)),
    ):
        with pytest.raises(PermissionError, match="hard link"):
            call()
        assert victim.read_bytes() == b"precious"
    create(path, small(), force=True)
    assert (victim.read_bytes(), whole(path, small())) == (b"precious", True)


@pytest.mark.parametrize("mode", [None, "r", "r+", "c"])
@pytest.mark.parametrize("swap", ["another table", "a pipe", "a symlink", "nothing"])
def test_load_opens_a_file_once(tmp_path, monkeypatch, mode, swap):
    """Whatever takes the file's place after it was opened, the array is that of the file that was judged."""
    path = tmp_path / "t.npy"
    create(path, small())
    create(tmp_path / "other.npy", small(8))
    real = reader.read_image

    def swapped(*arguments):
        image = real(*arguments)
        path.rename(tmp_path / "old.npy")
        if swap == "another table":
            os.link(tmp_path / "other.npy", path)
        elif swap == "a pipe":
            os.mkfifo(path)
        elif swap == "a symlink":
            path.symlink_to("other.npy")
        return image

    monkeypatch.setattr(reader, "read_image", swapped)
    array = load(path, mode)
    assert array.tobytes() == small().read().tobytes()
    if mode == "r+":
        array[0] = 0
        array.flush()
        assert not np.load(tmp_path / "old.npy")[0].any()
    assert np.load(tmp_path / "other.npy").tobytes() == small(8).read().tobytes()


def test_a_symlink_is_not_mapped_to_write(tmp_path):
    create(tmp_path / "real.npy", small())
    (tmp_path / "t.npy").symlink_to("real.npy")
    (tmp_path / "t.npy.recipe.json").symlink_to("real.npy.recipe.json")
    for mode in (None, "r", "c"):
        assert load(tmp_path / "t.npy", mode).tobytes() == small().read().tobytes()
    with pytest.raises(OSError, match="symlink"):
        load(tmp_path / "t.npy", "r+")


# ---- calls that fail after a file was opened


@pytest.mark.parametrize("part", [{}, {"shard": (0, 2)}, {"force": True}])
@pytest.mark.parametrize("function", ["fstat", "flock", "stat", "fchmod", "statvfs", "ftruncate"])
def test_a_failed_call_names_its_file_and_leaves_nothing(tmp_path, monkeypatch, function, part):
    """One after the other, each call of a function fails."""
    path = tmp_path / "t.npy"
    owner = fcntl if function == "flock" else os
    real = getattr(owner, function)
    if "force" in part:
        create(path, small(8))
    before = contents(tmp_path)
    for k in range(100):
        count = itertools.count()

        def fail(*arguments, k=k, count=count, **options):
            if next(count) == k:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, function, fail)
            patch.setattr(target, "fallocate", lambda fd, nbytes: errno.ENOSYS)
            try:
                create(path, small(), **part)
                break
            except OSError as error:
                assert error.filename, (k, function)
                notes = getattr(error, "__notes__", ())
        left = contents(tmp_path)
        if left != before:  # bytes of the table had been written
            assert any("call resume() to finish it" in note for note in notes), (k, function, sorted(left))
            for name in left.keys() - before.keys():
                (tmp_path / name).unlink()
            for name, data in before.items():
                (tmp_path / name).write_bytes(data)
    assert k < 99


def test_a_header_that_becomes_shorter(tmp_path, monkeypatch):
    for name in ("t.npy", "t.safetensors"):
        path = tmp_path / name
        create(path, small())
        for left in (0, 5, 7, 50):
            with monkeypatch.context() as patch:
                patch.setattr(
                    handles, "pread", lambda fd, count, offset, left=left: os.pread(fd, min(count, left), offset)
                )
                with pytest.raises(FormatError):
                    verify(path, small())


# ---- another order of bytes


@pytest.mark.parametrize("name", ["t.npy", "t.bin", "t.safetensors"])
def test_a_big_endian_machine_is_refused(tmp_path, name, monkeypatch):
    create(tmp_path / f"old.{name}", small())
    before = contents(tmp_path)
    monkeypatch.setattr("sys.byteorder", "big")
    calls = [lambda: create(tmp_path / name, small()), lambda: create(tmp_path / name, small(), rows=(0, 1))]
    for call in (*calls, lambda: verify(tmp_path / f"old.{name}"), lambda: measure(tmp_path / f"old.{name}")):
        with pytest.raises(OSError, match="tables on disk are little-endian"):
            call()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("path", ["s3://bucket/t.npy", "gs://bucket/a/t.npy", "file:///tmp/t.npy"])
def test_urls_are_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (lambda: create(path, small()), lambda: resume(path), lambda: verify(path), lambda: files.status(path)):
        with pytest.raises(
            ValueError, match=f"got '{path}': xavierfast.dask.create writes zarr arrays to object stores"
        ):
            call()
    assert not os.listdir()


def test_an_error_about_a_descriptor_names_the_file():
    with pytest.raises(OSError) as caught, posix.about("t.npy"):
        os.listdir(10**6)  # whose error has the descriptor in place of a name
    assert caught.value.filename == "t.npy"
