"""Fill whole modules by name: ``init_`` fills the parameters, ``materialize_`` first gives them memory."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._core.dtypes import DTYPES
from .._core.stream import Seed, resolve_seed
from ..model import Rule, check_rules, first_match
from ..table import Table
from .capture import Sampling, can_fill
from .tensors import dtype_of, fill_, layout_of, local_part

__all__ = ["InitReport", "init_", "materialize_"]


@dataclass
class InitReport:
    """The result of :func:`init_`: by parameter name, how it was `filled`, or why it was `left` as it was."""

    filled: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(map(len, [*self.filled, *self.left]), default=0)
        lines = [f"{name:{width}}  {how}" for name, how in self.filled.items()]
        return "\n".join(lines + [f"{name:{width}}  NOT FILLED: {why}" for name, why in self.left.items()])


def init_(
    module: torch.nn.Module,
    rules: Rule | Mapping[str, Rule] | None = None,
    seed: Seed = 0,
    *,
    threads: int | None = None,
) -> InitReport:
    """Fill all parameters of a module, each from the stream of its qualified name.

    Parameters
    ----------
    module : torch.nn.Module
        A module on the CPU. DTensors are filled shard by shard, with the bits of the whole tensor on any number of
        ranks. A parameter that several modules share is filled once, under its first name.
    rules : str, function or mapping, optional
        By default each parameter is drawn as its module's own ``reset_parameters`` draws it. A mapping of patterns to
        rules, as in :func:`xavierfast.init`, takes precedence for the names that it matches. The name of an
        initialiser, such as "xavier_uniform", or the function of that name, is the rule for all parameters with two
        axes or more.
    seed
        As in :func:`xavierfast.xavier_uniform`.
    threads : int, optional
        As in :func:`xavierfast.xavier_uniform`.

    Returns
    -------
    InitReport
        How each parameter was filled. A warning also lists the parameters that were not filled: those on meta, of ints
        or without elements, and those that no rule matches and no ``reset_parameters`` touches.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    >>> print(init_(model, "xavier_uniform", seed=0))
    0.weight  Table((4, 3), 'xavier_uniform', seed=0, name='0.weight', layout='oi')
    0.bias    uniform_(a=-0.5773502691896258, b=0.5773502691896258)
    1.weight  by its module
    1.bias    by its module
    """
    seed = resolve_seed(seed)
    report = InitReport()
    parameters = dict(module.named_parameters())
    places = {}
    for name, parameter in parameters.items():
        reason = _why_not(parameter)
        if reason:
            report.left[name] = reason
        else:
            places[_storage_of(parameter)] = name
    ruled = _ruled(parameters, rules, seed, report.left)
    temporaries: Counter[str] = Counter()
    owner = ""

    def name_of(tensor: Tensor) -> str:
        """The parameter's name, or a numbered name for a part of a parameter or for a module's temporary tensor."""
        if not can_fill(tensor):
            return ""
        name = places.get(_storage_of(tensor), "")
        if name and parameters[name].shape == tensor.shape:
            return name
        within = name or f"{owner}."
        temporaries[within] += 1
        return f"{within}[{temporaries[within] - 1}]"

    def see(tensor: Tensor) -> None:
        name = places.get(_storage_of(tensor), "") if can_fill(tensor) else ""
        if name and name not in ruled:
            report.filled.setdefault(name, "by its module")

    def sample(ours: Callable[..., Tensor], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = name_of(tensor)
        if name in ruled:
            return tensor
        given = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
        report.filled[name.split("[")[0]] = f"{ours.__name__}({', '.join(given)})"
        return ours(tensor, *args, seed=seed, name=name, threads=threads, **kwargs)

    with Sampling(sample, see):
        for owner, part in reversed(list(module.named_modules())):  # noqa: B007, name_of reads it
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if reset is not None and any(True for _ in part.parameters()):
                reset()
    for name, table in ruled.items():
        fill_(parameters[name], table, threads=threads)
        report.filled[name] = repr(table)
    report.filled = {name: report.filled[name] for name in parameters if name in report.filled}
    for name in parameters.keys() - report.filled.keys() - report.left.keys():
        report.left[name] = "no rule matches it, and no reset_parameters touches it"
    report.left = {name: report.left[name] for name in parameters if name in report.left}
    if report.left:
        warnings.warn(f"init_ left {len(report.left)} parameters as they were\n{report}", stacklevel=2)
    return report


def _why_not(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "it is on meta: use materialize_"
    if not tensor.numel():
        return "it has no elements"
    if dtype_of(tensor) not in DTYPES:
        return f"it holds {tensor.dtype}"
    part = local_part(tensor)[0]
    return "" if part.device.type == "cpu" else f"it is on {part.device}: initialise, then move"


def _storage_of(tensor: Tensor) -> int:
    """The address of the memory that a tensor views, which identifies a parameter even as ``.data`` or a slice."""
    return local_part(tensor)[0].untyped_storage().data_ptr()


def _ruled(
    parameters: Mapping[str, Tensor], rules: Rule | Mapping[str, Rule] | None, seed: Seed, left: Mapping[str, str]
) -> dict[str, Table]:
    """The Tables, by name, of the parameters that a rule matches."""
    if rules is None:
        return {}
    of_weights = isinstance(rules, str) or callable(rules)
    pairs = check_rules({"*": rules} if of_weights else rules)
    tables, used = {}, set()
    for name, parameter in parameters.items():
        match = first_match(name, pairs)
        if match is None or name in left or (of_weights and parameter.ndim < 2):
            continue
        pattern, rule = match
        used.add(pattern)
        keywords = {"dtype": dtype_of(parameter), "layout": layout_of(parameter.ndim), **rule}
        tables[name] = Table(tuple(parameter.shape), seed=seed, name=name, **keywords)
    unused = [pattern for pattern, _ in pairs if pattern not in used]
    if unused:
        raise ValueError(f"each rule must match a parameter, got {', '.join(map(repr, unused))} that match none first")
    return tables


def materialize_(
    module: torch.nn.Module,
    rules: Rule | Mapping[str, Rule] | None = None,
    seed: Seed = 0,
    *,
    threads: int | None = None,
) -> InitReport:
    """Allocate CPU memory for a module that was built on the meta device, and fill it.

    Parameters
    ----------
    module : torch.nn.Module
        A module on the meta device. Its parameters may be DTensors, as FSDP2's ``fully_shard`` and tensor parallelism
        make them: each rank then holds and computes only its own shards. Tied parameters stay tied.
    rules, seed, threads
        As in :func:`init_`.

    Returns
    -------
    InitReport
        The report of :func:`init_`. Only the module knows the values of buffers that no ``reset_parameters`` fills:
        floating-point ones then hold NaN, and a warning lists them; those of other dtypes hold 0.

    Examples
    --------
    >>> with torch.device("meta"):
    ...     model = torch.nn.Linear(3, 4)
    >>> materialize_(model, seed=0).left
    {}
    >>> model.weight.device
    device(type='cpu')
    """
    first: dict[int, tuple[torch.nn.Module, str]] = {}
    tied = []
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and first.setdefault(id(parameter), (part, name)) != (part, name):
                tied.append((part, name, first[id(parameter)]))
    meta = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    module.to_empty(device="cpu")
    for part, name, (owner, original) in tied:
        part._parameters[name] = owner._parameters[original]
    buffers = {name: buffer for name, buffer in module.named_buffers() if name in meta}
    with torch.no_grad():
        for buffer in buffers.values():
            buffer.fill_(float("nan") if buffer.is_floating_point() else 0)
    report = init_(module, rules, seed, threads=threads)
    hollow = [name for name, buffer in buffers.items() if buffer.is_floating_point() and buffer.isnan().any()]
    if hollow:
        warnings.warn(f"materialize_ cannot know what these buffers held: {', '.join(hollow)}", stacklevel=2)
    return report
