"""What an initialisation does to a deep network, measured: see ``network``.

``propagate`` measures one network, ``compare`` several initialisations of it, ``suggest`` looks for a gain, ``explain``
says it in sentences. ``xavierfast.torch.propagate`` does the same for a ``torch.nn.Module``.
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
