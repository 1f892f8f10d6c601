"""Xavier-initialised tables at the speed of memory, with the same bits everywhere."""

from importlib import import_module as _import_module

from . import kernels as _kernels

# Constants that decide bits are computed at import, and another library may have set a rounding mode already.
_kernels.exactly(_import_module, "xavierfast.initializers")

from .contrib import variance_scaling_initializer, xavier_initializer
from .fans import fans
from .initializers import *  # noqa: F403
from .initializers import __all__ as _initializers
from .kernels import level
from .model import init
from .table import Table

__all__ = [
    "Table", "fans", "init", "level", *_initializers, "variance_scaling_initializer", "xavier_initializer",
]  # fmt: skip


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # as slow to import as all the rest

        return version("xavierfast")
    raise AttributeError(f"module 'xavierfast' has no attribute {name!r}")
