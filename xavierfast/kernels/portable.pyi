def address(array: object) -> int: ...
def fill(
    kernel: int,
    dtype: int,
    key: bytes,
    constants: tuple[float, ...],
    out: int,
    position: int,
    n: int,
    streaming: bool = False,
) -> None: ...
def equals(
    kernel: int, dtype: int, key: bytes, constants: tuple[float, ...], data: int, position: int, n: int
) -> bool: ...
def gather(
    kernel: int,
    dtype: int,
    key: bytes,
    constants: tuple[float, ...],
    out: int,
    position: int,
    n: int,
    layout: bytes,
    index: bytes,
    gathered: int = -1,
    ids: int = 0,
    length: int = 0,
) -> None: ...
def values(kernel: int, dtype: int, constants: tuple[float, ...], words: int, out: int, tiles: int) -> None: ...
def fused_all(a: int, b: int, c: int, out: int, n: int) -> None: ...
