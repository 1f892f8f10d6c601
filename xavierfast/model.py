"""All tensors of a model at once: a name selects a stream, a rule an initialiser for the names that match a pattern."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from itertools import chain
from typing import Any, Literal, overload

import numpy as np

from . import kernels
from ._core.dtypes import DTypeLike, resolve_dtype
from ._core.fill import Array
from ._core.stream import Seed, resolve_seed
from ._core.validation import check_count, check_out
from .table import Table

__all__ = ["FirstMatch", "Rule", "check_rules", "init"]

# Characters of one pattern, which is compiled at once, and of all together; 10 MB would take a minute to compile.
MAX_PATTERN_LENGTH = 1000
MAX_PATTERNS_LENGTH = 1 << 20
# Shorter pieces occur in more names; longer ones differ more in length, and each length costs a pass over the name.
PIECE_LENGTH = 8
# Up to this many patterns with the same beginning and end are tried one by one, which takes less time than to look for
# their pieces in a name.
FEW = 8
# A wildcard of a pattern; what lies between its first "[" and its last "]" is taken for one.
_WILDCARDS = re.compile(r"\[.*\]|[*?[]", re.DOTALL)

Rule = str | Callable[..., Any] | Mapping[str, Any]
# Mypy infers dict[str, object] for a variable such as {"*.bias": "zeros", "*": {"init": "normal"}}: hence Any.
Rules = Mapping[str, Any] | Iterable[tuple[str, Any]]


@overload
def init(
    tensors: Mapping[str, Any], rules: Rules, seed: Seed = None, *, dtype: DTypeLike = "float32",
    lazy: Literal[False] = False, threads: int | None = None,
) -> dict[str, Array]: ...  # fmt: skip


@overload
def init(
    tensors: Mapping[str, Any], rules: Rules, seed: Seed = None, *, dtype: DTypeLike = "float32",
    lazy: Literal[True], threads: int | None = None,
) -> dict[str, Table]: ...  # fmt: skip


@overload
def init(
    tensors: Mapping[str, Any], rules: Rules, seed: Seed = None, *, dtype: DTypeLike = "float32",
    lazy: bool, threads: int | None = None,
) -> dict[str, Array] | dict[str, Table]: ...  # fmt: skip


def init(
    tensors: Mapping[str, Any], rules: Rules, seed: Seed = None, *, dtype: DTypeLike = "float32", lazy: bool = False,
    threads: int | None = None,
) -> dict[str, Array] | dict[str, Table]:  # fmt: skip
    """Initial weights for all tensors of a model, each by the first rule whose pattern matches the tensor's name.

    Each name has a stream of its own under the seed (a 256-bit hash of the whole name, so that none collide): adding,
    removing, reordering or re-shaping entries changes no other entry.

    Parameters
    ----------
    tensors : mapping of str to shape, dict, numpy.ndarray or Table
        A shape gives a new array of `dtype`, an array is filled in place, and a Table is taken as it is, without a
        rule. A dict holds a shape as "shape" and any entries that a rule may hold, which override those of the
        matching rule; a dict with an "init" needs no rule.
    rules : mapping or pairs of pattern and rule
        Patterns are those of ``fnmatch.fnmatchcase``: "*.bias", "h.[0-9].attn.*", "*". A rule is the name of an
        initialiser, its function, or a dict with either as "init" and with its parameters, layout, groups, fans or
        dtype: ``{"init": "normal", "std": 0.02}``.
    seed
        As in :func:`xavier_uniform`. None takes 256 bits of the operating system's entropy once, for all tensors: the
        Tables of ``lazy=True`` have them as their `seed`, and the logger "xavierfast" reports them at the level INFO.
    dtype : str or NumPy dtype
        The dtype of new arrays, unless a rule or a dict gives another.
    lazy : bool
        Whether to return Tables instead of arrays; `tensors` must then hold no arrays.
    threads : int, optional
        As in :func:`xavier_uniform`.

    Returns
    -------
    dict
        The arrays, or the Tables if `lazy`, by name in the order of `tensors`.

    Raises
    ------
    TypeError, ValueError
        For a name that no rule matches, a rule that matches no name, arrays that share memory, and arguments that an
        initialiser refuses, in which case a note gives the name. Nothing is written then.

    Examples
    --------
    >>> rules = {"*.bias": "zeros", "embed.*": {"init": "normal", "std": 0.02}, "*": "xavier_uniform"}
    >>> weights = init({"embed.weight": (1000, 64), "h.0.weight": (64, 64), "h.0.bias": 64}, rules, seed=0)
    >>> {name: array.shape for name, array in weights.items()}
    {'embed.weight': (1000, 64), 'h.0.weight': (64, 64), 'h.0.bias': (64,)}
    >>> init({"h.0.weight": (64, 64)}, {"*": "xavier_uniform"}, seed=0, lazy=True)
    {'h.0.weight': Table((64, 64), 'xavier_uniform', seed=0, name='h.0.weight')}
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(
            f"tensors must be a mapping of names to shapes, dicts, arrays or Tables, got {type(tensors).__name__}"
        )
    if not isinstance(lazy, (bool, np.bool_)):
        raise TypeError(f"lazy must be True or False, got {type(lazy).__name__}")
    if threads is not None:
        threads = check_count("threads", threads)
    pairs = check_rules(rules)
    first_match = FirstMatch([pattern for pattern, _ in pairs])
    resolved = resolve_seed(seed)
    if seed is None:
        from logging import getLogger  # its import takes 4 ms, and only calls without a seed need it

        getLogger("xavierfast").info("init takes the seed %#x", resolved)
    used: set[str] = set()
    tables: dict[str, Table] = {}
    arrays: dict[str, Array] = {}
    for name, target in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"names of tensors must be str, got {name!r:.80}")
        try:
            if isinstance(target, Table):
                tables[name] = target
                continue
            is_array = isinstance(target, np.ndarray)
            if hasattr(target, "shape") and not isinstance(target, (np.ndarray, np.generic)):
                raise TypeError(
                    f"tensors must be given as shapes, dicts, NumPy arrays or Tables, got {type(target).__name__}: "
                    "pass its shape, or pass a PyTorch module to xavierfast.torch.init_"
                )
            own = _check_own(target) if isinstance(target, Mapping) else {}
            keywords: dict[str, Any] = {"dtype": target.dtype if is_array else dtype}
            if "init" not in own:
                number = first_match(name)
                if number is None:
                    patterns = _listed([pattern for pattern, _ in pairs])
                    raise ValueError(f"a rule must match each name, got {name!r:.80} and the rules {patterns}")
                pattern, rule = pairs[number]
                used.add(pattern)
                keywords |= rule
            keywords |= own
            shape: Any = keywords.pop("shape") if own else target.shape if is_array else target
            table = tables[name] = Table(shape, **keywords, seed=resolved, name=name)
            if is_array:
                arrays[name] = check_out(target, resolve_dtype(table.dtype_name), table.shape)
        except (TypeError, ValueError, ImportError) as error:
            error.add_note(f"for the tensor {name!r:.200}")
            raise
    unused = [pattern for pattern, _ in pairs if pattern not in used]
    if unused:
        raise ValueError(f"each rule must match a name, got {_listed(unused)} that match none first")
    _check_apart(arrays)
    if lazy:
        if arrays:
            raise ValueError(f"lazy=True gives Tables and fills nothing, got arrays for {_listed(list(arrays))}")
        return dict(tables)
    return {name: table._read_whole(arrays.get(name), threads) for name, table in tables.items()}


def _listed(names: Sequence[str]) -> str:
    """Names or patterns for an error message: those of five tensors or rules say as much as those of a million."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(f"{name!r:.80}" for name in names[:5]) + more


def check_rules(rules: Any) -> list[tuple[str, dict[str, Any]]]:
    """The rules as pairs of a pattern and the arguments of a Table."""
    try:
        items = list(rules.items() if isinstance(rules, Mapping) else rules)
    except TypeError:
        items = [rules]
    pairs = []
    for item in items:
        if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)):
            raise TypeError(f"rules must be a mapping or pairs of a pattern and a rule, got {item!r:.80}")
        pattern, rule = item
        keywords = dict(rule) if isinstance(rule, Mapping) else {"init": rule}
        if "init" not in keywords:
            raise ValueError(f"a rule must name its initialiser as 'init', got {rule!r:.80} for {pattern!r:.80}")
        _check_keys(keywords)
        for reserved in ("shape", "seed", "name"):
            if reserved in keywords:
                raise ValueError(f"a rule must not give the {reserved}, got {rule!r:.80} for {pattern!r:.80}")
        pairs.append((pattern, keywords))
    return pairs


def _check_own(target: Mapping[str, Any]) -> dict[str, Any]:
    if "shape" not in target or "seed" in target or "name" in target:
        raise ValueError(f"a tensor's dict must give its shape, and neither seed nor name, got {target!r:.80}")
    _check_keys(target)
    return dict(target)


def _check_keys(keywords: Mapping[Any, Any]) -> None:
    for key in keywords:
        if not isinstance(key, str):
            raise TypeError(f"the parameters of an initialiser must have names that are str, got {key!r:.80}")


class FirstMatch:
    """Find the first of many patterns that ``fnmatchcase`` finds to match a name.

    A name that matches begins with the text before the pattern's first wildcard, ends with the text after its last one,
    and contains the texts between. Each pattern is kept in a dict by what fewer of the patterns share: its beginning
    and end, or one piece of at most PIECE_LENGTH characters of its texts. What a name has of these is looked up, and
    only the patterns found there are tried, so that a name takes some microseconds, with 10 patterns as with 1,000.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        for pattern in patterns:
            if len(pattern) > MAX_PATTERN_LENGTH:
                got = f"{len(pattern):,} in {pattern!r:.80}"
                raise ValueError(f"a pattern must have at most {MAX_PATTERN_LENGTH} characters, got {got}")
        length = sum(map(len, patterns))
        if length > MAX_PATTERNS_LENGTH:
            raise ValueError(f"patterns must have at most {MAX_PATTERNS_LENGTH:,} characters together, got {length:,}")
        self._patterns = patterns
        self._whole: dict[str, int] = {}  # the numbers of patterns without wildcards
        ends: dict[int, tuple[str, str]] = {}  # of the other patterns
        pieces: dict[int, list[str]] = {}
        for k, pattern in enumerate(patterns):
            texts = _WILDCARDS.split(pattern)
            if len(texts) == 1:
                self._whole.setdefault(pattern, k)
            else:
                ends[k] = texts[0], texts[-1]
                pieces[k] = [piece for text in texts for piece in _pieces(text)]
        with_ends = Counter(ends.values())
        with_piece = Counter(chain.from_iterable(map(set, pieces.values())))
        self._by_ends: dict[str, dict[str, list[int]]] = {}
        self._by_piece: dict[str, list[int]] = {}
        for k, (begin, end) in ends.items():
            rarest = min(pieces[k], key=lambda piece: (with_piece[piece], -len(piece)), default=None)
            if rarest is None or with_ends[begin, end] <= max(FEW, with_piece[rarest]):
                self._by_ends.setdefault(begin, {}).setdefault(end, []).append(k)
            else:
                self._by_piece.setdefault(rarest, []).append(k)
        self._lengths = sorted(set(map(len, self._by_ends)))
        self._end_lengths = {begin: sorted(set(map(len, by_end))) for begin, by_end in self._by_ends.items()}
        self._piece_lengths = sorted(set(map(len, self._by_piece)))
        self._matches: dict[int, Callable[[str], object]] = {}  # of the patterns that have been tried

    def __call__(self, name: str) -> int | None:
        """The number of the pattern, or None if no pattern matches."""
        candidates: set[int] = set()
        for length in self._lengths:
            begin = name[:length]
            if begin in self._by_ends:
                for end_length in self._end_lengths[begin]:
                    candidates.update(self._by_ends[begin].get(name[len(name) - end_length :], ()))
        for length in self._piece_lengths:
            for k in range(len(name) - length + 1):
                if (piece := name[k : k + length]) in self._by_piece:
                    candidates.update(self._by_piece[piece])
        whole = self._whole.get(name)
        for k in sorted(candidates):
            if whole is not None and whole < k:
                break
            match = self._matches.get(k)
            if match is None:
                match = self._matches[k] = re.compile(_expression(self._patterns[k])).match
            if match(name):
                return k
        return whole


def _expression(pattern: str) -> str:
    """The regular expression of a pattern. A "[" after the last "]" stands for itself: ``translate`` would look for the
    end of each of them up to the end of the pattern."""
    end = pattern.rfind("]") + 1
    letters = set(pattern)
    bracket = next(letter for letter in map(chr, range(0xE000, 0x110000)) if letter not in letters)
    return translate(pattern[:end] + pattern[end:].replace("[", bracket)).replace(bracket, r"\[")


def _pieces(text: str) -> list[str]:
    return [text[k : k + PIECE_LENGTH] for k in range(max(1, len(text) - PIECE_LENGTH + 1))] if text else []


def _check_apart(arrays: dict[str, Array]) -> None:
    """Raise a ValueError if any arrays share memory.

    The arrays are sorted by first address, so that one can overlap only later ones that begin before its end.
    """
    spans = sorted((*_span(array), name) for name, array in arrays.items() if array.size)
    for k, (_, end, name) in enumerate(spans):
        for other_number in range(k + 1, len(spans)):  # a slice of the list would be copied
            begin, _, other = spans[other_number]
            if begin >= end:
                break
            if np.shares_memory(arrays[name], arrays[other]):
                raise ValueError(f"arrays must not share memory, got {name!r:.80} and {other!r:.80}")


def _span(array: Array) -> tuple[int, int]:
    """The addresses of an array's first byte and of the byte after its last."""
    address = kernels.address(array)
    if array.flags.c_contiguous:
        return address, address + array.nbytes
    reach = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    return address + sum(r for r in reach if r < 0), address + sum(r for r in reach if r > 0) + array.itemsize
