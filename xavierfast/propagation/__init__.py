"""Measure the effect of an initialisation on a deep network; the method is described in ``network``.

``propagate`` measures one network, ``compare`` measures several initialisations of it, ``suggest`` looks for a gain,
and ``explain`` describes the results in sentences. ``xavierfast.torch.propagate`` measures a ``torch.nn.Module``.
"""

from .network import (
    ACTIVATIONS,
    SCHEMES,
    Comparison,
    Layer,
    Report,
    Suggestion,
    compare,
    explain,
    parse_layers,
    propagate,
    suggest,
)
from .plots import plot_histogram

__all__ = [
    "ACTIVATIONS", "SCHEMES", "Comparison", "Layer", "Report", "Suggestion", "compare", "explain", "parse_layers",
    "plot_histogram", "propagate", "suggest",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
