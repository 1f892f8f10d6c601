"""Table: every index gives what the whole array holds there; shards, recipes, reads, more dtypes."""

import copy
import enum
import itertools
import json
import math
import pickle
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import basic, bits, mixed, same, same_bits

import xavierfast as xf
from xavierfast import kernels
from xavierfast import table as table_module
from xavierfast._core import distributions, rules
from xavierfast._core.dtypes import DTYPES
from xavierfast._core.rules import RULES

INF = float("inf")
OWN = {"constant": {"value": 0.25}, "truncated_normal": {"low": -1.0, "high": 3.0}}
FANS = {"fan_in": 30, "fan_out": 20}


# ---- indices


@st.composite
def tables(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    init = draw(st.sampled_from(["uniform", "normal", "xavier_truncated_normal", "he_uniform"]))
    dtype = draw(st.sampled_from(["float32", "float64", "float16", "complex64"]))
    return xf.Table(shape, init, seed=draw(st.integers(0, 5)), dtype=dtype, **FANS)


def agree(table, index):
    """The result is NumPy's, or the error is of NumPy's kind."""
    whole = np.asarray(table)
    try:
        want = whole[index]
    except (IndexError, TypeError, ValueError) as error:
        with pytest.raises(type(error)):
            table[index]
        return
    same(table[index], want)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_basic_indices(data):
    table = data.draw(tables())
    agree(table, data.draw(basic(table.shape)))


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_all_indices(data):
    table = data.draw(tables())
    agree(table, data.draw(mixed(table.shape)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_shards_of_shards(data):
    table = data.draw(tables())
    whole = np.asarray(table)
    first = data.draw(basic(table.shape))
    first = first if isinstance(first, tuple) else (first,)
    shard, part = table.shard(first), whole[first if Ellipsis in first else (*first, ...)]
    same(np.asarray(shard), part)
    second = data.draw(basic(shard.shape))
    inner = shard.shard(second)
    same(shard[second], part[second])
    assert (inner.fan_in, inner.fan_out) == (30, 20)
    for twin in (pickle.loads(pickle.dumps(inner)), xf.Table.from_recipe(inner.recipe), copy.deepcopy(inner)):
        assert twin == inner
        assert hash(twin) == hash(inner)
        same(np.asarray(twin), np.asarray(inner))
    assert xf.Table.from_recipe(json.loads(json.dumps(inner.recipe))) == inner


@pytest.mark.parametrize("n", [1, 2, 3, 7, 1000, 1001, np.int64(4)])
def test_numbered_shards_cut_the_rows(n):
    table = xf.Table((1000, 3), seed=0, name="w")
    shards = [table.shard(k, of=n) for k in range(n)]
    assert np.array_equal(np.concatenate(shards), table[...])
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert all(shard.fan_in == 1000 for shard in shards)
    half = table.shard(np.s_[:, 1]).shard(n - 1, of=n)  # of a view too
    assert np.array_equal(half, np.asarray(table)[1000 * (n - 1) // n :, 1])


@pytest.mark.parametrize(
    ("k", "n", "error", "message"),
    [
        (4, 4, ValueError, "4 shards count from 0 to 3, got 4"),
        (-1, 4, ValueError, "4 shards count from 0 to 3, got -1"),
        (1, 1, ValueError, "the only shard has the number 0, got 1"),
        (0, 0, ValueError, "the number of shards must be at least 1, got 0"),
        (0.0, 2, TypeError, "the number of a shard must be an int, got 0.0"),
        (slice(2), 2, TypeError, "the number of a shard must be an int"),
        (True, 2, TypeError, "the number of a shard must be an int, got True"),
        (0, "2", TypeError, "the number of shards must be an int >= 1, got '2'"),
    ],
)
def test_shards_are_counted_from_0(k, n, error, message, tmp_path):
    table = xf.Table((10, 3), seed=0, name="w")
    with pytest.raises(error, match=message):
        table.shard(k, of=n)
    files = pytest.importorskip("xavierfast.files", exc_type=ImportError)
    with pytest.raises(error, match=message):
        files.create(tmp_path / "t.npy", table, shard=(k, n))
    assert not list(tmp_path.iterdir())


def test_a_table_without_axes_has_no_shards():
    with pytest.raises(TypeError, match="has no rows to cut"):
        xf.Table((), "normal", seed=0).shard(0, of=1)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_read_into(data):
    table = data.draw(tables())
    index = data.draw(mixed(table.shape))
    try:
        want = np.asarray(np.asarray(table)[index])
    except IndexError:
        return
    for out in (
        np.empty(want.shape, want.dtype),
        np.empty(want.shape, want.dtype, order="F"),
        np.empty([2 * s for s in want.shape], want.dtype)[tuple(slice(None, None, 2) for _ in want.shape)],
        np.empty(want.shape[::-1], want.dtype).T[tuple(slice(None, None, -1) for _ in want.shape)],
    ):
        if not isinstance(out, np.ndarray) or out.shape != want.shape:
            continue
        assert table.read(index, out) is out
        same_bits(out, want)


NUMPY_RULES = [
    (0, ..., [1, 2]), (0, slice(None), [1, 2]), ([0], slice(None), [1, 2]), ([0], None, [1, 2]),
    (slice(None), 0, [1, 2]),
    (slice(None), [0, 1], [1, 2]), (..., [0, 1], [1, 2]), ([[0], [1]], [1, 2]), (True,), (False,), (True, 0), (0, True),
    (None, True, [0]), (np.True_, ..., [1]), (np.ones((3, 4), bool),), (np.array(1),), (np.array(1), [0, 1]), ([],),
    ([], 0),
    (np.zeros((0, 3), int),), (slice(None, None, -2), ..., [3, 0]), ([True, False, True],), (0, 0, 0), (-1,), (...,),
    (),
    (None, ..., None), ([0, 1], slice(None), True), ([0, 1], ..., 0), (0, ..., 0), (slice(5, 2), [0]), (np.uint8(2),),
]  # fmt: skip


@pytest.mark.parametrize("index", NUMPY_RULES, ids=repr)
def test_numpys_rules(index):
    agree(xf.Table((3, 4, 5), seed=1), index)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (3, "index 3 is out of bounds for axis 0 with size 3"),
        (-4, "index -4 is out of bounds for axis 0 with size 3"),
        ((0, 4), "index 4 is out of bounds for axis 1 with size 4"),
        (([0, 3],), "index 3 is out of bounds for axis 0 with size 3"),
        ((slice(None), [-5]), "index -5 is out of bounds for axis 1 with size 4"),
        ((0, 0, 0), "too many indices for array: array is 2-dimensional, but 3 were indexed"),
        ((..., ...), "single ellipsis"),
        (np.ones(4, bool), "boolean index did not match indexed array along"),
        (([0, 1], [0, 1, 2]), "shape mismatch: indexing arrays could not be broadcast"),
    ],
)
def test_index_errors(index, message):
    table = xf.Table((3, 4), seed=1)
    with pytest.raises(IndexError, match=message):
        np.asarray(table)[index]
    out = np.full((3, 4), 7, np.float32)
    with pytest.raises(IndexError, match=message):
        table.read(index, out)
    assert (out == 7).all()


class Index:
    """An object with ``__index__`` only."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        if isinstance(self.value, int):
            return self.value
        raise self.value


class IndexSequence(Index):
    def __len__(self):
        return 2

    def __getitem__(self, k):
        return [0, 1][k]


class IndexArray(Index):
    def __array__(self, dtype=None, copy=None):
        return np.array([0, 1])


@pytest.mark.parametrize("kind", [Index, IndexSequence, IndexArray])
@pytest.mark.parametrize("value", [2, -3, 3, ValueError("no"), TypeError("no")])
def test_objects_that_are_indices(kind, value):
    table, item = xf.Table((3, 4, 5), seed=1), kind(value)
    for index in (item, (item,), (0, item), (item, [0, 1]), (..., item), [item, item], slice(item, None)):
        agree(table, index)


MANY = np.zeros((1,) * 40, int)


@pytest.mark.parametrize(
    "index",
    [
        (None,) * 61, (None,) * 62, (0, 0, 0) + (None,) * 64, (0, 0, 0) + (None,) * 65, (None,) * 60 + ([[0, 1]],),
        (None,) * 61 + ([[0, 1]],), (True,) + (None,) * 61, (True,) + (None,) * 60, MANY, (MANY, [0, 1, 2]),
        (MANY, np.zeros((2,) + (1,) * 61, int)), (MANY, np.zeros((2,) + (1,) * 63, int)), (MANY,) + (None,) * 30,
        (np.zeros((2,) * 3 + MANY.shape, int), 0, [3]),
    ],
    ids=range(14),
)  # fmt: skip
def test_sixty_four_axes(index):
    agree(xf.Table((3, 4, 5), seed=1), index)


@pytest.mark.parametrize("index", [1.0, "a", b"a", [0.5], {}, object(), 1j, np.array([1.0]), [[0], [1, 2]], (0, "a")])
def test_what_cannot_index(index):
    table = xf.Table((3, 4), seed=1)
    for kind in (IndexError, TypeError):
        with pytest.raises(kind, match="are valid indices"):
            table[index]
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        table[::0]
    with pytest.raises(TypeError):
        table["a":]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("position", [0, 2**31 - 3, 2**32 - 3, 2**34 - 3, 2**53 + 1, 2**60 - 17])
def test_far_positions(dtype, position):
    """Rows anywhere in a table of nearly 2^60 elements are those of the stream at that position."""
    table = xf.Table((2**60 // 8, 8) if dtype == "float32" else (2**59 // 8, 8), "normal", seed=3, dtype=dtype)
    row = min(position // 8, len(table) - 6)
    rows = table[row : row + 6]
    flat = xf.Table((2**60 if dtype == "float32" else 2**59,), "normal", seed=3, dtype=dtype)
    same(rows.reshape(-1), flat[row * 8 : row * 8 + 48])
    same(table[np.arange(row, row + 6)], rows)
    same(table[row : row + 6][::-1, ::3], table.shard(slice(row, row + 6))[::-1, ::3])
    assert len(np.unique(rows)) > 40 or dtype == "float16"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_large_reads(threads):
    table = xf.Table((40_000, 37), "normal", seed=0)
    whole = np.asarray(table)
    ids = np.random.default_rng(0).integers(-40_000, 40_000, 90_000)
    for index in (
        ids,
        ids.astype(np.int32),
        slice(None, None, -1),
        (slice(None), slice(3, 7)),
        (ids, 5),
        (ids, ids % 37),
        (ids.reshape(300, 300), slice(30, 2, -3)),
    ):
        same(table.read(index, threads=threads), whole[index])


COSTS = {  # of a table of 10^12 rows of 100
    "two rows": (lambda table: table[10**11 : 10**11 + 2], 200),
    "rows by their numbers": (lambda table: table[[0, -1, 10**11, 7, 7]], 500),
    "a column of far rows": (lambda table: table[7 : 10**12 : 10**11, 3], 10),
    "an element": (lambda table: table[-1, -1], 1),
    "two elements": (lambda table: table[[0, 10**12 - 1], [5, 6]], 2),
    "rows in Fortran order": (lambda table: table.read(slice(5, 8), np.empty((100, 3), np.float32).T), 300),
    "rows of a shard": (lambda table: table.shard((slice(10**11, None), slice(None, None, 2)))[:3], 150),
    "bytes": (lambda table: table._read_flat(10**13, np.empty(400, np.uint8)), 100),
    "a comparison": (lambda table: table._equals_flat(10**13, np.empty(400, np.uint8)), 100),
    "the first row of all": (lambda table: next(iter(table)), table_module.CHUNK // 100 * 100),
    "no rows": (lambda table: table[:0], 0),
    "a shard": (lambda table: table.shard(slice(10**11, None)), 0),
    "attributes": (lambda table: (table.nbytes, table.key, table.bound, table.std, len(table), hash(table)), 0),
    "texts": (lambda table: (repr(table), table.describe(), pickle.dumps(table), table == table.shard(...)), 0),
    "a recipe": (lambda table: xf.Table.from_recipe(table.recipe), 0),
}


@pytest.mark.parametrize(("use", "elements"), COSTS.values(), ids=COSTS)
def test_only_what_is_asked_for(monkeypatch, use, elements):
    """The kernels compute as many elements of a table of 10^14 as the result holds, and none for its attributes."""
    asked = []

    def count(name):
        kernel = getattr(kernels, name)

        def counted(*arguments):
            asked.append(arguments[6])
            assert sum(asked) <= elements  # raised before they are computed, which could take hours
            return kernel(*arguments)

        monkeypatch.setattr(kernels, name, counted)

    for name in ("fill", "gather", "equals"):
        count(name)
    use(xf.Table((10**12, 100), seed=0))
    assert sum(asked) == elements


# ---- what a Table is


def test_attributes():
    table = xf.Table((50, 20), "xavier_normal", seed=7, name="w", dtype="float16", gain=2)
    assert (table.shape, table.ndim, table.size, table.nbytes, table.itemsize) == ((50, 20), 2, 1000, 2000, 2)
    assert (table.dtype, table.fan_in, table.fan_out, table.seed, table.name) == (np.float16, 50, 20, 7, "w")
    assert (table.bound, table.std) == (None, pytest.approx(2 * math.sqrt(2 / 70)))
    assert len(table) == 50
    assert len(table.key) == 32
    assert len(pickle.dumps(table)) < 500
    uniform = xf.Table((50, 20), seed=0)
    assert uniform.bound == math.sqrt(6 / 70)
    assert uniform.std == pytest.approx(math.sqrt(2 / 70))
    assert xf.Table(5, "uniform", seed=0).fan_in is None
    named = xf.Table((50, 20), seed=0, name="embed")
    assert named.key != uniform.key
    for part in ("name='embed'", f"{named.key.hex()}, stream version 1", "fan_in 50, fan_out 20", "std", "bound"):
        assert part in named.describe()


@pytest.mark.parametrize(
    ("low", "high"), [(-2, 2), (-1, INF), (0, 1), (5, INF), (-9, -8), (-INF, INF), (-3, 7), (30, 31)]
)
def test_expected_deviation(low, high):
    table = xf.Table((400_000,), "truncated_normal", std=2.0, low=low, high=high, seed=0, dtype="float64")
    assert np.asarray(table).std() == pytest.approx(table.std, rel=0.02)


def test_none_is_recorded():
    table = xf.Table((3, 4))
    assert (xf.xavier_uniform((3, 4), seed=table.seed) == np.asarray(table)).all()
    generator = xf.Table((3, 4), seed=np.random.default_rng(0))
    assert (xf.xavier_uniform((3, 4), seed=generator.seed) == generator[...]).all()


@pytest.mark.parametrize("init", sorted(RULES))
def test_functions_are_the_short_way(init):
    keywords = {**OWN.get(init, {}), **FANS, "seed": 5, "name": "n"}
    table = xf.Table((7, 9), init, **keywords)
    same(np.asarray(table), getattr(xf, init)((7, 9), **keywords))
    assert xf.Table((7, 9), getattr(xf, init), **keywords) == table
    assert eval(repr(table), {"Table": xf.Table}) == table


def test_equality():
    table = xf.Table((3, 4), seed=1)
    assert table == xf.Table((3, 4), "glorot_uniform", seed=1, gain=1.0)
    assert table == table.shard(...)
    others = [
        xf.Table((4, 3), seed=1), xf.Table((3, 4), seed=2), xf.Table((3, 4), seed=[1]),
        xf.Table((3, 4), seed=1, name="a"),
        xf.Table((3, 4), "xavier_normal", seed=1), xf.Table((3, 4), seed=1, gain=2),
        xf.Table((3, 4), seed=1, dtype="float64"),
        table.shard(slice(2)), 5,
    ]  # fmt: skip
    assert all(table != other for other in others)
    assert len({table, *others}) == len(others) + 1


def test_array_protocol():
    table = xf.Table((3, 4), seed=1)
    assert np.asarray(table, dtype=np.float64).dtype == np.float64
    assert (np.array(table, copy=True) == table[...]).all()
    assert (np.stack(list(table)) == table[...]).all()
    assert (np.add(table, 1) == table[...] + 1).all()
    with pytest.raises(ValueError, match="no memory to share"):
        table.__array__(copy=False)
    with pytest.raises(TypeError, match="without axes"):
        len(xf.Table((), "uniform"))
    with pytest.raises(TypeError, match="without axes"):
        iter(xf.Table((), "uniform"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.read(..., np.zeros((3, 5), "f4")), ValueError, "shape and out must agree"),
        (lambda t: t.read(0, np.zeros((3, 4), "f4")), ValueError, "shape and out must agree"),
        (lambda t: t.read(..., np.zeros((3, 4))), TypeError, "out must hold float32"),
        (lambda t: t.read(..., [0]), TypeError, "out must be a NumPy array or a buffer"),
        (lambda t: t.read(0, threads=0), ValueError, "threads must be at least 1"),
        (lambda t: t.shard([0, 1]), TypeError, "a shard is cut by ints and slices"),
        (lambda t: t.shard(7), IndexError, "out of bounds"),
        (
            lambda t: xf.Table((3, 4), "xavier"),
            ValueError,
            "init must be the name of an initialiser, got 'xavier' .*; the names are xavier_uniform, ",
        ),
        (lambda t: xf.Table((3, 4), 5), ValueError, "init must be the name"),
        (
            lambda t: xf.Table((3, 4), "xavier_unifrom"),
            ValueError,
            "got 'xavier_unifrom' .did you mean xavier_uniform.",
        ),
        (lambda t: xf.Table((3, 4), "normal", sdt=1), TypeError, r"argument 'sdt' .did you mean std\?.$"),
        (lambda t: xf.Table((2**62, 2)), ValueError, r"less than 2\*\*63 bytes"),
        (lambda t: xf.Table((3,)), ValueError, "at least two axes"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(xf.Table((3, 4), seed=0))


# ---- untrusted recipes

GOOD = xf.Table((3, 4), "truncated_normal", seed=[1, 2**70], name="n", low=-1.0, high=INF).shard(1).recipe


def test_recipe_is_json():
    text = json.dumps(GOOD, allow_nan=False)
    assert json.loads(text) == GOOD
    assert GOOD["seed"] == [1, hex(2**70)]
    assert GOOD["parameters"]["high"] == "inf"
    same(
        xf.Table.from_recipe(json.loads(text))[...],
        xf.truncated_normal((3, 4), seed=[1, 2**70], name="n", low=-1, high=INF)[1],
    )


def _view(position, shape, steps):
    return {"view": {"position": position, "shape": shape, "steps": steps}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stream": 2}, "must be for version 1 of the stream, got 2"),
        ({"stream": "1"}, "'stream' must be int"),
        ({"stream": True}, "'stream' must be int"),
        ({"extra": 1}, r"unknown \['extra'\]"),
        ({"shape": 12}, "'shape' must be list"),
        ({"shape": [-1, 4]}, "ints from 0"),
        ({"shape": [1e9, 4]}, "ints from 0"),
        ({"shape": [2**63, 4]}, "ints from 0"),
        ({"shape": [2**62, 2**62]}, r"less than 2\*\*63 bytes"),
        ({"shape": [1] * 65}, "at most 64"),
        ({"shape": [[3], 4]}, "ints from 0"),
        ({"init": "os.system"}, "'init' must be one of"),
        ({"init": "__class__"}, "'init' must be one of"),
        ({"init": ["normal"]}, "'init' must be str"),
        ({"parameters": []}, "'parameters' must be dict"),
        ({"parameters": {"std": float("nan")}}, "std must be finite"),
        ({"parameters": {"std": -1}}, "std must be finite"),
        ({"parameters": {"std": "inf"}}, "std must be finite"),
        ({"parameters": {"std": "1"}}, "std must be a number"),
        ({"parameters": {"std": {"a": {}}}}, "'std' must be a number or a str, got dict"),
        ({"parameters": {"std": True}}, "'std' must be a number or a str, got bool"),
        ({"parameters": {"std": 10**400}}, "std must be finite"),
        ({"parameters": {"shape": [5]}}, "may hold mean, std, low, high; got 'shape'"),
        ({"parameters": {"self": 1}}, "may hold mean, std, low, high"),
        ({"dtype": "object"}, "'dtype' must be one of"),
        ({"dtype": None}, "'dtype' must be str"),
        ({"layout": "oihw"}, "a letter for each axis"),
        ({"groups": 0}, "groups must be at least 1"),
        ({"fan_in": -1}, "fan_in must be at least 1"),
        ({"seed": -1}, "'seed' must hold ints >= 0"),
        ({"seed": 1.5}, "'seed' must be int"),
        ({"seed": None}, "'seed' must be int"),
        ({"seed": "0xzz"}, "'seed' must hold ints"),
        ({"seed": "0x1_0"}, "'seed' must hold ints"),
        ({"seed": "0x" + "f" * 70_000}, "'seed' must hold ints"),
        ({"seed": [[1]]}, "'seed' must hold ints"),
        ({"seed": []}, "at least one int"),
        ({"seed": [0] * 5000}, "at most 4096"),
        ({"name": 5}, "'name' must be str"),
        ({"view": []}, "'view' must be a dict"),
        ({"view": {"position": 0, "shape": [4]}}, r"missing \['steps'\]"),
        (_view(0, [13], [1]), "must lie within the 12 elements"),
        (_view(3, [4], [-1]), None),
        (_view(2, [4], [-1]), "must lie within"),
        (_view(-1, [4], [1]), "ints from 0"),
        (_view(0, [4, 4], [1]), "a step for each axis"),
        (_view(0, [10**9], [0]), "more elements than the whole"),
    ],
)  # fmt: skip
def test_hostile_recipes(change, message):
    recipe = {**GOOD, **change}
    if message is None:
        assert xf.Table.from_recipe(recipe).shape == (4,)
        return
    with pytest.raises((TypeError, ValueError), match=message):
        xf.Table.from_recipe(recipe)


@pytest.mark.parametrize("field", [k for k in GOOD if k != "view"])
def test_missing_fields(field):
    with pytest.raises(ValueError, match=f"missing \\['{field}'\\]"):
        xf.Table.from_recipe({k: v for k, v in GOOD.items() if k != field})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([2**63, -1, "inf"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=1500, deadline=None)
@given(st.dictionaries(st.sampled_from([*GOOD, "x"]), JSON, max_size=3), st.none() | JSON)
def test_junk_recipes(change, junk):
    """Either a Table, of which an element can be read, or a TypeError or ValueError."""
    for recipe in ({**GOOD, **change}, junk):
        try:
            table = xf.Table.from_recipe(recipe)
        except (TypeError, ValueError):
            continue
        if table.size:
            assert np.isfinite(table[(0,) * table.ndim])


# ---- more dtypes

SMALL = [name for name in DTYPES if name.startswith(("float8_", "float6_", "float4_"))]


@pytest.mark.parametrize("dtype", SMALL)
def test_small_floats(ml_dtypes, dtype):
    if not hasattr(ml_dtypes, dtype):
        pytest.skip(f"this ml_dtypes has no {dtype}")
    kind = np.dtype(getattr(ml_dtypes, dtype))
    bound = 0.9 if "4_e2m1" not in dtype else 2.3
    single = xf.uniform((300, 700), bound=bound, seed=1)
    got = xf.uniform((300, 700), bound=bound, seed=1, dtype=dtype)
    assert got.dtype == kind
    numbers = np.arange(256, dtype=np.uint8).view(kind).astype(np.float64)
    last = numbers[np.isfinite(numbers) & (numbers <= bound)].max()
    assert (got.astype("f4") == np.clip(single, -last, last).astype(kind).astype("f4")).all()
    assert abs(got.astype("f4")).max() == last
    table = xf.Table((300, 700), "uniform", bound=bound, seed=1, dtype=dtype)
    for index in ((slice(5, 200, 3), slice(None, None, -2)), np.array([3, -1, 200]), 7, (3, 4)):
        same(table[index], got[index])
    out = np.zeros((300, 700), kind, order="F")
    same_bits(table.read(..., out), got)
    normal = xf.normal(1000, std=float(kind.type(0.5)), seed=0, dtype=dtype)
    assert np.isfinite(normal.astype("f4")).all()
    assert (
        xf.random_constant(5, bound=bound, seed=0, dtype=dtype) == xf.uniform(1, bound=bound, seed=0, dtype=dtype)
    ).all()


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
class TestComplex:
    N = 1_000_000

    def draw(self, name, dtype, **keywords):
        return getattr(xf, name)(self.N, dtype=dtype, seed=1, **keywords).astype(complex)

    def test_levels(self, use_level, dtype):
        for name in ("uniform", "normal", "truncated_normal"):
            z = getattr(xf, name)(3001, dtype=dtype, seed=1)
            same(xf.Table(3001, name, dtype=dtype, seed=1)[300:], z[300:])
        same(xf.truncated_normal(3001, dtype=dtype, seed=1, threads=3), z)

    def test_disk(self, dtype):
        z = self.draw("uniform", dtype, bound=2.0)
        assert 1.99 < abs(z).max() <= 2.0
        share = np.sort(abs(z / 2) ** 2)  # uniform on (0, 1) for a disk
        assert abs(share - (np.arange(self.N) + 0.5) / self.N).max() < 2.7 / math.sqrt(self.N)  # Kolmogorov: 1e-6
        assert abs(z.mean()) < 5 * math.sqrt(2 / self.N)
        turn = np.sort(np.angle(z) / (2 * math.pi) + 0.5)
        assert abs(turn - (np.arange(self.N) + 0.5) / self.N).max() < 2.7 / math.sqrt(self.N)

    def test_normal(self, dtype):
        z = self.draw("normal", dtype, std=3.0)
        assert z.real.std() == pytest.approx(3 / math.sqrt(2), rel=0.005)
        assert abs((z.real * z.imag).mean()) < 5 * 4.5 / math.sqrt(self.N)
        assert (abs(z) ** 4).mean() == pytest.approx(2 * 81, rel=0.02)

    @pytest.mark.parametrize("cut", [0.1, 1.0, 2.0, 4.5, INF])
    def test_truncated(self, dtype, cut):
        z = self.draw("truncated_normal", dtype, std=0.5, low=-cut, high=cut)
        assert abs(z).max() <= cut * 0.5
        table = xf.Table(5, "truncated_normal", std=0.5, low=-cut, high=cut, dtype=dtype)
        assert math.sqrt((abs(z) ** 2).mean()) == pytest.approx(table.std, rel=0.005)
        share = np.sort(np.expm1(-((abs(z) / 0.5) ** 2)) / math.expm1(-(cut**2)))
        assert abs(share - (np.arange(self.N) + 0.5) / self.N).max() < 2.7 / math.sqrt(self.N)

    @pytest.mark.parametrize("kind", ["uniform", "normal", "truncated_normal"])
    def test_variance_scaling(self, dtype, kind):
        z = getattr(xf, f"xavier_{kind}")((600, 400), dtype=dtype, seed=0)
        assert (abs(z) ** 2).mean() == pytest.approx(2 / 1000, rel=0.02)
        assert xf.Table((600, 400), f"xavier_{kind}", dtype=dtype).std == pytest.approx(math.sqrt(2 / 1000))

    def test_constants(self, dtype):
        assert (xf.constant((2, 3), value=1 - 2j, dtype=dtype) == 1 - 2j).all()
        assert (xf.zeros(3, dtype=dtype) == 0).all()
        assert (xf.random_constant(3, seed=1, dtype=dtype) == xf.uniform(3, seed=1, dtype=dtype)[0]).all()
        table = xf.Table((2, 3), "constant", value=1 - 2j, dtype=dtype, seed=0)
        assert xf.Table.from_recipe(json.loads(json.dumps(table.recipe))) == table
        with pytest.raises(ValueError, match="low must be -high for complex values"):
            xf.truncated_normal(3, low=0, dtype=dtype)


def test_complex_constant_needs_complex():
    with pytest.raises(ValueError, match="value must be real for float32"):
        xf.constant(3, value=1j)


def test_chunks(monkeypatch):
    """Row numbers that must be converted are converted in chunks of a bounded size."""
    monkeypatch.setattr(table_module, "CHUNK", 7)
    table = xf.Table((50, 20), "normal", seed=0)
    whole = np.asarray(table)
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(-50, 50, (6, 5)), rng.integers(-20, 20, 5)
    for index in (
        (rows, columns),
        (rows.astype(np.int8),),
        (slice(3, 30, 2), columns[::2]),
        rng.random((50, 20)) < 0.3,
    ):
        same(table[index], whole[index])


def test_the_largest_table():
    assert xf.Table((2**61 - 1,), "uniform").nbytes == 2**63 - 4
    with pytest.raises(ValueError, match=r"less than 2\*\*63 bytes"):
        xf.Table((2**61,), "uniform")


def test_describe_says_what_the_axes_of_a_convolution_are_taken_for():
    text = xf.Table((64, 32, 3, 3), "he_normal", seed=0).describe()
    assert "fan_in 6,144, fan_out 6,144" in text
    assert "layout='oixy', the fans would be 288 and 576" in text
    for keywords in ({"layout": "oihw"}, {"layout": "hwio"}, {"fan_in": 288, "fan_out": 576}):
        assert "note" not in xf.Table((64, 32, 3, 3), "he_normal", seed=0, **keywords).describe()
    assert "note" not in xf.Table((64, 32, 3, 3), "normal", seed=0).describe()
    assert "note" not in xf.Table((3, 3, 3, 3), seed=0).describe()


def test_the_recipe_of_each_shard():
    table = xf.Table((6, 5, 4), "normal", seed=1)
    parts = (
        slice(None),
        slice(1, None),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(3, 0, -2),
        slice(2, 3),
        0,
        2,
    )
    for index in itertools.product(parts, repeat=3):
        for place in (None, 0, 1, 2, 3):
            shard = table.shard(index if place is None else (*index[:place], None, *index[place:]))
            twin = xf.Table.from_recipe(shard.recipe)
            assert twin == shard
            assert twin.shape == shard.shape
    assert repr(table.shard((2, slice(1, 4), slice(None, None, -1)))) == (
        "<shard of shape (3, 4) at element 47 of Table((6, 5, 4), 'normal', seed=1)>"
    )
    assert repr(table.shard(...)) == "Table((6, 5, 4), 'normal', seed=1)"


@pytest.mark.parametrize(
    ("change", "beyond"),
    [
        ({"shape": [2**61 - 1, 0]}, {"shape": [2**61, 0]}),
        ({"shape": [1] * 64}, {"shape": [1] * 65}),
        ({"seed": [0] * 4096}, {"seed": [0] * 4097}),
        ({"seed": "0x" + "f" * 65_534}, {"seed": "0x" + "f" * 65_535}),
        ({"seed": "0x1"}, {"seed": "0x_1"}),
        (_view(10, [2], [1]), _view(11, [2], [1])),
        (_view(1, [2], [-1]), _view(0, [2], [-1])),
        (_view(0, [0], [1]), _view(0, [-1], [1])),
        (_view(11, [1], [1]), _view(12, [1], [1])),
        (_view(0, [12], [0]), _view(0, [13], [0])),
        (_view(1, [2], [10]), _view(2, [2], [10])),
        (_view(0, [1], [2**63 - 1]), _view(0, [1], [2**63])),
        (_view(0, [1], [1 - 2**63]), _view(0, [1], [-(2**63)])),
        (_view(0, [1] * 64, [1] * 64), _view(0, [1] * 65, [1] * 65)),
    ],
)  # fmt: skip
def test_the_edges_of_recipes(change, beyond):
    recipe = xf.Table((3, 4), "uniform", seed=0).recipe
    xf.Table.from_recipe({**recipe, **change})
    with pytest.raises(ValueError):
        xf.Table.from_recipe({**recipe, **beyond})


def test_which_seeds_are_written_in_hex():
    """Numbers from 2**53 on lose digits where JSON's numbers are floats."""
    assert xf.Table(3, "uniform", seed=2**53 - 1).recipe["seed"] == 2**53 - 1
    assert xf.Table(3, "uniform", seed=2**53).recipe["seed"] == "0x20000000000000"


def test_what_decides_is_told():
    assert xf.Table((3, 4), "he_normal").init == "he_normal"
    plain = xf.Table((3, 4), "uniform", bound=0.5)
    assert (plain.fan_in, plain.fan_out) == (3, 4)
    bounds = {
        plain: 0.5,
        xf.Table(3, "random_constant", bound=0.5): 0.5,
        xf.Table(3, "constant", value=-0.5): 0.5,
        xf.Table(3, "constant", value=3 - 4j, dtype="complex64"): 5.0,
        xf.Table(3, "truncated_normal", std=0.5, low=-1, high=3): 1.5,
        xf.Table(3, "truncated_normal", std=0.5, low=-4, high=3): 2.0,
        xf.Table(3, "truncated_normal", low=-4, high=INF): None,
        xf.Table(3, "truncated_normal", low=-INF, high=1): None,
        xf.Table(3, "normal"): None,
        xf.Table((0, 0), "xavier_normal"): 0.0,
    }
    narrow = xf.Table(3, "truncated_normal", low=0.0, high=1e-25, dtype="float64")  # where the density is level
    assert narrow.std == pytest.approx(1e-25 / math.sqrt(12), rel=1e-12, abs=0)
    for table, bound in bounds.items():
        assert table.bound == bound
    assert [xf.Table(3, init, **OWN.get(init, {})).std for init in ("zeros", "constant", "random_constant")] == [
        0,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("low", "high"), [(-2, 2), (-0.5, 4), (-4, 0.5), (0, 1), (5, INF), (-INF, -5), (-9, -8), (30, 31), (1, 1 + 2e-9)]
)
def test_deviation_and_density_beside_integrals(low, high):
    table = xf.Table(3, "truncated_normal", std=2.0, low=low, high=high, dtype="float64")
    near = low if abs(low) < abs(high) else high
    with mpmath.workdps(40):

        def moment(k):
            """Divided by the density at the nearer end, which may be too small for a float."""
            width = min(high - low, mpmath.mpf(20))
            span = [near, near + width] if near == low else [near - width, near]
            return mpmath.quad(lambda x: x**k * mpmath.exp((near**2 - x**2) / mpmath.mpf(2)), mpmath.linspace(*span, 9))

        mass, mean, square = (moment(k) for k in range(3))
        assert table.std == pytest.approx(2 * float(mpmath.sqrt(square / mass - (mean / mass) ** 2)), rel=1e-9, abs=0)
        inner = near + (1e-9 if near == low else -1e-9)
        ratio = mpmath.exp((near**2 - mpmath.mpf(inner) ** 2) / 2)
        assert table.density(2 * inner) == pytest.approx(float(ratio / mass / 2), rel=1e-6, abs=0)
    outside = [end + side for end, side in ((2 * low, -0.01), (2 * high, 0.01)) if abs(end) < INF]
    assert (table.density(outside) == 0).all()


def test_densities():
    x = np.linspace(-3, 3, 25)
    assert (xf.Table(3, "uniform", bound=1.5).density(x) == np.where(abs(x) <= 1.5, 1 / 3, 0)).all()
    want = np.exp(-((x / 0.7) ** 2) / 2) / (0.7 * math.sqrt(2 * math.pi))
    assert xf.Table(3, "normal", std=0.7).density(x) == pytest.approx(want, rel=1e-12, abs=0)
    for init, keywords in (
        ("zeros", {}), ("constant", {"value": 2}), ("random_constant", {}), ("normal", {"std": 0}),
        ("normal", {"dtype": "complex64"}),
    ):  # fmt: skip
        assert xf.Table(3, init, **keywords).density(x) is None


@pytest.mark.parametrize("low", [1e9, 4.3e71, 1e154])
def test_moments_and_densities_of_tails_of_any_magnitude(low):
    """Far out a tail is an exponential distribution with the mean low + 1 / low and the standard deviation 1 / low."""
    for ends in ((low, INF), (low, 2 * low), (-INF, -low)):
        table = xf.Table(3, "truncated_normal", low=ends[0], high=ends[1], dtype="float64", seed=0)
        with np.errstate(all="raise"):
            assert abs(table.mean) == low and table.std == pytest.approx(1 / low, rel=1e-12, abs=0)
            near = math.copysign(low, table.mean)
            assert table.density([near, 0.0, 1.5 * near, -near])[1:].tolist() == [0, 0, 0]
            assert table.density(near) == pytest.approx(low, rel=1e-12, abs=0)


def test_densities_of_the_narrowest_and_the_farthest():
    with np.errstate(all="raise"):
        assert xf.Table(3, "uniform", low=0.0, high=5e-324, seed=0).density([-1.0, 0.0, 1.0]).tolist() == [0, INF, 0]
        assert xf.Table(3, "normal", std=1e-250, dtype="float64").density([1e300, -1.0]).tolist() == [0, 0]
        constant = xf.Table(3, "truncated_normal", mean=2.0, std=0.0, low=1.4e154, high=INF)
        assert (constant.mean, constant.std, constant.density(2.0)) == (2.0, 0.0, None)


def test_deviations_of_complex_values():
    def std(init, **keywords):
        return xf.Table(3, init, dtype="complex128", **keywords).std

    assert std("uniform", bound=3.0) == pytest.approx(3 / math.sqrt(2), rel=1e-15, abs=0)
    assert std("normal", std=3.0) == 3
    for cut, want in (
        (1e-11, 1e-11 / math.sqrt(2)),
        (2, math.sqrt(1 - 4 / math.expm1(4))),
        (30, math.sqrt(1 - 900 / math.expm1(700))),
        (40, 1),
    ):
        assert std("truncated_normal", std=0.5, low=-cut, high=cut) == pytest.approx(0.5 * want, rel=1e-12, abs=0)


VIEWS = [
    ...,
    (slice(1, 6, 2), slice(None, None, -1), slice(1, 3)),
    (slice(None), 2),
    (slice(4, None, -3), None, 1, slice(3)),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("index", VIEWS, ids=str)
def test_flat_parts(use_level, ml_dtypes, index, dtype):
    """All parts of the C order of a table and of views, as files are written and verified."""
    view = xf.Table((6, 4, 3), "normal", seed=1, dtype=dtype).shard(index)
    whole = bits(np.asarray(view))
    for first in range(view.size + 1):
        for last in range(first, view.size + 1):
            part = whole[first * view.itemsize : last * view.itemsize].copy()
            assert (view._read_flat(first, np.zeros_like(part)) == part).all()
            assert view._equals_flat(first, part)
            if part.size:
                part[part.size // 2] ^= 1
                assert not view._equals_flat(first, part)


def test_rows_one_by_one(monkeypatch):
    monkeypatch.setattr(table_module, "CHUNK", 7)
    for shape in ((50, 3), (20,), (3, 0), (0, 3), (4, 2, 10)):
        table = xf.Table(shape, "normal", seed=1)
        rows = list(table)
        assert len(rows) == len(table)
        assert (np.array(rows).reshape(shape) == np.asarray(table)).all()


def test_embeddings_are_told_apart():
    for shape, told in (((64, 1), True), ((63, 1), False), ((128, 2), True), ((127, 2), False), ((64, 0), False)):
        assert ("for an embedding" in xf.Table(shape, seed=0).describe()) == told
    for other in (xf.Table((64, 1), "normal", seed=0), xf.Table((64, 1, 1), seed=0)):
        assert "for an embedding" not in other.describe()


@pytest.mark.parametrize("shape", [(1,), (3,), (3, 0), (0, 3), (3, 4), (2, 3, 4)], ids=str)
def test_where_nothing_is_selected_no_array_is_looked_at(shape):
    """NumPy refuses an int beyond an axis always, an array only if there is something to select."""
    table = xf.Table(shape, "uniform", seed=1)
    whole = np.asarray(table)
    parts = [
        True, False, [], [0], [5], [[5]], np.zeros((0, 1), int), np.array([[9], [0]]), 5, 0, -9, slice(None),
        slice(0, 0), None, np.zeros(3, bool), np.zeros(0, bool), np.zeros(1, bool), np.zeros((0, 3), bool),
        np.zeros((3, 0), bool), np.zeros((2, 2), bool),
    ]  # fmt: skip
    for index in [*itertools.product(parts, repeat=1), *itertools.product(parts, repeat=2)]:
        try:
            want = whole[index]
        except (IndexError, DeprecationWarning):  # which NumPy before 2.3 gives in the error's place
            with pytest.raises(IndexError):
                table[index]
        else:
            same(table[index], want)


class Count(enum.IntEnum):
    ONE = 1
    TWO = 2


class Text(str, enum.Enum):  # noqa: UP042, its str() is not its text
    LAYOUT = "oi"
    MODE = "fan_out"
    UNIFORM = "uniform"


class Number(float):
    pass


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"shape": (Count.TWO, np.int64(4))}, {"shape": (2, 4)}),
        ({"seed": Count.TWO}, {"seed": 2}),
        ({"seed": [Count.TWO, np.uint8(1)]}, {"seed": (2, 1)}),
        ({"name": np.str_("oi")}, {"name": "oi"}),
        ({"name": Text.LAYOUT}, {"name": "oi"}),
        ({"layout": Text.LAYOUT}, {"layout": "oi"}),
        ({"layout": np.str_("oi"), "groups": Count.TWO}, {"layout": "oi", "groups": 2}),
        ({"fan_in": np.int8(3), "fan_out": Count.TWO}, {"fan_in": 3, "fan_out": 2}),
        ({"gain": np.float32(0.1)}, {"gain": float(np.float32(0.1))}),
        ({"gain": Fraction(1, 3)}, {"gain": 1 / 3}),
        ({"gain": Count.ONE}, {"gain": 1}),
        ({"init": "he_normal", "mode": Text.MODE}, {"init": "he_normal", "mode": "fan_out"}),
        (
            {"init": "variance_scaling", "distribution": Text.UNIFORM, "scale": np.longdouble(2)},
            {"init": "variance_scaling", "distribution": "uniform", "scale": 2.0},
        ),
        ({"init": "constant", "value": np.float64(-0.0)}, {"init": "constant", "value": -0.0}),
        ({"init": "constant", "value": Number(0.5)}, {"init": "constant", "value": 0.5}),
        (
            {"init": "constant", "dtype": "complex64", "value": np.complex64(complex(1, -0.0))},
            {"init": "constant", "dtype": "complex64", "value": complex(1, -0.0)},
        ),
        (
            {"init": "truncated_normal", "low": np.float32(-1), "high": Fraction(3)},
            {"init": "truncated_normal", "low": -1.0, "high": 3.0},
        ),
    ],
    ids=str,
)
def test_arguments_of_other_types_become_pythons_own(given, plain):
    """So that recipes, pickles and reprs have nothing that cannot be read again."""
    table, same_table = (xf.Table(**{"shape": (6, 4), "seed": 1} | keywords) for keywords in (given, plain))
    assert repr(table) == repr(same_table) and json.dumps(table.recipe) == json.dumps(same_table.recipe)
    assert table == same_table == pickle.loads(pickle.dumps(table)) == eval(repr(table), {"Table": xf.Table})
    assert type(table.name) is str and {type(size) for size in table.shape} == {int}
    same(table[...], same_table[...])


@pytest.mark.parametrize(
    ("init", "zeros"),
    [
        ("normal", ["mean"]), ("truncated_normal", ["mean"]), ("truncated_normal", ["low"]),
        ("truncated_normal", ["high"]), ("truncated_normal", ["mean", "high"]), ("uniform", ["low"]),
        ("uniform", ["high"]), ("xavier_uniform", ["gain"]), ("he_normal", ["gain"]), ("random_constant", ["bound"]),
        ("variance_scaling", ["scale"]), ("truncated_normal", ["mean", "std"]),
    ],
)  # fmt: skip
def test_which_zero_was_used_before_changes_nothing(init, zeros):
    keywords = {"uniform": {"low": -1.0, "high": 1.0}}.get(init, {})
    found = []
    for order in ((-0.0, 0.0), (0.0, -0.0)):
        rules._cached.cache_clear()
        distributions._draw.cache_clear()
        tables = [xf.Table((6, 4), init, seed=1, **keywords | dict.fromkeys(zeros, zero)) for zero in order]
        assert tables[0] == tables[1]
        found += [
            (t[...].tobytes(), str(t.mean), str(t.support), str(t.std), t.describe().partition("\n")[2]) for t in tables
        ]
    assert len(set(found)) == 1


def test_ids_that_share_memory_with_out_are_read_before_they_are_overwritten(monkeypatch):
    monkeypatch.setattr(table_module, "CHUNK", 64)
    table = xf.Table(1000, "normal", dtype="float64", seed=1)
    whole = table[...]
    for dtype in (np.int64, np.uint64):
        ids = np.arange(1000).astype(dtype)
        out = ids.view(np.float64)[::-1]
        table.read(ids, out)
        same_bits(out, whole)


def test_tables_of_zeros_of_both_signs_differ():
    for dtype, value, other in (("float32", 0.0, -0.0), ("complex64", 1.5 + 0j, complex(1.5, -0.0))):
        a, b = (xf.Table(3, "constant", value=v, dtype=dtype, seed=0) for v in (value, other))
        assert a != b and a == xf.Table.from_recipe(a.recipe) and b == xf.Table.from_recipe(b.recipe)
        assert a[...].tobytes() != b[...].tobytes()
    assert xf.Table(3, "normal", std=1, seed=0) == xf.Table(3, "normal", std=1.0, seed=0)


@pytest.mark.parametrize(
    "keywords",
    [
        {"seed": 2**262_136 - 1},
        {"seed": 10**5000},
        {"seed": range(4096)},
        {"seed": 0, "name": "\0\N{SNOWMAN}" * 10_000},
        {"seed": 0, "shape": (0, 2**61 - 1)},
        {"seed": 0, "shape": (0,) * 64},
    ],
)
def test_what_a_table_accepts_its_recipe_and_its_repr_express(keywords):
    keywords = {"shape": (3, 4), "init": "normal"} | keywords
    table = xf.Table(**keywords)
    assert pickle.loads(pickle.dumps(table)) == table
    assert xf.Table.from_recipe(json.loads(json.dumps(table.recipe))) == table
    assert eval(repr(table), {"Table": xf.Table}) == table
    assert table.describe()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"seed": 2**262_136}, "seed must have at most 262,136 bits, got an int of 262,137"),
        ({"seed": range(4097)}, "seed must hold at most 4,096 ints, got 4,097"),
        ({"seed": [1, 2**262_136]}, "seed must have at most 262,136 bits"),
        ({"name": "a\ud800"}, "name must be text that UTF-8 can express"),
        ({"shape": (0, 2**63)}, "shape must have sizes less than"),
        ({"shape": (0, 2**61)}, "an array must have less than 2"),
        ({"shape": (2**31, 0, 2**31)}, "an array must have less than 2"),
    ],
)
def test_what_no_recipe_could_express_is_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        xf.Table(**{"shape": (3, 4)} | keywords)
    with pytest.raises(ValueError, match=message):
        xf.xavier_uniform(**{"shape": (3, 4)} | keywords)
