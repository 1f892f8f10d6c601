from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

def levels() -> list[str]: ...
def in_default_fp_environment(function: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T: ...
