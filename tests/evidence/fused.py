"""The emulated multiply-add beside the C library's fmaf: ``python tests/evidence/fused.py [TRIPLES]``, 10^9 by default.

``xavierfast/kernels/fused.h`` computes a * b + c in float64 where a machine has no instruction for it. fused.c compares
it with fmaf: any bits (NaN, infinities and subnormals among them), cancellations, halfway cases and their neighbours,
subnormal results, binade boundaries, sums near the largest number; for each compiler that is here, -O2 and -O3.

The comparison must notice: with the rounding to odd taken out, which leaves an ordinary sum in float64 that is rounded
twice, it has to fail.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "xavierfast/kernels/fused.h"
FLAGS = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
ODD = "odd.u = (odd.u - nearer.u) | nearer.u | further.u;"


def compare(compiler: list[str], header: str, triples: int, seed: int) -> tuple[int, str]:
    """Exit code and last line of fused.c with this header."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "fused.h").write_text(header)
        program = f"{folder}/fused"
        source = str(Path(__file__).with_suffix(".c"))
        subprocess.run([*compiler, *FLAGS, "-I", folder, source, "-o", program, "-lm"], check=True)
        done = subprocess.run([program, str(triples), str(seed)], capture_output=True, text=True)
    return done.returncode, done.stdout.strip().splitlines()[-1]


def main() -> int:
    if platform.libc_ver()[0] != "glibc":
        print("the C library is not glibc, whose fmaf is known to be right: nothing to compare with")
        return 77
    triples = int(sys.argv[1]) if sys.argv[1:] else 1_000_000_000
    compilers = [[name, level] for name in ("gcc", "clang") if shutil.which(name) for level in ("-O3", "-O2")]
    header = HEADER.read_text()
    assert header.count(ODD) == 1
    began = time.monotonic()
    code, line = compare(compilers[0], header.replace(ODD, "(void)nearer, (void)further;"), 1 << 20, 1)
    print(f"{' '.join(compilers[0]):12} rounded twice: {line}", flush=True)
    failed = [] if code else ["a sum that is rounded twice was not noticed"]
    for seed, compiler in enumerate(compilers):
        code, line = compare(compiler, header, triples, seed)
        print(f"{' '.join(compiler):12} {line}", flush=True)
        failed += [f"{' '.join(compiler)}: {line}"] if code else []
    tried = f"{len(compilers)} builds, {triples:.0e} triples each, in {time.monotonic() - began:.0f} s"
    print(f"{tried}: {'; '.join(failed) or 'all equal fmaf'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
