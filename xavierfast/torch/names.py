"""Names of a model's tensors that do not depend on how the model is wrapped, and tensors found by their memory."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .tensors import is_plain, local_part

__all__ = ["Memory", "Named", "children", "named_layers", "named_tensors"]

# Modules that only wrap another one, by the name of their class, and the name that the wrapped one has in them. The
# names are those of PyTorch, DeepSpeed, Megatron and apex, none of which needs to be installed.
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "ActivationWrapper": "_checkpoint_wrapped_module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "DeepSpeedEngine": "module",
    "Float16Module": "module",
}


def children(name: str, layer: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The names and modules directly below a module. Names end with a dot; a wrapper's child has the wrapper's name."""
    for child_name, child in layer.named_children():
        is_wrapped = any(WRAPPERS.get(base.__name__) == child_name for base in type(layer).__mro__)
        yield (name if is_wrapped else f"{name}{child_name}."), child


def named_layers(module: torch.nn.Module, prefix: str = "") -> Iterator[tuple[str, torch.nn.Module]]:
    """Each module once, outer ones first, with its name, which ends with a dot where it is not empty."""
    seen = set()
    waiting = [(prefix, module)]
    while waiting:
        name, layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield name, layer
        waiting += reversed(list(children(name, layer)))


class Named(NamedTuple):
    """A parameter or buffer, the layer that holds it, and its name there."""

    tensor: Tensor
    layer: torch.nn.Module
    own: str


def named_tensors(layers: Iterable[tuple[str, torch.nn.Module]], kind: str) -> dict[str, Named]:
    """All parameters (`kind` "_parameters") or buffers ("_buffers") of layers by name, each once."""
    found: dict[str, Named] = {}
    seen = set()
    for name, layer in layers:
        for own, tensor in getattr(layer, kind).items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                found[name + own] = Named(tensor, layer, own)
    return found


class Memory:
    """Which of many named tensors a tensor is, or is a part of, by the addresses of their elements.

    Parameters may be views of one buffer, and code may reach them by ``.data``, by slices, or through the buffer.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)
        self.first = {name: name for name in tensors}  # the first name of each tensor's memory
        self.by_object = {}
        self.spans = []
        self.without_elements: dict[int, list[str]] = {}  # shards; by their storage, which even those have
        extents: dict[tuple[int, int, int], str] = {}
        for name, tensor in self.tensors.items():
            part = _local(tensor)
            if part is not None and part.numel():
                begin, end = _span(part)
                self.first[name] = extents.setdefault((begin, end, part.numel()), name)
                if self.first[name] == name:
                    self.spans.append((begin, end, name, part))
            elif part is not None:
                self.without_elements.setdefault(part.untyped_storage()._cdata, []).append(name)
            self.by_object[id(tensor)] = self.first[name]
        self.spans.sort(key=lambda span: span[0])
        self.begins = [span[0] for span in self.spans]
        self.furthest = list(accumulate((span[1] for span in self.spans), max))

    def find(self, tensor: Any) -> tuple[str, bool]:
        """The name of the tensor to whose memory this one belongs, or "", and whether it is all of it."""
        name = self.by_object.get(id(tensor), "")
        if name:
            return name, True
        part = _local(tensor)
        if part is None:
            return "", False
        if not part.numel():
            names = self.without_elements.get(part.untyped_storage()._cdata, [])
            name = next((name for name in names if self.tensors[name].shape == tensor.shape), next(iter(names), ""))
        else:
            name = self._holder(part)
        return name, bool(name) and tensor.numel() == self.tensors[name].numel()

    def _holder(self, part: Tensor) -> str:
        """The name of the smallest tensor that holds the first element of `part`."""
        address, found, size = _address(part), "", 0
        i = bisect_right(self.begins, address)
        while i and self.furthest[i - 1] > address:
            i -= 1
            _, end, name, other = self.spans[i]
            if address < end and (not found or other.nbytes < size) and _holds(other, address):
                found, size = name, other.nbytes
        return found


def _local(tensor: Any) -> Tensor | None:
    """The part of a tensor in this process's memory; None for tensors without memory of their own."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_meta:
        return None
    part = local_part(tensor)[0] if hasattr(tensor, "placements") else tensor
    return part if is_plain(part) else None


def _address(tensor: Tensor) -> int:
    """A number for a tensor's first byte, as far from those of the other bytes of its storage as their addresses are.

    The pointers of mps and xla are no addresses, and different storages' may lie within each other's sizes.
    """
    if tensor.device.type in ("cpu", "cuda", "xpu"):  # one space of addresses
        return tensor.data_ptr()
    storage: int = tensor.untyped_storage()._cdata
    return (storage << 64) + int(tensor.storage_offset()) * tensor.itemsize


def _span(tensor: Tensor) -> tuple[int, int]:
    """The address of a tensor's first byte, and that after its last; torch's strides are never negative."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return _address(tensor), _address(tensor) + (last + 1) * tensor.itemsize


def _holds(tensor: Tensor, address: int) -> bool:
    """Whether an element of a tensor lies at an address."""
    offset = (address - _address(tensor)) // tensor.itemsize
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True), reverse=True):
        if stride:
            index = min(offset // stride, size - 1)
            offset -= index * stride
    return not offset
