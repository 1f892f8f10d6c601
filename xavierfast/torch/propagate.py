"""Propagation through a ``torch.nn.Module``: the measurements of ``xavierfast.propagation``, taken by hooks."""

from math import nan
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._core.stream import Seed, resolve_seed
from ..table import Table

if TYPE_CHECKING:
    from ..propagation import Report

__all__ = ["propagate"]


def propagate(model: Any, inputs: Any, *, seed: Seed = 0, jacobian: bool = True) -> "Report":
    """Measure any ``torch.nn.Module`` as :func:`xavierfast.propagation.propagate` measures a dense network, by hooks.

    A layer is a module, other than an ``Embedding``, whose weight has two axes or more.

    A layer's activations are the outputs of the next elementwise module (``Tanh``, ``ReLU``, ...), or the layer's own
    outputs if another layer comes first. Functions, such as ``torch.relu``, are not seen. The neurons of a convolution
    are its channels. Parameters, their gradients, buffers and torch's generator are left unchanged.

    Parameters
    ----------
    model : torch.nn.Module
        A module that returns one tensor of floats.
    inputs : torch.Tensor or array
        The model's argument: finite values, with samples along the first axis.
    seed
        The seed of the random gradient, as in :func:`xavierfast.xavier_uniform`.
    jacobian : bool
        As in :func:`xavierfast.propagation.propagate`; only dense layers have a Jacobian here.

    Returns
    -------
    Report
        The same measurements as those of :func:`xavierfast.propagation.propagate`, if the model is a chain of
        ``Linear`` and elementwise modules.

    Raises
    ------
    TypeError, ValueError, ImportError
        If an argument is not as described above, or if the model calls no layer.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    >>> report = propagate(model, torch.ones(32, 8))
    >>> [(layer.name, layer.width) for layer in report.layers]
    [('0', 16), ('2', 4)]
    """
    from ..propagation.activations import GRID, MODULES  # the initialisers do not need the room
    from ..propagation.measure import Trace, make_report

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    x = torch.as_tensor(inputs)
    if x.is_floating_point() and not torch.is_tensor(inputs):
        x = x.to(next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype))
    if not x.ndim or not len(x):
        raise ValueError(f"inputs must have samples along their first axis, got the shape {tuple(x.shape)}")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise ValueError("inputs must be finite, got NaN or infinity: clean them first")
    seed = resolve_seed(seed)
    elementwise = tuple(getattr(torch.nn, name) for name in MODULES)
    names = {module: name for name, module in model.named_modules()}
    calls: list[SimpleNamespace] = []  # one per call of a layer

    def before(module: Any, args: Any) -> None:  # in-place modules have not acted yet
        if calls and calls[-1].f is None:
            call = calls[-1]
            call.f, call.s, call.dense = module, args[0].detach().clone(), call.dense and args[0] is call.handed

    def after(module: Any, args: Any, output: Any) -> Any:
        if calls and calls[-1].f is module:
            calls[-1].z = output.detach().clone()
        weight = getattr(module, "weight", None)
        if not torch.is_tensor(weight) or weight.ndim < 2 or isinstance(module, torch.nn.Embedding):
            return None
        out = output if output.requires_grad else output.detach().requires_grad_()
        dense = isinstance(module, torch.nn.Linear) and out.ndim == 2
        calls.append(
            SimpleNamespace(module=module, weight=weight, out=out, handed=out.clone(), z=out, f=None, dense=dense)
        )
        return calls[-1].handed

    def slope_of(f: Any, s: Any) -> Any:
        s = s.clone().requires_grad_()
        return torch.autograd.grad(f.forward(s.clone()).sum(), s)[0]

    def neurons(call: Any, tensor: Any) -> Any:  # (samples, neurons)
        axis = 1 if hasattr(call.module, "kernel_size") else -1
        return numpy(tensor.movedim(axis, -1).flatten(0, -2))

    def numpy(tensor: Any) -> Any:
        return tensor.detach().float().cpu().numpy()

    hooks = [module.register_forward_hook(after) for module in names]
    hooks += [module.register_forward_pre_hook(before) for module in names if isinstance(module, elementwise)]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            output = model(x)
        if not torch.is_tensor(output) or not output.is_floating_point():
            raise TypeError(f"model must return a tensor of floats, got {type(output).__name__}: wrap it")
        if not calls:
            raise ValueError(f"model must call a module whose weight has two axes or more, got {type(model).__name__}")
        g = torch.from_numpy(Table(tuple(output.shape), "normal", seed=seed, name="gradient").read()).to(output)
        of = [call.out for call in calls] + [call.weight if call.weight.requires_grad else call.out for call in calls]
        gradients = torch.autograd.grad(output, of, g, allow_unused=True, materialize_grads=True)
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
    traces = []
    for call, gradient, of_weight in zip(calls, gradients, gradients[len(calls) :], strict=False):
        weight = call.weight.transpose(0, 1) if getattr(call.module, "transposed", False) else call.weight
        slope, steepest, is_bounded = None, nan, False
        if call.f is not None:
            grid = torch.from_numpy(GRID).to(call.s)
            with torch.enable_grad():
                slope, steepest = neurons(call, slope_of(call.f, call.s)), float(slope_of(call.f, grid).abs().max())
            is_bounded = bool(call.f.forward(grid.clone()).abs().max() <= 1)
        weight_gradient = numpy(of_weight) / len(x) if call.weight.requires_grad else None
        traces.append(Trace(names[call.module], numpy(weight.flatten(1).T), neurons(call, call.z), slope, steepest,
                             neurons(call, gradient), weight_gradient, is_bounded, call.dense))  # fmt: skip
    fs = dict.fromkeys(type(call.f).__name__ for call in calls if call.f is not None)
    with np.errstate(all="ignore"):
        return make_report(type(model).__name__, ", ".join(fs) or "unknown", len(x), seed, traces, jacobian)
