"""Who decides the stream of a draw that is given no seed: torch's generator, or the ``Draws`` that are in force."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._core.stream import Seed

__all__ = ["Draws", "Stream", "agreed_seed", "draws_in_force"]


class Stream(NamedTuple):
    """The stream of one draw, and the number of threads that compute it."""

    seed: Seed
    name: str
    threads: int | None


class Draws:
    """The interface of what ``fast_init`` and ``init_`` put in force: they name draws, and see all other operations."""

    def stream(self, tensor: Tensor, init: str, parameters: Mapping[str, Any]) -> Stream | None:
        """The stream from which to fill a tensor; None to leave the tensor as it is."""
        raise NotImplementedError

    def may_write(self, tensor: Tensor) -> bool:
        """Whether a tensor may be filled; called before each fill of ours."""
        return True

    def operate(self, mode: Any, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation of torch that is not a draw of ours. The dispatch `mode` that saw it is suspended."""
        return func(*args, **kwargs)


draws_in_force: ContextVar[Draws | None] = ContextVar("draws_in_force", default=None)


def agreed_seed(generator: torch.Generator | None = None, *tensors: Tensor) -> list[int]:
    """A seed of more than 256 bits from torch's generator, so that ``torch.manual_seed`` decides the values.

    For DTensors among the tensors all ranks of their meshes get the seed of the first one: a collective operation.
    """
    device = "cpu" if generator is None else generator.device
    words = torch.randint(0, (1 << 63) - 1, (5,), generator=generator, device=device)
    for mesh in dict.fromkeys(getattr(tensor, "device_mesh", None) for tensor in tensors):
        if mesh is None or mesh.get_coordinate() is None:
            continue
        words = words.to(mesh.device_type)
        for axis in range(mesh.ndim):
            group = mesh.get_group(axis)
            torch.distributed.broadcast(words, torch.distributed.get_global_rank(group, 0), group)
    return [int(word) for word in words.tolist()]
