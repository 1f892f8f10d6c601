"""Calls that the type checkers accept, and what they say of the results. This file is checked and never run."""

from typing import Any, assert_type

import numpy as np
import torch

import xavierfast as xf
import xavierfast.torch as xt

Array = np.ndarray[Any, np.dtype[Any]]

assert_type(xf.xavier_uniform((2, 3), seed=0), Array)
assert_type(xf.he_normal([2, 3], gain=1.0, mode="fan_out", dtype="bfloat16", name="w"), Array)
assert_type(xf.uniform((np.int64(2), 3), low=0, high=1, dtype=np.float64), Array)
assert_type(xf.normal(torch.Size((2, 3)), mean=1.0, std=0.02, dtype=np.dtype("float16")), Array)
assert_type(xf.zeros(out=np.empty(3)), Array)
assert_type(xf.calculate_gain("tanh"), float)
assert_type(xf.Table((10, 3), "he_normal", seed=[1, 2]).std, float)
assert_type(xf.Table(10).read([1, 2]), Array)
assert_type(xf.fans((3, 4), "io"), tuple[int, int])
assert_type(xt.xavier_uniform_(torch.empty(2, 3), 1.0, seed=0, name="w"), torch.Tensor)
assert_type(xt.init_(torch.nn.Linear(2, 3), "xavier_uniform", seed=0), xt.InitReport)
