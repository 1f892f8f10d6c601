"""Attack the parsers of strangers' texts, guided by coverage: ``python tests/evidence/parsers.py [COUNT] [SEED]``.

atheris (libFuzzer for Python) instruments xavierfast, tomllib and NumPy's reader of headers, and keeps each input that
reaches a new branch to mutate it further; the corpus begins with valid texts. An input must be parsed or be refused as
documented, within a second and 256 MiB, and what is parsed must come back the same from its own recipes. COUNT inputs,
a million by default, are shared out to the targets; 20000 is the quick version. Needs ``pip install atheris``.
"""

import contextlib
import itertools
import json
import math
import os
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

try:
    import atheris
except ImportError:
    print("cannot run here: it needs atheris: pip install atheris")
    sys.exit(77)

CHILD = len(sys.argv) > 3
with atheris.instrument_imports(include=["xavierfast", "tomllib"]) if CHILD else contextlib.nullcontext():
    import numpy as np
    from fuzz import ODD, REFUSALS, SPEC, TOML, mutate_json, paths_in, valid_files

    import xavierfast as xf
    from xavierfast import files, propagation
    from xavierfast._core.dtypes import DTYPES
    from xavierfast._core.rules import RULES
    from xavierfast.files import formats, specs
    from xavierfast.files.plan import Plan
    from xavierfast.files.posix import folder_of
    from xavierfast.files.reader import tensors_of
    from xavierfast.files.untrusted_json import from_json

SECONDS, MEMORY, LONGEST = 1.0, 256 << 20, 4096
TEXTS = ["10Mx128", "1.5Kix2,7", "(3, 4)", "0:25M", "1/4", "4GiB", "1.5TB", "1_000e2", "784,512x3,10", "1000x5"]


# ---- targets: each is called with the path of a file that holds the input


def same(tables) -> None:
    """What was parsed is made again from its own recipes, with the same values."""
    for table in tables:
        again = xf.Table.from_recipe(from_json(json.dumps(table.recipe).encode()))
        assert again == table and hash(again) == hash(table), "a recipe that does not come back"
        if view := table.recipe.get("view"):
            ends = [(size - 1) * step for size, step in zip(view["shape"], view["steps"], strict=True)]
            low, high = (view["position"] + sum(e for e in ends if wanted(e)) for wanted in ((0).__gt__, (0).__lt__))
            assert not table.size or 0 <= low <= high < math.prod(table.recipe["shape"]), "a view beyond the whole"
        assert repr(table) and table.describe() and table.std >= 0, "no description"
        if table.size <= 256:
            assert again.read().tobytes() == table.read().tobytes(), "other values"


def npy(path: str) -> None:
    (tensor,) = tensors_of(path)
    assert formats.npy_header(tensor.shape, "<f4"), "a shape that cannot be written"


def safetensors(path: str) -> None:
    """As a file, and as a header of the right length; the recipes are a stranger's too."""
    text = Path(path).read_bytes()
    for data in (text, struct.pack("<Q", len(text)) + text):
        Path(path).write_bytes(data)
        with contextlib.suppress(*REFUSALS):
            tensors = tensors_of(path)
            assert all(t.end == u.begin for t, u in itertools.pairwise(tensors)), "tensors that overlap"
        if data is not text:  # whose outcome is the one that counts
            same(files.tables_of(path).values())


def recipe(path: str) -> None:
    same(files.tables_of(path).values())


def plan(path: str) -> None:
    with folder_of(path) as (folder, name):
        made = Plan.read(folder, name.removesuffix(".partial.recipe.json"))
    assert made is not None and from_json(made.to_json()), "a plan that does not come back"
    same(made.tables.values())


def index(path: str) -> None:
    tensors_of(path)


def spec(path: str) -> None:
    same(files.from_spec(path, 0).values())


def texts(path: str) -> None:
    text = Path(path).read_bytes().decode()
    parsers = specs.parse_shape, specs.parse_range, specs.parse_fraction, specs.parse_size
    refused = 0
    for parse in parsers:
        try:
            found = parse(text)
            assert all(n >= 0 for n in (found if isinstance(found, tuple) else (found,))), "a negative size"
        except REFUSALS as error:
            refused += 1
            last = error
    # Its counts become lists: the shorter texts cannot be long ones.
    if not re.search(r"x\s*[0-9]{5}", text):
        propagation.parse_layers(text)
    elif refused == len(parsers):
        raise last


# Name, share of the inputs, the file's name, and what reads it.
TARGETS = {
    "npy": (10, "x.npy", npy),
    "safetensors": (25, "x.safetensors", safetensors),
    "recipe": (25, "x.recipe.json", recipe),
    "plan": (12, "x.safetensors.partial.recipe.json", plan),
    "index": (4, "x.safetensors.index.json", index),
    "spec.json": (10, "x.json", spec),
    "spec.toml": (8, "x.toml", spec),
    "texts": (6, "x.txt", texts),
}


def tables() -> dict[str, xf.Table]:
    """Of each initialiser and each dtype, wholes and views."""
    own = {"uniform": {"bound": 0.5}, "normal": {"std": 0.5}, "constant": {"value": 2.0}}
    own |= {"truncated_normal": {"low": -1.0, "high": 3.0}, "variance_scaling": {"mode": "fan_out", "scale": 0.5}}
    made = {}
    for k, dtype in enumerate(DTYPES):
        for init in list(RULES)[k % 3 :: 3]:
            with contextlib.suppress(*REFUSALS):  # not every dtype has every distribution
                table = xf.Table((3, 4), init, seed=[k, 2**70][: 1 + k % 2], name="w", dtype=dtype, **own.get(init, {}))
                made[f"{init} {dtype}"] = table.shard((slice(None, None, -1), 1)) if len(made) % 3 == 1 else table
    return made


def seeds(target: str) -> list[bytes]:
    valid = [item for _, contents, _ in valid_files() for item in contents.items()]
    if target == "texts":
        return [text.encode() for text in TEXTS]
    if target == "spec.json":
        return [json.dumps(SPEC).encode()]
    if target == "spec.toml":
        return [TOML.encode()]
    recipes = {name: table.recipe for name, table in tables().items()}
    if target == "recipe":
        return [json.dumps(recipe).encode() for recipe in recipes.values()]
    ending = TARGETS[target][1].removeprefix("x.safetensors" if target in ("plan", "index") else "x")
    found = [data for name, data in valid if name.endswith(ending)]
    if target == "safetensors":
        found += [data[8 : 8 + struct.unpack("<Q", data[:8])[0]] for data in found]
    return found


class Splice:
    """Values of valid texts in place of others of the same key, which leaves many texts valid."""

    def __init__(self) -> None:
        self.pool: dict[object, list[object]] = {}
        for text in seeds("recipe") + seeds("spec.json") + seeds("safetensors"):
            if text[:1] == b"{":
                self.collect(json.loads(text))

    def collect(self, value) -> None:
        for path in paths_in(value):
            if path:
                inner = value
                for key in path:
                    inner = inner[key]
                self.pool.setdefault(path[-1], []).append(inner)

    def __call__(self, rng: random.Random, text: str) -> str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        inner, path = value, rng.choice(list(paths_in(value)))
        recipes = ("__metadata__", "xavierfast")
        if rng.random() < 0.5 and recipes in paths_in(value):
            path = recipes
        for key in path[:-1]:
            inner = inner[key]
        if not path:
            return text
        if path == recipes:
            inner[path[-1]] = self(rng, str(inner[path[-1]]))
        else:
            inner[path[-1]] = rng.choice([*self.pool.get(path[-1], []), rng.randrange(9), rng.random()])
        return json.dumps(value)


# ---- one target, in a process of its own, which libFuzzer ends


def fuzz(target: str, count: int, seed: int, folder: str) -> None:
    _, name, read = TARGETS[target]
    path = f"{folder}/{name}"
    atheris.instrument_func(np.lib.format.read_magic.__globals__["_read_array_header"])
    splice = Splice()
    counts = {"inputs": 0, "parsed": 0, "slowest": 0.0}

    def one(data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data)
        start = time.process_time()
        with contextlib.suppress(*REFUSALS):
            read(path)
            counts["parsed"] += 1
        seconds = time.process_time() - start
        assert seconds < SECONDS, f"it took {seconds:.2f} s"
        counts["inputs"] += 1
        counts["slowest"] = max(seconds, counts["slowest"])
        if counts["inputs"] >= count:
            Path(folder, "counts").write_text(json.dumps(counts))

    def mutate(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if data[:1] == b"{" and rng.random() < 0.7:
            with contextlib.suppress(UnicodeDecodeError):
                text = rng.choice((mutate_json, splice))(rng, data.decode())
                return text.encode("utf-8", "surrogatepass")[:most]
        return atheris.Mutate(data, most)

    if target == "index":  # names files that must be there
        for name, data in (item for _, contents, _ in valid_files() for item in contents.items()):
            if "-of-" in name:
                Path(folder, name).write_bytes(data)
    corpus = Path(folder, "corpus")
    corpus.mkdir()
    for k, data in enumerate(seeds(target)):
        (corpus / str(k)).write_bytes(data)
    words = {word for data in seeds(target) for word in re.findall(rb"\w{3,30}", data)} | {o.encode() for o in ODD}
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in sorted(words) if len(word) <= 60)
    Path(folder, "words").write_text("".join(f'"{word}"\n' for word in quoted))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    warnings.simplefilter("error")
    options = [
        f"-runs={count}", f"-seed={seed + 1}", f"-max_len={LONGEST}", f"-dict={folder}/words", "-timeout=20",
        "-rss_limit_mb=0", f"-artifact_prefix={folder}/", "-verbosity=1",
    ]  # fmt: skip
    atheris.Setup([target, *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def main(count: int = 1_000_000, seed: int = 0) -> int:
    begin, total, bad = time.perf_counter(), 0, []
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    shares = sum(share for share, _, _ in TARGETS.values())
    print(f"{'target':12}{'inputs':>10}{'parsed':>10}{'branches':>10}{'features':>10}{'corpus':>8}{'slowest':>10}")
    for target, (share, _, _) in TARGETS.items():
        with tempfile.TemporaryDirectory(dir=place) as folder:
            inputs = max(1, count * share // shares)
            command = [sys.executable, __file__, target, str(inputs), str(seed), folder]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            figures = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", done.stderr)
            counts = Path(folder, "counts")
            if done.returncode == 0 and figures and counts.exists():
                found = json.loads(counts.read_text())
                branches, features, corpus = figures[-1]
                total += found["inputs"]
                print(
                    f"{target:12}{found['inputs']:>10,}{found['parsed']:>10,}{branches:>10}{features:>10}{corpus:>8}"
                    f"{found['slowest']:>8.3f} s",
                    flush=True,
                )
                continue
            bad.append(target)
            error = re.search(r"=== Uncaught Python exception: ===\n(.*?)(\n==|$)", done.stdout, re.DOTALL)
            print(f"{target}: ended with {done.returncode}: {error[1] if error else done.stderr[-2000:]}")
            for artifact in Path(folder).glob("*-*"):
                print(f"  its input: {artifact.read_bytes()!r}", flush=True)
    print(
        f"{total:,} inputs of {len(TARGETS)} parsers with seed {seed} in {time.perf_counter() - begin:.0f} s: "
        + (f"found something in {', '.join(bad)}" if bad else "each was parsed or refused as documented")
    )
    return 1 if bad else 0


if __name__ == "__main__":
    if CHILD:
        fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    sys.exit(main(*map(int, sys.argv[1:])))
