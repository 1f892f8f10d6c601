"""Measure the effect of an initialisation on a deep network; the method is described in ``network``.

``propagate`` measures one network, ``compare`` measures several initialisations of it, ``suggest`` looks for a gain,
and ``explain`` describes the results in a table, in sentences and in a picture. ``xavierfast.torch.propagate`` measures
a ``torch.nn.Module``.
"""

from .activations import ACTIVATIONS
from .explanation import Explanation, explain
from .network import SCHEMES, compare, parse_layers, propagate
from .plots import plot_histogram
from .report import Comparison, Layer, Report
from .search import Suggestion, suggest

__all__ = [
    "ACTIVATIONS", "SCHEMES", "Comparison", "Explanation", "Layer", "Report", "Suggestion", "compare", "explain",
    "parse_layers", "plot_histogram", "propagate", "suggest",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
