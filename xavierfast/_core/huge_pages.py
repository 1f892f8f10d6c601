"""Pages of 2 MiB for large new memory: touching it in pages of 4 KiB takes longer than filling it."""

import ctypes
import mmap
import sys

__all__ = ["advise_huge_pages"]

MIN_BYTES = 1 << 22  # NumPy too asks for huge pages from here on
PAGE = mmap.PAGESIZE
MADV_HUGEPAGE = 14


def advise_huge_pages(address: int, nbytes: int) -> None:
    """Ask Linux for huge pages for that part of contiguous memory that has not been touched yet."""
    if nbytes < MIN_BYTES or sys.platform != "linux":
        return
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is not None:
        begin, end = -(-address // PAGE) * PAGE, (address + nbytes) // PAGE * PAGE
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_HUGEPAGE)
