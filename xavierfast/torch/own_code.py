"""The code with which models and layers initialise themselves, run so that its draws have the names of parameters."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..table import Table
from .capture import Modes, reseed
from .draws import Draws, Stream
from .names import Memory, children

__all__ = ["OwnCode"]

aten = torch.ops.aten
# Operations that write all elements of their first argument and read none of them.
OVERWRITES = {
    aten.fill_, aten.zero_, aten.copy_, aten.random_, aten.bernoulli_, aten.exponential_, aten.geometric_,
    aten.cauchy_, aten.log_normal_, aten.normal_, aten.uniform_,
}  # fmt: skip
CHANGED = ", then changed by its module"


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with `count` positional arguments and needs no more."""
    if not callable(function):
        return False
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return len(positional) >= count and len(required) <= count and all(p in positional for p in required)


def _recipe_of_all(layer: torch.nn.Module) -> Callable[[], Any] | None:
    """The method with which a model initialises all that is in it: of timm, torchtitan, MMEngine and many others."""
    for method in ("init_weights", "init_states"):
        if _takes(getattr(layer, method, None), 0):
            return getattr(layer, method)  # type: ignore[no-any-return]
    return None


def _recipe_of_each(layer: torch.nn.Module) -> Callable[[torch.nn.Module], Any] | None:
    """The method with which a model initialises one layer at a time: of transformers, and of models like nanoGPT."""
    name = "_initialize_weights" if _is_pretrained(layer) else "_init_weights"  # the former marks what it has done
    method = getattr(layer, name, None)
    return method if _takes(method, 1) else None


def _is_pretrained(layer: torch.nn.Module) -> bool:
    """Whether this is a model of transformers, each of which initialises its own layers also within a larger one."""
    return any(base.__name__ == "PreTrainedModel" for base in type(layer).__mro__)


class OwnCode(Draws):
    """Run the code of a model and of its layers, and give its draws the streams of the parameters that they fill.

    The model's own code comes first, and the defaults of layers then fill what it has left. So each parameter is drawn
    once, and yet ends as it does where layers come first: if the model's code reads or changes a tensor that it has not
    written before, the tensor's default is made at that moment.
    """

    def __init__(
        self, layers: list[tuple[str, torch.nn.Module]], memory: Memory, seed: int | tuple[int, ...],
        threads: int | None, tables: Mapping[str, Table], unusable: set[int],
    ) -> None:  # fmt: skip
        self.layers, self.memory, self.seed, self.threads = layers, memory, seed, threads
        self.filled = {name: repr(table) for name, table in tables.items()}
        # Code runs in phases: it may write what no earlier phase has written. Rules come before all.
        self.written = dict.fromkeys(tables, 0)
        self.phase, self.phases = 1, 1
        self.owner = ""
        self.temporaries: Counter[str] = Counter()
        self.unusable = unusable  # layers without elements in a parameter, whose code cannot run
        self.done: set[int] = set()  # layers whose defaults have been made

    # ---- what runs

    def run(self, name: str, module: torch.nn.Module) -> None:
        with _without_marks(module):
            self._run(name, module, None)
        lacking = set()
        for tensor in self.memory.tensors:
            if tensor not in self.written:
                lacking |= {tensor[: i + 1] for i, letter in enumerate(tensor) if letter == "."} | {name}
        for layer_name, layer in self.layers:
            if layer_name in lacking:
                self.default(layer_name, layer)

    def _run(self, name: str, layer: torch.nn.Module, recipe: Callable[[torch.nn.Module], Any] | None) -> None:
        """Run the model's own code for a module and all below it; `recipe` is that of a model that holds it."""
        if _is_pretrained(layer):
            recipe = _recipe_of_each(layer)
        elif recipe is None:
            whole = _recipe_of_all(layer)
            if whole is not None:
                with self.owned_by(name):
                    whole()
                return
            recipe = _recipe_of_each(layer)
        for child_name, child in children(name, layer):
            self._run(child_name, child, recipe)
        if recipe is not None and id(layer) not in self.unusable:
            with self.owned_by(name):
                recipe(layer)

    def default(self, name: str, layer: torch.nn.Module) -> None:
        """Let a layer fill by its ``reset_parameters`` what has not been written yet."""
        reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if not _takes(reset, 0) or id(layer) in self.done or id(layer) in self.unusable:
            return
        self.done.add(id(layer))
        before = self.phase
        self.phases += 1
        self.phase = self.phases
        with self.owned_by(name):
            reset()  # type: ignore[misc]
        self.phase = before

    @contextmanager
    def owned_by(self, name: str) -> Iterator[None]:
        """Name temporary tensors after a layer; seed torch's generators, so that they do not depend on other layers."""
        before = self.owner
        self.owner = name
        reseed(self.seed, f"{name}[torch's generator]")
        try:
            yield
        except Exception as error:
            error.add_note(f"in the code with which {name.removesuffix('.') or 'the module'} initialises itself")
            raise
        self.owner = before

    # ---- what it does

    def stream(self, tensor: Tensor, init: str, parameters: Mapping[str, Any]) -> Stream | None:
        name, whole = self.memory.find(tensor)
        if name and not self._may_change(name, whole):
            return None
        if name and whole:
            self.filled[name] = f"{init}({', '.join(f'{key}={value!r}' for key, value in parameters.items())})"
        elif name:
            self.filled.setdefault(name, "by its module")
        stream = name
        if not (name and whole):  # a part of a parameter, or a temporary tensor
            within = name or self.owner
            stream = f"{within}[{self.temporaries[within]}]"
            self.temporaries[within] += 1
        return Stream(self.seed, stream, self.threads)

    def may_write(self, tensor: Tensor) -> bool:
        name, whole = self.memory.find(tensor)
        if name and not self._may_change(name, whole):
            return False
        if name:
            self.filled.setdefault(name, "by its module")
        return True

    def operate(self, mode: Modes, func: Any, args: Any, kwargs: Any) -> Any:
        if func.is_view:
            return func(*args, **kwargs)
        changed = _changed(func, args, kwargs)
        for tensor in _tensors((args, kwargs)):
            name, whole = self.memory.find(tensor)
            if not name:
                continue
            if not any(tensor is other for other in changed):
                self._make_default(name, mode)
            elif not self._may_change(name, whole and func.overloadpacket in OVERWRITES, mode):
                return tensor
            elif whole and func.overloadpacket in OVERWRITES:
                self.filled[name] = "by its module"
            elif self.filled.setdefault(name, "by its module") != "by its module":
                self.filled[name] = self.filled[name].removesuffix(CHANGED) + CHANGED
        return func(*args, **kwargs)

    def _may_change(self, name: str, overwrites: bool, mode: Modes | None = None) -> bool:
        """Whether code may write to a tensor now; if so, it is noted as written."""
        if self.written.get(name, self.phase) < self.phase:
            return False
        if not overwrites:
            self._make_default(name, mode)
        self.written[name] = self.phase
        return True

    def _make_default(self, name: str, mode: Modes | None) -> None:
        """Let the layers that hold a tensor fill it, outer ones first, if it has not been written."""
        if name in self.written:
            return
        with nullcontext() if mode is None else mode.entered():
            for layer_name, layer in self.layers:
                if name.startswith(layer_name):
                    self.default(layer_name, layer)


def _changed(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The tensors that an operation writes to."""
    changed = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[i] if i < len(args) else kwargs.get(argument.name)
            changed += list(_tensors((given,)))
    return changed


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among arguments and in lists of them."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple | dict):
            yield from _tensors(value)


@contextmanager
def _without_marks(module: torch.nn.Module) -> Iterator[None]:
    """Take away the marks of transformers on modules and tensors, which its code does not initialise again."""
    holders = [*module.modules(), *module.parameters(), *module.buffers()]
    marked: list[Any] = [holder for holder in holders if vars(holder).pop("_is_hf_initialized", False)]
    try:
        yield
    finally:
        for holder in marked:
            holder._is_hf_initialized = True
