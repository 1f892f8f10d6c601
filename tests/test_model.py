"""init: whole models by names and rules."""

import time
from fnmatch import fnmatchcase
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xavierfast as xf
from xavierfast.model import FirstMatch

SHAPES = {"embed.weight": (100, 16), "h.0.attn.weight": (16, 48), "h.0.attn.bias": (48,), "h.1.attn.weight": (16, 48)}
RULES = {"*.bias": "zeros", "embed.*": {"init": "normal", "std": 0.02}, "*": "xavier_uniform"}


def test_each_name_is_a_table():
    weights = xf.init(SHAPES, RULES, seed=5)
    assert list(weights) == list(SHAPES)
    assert (weights["embed.weight"] == xf.normal((100, 16), std=0.02, seed=5, name="embed.weight")).all()
    assert (weights["h.0.attn.weight"] == xf.xavier_uniform((16, 48), seed=5, name="h.0.attn.weight")).all()
    assert (weights["h.0.attn.bias"] == 0).all()
    assert (weights["h.0.attn.weight"] != weights["h.1.attn.weight"]).all()


def test_other_entries_change_nothing():
    weights = xf.init(SHAPES, RULES, seed=5)
    fewer = xf.init(
        {"h.1.attn.weight": (16, 48), "new": (3, 3), "embed.weight": (100, 16)},
        {"embed.*": RULES["embed.*"], "*": "xavier_uniform"},
        seed=5,
    )
    for name in ("h.1.attn.weight", "embed.weight"):
        assert (fewer[name] == weights[name]).all()


def test_lazy():
    tables = xf.init(SHAPES, RULES, seed=5, lazy=True, dtype="float16")
    assert tables["embed.weight"] == xf.Table(
        (100, 16), "normal", std=0.02, seed=5, name="embed.weight", dtype="float16"
    )
    assert all(isinstance(table, xf.Table) for table in tables.values())


def test_arrays_and_tables():
    array = np.empty((16, 48), np.float64, order="F")
    table = xf.Table((3, 4), seed=9)
    result = xf.init({"a": array, "b": table}, [("a", xf.lecun_normal)], seed=1)
    assert result["a"] is array
    assert (array == xf.lecun_normal((16, 48), seed=1, name="a", dtype="float64")).all()
    assert (result["b"] == table[...]).all()


def test_rules_carry_layouts_and_dtypes():
    result = xf.init(
        {"conv": (8, 4, 3, 3)}, {"conv": {"init": "xavier_uniform", "layout": "oihw", "dtype": "float64"}}, 0
    )
    assert (
        result["conv"] == xf.xavier_uniform((8, 4, 3, 3), layout="oihw", dtype="float64", seed=0, name="conv")
    ).all()


def test_without_a_seed(caplog):
    """One fresh seed for all tensors, which Tables hold and the log reports, and which gives the same weights again."""
    rules = {"*": "xavier_uniform"}
    tables = xf.init(SHAPES, {"*": "uniform"}, lazy=True)
    assert len({table.seed for table in tables.values()}) == 1
    assert tables != xf.init(SHAPES, {"*": "uniform"}, lazy=True)
    shapes = {"a": (3, 4), "b": (3, 4)}
    with caplog.at_level("INFO", "xavierfast"):
        weights = xf.init(shapes, rules)
        xf.init(shapes, rules, seed=7)  # reports nothing
    assert type(weights) is dict  # JAX does not map over subclasses
    (message,) = caplog.messages
    seed = int(message.removeprefix("init takes the seed "), 16)
    assert all((array == weights[name]).all() for name, array in xf.init(shapes, rules, seed).items())


def test_no_seed_is_not_printed(capfd):
    xf.init({"a": (3, 4)}, {"*": "zeros"})
    assert capfd.readouterr() == ("", "")


def test_first_match_wins():
    tables = xf.init({"a.w": (3, 4), "b.w": (3, 4)}, [("a.*", "zeros"), ("*.w", "xavier_normal")], lazy=True)
    assert [table.init for table in tables.values()] == ["zeros", "xavier_normal"]


TEXTS = st.text("ab.*?[]!-0\n", max_size=12)


@settings(max_examples=2000, deadline=None)
@given(st.lists(TEXTS, max_size=12), st.lists(TEXTS, max_size=8), st.sampled_from([0, 8]))
def test_the_first_match_is_that_of_fnmatch(patterns, names, few):
    """With `few` = 0 the patterns are found by their pieces too, for which there would otherwise be too few of them."""
    with patch("xavierfast.model.FEW", few):
        first_match = FirstMatch(patterns)
    for name in [*names, *patterns]:  # patterns are names too, which exact patterns match
        expected = next((k for k, pattern in enumerate(patterns) if fnmatchcase(name, pattern)), None)
        assert first_match(name) == expected


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("block.{}.*", "block.{}.weight"), ("*.{}.weight", "block.1.{}.weight"), ("b.{}.w", "b.{}.w"),
        ("block.*.{}.*.weight", "block.7.{}.x.weight"), ("block.?.{}.w[ab]", "block.7.{}.wb"),
    ],
)  # fmt: skip
def test_few_of_many_patterns_are_tried(pattern, name):
    first_match = FirstMatch([*(pattern.format(f"{k:03d}") for k in range(1000)), "*"])
    names = range(0, 1000, 97)
    assert [first_match(name.format(f"{k:03d}")) for k in names] == list(names)
    assert len(first_match._matches) <= 2 * len(names)
    assert first_match("other") == 1000


@pytest.mark.parametrize(
    "part", ["[", "[!", "[]", "[a", "[a-", "*[", "*[a]", "*a", "[a-z]", "[z-a]", "?", "a", "[!]", "]["]
)  # fmt: skip
def test_long_patterns_are_compiled_at_once(part):
    """The first 100 of these took 2.5 s, and one of 20,000 brackets 10 s."""
    began = time.process_time()
    first_match = FirstMatch([*(f"{part * 1000:.990}{k}" for k in range(100)), "*"])
    assert first_match("x") is not None
    assert first_match("a" * 3000) is not None
    assert time.process_time() - began < 3  # it is 0.7 s at the most, on a busy machine


def test_many_tensors_under_many_rules():
    tensors = {f"model.layers.{k % 5000}.block{k // 5000}.weight": (1,) for k in range(20_000)}
    rules = {f"model.layers.{k}?.*": "zeros" for k in range(1, 500)} | {f"*.{k}.*.weight": "normal" for k in range(10)}
    began = time.process_time()
    tables = xf.init(tensors, rules, seed=0, lazy=True)
    assert time.process_time() - began < 2  # it is 0.4 s; trying each rule took a time that grew with their number
    assert tables["model.layers.4999.block3.weight"].init == "zeros"
    assert tables["model.layers.7.block0.weight"].init == "normal"


def test_patterns_of_more_than_a_million_characters_are_refused():
    with pytest.raises(ValueError, match="patterns must have at most 1,048,576 characters together, got 1,049,001"):
        xf.init({"a": 3}, {"*": "zeros"} | {f"{k:04d}".ljust(1000, "x"): "zeros" for k in range(1049)})
    with pytest.raises(ValueError, match=r"a pattern must have at most 1000 characters, got 1,001 in 'xxx"):
        xf.init({"a": 3}, {"x" * 1001: "zeros"})


def test_errors_name_a_few_of_many_rules():
    with pytest.raises(
        ValueError, match=r"each rule must match a name, got '0', '1', '2', '3', '4' and 9,995 more that"
    ):
        xf.init({"a": (3,)}, {"a": "zeros"} | {str(k): "zeros" for k in range(10_000)})
    with pytest.raises(ValueError) as caught:
        xf.init({"a" * 10**6: (3,)}, {"b" * 1000: "zeros"})
    assert len(str(caught.value) + "".join(caught.value.__notes__)) < 500


X = np.full((4, 6), 7, np.float32)


@pytest.mark.parametrize(
    ("tensors", "rules", "keywords", "error", "message"),
    [
        (
            {"a": X, "b": (3, 3)},
            {"a": "zeros"},
            {},
            ValueError,
            "a rule must match each name, got 'b' and the rules 'a'",
        ),
        ({"a": X}, {"a": "zeros", "c*": "zeros"}, {}, ValueError, r"each rule must match a name, got 'c\*'"),
        ({"a": X, "b": (3,)}, {"*": "xavier_uniform"}, {}, ValueError, "at least two axes"),
        ({"a": X, "b": X[:2]}, {"*": "normal"}, {}, ValueError, "must not share memory, got '[ab]' and '[ab]'"),
        ({"a": X, "b": X}, {"*": "normal"}, {}, ValueError, "must not share memory"),
        ({"a": X, "b": X.T}, {"*": "normal"}, {}, ValueError, "must not share memory"),
        ({"a": X}, {"*": "nromal"}, {}, ValueError, "init must be the name of an initialiser"),
        ({"a": X}, {"*": {"std": 1}}, {}, ValueError, "must name its initialiser as 'init'"),
        ({"a": X}, {"*": {"init": "normal", "seed": 1}}, {}, ValueError, "must not give the seed"),
        ({"a": X}, {"*": {"init": "normal", "sdt": 1}}, {}, TypeError, "unexpected keyword argument 'sdt'"),
        ({"a": X}, ["*"], {}, TypeError, "pairs of a pattern and a rule"),
        ({"a": X, 5: (3, 3)}, {"*": "normal"}, {}, TypeError, "names of tensors must be str, got 5"),
        ({"a": X}, {"*": "normal"}, {"seed": -1}, ValueError, "seed must not be negative"),
        ({"a": X}, {"*": "normal"}, {"threads": 0}, ValueError, "threads must be at least 1"),
        ({"a": X}, {"*": "normal"}, {"lazy": True}, ValueError, "lazy=True gives Tables"),
        ({"a": X}, {"*": {"init": "normal", "dtype": "float64"}}, {}, TypeError, "out must hold float64"),
        (
            {"a": X, "b": np.ones(2)},
            {"a": "normal", "b": {"init": "normal", "dtype": "float32"}},
            {},
            TypeError,
            "out must hold float32",
        ),
        ({"a": X, "b": np.zeros((2, 2), int)}, {"*": "normal"}, {}, TypeError, "dtype must be one of"),
        ([("a", X)], {"*": "normal"}, {}, TypeError, "tensors must be a mapping"),
    ],
)
def test_refused(tensors, rules, keywords, error, message):
    with pytest.raises(error, match=message):
        xf.init(tensors, rules, **keywords)
    assert (X == 7).all()


def test_the_error_names_the_tensor():
    with pytest.raises(ValueError) as caught:
        xf.init({"fine": (3, 4), "h.3.bias": (4,)}, {"*": "xavier_uniform"})
    assert caught.value.__notes__ == ["for the tensor 'h.3.bias'"]


def test_interleaved_arrays_do_not_share():
    memory = np.zeros((4, 6), np.float32)
    result = xf.init({"even": memory[:, ::2], "odd": memory[:, 1::2]}, {"*": "normal"}, seed=0)
    assert (memory[:, 1::2] == xf.normal((4, 3), seed=0, name="odd")).all()
    assert result["even"].base is memory


@pytest.mark.parametrize("own", [{"init": "zeros"}, {"shape": (3, 4), "seed": 1}, {"shape": (3, 4), "name": "x"}])
def test_a_dict_that_says_too_little_or_too_much(own):
    with pytest.raises(ValueError, match="must give its shape, and neither seed nor name"):
        xf.init({"a": own}, {"*": "zeros"})


@pytest.mark.parametrize("reserved", ["shape", "seed", "name"])
def test_what_a_rule_must_not_give(reserved):
    with pytest.raises(ValueError, match=f"must not give the {reserved}"):
        xf.init({"a": (3, 4)}, {"*": {"init": "zeros", reserved: 1}})


@pytest.mark.parametrize("pair", [("*",), ("*", "zeros", 1), (5, "zeros"), ["*", "zeros"]])
def test_what_is_no_pair(pair):
    with pytest.raises(TypeError, match="pairs of a pattern and a rule"):
        xf.init({"a": (3, 4)}, [pair])


def test_neighbours_in_memory_do_not_share():
    memory = np.zeros((6, 4), np.float32)
    parts = {
        "a": memory[:2],
        "b": memory[3:1:-1],
        "c": memory[4:, ::-1],
        "none": memory[1:1],
        "d": np.zeros((0, 4), "f4"),
    }
    xf.init(parts, {"*": "normal"}, seed=0)
    assert (memory == np.concatenate([xf.normal((2, 4), seed=0, name="a"), memory[2:]])).all()
    assert (memory[3:1:-1] == xf.normal((2, 4), seed=0, name="b")).all()
    assert (memory[4:, ::-1] == xf.normal((2, 4), seed=0, name="c")).all()


@pytest.mark.parametrize(
    "pair",
    [
        (slice(None, None, -1), slice(0, 1)), (slice(None, None, -1), slice(5, 6)), (slice(5, 3, -1), slice(4, 5)),
        (slice(0, 3), slice(2, 6)), (slice(None, None, 3), slice(3, 4)),
    ],
)  # fmt: skip
def test_what_shares_memory(pair):
    memory = np.full((6, 4), 7, np.float32)
    first, second = (memory[part] for part in pair)
    for tensors in ({"a": first, "b": second}, {"a": second, "b": first}, {"a": first, "z": memory[:0], "b": second}):
        with pytest.raises(ValueError, match="must not share memory"):
            xf.init(tensors, {"*": "normal"})
    assert (memory == 7).all()


def test_a_table_among_others():
    """A Table is taken as it is, and the tensors after it are made as usual."""
    table = xf.Table((3, 4), seed=9)
    result = xf.init({"a": table, "b": (3, 4), "c": table}, {"*": "zeros"}, seed=0, lazy=True)
    assert result == {"a": table, "b": xf.Table((3, 4), "zeros", seed=0, name="b"), "c": table}


def test_the_last_element_is_shared():
    memory = np.zeros(8, np.float32)
    with pytest.raises(ValueError, match="must not share memory"):
        xf.init({"a": memory[:5], "b": memory[4:]}, {"*": "normal"})
