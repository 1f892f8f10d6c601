"""Recipes of Tables: small dicts for JSON, which may come back from an untrusted source."""

import math
from collections.abc import Mapping
from typing import Any

from .dtypes import DTYPES
from .rules import RULES
from .stream import MAX_SEED_BITS, MAX_SEED_INTS, STREAM_VERSION
from .validation import MAX_AXES

__all__ = ["check_recipe", "check_view", "int_to_json", "to_json"]

MAX_EXACT_INT = 1 << 53  # larger JSON numbers lose digits in other languages


def int_to_json(number: int) -> int | str:
    return number if number < MAX_EXACT_INT else hex(number)


def to_json(value: Any) -> Any:
    """A parameter of a Table, which is a Python number or a str, as JSON can hold it."""
    if isinstance(value, str):
        return value
    if isinstance(value, complex):
        return [value.real, value.imag]
    number = float(value)
    return number if math.isfinite(number) else repr(number)


_RECIPE_TYPES: dict[str, tuple[type, ...]] = {
    "stream": (int,),
    "shape": (list,),
    "init": (str,),
    "parameters": (dict,),
    "dtype": (str,),
    "layout": (str, type(None)),
    "groups": (int,),
    "fan_in": (int, type(None)),
    "fan_out": (int, type(None)),
    "seed": (int, str, list),
    "name": (str,),
}
_VIEW_TYPES: dict[str, tuple[type, ...]] = {"position": (int,), "shape": (list,), "steps": (list,)}


def _check_fields(what: str, got: Any, types: dict[str, tuple[type, ...]], optional: tuple[str, ...] = ()) -> None:
    if not isinstance(got, Mapping):
        raise TypeError(f"{what} must be a dict, got {type(got).__name__}")
    unknown = [key for key in got if key not in types and key not in optional]
    lacking = [key for key in types if key not in got]
    if unknown or lacking:
        raise ValueError(f"{what} must have the fields {', '.join(types)}; unknown {unknown!r}, missing {lacking!r}")
    for key, kinds in types.items():
        if type(got[key]) not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(f"{what} field {key!r} must be {names}, got {type(got[key]).__name__}")


def _check_ints(what: str, got: list[Any], low: int) -> tuple[int, ...]:
    if len(got) > MAX_AXES or any(type(item) is not int or not low <= item < 1 << 63 for item in got):
        raise ValueError(f"{what} must be at most {MAX_AXES} ints from {low} to 2**63 - 1")
    return tuple(got)


def check_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Check a recipe, and return the arguments of its Table together with its view."""
    if isinstance(recipe, Mapping) and type(recipe.get("stream")) is int and recipe["stream"] != STREAM_VERSION:
        raise ValueError(
            f"recipe must be for version {STREAM_VERSION} of the stream, got {recipe['stream']!r}: it needs another "
            "release of xavierfast"
        )
    _check_fields("recipe", recipe, _RECIPE_TYPES, ("view",))
    fields = {key: value for key, value in recipe.items() if key != "stream"}
    fields["shape"] = _check_ints("recipe field 'shape'", fields["shape"], 0)
    if fields["init"] not in RULES:
        raise ValueError(f"recipe field 'init' must be one of {', '.join(RULES)}, got {fields['init']!r:.80}")
    if fields["dtype"] not in DTYPES:
        raise ValueError(f"recipe field 'dtype' must be one of {', '.join(DTYPES)}, got {fields['dtype']!r:.80}")
    seed = fields["seed"]
    if isinstance(seed, list) and len(seed) > MAX_SEED_INTS:
        raise ValueError(f"recipe field 'seed' must have at most {MAX_SEED_INTS} ints, got {len(seed)}")
    fields["seed"] = [_seed_from_json(item) for item in seed] if isinstance(seed, list) else _seed_from_json(seed)
    known = RULES[fields["init"]].defaults
    parameters = {}
    for key, value in fields["parameters"].items():
        if key not in known:
            raise ValueError(
                f"recipe field 'parameters' for {fields['init']} may hold {', '.join(known)}; got {key!r:.80}"
            )
        parameters[key] = _from_json(key, value)
    return fields | {"parameters": parameters, "view": recipe.get("view")}


def _seed_from_json(seed: Any) -> int:
    if type(seed) is int and seed >= 0:
        return seed
    if isinstance(seed, str) and len(seed) <= 2 + MAX_SEED_BITS // 4 and seed.startswith("0x") and seed[2:].isalnum():
        try:
            return int(seed, 16)
        except ValueError:
            pass
    raise ValueError(f"recipe field 'seed' must hold ints >= 0, or '0x...' where they are large; got {seed!r:.80}")


def _from_json(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return float(value) if value in ("inf", "-inf") else value
    if isinstance(value, list) and len(value) == 2 and all(type(part) in (int, float) for part in value):
        return complex(*value)
    if type(value) in (int, float):
        return value
    raise TypeError(f"recipe parameter {key!r} must be a number or a str, got {type(value).__name__}")


def check_view(size: int, view: Any) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    _check_fields("recipe field 'view'", view, _VIEW_TYPES)
    shape = _check_ints("recipe field 'shape' of a view", view["shape"], 0)
    steps = _check_ints("recipe field 'steps' of a view", view["steps"], -(1 << 63) + 1)
    (position,) = _check_ints("recipe field 'position' of a view", [view["position"]], 0)
    if len(shape) != len(steps):
        raise ValueError(f"recipe field 'view' must have a step for each axis, got {len(steps)} for {len(shape)}")
    ends = [(size - 1) * step for size, step in zip(shape, steps, strict=True)]
    low, high = position + sum(e for e in ends if e < 0), position + sum(e for e in ends if e > 0)
    if 0 not in shape and not 0 <= low <= high < size:
        raise ValueError(f"recipe field 'view' must lie within the {size} elements of the whole")
    if math.prod(shape) > size:
        raise ValueError("recipe field 'view' must not have more elements than the whole")
    return position, shape, steps
