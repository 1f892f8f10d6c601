"""JAX: the bits of the core under JAX's protocol, JAX's own distributions, tracing, Flax, and sharded arrays."""

import importlib
import inspect
import shutil
import subprocess
from functools import partial
from math import sqrt

import numpy as np
import pytest
from support import missing, need, run, same_bits

import xavierfast as xf

try:
    import jax
except ImportError:
    missing("jax is not installed")
    pytest.skip("jax is not installed", allow_module_level=True)

import jax.numpy as jnp
from jax import export
from jax._src.nn.initializers import _compute_fans
from jax.nn import initializers as theirs
from jax.sharding import NamedSharding, PartitionSpec

import xavierfast.jax as xj
from xavierfast._core.extras import how_to_install
from xavierfast.jax import calls, xla

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
    (lambda: xj.make_array(xf.Table((5, 4), seed=0), pad_to=(8, 3)), ValueError,
     r"pad_to must have the axes of \(5, 4\) and be no smaller along any of them, got \(8, 3\)"),
    (lambda: xj.make_array(xf.Table((5, 4), seed=0), pad_to=8), ValueError, "pad_to must have the axes .* got 8"),
    (lambda: xj.make_array(xf.Table((5, 4), seed=0), pad_to=(8, 4.0)), TypeError, "shape must be a tuple of ints"),
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
    assert said == f"xavierfast.jax needs jax: {how_to_install('jax')}\n"


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


@pytest.fixture(params=["handler", "callback"])
def way(request, monkeypatch):
    """Both ways in which XLA asks for values: our handler, which the CPU has, and the callback of other devices."""
    if request.param == "callback":
        monkeypatch.setattr(calls, "HANDLER", "")
    else:
        assert calls.HANDLER
    jax.clear_caches()
    yield request.param
    jax.clear_caches()


@pytest.mark.parametrize("init", [
    xj.glorot_uniform(), xj.he_normal(dtype="bfloat16"), xj.uniform(0.3), xj.lecun_normal(dtype="float8_e4m3fn"),
    xj.glorot_normal(dtype="complex64"), xj.normal(0.5, dtype="float4_e2m1fn"),
])  # fmt: skip
def test_under_jit(init, way):
    eager = np.asarray(init(KEY, (300, 200)))
    same_bits(jax.jit(lambda key: init(key, (300, 200)))(KEY), eager)
    same_bits(jax.jit(init, static_argnums=1)(jax.random.PRNGKey(7), (300, 200)), eager)
    same_bits(jax.jit(lambda: init(KEY, (300, 200)))(), eager)


@pytest.mark.parametrize(("shape", "dtype"), [
    ((), "float32"), ((0, 5), "bfloat16"), ((3,), "float8_e5m2"), *(((2, 3, 4), dtype) for dtype in DTYPES),
], ids=str)  # fmt: skip
def test_shapes_and_dtypes_under_jit(shape, dtype, way):
    init = xj.normal(0.5, dtype)
    same_bits(jax.jit(lambda key: init(key, shape))(KEY), np.asarray(init(KEY, shape)))
    many = jax.vmap(jax.vmap(lambda key: init(key, shape)))(jax.random.split(KEY, (2, 3)))
    each = [[np.asarray(init(key, shape)) for key in keys] for keys in jax.random.split(KEY, (2, 3))]
    same_bits(many, np.array(each))


def test_float64_under_jit(way):
    with jax.enable_x64(True):
        for dtype in ("float64", "complex128"):
            init = xj.glorot_normal(dtype=dtype)
            same_bits(jax.jit(lambda key, init=init: init(key, (20, 30)))(KEY), np.asarray(init(KEY, (20, 30))))
        std = jax.jit(lambda std: xj.normal(std)(KEY, (5,)))(0.3)
        same_bits(std, xf.normal(5, std=0.3, seed=SEED, dtype="float64"))


def test_the_handler_fills_the_buffer_of_xla(monkeypatch):
    """Without a copy: the result lies where the core has written."""
    outs = []
    read = xf.Table.read

    def watched(self, index=..., out=None, *, threads=None):
        outs.append(out.ctypes.data)
        return read(self, index, out, threads=threads)

    monkeypatch.setattr(xf.Table, "read", watched)
    array = jax.jit(lambda key: xj.glorot_uniform()(key, (300, 200)))(KEY)
    assert [array.unsafe_buffer_pointer()] == outs


STRUCTURES = {
    "Metadata_Extension": (xla.MetadataExtension, {
        "struct_size": "extension_base.struct_size", "type": "extension_base.type", "next": "extension_base.next",
        "metadata": "metadata",
    }),
    "Api_Version": (xla.Version, {"major": "major_version", "minor": "minor_version"}),
    "Metadata": (xla.Metadata, {"version": "api_version", "traits": "traits"}),
    "Buffer": (xla.Buffer, {"dtype": "dtype", "data": "data", "rank": "rank", "dims": "dims"}),
    "ByteSpan": (xla.Text, {"data": "ptr", "length": "len"}),
    "Args": (xla.Buffers, {"size": "size", "items": "args"}),
    "Rets": (xla.Buffers, {"size": "size", "items": "rets"}),
    "Attrs": (xla.Attributes, {"size": "size", "names": "names", "items": "attrs"}),
    "Error_Create_Args": (xla.ErrorArguments, {"struct_size": "struct_size", "message": "message", "code": "errc"}),
    "Api": (xla.Api, {"version": "api_version", "create_error": "XLA_FFI_Error_Create"}),
    "CallFrame": (xla.CallFrame, {
        "extensions": "extension_start", "api": "api", "arguments": "args", "results": "rets", "attributes": "attrs",
    }),
}  # fmt: skip


def test_the_structures_are_those_of_the_header(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        missing("there is no C compiler")
    lines = [
        f'printf("%zu ", offsetof(struct XLA_FFI_{name}, {field}));'
        for name, (_, fields) in STRUCTURES.items()
        for field in fields.values()
    ]
    names = {"INT32": "S32", "UINT32": "U32", "BFLOAT16": "BF16", "COMPLEX64": "C64", "COMPLEX128": "C128"}
    numbers = []
    for name in xla.DTYPES.values():
        short = names.get(name.upper(), name.upper().replace("FLOAT", "F").replace("_", ""))
        numbers.append(f"XLA_FFI_DataType_{short}")
    numbers += ["XLA_FFI_Extension_Metadata", "XLA_FFI_Error_Code_INVALID_ARGUMENT"]
    lines += [f'printf("%d ", {number});' for number in numbers]
    code = "#include <stdio.h>\n#include <xla/ffi/api/c_api.h>\nint main(void) {" + "\n".join(lines) + "}"
    (tmp_path / "layout.c").write_text(code)
    subprocess.run(
        [compiler, "-I", jax.ffi.include_dir(), "layout.c", "-o", "layout"], cwd=tmp_path, check=True
    )  # fmt: skip
    told = list(map(int, subprocess.check_output([tmp_path / "layout"], text=True).split()))
    ours = [getattr(structure, field).offset for structure, fields in STRUCTURES.values() for field in fields]
    assert told == [*ours, *xla.DTYPES, xla.METADATA, xla.INVALID_ARGUMENT]


def test_other_versions_of_xla():
    """XLA that refuses the handler, and JAX that has no interface for one, get the callback."""
    for change in ("jax.ffi.register_ffi_target = refuse", "del jax.ffi.ffi_call, jax.ffi.register_ffi_target"):
        run_strictly(f"""
            import jax, jax.ffi, numpy as np
            def refuse(*args, **kwargs):
                raise RuntimeError("the handler's api version is incompatible")
            {change}
            import xavierfast as xf, xavierfast.jax as xj
            array = jax.jit(lambda key: xj.glorot_uniform()(key, (30, 20)))(jax.random.key(7))
            assert np.asarray(array).tobytes() == xf.xavier_uniform((30, 20), seed=[0, 7]).tobytes()
        """)  # fmt: skip


TRACED = [
    (lambda x: xj.normal(x), lambda x: {"init": "normal", "std": x}),
    (lambda x: xj.uniform(x), lambda x: {"init": "uniform", "low": 0.0, "high": x}),
    (lambda x: xj.truncated_normal(x), lambda x: {"init": "truncated_normal", "std": x}),
    (lambda x: xj.truncated_normal(0.5, lower=-x, upper=4 * x),
     lambda x: {"init": "truncated_normal", "std": 0.5, "low": -x, "high": 4 * x}),
    (lambda x: xj.truncated_normal(0.5, upper=x), lambda x: {"init": "truncated_normal", "std": 0.5, "high": x}),
    (lambda x: xj.variance_scaling(x, "fan_in", "normal", dtype="bfloat16"),
     lambda x: {"init": "variance_scaling", "scale": x, "mode": "fan_in", "distribution": "normal",
                "dtype": "bfloat16"}),
]  # fmt: skip


@pytest.mark.parametrize(("init", "like"), TRACED)
def test_traced_numbers(init, like, way):
    """A scale without a value yet is that of the call in which it has one."""
    for x in (0.25, 1.5):
        expected = np.asarray(xf.Table((20, 30), **like(x), seed=SEED))
        same_bits(jax.jit(lambda x: init(x)(KEY, (20, 30)))(x), expected)
        same_bits(jax.jit(lambda x, key: init(x)(key, (20, 30)))(x, KEY), expected)
    numbers = jnp.array([0.25, 1.5])
    each = np.stack([np.asarray(xf.Table((20, 30), **like(x), seed=SEED)) for x in (0.25, 1.5)])
    same_bits(jax.vmap(lambda x: init(x)(KEY, (20, 30)))(numbers), each)
    same_bits(jax.vmap(lambda x, key: init(x)(key, (20, 30)), (0, None))(numbers, KEY), each)


def test_traced_numbers_that_cannot_be(way):
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"std must be finite and >= 0, got -0\.5"):
        jax.block_until_ready(jax.jit(lambda x: xj.normal(x)(KEY, (3,)))(-0.5))
    with pytest.raises(TypeError, match=r"a traced scale, stddev or bound must be a number, got an array of shape"):
        jax.jit(lambda x: xj.normal(x)(KEY, (3,)))(jnp.ones(3))
    for differentiate in (jax.grad, lambda f: jax.jit(jax.grad(f)), jax.jacfwd):
        with pytest.raises(TypeError, match=r"no derivative .* draw with the number 1, and multiply"):
            differentiate(lambda x: xj.normal(x)(KEY, (3,)).sum())(0.5)
    scaled = jax.grad(lambda x: (x * xj.normal(1.0)(KEY, (3,))).sum())(0.5)
    assert scaled == pytest.approx(xf.normal(3, seed=SEED).sum(), rel=1e-6)  # XLA's sum in another order


def test_export():
    """The handler's name is in the exported code, so the check for stable names has to allow it."""
    init = xj.glorot_uniform()
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    function = jax.jit(lambda key: init(key, (20, 30)))
    with pytest.raises(ValueError, match="no compatibility guarantees"):
        export.export(function)(key)
    allowed = [export.DisabledSafetyCheck.custom_call("xavierfast_fill")]
    exported = export.export(function, disabled_checks=allowed)(key)
    same_bits(exported.call(jax.random.PRNGKey(7)), xf.xavier_uniform((20, 30), seed=SEED))


def test_many_under_one_jit(way):
    init = xj.glorot_uniform()

    @jax.jit
    def draw(key):
        return [init(k, (20 + i, 300)) for i, k in enumerate(jax.random.split(key, 40))]

    for i, (array, key) in enumerate(zip(draw(KEY), jax.random.split(KEY, 40), strict=True)):
        same_bits(array, np.asarray(init(key, (20 + i, 300))))


def test_vmap_scan_grad_and_shapes_alone(way):
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
    need("flax")
    return importlib.import_module(f"flax.{name}")


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
                    check(init(key, shape), expected, NamedSharding(sharding.mesh, P()), 1, table.nbytes)
                    check(xj.make_array(table), expected, NamedSharding(sharding.mesh, P()), 1, table.nbytes)
    two = mesh(AxisType.Auto, x=8)
    try:
        xj.glorot_uniform()(key, (30, 4), out_sharding=NamedSharding(two, P("x")))
    except ValueError as error:
        assert "should evenly divide the shape" in str(error)
    else:
        raise AssertionError
    """, XLA_FLAGS="--xla_force_host_platform_device_count=8")  # fmt: skip


def test_xla_cuts_the_call_wherever_the_result_is_spread():
    run_strictly(EIGHT + """
    import jax.numpy as jnp

    key, keys = jax.random.key(7), jax.random.split(jax.random.key(7), 4)
    four = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    other = jax.sharding.Mesh(np.array(jax.devices())[[3, 0, 2, 1, 7, 6, 4, 5]].reshape(4, 2), ("x", "y"))
    on = lambda mesh, *spec: NamedSharding(mesh, P(*spec))
    normal = lambda key, shape=(16, 6), dtype=None: xj.normal(0.5, dtype)(key, shape)
    single = np.asarray(normal(key))
    stack = np.stack([np.asarray(normal(one)) for one in keys])
    sizes.clear()

    def compare(drawn, expected, sharding, *arguments, parts):
        array = jax.jit(drawn, out_shardings=sharding)(*arguments).block_until_ready()
        assert np.asarray(array).tobytes() == np.asarray(expected).tobytes()
        assert sizes == [np.asarray(expected).nbytes // parts] * 8, sizes
        sizes.clear()

    compare(normal, single, on(four, "x", "y"), key, parts=8)
    compare(normal, single, on(other, "y", None), key, parts=2)
    compare(lambda key: normal(key) * 2, single * 2, on(four, ("y", "x")), key, parts=8)
    spread = lambda key: jax.lax.with_sharding_constraint(normal(key), on(four, "x"))
    compare(spread, single, None, key, parts=4)
    compare(lambda std: xj.normal(std)(key, (16, 6)), single, on(four, "x"), 0.5, parts=4)
    weighed, ones = lambda x, key: (x * normal(key)).sum(), np.ones((16, 6), np.float32)
    compare(jax.grad(weighed), single, on(four, "y"), ones, key, parts=2)
    bits = np.asarray(normal(key, (8,), "bfloat16"))
    sizes.clear()
    compare(lambda key: normal(key, (8,), "bfloat16"), bits, on(four, "x"), key, parts=4)
    uneven = np.asarray(normal(key, (9, 6)))
    sizes.clear()
    spread = lambda key: jax.lax.with_sharding_constraint(normal(key, (9, 6)), on(four, "x", "y")) + 0
    compare(spread, uneven, on(four), key, parts=2)

    array = jax.jit(lambda keys: jax.lax.scan(lambda _, key: (0, normal(key)), 0, keys)[1],
                    out_shardings=on(four, None, "x", "y"))(keys)
    assert np.asarray(array).tobytes() == stack.tobytes()
    assert sizes == [single.nbytes // 8] * 32, sizes
    array = jax.jit(jax.vmap(normal), out_shardings=on(four, "x"))(keys)  # a batch is not cut
    assert np.asarray(array).tobytes() == stack.tobytes()
    """, XLA_FLAGS="--xla_force_host_platform_device_count=8")  # fmt: skip


@pytest.mark.parametrize("way", ["handler", "callback"])
def test_meshes_of_eight_under_jit(way):
    """Each device computes its own part, replicas too. Without out_sharding, each computes the whole on a mesh with
    explicit axes, whose type it has then; where XLA calls back, the first device computes it."""
    run_strictly(EIGHT + f"""
    handler = {way == "handler"}
    if not handler:
        import xavierfast.jax.calls
        xavierfast.jax.calls.HANDLER = ""
    """ + """
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
                array = jax.jit(lambda key: init(key, shape))(key).block_until_ready()
                whole = 8 if handler else 1
                check(array, expected, NamedSharding(sharding.mesh, P()), whole, whole * expected.nbytes)
                array = jax.jit(lambda key: init(key, shape), out_shardings=sharding)(key).block_until_ready()
                # JAX before 0.10 asks for parts on explicit axes too.
                cut = handler and (kind is AxisType.Auto or jax.__version_info__ < (0, 10))
                check(array, expected, sharding, whole, total if cut else whole * expected.nbytes)
            array = jax.jit(lambda std: xj.normal(std)(key, shape, out_sharding=sharding))(0.5).block_until_ready()
            check(array, xf.normal(shape, std=0.5, seed=[0, 7]), sharding, 8, total)
    single = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    try:
        jax.jit(lambda key: init(key, shape, out_sharding=single))(key)
    except TypeError as error:
        assert "must be a NamedSharding or PartitionSpec under jit" in str(error)
    else:
        raise AssertionError
    """, XLA_FLAGS="--xla_force_host_platform_device_count=8")  # fmt: skip


def test_where_jax_puts_an_array():
    """Ours lies where that of jax.nn.initializers lies, with the same PartitionSpec: on the mesh that is set, by
    out_sharding, and where the key is."""
    run_strictly(EIGHT + """
    from jax.nn import initializers as theirs

    def place(module, *args, **kwargs):
        array = module.glorot_uniform()(*args, **kwargs)
        sharding = array.sharding
        return array.committed, sharding, getattr(sharding, "spec", None), str(jax.typeof(array))

    def same_place(*args, **kwargs):
        ours, own = (place(module, *args, **kwargs) for module in (xj, theirs))
        assert ours == own, (ours, own)

    same_place(key, (8, 8))
    with jax.default_device(jax.devices()[3]):
        same_place(key, (8, 8))
    same_place(jax.device_put(key, jax.devices()[5]), (8, 8))
    for kind in KINDS:
        both = mesh(kind, a=4, b=2)
        same_place(jax.device_put(key, NamedSharding(both, P())), (8, 8))
        with jax.set_mesh(both):
            same_place(key, (8, 8))
            for spec in [P("a"), P(None, "b"), P(("a", "b")), P()] if kind == AxisType.Explicit else [P()]:
                same_place(key, (8, 8), out_sharding=spec)
                same_place(key, (8, 8), out_sharding=NamedSharding(both, spec))
            assert xj.make_array(xf.Table((8, 8), seed=0), P("a")).sharding.spec == (
                P("a", None) if kind == AxisType.Explicit else P("a"))
    with jax.set_mesh(mesh(AxisType.Auto, a=4, b=2)):
        for array in (xj.glorot_uniform()(key, (8, 8)), xj.make_array(xf.Table((8, 8), seed=[0, 7]))):
            moved = jax.lax.with_sharding_constraint(array, P(None, "b"))
            assert moved.sharding.spec == P(None, "b")
            assert np.asarray(moved).tobytes() == xf.xavier_uniform((8, 8), seed=[0, 7]).tobytes()
    """, XLA_FLAGS="--xla_force_host_platform_device_count=8")  # fmt: skip


def test_padded():
    """The table lies at the beginning, with its own values and fans; zeros lie beyond, also in whole shards."""
    run_strictly(EIGHT + """
    for dtype in ("float32", "bfloat16"):
        table = xf.Table((13, 5), seed=3, dtype=dtype)
        for padded in [(16, 5), (16, 8), (64, 6), (13, 5)]:
            expected = np.zeros(padded, table.dtype)
            expected[:13, :5] = read(table)
            whole = xj.make_array(table, pad_to=padded)
            assert np.asarray(whole).tobytes() == expected.tobytes()
            if padded[0] % 8:
                continue
            for axes, spec in [(dict(x=8), P("x")), (dict(x=4, y=2), P("x", "y" if padded[1] % 2 == 0 else None))]:
                sizes.clear()
                sharding = NamedSharding(mesh(AxisType.Auto, **axes), spec)
                array = xj.make_array(table, sharding, pad_to=padded)
                assert array.sharding == sharding and array.dtype == table.dtype
                assert np.asarray(array).tobytes() == expected.tobytes()
                for shard in array.addressable_shards:
                    assert np.asarray(shard.data).tobytes() == np.ascontiguousarray(expected[shard.index]).tobytes()
                assert sum(sizes) == table.nbytes  # only the table's own elements are computed
    # further values instead of zeros: a longer table with the fans of the shorter one
    longer = xf.Table((16, 5), seed=3, fan_in=13, fan_out=5)
    assert np.asarray(xj.make_array(longer))[:13].tobytes() == read(xf.Table((13, 5), seed=3)).tobytes()
    """, XLA_FLAGS="--xla_force_host_platform_device_count=8")  # fmt: skip


def test_flax_on_eight():
    """Models as Flax's guides shard them, on meshes of both kinds: built eagerly and under jit."""
    flax("nnx")
    run_strictly(EIGHT + """
    from flax import nnx
    init = xj.glorot_uniform()
    words = np.asarray(jax.random.key_data(nnx.Rngs(0).params()))
    expected = xf.xavier_uniform((32, 64), seed=words).tobytes()

    def partitioned():
        return nnx.Linear(32, 64, kernel_init=nnx.with_partitioning(init, ("x", "y")), rngs=nnx.Rngs(0)).kernel

    def metadata():
        sharded = {"out_sharding": ("x", "y")}
        return nnx.Linear(32, 64, kernel_init=init, kernel_metadata=sharded, rngs=nnx.Rngs(0)).kernel

    def parameter():
        return nnx.Param(init(nnx.Rngs(0).params(), (32, 64)), out_sharding=("x", "y"))

    for kind in KINDS:
        with jax.set_mesh(mesh(kind, x=4, y=2)):
            for build in (partitioned, metadata, parameter):
                for kernel in (build(), nnx.jit(build)()):
                    assert kernel[...].sharding.spec == P("x", "y"), kernel[...].sharding
                    assert np.asarray(kernel[...]).tobytes() == expected
    """, XLA_FLAGS="--xla_force_host_platform_device_count=8")  # fmt: skip
