"""Finished tables: resume verifies them, repairs what is damaged, and never reports success over another table."""

import json
import os
import re
import stat

import numpy as np
import pytest
from file_support import BLOCK_BYTES, FORMATS, SHARD, SHARDED, contents, flip, middle, small, undisturbed

from xavierfast import Table
from xavierfast.files import FormatError, create, resume, verify

DAMAGES = {
    "truncated to nothing": lambda path: os.truncate(path, 0),
    "truncated in the header": lambda path: os.truncate(path, 100),
    "truncated": lambda path: os.truncate(path, 1_000_000),
    "without its last byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 1000),
    "a bit of the header": lambda path: flip(path, 8 * 20 + 1),
    "a bit": lambda path: flip(path, 8 * 1_000_000 + 5),
    "all of it": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", FORMATS)
def test_a_damaged_file(tmp_path, ending, damage, given):
    path = tmp_path / f"t{ending}"
    create(path, middle())
    want, inode = contents(tmp_path), path.stat().st_ino
    DAMAGES[damage](path)
    damaged = contents(tmp_path)
    in_header = ending == ".safetensors" and damage in [*list(DAMAGES)[:2], "a bit of the header", "all of it"]
    if in_header and not given:  # the recipe was in the header
        with pytest.raises(FormatError) as caught:
            resume(path)
        assert any("call resume() with the tables" in note for note in caught.value.__notes__)
        assert contents(tmp_path) == damaged
        return
    if in_header and damage == "all of it":  # which could be the file of something else
        with pytest.raises(FileExistsError, match="differs from the table; move it away, or pass force=True"):
            resume(path, middle())
        assert contents(tmp_path) == damaged
        return
    written = resume(path, middle() if given else None)
    assert contents(tmp_path) == want
    assert path.stat().st_ino == inode
    assert (written > 0) == (damage != "longer")
    assert resume(path) == 0


@pytest.mark.parametrize("damage", ["{", "[]", "", "lost", "another"])
@pytest.mark.parametrize("ending", [".npy", ".bin"])
def test_a_damaged_sidecar(tmp_path, ending, damage):
    path, sidecar = tmp_path / f"t{ending}", tmp_path / f"t{ending}.recipe.json"
    create(path, small())
    want = contents(tmp_path)
    if damage == "lost":
        sidecar.unlink()
    elif damage == "another":
        sidecar.write_text(json.dumps(small(8).recipe))
    else:
        sidecar.write_text(damage)
    if damage == "another":  # its rows differ from the recipe beside it: they would be overwritten
        assert not verify(path).ok
    else:
        with pytest.raises((FormatError, FileNotFoundError)) as caught:
            resume(path)
        assert any("call resume() with the tables" in note for note in caught.value.__notes__)
    assert resume(path, small()) == len(want[sidecar.name])
    assert contents(tmp_path) == want
    # Data of which nothing says what it is are not overwritten, but a truncated file is completed.
    sidecar.unlink()
    flip(path, 8 * 100_000)
    with pytest.raises(FileExistsError, match="has no recipe that can be read, and differs from the table"):
        resume(path, small())
    flip(path, 8 * 100_000)
    os.truncate(path, 100_000)
    resume(path, small())
    assert contents(tmp_path) == want


@pytest.mark.parametrize("ending", FORMATS)
def test_another_table_is_never_taken_for_this_one(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    create(path, small())
    before = contents(tmp_path)
    for other in (small(8), small(dtype="float16"), Table((1000, 65), seed=7, name="items")):
        with pytest.raises(
            FileExistsError, match=r"is finished, and has another recipe; pass force=True to create\(\)"
        ):
            resume(path, other)
    assert contents(tmp_path) == before


def test_a_file_that_others_have_written_again(tmp_path, safetensors):
    """The recipe is the table's, and the file is that of another program, in another layout: it is left alone."""
    path = tmp_path / "m.safetensors"
    create(path, {"b": small(), "a": middle()})
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    arrays = {"b": small().read(), "a": middle().read(), "c": np.zeros(3)}
    safetensors.numpy.save_file(arrays, path, metadata)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="holds other tensors than its recipe says"):
        resume(path)
    np.save(tmp_path / "t.npy", np.zeros((3, 3)))
    (tmp_path / "t.npy.recipe.json").write_text(json.dumps(small().recipe))
    with pytest.raises(FileExistsError, match="holds other tensors than its recipe says"):
        resume(tmp_path / "t.npy")
    assert contents(tmp_path)["m.safetensors"] == before["m.safetensors"]


INDEX_DAMAGES = {
    "dropped shard": lambda map: {name: file for name, file in map.items() if "00002" not in file},
    "dropped name": lambda map: dict(list(map.items())[1:]),
    "renamed": lambda map: {f"x{name}": file for name, file in map.items()},
    "swapped": lambda map: dict(zip(map, reversed(map.values()), strict=True)),
    "invented": lambda map: map | {"invented": next(iter(map.values()))},
    "empty": lambda map: {},
}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("damage", [*INDEX_DAMAGES, "total_size", "no total_size", "no metadata", "no JSON", "lost"])
def test_a_damaged_index(tmp_path, damage, given):
    path, index = tmp_path / "m.safetensors", tmp_path / "m.safetensors.index.json"
    create(path, SHARDED, max_shard_size=SHARD)
    want = contents(tmp_path)
    fields = json.loads(want[index.name])
    if damage in INDEX_DAMAGES:
        fields["weight_map"] = INDEX_DAMAGES[damage](fields["weight_map"])
    elif damage == "no metadata":
        del fields["metadata"]
    elif damage == "no total_size":
        fields["metadata"] = {}
    else:
        fields["metadata"]["total_size"] += 1
    index.write_text("{" if damage == "no JSON" else json.dumps(fields))
    if damage == "lost":
        index.unlink()
    unreadable = ("dropped shard", "empty", "no JSON", "lost")
    if damage in unreadable:
        with pytest.raises((FormatError, FileNotFoundError)):
            verify(path)
    else:
        assert not verify(path).ok
    if not given and damage in unreadable:  # nothing says which files there were
        with pytest.raises((FormatError, FileNotFoundError)):
            resume(path)
        return
    assert resume(path, SHARDED if given else None, max_shard_size=SHARD if given else None) == len(want[index.name])
    assert contents(tmp_path) == want


def test_a_damaged_and_a_lost_shard(tmp_path):
    path = tmp_path / "m.safetensors"
    create(path, SHARDED, max_shard_size=SHARD)
    want = contents(tmp_path)
    flip(tmp_path / "m-00001-of-00003.safetensors", 8 * 50_000)
    assert 0 < resume(path) <= SHARDED["w1"].nbytes
    assert contents(tmp_path) == want
    os.truncate(tmp_path / "m-00001-of-00003.safetensors", 50_000)
    (tmp_path / "m-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        resume(path)
    assert any("call resume() with the tables" in note for note in caught.value.__notes__)
    resume(path, SHARDED, max_shard_size=SHARD)
    assert contents(tmp_path) == want


def test_files_that_other_programs_would_read_instead(tmp_path):
    path = tmp_path / "m.safetensors"
    create(path, SHARDED, max_shard_size=SHARD)
    index = (tmp_path / "m.safetensors.index.json").read_bytes()
    with pytest.raises(FileExistsError, match="exists too, and programs may read it instead") as caught:
        resume(path, SHARDED)
    assert caught.value.filename == "m.safetensors.index.json"
    create(path, SHARDED, force=True)
    assert os.listdir(tmp_path) == ["m.safetensors"]
    with pytest.raises(FileExistsError, match="exists too"):
        resume(path, SHARDED, max_shard_size=SHARD)
    (tmp_path / "m.safetensors.index.json").write_bytes(index)
    with pytest.raises(FileExistsError, match="exists too"):
        resume(path)


def test_only_what_is_wrong_is_written(tmp_path):
    path = tmp_path / "t.npy"
    create(path, middle())
    flip(path, 8 * 2000)
    assert resume(path) == BLOCK_BYTES
    path.chmod(0o400)
    os.utime(path, (1, 1))
    assert resume(path) == 0
    assert (path.stat().st_mtime, stat.S_IMODE(path.stat().st_mode)) == (1, 0o400)


def test_a_hard_link_is_not_repaired(tmp_path):
    path = tmp_path / "t.npy"
    create(path, small())
    os.link(path, tmp_path / "backup")
    assert resume(path) == 0
    flip(path, 8 * 1000)
    before = contents(tmp_path)
    with pytest.raises(PermissionError, match="hard link"):
        resume(path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("left", range(4))
def test_a_repair_that_stops(tmp_path, left, monkeypatch):
    """A stop in the middle leaves what verify and resume see."""
    path = tmp_path / "t.npy"
    create(path, middle())
    want = contents(tmp_path)
    path.write_bytes(want["t.npy"][:128] + bytes(2_560_000))
    count = 0
    real = os.pwrite

    def stop(*arguments):
        nonlocal count
        count += 1
        if count > left:
            raise OSError(5, "a test's")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", stop)
        with pytest.raises(OSError, match="a test's"):
            resume(path, threads=1)
    assert not verify(path).ok
    assert resume(path) == middle().nbytes - left * BLOCK_BYTES
    assert contents(tmp_path) == want


# ---- force


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_force_keeps_the_mode(tmp_path, ending, mode):
    path = tmp_path / f"t{ending}"
    create(path, small())
    for file in tmp_path.iterdir():
        file.chmod(mode)
    create(path, small(8), force=True)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {mode}
    assert verify(path, small(8)).ok


@pytest.mark.parametrize("sizes", [(60_000, SHARD), (SHARD, 60_000), (None, SHARD), (SHARD, None), (60_000, None)])
def test_force_leaves_no_file_of_the_old_model(tmp_path, sizes):
    path, precious = tmp_path / "m.safetensors", tmp_path / "m-00001-of-00009.safetensors"
    old, new = sizes
    create(path, {name: table.shard(slice(0, 150)) for name, table in SHARDED.items()}, max_shard_size=old)
    precious.write_bytes(b"no index names it")
    create(path, SHARDED, max_shard_size=new, force=True)
    want = undisturbed(tmp_path / "want", "m.safetensors", SHARDED, max_shard_size=new)
    for file in (tmp_path / "want").iterdir():
        file.unlink()
    (tmp_path / "want").rmdir()
    assert contents(tmp_path) == want | {precious.name: precious.read_bytes()}


def test_a_plan_names_no_other_files(tmp_path):
    path, plan = tmp_path / "m.safetensors", tmp_path / "m.safetensors.partial.recipe.json"
    (tmp_path / "precious").write_bytes(b"")
    create(path, SHARDED, shard=(0, 2))
    fields = json.loads(plan.read_bytes())
    for names in (["precious"], ["../x"], ["m.safetensors.recipe.json"], ["/etc/passwd"], [7], {"m.safetensors": 1}):
        plan.write_text(json.dumps(fields | {"force": True, "replaces": names}))
        with pytest.raises(FormatError, match="replaces"):
            resume(path)
    plan.write_text(json.dumps(fields | {"replaces": ["m.safetensors.index.json"]}))  # without force
    with pytest.raises(FormatError, match="replaces"):
        resume(path)
    for wrong in ({"force": "no"}, {"force": 0}, {"force": None}, {"max_shard_size": True}, {"max_shard_size": 1.0}):
        plan.write_text(json.dumps(fields | wrong))
        with pytest.raises(FormatError, match=re.escape(next(iter(wrong)))):
            resume(path)
