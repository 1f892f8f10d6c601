"""One Cython source, compiled once per level; everything else stands in pyproject.toml."""

import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

X86 = sysconfig.get_platform().lower().endswith(("x86_64", "amd64"))
MSVC = sysconfig.get_platform().startswith("win")

# No FMA contraction (gcc contracts a * b + c by default, and levels would differ: the kernels fuse by name), no
# -march=native (wheels run elsewhere). The portable level has the baseline of its architecture: SSE2 on x86-64, NEON
# with hardware FMA on aarch64. On x86-64 gcc must be asked to schedule before it allocates registers, which fills the
# waits of an emulated fused multiply-add (normals 0.14 -> 0.18 GB/s).
FLAGS = ["/O2", "/fp:precise"] if MSVC else ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
AVX512 = ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
LEVELS = {"portable": [] if MSVC else ["-fschedule-insns"]}
if X86:
    LEVELS |= (
        {"avx2": ["/arch:AVX2"], "avx512": ["/arch:AVX512"]}
        if MSVC
        else {"avx2": ["-mavx2", "-mfma"], "avx512": AVX512}
    )


def extension(module: str, flags: list[str], depends: list[str]) -> Extension:
    source = f"xavierfast/kernels/{module}.pyx"
    return Extension(
        f"xavierfast.kernels.{module}",
        [source],
        include_dirs=["xavierfast/kernels"],
        extra_compile_args=FLAGS + flags,
        depends=depends,
    )


CPU_SOURCES = ["xavierfast/kernels/fp_environment.h", "xavierfast/kernels/numbers.pxi"]
SOURCES = sorted(str(file) for file in Path("xavierfast/kernels").glob("*") if file.suffix in (".pxi", ".h"))
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,  # without it a division is a branch that may raise, and no loop vectorises
    "freethreading_compatible": True,
}
setup(
    ext_modules=cythonize(
        [extension("_cpu", [], CPU_SOURCES)] + [extension(level, flags, SOURCES) for level, flags in LEVELS.items()],
        build_dir="build/cython",  # no generated C among the sources
        compiler_directives=DIRECTIVES,
    ),
    options={"build_ext": {"parallel": True}},  # the levels at once
)
