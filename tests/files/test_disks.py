"""Disks that fail under a table: full ones, limits, failed fsync, folders that cannot be written or vanish."""

import errno
import itertools
import os
import shutil
import stat
import subprocess
import tempfile
import textwrap
from contextlib import contextmanager

import pytest
from file_support import FORMATS, SHARD, SHARDED, contents, finish, middle, small, undisturbed, unfinished, whole
from support import run

from xavierfast.files import create, estimate, resume, target, verify

# ---- full disks and limits


def in_a_small_disk(folder, size, code):
    """Run with a full-size limit on `folder`, which is a file system of its own there."""
    mount = f'mount -t tmpfs -o size={size} tmpfs "{folder}" && exec "$@"'
    command = ["unshare", "-Urm", "sh", "-c", mount, "sh"]
    try:
        able = subprocess.run([*command, "true"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        able = False
    if not able:
        pytest.skip("this machine cannot mount a small file system")
    prelude = f"""
        import os, re, sys
        from errno import ENOSPC, ENOSYS
        from xavierfast import Table, files
        from xavierfast.files import create, resume, verify

        folder = {os.fspath(folder)!r}
        os.chdir(folder)
        table = Table((20_000, 64), seed=7, name="items")  # 5,120,128 bytes

        def full(call):
            try:
                call()
            except OSError as error:
                assert error.errno == ENOSPC, error
                return str(error)
            raise SystemExit("there was room")
    """
    run(textwrap.dedent(prelude) + textwrap.dedent(code), command=command)


def test_a_full_disk_is_told_before_the_first_byte(tmp_path):
    in_a_small_disk(
        tmp_path,
        "4m",
        """
        sharded = {f"w{k}": Table((1000, 256), seed=7, name=f"w{k}") for k in range(5)}
        def fallocate(fd, nbytes):
            raise SystemExit("asked for all of the space of a disk that is known to be too small")

        for answer in (fallocate, lambda fd, nbytes: ENOSYS):
            sys.modules['xavierfast.files.target'].fallocate = answer
            assert files.estimate("t.npy", table)[::2] == (5_120_128, None)
            stat = os.statvfs(".")
            free = stat.f_bavail * stat.f_frsize
            text = full(lambda: create("t.npy", table))
            needs, says = (int(n.replace(",", "")) for n in re.findall(r"[0-9,]{5,}", text))
            assert needs == 5_120_128, text
            assert free - 65536 <= says <= free, (text, free)  # the plan takes a page
            assert os.listdir() == []
            calls = []
            progress = lambda *pair: calls.append(pair)
            full(lambda: create("m.safetensors", sharded, max_shard_size=1_100_000, progress=progress))
            assert (calls, os.listdir()) == ([], [])
        """,
    )


def test_a_disk_that_fills_meanwhile(tmp_path):
    in_a_small_disk(
        tmp_path,
        "8m",
        """
        sys.modules['xavierfast.files.target'].fallocate = lambda fd, nbytes: ENOSYS

        def hog(done, total):
            if done == 1 << 20:
                try:
                    with open("hog", "wb", buffering=0) as file:
                        while file.write(bytes(65536)):
                            pass
                except OSError:
                    pass

        full(lambda: create("t.npy", table, threads=1, progress=hog))
        assert sorted(os.listdir()) == ["hog", "t.npy.partial", "t.npy.partial.recipe.json"]
        full(lambda: resume("t.npy"))
        os.unlink("hog")
        resume("t.npy")
        assert sorted(os.listdir()) == ["t.npy", "t.npy.recipe.json"]
        assert verify("t.npy").ok
        """,
    )


def test_a_file_size_limit(tmp_path):
    run(f"""
        import os, resource, sys
        from errno import EFBIG, ENOSYS
        from xavierfast import Table, files

        os.chdir({os.fspath(tmp_path)!r})
        table = Table((20_000, 64), seed=7, name="items")
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, unlimited[1]))

        def too_large(call):
            try:
                call()
            except OSError as error:
                assert error.errno == EFBIG, error
            else:
                raise SystemExit("no limit")

        limit()
        too_large(lambda: files.create("t.npy", table))
        assert os.listdir() == [], os.listdir()
        sys.modules['xavierfast.files.target'].fallocate = lambda fd, nbytes: ENOSYS
        too_large(lambda: files.create("t.npy", table))
        assert os.listdir() == [], os.listdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        too_large(lambda: files.create("t.npy", table, threads=1, progress=limit))
        assert sorted(os.listdir()) == ["t.npy.partial", "t.npy.partial.recipe.json"]
        too_large(lambda: files.resume("t.npy"))
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        files.resume("t.npy")
        assert sorted(os.listdir()) == ["t.npy", "t.npy.recipe.json"]
        assert files.verify("t.npy").ok
    """)


def test_what_is_written_already_needs_no_room(tmp_path, monkeypatch):
    """On a file system that cannot promise space, which has none left, a part with all its bytes is finished."""
    table = small()
    create(tmp_path / "t.npy", table, rows=(0, table.shape[0]))
    monkeypatch.setattr(target, "fallocate", lambda fd, nbytes: errno.ENOTSUP)
    full = os.statvfs_result([4096, 4096, 1000, 0, 0, 1000, 900, 900, 0, 255])
    monkeypatch.setattr(os, "statvfs", lambda fd: full)
    assert resume(tmp_path / "t.npy") == 0
    with pytest.raises(OSError, match="No space left on device"):
        create(tmp_path / "u.npy", table)
    assert whole(tmp_path / "t.npy", table)


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC])
@pytest.mark.parametrize("part", [{}, {"shard": (0, 2)}])
def test_space_that_the_system_refuses(tmp_path, monkeypatch, code, part):
    """A quota shows only when the space is reserved; the message has what is needed and what is free."""
    monkeypatch.setattr(target, "fallocate", lambda fd, nbytes: code)
    with pytest.raises(OSError, match=r"256,128 bytes are needed, and [0-9,]+ are free") as caught:
        create(tmp_path / "t.npy", small(), **part)
    assert caught.value.errno == code
    assert ("a quota" in str(caught.value)) == (code == errno.EDQUOT)
    assert part or os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC, errno.EFBIG])
def test_an_estimate_whose_trial_has_no_room(tmp_path, monkeypatch, code):
    def full(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", full)
    found = estimate(tmp_path / "t.npy", middle())
    assert (found.nbytes, found.seconds) == (2_560_128, None)
    assert found.free > 0


def test_the_room_for_all_files_is_looked_at_before_any_is_made(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)
    total = sum(table.nbytes for table in SHARDED.values())
    few = os.statvfs_result((1, 1, total, total - 1, total - 1, *real[5:]))  # less than all of them, enough for each
    monkeypatch.setattr(os, "statvfs", lambda fd: few)
    with pytest.raises(OSError, match=f"are needed, and {total - 1:,} are free") as caught:
        create(tmp_path / "m.safetensors", SHARDED, max_shard_size=SHARD)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


# ---- failed fsync


def test_a_failed_fsync_of_the_table(tmp_path, monkeypatch):
    path = tmp_path / "t.npy"
    real = os.fsync

    def fail(fd):
        if os.fstat(fd).st_size > small().nbytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="fsync failed") as caught:
            create(path, small())
    assert caught.value.errno == errno.EIO
    assert not path.exists()
    assert not (tmp_path / "t.npy.partial").exists()
    assert resume(path) >= small().nbytes
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", small())


@pytest.mark.parametrize("name, tables, most", [("t.npy", small(), None), ("m.safetensors", SHARDED, SHARD)])
def test_any_failed_fsync(tmp_path, monkeypatch, name, tables, most):
    want = undisturbed(tmp_path / "want", name, tables, max_shard_size=most)
    real = os.fsync
    for k in itertools.count():
        folder = tmp_path / f"{k}"
        folder.mkdir()
        calls = itertools.count()

        def fail(fd, k=k, calls=calls):
            if next(calls) == k:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            try:
                create(folder / name, tables, max_shard_size=most)
                break
            except OSError as error:
                assert error.errno == errno.EIO
        finish(folder / name, tables, max_shard_size=most)
        assert contents(folder) == want
    assert k >= 4


# ---- folders that change


@contextmanager
def unprivileged():
    """Root may write anywhere."""
    root = not os.geteuid()
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_folder():
    folder = tempfile.mkdtemp()  # whose parents anybody may pass, unlike those of tmp_path
    try:
        create(f"{folder}/t.npy", small())
        unfinished(f"{folder}/u.npy", middle())
        before = sorted(os.listdir(folder))
        os.chmod(folder, 0o555)
        with unprivileged():
            for call in (
                lambda: create(f"{folder}/v.npy", small()),
                lambda: create(f"{folder}/t.npy", small(8), force=True),
                lambda: create(f"{folder}/v.npy", small(), rows=(0, 5)),
                lambda: resume(f"{folder}/u.npy"),
                lambda: verify(f"{folder}/t.npy", report=f"{folder}/r.npy"),
            ):
                with pytest.raises(PermissionError):
                    call()
            assert verify(f"{folder}/t.npy").ok
            assert estimate(f"{folder}/v.npy", small()).seconds is None
        assert sorted(os.listdir(folder)) == before
    finally:
        os.chmod(folder, stat.S_IRWXU)
        shutil.rmtree(folder)


def test_the_folder_is_renamed(tmp_path):
    (tmp_path / "here").mkdir()

    def progress(done, total):
        if not done:
            (tmp_path / "here").rename(tmp_path / "there")
            (tmp_path / "here").mkdir()

    create(tmp_path / "here" / "t.npy", middle(), progress=progress)
    assert os.listdir(tmp_path / "here") == []
    assert whole(tmp_path / "there" / "t.npy", middle())
    assert verify(tmp_path / "there" / "t.npy").ok


@pytest.mark.parametrize("ending", FORMATS)
def test_the_folder_is_removed(tmp_path, ending):
    def progress(done, total):
        if not done:
            shutil.rmtree(tmp_path / "here")

    (tmp_path / "here").mkdir()
    with pytest.raises(FileNotFoundError):
        create(tmp_path / "here" / f"t{ending}", middle(), progress=progress)
    assert os.listdir(tmp_path) == []
