"""JAX: the bits of the core under JAX's protocol, JAX's own distributions, tracing, Flax, and sharded arrays."""

import importlib
import inspect
from functools import partial
from math import sqrt

import numpy as np
import pytest
from support import missing, run, same_bits

import xavierfast as xf

try:
    import jax
except ImportError:
    missing("jax is not installed")
    pytest.skip("jax is not installed", allow_module_level=True)

import jax.numpy as jnp
from jax._src.nn.initializers import _compute_fans
from jax.nn import initializers as theirs
from jax.sharding import NamedSharding, PartitionSpec

import xavierfast.jax as xj

KEY = jax.random.key(7)
SEED = [0, 7]  # its words
FAMILY = {
    "glorot_uniform": "xavier_uniform", "glorot_normal": "xavier_truncated_normal",
    "xavier_uniform": "xavier_uniform", "xavier_normal": "xavier_truncated_normal",
    "he_uniform": "he_uniform", "he_normal": "he_truncated_normal",
    "kaiming_uniform": "he_uniform", "kaiming_normal": "he_truncated_normal",
    "lecun_uniform": "lecun_uniform", "lecun_normal": "lecun_truncated_normal",
}  # fmt: skip
DTYPES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64"]


run_strictly = partial(run, flags=("-W", "error"))


# ---- the bits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILY)
def test_the_bits_of_the_core(name, dtype):
    expected = getattr(xf, FAMILY[name])((50, 30), seed=SEED, dtype=dtype)
    same_bits(getattr(xj, name)()(KEY, (50, 30), dtype), expected)
    same_bits(getattr(xj, name)(dtype=dtype)(KEY, (50, 30)), expected)


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg", "fan_geo_avg"])
@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncated_normal"])
def test_variance_scaling(mode, distribution):
    ours = xj.variance_scaling(0.7, mode, distribution)(KEY, (3, 20, 30))
    expected = xf.variance_scaling((3, 20, 30), scale=0.7, mode=mode, distribution=distribution, seed=SEED)
    same_bits(ours, expected)


def test_those_without_fans():
    same_bits(xj.normal(0.5)(KEY, (7, 9)), xf.normal((7, 9), std=0.5, seed=SEED))
    same_bits(xj.truncated_normal()(KEY, 70), xf.truncated_normal(70, std=0.01, seed=SEED))
    cut = xf.truncated_normal((7,), std=3.0, low=-1, high=2.5, seed=SEED)
    same_bits(xj.truncated_normal(3.0, lower=-1.0, upper=2.5)(KEY, (7,)), cut)
    same_bits(xj.uniform(0.3)(KEY, (7, 9)), xf.uniform((7, 9), low=0, high=0.3, seed=SEED))
    same_bits(xj.normal(jnp.float32(0.5))(KEY, ()), np.asarray(xf.normal((), std=0.5, seed=SEED)))
    assert xj.zeros is theirs.zeros and xj.ones is theirs.ones and xj.constant is theirs.constant


@pytest.mark.parametrize("key", [
    jax.random.PRNGKey(7), np.array([0, 7], np.uint32), jax.random.key(7, impl="rbg"), jax.random.key(1 << 40),
    jax.random.split(KEY, 3)[1],
], ids=["raw", "numpy", "rbg", "large", "split"])  # fmt: skip
def test_the_words_of_a_key_are_the_seed(key):
    words = np.asarray(jax.random.key_data(key))
    same_bits(xj.glorot_uniform()(key, (4, 5)), xf.xavier_uniform((4, 5), seed=words))


@pytest.mark.parametrize(("shape", "axes", "layout"), [
    ((4, 5), {"in_axis": 1, "out_axis": 0}, "oi"),
    ((3, 3, 8, 16), {}, "xxio"),
    ((16, 8, 3, 3), {"in_axis": 1, "out_axis": 0}, "oixx"),
    ((6, 4, 5), {"batch_axis": 0}, "bio"),
    ((6, 2, 4, 5), {"batch_axis": (0, -3)}, "bbio"),
    ((12, 4, 5), {"in_axis": 0, "out_axis": (1, 2)}, "ioo"),
    ((4, 5, 12), {"in_axis": [0, 1], "out_axis": -1}, "iio"),
    ((20, 6), {"out_axis": 0}, "bx"),  # Flax's embeddings, whose fan_in is thereby the features
])  # fmt: skip
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg", "fan_geo_avg"])
def test_axes_are_a_layout_with_the_fans_of_jax(shape, axes, layout, mode):
    ours = xj.variance_scaling(1.0, mode, "uniform", **axes)(KEY, shape)
    expected = xf.variance_scaling(shape, mode=mode, distribution="uniform", layout=layout, seed=SEED)
    same_bits(ours, expected)
    fans = _compute_fans(shape, axes.get("in_axis", -2), axes.get("out_axis", -1), axes.get("batch_axis", ()))
    assert xf.fans(shape, layout) == fans


@pytest.mark.parametrize(("axes", "fans"), [
    ({"in_axis": 0}, (1, 1)),
    ({"in_axis": 0, "out_axis": ()}, (9, 1)),
    ({"in_axis": (), "out_axis": 0}, (1, 9)),
])  # fmt: skip
def test_one_axis(axes, fans):
    assert _compute_fans((9,), axes["in_axis"], axes.get("out_axis", -1)) == fans
    expected = xf.xavier_uniform(9, fan_in=fans[0], fan_out=fans[1], seed=SEED)
    same_bits(xj.glorot_uniform(**axes)(KEY, (9,)), expected)


def test_empty():
    assert xj.glorot_uniform()(KEY, (0, 5)).shape == (0, 5)


# ---- JAX's own


@pytest.mark.parametrize("name", [*FAMILY, "normal", "uniform", "truncated_normal", "variance_scaling"])
def test_the_signatures_of_jax(name):
    def parameters(function):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(getattr(xj, name)) == parameters(getattr(theirs, name))
    given = (1.0, "fan_in", "normal") if name == "variance_scaling" else ()
    ours, own = getattr(xj, name)(*given), getattr(theirs, name)(*given)
    assert parameters(ours) == parameters(own)
    assert isinstance(ours, theirs.Initializer)


@pytest.mark.parametrize(("name", "dtype"), [
    *((name, dtype) for name in (*FAMILY, "normal") for dtype in ("float32", "bfloat16", "complex64")),
    *((name, dtype) for name in ("uniform", "truncated_normal") for dtype in ("float32", "bfloat16")),
])  # fmt: skip
def test_the_distributions_of_jax(name, dtype):
    """Of 300,000 elements the means and standard deviations of two samples of one distribution differ by less than
    6 standard errors, but in one of 10^8 runs; seeds are fixed. JAX rounds scales to bfloat16, 0.4 % apart."""
    shape = (500, 600)
    given = (0.5,) if name in ("normal", "uniform", "truncated_normal") else ()
    ours, own = (np.asarray(getattr(m, name)(*given, dtype=dtype)(KEY, shape)).astype(
        np.complex128 if dtype == "complex64" else np.float64) for m in (xj, theirs))  # fmt: skip
    std = own.std()
    error = 6 * std * sqrt(2 / own.size)
    wide = {"float32": 0, "bfloat16": 0.008 * std, "complex64": 0.0}[dtype]
    if dtype == "complex64" and name.endswith("normal") and name != "normal":
        std *= 0.95311164380491208 / 0.96196182800821351  # JAX's constant is not that of its distribution
    assert abs(ours.mean() - own.mean()) <= error + wide
    assert abs(ours.std() - std) <= error + wide
    if name != "normal":  # both end at the same bounds: the outermost of so many lie within 1 %, JAX's short ones too
        assert abs(ours).max() == pytest.approx(abs(own).max(), rel=0.01)
        assert (ours.real.min() > 0) == (name == "uniform")


def test_uniform_has_neither_end():
    for dtype in ("float32", "bfloat16", "float16", "float8_e5m2"):
        values = np.asarray(xj.uniform(0.5, dtype)(KEY, (100_000,)))
        assert values.min() >= 0 and values.max() < 0.5, dtype
    assert np.asarray(xj.uniform(0.5)(KEY, (100_000,))).min() > 0


def test_defaults_to_the_dtype_of_jax():
    assert xj.normal()(KEY, (2,)).dtype == np.float32
    with pytest.warns(UserWarning, match="float64 requested in empty is not available"):
        array = xj.normal()(KEY, (2,), np.float64)
    same_bits(array, xf.normal(2, std=0.01, seed=SEED))
    with jax.enable_x64(True):
        same_bits(xj.normal()(KEY, (2,)), xf.normal(2, std=0.01, seed=SEED, dtype="float64"))
        complex128 = xf.xavier_truncated_normal((2, 3), seed=SEED, dtype="complex128")
        same_bits(xj.glorot_normal()(KEY, (2, 3), "complex128"), complex128)


# ---- errors


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: xj.variance_scaling(-1.0, "fan_in", "normal"), ValueError, "scale must be finite and >= 0, got -1.0"),
    (lambda: xj.variance_scaling(1.0, "fan", "normal"), ValueError, "mode must be one of fan_in, .* got 'fan'"),
    (lambda: xj.variance_scaling(1.0, "fan_in", "gauss"), ValueError, "distribution must be one of .* got 'gauss'"),
    (lambda: xj.normal("1"), TypeError, "stddev must be a number, got '1'"),
    (lambda: xj.truncated_normal(lower="1"), TypeError, "lower must be a number, got '1'"),
    (lambda: xj.truncated_normal(upper=-2), ValueError, "lower must be less than upper, got lower=-2.0 and upper=-2"),
    (lambda: xj.uniform(-1), ValueError, "scale must be finite and >= 0, got -1"),
    (lambda: xj.uniform()(KEY, 5, "complex64"), TypeError, "dtype must be real for uniform, got complex64"),
    (lambda: xj.normal()(KEY, 5, "int32"), TypeError, "dtype must be one of .* got 'int32'"),
    (lambda: xj.glorot_uniform()(KEY, (5,)), ValueError, r"in_axis must name axes of the shape \(5,\), got -2"),
    (lambda: xj.glorot_uniform(batch_axis=3)(KEY, (5, 5)), ValueError, r"batch_axis must name axes .* got 3"),
    (lambda: xj.glorot_uniform()(KEY, (5, -1)), ValueError, "shape must not have negative sizes"),
    (lambda: xj.glorot_uniform()(jax.random.split(KEY), (5, 5)), ValueError, r"got keys of the shape \(2,\): use"),
    (lambda: xj.glorot_uniform()(7, (5, 5)), TypeError, "key must come from jax.random.key or PRNGKey, got int"),
    (lambda: xj.glorot_uniform("ab")(KEY, (5, 5)), TypeError, "in_axis must be an int or .*, got 'ab'"),
    (lambda: xj.normal()(KEY, 5, out_sharding="x"), TypeError, "out_sharding must be a jax.sharding.Sharding or"),
    (lambda: xj.make_array(xf.Table(5, "normal", seed=0), "x"), TypeError, "^sharding must be a jax.sharding.Shar"),
    (lambda: xj.normal()(KEY, 5, out_sharding=PartitionSpec("x")), ValueError, "needs the mesh of jax.set_mesh"),
    (lambda: xj.make_array(xf.Table(5, "normal", dtype="float64", seed=0)), ValueError, "needs jax_enable_x64"),
    (lambda: xj.make_array((8, 4)), TypeError, r"table must be a xavierfast.Table, got tuple: xavierfast.Table\(shape"),
    (lambda: jax.jit(lambda key: xj.glorot_uniform()(key, (5,)))(KEY), ValueError, "in_axis must name axes"),
])  # fmt: skip
def test_errors(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_missing_package():
    said = run_strictly("""
        import sys
        sys.modules["jax"] = None
        try:
            import xavierfast.jax
        except ImportError as error:
            print(error)
    """)
    assert said == "xavierfast.jax needs jax: pip install 'xavierfast[jax]'\n"


# ---- memory


@pytest.mark.parametrize("dtype", DTYPES)
def test_jax_takes_the_memory_over(dtype, monkeypatch):
    outs = []
    read = xf.Table.read

    def watched(self, index=..., out=None, *, threads=None):
        outs.append(read(self, index, out, threads=threads))
        return outs[-1]

    monkeypatch.setattr(xf.Table, "read", watched)
    arrays = [xj.glorot_uniform()(KEY, (300, 200), dtype) for _ in range(2)]
    assert [array.unsafe_buffer_pointer() for array in arrays] == [out.ctypes.data for out in outs]
    assert not np.shares_memory(*outs)


def test_donated_memory_is_left_alone():
    array = xj.glorot_uniform()(KEY, (300, 200))
    before = np.asarray(array)  # shares the memory
    jax.block_until_ready(jax.jit(lambda x: x + 1, donate_argnums=0)(array))
    same_bits(before, xf.xavier_uniform((300, 200), seed=SEED))


# ---- without a value of the key


@pytest.mark.parametrize("init", [
    xj.glorot_uniform(), xj.he_normal(dtype="bfloat16"), xj.uniform(0.3), xj.lecun_normal(dtype="float8_e4m3fn"),
    xj.glorot_normal(dtype="complex64"),
])  # fmt: skip
def test_under_jit(init):
    eager = np.asarray(init(KEY, (300, 200)))
    same_bits(jax.jit(lambda key: init(key, (300, 200)))(KEY), eager)
    same_bits(jax.jit(init, static_argnums=1)(jax.random.PRNGKey(7), (300, 200)), eager)
    same_bits(jax.jit(lambda: init(KEY, (300, 200)))(), eager)


def test_many_under_one_jit():
    init = xj.glorot_uniform()

    @jax.jit
    def draw(key):
        return [init(k, (20 + i, 300)) for i, k in enumerate(jax.random.split(key, 40))]

    for i, (array, key) in enumerate(zip(draw(KEY), jax.random.split(KEY, 40), strict=True)):
        same_bits(array, np.asarray(init(key, (20 + i, 300))))


def test_vmap_scan_grad_and_shapes_alone():
    init = xj.glorot_uniform()
    keys = jax.random.split(KEY, 5)
    each = np.stack([init(key, (6, 7)) for key in keys])
    same_bits(jax.vmap(lambda key: init(key, (6, 7)))(keys), each)
    same_bits(jax.jit(jax.vmap(lambda key: init(key, (6, 7))))(keys), each)
    same_bits(jax.lax.scan(lambda carry, key: (carry, init(key, (6, 7))), 0, keys)[1], each)
    gradient = jax.jit(lambda x, key: jax.grad(lambda x: (x * init(key, (6, 7))).sum())(x))(1.0, keys[0])
    assert gradient == pytest.approx(each[0].sum(dtype=np.float64), rel=1e-4)  # XLA's sum in another order
    huge = jax.eval_shape(lambda key: init(key, (1 << 30, 1 << 20)), KEY)  # nothing is computed
    assert huge.shape == (1 << 30, 1 << 20) and huge.dtype == np.float32


# ---- Flax


def flax(name):
    try:
        return importlib.import_module(f"flax.{name}")
    except ImportError:
        missing("flax is not installed")


def test_flax_nnx():
    nnx = flax("nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(
                50, 16, embedding_init=xj.variance_scaling(1, "fan_in", "normal", out_axis=0), rngs=rngs
            )
            self.linear = nnx.Linear(16, 8, kernel_init=xj.glorot_uniform(), bias_init=xj.zeros, rngs=rngs)
            self.conv = nnx.Conv(3, 8, (3, 3), kernel_init=xj.he_normal(), rngs=rngs)
            self.heads = nnx.LinearGeneral(16, (4, 8), kernel_init=xj.lecun_normal(), rngs=rngs)

    eager, jitted = Model(nnx.Rngs(0)), nnx.jit(Model)(nnx.Rngs(0))
    for one in (eager, jitted):
        assert abs(np.asarray(one.embed.embedding[...]).std() - 0.25) < 0.03  # 1 / sqrt(16); 800 elements, 5 errors
    leaves = [jax.tree.leaves(nnx.state(one, nnx.Param)) for one in (eager, jitted)]
    assert len(leaves[0]) == 7
    for a, b in zip(*leaves, strict=True):
        same_bits(b, np.asarray(a))
    key = nnx.Rngs(0)  # the keys that the layers take, in their order
    embed, linear = key.params(), key.params()
    words = np.asarray(jax.random.key_data(linear))
    same_bits(eager.linear.kernel[...], xf.xavier_uniform((16, 8), seed=words))
    words = np.asarray(jax.random.key_data(embed))
    same_bits(eager.embed.embedding[...], xf.normal((50, 16), std=0.25, seed=words))


def test_flax_linen():
    linen = flax("linen")

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Conv(8, (3, 3), kernel_init=xj.he_normal())(x)
            return linen.Dense(5, kernel_init=xj.glorot_uniform(), param_dtype=jnp.bfloat16)(x.mean((1, 2)))

    x = jnp.ones((2, 8, 8, 3))
    eager, jitted = Model().init(KEY, x), jax.jit(Model().init)(KEY, x)
    assert eager["params"]["Dense_0"]["kernel"].dtype == jnp.bfloat16
    assert abs(np.asarray(eager["params"]["Conv_0"]["kernel"])).max() <= 2 * sqrt(2 / 27) / 0.8796
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), eager, jitted)


# ---- sharded


def test_one_device():
    table = xf.Table((40, 6), seed=3, name="w", dtype="bfloat16")
    same_bits(xj.make_array(table), np.asarray(table))
    same_bits(xj.make_array(table.shard((slice(5, 30, 2), None, 3))), np.asarray(table[5:30:2, None, 3]))
    sharding = NamedSharding(jax.make_mesh((1,), ("x",)), PartitionSpec("x"))
    array = xj.make_array(table, sharding)
    same_bits(array, np.asarray(table))
    assert array.sharding == sharding


EIGHT = """
    import jax, numpy as np
    import xavierfast as xf, xavierfast.jax as xj
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

    read, sizes = xf.Table.read, []
    def watched(self, index=..., out=None, *, threads=None):
        array = read(self, index, out, threads=threads)
        sizes.append(array.nbytes)
        return array
    xf.Table.read = watched

    def check(array, expected, sharding, distinct, nbytes):
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        assert np.asarray(array).tobytes() == expected.tobytes()
        assert array.sharding.is_equivalent_to(sharding, array.ndim), (array.sharding, sharding)
        for shard in array.addressable_shards:
            assert np.asarray(shard.data).tobytes() == np.ascontiguousarray(expected[shard.index]).tobytes()
        assert len(sizes) == distinct and sum(sizes) == nbytes, (sizes, distinct, nbytes)
        sizes.clear()

    def mesh(kind, **axes):
        return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(kind,) * len(axes))

    KINDS = (AxisType.Auto, AxisType.Explicit)
    # axes, spec, distinct shards
    CASES = [
        (dict(x=8), P("x"), 8), (dict(x=8), P(None, "x"), 8), (dict(x=8), P(), 1),
        (dict(x=4, y=2), P("x", "y"), 8), (dict(x=4, y=2), P("y", "x"), 8), (dict(x=4, y=2), P(("x", "y")), 8),
        (dict(x=4, y=2), P(None, ("y", "x")), 8), (dict(x=4, y=2), P("y"), 2), (dict(x=4, y=2), P(None, "x"), 4),
    ]
    key, shape = jax.random.key(7), (32, 48, 3)
"""


def test_meshes_of_eight():
    run_strictly(EIGHT + """
    for kind in KINDS:
        for axes, spec, distinct in CASES:
            sharding = NamedSharding(mesh(kind, **axes), spec)
            for dtype in ("float32", "bfloat16"):
                table = xf.Table(shape, seed=[0, 7], dtype=dtype)
                expected = read(table)
                check(xj.make_array(table, sharding), expected, sharding, distinct, table.nbytes)
                init = xj.glorot_uniform(dtype=dtype)
                check(init(key, shape, out_sharding=sharding), expected, sharding, distinct, table.nbytes)
                with jax.set_mesh(sharding.mesh):
                    check(init(key, shape, out_sharding=spec), expected, sharding, distinct, table.nbytes)
                    check(init(key, shape), expected, jax.make_array_from_callback(
                        shape, jax.sharding.SingleDeviceSharding(jax.devices()[0]), lambda i: expected).sharding,
                        1, table.nbytes)
    two = mesh(AxisType.Auto, x=8)
    try:
        xj.glorot_uniform()(key, (30, 4), out_sharding=NamedSharding(two, P("x")))
    except ValueError as error:
        assert "should evenly divide the shape" in str(error)
    else:
        raise AssertionError
    """, XLA_FLAGS="--xla_force_host_platform_device_count=8")  # fmt: skip


def test_meshes_of_eight_under_jit():
    """Each device computes its own part, replicas too."""
    run_strictly(EIGHT + """
    expected = xf.xavier_uniform(shape, seed=[0, 7])
    init = xj.glorot_uniform()
    for kind in KINDS:
        for axes, spec, distinct in CASES:
            sharding = NamedSharding(mesh(kind, **axes), spec)
            total = expected.nbytes * 8 // distinct
            array = jax.jit(lambda key: init(key, shape, out_sharding=sharding))(key).block_until_ready()
            check(array, expected, sharding, 8, total)
            with jax.set_mesh(sharding.mesh):
                array = jax.jit(lambda key: init(key, shape, out_sharding=spec))(key).block_until_ready()
                check(array, expected, sharding, 8, total)
                array = jax.jit(lambda key: init(key, shape))(key)
                check(array, expected, NamedSharding(sharding.mesh, P()), 1, expected.nbytes)
                array = jax.jit(lambda key: init(key, shape), out_shardings=sharding)(key)
                check(array, expected, sharding, 1, expected.nbytes)
    single = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    try:
        jax.jit(lambda key: init(key, shape, out_sharding=single))(key)
    except TypeError as error:
        assert "must be a NamedSharding or PartitionSpec under jit" in str(error)
    else:
        raise AssertionError
    """, XLA_FLAGS="--xla_force_host_platform_device_count=8")  # fmt: skip


def test_flax_on_eight():
    """A model under explicit sharding, as Flax's guide has it: built by jit, and eagerly."""
    flax("nnx")
    run_strictly(EIGHT + """
    from flax import nnx
    init = xj.glorot_uniform()
    with jax.set_mesh(mesh(AxisType.Explicit, x=4, y=2)):
        def build():
            return nnx.Linear(32, 64, kernel_init=nnx.with_partitioning(init, ("x", "y")), rngs=nnx.Rngs(0))
        eager, jitted = build(), nnx.jit(build)()
        for model in (eager, jitted):
            assert model.kernel[...].sharding.spec == P("x", "y"), model.kernel[...].sharding
        assert np.asarray(eager.kernel[...]).tobytes() == np.asarray(jitted.kernel[...]).tobytes()
        words = np.asarray(jax.random.key_data(nnx.Rngs(0).params()))
        assert np.asarray(eager.kernel[...]).tobytes() == xf.xavier_uniform((32, 64), seed=words).tobytes()
    """, XLA_FLAGS="--xla_force_host_platform_device_count=8")  # fmt: skip
