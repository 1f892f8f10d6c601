"""The fans of PyTorch's weights: from a shape in PyTorch's order, or from the layer that holds the weight.

A shape does not say all. A grouped convolution feeds each output from its own group only; a transposed convolution has
its inputs first; attention and recurrent layers stack several matrices along the first axis, and layers of experts
stack them along an axis of their own. Where the layer is known, it decides.
"""

from string import ascii_lowercase
from typing import Any

import torch

from ..fans import fans

__all__ = ["layer_fans", "weight_fans"]

FIELD = "".join(letter for letter in ascii_lowercase if letter not in "iob")
# The number of matrices that a recurrent layer stacks: one for each gate.
GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}


def weight_fans(
    shape: tuple[int, ...], layout: str | None = None, groups: int = 1, transposed: bool = False
) -> dict[str, Any]:
    """The arguments of a Table that give a weight its fans; by default in PyTorch's order, output before input."""
    if layout is not None:
        if transposed:
            raise ValueError(f"layout says which axes are inputs, so that transposed must be False, got {layout!r}")
        return {"layout": layout, "groups": groups}
    field = FIELD[: max(0, len(shape) - 2)]
    if len(shape) < 2 or not transposed:
        return {"layout": f"oi{field}" if len(shape) > 1 else None, "groups": groups}
    if groups == 1:
        return {"layout": f"io{field}"}
    # It is the weight of a convolution in the other direction, from its outputs to its inputs.
    fan_out, fan_in = fans(shape, f"oi{field}", groups)
    return {"fan_in": fan_in, "fan_out": fan_out}


def layer_fans(layer: torch.nn.Module, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of a Table that give the parameter `name` of a layer the fans that it has in this layer."""
    nn = torch.nn
    if len(shape) < 2:
        return {}
    if hasattr(layer, "kernel_size") and len(shape) > 2:
        return weight_fans(shape, None, getattr(layer, "groups", 1), getattr(layer, "transposed", False))
    if isinstance(layer, nn.MultiheadAttention) and name == "in_proj_weight":  # query, key and value
        return {"fan_in": shape[1], "fan_out": shape[0] // 3}
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase) and name.startswith(("weight_ih", "weight_hh")):
        kind = layer.mode if isinstance(layer, nn.RNNBase) else type(layer).__name__
        return {"fan_in": shape[1], "fan_out": shape[0] // GATES.get(kind, 1)}
    if len(shape) == 2 and any(base.__name__ == "Conv1D" for base in type(layer).__mro__):  # of transformers' GPT-2
        return {"layout": "io"}
    if len(shape) == 3 and not isinstance(layer, nn.Bilinear):  # experts; transformers marks those that have x @ w
        return {"layout": "bio" if getattr(layer, "is_transposed", False) else "boi"}
    return weight_fans(shape)
