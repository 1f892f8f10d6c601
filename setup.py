"""One Cython source, compiled once per level; everything else stands in pyproject.toml."""

import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

X86 = sysconfig.get_platform().lower().endswith(("x86_64", "amd64"))
MSVC = sysconfig.get_platform().startswith("win")

# No FMA contraction (gcc contracts a * b + c by default, and levels would differ: the kernels fuse by name), no
# -march=native (wheels run elsewhere). The portable level has the baseline of its architecture: SSE2 on x86-64, NEON
# with hardware FMA on aarch64. On x86-64 gcc must be asked to schedule before it allocates registers, which fills the
# waits of an emulated fused multiply-add (normals 0.14 -> 0.18 GB/s).
FLAGS = ["/O2", "/fp:precise"] if MSVC else ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
HARDENING = [] if MSVC else ["-fstack-protector-strong"]  # costs nothing: one check per call (MSVC's is on by default)
LINK = ["-Wl,-z,relro,-z,now"] if sys.platform == "linux" else []
AVX512 = ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
LEVELS = {"portable": [] if MSVC else ["-fschedule-insns"]}
if X86:
    LEVELS |= (
        {"avx2": ["/arch:AVX2"], "avx512": ["/arch:AVX512"]}
        if MSVC
        else {"avx2": ["-mavx2", "-mfma"], "avx512": AVX512}
    )
# One build serves CPython 3.11 and all later versions. By the limited API, a call of (16, 16) takes 3 % longer, and a
# fill does not. Free-threaded CPython has no limited API before 3.15.
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")


def extension(module: str, flags: list[str], depends: list[str]) -> Extension:
    source = f"xavierfast/kernels/{module}.pyx"
    return Extension(
        f"xavierfast.kernels.{module}",
        [source],
        include_dirs=["xavierfast/kernels"],
        extra_compile_args=FLAGS + HARDENING + flags,
        extra_link_args=LINK,
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if ABI3 else [],
        py_limited_api=ABI3,
        depends=depends,
    )


class Build(build_ext):
    """The build of setuptools without the builder's folder in the result, and with one sentence where it fails."""

    def build_extensions(self) -> None:
        if hasattr(self.compiler, "linker_so"):  # where CPython is a shared library, its own flags ask for a RUNPATH
            self.compiler.linker_so = [flag for flag in self.compiler.linker_so if not flag.startswith("-Wl,-rpath")]
        try:
            super().build_extensions()
        except (BaseError, CCompilerError):  # whose text is the whole command; the compiler has printed its own
            raise BaseError(
                "xavierfast is compiled from source here and needs a C compiler and Python's headers: install gcc or "
                "clang (on Windows Microsoft's Build Tools) and python3-dev, or install a wheel"
            ) from None


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
    cmdclass={"build_ext": Build},
    # All levels are compiled at once.
    options={"build_ext": {"parallel": True}} | ({"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {}),
)
