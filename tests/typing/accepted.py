"""Calls that mypy and pyright accept, and the types that they give. This file is checked and never run."""

from typing import Any, assert_type

import jax
import numpy as np
import torch

import xavierfast as xf
import xavierfast.jax as xj
import xavierfast.torch as xt

Array = np.ndarray[Any, np.dtype[Any]]

# ---- shapes

assert_type(xf.xavier_uniform((2, 3), seed=0), Array)
assert_type(xf.he_normal([2, 3], gain=1.0, mode="fan_out", dtype="bfloat16", name="w"), Array)
assert_type(xf.uniform(3), Array)
assert_type(xf.uniform(np.int64(3)), Array)
assert_type(xf.uniform((np.int64(2), 3), low=0, high=1, dtype=np.float64), Array)
assert_type(xf.uniform((np.int64(2), np.int64(3))), Array)
assert_type(xf.uniform(np.array([2, 3])), Array)
assert_type(xf.normal(torch.Size((2, 3)), mean=1.0, std=0.02, dtype=np.dtype("float16")), Array)
assert_type(xf.Table(torch.Size((2, 3)), "he_normal").std, float)
assert_type(xf.fans((np.int64(3), 4), "io"), tuple[int, int])
assert_type(xf.xavier_initializer(seed=0)([4, 4]), Array)

# ---- seeds

assert_type(xf.uniform(3, seed=None), Array)
assert_type(xf.uniform(3, seed=np.int64(7)), Array)
assert_type(xf.uniform(3, seed=(1, np.int64(2))), Array)
assert_type(xf.uniform(3, seed=np.array([1, 2])), Array)
assert_type(xf.uniform(3, seed=np.random.default_rng(0)), Array)
assert_type(xf.uniform(3, seed=np.random.SeedSequence(0)), Array)

# ---- memory

assert_type(xf.zeros(out=np.empty(3)), Array)
assert_type(xf.zeros(out=bytearray(12)), Array)
assert_type(xf.zeros(out=memoryview(bytearray(12))), Array)

# ---- tables

table = xf.Table((10, 3), "truncated_normal", low=-1.0, seed=[1, 2])
assert_type(table.read(), Array)
assert_type(table.read([1, 2], np.empty((2, 3), np.float32), threads=2), Array)
assert_type(table[2:4], Array)
assert_type(table[[1, 2]], Array)
assert_type(table[np.arange(2)], Array)
assert_type(table[...], Array)
assert_type(table.shard(slice(2, 4)), xf.Table)
assert_type(table.seed, int | tuple[int, ...])
assert_type(xf.Table(table.shape, table.init, dtype=table.dtype_name), xf.Table)
assert_type(xf.Table.from_recipe(table.recipe), xf.Table)
xf.Table((10, 3), xf.he_normal)

# ---- models

shapes = {"embed.weight": (50_000, 768), "h.0.attn.bias": 2304, "h.1": {"shape": [3, 4], "init": "zeros"}}
rules = {"*.bias": "zeros", "embed.*": {"init": "normal", "std": 0.02}, "*": xf.xavier_uniform}
assert_type(xf.init(shapes, rules), dict[str, Array])
assert_type(xf.init(shapes, rules, 0, lazy=False), dict[str, Array])
assert_type(xf.init(shapes, rules, seed=0, lazy=True), dict[str, xf.Table])
assert_type(
    xf.init({"w": np.empty((2, 3))}, [("*", "normal")], lazy=bool(shapes)), dict[str, Array] | dict[str, xf.Table]
)

# ---- the rest

assert_type(xf.calculate_gain("tanh"), float)
assert_type(xf.__version__, str)
assert_type(xj.make_array(xf.Table((2, 3))), jax.Array)
assert_type(xj.glorot_uniform(in_axis=(0, 1))(jax.random.key(0), (2, 3, 4)), jax.Array)
assert_type(xt.xavier_uniform_(torch.empty(2, 3), 1.0, seed=0, name="w"), torch.Tensor)
assert_type(xt.init_(torch.nn.Linear(2, 3), "xavier_uniform", seed=0), xt.InitReport)
