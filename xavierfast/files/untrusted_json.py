"""JSON from an untrusted source."""

import json
from typing import Any

from .limits import json_excess

__all__ = ["FormatError", "from_json"]


class FormatError(ValueError):
    """A file, or a text in it, does not conform to its format."""


def from_json(text: bytes) -> Any:
    """Parse a JSON text; raise FormatError for repeated names, NaN, too many or too deep values, or invalid UTF-8."""
    if excess := json_excess(text):
        raise FormatError(f"JSON must not have {excess}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise FormatError("JSON objects must not repeat a name")
        return fields

    def no_constant(name: str) -> Any:
        raise FormatError(f"JSON has no {name}")

    try:
        value = json.loads(text.decode(), object_pairs_hook=once, parse_constant=no_constant)
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # raises an error for half of a surrogate pair
        return value
    except FormatError:
        raise
    except ValueError as error:  # invalid UTF-8, wrong syntax, or an integer with thousands of digits
        raise FormatError(f"not JSON: {error}") from None
