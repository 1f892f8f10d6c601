"""Fill whole modules by name: ``init_`` fills the parameters, ``materialize_`` first gives them memory.

Each parameter is filled by the first of these that exists for it: a rule; the code with which its model initialises
itself; the ``reset_parameters`` of its layer. While such code runs, its draws are captured, and each takes the stream
of the parameter that it fills.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from .._core.dtypes import DTYPES
from .._core.stream import Seed, resolve_seed
from .._core.validation import check_threads
from ..model import FirstMatch, Rule, check_rules
from ..table import Table
from .capture import capturing
from .draws import agreed_seed
from .layers import layer_fans
from .names import Memory, Named, named_layers, named_tensors
from .own_code import OwnCode
from .tensors import advise_new_memory, dtype_of, fill_, local_part

__all__ = ["InitReport", "init_", "materialize_"]

MAX_LINES = 20  # of parameters that a warning lists


@dataclass
class InitReport:
    """The result of :func:`init_`: by name, how each tensor was `filled`, why it was `left` as it was, and `notes` on
    rules that rarely suit the tensor. It is the same on all ranks."""

    filled: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(map(len, [*self.filled, *self.left]), default=0)
        lines = [f"{name:{width}}  {how}" for name, how in self.filled.items()]
        lines += [f"{name:{width}}  NOT FILLED: {why}" for name, why in self.left.items()]
        return "\n".join(lines + [f"{name:{width}}  NOTE: {note}" for name, note in self.notes.items()])


def init_(
    module: torch.nn.Module,
    rules: Rule | Mapping[str, Rule] | None = None,
    seed: Seed = None,
    *,
    prefix: str = "",
    threads: int | None = None,
) -> InitReport:
    """Fill all parameters of a module, each from the stream of its qualified name.

    Parameters
    ----------
    module : torch.nn.Module
        A module with memory on any device, or on several. DTensors are filled shard by shard, with the bits of the
        whole tensor on any number of ranks. A parameter that several modules share is filled once, under its first
        name. Names are those of the module without wrappers: ``torch.compile``, activation checkpoints, DDP and FSDP
        do not change them.
    rules : str, function or mapping, optional
        By default each parameter is drawn as its model's own code draws it: the ``_init_weights`` of transformers'
        models and of models like them, the ``init_weights`` or ``init_states`` of timm's, torchtitan's and others', and
        where these leave a parameter, the ``reset_parameters`` of its layer. A mapping of patterns to rules, as in
        :func:`xavierfast.init`, takes precedence for the names that it matches. The name of an initialiser, such as
        "xavier_uniform", or the function of that name, is the rule for all parameters with two axes or more. The fans
        for rules are those of the layer: groups, transposed convolutions, packed and stacked matrices are known. The
        row `padding_idx` of an embedding is zero after any rule.
    seed
        As in :func:`xavierfast.xavier_uniform`; by default taken from torch's generator, which ``torch.manual_seed``
        sets. If there are DTensors, the first rank's is sent to all ranks.
    prefix : str
        Stands before all names, with its dot: ``init_(stage, seed=0, prefix="layers.3.")`` fills a part of a model as
        :func:`init_` of the whole model fills it.
    threads : int, optional
        As in :func:`xavierfast.xavier_uniform`.

    Returns
    -------
    InitReport
        How each parameter was filled. A warning also lists the parameters that were not filled: those on meta, of ints
        or without elements, and those that no rule matches and no code of the model fills.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    >>> print(init_(model, "xavier_uniform", seed=0))
    0.weight  Table((4, 3), 'xavier_uniform', seed=0, name='0.weight', layout='oi')
    0.bias    uniform(low=-0.5773502691896258, high=0.5773502691896258)
    1.weight  by its module
    1.bias    by its module
    """
    report = _init(module, rules, seed, prefix, threads, {})
    _warn("init_", "parameters", report)
    return report


def materialize_(
    module: torch.nn.Module,
    rules: Rule | Mapping[str, Rule] | None = None,
    seed: Seed = None,
    *,
    prefix: str = "",
    threads: int | None = None,
    device: torch.device | str | int = "cpu",
) -> InitReport:
    """Allocate memory for a module that was built on the meta device, and fill it.

    Parameters
    ----------
    module : torch.nn.Module
        A module on the meta device. Its parameters may be DTensors, as FSDP2's ``fully_shard`` and tensor parallelism
        make them: each rank then holds and computes only its own shards. Tied parameters stay tied.
    rules, seed, prefix, threads
        As in :func:`init_`.
    device : torch.device, str or int
        The device of the memory, such as "cuda". DTensors need the type of device of their mesh.

    Returns
    -------
    InitReport
        The report of :func:`init_`. Parameters and buffers whose values only the module's constructor computes are in
        `left`, and a warning lists them: those of floats hold NaN, all others 0.

    Examples
    --------
    >>> with torch.device("meta"):
    ...     model = torch.nn.Linear(3, 4)
    >>> materialize_(model, seed=0).left
    {}
    >>> model.weight.device
    device(type='cpu')
    """
    _check_module(module)
    first: dict[int, tuple[torch.nn.Module, str]] = {}
    tied = []
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and first.setdefault(id(parameter), (part, name)) != (part, name):
                tied.append((part, name, first[id(parameter)]))
    layers = list(named_layers(module, prefix))
    meta = {name for kind in ("_parameters", "_buffers")
            for name, found in named_tensors(layers, kind).items() if found.tensor.is_meta}  # fmt: skip
    module.to_empty(device=device)
    for part, name, (owner, original) in tied:
        part._parameters[name] = owner._parameters[original]
    hollow = {}
    for kind in ("_parameters", "_buffers"):
        for name, found in named_tensors(layers, kind).items():
            if name in meta:
                _fill_with_nan(found.tensor)
                hollow[name] = found
    report = _init(module, rules, seed, prefix, threads, hollow)
    _warn("materialize_", "parameters or buffers", report)
    return report


def _fill_with_nan(tensor: Tensor) -> None:
    """Replace what a tensor's memory held before: what is never filled must not look like values."""
    with torch.no_grad():
        advise_new_memory(local_part(tensor)[0])
        tensor.fill_(float("nan") if tensor.is_floating_point() or tensor.is_complex() else 0)


def _check_module(module: Any) -> None:
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")


def _warn(function: str, tensors: str, report: InitReport) -> None:
    if report.left:
        lines = [f"{name}: {why}" for name, why in report.left.items()]
        lines[MAX_LINES:] = [f"and {len(lines) - MAX_LINES:,} more"] if len(lines) > MAX_LINES else []
        warnings.warn(f"{function} left {len(report.left):,} {tensors} unfilled: {'; '.join(lines)}", stacklevel=3)
    for name, note in report.notes.items():
        warnings.warn(f"{name}: {note}", stacklevel=3)


def _init(
    module: torch.nn.Module, rules: Rule | Mapping[str, Rule] | None, seed: Seed, prefix: str, threads: int | None,
    hollow: Mapping[str, Named],
) -> InitReport:  # fmt: skip
    """The body of ``init_``; `hollow` are the tensors that ``materialize_`` has just given memory."""
    _check_module(module)
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, got {prefix!r}")
    if threads is not None:
        check_threads(threads)
    layers = list(named_layers(module, prefix))
    parameters, buffers = named_tensors(layers, "_parameters"), named_tensors(layers, "_buffers")
    before = parameters | buffers
    tensors = [p.tensor for p in parameters.values()]
    seed = resolve_seed(agreed_seed(None, *tensors) if seed is None else seed)
    report = InitReport()
    for name, found in parameters.items():
        if reason := _why_not(found.tensor):
            report.left[name] = reason
    memory = Memory({name: p.tensor for name, p in before.items() if not is_lazy(p.tensor)})
    first = memory.first  # of the parameters with the same memory
    own = {name: found for name, found in parameters.items() if name not in report.left and first[name] == name}
    tables = _tables(own, rules, seed)
    unusable = {id(p.layer) for p in parameters.values() if is_lazy(p.tensor) or tuple(p.tensor.shape) == (0,)}
    code = OwnCode(layers, memory, seed, threads, tables, unusable)
    for name, table in tables.items():
        fill_(parameters[name].tensor, table, threads=threads)
    with torch.no_grad(), capturing(code):
        code.run(prefix, module)
    _zero_padding(layers, code.filled)
    now = named_tensors(layers, "_parameters") | named_tensors(layers, "_buffers")
    for name in [*parameters, *(name for name in buffers if name in hollow)]:
        if name in report.left:
            continue
        if first[name] in code.filled:
            report.filled[name] = code.filled[first[name]]
        elif name not in now or now[name].tensor is not before[name].tensor:
            report.filled[name] = "by its module, which replaced it"
        elif name in parameters and id(parameters[name].layer) in unusable:
            report.left[name] = "its layer's code needs another parameter of the layer, which has no elements"
        elif name in parameters:
            report.left[name] = (
                "no rule matches it, and neither its model's code nor its layer's reset_parameters fills it"
            )
        else:
            report.left[name] = "a buffer that only its module's constructor computes"
    report.left = {name: report.left[name] for name in before if name in report.left}
    report.notes = {name: note for name, table in tables.items() for note in table._notes()[:1]}
    return report


def _why_not(tensor: Tensor) -> str:
    if is_lazy(tensor):
        return "it has no shape yet: call the module once"
    if tensor.is_meta:
        return "it is on meta: use materialize_"
    if not tensor.numel():
        return f"it has no elements{': DeepSpeed has partitioned it' if hasattr(tensor, 'ds_shape') else ''}"
    if dtype_of(tensor) not in DTYPES or tensor.layout != torch.strided:
        return f"it holds {tensor.dtype} in the layout {tensor.layout}"
    return ""


def _tables(parameters: Mapping[str, Named], rules: Rule | Mapping[str, Rule] | None, seed: Seed) -> dict[str, Table]:
    """The Tables, by name, of the parameters that a rule matches."""
    if rules is None:
        return {}
    of_weights = isinstance(rules, str) or callable(rules)
    pairs = check_rules({"*": rules} if of_weights else rules)
    first_match = FirstMatch([pattern for pattern, _ in pairs])
    tables, used = {}, set()
    for name, (tensor, layer, own) in parameters.items():
        number = first_match(name)
        if number is None or (of_weights and tensor.ndim < 2):
            continue
        pattern, rule = pairs[number]
        used.add(pattern)
        shape = tuple(tensor.shape)
        fans = {} if "layout" in rule else layer_fans(layer, own, shape)
        try:
            tables[name] = Table(shape, seed=seed, name=name, **{"dtype": dtype_of(tensor), **fans, **rule})
        except (TypeError, ValueError) as error:
            error.add_note(f"for the parameter {name!r}")
            raise
    unused = [pattern for pattern, _ in pairs if pattern not in used]
    if unused:
        raise ValueError(f"each rule must match a parameter, got {', '.join(map(repr, unused))} that match none first")
    return tables


def _zero_padding(layers: list[tuple[str, torch.nn.Module]], filled: Mapping[str, str]) -> None:
    """Zero the row `padding_idx` of all embeddings that were filled; of a DTensor, on the ranks that hold it."""
    for name, layer in layers:
        if not isinstance(layer, torch.nn.Embedding | torch.nn.EmbeddingBag) or layer.padding_idx is None:
            continue
        if f"{name}weight" not in filled:
            continue
        part, index = local_part(layer.weight)
        row = layer.padding_idx
        if index is not ...:
            row = row - index[0].start if index[0].start <= row < index[0].stop else -1
        if row >= 0:
            with torch.no_grad():
                part[row].zero_()
