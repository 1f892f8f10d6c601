"""Descriptions of tables as people write them: sizes, shapes, specs of models, rules for the tensors of a file."""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from .._core.stream import Seed
from .._core.validation import MAX_AXES
from ..model import FirstMatch, init
from ..table import Table
from .formats import FormatError
from .limits import MAX_SPEC_BYTES, json_excess, toml_excess
from .posix import folder_of, open_file
from .reader import tensors_of

__all__ = ["from_spec", "like", "parse_fraction", "parse_range", "parse_shape", "parse_size", "read_spec"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12, "p": 10**15}
_UNITS |= {f"{unit}i": 1 << 10 * power for power, unit in enumerate("kmgtp", 1)}
_NUMBER = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:e[0-9]{1,2})?)([kmgtp]i?|b|)", re.IGNORECASE)


def _parse_number(text: str) -> int:
    match = _NUMBER.fullmatch(text.strip())
    if match:
        number = Fraction(match[1].replace("_", "")) * _UNITS[match[2].lower()]
        if number.denominator == 1:
            return int(number)
    raise ValueError(f"a size must be a whole number such as 1000, 1_000, 10M or 2Ki, got {text!r}")


def parse_shape(text: str) -> tuple[int, ...]:
    """Parse a shape such as 100000000x128 or 10Mx128. K, M, G or B, T are powers of 1000; Ki, Mi, Gi, Ti of 1024.

    Examples
    --------
    >>> parse_shape("10Mx128"), parse_shape("1.5Kix2"), parse_shape("7")
    ((10000000, 128), (1536, 2), (7,))
    """
    parts = re.split(r"[x,]", text.strip().strip("()[]"), flags=re.IGNORECASE)
    if len(parts) > MAX_AXES:
        raise ValueError(f"shape must have at most {MAX_AXES} axes, got {len(parts)}")
    return tuple(map(_parse_number, parts))


def parse_range(text: str) -> tuple[int, int | None]:
    """Parse a range such as 0:25000000, 25M:50M or 25M: into its first index and the index after its last.

    Examples
    --------
    >>> parse_range("25M:50M"), parse_range(":5M"), parse_range("2M:")
    ((25000000, 50000000), (0, 5000000), (2000000, None))
    """
    first, colon, last = text.partition(":")
    if not colon:
        raise ValueError(f"a range must be given as FIRST:LAST, FIRST: or :LAST, got {text!r:.80}")
    return _parse_number(first) if first.strip() else 0, _parse_number(last) if last.strip() else None


def parse_fraction(text: str) -> tuple[int, int]:
    """Parse K/N into the pair (K, N)."""
    k, slash, n = text.partition("/")
    if not slash:
        raise ValueError(f"a part must be given as K/N, got {text!r}")
    return _parse_number(k), _parse_number(n)


def parse_size(text: str) -> int:
    """Parse a size such as 1.5TB, 500MB, 4GiB or 4096 into a number of bytes.

    Examples
    --------
    >>> parse_size("1.5TB"), parse_size("4GiB")
    (1500000000000, 4294967296)
    """
    text = text.strip()
    return _parse_number(re.sub(r"(?<=[0-9kmgtpi])B$", "", text, flags=re.IGNORECASE))


def read_spec(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the top-level fields of a .toml or .json file."""
    path = os.fspath(path)
    ending = os.path.splitext(path)[1]
    if ending not in (".toml", ".json"):
        raise ValueError(f"a spec must be a .toml or .json file, got {path!r}")
    with folder_of(path) as (folder, name), open(open_file(folder, name, os.O_RDONLY, follow=True), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, MAX_SPEC_BYTES) + 1)
    if len(data) > MAX_SPEC_BYTES:
        raise ValueError(f"a spec must have at most {MAX_SPEC_BYTES:,} bytes, got more in {path!r}")
    if excess := (toml_excess if ending == ".toml" else json_excess)(data):
        raise FormatError(f"a spec must not have {excess}, got it in {path!r}")
    try:
        fields = tomllib.loads(data.decode()) if ending == ".toml" else json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not {ending[1:].upper()}: {error}") from None
    if not isinstance(fields, dict):
        raise FormatError(f"{path} must hold names and values, got {fields!r:.80}")
    return fields


def from_spec(spec: Mapping[str, Any] | str | os.PathLike[str], seed: Seed = None) -> dict[str, Table]:
    """Make the Tables of a model from a spec: the arguments of ``xavierfast.init`` in a dict or a .toml or .json file.

    Parameters
    ----------
    spec : mapping or path
        "tensors" maps each name to a shape, as a list of ints or as "10Mx128", or to a mapping with "shape" and the
        keys that a rule may have. "rules", "dtype" and "seed" are those of :func:`xavierfast.init`; all are optional.
    seed : optional
        Used in place of the spec's seed. By default, if the spec has none either, the operating system gives 256
        random bits.

    Returns
    -------
    dict of str to Table

    Raises
    ------
    TypeError, ValueError, OSError
        As in :func:`xavierfast.init`; also for unknown fields, and for a file that cannot be read.

    Examples
    --------
    >>> spec = {
    ...     "tensors": {"embed.weight": "50Kx64", "head.bias": [64], "h.w": {"shape": "64x64", "init": "he_normal"}},
    ...     "rules": {"*.bias": "zeros", "*": "xavier_uniform"},
    ... }
    >>> from_spec(spec, seed=0)["embed.weight"]
    Table((50000, 64), 'xavier_uniform', seed=0, name='embed.weight')
    """
    if not isinstance(spec, Mapping):
        spec = read_spec(spec)
    unknown = sorted(spec.keys() - {"tensors", "rules", "dtype", "seed"})
    if unknown or not isinstance(spec.get("tensors"), Mapping):
        raise ValueError(
            f"a spec must have tensors, and may have rules, dtype and seed; got {unknown or sorted(spec)!r}"
        )
    if seed is None:
        seed = spec.get("seed")
    try:
        tensors = {name: _fields_of(name, wanted) for name, wanted in spec["tensors"].items()}
        return init(tensors, spec.get("rules", {}), seed, dtype=spec.get("dtype", "float32"), lazy=True)
    except RecursionError:  # from an error message that shows the nested value
        raise ValueError("a spec must not be nested deeply") from None


def _fields_of(name: str, wanted: Any) -> dict[str, Any]:
    own = dict(wanted) if isinstance(wanted, Mapping) else {"shape": wanted}
    if "shape" not in own:
        raise ValueError(f'a tensor must have a shape, got {name!r}: {wanted!r:.80}; quote names with dots: "a.b"')
    if isinstance(own["shape"], str):
        own["shape"] = parse_shape(own["shape"])
    return own


def like(path: str | os.PathLike[str], rules: Mapping[str, Any], seed: Seed = None) -> dict[str, Table]:
    """Make Tables with the names, shapes and dtypes of the tensors in a file.

    Parameters
    ----------
    path : str or path
        A .safetensors file, or the index of several. Its values are not read.
    rules : mapping
        As in :func:`xavierfast.init`. In addition, None or "skip" as a rule leaves the matching tensors out, which is
        necessary for tensors of integers.
    seed : optional
        By default, the operating system gives 256 random bits.

    Returns
    -------
    dict of str to Table

    Raises
    ------
    FormatError, OSError
        If the header is malformed or cannot be read.
    TypeError, ValueError
        As in :func:`xavierfast.init`.

    Examples
    --------
    >>> from xavierfast.files import create
    >>> create("other.safetensors", {"a.bias": Table(64, "zeros", seed=0), "a.weight": Table((64, 64), seed=0)})
    16640
    >>> like("other.safetensors", {"*.bias": "skip", "*": "he_normal"}, seed=1)
    {'a.weight': Table((64, 64), 'he_normal', seed=1, name='a.weight')}
    """
    pairs = list(rules.items())
    skipped = {k for k, (_, rule) in enumerate(pairs) if rule in (None, "skip")}
    first_match = FirstMatch([pattern for pattern, _ in pairs])
    tensors = {}
    for tensor in tensors_of(path):
        if first_match(tensor.name) not in skipped:
            tensors[tensor.name] = {"shape": tensor.shape, "dtype": tensor.dtype}
    return init(
        tensors, {pattern: rule for k, (pattern, rule) in enumerate(pairs) if k not in skipped}, seed, lazy=True
    )
