"""PyTorch: the in-place initialisers of ``torch.nn.init`` by our kernels, and models of any size filled in one call.

A tensor's memory is filled where it lies, whatever its strides, without a copy. Each rank fills only its own shard of a
``DTensor``, with the fans and the bits of the whole tensor. A seed and a name select a stream of values. A module's
parameters use their qualified names, so that their values depend neither on the order of construction nor on other
parameters; under ``fast_init``, where modules have no names yet, the name is the number of the call.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise ImportError("xavierfast.torch needs PyTorch: pip install torch") from None

from .capture import fast_init
from .functions import (
    constant_,
    kaiming_normal_,
    kaiming_uniform_,
    normal_,
    ones_,
    trunc_normal_,
    uniform_,
    xavier_normal_,
    xavier_uniform_,
    zeros_,
)
from .modules import InitReport, init_, materialize_
from .propagate import propagate
from .tensors import fill_

__all__ = [
    "InitReport", "constant_", "fast_init", "fill_", "init_", "kaiming_normal_", "kaiming_uniform_", "materialize_",
    "normal_", "ones_", "propagate", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
