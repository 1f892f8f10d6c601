"""Numbers as people type them: 0x10 and 1,2 as seeds; 1e-3, 2**-5 and 1/sqrt(128) as parameters."""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

__all__ = ["parse_number", "parse_seed"]

MAX_LENGTH = 100  # of a text, which bounds its depth and the work too
MAX_BITS = 1024  # of an int: the largest float has as many

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip
_NAMES = {"pi": math.pi, "e": math.e, "inf": math.inf}
_FUNCTIONS: dict[str, Callable[[Any], float]] = {"sqrt": math.sqrt, "exp": math.exp, "log": math.log}


def parse_number(text: str) -> int | float | complex:
    """The number that an arithmetic expression gives.

    Examples
    --------
    >>> parse_number("2**-5"), parse_number("-sqrt(2 / 128)"), parse_number("1_000"), parse_number("-inf")
    (0.03125, -0.125, 1000, -inf)
    """
    try:
        if len(text) > MAX_LENGTH:
            raise ValueError(f"it has more than {MAX_LENGTH} characters")
        number: int | float | complex = _value(ast.parse(text.strip(), mode="eval").body)
        return number
    except SyntaxError:
        reason = "it is not arithmetic"
    except OverflowError:
        reason = "it is too large"
    except (ArithmeticError, TypeError, ValueError) as error:
        reason = str(error)
    raise ValueError(
        f"a number must be one such as 0.02, 1e-3, 2**-5 or 1/sqrt(128), with + - * / **, sqrt, exp, log, pi, e, inf; "
        f"got {text!r:.80}: {reason}"
    ) from None


def _value(node: ast.expr) -> Any:
    value: Any
    match node:
        case ast.Constant(int() | float() | complex() as value) if not isinstance(value, bool):
            pass
        case ast.Name(name) if name in _NAMES:
            value = _NAMES[name]
        case ast.UnaryOp(ast.USub(), operand):
            value = -_value(operand)
        case ast.UnaryOp(ast.UAdd(), operand):
            value = _value(operand)
        case ast.BinOp(left, ast.Pow(), right):
            value = _power(_value(left), _value(right))
        case ast.BinOp(left, kind, right) if type(kind) in _OPERATORS:
            value = _OPERATORS[type(kind)](_value(left), _value(right))
        case ast.Call(ast.Name(name), [argument], []) if name in _FUNCTIONS:
            value = _FUNCTIONS[name](_value(argument))
        case ast.BinOp(_, ast.BitXor(), _):
            raise ValueError("a power is written **")
        case _:
            raise ValueError("it has other signs or words")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError("it is too large")
    return value


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and abs(exponent) * base.bit_length() > 2 * MAX_BITS:
        return float(base) ** exponent  # which ends at once, in an OverflowError too
    return base**exponent


def parse_seed(text: str) -> int | list[int]:
    """The seed that a text stands for: an int, also in hexadecimal, or several ints with commas between them.

    Examples
    --------
    >>> parse_seed("7"), parse_seed("0x10"), parse_seed("1,2"), parse_seed("1_000,")
    (7, 16, [1, 2], [1000])
    """
    try:
        parts = [_parse_int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        raise ValueError(
            f"a seed must be an int >= 0 such as 7 or 0x10, or several such as 1,2; got {text!r:.80}"
        ) from None
    return parts if "," in text else parts[0]


def _parse_int(text: str) -> int:
    text = text.strip()
    if not text.isascii() or text.startswith("-"):
        raise ValueError
    return int(text) if text.replace("_", "").isdigit() else int(text, 0)
