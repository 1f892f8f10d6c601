"""JSON from an untrusted source."""

import json
from typing import Any

__all__ = ["FormatError", "from_json"]


class FormatError(ValueError):
    """A file, or a text in it, is not as its format has it."""


def from_json(text: bytes) -> Any:
    """What a JSON text says; no repeated names, NaN, endless nesting or wrong UTF-8."""

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
            json.dumps(value, ensure_ascii=False).encode()  # or an error: half of a surrogate pair is no character
        return value
    except FormatError:
        raise
    except RecursionError:
        raise FormatError("JSON must not be nested so deep") from None
    except ValueError as error:  # of UTF-8, of the syntax, of ints with thousands of digits
        raise FormatError(f"not JSON: {error}") from None
