"""Faults planted one at a time into a copy of the sources, each of which the tests must catch:
``python tests/evidence/faults.py [WORDS OF A FAULT'S NAME]``. Needs a compiler; about half an hour on one core."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sources import copy_sources

# The quickest first: the first that fails ends the run.
TESTS = (
    "tests/test_known_answers.py",
    "tests/test_levels.py",
    "tests/test_fused.py",
    "tests/test_threads.py::test_pieces_cover_all_once",
    "tests/test_threads.py::test_an_exception_stops_all_and_is_raised",
    "tests/test_threads.py::test_collapsed_axes",
    "tests/test_goldens.py",
    "tests/test_invariance.py",
    "tests/test_table.py::test_numpys_rules",
    "tests/test_table.py::test_far_positions",
    "tests/test_table.py::test_large_reads",
    "tests/test_table.py::test_chunks",
    "tests/test_table.py::test_small_floats",
    "tests/test_table.py::TestComplex",
    "tests/test_truncated.py",
    "tests/test_means.py",
    "tests/test_table.py::test_all_indices",
)
GPU_TESTS = (  # if the fault is in the GPU's kernels
    "tests/gpu/test_assembly.py::test_one_kernel_for_all_values",
    "tests/gpu/test_assembly.py::test_fills[NORMAL-float32-sm_90]",
    "tests/gpu/test_assembly.py::test_fills[TRUNCATED_2SIGMA-float32-sm_90]",
    "tests/gpu/test_interpreter.py",
)
# Name, a text that the sources hold exactly once, in whatever file, and what takes its place.
FAULTS = [
    # ---- words
    (
        "a rotation by one bit less",
        "b[0] = rotl(b[0] ^ c[0], 7)",
        "b[0] = rotl(b[0] ^ c[0], 6)",
    ),
    ("a wrong word in a quarter round", "    quarter_round(x3, x4, x9, xe)", "    quarter_round(x3, x4, x9, xf)"),
    ("two words of the key exchanged", "x4 = k0; x5 = k1;", "x4 = k1; x5 = k0;"),
    ("bytes of the key exchanged", "k[4 * j] | k[4 * j + 1] << 8", "k[4 * j + 1] | k[4 * j] << 8"),
    ("no feed-forward of a word", "w[6 * LANES + lane] = x6 + k2", "w[6 * LANES + lane] = x6"),
    ("a 32-bit block counter", "high = <uint32_t> (tile >> 28)", "high = 0"),
    ("a word's lanes in the wrong order", "w[1 * LANES + lane] = x1", "w[2 * LANES - 1 - lane] = x1"),
    ("a lane counts another's block", "xc = low + lane;", "xc = low + (lane ^ 1);"),
    # ---- values
    (
        "no | 1 in float32 uniforms",
        "v[j] = <float> (<int32_t> w[j] | 1) * scale",
        "v[j] = <float> <int32_t> w[j] * scale",
    ),
    ("no | 1 in 62 bits", "<double> <int32_t> (b >> 1 | 1)", "<double> <int32_t> (b >> 1)"),
    ("no | 2 in the angle", "(word << 2 | 2)", "(word << 2)"),
    (
        "the radius loses precision near 0",
        "1 - a if x < 0 else a, -a))",
        "1 - a if x < 0 else a, <float> (1 - a) - 1))",
    ),
    ("a digit of a coefficient", "<float> -0.399261277287", "<float> -0.399261577287"),
    (
        "a product and a sum for a fused step of the logarithm",
        "t = fused(t, f, <float> -0.298295344234)",
        "t = t * f - <float> 0.298295344234",
    ),
    (
        "a product and a sum for a fused step of the sine",
        "s.f = fused(s.f, z, <float> -0.08074581623077393)",
        "s.f = s.f * z - <float> 0.08074581623077393",
    ),
    (
        "a product and a sum for a fused step of a quantile",
        "d = fused(d, y, <float> 0.0692181810737)",
        "d = d * y + <float> 0.0692181810737",
    ),
    (
        "a product and a sum for the mass of a tail",
        "nearer = fused(<float> to_end(x), scale, tail)\n        y =",
        "nearer = tail + <float> to_end(x) * scale\n        y =",
    ),
    ("a normal's mean added afterwards", "first[0] = fused(c.f, r, mean)", "first[0] = c.f * r + mean"),
    (
        "a truncated normal's mean added afterwards",
        "fused(q * fused(q * q, n / d, <float> 2.5066282746), std, mean)",
        "q * fused(q * q, n / d, <float> 2.5066282746) * std + mean",
    ),
    (
        "a range's middle added afterwards",
        "fused(<float> (<int32_t> w[j] | 1), scale, middle)",
        "<float> (<int32_t> w[j] | 1) * scale + middle",
    ),
    (
        "a step that is fused where none is written",
        "z = y * y\n    s.f",
        "z = fused(y, y, <float> 1e-12)\n    s.f",
    ),
    ("a float64 step in float32", "d = y + <float> 0.61335504055", "d = <float> (<double> y + 0.61335504055)"),
    ("no float64 mean", "first[0] = cosine.f + mean", "first[0] = cosine.f"),
    ("a quantile without its mean", "else tail) * p.std + p.mean", "else tail) * p.std"),
    # ---- the emulated multiply-add
    (
        "a sum that is rounded twice",
        "odd.u = (odd.u - nearer.u) | nearer.u | further.u;",
        "(void)nearer, (void)further;",
    ),
    ("a sum that is rounded to odd on one side", "(odd.u - nearer.u) | nearer.u", "odd.u | nearer.u"),
    ("half of TwoSum", "(product - (sum - part)) + (c - part)", "(c - part)"),
    ("a float64 sum regrouped", "return f - s * (f - t * z) + 0.69", "return f - (s * f - s * t * z) + 0.69"),
    (
        "the quadrant's swap from a wrong bit",
        "<uint32_t> (<int32_t> word >> 31)",
        "<uint32_t> (<int32_t> (word << 1) >> 31)",
    ),
    ("the quadrant's sign on the sine", "c.u ^= word << 1 &", "s.u ^= word << 1 &"),
    (
        "Box and Muller's halves exchanged",
        "* std, mean, v + j, v + j + HALF)",
        "* std, mean, v + j + HALF, v + j)",
    ),
    (
        "float64 radius and angle exchanged",
        "w[j + QUARTER], w[j + HALF + QUARTER], radius64(w[j], w[j + HALF])",
        "w[j], w[j + HALF], radius64(w[j + QUARTER], w[j + HALF + QUARTER])",
    ),
    (
        "no lower bound of a truncated normal",
        "fused(q * q, n / d, <float> 2.5066282746), std, mean), low, high)",
        "fused(q * q, n / d, <float> 2.5066282746), std, mean), <float> -1e38, high)",
    ),
    (
        "no upper bound of a wide truncated normal",
        "fused(z, n / d, <float> 2.5066282746), std, mean), low, high)",
        "fused(z, n / d, <float> 2.5066282746), std, mean), low, <float> 1e38)",
    ),
    (
        "no lower bound of any truncated normal",
        "bounded32(<float> value, low, high)",
        "bounded32(<float> value, <float> -1e38, high)",
    ),
    ("no lower bound in float64", "bounded64(value, p.low, p.high)", "bounded64(value, -1e38, p.high)"),
    ("no end of a range", "scale, middle), first, last)", "scale, middle), first, <float> 1e38)"),
    ("no beginning of a range", "scale, middle), first, last)", "scale, middle), <float> -1e38, last)"),
    (
        "no end of a range in float64",
        "* scale + middle, first, last)",
        "* scale + middle, first, 1e38)",
    ),
    (
        "a range that may give its end",
        "last = dtype.at_most(nextafter(last, -inf))",
        "pass",
    ),
    ("one Halley step less", "if halley_steps == 2:", "if halley_steps == 3:"),
    (
        "no cut of complex moduli",
        "minus_two_ln(u, u_minus_1)) * std\n        r[j] = cut if radius > cut else radius",
        "minus_two_ln(u, u_minus_1)) * std\n        r[j] = radius",
    ),
    # ---- 16 bits
    ("bfloat16 ties away from zero", "(b.u + 0x7fff + (b.u >> 16 & 1) >> 16)", "(b.u + 0x8000 >> 16)"),
    ("float16 ties away from zero", "((b.i >> 13 & 1) + 0xfff -", "(0x1000 -"),
    ("small float16s not subnormal", "if b.i < 0x400 else b.i", "if b.i < 0x200 else b.i"),
    # ---- fill
    (
        "a dropped tail",
        "while n:\n        tiles = 1\n",
        "while n >= elements:\n        tiles = 1\n",
    ),
    (
        "an element written behind the memory",
        "memcpy(out, <char*> &scratch + skip * size, count * size)",
        "memcpy(out, <char*> &scratch + skip * size, count * size + size)",
    ),
    ("a tile entered late twice", "count * size)\n            skip = 0\n", "count * size)\n"),
    (
        "a 32-bit position",
        "tile = position // elements, skip = position % elements\n    cdef uint64_t tiles, count\n",
        "tile = <uint32_t> position // elements, skip = position % elements\n    cdef uint64_t tiles, count\n",
    ),
    (
        "streaming keeps the wrong line",
        "memcpy(batch - LINE, end - LINE, LINE)",
        "memcpy(batch - LINE, batch, LINE)",
    ),
    ("streaming ends in the wrong place", "memcpy(out, ready, batch - ready)", "memcpy(out, batch, batch - ready)"),
    ("streaming repeats a tile", "write_tile(s, tile + k, batch +", "write_tile(s, tile, batch +"),
    (
        "equals ignores the last element",
        "&scratch + skip * size, data, count * size)",
        "&scratch + skip * size, data, count * size - size)",
    ),
    (
        "equals has a 32-bit position",
        "tile = position // elements, skip = position % elements\n    cdef uint64_t tiles, count, k\n",
        "tile = <uint32_t> position // elements, skip = position % elements\n    cdef uint64_t tiles, count, k\n",
    ),
    (
        "gather is off by one step",
        "element = row_position + offset(axes, last, index[last])",
        "element = row_position + offset(axes, last, index[last]) + axes.strides[last]",
    ),
    ("gather keeps a stale tile", "if element - skip != kept:", "if kept < 0:"),
    (
        "gather does not carry twice",
        "while axis and index[axis] == axes.shape[axis]:",
        "if axis and index[axis] == axes.shape[axis]:",
    ),
    ("gather strides 8 bytes for 2", "source + k * 2, 2)", "source + k * 8, 2)"),
    ("a negative id is not wrapped", "i += axes.length", "pass"),
    # ---- the Python around the kernels
    ("pieces that overlap", "work(first, mine[0])\n", "work(first, min(total, mine[0] + 1))\n"),
    ("pieces that skip an element", "work(first, mine[0])\n", "work(first + (first > 0), mine[0])\n"),
    ("pieces cut within tiles", "max(grain, length // grain * grain)", "max(grain, length)"),
    ("the last piece is cut", "while first < total and", "while first < total - total % grain and"),
    ("every piece from the first position", "position + begin, end - begin", "position, end - begin"),
    (
        "strided memory from position 0",
        "sampler.gather(address, position, end - begin,",
        "sampler.gather(address, 0, end - begin,",
    ),
    ("blocks all from the first", "position + first * strides[0], strides, threads=1", "position, strides, threads=1"),
    (
        "axes joined whatever their steps",
        "axes[-1][1:] == (size * memory_stride, size * stride)",
        "axes[-1][1] == size * memory_stride",
    ),
    ("a negative id of several is not wrapped", "part[part < 0] += item.length", "pass"),
    (
        "a name without its length",
        'return b"s" + len(body).to_bytes(8, "little") + body',
        'return b"s" + body',
    ),
    (
        "a name without its tag",
        'return b"s" + len(body).to_bytes(8, "little") + body',
        'return len(body).to_bytes(8, "little") + body',
    ),
    ("a sequence of seeds without its length", 'b"t" + len(value).to_bytes(8, "little")', 'b"t"'),
    ("a bound rounded up", "float(near if float(near) <= value else", "float(near if True else"),
    # ---- the GPU's kernels
    ("GPU: fusion is left on", '"enable_fp_fusion": False', '"enable_fp_fusion": True'),
    ("GPU: an approximate root", "tl.sqrt_rn(minus_two_ln", "tl.sqrt(minus_two_ln"),
    ("GPU: an approximate division", "tl.fma(q * q, tl.div_rn(n, d)", "tl.fma(q * q, n / d"),
    (
        "GPU: a product and a sum for a fused step",
        "s = tl.fma(s, z, -0.08074581623077393)",
        "s = s * z - 0.08074581623077393",
    ),
    ("GPU: a 32-bit position", "position + zero, key0", "position.to(tl.int32) + zero, key0"),
    (
        "GPU: a position of whatever type its value has",
        "out, position: tl.int64, n: tl.int64,",
        "out, position, n: tl.int64,",
    ),
    ("GPU: a 32-bit block counter", "(tile >> 28).to(tl.uint32)", "(tile >> 60).to(tl.uint32)"),
    ("GPU: a wrong lane", "low = (tile << 4).to(tl.uint32) + lane", "low = (tile << 4).to(tl.uint32) + (lane ^ 1)"),
    ("GPU: a wrong half of a key's pair", "zero + (key2 >> 32)", "zero + (key2 >> 31)"),
    ("GPU: ties away from even", "((b >> SHIFT) & 1) + (", "1 + ("),
    (
        "GPU: a store before the first element",
        "tl.store(out + e, v[k], mask=(e >= 0) & (e < n))",
        "tl.store(out + e, v[k], mask=e < n)",
    ),
    ("GPU: an unmasked store too many", "(begin + (TILES << SHIFT) <= n)", "(begin + (TILES << SHIFT) <= n + 1)"),
    ("GPU: too few tiles for a run", "position % grain + elements - grain + length", "position % grain + length"),
    ("GPU: a negative id is not wrapped", "i = tl.where(i < 0, i + rows, i)", "i = i + 0"),
    ("GPU: an id beyond the rows", "inside & (i >= 0) & (i < rows)", "inside & (i >= 0)"),
    # ---- the build
    ("contraction", '"-ffp-contract=off"', '"-ffp-contract=fast", "-march=native"'),
]


def place_of(folder: Path, text: str) -> Path:
    """The one source that holds a text, once."""
    sources = [folder / "setup.py", *(folder / "xavierfast").rglob("*")]
    found = [file for file in sources if file.suffix in (".py", ".pxi", ".pyx", ".h") and text in file.read_text()]
    places = sum(file.read_text().count(text) for file in found)
    assert places == 1, f"{text!r} has {places} places in {[str(file.relative_to(folder)) for file in found]}"
    return found[0]


def needs_build(file: Path) -> bool:
    return file.suffix != ".py" or file.name == "setup.py"


def build(folder: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "-i", "-f"]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"the build failed, which is not what a test catches:\n{process.stderr[-2000:]}")


def tests_of(file: Path) -> tuple[str, ...]:
    return GPU_TESTS if file.name == "gpu.py" else TESTS


def first_failure(folder: Path, environment: dict[str, str], tests: tuple[str, ...]) -> str:
    """The first test that fails, or "" if none does; plain asserts, as a diff of long bytes takes minutes."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--tb=no",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    try:
        process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        return "no end within 600 s"
    if process.returncode < 0:
        return f"a crash by signal {-process.returncode}"
    failed = re.search(r"^FAILED (?:tests/)?(.+?)(?: - |$)", process.stdout, re.MULTILINE)
    if process.returncode > 1 or bool(failed) != bool(process.returncode):
        sys.exit(f"the tests did not run:\n{process.stdout[-2000:]}{process.stderr[-2000:]}")
    return failed[1][:74] if failed else ""


def main() -> None:
    words = " ".join(sys.argv[1:])
    survivors = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_sources(folder)
        # All levels are compiled from one source, so one of them is enough.
        setup = (folder / "setup.py").read_text()
        assert setup.count("if X86:") == 1
        (folder / "setup.py").write_text(setup.replace("if X86:", "if False:"))
        # Bytecode is told from its source by size and seconds, and a fault may change neither.
        environment = os.environ | {"PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
        for variable in ("XAVIERFAST_LEVEL", "XAVIERFAST_REQUIRE_ALL", "XAVIERFAST_THREADS"):
            environment.pop(variable, None)
        build(folder, environment)
        command = [sys.executable, "-c", "import xavierfast; print(xavierfast.__file__)"]
        imported = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        assert folder in Path(imported.stdout.strip()).resolve().parents, imported.stdout
        faults = [(fault, place_of(folder, old), old, new) for fault, old, new in FAULTS if words in fault]
        tests = {tests_of(file): None for _, file, _, _ in faults}
        failure = next(filter(None, (first_failure(folder, environment, some) for some in tests)), "")
        if failure:
            sys.exit(f"without a fault {failure} fails")
        print(f"{'no fault':44}{'nothing fails':76}{time.monotonic() - began:6.1f} s", flush=True)
        # Faults that need no build go first, with kernels that have no fault.
        for fault, file, old, new in sorted(faults, key=lambda fault: needs_build(fault[1])):
            started = time.monotonic()
            source = file.read_text(encoding="utf-8")
            file.write_text(source.replace(old, new), encoding="utf-8")
            if needs_build(file):
                build(folder, environment)
            failure = first_failure(folder, environment, tests_of(file))
            file.write_text(source, encoding="utf-8")
            if not failure:
                survivors.append(fault)
            print(f"{fault:44}{failure or 'SURVIVED':76}{time.monotonic() - started:6.1f} s", flush=True)
    print(f"{len(faults) - len(survivors)} of {len(faults)} faults caught in {time.monotonic() - began:.0f} s")
    if survivors:
        sys.exit(f"survived: {', '.join(survivors)}")


if __name__ == "__main__":
    main()
