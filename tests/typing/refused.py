"""Calls that the type checkers must refuse: each line ends in the error that mypy gives. This file is never run.

mypy reports an ignore that is not needed, so a call that is accepted by mistake fails the check.
"""

import torch

import xavierfast as xf
import xavierfast.torch as xt

xf.xavier_uniform((2, 3), sed=0)  # type: ignore[call-arg]
xf.xavier_uniform((2, 3), mode="fan_in")  # type: ignore[call-arg]
xf.he_normal((2, 3), mode="fanin")  # type: ignore[arg-type]
xf.normal((2, 3), dtype="fp32")  # type: ignore[arg-type]
xf.normal(2.5)  # type: ignore[arg-type]
xf.uniform(3, bound="1")  # type: ignore[arg-type]
xf.Table((2, 3), "xavier")  # type: ignore[arg-type]
xt.xavier_uniform_(torch.empty(2, 3), sed=0)  # type: ignore[call-arg]
xt.normal_(3.0)  # type: ignore[arg-type]
print(xf.tabel)  # type: ignore[attr-defined]
