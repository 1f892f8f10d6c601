"""Tables that grow: the new rows are those of the longer table, and the old ones stay, trained ones too."""

import json
import os

import numpy as np
import pytest
from file_support import BLOCK_BYTES, Stop, contents, flip, small, stop_after, undisturbed, unfinished

from xavierfast import Table
from xavierfast.files import FormatError, create, extend, load, resume, status, tables_of, verify


def growing(rows=10_000, **options):
    return Table((rows, 64), "normal", std=0.02, seed=7, name="items", **options)


def train(path, table, rows=(3, 500, -1)):
    array = load(path, "r+")
    array[list(rows)] = 1
    array.flush()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [12_345, (12_345, 64), np.int64(12_345), [12_345, 64]])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("ending", [".npy", ".bin"])
def test_rows_are_appended(tmp_path, ml_dtypes, ending, dtype, shape, threads):
    path = tmp_path / f"t{ending}"
    old, new = growing(dtype=dtype), growing(12_345, dtype=dtype)
    create(path, old)
    inode = path.stat().st_ino
    train(path, old)
    kept = load(path)
    assert extend(path, shape, threads=threads) == new.nbytes - old.nbytes
    array = load(path)
    assert array[:10_000].tobytes() == kept.tobytes()
    assert array[10_000:].tobytes() == new.read(slice(10_000, None)).tobytes()
    assert tables_of(path) == {"items": new}
    assert verify(path).tensors[0].ranges == ((3, 4), (500, 501), (9_999, 10_000))
    assert path.stat().st_ino == inode
    resume(path)  # of a table whose training is not wanted any more
    assert contents(tmp_path) == undisturbed(tmp_path / "want", path.name, new)


@pytest.mark.parametrize(
    "table",
    [
        Table((100, 64), "uniform", bound=0.5, seed=1),
        Table((100, 64), "truncated_normal", std=0.5, seed=1),
        Table((100, 64), "zeros", seed=1),
        Table((100, 64), "random_constant", seed=1),
        Table((100, 64), fan_in=64, fan_out=64, seed=1),
        Table((100, 64), "he_normal", layout="oi", seed=1),
        Table((100,), "normal", seed=1),
        Table((100, 3, 5), "normal", seed=1),
        Table((0, 64), "normal", seed=1),
    ],
)
def test_tables_that_can_grow(tmp_path, table):
    path = tmp_path / "t.npy"
    create(path, table)
    for rows in (101, 1000, 100_000):  # the header's text grows too
        extend(path, rows)
        assert verify(path, Table.from_recipe(table.recipe | {"shape": [rows, *table.shape[1:]]})).ok
        assert verify(path).ok
    assert extend(path, 100_000) == 0


@pytest.mark.parametrize(
    "table", [small(), Table((1000, 64), "he_normal", seed=1), Table((1000, 64), "lecun_uniform", seed=1, layout="io")]
)
def test_values_that_depend_on_the_number_of_rows(tmp_path, table):
    path = tmp_path / "t.npy"
    create(path, table)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"depend on the number of rows here.*with fan_in=1000 and fan_out=64, which"):
        extend(path, 2000)
    assert contents(tmp_path) == before
    way_out = Table.from_recipe(table.recipe | {"shape": [2000, 64], "fan_in": 1000, "fan_out": 64})
    assert way_out[:1000].tobytes() == table[...].tobytes()


def test_what_extend_refuses(tmp_path):
    path = tmp_path / "t.npy"
    create(path, growing())
    before = contents(tmp_path)
    for shape, error in [
        (9_999, ValueError), ((10_001, 65), ValueError), ((10_001,), ValueError), ((10_001, 64, 1), ValueError),
        (True, TypeError), (10_001.0, TypeError), ("10001", TypeError), (-1, ValueError), (2**60, ValueError),
        (2**50, OSError),
    ]:  # fmt: skip
        with pytest.raises(error):
            extend(path, shape)
        assert contents(tmp_path) == before
    with pytest.raises(ValueError, match="threads"):
        extend(path, 10_001, threads=0)
    create(tmp_path / "t.safetensors", growing())
    with pytest.raises(ValueError, match="whose longer header would move all rows"):
        extend(tmp_path / "t.safetensors", 10_001)
    create(tmp_path / "view.npy", growing().shard(slice(5, 10)))
    with pytest.raises(ValueError, match="a part of a larger one"):
        extend(tmp_path / "view.npy", 10)
    create(tmp_path / "scalar.npy", Table((), "normal", seed=1))
    with pytest.raises(ValueError, match="without axes"):
        extend(tmp_path / "scalar.npy", 10)
    with pytest.raises(FileNotFoundError):
        extend(tmp_path / "none.npy", 10)
    np.save(tmp_path / "alien.npy", np.zeros((3, 64), np.float32))
    with pytest.raises(FileNotFoundError, match="recipe"):
        extend(tmp_path / "alien.npy", 10)
    (tmp_path / "alien.npy.recipe.json").write_text(json.dumps(growing().recipe))
    with pytest.raises(FormatError, match="its shape is"):
        extend(tmp_path / "alien.npy", 20_000)
    unfinished(tmp_path / "part.npy", growing())
    with pytest.raises(FileExistsError, match="is unfinished"):
        extend(tmp_path / "part.npy", 20_000)
    os.link(path, tmp_path / "backup")
    with pytest.raises(PermissionError, match="hard link"):
        extend(path, 20_000)
    (tmp_path / "backup").unlink()
    for size in (-1, 1):
        os.truncate(path, len(before["t.npy"]) + size)
        with pytest.raises(FormatError, match="must have 2,560,128 bytes"):
            extend(path, 20_000)
    assert not (tmp_path / "t.npy.partial.recipe.json").exists()


def test_an_extension_that_stops(tmp_path):
    path = tmp_path / "t.npy"
    create(path, growing())
    train(path, growing())
    with pytest.raises(Stop) as caught:
        extend(path, 30_000, threads=1, progress=stop_after(4))
    assert any("call resume() to finish it" in note for note in caught.value.__notes__)
    assert np.load(path).shape == (10_000, 64)  # others still read the old rows
    assert not status(path).complete
    with pytest.raises(FileExistsError):
        create(path, growing(30_000), shard=(0, 2))
    with pytest.raises(FileExistsError):
        create(path, growing(30_000))
    assert 0 < extend(path, 40_000) < growing(40_000).nbytes - growing().nbytes  # some were there
    assert verify(path).tensors[0].ranges == ((3, 4), (500, 501), (9_999, 10_000))
    with pytest.raises(Stop):
        extend(path, 50_000, threads=1, progress=stop_after(4))
    os.truncate(path, 1_000_000)
    with pytest.raises(FormatError, match="rows were lost"):
        resume(path)
    create(path, growing(50_000), force=True)
    assert contents(tmp_path) == undisturbed(tmp_path / "want", "t.npy", growing(50_000))


@pytest.mark.parametrize("kept", [-1, 20_001, True, 1.0, "1", [1]])
def test_a_hostile_number_of_kept_rows(tmp_path, kept):
    path, plan = tmp_path / "t.npy", tmp_path / "t.npy.partial.recipe.json"
    create(path, growing())
    with pytest.raises(Stop):
        extend(path, 20_000, threads=1, progress=stop_after(4))
    fields = json.loads(plan.read_text())
    plan.write_text(json.dumps(fields | {"kept_rows": kept}))
    with pytest.raises(FormatError, match="kept_rows"):
        resume(path)
    for wrong in ({"force": True}, {"replaces": ["t.npy"]}):
        plan.write_text(json.dumps(fields | wrong))
        with pytest.raises(FormatError):
            resume(path)


def test_only_the_new_rows_are_read_and_written(tmp_path):
    path = tmp_path / "t.npy"
    create(path, growing())
    flip(path, 8 * 1000)
    calls = []
    extend(path, 20_000, progress=lambda *pair: calls.append(pair))
    assert {total for _, total in calls} == {growing().nbytes}
    assert len(calls) >= growing().nbytes // BLOCK_BYTES
    assert verify(path).tensors[0].differ == 1
