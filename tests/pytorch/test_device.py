"""Tensors on devices for which there are no kernels: computed on the CPU, and copied. The device is a pretence."""

import warnings

import numpy as np
import pytest
from support import missing, same_bits

import xavierfast as xf

try:
    import torch
except ImportError:
    missing("torch is not installed")

import xavierfast.torch as xt
from xavierfast.torch import device as devices


class Elsewhere(torch.Tensor):
    """A CPU tensor that says it is on another device."""

    kind = "mps"

    @property
    def device(self):
        return torch.device(self.kind)


class OnCuda(Elsewhere):
    kind = "cuda"


def elsewhere(*shape, dtype=torch.float32, kind=Elsewhere):
    return torch.zeros(shape, dtype=dtype).as_subclass(kind)


def plain(tensor):
    return tensor.detach().as_subclass(torch.Tensor)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "complex64"])
def test_a_copy(dtype):
    table = xf.Table((3, 40), "normal", seed=1, dtype=dtype)
    tensor, want = (
        elsewhere(3, 80, dtype=getattr(torch, dtype))[:, ::2],
        torch.zeros(3, 40, dtype=getattr(torch, dtype)),
    )
    version = tensor._version
    assert xt.fill_(tensor, table) is tensor and tensor._version > version
    xt.fill_(want, table)
    assert torch.equal(plain(tensor).contiguous().view(torch.uint8), want.view(torch.uint8))


def test_rows_by_ids():
    table = xf.Table((1000, 6), "normal", seed=1)
    for tensor in (elsewhere(2, 6), torch.zeros(2, 6)):
        xt.fill_(tensor, table, torch.tensor([7, -1]))
        same_bits(plain(tensor).numpy(), table[[7, -1]])
        with pytest.raises(IndexError):
            xt.fill_(tensor, table, torch.tensor([7, 1000]))


@pytest.mark.parametrize(
    ("ids", "error", "match"),
    [
        (torch.tensor([1.0, 2.0]), TypeError, "ids must be a torch.Tensor of ints, got torch.float32"),
        ([1, 2], TypeError, "ids must be a torch.Tensor of ints, got list"),
        (torch.tensor([True, False]), TypeError, "got torch.bool"),
        (torch.tensor([[1, 2]]), ValueError, "ids must have one axis"),
        (torch.tensor([1, 2, 3]), ValueError, r"must agree, .* and 3 ids"),
    ],
)
def test_bad_ids(ids, error, match):
    with pytest.raises(error, match=match):
        xt.fill_(torch.zeros(2, 6), xf.Table((1000, 6), "normal", seed=1), ids)


class Layer(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def reset_parameters(self):
        torch.nn.init.trunc_normal_(self.weight, std=0.5)


def test_a_model_elsewhere():
    """``init_`` reports the same as on the CPU: the copy is not taken for an operation of the model's code."""
    model, want = Layer(elsewhere(4, 3)), Layer(torch.zeros(4, 3))
    report = xt.init_(model, seed=5)
    assert report == xt.init_(want, seed=5)
    assert "truncated_normal" in report.filled["weight"]
    same_bits(plain(model.weight).numpy(), plain(want.weight).numpy())


def test_without_triton(monkeypatch):
    """One warning for the process."""
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    monkeypatch.delitem(__import__("sys").modules, "xavierfast.kernels.gpu", raising=False)
    devices._backend.cache_clear()
    tensor, table = elsewhere(3, 4, kind=OnCuda), xf.Table((3, 4), seed=1)
    try:
        with pytest.warns(UserWarning, match="Triton cannot be imported .*pip install 'triton>=3.7'"):
            xt.fill_(tensor, table)
        same_bits(plain(tensor).numpy(), np.asarray(table))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            xt.fill_(tensor, table)
    finally:
        devices._backend.cache_clear()
