"""The helpers of the tests: a comparison that overlooks nothing, and says where arrays differ."""

import numpy as np
import pytest
from support import difference, same, same_bits


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "complex64", "u1", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (5, 7), (2, 3, 4)], ids=str)
def test_equal_arrays(ml_dtypes, shape, dtype):
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    same(array, array.copy())
    same_bits(array, np.array(array, order="F"))
    same_bits(np.repeat(array, 2).reshape(*shape, 2)[..., 1], array)


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "complex64", "u1", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("shape", [(), (1,), (5, 7), (2, 3, 4)], ids=str)
def test_any_flipped_bit_is_found(ml_dtypes, shape, dtype):
    want = np.ones(shape, dtype)
    for k in range(8 * want.nbytes):
        memory = bytearray(want.tobytes())
        memory[k // 8] ^= 1 << k % 8
        got = np.frombuffer(memory, dtype).reshape(shape)
        first = tuple(map(int, np.unravel_index(k // 8 // want.itemsize, shape)))
        found = difference(got, want)
        assert found.startswith(f"element {first} is {got[first]} (bytes ")
        assert found.endswith(f"; 1 of {want.size} elements differ")


def test_the_first_of_many_differences():
    got = np.zeros((1000, 4), np.float32)
    got[[3, 900], 2] = 0.5
    assert difference(got, np.zeros_like(got)) == (
        "element (3, 2) is 0.5 (bytes 0000003f), not 0.0 (bytes 00000000); 2 of 4,000 elements differ"
    )
    with pytest.raises(pytest.fail.Exception, match=r"^Fortran: element \(3, 2\) is 0.5"):
        same_bits(got, np.zeros_like(got), "Fortran")


@pytest.mark.parametrize(
    ("got", "want", "message"),
    [
        (np.float32(0.0), np.float32(-0.0), "element () is 0.0 (bytes 00000000), not -0.0 (bytes 00000080)"),
        (np.zeros(3), np.zeros(4), "the shape is (3,), not (4,)"),
        (np.zeros((0, 3)), np.zeros((3, 0)), "the shape is (0, 3), not (3, 0)"),
        (np.zeros(3), np.zeros((3, 1)), "the shape is (3,), not (3, 1)"),
        (np.zeros(3, "i4"), np.zeros(3, "f4"), "the dtype is int32, not float32"),
        (np.zeros(0, ">f4"), np.zeros(0, "<f4"), "the dtype is "),
    ],
)
def test_what_values_do_not_tell(got, want, message):
    assert difference(got, want).startswith(message)
    with pytest.raises(pytest.fail.Exception):
        same(got, want)


def test_payloads_of_nan():
    one, two = (np.array([0x7FC00000 + k], np.uint32).view(np.float32) for k in range(2))
    assert difference(one, two)
    same_bits(one, one.copy())


def test_an_array_without_axes_is_no_scalar():
    same_bits(np.float32(1), np.array(1, np.float32))
    with pytest.raises(pytest.fail.Exception, match="the type is float32, not ndarray"):
        same(np.float32(1), np.array(1, np.float32))
