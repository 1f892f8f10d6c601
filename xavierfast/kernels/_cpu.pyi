from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

WORDS: int
CONSTANT: int
UNIFORM: int
RANGE: int
NORMAL: int
TRUNCATED_2SIGMA: int
TRUNCATED_SYMMETRIC: int
TRUNCATED_ANY: int

UINT32: int
FLOAT32: int
FLOAT64: int
FLOAT16: int
BFLOAT16: int
COMPLEX64: int
COMPLEX128: int

TILE: int

def levels() -> list[str]: ...
def in_default_fp_environment(function: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T: ...
