# mypy: allow-subclassing-any
"""Keras 3: its random initialisers by our kernels, with its names, arguments, distributions and configurations.

Each class derives from the one of the same name in ``keras.initializers`` and only draws differently, so that layers,
``clone``, and saved and loaded models accept it like Keras's own. The bits are those of the NumPy core, on every
backend::

    GlorotUniform(seed=7)((3, 4))                  xavierfast.xavier_uniform((3, 4), seed=7)
    GlorotNormal(seed=7, name="head")((3, 4))      xavierfast.xavier_truncated_normal((3, 4), seed=7, name="head")

As in Keras, an instance gives the same values at each call, and **layers that share an instance, or a seed without
names, start with the same values** (keras issues 15586, 17007). Give each initialiser a `name` of its own under one
seed, or pass a ``keras.random.SeedGenerator``, which gives each call a stream of its own. PyTorch and JAX take the
memory over without a copy; under a JAX distribution only local shards are computed.
"""

from collections.abc import Callable
from math import prod
from typing import Any

from ._core.extras import how_to_install
from ._core.rules import InitName
from ._core.stream import derive_key, resolve_seed
from ._core.validation import check_shape, plain
from .fans import fans
from .table import Table

try:
    import keras  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    if error.name != "keras":  # Keras's backend is missing, which is the user's choice
        raise
    raise ImportError(f"xavierfast.keras needs keras: {how_to_install('keras')}") from None

__all__ = [
    "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "RandomNormal",
    "RandomUniform", "TruncatedNormal", "VarianceScaling",
]  # fmt: skip

KERAS_SEEDS = 1 << 31  # the number of seeds that Keras can hold on every backend
Drawn = tuple[InitName, dict[str, Any]]  # the core's initialiser and its parameters

_registered = keras.saving.register_keras_serializable(package="xavierfast")


class _Config(dict[str, Any]):
    """A configuration that remembers, until it is saved, what a copy of the initialiser shares with it.

    Layers make copies for their parts by ``from_config(get_config())``. MultiHeadAttention does, and EinsumDense puts a
    seed of its own into the configuration before.
    """

    name: str
    generator: Any


class _Initializer:
    """A mixin to put before a class of Keras, whose seed and configuration it keeps: it draws our values."""

    seed: Any

    def __init__(self, *args: Any, name: str = "", **kwargs: Any) -> None:
        # Numbers of NumPy would stand in configurations, which Keras then could not save.
        super().__init__(*map(plain, args), **{key: plain(value) for key, value in kwargs.items()})
        name = plain(name)
        derive_key(0, name)  # raises unless it is a str
        if isinstance(self.seed, int):
            resolve_seed(self.seed)
        self.name = name

    # A process that has not imported this module takes the class of Keras for ours, and must be able to read the
    # configuration. A name, or a seed that Keras cannot hold, lies in an entry that Keras ignores, in that of a seed.

    def get_config(self) -> dict[str, Any]:
        config = _Config(super().get_config())  # type: ignore[misc]
        config.name = self.name
        config.generator = self.seed if isinstance(self.seed, keras.random.SeedGenerator) else None
        seed: Any = config["seed"]
        if self.name or (isinstance(seed, int) and seed >= KERAS_SEEDS):
            like = None if seed is None else seed % KERAS_SEEDS if isinstance(seed, int) else seed["config"]["seed"]
            plain = {"module": "keras.random", "class_name": "SeedGenerator", "config": {"seed": like}}
            config["seed"] = {**plain, "registered_name": None, "xavierfast": {"seed": seed, "name": self.name}}
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        arguments, seed = dict(config), config.get("seed")
        if isinstance(seed, dict):
            arguments |= seed.get("xavierfast", {})
        if isinstance(config, _Config):
            arguments["name"] = config.name
            if isinstance(seed, dict) and config.generator is not None:
                arguments["seed"] = config.generator
        return cls(**arguments)

    def __call__(self, shape: Any, dtype: Any = None, layout: Any = None) -> Any:
        """Draw a tensor of the backend.

        Parameters
        ----------
        shape : sequence of ints
            The shape of the tensor.
        dtype : str, optional
            As in :func:`xavierfast.xavier_uniform`; by default ``keras.config.floatx()``. With JAX, float64 is float32
            while ``jax_enable_x64`` is off.
        layout : optional
            The placement of the tensor by a Keras distribution: with JAX, a sharding.
        """
        dtype = _supported_dtype(keras.backend.standardize_dtype(dtype))
        shape = check_shape(shape)
        init, parameters = self._draw(shape)

        def make(seed: Any) -> Table:
            return Table(shape, init, seed=seed, name=self.name, dtype=dtype, **parameters)

        if isinstance(self.seed, keras.random.SeedGenerator):
            return _tensor_of_words(make, _next(self.seed, layout), layout)
        return _tensor(make(self.seed), layout)

    def _draw(self, shape: tuple[int, ...]) -> Drawn:
        raise NotImplementedError


def _supported_dtype(dtype: str) -> Any:
    if keras.config.backend() != "jax":
        return dtype
    from .jax.arrays import supported_dtype

    return supported_dtype(dtype)


def _next(generator: Any, layout: Any) -> Any:
    """The next words of a SeedGenerator."""
    if layout is None or keras.config.backend() != "jax":
        return generator.next()
    import jax

    # Keras asks for a sharded variable where all axes of its mesh are explicit; the generator's state lies elsewhere.
    with jax.sharding.use_abstract_mesh(jax.typeof(generator.state.value).sharding.mesh):
        return generator.next()


def _tensor_of_words(make: Callable[[Any], Table], words: Any, layout: Any) -> Any:
    """The tensor of ``make(words)``; while Keras traces a model, the words have no values yet."""
    backend = keras.config.backend()
    if backend == "jax":
        from .jax.draw import draw

        return draw(make, words, _sharding(layout), {})
    if backend == "torch" and words.is_meta:
        import torch

        table = make(0)
        return torch.empty(table.shape, dtype=getattr(torch, table.dtype_name), device="meta")

    def tensor(words: Any) -> Any:
        # Keras's seeds are unsigned 32-bit ints, but the PyTorch backend keeps them in signed ones.
        return _tensor(make([int(word) & 0xFFFFFFFF for word in words]), layout)

    if backend == "tensorflow" and not hasattr(words, "numpy"):  # in a graph, which draws when it runs
        import tensorflow as tf  # type: ignore[import-untyped]

        table = make(0)
        return tf.ensure_shape(tf.py_function(tensor, [words], table.dtype_name), table.shape)
    return tensor(words)


def _tensor(table: Table, layout: Any) -> Any:
    backend = keras.config.backend()
    if backend == "jax":
        from .jax import make_array

        return make_array(table, _sharding(layout))
    array = table.read()
    if backend == "torch":
        import torch

        raw = array if array.dtype.isbuiltin == 1 else array.view(f"u{array.itemsize}")  # PyTorch has no ml_dtypes
        return keras.ops.convert_to_tensor(torch.from_numpy(raw).view(getattr(torch, table.dtype_name)))
    return keras.ops.convert_to_tensor(array, table.dtype_name)


def _sharding(layout: Any) -> Any:
    return getattr(layout, "backend_layout", layout)  # of a keras.distribution.TensorLayout


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
    """The fans as Keras counts them: only given axes count; with fewer than two axes both fans are the shape's size."""
    if input_axes is not None and output_axes is not None:
        return prod(shape[axis] for axis in input_axes), prod(shape[axis] for axis in output_axes)
    return fans(shape) if len(shape) > 1 else (prod(shape), prod(shape))


@_registered
class VarianceScaling(_Scaled, keras.initializers.VarianceScaling):
    """Values of mean 0 and variance scale / n, where n is the fan that `mode` names.

    Parameters
    ----------
    scale : float
        Greater than 0.
    mode : {"fan_in", "fan_out", "fan_avg"}
        The fan n: fan_in, fan_out or their mean.
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
        "truncated_normal" is cut at two standard deviations and widened so that the variance is scale / n.
    seed : int, keras.random.SeedGenerator or None
        An int must be >= 0. None takes a random seed, which ``keras.utils.set_random_seed`` decides. **Initialisers
        with one seed and without names give the same numbers.**
    input_axes, output_axes : sequence of ints, optional
        The axes of inputs and of outputs. If they are given, only their sizes make up the fans.
    name : str
        The name of the tensor. Each name has a stream of its own under one seed.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above.

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
    """Uniform from `minval` to below `maxval`, by default -0.05 and 0.05.

    `seed` and `name` are as in :class:`VarianceScaling`.

    >>> values = RandomUniform(0, 10, seed=7)((1000,))
    >>> bool(0 <= values.min() < 0.1 and 9.9 < values.max() < 10)
    True
    """

    def _draw(self, shape: tuple[int, ...]) -> Drawn:
        return "uniform", {"low": float(self.minval), "high": float(self.maxval)}


class _Normal(_Initializer):
    mean: Any
    stddev: Any
    _init: InitName

    def _draw(self, shape: tuple[int, ...]) -> Drawn:
        return self._init, {"mean": float(self.mean), "std": float(self.stddev)}


@_registered
class RandomNormal(_Normal, keras.initializers.RandomNormal):
    """Normal with mean `mean`, by default 0, and standard deviation `stddev`, by default 0.05.

    `seed` and `name` are as in :class:`VarianceScaling`.

    >>> round(float(keras.ops.std(RandomNormal(stddev=2.0, seed=7)((200, 300)))), 1)
    2.0
    """

    _init = "normal"


@_registered
class TruncatedNormal(_Normal, keras.initializers.TruncatedNormal):
    """Normal with mean `mean` and standard deviation `stddev`, before it is cut at two `stddev` from `mean`.

    As in Keras, the variance is not corrected for the cut. Parameters as in :class:`RandomNormal`.

    >>> bool(abs(TruncatedNormal(stddev=0.5, seed=7)((1000,))).max() <= 1)
    True
    """

    _init = "truncated_normal"
