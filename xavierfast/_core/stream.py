"""A seed and a name give a key, and a key gives a stream of words that has no state.

::

    key = BLAKE2b(digest_size=32, person=b"xavierfast v1")(encode(seed) || encode(name))       RFC 7693
    W[i] = word w of ChaCha8 block 16 t + l,    t = i // 256,  w = i % 256 // 16,  l = i % 16   Bernstein 2008

``encode`` is type-tagged and length-delimited, so that no two pairs of seed and name ever give the same bytes; the key
has 256 bits, so that no two ever give the same stream. Streams of different seeds or names are unrelated: neighbouring
seeds are as good as distant ones.

The generator is a cipher, the seeds are not secrets: this is a sampler for weights.
"""

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from .validation import shown, to_index

__all__ = ["STREAM_VERSION", "Seed", "derive_key", "resolve_seed"]

# A change of any value, on any machine, would need another version, and another personalisation of the hash.
STREAM_VERSION = 1
PERSON = b"xavierfast v1"
# So large that no use of seeds meets them, and small enough for all that is written to be read again.
MAX_SEED_INTS = 4096
MAX_SEED_BITS = 4 * 65_534

if TYPE_CHECKING:
    Seed = (
        SupportsIndex
        | Sequence[SupportsIndex]
        | np.ndarray[Any, Any]
        | np.random.SeedSequence
        | np.random.Generator
        | None
    )
else:
    Seed = object  # numpy.random is slow to import, and a caller with a Generator has imported it


def resolve_seed(seed: Seed) -> int | tuple[int, ...]:
    """The int or the tuple of ints that a seed stands for; passed as a seed, it always gives the same stream.

    Parameters
    ----------
    seed
        An int >= 0 of any size, or a sequence of such ints, stands for itself. A ``numpy.random.SeedSequence`` stands
        for the 256 bits of its ``generate_state``, a ``numpy.random.Generator`` for its next 256 bits, and None for 256
        bits of the operating system's entropy.

    Raises
    ------
    TypeError
        For anything else: floats, strings and bools too.
    ValueError
        For a negative int, and a sequence that is empty or has more than 4,096 ints.

    Examples
    --------
    >>> resolve_seed(7), resolve_seed([7, 1])
    (7, (7, 1))
    """
    if type(seed) is int and seed >= 0:
        return seed
    if seed is None:
        return int.from_bytes(os.urandom(32), "little")  # what the module secrets does, which takes 2 ms to import
    if isinstance(seed, np.random.SeedSequence):
        return int.from_bytes(seed.generate_state(8, np.uint32).astype("<u4").tobytes(), "little")
    if isinstance(seed, np.random.Generator):
        return int.from_bytes(seed.bytes(32), "little")
    if (isinstance(seed, Sequence) and not isinstance(seed, (str, bytes, bytearray, memoryview))) or (
        isinstance(seed, np.ndarray) and seed.ndim
    ):
        if not len(seed):
            raise ValueError("seed must hold at least one int, got an empty sequence: pass 0 or None instead")
        if len(seed) > MAX_SEED_INTS:
            raise ValueError(f"seed must hold at most {MAX_SEED_INTS:,} ints, got {len(seed):,}")
        return tuple(_non_negative(item) for item in seed)
    return _non_negative(seed)


def _non_negative(seed: Any) -> int:
    try:
        number = to_index(seed)
    except TypeError:
        raise TypeError(
            "seed must be an int >= 0, a sequence of them, a numpy.random.SeedSequence, a numpy.random.Generator or "
            f"None, got {shown(seed)}"
        ) from None
    if number < 0:
        raise ValueError(f"seed must not be negative, got {shown(seed)}")
    return number


def _encode(value: int | tuple[int, ...] | str) -> bytes:
    if isinstance(value, int):
        if value.bit_length() > MAX_SEED_BITS:
            raise ValueError(f"seed must have at most {MAX_SEED_BITS:,} bits, got an int of {value.bit_length():,}")
        body = value.to_bytes((value.bit_length() + 7) // 8, "little")
        return b"i" + len(body).to_bytes(8, "little") + body
    if isinstance(value, str):
        body = value.encode()
        return b"s" + len(body).to_bytes(8, "little") + body
    return b"t" + len(value).to_bytes(8, "little") + b"".join(map(_encode, value))


def derive_key(seed: int | tuple[int, ...], name: str) -> bytes:
    """The 32-byte key of the stream for a resolved seed and a name.

    Raises
    ------
    TypeError, ValueError
        If the name is not a str, or not text that UTF-8 can express, or an int of the seed has more than 262,136 bits.

    Examples
    --------
    >>> derive_key(0, "").hex()
    '6b1ce52b47d73579a0df8f1d37798ebf3e322b274fcd9ffdc962be9a4a0149d2'
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {shown(name)}")
    try:
        text = _encode(name)
    except UnicodeEncodeError:
        raise ValueError(f"name must be text that UTF-8 can express, got {shown(name)}") from None
    return hashlib.blake2b(_encode(seed) + text, digest_size=32, person=PERSON).digest()
