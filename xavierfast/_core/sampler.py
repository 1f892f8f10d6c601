"""The elements of a tensor before it has a shape: a key, a kernel, and the kernel's constants.

Element i of a sampler is a function of these three and of i only. Nothing but a sampler, addresses, positions and
lengths is passed to the kernels, which know no arrays.
"""

from typing import NamedTuple

from .. import kernels
from .dtypes import DType

__all__ = ["Sampler"]


class Sampler(NamedTuple):
    """The stream of a key as elements of a distribution in a dtype.

    `kernel` is one of the numbers in ``kernels``; `constants` are those that the kernel's description in the source
    names. Elements of one-byte dtypes are written as float32, which the caller casts.
    """

    key: bytes
    kernel: int
    dtype: DType
    constants: tuple[float, ...]

    def fill(self, address: int, position: int, n: int, streaming: bool = False) -> None:
        """Write elements position .. position + n - 1 to the contiguous memory at an address."""
        kernels.fill(self.kernel, self.dtype.code, self.key, self.constants, address, position, n, streaming)

    def equals(self, address: int, position: int, n: int) -> bool:
        """Whether the contiguous memory at an address holds elements position .. position + n - 1."""
        same: bool = kernels.equals(self.kernel, self.dtype.code, self.key, self.constants, address, position, n)
        return same

    def gather(
        self, address: int, position: int, n: int, layout: bytes, index: bytes, axis: int = -1, ids: int = 0,
        length: int = 0,
    ) -> None:  # fmt: skip
        """Write n elements to strided memory, in C order from `index` on; see ``gather`` in the kernels' source."""
        kernels.gather(
            self.kernel, self.dtype.code, self.key, self.constants, address, position, n, layout, index, axis, ids,
            length,
        )  # fmt: skip
