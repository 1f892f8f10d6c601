"""The code that Triton makes of the GPU's kernels, for GPUs that need not be here:
``python tests/evidence/gpu_assembly.py``, eight minutes.

It must multiply and add in one rounding where ``tl.fma`` is written and nowhere else, divide and take roots with
correct rounding, keep subnormals, and spill no registers. ``tests/gpu/test_assembly.py`` asserts the same of a part.
"""

import collections
import os
import re
import subprocess
import sys
import tempfile
from functools import cache

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from xavierfast import kernels
from xavierfast.kernels import gpu

TARGETS = ["sm_75", "sm_80", "sm_90", "sm_100", "gfx90a", "gfx942", "gfx1100"]
# For each kernel and 256 elements of float32 in 16 threads: the multiply-adds, divisions and roots that are written.
WRITTEN = {
    "CONSTANT": (0, 0, 0),
    "UNIFORM": (0, 0, 0),
    "RANGE": (16, 0, 0),
    "NORMAL": (8 * (9 + 3 + 3 + 2), 0, 8),  # of a pair: logarithm, sine, cosine, two means
    "TRUNCATED_2SIGMA": (16 * (2 + 4 + 3 + 2), 16, 0),  # mass of the tail, two polynomials, value
    "TRUNCATED_SYMMETRIC": (16 * (2 + 9 + 5 + 4 + 2), 16, 0),  # and a logarithm
}
WRITTEN_64 = {"UNIFORM": (0, 0, 0), "RANGE": (0, 0, 0), "NORMAL": (0, 4, 4)}
POINTERS = {"float32": "*fp32", "float64": "*fp64", "float16": "*i16", "bfloat16": "*i16"}
NEVER = r"div\.full|\.approx|\.ftz|\bex2|\blg2|\brsqrt|\brcp\.|v_exp_|v_log_|v_sin_|v_cos_"
OPTIONS = {"num_warps": gpu.WARPS, **gpu.EXACT}
FLAGS = r"\b(?:fast|contract|afn|arcp|reassoc|nsz)\b"  # of LLVM, which allow other bits; nnan and ninf change none


@triton.jit
def operate(out, ROOT: tl.constexpr):
    """One division or root for each thread."""
    place = out + tl.arange(0, 128)
    x = tl.load(place)
    if x.dtype == tl.float64:
        tl.store(place, tl.sqrt(x) if ROOT else 1.0 / x)
    else:
        tl.store(place, tl.sqrt_rn(x) if ROOT else tl.div_rn(tl.load(place + 128), x))


def target_of(name: str) -> GPUTarget:
    if name.startswith("sm_"):
        return GPUTarget("cuda", int(name[3:]), 32)
    return GPUTarget("hip", name, 32 if name.startswith("gfx1") else 64)


def compile_kernel(kernel: str, dtype: str, target: str, name: str = "fill_kernel", **constants):
    """A kernel of ``xavierfast.kernels.gpu`` for a target, as Triton's dict of its forms."""
    function = getattr(gpu, name)
    constants |= {"KERNEL": getattr(kernels, kernel), "FORMAT": gpu.FORMATS[dtype], "TILES": gpu.TILES}
    kinds = {"out": POINTERS.get(dtype, "*i8"), "ids": "*i64"} | dict.fromkeys(constants, "constexpr")
    signature = {parameter: kinds.get(parameter, "i64") for parameter in function.arg_names}
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    return triton.compile(source, target=target_of(target), options=OPTIONS).asm


def tool(name: str, cubin: bytes, *options: str) -> str:
    """The output of one of the CUDA tools that come with Triton."""
    path = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", name)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([path, *options, file.name], capture_output=True, text=True, check=True).stdout


def instructions(asm) -> collections.Counter:
    """The machine's instructions by name."""
    if "cubin" in asm:
        text = tool("nvdisasm", asm["cubin"], "-c")
        found = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9]*)", text, re.MULTILINE)
    else:  # RDNA3 puts two instructions on a line
        found = re.findall(r"(?:^\t|:: )([a-z]+_\w+)", asm["amdgcn"], re.MULTILINE)
    return collections.Counter(name for name in found if name not in ("NOP", "s_nop", "s_code_end"))


def machine_fmas(asm, bits: int) -> int:
    """The multiply-adds among the machine's instructions, twice those of two numbers."""
    found = 0
    for name, count in instructions(asm).items():
        if "cubin" in asm:
            found += count * {"FFMA" if bits == 32 else "DFMA": 1, "FFMA2": 2 if bits == 32 else 0}.get(name, 0)
        elif re.match(rf"v_(?:pk_|dual_)?(?:fma|fmac|fmaak|fmamk|mad|mac)_f{bits}", name) or (
            bits == 32 and re.match(r"v_dual_(?:fmac|fmaak|fmamk)_f32", name)
        ):
            found += count * (2 if "_pk_" in name else 1)
    return found


@cache
def expansion(operation: str, bits: int, target: str) -> int:
    """The multiply-adds of the machine that one division or root becomes."""
    source = ASTSource(
        fn=operate,
        signature={"out": f"*fp{bits}", "ROOT": "constexpr"},
        constexprs={"ROOT": operation == "root"},
    )
    return machine_fmas(triton.compile(source, target=target_of(target), options=OPTIONS).asm, bits)


def written_operations(asm, bits: int) -> tuple[int, int, int]:
    """The multiply-adds, divisions and roots before the machine's compiler expands them."""
    if "ptx" in asm:
        found = []
        for name in ("fma", "div", "sqrt"):
            one = len(re.findall(rf"\b{name}\.rn\.f{bits}\b", asm["ptx"]))
            found.append(one + 2 * len(re.findall(rf"\b{name}\.rn\.f{bits}x2\b", asm["ptx"])))
        return tuple(found)
    found, kind = [], "float" if bits == 32 else "double"
    for pattern in (r"call {0} @llvm\.fma\.", r"fdiv {0}", r"call {0} @llvm\.sqrt\."):
        one, two = (
            len(re.findall(pattern.format(f"(?:nnan |ninf )*{k}"), asm["llir"])) for k in (kind, f"<2 x {kind}>")
        )
        found.append(one + 2 * two)
    return tuple(found)


def registers(asm) -> tuple[int, int]:
    """The registers of a thread, and the bytes or registers that are spilled."""
    if "cubin" in asm:
        usage = tool("cuobjdump", asm["cubin"], "-res-usage")
        return int(re.search(r"REG:(\d+)", usage)[1]), sum(map(int, re.findall(r"(?:STACK|LOCAL):(\d+)", usage)))
    text = asm["amdgcn"]
    spilled = sum(map(int, re.findall(r"gpr_spill_count:\s+(\d+)", text)))
    return int(re.search(r"\.vgpr_count:\s+(\d+)", text)[1]), spilled


def faults(kernel: str, dtype: str, target: str, **options) -> tuple[list[str], dict]:
    """The faults in a kernel's code for a target, in words, and the code itself."""
    asm = compile_kernel(kernel, dtype, target, **options)
    bits, found = (64, []) if dtype == "float64" else (32, [])
    want = (WRITTEN_64 if bits == 64 else WRITTEN)[kernel]
    got = written_operations(asm, bits)
    if got != want:
        found.append(f"{got} multiply-adds, divisions and roots, not {want}")
    text = asm.get("ptx") or asm["amdgcn"]
    if never := sorted(set(re.findall(NEVER, re.sub(r"//.*|;.*", "", text)))):
        found.append(f"it has {never}")
    if "ptx" in asm:
        # Without a rounding mode ptxas may contract a product and a sum.
        if loose := set(re.findall(r"\b(?:mul|add|sub)\.f(?:32|64)", text)):
            found.append(f"no rounding mode in {sorted(loose)}")
        if bits == 64 and "fma.rn.f64" in text:
            found.append("a multiply-add of float64")
    else:
        if flags := set(
            re.findall(FLAGS, "\n".join(re.findall(r"= (?:tail call |f)?.*(?:float|double).*", asm["llir"])))
        ):
            found.append(f"LLVM may change bits by {sorted(flags)}")
        if "float_denorm_mode_32 3" not in text or "float_denorm_mode_16_64 3" not in text:
            found.append("subnormals are flushed")
        if text.count("v_div_fixup_f") != want[1]:
            found.append(f"{text.count('v_div_fixup_f')} exact divisions, not {want[1]}")
    if "amdgcn" in asm or not want[1] + want[2]:  # on NVIDIA a slow way of all roots is shared; the PTX decides there
        count = want[0] + sum(
            number and number * expansion(operation, bits, target)
            for operation, number in zip(("quotient", "root"), want[1:], strict=True)
        )
        if machine_fmas(asm, bits) != count:
            found.append(f"{machine_fmas(asm, bits)} multiply-adds of the machine, not {count}")
    if registers(asm)[1]:
        found.append(f"{registers(asm)[1]} spilled")
    return found, asm


def main() -> int:
    wrong = 0
    print(
        f"Triton {triton.__version__}: instructions of the program for each element (both ways to store are counted, "
        "of which one runs) and registers of a thread"
    )
    print(f"{'':32}" + "".join(f"{target:>14}" for target in TARGETS))
    for kernel, dtype in [
        *((k, d) for k in WRITTEN for d in ("float32", "bfloat16")),
        *((k, "float64") for k in WRITTEN_64),
    ]:
        row = []
        for target in TARGETS:
            found, asm = faults(kernel, dtype, target)
            wrong += bool(found)
            for fault in found:
                print(f"{kernel} {dtype} {target}: {fault}")
            elements = 8 if dtype == "float64" else 16
            row.append(f"{instructions(asm).total() / elements:.1f}, {registers(asm)[0]}")
        print(f"{kernel + ' ' + dtype:32}" + "".join(f"{cell:>14}" for cell in row), flush=True)
    print(f"{wrong} kernels with code that could give other bits or spill, for {len(TARGETS)} GPUs")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
