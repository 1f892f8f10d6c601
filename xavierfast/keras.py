# mypy: allow-subclassing-any
"""Keras 3: its random initialisers by our kernels, with its names, arguments, distributions and configurations.

Each class is the one of ``keras.initializers`` with another way to draw, so that layers, ``clone``, and models that are
saved and loaded take it as they take Keras's own. The bits are those of the NumPy core, on every backend::

    GlorotUniform(seed=7)((3, 4))                  xavierfast.xavier_uniform((3, 4), seed=7)
    GlorotNormal(seed=7, name="head")((3, 4))      xavierfast.xavier_truncated_normal((3, 4), seed=7, name="head")

As in Keras, an instance gives the same values at each call, and layers that share it, or its seed, start alike (keras
issues 15586, 17007): `name` gives each a stream of its own under one seed, a ``keras.random.SeedGenerator`` each call.
PyTorch and JAX take the memory over without a copy; under a JAX distribution only local shards are computed.
"""

from math import prod
from typing import Any

from ._core.stream import derive_key, resolve_seed
from ._core.validation import check_shape
from .fans import fans
from .table import Table

try:
    import keras  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    if error.name != "keras":  # its backend, which is the user's choice
        raise
    raise ImportError("xavierfast.keras needs keras: pip install 'xavierfast[keras]'") from None

__all__ = [
    "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "RandomNormal",
    "RandomUniform", "TruncatedNormal", "VarianceScaling",
]  # fmt: skip

Drawn = tuple[str, dict[str, Any]]  # the core's initialiser and its parameters

_registered = keras.saving.register_keras_serializable(package="xavierfast")


class _Initializer:
    """What goes before Keras's class: its seed and configuration, our values."""

    seed: Any

    def __init__(self, *args: Any, name: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        derive_key(0, name)  # raises unless it is a str
        if isinstance(self.seed, int):
            resolve_seed(self.seed)
        self.name = name

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "name": self.name}  # type: ignore[misc]

    def __call__(self, shape: Any, dtype: Any = None, layout: Any = None) -> Any:
        """A tensor of the backend.

        Parameters
        ----------
        shape : sequence of ints
        dtype : str, optional
            As in :func:`xavierfast.xavier_uniform`; by default ``keras.config.floatx()``.
        layout : optional
            Where Keras's distribution puts the tensor: with JAX, a sharding.
        """
        dtype = keras.backend.standardize_dtype(dtype)
        shape = check_shape(shape)
        init, parameters = self._draw(shape)
        return _tensor(Table(shape, init, seed=self._words(), name=self.name, dtype=dtype, **parameters), layout)

    def _draw(self, shape: tuple[int, ...]) -> Drawn:
        raise NotImplementedError

    def _words(self) -> Any:
        if not isinstance(self.seed, keras.random.SeedGenerator):
            return self.seed
        # Keras's seeds are unsigned and of 32 bits, but PyTorch's backend keeps them in signed ones.
        return [int(word) & 0xFFFFFFFF for word in self.seed.next()]


def _tensor(table: Table, layout: Any) -> Any:
    backend = keras.config.backend()
    if backend == "jax":
        from .jax import make_array

        return make_array(table, getattr(layout, "backend_layout", layout))  # of a keras.distribution.TensorLayout
    array = table.read()
    if backend == "torch":
        import torch

        raw = array if array.dtype.isbuiltin == 1 else array.view(f"u{array.itemsize}")  # PyTorch has no ml_dtypes
        return keras.ops.convert_to_tensor(torch.from_numpy(raw).view(getattr(torch, table.dtype_name)))
    return keras.ops.convert_to_tensor(array, table.dtype_name)


# ---- scaled by the fans


class _Scaled(_Initializer):
    scale: float
    mode: str
    distribution: str

    def _draw(self, shape: tuple[int, ...]) -> Drawn:
        kind = "normal" if self.distribution == "untruncated_normal" else self.distribution
        fan_in, fan_out = _fans(shape, getattr(self, "input_axes", None), getattr(self, "output_axes", None))
        fan = {"fan_in": max(1, fan_in), "fan_out": max(1, fan_out)}
        return "variance_scaling", {"scale": self.scale, "mode": self.mode, "distribution": kind, **fan}


def _fans(shape: tuple[int, ...], input_axes: Any, output_axes: Any) -> tuple[int, int]:
    """As Keras counts them: axes that are given are all that counts, and a shape of less than two is its own fans."""
    if input_axes is not None and output_axes is not None:
        return prod(shape[axis] for axis in input_axes), prod(shape[axis] for axis in output_axes)
    return fans(shape) if len(shape) > 1 else (prod(shape), prod(shape))


@_registered
class VarianceScaling(_Scaled, keras.initializers.VarianceScaling):
    """Mean 0 and variance scale / n, n the fan of the mode.

    Parameters
    ----------
    scale : float
        > 0.
    mode : {"fan_in", "fan_out", "fan_avg"}
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
        "truncated_normal" is cut at two standard deviations and widened so that the variance is what was asked for.
    seed : int, keras.random.SeedGenerator or None
        An int >= 0. None takes one at random, which ``keras.utils.set_random_seed`` decides.
    input_axes, output_axes : sequence of ints, optional
        Whose sizes alone are the fans.
    name : str
        A stream of its own under the seed.

    Raises
    ------
    TypeError, ValueError
        For what is not as above.

    Examples
    --------
    >>> kernel = VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=7)((3, 3, 64, 128))
    >>> round(float(keras.ops.std(kernel)), 3), round((2 / (9 * 128)) ** 0.5, 3)
    (0.042, 0.042)
    """


@_registered
class GlorotUniform(_Scaled, keras.initializers.GlorotUniform):
    """Uniform on +-sqrt(6 / (fan_in + fan_out)): Glorot and Bengio (2010), eq. 16.

    Parameters as in :class:`VarianceScaling`, from `seed` on.

    >>> kernel = GlorotUniform(seed=7)((200, 300))
    >>> round(float(keras.ops.std(kernel)), 3)
    0.063
    """


@_registered
class GlorotNormal(_Scaled, keras.initializers.GlorotNormal):
    """Truncated normal, standard deviation sqrt(2 / (fan_in + fan_out)): Glorot and Bengio (2010), eq. 12.

    Parameters as in :class:`VarianceScaling`, from `seed` on.

    >>> kernel = GlorotNormal(seed=7)((200, 300))
    >>> round(float(keras.ops.std(kernel)), 3)
    0.063
    """


@_registered
class HeUniform(_Scaled, keras.initializers.HeUniform):
    """Uniform on +-sqrt(6 / fan_in): He et al. (2015).

    Parameters as in :class:`VarianceScaling`, from `seed` on.

    >>> kernel = HeUniform(seed=7)((200, 300))
    >>> round(float(keras.ops.std(kernel)), 3)
    0.1
    """


@_registered
class HeNormal(_Scaled, keras.initializers.HeNormal):
    """Truncated normal, standard deviation sqrt(2 / fan_in): He et al. (2015), eq. 10.

    Parameters as in :class:`VarianceScaling`, from `seed` on.

    >>> kernel = HeNormal(seed=7)((200, 300))
    >>> round(float(keras.ops.std(kernel)), 3)
    0.1
    """


@_registered
class LecunUniform(_Scaled, keras.initializers.LecunUniform):
    """Uniform on +-sqrt(3 / fan_in): LeCun et al. (1998).

    Parameters as in :class:`VarianceScaling`, from `seed` on.

    >>> kernel = LecunUniform(seed=7)((200, 300))
    >>> round(float(keras.ops.std(kernel)), 3)
    0.071
    """


@_registered
class LecunNormal(_Scaled, keras.initializers.LecunNormal):
    """Truncated normal, standard deviation sqrt(1 / fan_in): LeCun et al. (1998).

    Parameters as in :class:`VarianceScaling`, from `seed` on.

    >>> kernel = LecunNormal(seed=7)((200, 300))
    >>> round(float(keras.ops.std(kernel)), 3)
    0.071
    """


# ---- scaled by hand


@_registered
class RandomUniform(_Initializer, keras.initializers.RandomUniform):
    """Uniform from minval to below maxval, by default +-0.05; `seed` and `name` as in :class:`VarianceScaling`.

    >>> values = RandomUniform(0, 10, seed=7)((1000,))
    >>> bool(0 <= values.min() < 0.1 and 9.9 < values.max() < 10)
    True
    """

    def _draw(self, shape: tuple[int, ...]) -> Drawn:
        return "uniform", {"low": float(self.minval), "high": float(self.maxval)}


class _Normal(_Initializer):
    mean: Any
    stddev: Any
    _init: str

    def _draw(self, shape: tuple[int, ...]) -> Drawn:
        return self._init, {"mean": float(self.mean), "std": float(self.stddev)}


@_registered
class RandomNormal(_Normal, keras.initializers.RandomNormal):
    """Normal with `mean`, by default 0, and `stddev`, 0.05; `seed` and `name` as in :class:`VarianceScaling`.

    >>> round(float(keras.ops.std(RandomNormal(stddev=2.0, seed=7)((200, 300)))), 1)
    2.0
    """

    _init = "normal"


@_registered
class TruncatedNormal(_Normal, keras.initializers.TruncatedNormal):
    """The same before it is cut at two `stddev` from `mean`; as in Keras, the variance is not corrected for the cut.

    >>> bool(abs(TruncatedNormal(stddev=0.5, seed=7)((1000,))).max() <= 1)
    True
    """

    _init = "truncated_normal"
