"""Read mutants of valid files: ``python tests/evidence/fuzz.py [COUNT] [SEED] [FIRST]``. Exit code 1 for what is
neither read nor refused, with its number: COUNT 1, the SEED and the number as FIRST are that input again."""

import json
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from time import perf_counter

import xavierfast as xf
from xavierfast import files
from xavierfast.files.untrusted_json import from_json

REFUSALS = (ValueError, TypeError, OSError, ImportError)
SECONDS, MEMORY, FILE = 2.0, 1 << 30, 1 << 22

READERS = {
    "measure": lambda path: files.measure(path, threads=1),
    "verify": lambda path: files.verify(path, threads=1),
    "sample": lambda path: files.verify(path, threads=1, sample=1),
    "tables_of": files.tables_of,
    "like": lambda path: files.like(path, {"*": "uniform"}, 0),
    "load": files.load,
    "resume": lambda path: files.resume(path, threads=1, sync=False),
    "extend": lambda path: files.extend(path, 7, threads=1, sync=False),
    "from_spec": files.from_spec,
    "from_recipe": lambda path: xf.Table.from_recipe(from_json(Path(path).read_bytes())),
}
# JSON, or nearly, in place of values of valid files.
ODD = [
    "0", "-1", "-0", "1", "true", "false", "null", '""', "[]", "{}", "1.5", "1.0", "1e999", "NaN", "-Infinity", "1e300",
    "5e-324", str(2**31), str(2**63 - 1), str(2**63), str(2**64), str(-(2**63)), "9" * 400, "9" * 5000, r'"\ud800"',
    "[" * 2000 + "]" * 2000, "[" * 60 + "]" * 60, '{"a":' * 2000,
    r'"\u0000\u001b"', '"a\nb"', '"../x"', '"/etc/passwd"',
    '"' + "A" * 2000 + '"', '"0xff"', '"inf"', '"nan"', f"[{10**400}, 0]", "[1e308, -1e308]", '","', '"(,)f4"', '"a4"',
    '"O"', '"float64"', '"bfloat16"', '"float4_e2m1fn"', '"complex64"', '"F64"', '"F4"', "[3, 1, 2]", "[1, [2]]",
    "[" + "1," * 99 + "1]", '"normal"', '"truncated_normal"', '"constant"', '"oi"', '"x.safetensors"', "[0, 0]",
]  # fmt: skip
SPEC = {
    "tensors": {"a.weight": "1Kx2", "a.bias": [4], "b": {"shape": [2, 3], "init": "normal", "std": 0.5}},
    "rules": {"*.bias": "zeros", "*": {"init": "xavier_uniform", "gain": 2.0, "layout": "oi"}},
    "dtype": "float32",
    "seed": 7,
}
TOML = """seed = 7
[tensors]
"a.weight" = "1Kx2"
b = {shape = [2, 3], init = "normal", std = 0.5}
[rules]
"*" = {init = "xavier_uniform", gain = 2.0}
"""


def valid_files() -> list[tuple[str, dict[str, bytes], list[str]]]:
    """Name, what lies in its folder, and who reads it."""

    def made(name: str, tables, **options) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            files.create(Path(folder) / name, tables, sync=False, **options)
            return {path.name: path.read_bytes() for path in Path(folder).iterdir()}

    table = xf.Table((2, 3), seed=1, name="w")
    wide = xf.Table((3, 4), "truncated_normal", seed=[1, 2**70], name="v", low=-1.0, dtype="bfloat16").shard(1)
    number = xf.Table((2, 3), "constant", seed=1, name="c", value=1 - 2j, dtype="complex64")
    half = xf.Table((5,), "normal", seed=1, name="h", std=0.1, dtype="float16")
    readers = ["measure", "verify", "sample", "tables_of", "like", "load", "resume"]
    several = {t.name: t for t in (table, wide, number, half)}
    recipes = {name: t.recipe for name, t in several.items()}
    plan = json.dumps({"max_shard_size": 24, "force": False, "tables": recipes}).encode()
    growing = made("x.npy", half)
    longer = half.recipe | {"shape": [7]}
    fields = {"max_shard_size": None, "force": False, "tables": {"h": longer}, "identity": "0" * 32}
    growing["x.npy.partial.recipe.json"] = json.dumps(fields | {"replaces": [], "kept_rows": 5}).encode()
    return [
        ("x.npy", made("x.npy", table), readers),
        ("x.npy", made("x.npy", wide), readers),
        ("x.bin", made("x.bin", number), readers),
        ("x.safetensors", made("x.safetensors", several), readers),
        ("x.safetensors", made("x.safetensors", several, max_shard_size=24), readers),
        ("x.npy", made("x.npy", half), ["extend"]),
        ("x.npy", growing, ["extend", "resume"]),
        ("x.npy", made("x.npy", half, rows=(1, 2)), ["resume"]),
        ("x.safetensors", {"x.safetensors.partial.recipe.json": plan}, ["resume"]),
        ("x.json", {"x.json": json.dumps(SPEC).encode()}, ["from_spec"]),
        ("x.toml", {"x.toml": TOML.encode()}, ["from_spec"]),
        ("x.recipe.json", {"x.recipe.json": json.dumps(wide.recipe).encode()}, ["tables_of", "from_recipe"]),
    ]


# ---- mutants


def paths_in(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_in(inner, (*path, key))


def mutate_json(rng: random.Random, text: str) -> str:
    """An odd value in place of one, within the JSON texts that a value holds too."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    path = rng.choice(list(paths_in(value)))
    holder, inner = None, value
    for key in path:
        holder, inner = inner, inner[key]
    if isinstance(inner, str) and inner.startswith("{") and rng.random() < 0.9:
        token = json.dumps(mutate_json(rng, inner))
    else:
        token = rng.choice([*ODD, str(rng.randrange(-9, 99)), str(rng.getrandbits(rng.randrange(1, 70)))])
    if holder is None:
        return token
    holder[path[-1]] = "@here@"
    return json.dumps(value).replace('"@here@"', token, 1)


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    first, last = sorted(rng.randrange(min(len(data), 600) + 1) for _ in range(2))
    if rng.random() < 0.8:
        last = min(last, first + 8)
    kind = rng.randrange(7)
    if kind < 2:
        flipped = bytearray(data)
        for _ in range(rng.randrange(1, 4) if data else 0):
            flipped[rng.randrange(min(len(data), 600))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if kind == 2:
        return data[: rng.randrange(len(data) + 1)]
    if kind == 3:
        return data[:first] + data[last:]
    if kind == 4:
        return data[:first] + data[first:last] * rng.randrange(2, 5) + data[last:]
    new = rng.choice([rng.randbytes(last - first), rng.choice(ODD).encode(), bytes(last - first), data[:last]])
    return data[:first] + new + data[last if kind == 5 else first :]


def mutate(rng: random.Random, name: str, data: bytes) -> bytes:
    if name.endswith(".safetensors") and len(data) > 8 and rng.random() < 0.7:
        length = struct.unpack("<Q", data[:8])[0]
        if length < len(data):
            header = data[8 : 8 + length]
            if rng.random() < 0.7:
                header = mutate_json(rng, header.decode("utf-8", "replace")).encode("utf-8", "replace")
            else:
                header = mutate_bytes(rng, header)
            return struct.pack("<Q", len(header)) + header + data[8 + length :]
    if name.endswith(".json") and rng.random() < 0.7:
        return mutate_json(rng, data.decode("utf-8", "replace")).encode("utf-8", "replace")
    if name.endswith(".npy") and rng.random() < 0.3:  # a header of the right length
        header = mutate_bytes(rng, data[10:128])
        return data[:8] + struct.pack("<H", len(header)) + header + data[128:]
    return mutate_bytes(rng, data)


# ---- what becomes of them


class Hang(BaseException):
    """More than the time that an input may take; not an Exception, so that nothing on the way swallows it."""


def stop(*_) -> None:
    raise Hang


def strike(reader: str, path: str) -> tuple[str, str]:
    """The name of the outcome, and where it arose if it is not allowed."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        READERS[reader](path)
        return "read", ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if isinstance(error, REFUSALS) and not isinstance(error, Warning):
            return type(error).__name__, ""
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "xavierfast" in frame.filename]
        where = f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""
        return type(error).__name__, f"{where} {str(error)[:90]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main(count: int = 100_000, seed: int = 0, first: int = 0) -> int:
    valid = valid_files()
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    counts: dict[str, Counter[str]] = {reader: Counter() for reader in READERS}
    bad: dict[str, tuple[int, int]] = {}
    signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    if os.path.exists("/proc/self/statm"):
        most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    begin = perf_counter()
    with tempfile.TemporaryDirectory(dir=place) as outer, warnings.catch_warnings():
        warnings.simplefilter("error")
        inner = Path(outer) / "inner"
        inner.mkdir()
        os.chdir(inner)
        slowest, opened = (0.0, 0), len(os.listdir("/dev/fd"))
        for k in range(first, first + count):
            rng = random.Random(f"{seed} {k}")
            name, contents, readers = rng.choice(valid)
            contents = dict(contents)
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                file = rng.choice(sorted(contents))
                contents[file] = mutate(rng, file, contents[file])
            for file, content in contents.items():
                with open(file, "wb") as f:
                    f.write(content)
            for reader in readers:
                start = perf_counter()
                outcome, where = strike(reader, f"{inner}/{name}")
                slowest = max(slowest, (perf_counter() - start, k))
                there = set(os.listdir())
                stem, ending = map(re.escape, os.path.splitext(name))
                own = rf"{stem}(-\d{{5}}-of-\d{{5}})?{ending}(\.partial|\.index\.json|(\.partial)?\.recipe\.json)?"
                if there != contents.keys() and (
                    reader not in ("resume", "extend") or not all(re.fullmatch(own, file) for file in there)
                ):
                    outcome, where = "other files", str(sorted(there ^ contents.keys()))[:90]
                if where:
                    key = f"{reader}: {outcome} {where}"
                    number, times = bad.get(key, (k, 0))
                    bad[key] = number, times + 1
                counts[reader][outcome] += 1
            for file in os.listdir():
                os.unlink(file)
        if os.listdir(outer) != ["inner"] or len(os.listdir("/dev/fd")) != opened:
            bad["a file beside the folder, or one that stays open"] = first, 1
        os.chdir(outer)
    seconds = perf_counter() - begin
    outcomes = [outcome for outcome, _ in sum(counts.values(), Counter()).most_common()]
    width = max(map(len, outcomes))
    print(
        f"{count:,} inputs, seed {seed}, {sum(map(Counter.total, counts.values())):,} calls in {seconds:.0f} s; ",
        end="",
    )
    print(f"the slowest took {slowest[0]:.3f} s, input {slowest[1]}\n")
    print(" " * width, *(f"{reader:>11}" for reader in READERS))
    for outcome in outcomes:
        print(f"{outcome:{width}}", *(f"{counts[reader][outcome]:>11,}" for reader in READERS))
    print(f"\nneither read nor refused: {sum(times for _, times in bad.values()):,}")
    for key, (number, times) in sorted(bad.items()):
        print(f"  {times:,} times, first input {number}: {key}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
