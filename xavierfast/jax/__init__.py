"""JAX: the initialisers of ``jax.nn.initializers`` by our kernels, and Tables as arrays sharded from the start.

The calling convention and the distributions are those of JAX, the bits are those of the NumPy core, and the words of
the key are the seed::

    jax.random.key(7)  ->  key_data [0, 7]  ->  xavierfast.xavier_uniform(shape, seed=[0, 7])

**As in JAX, two calls with one key give the same numbers, so give each tensor a key of its own**, by
``jax.random.split`` or ``fold_in``.

Each part of an array is computed into new memory that is aligned as XLA requires: on the CPU the array takes that
memory over, elsewhere it is copied to the device. Only the local shards of a sharded array are computed. Under ``jit``,
``vmap`` and ``eval_shape``, where a key has no value yet, the call becomes one that XLA makes: on the CPU our handler
fills XLA's own buffer, elsewhere a ``jax.pure_callback`` gives the same bits at the cost of a copy.
"""

from .._core.extras import how_to_install

try:
    import jax as _jax  # noqa: F401
except ImportError:
    raise ImportError(f"xavierfast.jax needs jax: {how_to_install('jax')}") from None

from jax.nn.initializers import constant, ones, zeros

from .arrays import make_array
from .initializers import (
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    truncated_normal,
    uniform,
    variance_scaling,
    xavier_normal,
    xavier_uniform,
)

__all__ = [
    "constant", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "kaiming_normal", "kaiming_uniform",
    "lecun_normal", "lecun_uniform", "make_array", "normal", "ones", "truncated_normal", "uniform", "variance_scaling",
    "xavier_normal", "xavier_uniform", "zeros",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
