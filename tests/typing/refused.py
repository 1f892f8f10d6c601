"""Calls that mypy and pyright must refuse: each such line ends in the error of mypy and the one of pyright.

This file is checked and never run.
"""

import numpy as np
import torch

import xavierfast as xf
import xavierfast.jax as xj
import xavierfast.torch as xt

xf.xavier_uniform((2, 3), sed=0)  #! call-arg reportCallIssue
xf.xavier_uniform((2, 3), mode="fan_in")  #! call-arg reportCallIssue
xf.xavier_uniform((2, 3), 1.0)  #! call-arg reportCallIssue
xf.xavier_uniform((2, 3), out=torch.empty(2, 3))  #! arg-type reportArgumentType
xf.xavier_uniform((2, 3), seed="7")  #! arg-type reportArgumentType
xf.he_normal((2, 3), mode="fanin")  #! arg-type reportArgumentType
xf.variance_scaling((2, 3), distribution="gaussian")  #! arg-type reportArgumentType
xf.normal((2, 3), dtype="fp32")  #! arg-type reportArgumentType
xf.normal(2.5)  #! arg-type reportArgumentType
xf.normal((2, 2.5))  #! arg-type reportArgumentType
xf.normal("23")  #! arg-type reportArgumentType
xf.uniform(3, bound="1")  #! arg-type reportArgumentType
xf.constant(3)  #! call-arg reportCallIssue
xf.Table((2, 3), "xavier")  #! arg-type reportArgumentType
xf.Table((2, 3), sed=0)  #! call-arg reportCallIssue
xf.Table((2, 3), "he_normal", mode="fanin")  #! arg-type reportArgumentType
xf.Table((2, 3), dtype="fp32")  #! arg-type reportArgumentType
xf.Table((2, 3)).read(..., torch.empty(2, 3))  #! arg-type reportArgumentType
xf.Table((2, 3)).reed()  #! attr-defined reportAttributeAccessIssue
xf.fans(3)  #! arg-type reportArgumentType
xf.init([np.empty(3)], {"*": "zeros"})  #! call-overload reportArgumentType
xf.init({"w": 3}, {"*": "zeros"}, sed=0)  #! call-overload reportCallIssue
xf.variance_scaling_initializer(mode="fan_in")  #! arg-type reportArgumentType
xj.variance_scaling(1.0, "fan", "normal")  #! arg-type reportArgumentType
xt.xavier_uniform_(torch.empty(2, 3), sed=0)  #! call-arg reportCallIssue
w = torch.empty(2, 3)
xt.xavier_uniform_(w, gian=1)  #! call-arg reportCallIssue
xt.normal_(3.0)  #! arg-type reportArgumentType
print(xf.Tabel)  #! attr-defined reportAttributeAccessIssue
