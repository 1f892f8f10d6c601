"""Tables on disk against SIGKILL, full disks, damage and other writers: python tests/evidence/disk.py [ROUNDS] [SEED].

ROUNDS (200) kills of the command ``xavierfast create`` and as many full disks, ten times as many damaged files, half as
many pairs of writers of one file, a tenth as many files in parts, and as many resumes shared out; 4 is the quick
version. Linux, with user namespaces: it mounts a small tmpfs in one of its own. A finding names the part and the round,
which draws the same numbers whenever SEED (0) is the same; moments in time it cannot repeat.
"""

import contextlib
import errno
import functools
import importlib
import io
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from findings import check, findings
from safetensors import safe_open

from xavierfast import Table, cli, files
from xavierfast.files import target

CREATE = importlib.import_module("xavierfast.files.create")  # the module: the package has the function of that name

INSIDE = "XAVIERFAST_EVIDENCE_INSIDE"
# The command, which says when it is ready and when it is done. What a process imports late takes longer than a table.
COMMAND = """
import contextlib, sys, tempfile
from xavierfast import cli
with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SystemExit):
    cli.app(["create", "-q", folder + "/x.npy", "8x8"])
print(flush=True)
sys.stdin.readline()
try:
    cli.run()
finally:
    print(flush=True)
"""
SPEC = """seed = 7
[tensors]
"embed.weight" = "60Kx128"
"h.0.weight" = [512, 1024]
"h.0.bias" = {shape = [1024], init = "normal", std = 0.02}
"h.1.weight" = {shape = [3000, 1000], dtype = "float16"}
"h.2.weight" = {shape = [512, 1024], dtype = "float64", init = "he_normal"}
[rules]
"*" = "xavier_uniform"
"""
ITEMS = ["--seed", "7", "--name", "items"]
FORMS = {
    "npy": ("t.npy", ["80Kx128", *ITEMS]),
    "npy over another": ("t.npy", ["80Kx128", *ITEMS, "--force"]),
    "bin": ("t.bin", ["80Kx128", *ITEMS, "--dtype", "bfloat16"]),
    "safetensors": ("m.safetensors", ["--spec", "model.toml"]),
    "shards": ("m.safetensors", ["--spec", "model.toml", "--max-shard-size", "8MB"]),
}
OTHER = Table((50_000, 64), seed=1, name="other")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def differing(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def command(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, output and errors of the command, in this process."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = cli.execute(list(map(str, arguments)))
    return code, output.getvalue(), errors.getvalue()


def creator(name: str) -> str:
    """The command that creates a file of this name in FORMS."""
    return "create-model" if name.endswith(".safetensors") else "create"


def start(folder: Path, name: str, options: list[str]) -> subprocess.Popen:
    """The command `create` in a process of its own, up to its first step."""
    arguments = [sys.executable, "-P", "-c", COMMAND, creator(name), "-q", os.fspath(folder / name), *options]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(arguments, cwd=folder.parent, **pipes)
    process.stdout.readline()
    return process


def go(process: subprocess.Popen) -> None:
    process.stdin.write(b"\n")
    process.stdin.flush()


def finish(folder: Path, name: str, options: list[str]) -> None:
    """What its owner does after a crash: the same command with --resume, or by force where an old file is there."""
    code, _, errors = command(creator(name), folder / name, *options, "--resume")
    if code == cli.Exit.FAILURE and "--force" in options:
        code, _, errors = command(creator(name), folder / name, *options)
    check(code == 0, "finish", errors)


def undisturbed(folder: Path) -> dict[str, tuple[dict[str, bytes], float]]:
    """Of each form the files, and the seconds that a process takes for them."""
    known = {}
    for form, (name, options) in FORMS.items():
        seconds = []
        for _ in range(5):
            clear(folder)
            if "--force" in options:
                files.create(folder / name, OTHER)
            with start(folder, name, options) as process:
                began = time.perf_counter()
                go(process)
                process.stdout.readline()
                seconds.append(time.perf_counter() - began)
        known[form] = contents(folder), min(seconds)
        check(command("verify", folder / name)[0] == 0, form, "the undisturbed file is not right")
    clear(folder)
    return known


# ---- SIGKILL


def kills(folder: Path, known: dict, rounds: int, seed: int) -> str:
    phases: Counter[str] = Counter()
    for k in range(rounds):
        rng = random.Random(f"{seed} kill {k}")
        form = rng.choice(list(FORMS))
        (name, options), (wanted, took) = FORMS[form], known[form]
        clear(folder)
        if "--force" in options:
            files.create(folder / name, OTHER)
        old = contents(folder)
        with start(folder, name, options) as process:
            moment = rng.uniform(0, 1.1) * took
            go(process)
            time.sleep(moment)
            process.kill()
        there = contents(folder)
        begun = any("partial" in file for file in there)
        named = any(there.get(file) == wanted[file] for file in wanted)
        phase = ("among the renames" if named else "in the middle") if begun else "at the end" if named else "too early"
        phases[phase] += 1
        for file in there.keys() & wanted.keys():
            whole = there[file] in (wanted[file], old.get(file))
            check(whole, f"kill {k}, {form}", f"{file} is half there under its name, after {moment:.4f} s")
        finish(folder, name, options)
        wrong = differing(contents(folder), wanted)
        check(not wrong, f"kill {k}, {form}", f"after resume, wrong, missing or stray: {wrong}, {sorted(there)}")
        check(command("verify", folder / name)[0] == 0, f"kill {k}, {form}", "verify does not agree")
    check(len(phases) == 4 or rounds < 100, "kills", f"they fell in too few phases: {phases}")
    return f"{rounds} kills ({listed(phases)})"


# ---- full disks


def remount(folder: Path, nbytes: int, inodes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={nbytes},nr_inodes={inodes}", folder], check=True)


def free_bytes(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def full_disks(disk: Path, known: dict, rounds: int, seed: int) -> str:
    """Disks with too few bytes or inodes from the start, and some that others fill in the middle."""
    kinds: Counter[str] = Counter()
    reserve = target.fallocate
    for k in range(rounds):
        rng = random.Random(f"{seed} full {k}")
        form = rng.choice([form for form in FORMS if "over" not in form])
        (name, options), (wanted, _) = FORMS[form], known[form]
        where, size = f"full {k}, {form}", sum(map(len, wanted.values()))
        kind = rng.choice(["few bytes", "few bytes, no fallocate", "few inodes", "filled meanwhile"])
        remount(disk, 4 * size, 10_000)
        clear(disk)
        if kind == "few inodes":
            remount(disk, 4 * size, rng.randrange(2, 6))
        elif kind.startswith("few bytes"):
            # The last page is for the folder; from nothing to all but one page of what is needed.
            remount(disk, rng.choice([4096, rng.randrange(4096, size), size - rng.randrange(1, 4096)]), 10_000)
        target.fallocate = reserve if kind == "few bytes" else lambda fd, nbytes: errno.ENOSYS
        arguments = [creator(name), disk / name, *options]
        if kind == "filled meanwhile":
            code, errors = fill_meanwhile(disk, arguments, rng.uniform(0, 0.9) * size)
        else:
            code, _, errors = command(*arguments)
        target.fallocate = reserve
        there = sorted(os.listdir(disk))
        if code == 0:  # fewer inodes can be enough
            check(kind == "few inodes", where, f"{kind}: there was room in a disk that is full")
            kinds["had enough"] += 1
        else:
            kinds[f"{kind}: {'something' if set(there) - {'hog'} else 'nothing'} to resume"] += 1
            note = r"(xavierfast: note: [^\n]*\n)?"
            sentence = re.fullmatch(note + r"xavierfast: [^\n]*No space left on device[^\n]*\n", errors)
            check(code == cli.Exit.FAILURE and bool(sentence), where, f"{kind}: exit code {code}, {errors!r}")
            for file in set(there) & wanted.keys():
                check((disk / file).read_bytes() == wanted[file], where, f"{kind}: {file} is half there under its name")
        (disk / "hog").unlink(missing_ok=True)
        remount(disk, 4 * size, 10_000)
        finish(disk, name, options)
        wrong = differing(contents(disk), wanted)
        check(not wrong, where, f"{kind}: with room again, wrong, missing or stray: {wrong}; before: {there}")
    return f"{rounds} full disks ({listed(kinds)})"


def fill_meanwhile(disk: Path, arguments: list, after: float) -> tuple[int, str]:
    """Another file takes all that is left, as soon as so many bytes are written."""
    compute = CREATE.recompute
    written = itertools.count()

    def watched(span, first, last, buffer):
        if next(written) == after // (1 << 20):
            with contextlib.suppress(OSError), open(disk / "hog", "wb", buffering=0) as hog:
                while hog.write(bytes(1 << 20)):
                    pass
        return compute(span, first, last, buffer)

    remount(disk, free_bytes(disk), 10_000)
    CREATE.recompute = watched
    try:
        code, _, errors = command(*arguments, "--threads", "1")
    finally:
        CREATE.recompute = compute
    return code, errors


# ---- damage


def damage(rng: random.Random, data: bytes) -> tuple[str, int, bytes]:
    """What, where, and the damaged bytes; half of the places are near the header, which is short."""
    at = rng.randrange(min(len(data), 1024) if rng.random() < 0.5 else len(data))
    kind = rng.choice(["a bit", "a bit", "truncated", "appended", "zeros"])
    if kind == "a bit":
        return kind, at, data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == "truncated":
        return kind, at, data[:at]
    if kind == "appended":
        return kind, len(data), data + rng.randbytes(rng.choice([1, 8, 4096]))
    at -= at % 4096
    return kind, at, data[:at] + bytes(len(data[at : at + 4096])) + data[at + 4096 :]


def as_others_read(path: Path) -> dict[str, tuple]:
    """Shapes, dtypes and bits as NumPy and safetensors have them; a .bin file's shape is in its recipe alone."""
    if path.suffix == ".npy":
        arrays = {"": np.load(path)}
    elif path.suffix == ".bin":
        arrays = {"": files.load(path)}
    else:
        index = path.with_name(f"{path.name}.index.json")
        weights = json.loads(index.read_bytes())["weight_map"].values() if index.exists() else [path.name]
        arrays = {}
        for name in sorted(set(weights)):
            with safe_open(path.with_name(name), "numpy") as file:
                arrays |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no mapping
    return {name: (array.shape, str(array.dtype), array.tobytes()) for name, array in arrays.items()}


def damages(disk: Path, rounds: int, seed: int) -> str:
    """Verify must notice, unless NumPy or safetensors read the very same arrays from the damaged file."""
    model = {
        "a": Table((300, 700), seed=7, name="a"),
        "b": Table((5,), "normal", std=0.1, seed=7, name="b"),
        "c": Table((900, 700), "truncated_normal", seed=7, name="c", dtype="float16"),
    }
    made = {
        "x.npy": (Table((900, 700), seed=7, name="w"), {}),
        "x.bin": (Table((900, 700), "normal", seed=7, dtype="float64"), {}),
        "x.safetensors": (model, {}),
        "s.safetensors": (model, {"max_shard_size": 900_000}),
    }
    remount(disk, 1 << 26, 10_000)
    clear(disk)
    whole = {}
    for name, (tables, options) in made.items():
        files.create(disk / name, tables, **options)
        whole[name] = contents(disk), as_others_read(disk / name)
        clear(disk)
    counts: Counter[str] = Counter()
    unseen: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    for k in range(rounds):
        rng = random.Random(f"{seed} damage {k}")
        name = rng.choice(list(made))
        originals, arrays = whole[name]
        # What lies beside the arrays, recipes and indices, is a quarter.
        beside = [file for file in originals if file.endswith(".json")]
        data = [file for file in originals if not file.endswith(".json")]
        file = rng.choice(beside if beside and rng.random() < 0.25 else data)
        kind, at, after = damage(rng, originals[file])
        if after == originals[file]:
            after, kind, at = after[:-1], "truncated", len(after) - 1
        clear(disk)
        for other, content in originals.items():
            (disk / other).write_bytes(after if other == file else content)
        where = f"damage {k}, {kind} at byte {at} of {file}"
        counts["beside the arrays" if file in beside else kind] += 1
        try:
            seen = not files.verify(disk / name).ok
        except (OSError, ValueError, TypeError):
            seen = True
        except Exception as error:
            check(False, where, f"verify neither answers nor refuses: {error!r}")
            seen = True
        if not seen:
            try:
                same = as_others_read(disk / name) == arrays
            except Exception as error:
                same = f"others cannot read it: {error!r}"
            check(same is True, where, f"verify calls it right, {same}")
            place = slice(max(0, at - 9), at + 9)
            print(f"  no reader's arrays change by {where}: {originals[file][place]} -> {after[place]}")
            unseen["in a recipe or index" if file in beside else f"in a header of {Path(file).suffix}"] += 1
        # Resume repairs all of it, or refuses what may be another file and leaves it as it is.
        tables, options = made[name]
        left = contents(disk)
        try:
            files.resume(disk / name, tables, **options)
            wrong = differing(contents(disk), originals)
            check(not wrong or not seen, where, f"resume calls it right: {wrong}")
            repaired["repaired" if not wrong else "taken for right"] += 1
        except FileExistsError:
            check(contents(disk) == left, where, "resume refuses it, and has changed it")
            repaired["refused"] += 1
        except Exception as error:
            check(False, where, f"resume neither repairs nor refuses: {error!r}")
    clear(disk)
    passed = f"all but {unseen.total()} found"
    if unseen:
        passed += f", of which {listed(unseen)} change no array"
    return f"{rounds} damaged files ({listed(counts)}), {passed}; by resume {listed(repaired)}"


# ---- two writers


def join(barrier) -> None:
    global together
    together = barrier


def attempt(function: str, path: Path, arguments: dict, delay: float) -> str:
    """In a process of its own."""
    together.wait(60)
    time.sleep(delay)
    try:
        getattr(files, function)(path, **arguments)
        return "done"
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def two_writers(folder: Path, rounds: int, seed: int) -> str:
    """The second begins at any moment of the first, with its own seed where it may replace."""
    options = {"t.npy": {}, "m.safetensors": {}, "s.safetensors": {"max_shard_size": 3_000_000}}

    def tables(name: str, owner: int) -> object:
        if name == "t.npy":
            return Table((20_000, 64), seed=owner, name="items")
        return {letter: Table((9_000, 64), seed=owner, name=letter) for letter in "abc"}

    known, took = {}, {}
    for name, owner in itertools.product(options, (1, 2)):
        clear(folder)
        began = time.perf_counter()
        files.create(folder / name, tables(name, owner), **options[name])
        took[name] = time.perf_counter() - began
        known[name, owner] = contents(folder)
    counts: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, join, (context.Barrier(2),)) as pool:
        for k in range(rounds):
            rng = random.Random(f"{seed} writers {k}")
            name, kind = rng.choice(list(options)), rng.choice(["create", "force", "force", "resume"])
            clear(folder)
            calls = []
            owners = (1, 2) if kind == "force" else (1, 1)
            for owner in owners:
                arguments = {"tables": tables(name, owner), **options[name]}
                calls.append(("create", folder / name, arguments | ({"force": True} if kind == "force" else {})))
            if kind == "resume":
                calls[1] = ("resume", *calls[1][1:])
            delays = (0, rng.uniform(0, 1.5) * took[name] * rng.choice([0.02, 1]))
            answers = [f.result(120) for f in [pool.submit(attempt, *c, d) for c, d in zip(calls, delays, strict=True)]]
            where, there = f"writers {k}, {kind} {name}", contents(folder)
            counts[f"{kind}: {answers.count('done')} of 2 done"] += 1
            for answer in answers:
                clear_refusal = re.match(r"(FileExists|BlockingIO)Error: ", answer) or (
                    answer.startswith("FileNotFoundError") and ("nothing to resume" in answer or "removed" in answer)
                )
                check(answer == "done" or (bool(clear_refusal) and "\n" not in answer), where, answer)
            check("done" in answers, where, f"neither won: {answers}")
            winners = [owner for owner, answer in zip(owners, answers, strict=True) if answer == "done"]
            wrong = [differing(there, known[name, owner]) for owner in winners]
            check([] in wrong, where, f"{answers}: wrong, missing or stray: {wrong}")
    clear(folder)
    return f"{rounds} pairs of writers ({listed(counts)})"


# ---- parts


def parts(folder: Path, known: dict, rounds: int, seed: int) -> str:
    """Four processes write a quarter or so each, one is killed and does it again; nothing is left for `resume`."""
    stopped = 0
    (name, options), (wanted, took) = FORMS["npy"], known["npy"]
    for k in range(rounds):
        rng = random.Random(f"{seed} parts {k}")
        clear(folder)
        cuts = [0, *sorted(rng.sample(range(1, 80_000), 3)), 80_000]
        pieces = [[*options, "--rows", f"{first}:{last}"] for first, last in itertools.pairwise(cuts)]
        rng.shuffle(pieces)
        victim = rng.randrange(4)
        with contextlib.ExitStack() as stack:
            processes = [stack.enter_context(start(folder, name, piece)) for piece in pieces]
            for process in processes:
                go(process)
                time.sleep(rng.uniform(0, 0.3) * took)
            time.sleep(rng.uniform(0, 0.5) * took)
            processes[victim].kill()
            errors = [process.communicate()[1].decode() for process in processes]
        codes = [process.returncode for process in processes]
        stopped += codes[victim] == -signal.SIGKILL
        good = all(code == 0 for i, code in enumerate(codes) if i != victim)
        check(good, f"parts {k}", f"exit codes {codes}, {errors}")
        code, _, errors = command(creator(name), folder / name, *pieces[victim])
        check(code == 0, f"parts {k}", f"the part again: {errors}")
        code, output, errors = command("resume", folder / name, "--json")
        left = json.loads(output)["written"] if code == 0 else errors
        check(left == 0, f"parts {k}", f"what all had written lacked {left}")
        wrong = differing(contents(folder), wanted)
        check(not wrong and command("verify", folder / name)[0] == 0, f"parts {k}", f"wrong: {wrong}")
    clear(folder)
    return f"{rounds} files in four parts, of which one was killed ({stopped} before it was done) and done again"


SHARED = """
import sys, tempfile
from xavierfast import Table, files
with tempfile.TemporaryDirectory() as folder:
    files.create(folder + "/x.npy", Table((8, 8), seed=0))
path, k, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print(flush=True)
sys.stdin.readline()
files.resume(path, shard=(k, n))
"""


def shared_resumes(folder: Path, rounds: int, seed: int) -> str:
    """Three processes finish a file together, one is killed and does it again; then the file has its name."""
    stopped = 0
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    model = {letter: Table((20_000, 128), seed=7, name=letter) for letter in "abcd"}
    whole = {}
    table = Table((80_000, 128), seed=7, name="items")
    for name, tables, options in (("t.npy", table, {}), ("m.safetensors", model, {"max_shard_size": 20_000_000})):
        clear(folder)
        began = time.perf_counter()
        files.create(folder / name, tables, **options)
        whole[name] = tables, options, contents(folder), time.perf_counter() - began
    for k in range(rounds):
        rng = random.Random(f"{seed} shared {k}")
        clear(folder)
        name = rng.choice(list(whole))
        tables, options, wanted, took = whole[name]
        files.create(folder / name, tables, shard=(rng.randrange(4), 4), **options)

        def launch(number: int, path: Path = folder / name) -> subprocess.Popen:
            command = [sys.executable, "-P", "-c", SHARED, os.fspath(path), str(number), "3"]
            process = subprocess.Popen(command, **pipes)
            process.stdout.readline()
            return process

        with contextlib.ExitStack() as stack:
            processes = [stack.enter_context(launch(number)) for number in range(3)]
            for process in processes:
                go(process)
            time.sleep(rng.uniform(0, 1.5) * took)
            victim = rng.randrange(3)
            processes[victim].kill()
            errors = [process.communicate()[1].decode() for process in processes]
        codes = [process.returncode for process in processes]
        stopped += codes[victim] == -signal.SIGKILL
        good = all(code == 0 for i, code in enumerate(codes) if i != victim)
        check(good, f"shared {k}", f"exit codes {codes}, {errors}")
        there = contents(folder)
        early = any(file in there and there[file] != wanted[file] for file in wanted)
        check(not early, f"shared {k}", f"a file that is not right has its name: {sorted(there)}")
        for number in [victim] if rng.random() < 0.7 else range(3):
            with launch(number) as process:
                go(process)
                errors = process.communicate()[1].decode()
            check(process.returncode == 0, f"shared {k}", f"the shard again: {errors}")
        wrong = differing(contents(folder), wanted)
        check(not wrong, f"shared {k}", f"wrong, missing or stray: {wrong}")
    clear(folder)
    return f"{rounds} resumes shared by three, of which one was killed ({stopped} before it was done) and done again"


def main(rounds: int = 200, seed: int = 0) -> int:
    with tempfile.TemporaryDirectory() as name:
        mount = ["mount", "-t", "tmpfs", "tmpfs", name]
        if INSIDE not in os.environ:
            try:
                probe = subprocess.run(["unshare", "-Urm", *mount], capture_output=True, text=True)
                problem = probe.stderr.strip() if probe.returncode else ""
            except OSError as error:
                problem = str(error)
            if problem:
                print(f"cannot run here: a tmpfs in a namespace of its own is needed: {problem}")
                return 77
            inside = [sys.executable, "-u", os.path.abspath(__file__), str(rounds), str(seed)]
            return subprocess.run(["unshare", "-Urm", *inside], env=os.environ | {INSIDE: "1"}).returncode
        outer = Path(name)
        folder, disk = outer / "folder", outer / "disk"
        folder.mkdir(), disk.mkdir()
        (outer / "model.toml").write_text(SPEC)
        os.chdir(outer)
        subprocess.run([*mount[:-1], disk], check=True)
        try:
            known = undisturbed(folder)
            for form, (made, took) in known.items():
                print(f"{form}: {len(made)} files, {sum(map(len, made.values())):,} bytes in {took:.3f} s")
            sentences = []
            for part in (
                functools.partial(kills, folder, known, rounds, seed),
                functools.partial(full_disks, disk, known, rounds, seed),
                functools.partial(damages, disk, 10 * rounds, seed),
                functools.partial(two_writers, folder, max(1, rounds // 2), seed),
                functools.partial(parts, folder, known, max(1, rounds // 10), seed),
                functools.partial(shared_resumes, folder, max(1, rounds // 10), seed),
            ):
                began = time.monotonic()
                sentences.append(part())
                print(f"{sentences[-1]}: {time.monotonic() - began:.0f} s", flush=True)
        finally:
            os.chdir("/")
            subprocess.run(["umount", disk], check=True)
            shutil.rmtree(folder)
    print(f"seed {seed}: {'; '.join(sentences)}; {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
