"""Limits of texts from untrusted sources: their length, depth and number of values are counted before they are parsed.

A parser makes objects of up to a hundred times a text's size, and some take time or memory that grows with the square
of a text's length. Counting takes time in proportion to the length, 5 s for 100 MB, and a few times its memory.
"""

import re

import numpy as np

__all__ = [
    "MAX_HEADER_BYTES", "MAX_MODEL_BYTES", "MAX_NPY_HEADER_BYTES", "MAX_RECIPE_BYTES", "MAX_SPEC_BYTES",
    "json_excess", "toml_excess",
]  # fmt: skip

# The format's own limit (safetensors' MAX_HEADER_SIZE).
MAX_HEADER_BYTES = 100_000_000
# numpy.lib.format parses at most 10,000 characters of an untrusted header, so more need not be read.
MAX_NPY_HEADER_BYTES = 1 << 14
# The recipe of one table; its largest parts are the seed, which may have 4,096 ints, and the name.
MAX_RECIPE_BYTES = 1 << 20
# Plans and indices, which have recipes or names of all tensors of a model.
MAX_MODEL_BYTES = 1 << 27
# A spec is written by hand or made from another model's list of tensors.
MAX_SPEC_BYTES = 1 << 24

# Our files have 5 levels, and other programs' metadata few more.
MAX_DEPTH = 32
# Objects, lists, and their members. A tensor takes 8 of a header and 16 of its recipes: 250,000 tensors fit.
MAX_VALUES = 1 << 22
# The same of a spec in TOML, and the parts of its keys; the parser takes up to 1 kB for each.
MAX_TOML_VALUES = 1 << 19
# Of a dotted key in TOML, whose parser takes memory that grows with the square of this number.
MAX_KEY_PARTS = 32

# A string that is not closed ends with the text, so that no place is looked at twice.
_JSON_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_TOML_TEXT = re.compile(
    rb'"""(?:[^"\\]++|\\.|"(?!""))*+(?:"""|\\?\Z)'
    rb"|'''(?:[^']++|'(?!''))*+(?:'''|\Z)"
    rb'|"(?:[^"\\\n]++|\\.)*+"?'
    rb"|'[^'\n]*+'?"
    rb"|(?P<comment>#[^\n]*+)",
    re.DOTALL,
)
_KEY_CHARACTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+ \t"


def json_excess(text: bytes) -> str:
    """What a JSON text has too much of; empty if nothing."""
    return _excess(_JSON_STRING.sub(b"", text), MAX_VALUES)


def toml_excess(text: bytes) -> str:
    """What a TOML text has too much of; empty if nothing."""
    bare = _TOML_TEXT.sub(lambda match: b"" if match["comment"] else b"_", text)
    if b"." * MAX_KEY_PARTS in bare.translate(None, _KEY_CHARACTERS):
        return f"a key of more than {MAX_KEY_PARTS} parts"
    return _excess(bare, MAX_TOML_VALUES - bare.count(b".") - bare.count(b"="))


def _excess(bare: bytes, most: int) -> str:
    """The same of a text without strings."""
    marks = np.frombuffer(bare.translate(None, bytes(set(range(256)) - set(b"[]{},"))), np.uint8)
    opened, closed = (marks == ord("[")) | (marks == ord("{")), (marks == ord("]")) | (marks == ord("}"))
    if marks.size - np.count_nonzero(closed) > most:
        return "too many values"
    if marks.size and int((opened.astype(np.int32) - closed).cumsum(dtype=np.int32).max()) > MAX_DEPTH:
        return f"values nested in more than {MAX_DEPTH} others"
    return ""
