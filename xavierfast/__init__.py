"""Initial weights for very large tables: Xavier, He and LeCun, at memory speed, bit-identical on every machine."""

from ._core.command import prepare as _prepare

_prepare()  # for the command only: what follows takes a tenth of a second, in which Ctrl-C may come

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from . import kernels as _kernels

# Python folds constants such as 2.0**-62 when it compiles a module, in whatever rounding mode another library has set.
_kernels.in_default_fp_environment(_import_module, "xavierfast.initializers")

from .fans import fans
from .initializers import (
    calculate_gain,
    constant,
    glorot_normal,
    glorot_truncated_normal,
    glorot_uniform,
    he_normal,
    he_truncated_normal,
    he_uniform,
    kaiming_normal,
    kaiming_truncated_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_truncated_normal,
    lecun_uniform,
    normal,
    random_constant,
    truncated_normal,
    uniform,
    variance_scaling,
    xavier_normal,
    xavier_truncated_normal,
    xavier_uniform,
    zeros,
)
from .kernels import level
from .model import init
from .table import Table
from .tf1 import variance_scaling_initializer, xavier_initializer

__all__ = [
    "Table", "calculate_gain", "constant", "fans", "glorot_normal", "glorot_truncated_normal", "glorot_uniform",
    "he_normal", "he_truncated_normal", "he_uniform", "init", "kaiming_normal", "kaiming_truncated_normal",
    "kaiming_uniform", "lecun_normal", "lecun_truncated_normal", "lecun_uniform", "level", "normal", "random_constant",
    "truncated_normal", "uniform", "variance_scaling", "variance_scaling_initializer", "xavier_initializer",
    "xavier_normal", "xavier_truncated_normal", "xavier_uniform", "zeros",
]  # fmt: skip


if TYPE_CHECKING:
    __version__: str
else:  # hidden from type checkers, for which a module with __getattr__ has every attribute, misspelt ones too

    def __getattr__(name: str) -> str:
        if name == "__version__":
            from importlib.metadata import version  # takes as long to import as the whole package

            return version("xavierfast")
        raise AttributeError(f"module 'xavierfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
