"""The kernels of one level: exactly one is imported, the best that this CPU can run and this build has.

``portable`` is plain C, ``avx2`` needs AVX2 and FMA, ``avx512`` needs AVX-512 F, BW, DQ and VL. The environment
variable ``XAVIERFAST_LEVEL`` forces one of them. Which it is changes the speed and never a bit.
"""

import ctypes
import os
from importlib import import_module
from importlib.util import find_spec

ctypes.pythonapi.PyInterpreterState_Get.restype = ctypes.c_void_p
_interpreter = ctypes.c_void_p(ctypes.pythonapi.PyInterpreterState_Get())
if ctypes.pythonapi.PyInterpreterState_GetID(_interpreter) != 0:  # the main interpreter's is 0
    # The threads of a fill would abort the process when the subinterpreter is destroyed. It must not load the compiled
    # modules either, which would then be lost to the main interpreter.
    raise ImportError("xavierfast needs the main interpreter, got a subinterpreter: use threads or processes instead")
if find_spec(f"{__name__}._cpu") is None:
    raise ImportError(
        f"xavierfast's kernels are not compiled for this Python in {os.path.dirname(__file__)}: in a checkout, run "
        "pip install -e . there"
    )

from . import _cpu
from ._cpu import (
    BFLOAT16,
    COMPLEX64,
    COMPLEX128,
    CONSTANT,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    NORMAL,
    RANGE,
    TILE,
    TRUNCATED_2SIGMA,
    TRUNCATED_ANY,
    TRUNCATED_SYMMETRIC,
    UINT32,
    UNIFORM,
    WORDS,
)

__all__ = [
    "address", "equals", "fill", "gather", "in_default_fp_environment", "level", "levels", "values",
    "WORDS", "CONSTANT", "UNIFORM", "RANGE", "NORMAL", "TRUNCATED_2SIGMA", "TRUNCATED_SYMMETRIC", "TRUNCATED_ANY",
    "UINT32", "FLOAT32", "FLOAT64", "FLOAT16", "BFLOAT16", "COMPLEX64", "COMPLEX128",
    "TILE",
]  # fmt: skip

levels = tuple(name for name in _cpu.levels() if find_spec(f"{__name__}.{name}"))
level = os.environ.get("XAVIERFAST_LEVEL") or levels[-1]
if level not in levels:
    raise ImportError(
        f"XAVIERFAST_LEVEL must be one of the levels that this CPU can run and this build has, {', '.join(levels)}; "
        f"got {level!r}: unset it for the best one (avx2 needs AVX2 and FMA, avx512 needs AVX-512 F, BW, DQ and VL)"
    )
_module = import_module(f"{__name__}.{level}")
address = _module.address
equals = _module.equals
in_default_fp_environment = _cpu.in_default_fp_environment
fill = _module.fill
gather = _module.gather
values = _module.values
