"""Attack the command by its arguments and surroundings: ``python tests/evidence/arguments.py [COUNT] [SEED] [FIRST]``.

COUNT command lines, 1500 by default, of valid words and odd ones: numbers without end, paths that are folders, FIFOs,
devices, loops of symlinks or no Unicode, options as values. Each runs within this process, in a new folder. Then each
of some commands runs as a process of its own in each of some surroundings: closed, full and broken streams, locales,
terminals of one column. Each must end within 10 seconds with an exit code of the documentation and a sentence without
a traceback, leave no file that it did not name and change none that it was not asked to. 100 is the quick version.
COUNT 1, the SEED and the number of a command line as FIRST are that line again.
"""

import contextlib
import io
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

try:
    from xavierfast import Table, cli, files
except ImportError as error:
    print(f"cannot run here: it needs {error.name}, of the extra 'cli'")
    sys.exit(77)

SECONDS, MEMORY, FILE = 10, 1 << 30, 1 << 20
LONG = "9" * 10_000
NUMBERS = [
    "0", "-0", "1", "-1", "2", "3", str(2**31), str(2**63 - 1), str(2**63), str(2**64), "9" * 400, LONG, "-" + LONG,
    "1e3", "1.5", "nan", "inf", "-inf", "1e999", "0x10", "1_0", "_1", "", " ", "+3", "\u0663", "\uff13", "\u00b2",
    "1\n", "\udcff", "\x1b[31m",
]  # fmt: skip
SHAPES = [
    "3x4", "0x0", "0", "1", "", "x", "3x", "x4", "-3x4", "1e9x1e9", "1e99x1", "9Px9P", "1Tx1T", "4Gix4Gi",
    "1x" * 70 + "1", "3,4", "(3, 4)",
    "[3x4]", "3X4", "0.5x4", "1.5Kix2", LONG, f"{LONG}x0", "3x\u0664", "3\u00d74", "3x4\x00"[:3] + "\n", "1x1x1x1",
    "0x1e9x1e9", "1" + "_" * 50 + "x1",
    "9223372036854775807x1", "0x9223372036854775807", "9223372036854775808x0", "1e1x1e1", "1Ex2", "k", "1kx1k",
]  # fmt: skip
ENDINGS = [
    ".npy", ".bin", ".safetensors", ".npy", ".NPY", ".txt", "", ".npy.", ".npy.partial", ".recipe.json", ".index.json",
    ".toml", ".json",
]  # fmt: skip
STEMS = [
    "new", "items", "model", "begun", "folder", "fifo", "loop", "dangling", "link", "full", "null", "zero", "odd",
    "folder/new", "missing/new", "items.npy/new", "loop.npy/new", "-", "--", "-x", "--help", "--force", "", ".", "..",
    "a" * 250, "a" * 300, "b/" * 3000 + "c", "\u00e9", "\udcff", "\udcc3", "\U0001f600", "x\ny", "x\x1b[31my",
    "x\ty", " ", "*", "~", "$HOME",
    "%s", "{}", "[bold]", "[/]", "/proc/new", "/sys/new", "/proc/self/mem", "new:1", "c:\\new", "new/", "./new",
]  # fmt: skip
WORDS = [
    "xavier_uniform", "he_normal", "zeros", "normal", "truncated_normal", "uniform", "none", "", "__class__", "float32",
    "bfloat16", "float8_e4m3fn", "complex64", "float4_e2m1fn", "int8", "object", "O", "<f4", "oi", "io", "oihw",
    "bio", "\u00e9", "2**-5", "1/sqrt(128)", "1/0", "9**9**9**9", "2^3", "sqrt(", "(" * 99, "1j", "9e99", "fan_in",
    "=", "__import__('os')", "0x10", "1,2", "1,",
    "seed=1", "shape=3", "self=1", "dtype=int8", "0:2", "2:0", "0:0", ":", "0:", "-1:2", "1:99", "1/2", "0/0", "2/1",
    "1/9e9", "1/1Ti",
    "a.weight", "items", "tanh", "relu", "8x3", "8,8x2,4", "0x3", "8x0", "1x1", "8x", "x8", "1x999999999999",
    "999999999x2", "99999999999x2",
    f"1x{LONG}", "8xx8", ",", "5GB", "0B", "24", "1B", "-1MB",
]  # fmt: skip
OPTIONS = {
    "create": [
        "--init", "--dtype", "--seed", "--name", "--layout", "--groups", "--fan-in", "--fan-out", "--gain", "--scale",
        "--mode", "--distribution", "--bound", "--low", "--high", "--mean", "--std", "--value", "--rows", "--shard",
        "--resume", "--force", "--no-sync", "--dry-run", "--threads", "--quiet", "--json",
    ],
    "create-model": [
        "--spec", "--like", "--rules", "--init", "--seed", "--max-shard-size", "--shard", "--resume", "--force",
        "--no-sync", "--dry-run", "--threads", "--quiet", "--json",
    ],
    "resume": ["--force", "--no-sync", "--threads", "--quiet", "--json"],
    "status": ["--shards", "--threads", "--quiet", "--json"],
    "verify": ["--recipe", "--tensor", "--sample", "--report", "--threads", "--quiet", "--json"],
    "show": ["--tensor", "--sample", "--plot", "--force", "--threads", "--quiet", "--json"],
    "explain": ["--layers", "--activation", "--init", "--input-std", "--batch", "--seed", "--json"],
}  # fmt: skip
VALID = {
    "--init": "he_normal", "--dtype": "bfloat16", "--seed": "7", "--name": "items", "--gain": "1/sqrt(2)",
    "--layout": "io", "--groups": "1", "--fan-in": "3", "--fan-out": "4", "--rows": "0:", "--shard": "1/2",
    "--spec": "model.toml", "--threads": "2", "--recipe": "items.npy", "--report": "new.npy", "--sample": "1",
    "--activation": "relu", "--max-shard-size": "24", "--input-std": "1/4",
}  # fmt: skip
FLAGS = {"--resume", "--force", "--no-sync", "--dry-run", "--quiet", "--json", "--help"}
SPEC = 'seed = 7\n[tensors]\n"a.weight" = "3x4"\nb = [4]\n[rules]\n"*" = "uniform"\n'.replace(
    '"uniform"', '{init="zeros"}'
)


# ---- the folder


def prepared() -> dict[str, bytes]:
    """The files that are there before, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        put = Path(folder)
        files.create(put / "items.npy", Table((50, 4), seed=1, name="items"), sync=False)
        files.create(put / "items.bin", Table((50, 4), seed=1, name="items"), sync=False)
        model = {"a.weight": Table((5, 4), seed=1, name="a.weight"), "b": Table(4, "zeros", seed=1, name="b")}
        files.create(put / "model.safetensors", model, sync=False)
        for ending in (".npy", ".bin"):
            files.create(put / f"begun{ending}", Table((50, 4), seed=1), rows=(3, 9), sync=False)
        (put / "model.toml").write_text(SPEC)
        (put / "items.txt").write_text("not a table\n")
        (put / "odd.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xff{")
        (put / "odd.safetensors").write_bytes(b"\xff" * 40)
        (put / "odd.json").write_text('{"tensors": {"w": "3x' + LONG + '"}}')
        return {path.name: path.read_bytes() for path in put.iterdir()}


def furnish(files_there: dict[str, bytes]) -> None:
    for name, data in files_there.items():
        Path(name).write_bytes(data)
    for ending in (".npy", ".bin", ".safetensors", ".toml", ".json"):
        os.mkdir(f"folder{ending}")
        os.mkfifo(f"fifo{ending}")
        os.symlink(f"loop{ending}", f"loop{ending}")
        os.symlink("nowhere", f"dangling{ending}")
        os.symlink(f"items{ending}", f"link{ending}")
        for device in ("full", "null", "zero"):
            os.symlink(f"/dev/{device}", f"{device}{ending}")
    os.mkdir("folder")


def snapshot() -> dict[str, object]:
    """All names, and what is behind them."""
    found: dict[str, object] = {}
    for folder, folders, names in os.walk("."):
        for name in folders + names:
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            regular = os.path.isfile(path) and not os.path.islink(path)
            found[os.path.relpath(path)] = (stat.st_mode, stat.st_size, Path(path).read_bytes() if regular else b"")
    return found


# ---- command lines


def odd(rng: random.Random, option: str) -> str:
    kinds = {
        "--spec": "path", "--like": "path", "--rules": "path", "--recipe": "path", "--report": "path",
        "--seed": "number", "--threads": "number", "--sample": "number", "--batch": "number", "--groups": "number",
        "--fan-in": "number", "--fan-out": "number",
    }  # fmt: skip
    if option in VALID and rng.random() < 0.6:
        return VALID[option]
    kind = rng.choice(["path", "number", "shape", "word"]) if rng.random() < 0.2 else kinds.get(option, "word")
    if kind == "path":
        return rng.choice(STEMS) + rng.choice(ENDINGS)
    return rng.choice({"number": NUMBERS, "shape": SHAPES, "word": WORDS}[kind])


def line(rng: random.Random) -> list[str]:
    command = rng.choice([*OPTIONS, "create", "create"])
    words = [command]
    if command != "explain":
        path = rng.choice(["new", "items", "items", "begun"]) if rng.random() < 0.6 else rng.choice(STEMS)
        words.append(path + (rng.choice(ENDINGS[:4]) if rng.random() < 0.8 else rng.choice(ENDINGS)))
    else:  # by default it takes seconds
        words += ["--layers", "8x3", "--batch", "8"]
    if command == "create" and rng.random() < 0.8:
        words.append("3x4" if rng.random() < 0.5 else rng.choice(SHAPES))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
        option = rng.choice(OPTIONS[command])
        words.append(option)
        if option not in FLAGS:
            words.append(odd(rng, option))
    if rng.random() < 0.1:
        words.insert(rng.randrange(len(words) + 1), rng.choice(["--", "-", "--nonsense", "-z", "--help", "", "--seed"]))
    return [word.replace("\0", "") for word in words]


# ---- what is wrong


def complaint(words: list[str], code: int, out: str, err: str, before, after) -> str:
    """What is wrong with the end of a command, or nothing."""
    if "Traceback" in err + out:
        return "a traceback: " + (err + out).strip().splitlines()[-1]
    if "Exception ignored" in err or "Warning" in err:
        return f"noise on standard error: {err[-200:]!r}"
    allowed = (0, 1, 2, 3) if {"verify", "status", "resume", "--resume"} & set(words) else (0, 2, 3)
    if code not in allowed:
        return f"exit code {code}"
    if code >= 2 and not err.strip():
        return f"exit code {code} without a word"
    err = err.lstrip()  # a bar, where a pipe is said to be a terminal
    own = err.startswith("xavierfast: ")
    if code >= 2 and not (own or "Usage:" in "".join(err.split()) or "Error" in err):
        return f"no sentence: {err[:100]!r}"
    if own and (len(err) > 2000 + 2 * max(map(len, words)) or err.count("\n") > 3):
        return f"no sentence but {len(err)} characters, {err.count(chr(10))} lines: {err[:100]!r}"
    raw = {c for c in out + err if not (c.isprintable() or c == "\n")}
    if raw and own:
        return f"raw characters {raw}"
    named = {os.path.normpath(word.partition("=")[2] or word) for word in words}
    stems = {os.path.splitext(name)[0] for name in named} - {""}
    if code >= 2 or "--dry-run" in words:
        changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        return f"after code {code} files differ: {changed}" if changed else ""
    for name in before.keys() | after.keys():
        if before.get(name) == after.get(name):
            continue
        ours = any(name.startswith(stem) for stem in stems)
        if not ours or (name in before and not {"--force", "--resume", "resume", "--rows", "--shard"} & set(words)):
            return f"{name} is new, gone or changed"
    return ""


class Hang(BaseException):
    """Not an Exception, so that nothing on the way swallows it."""


def stop(*_) -> None:
    raise Hang


def strike(words: list[str], files_there: dict[str, bytes]) -> tuple[int, str]:
    """The exit code of a command line, and what is wrong."""
    furnish(files_there)
    before = snapshot()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.execute(words)
    except Hang:
        return -1, f"no end within {SECONDS} s"
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "xavierfast" in f.filename]
        where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno} " if frames else ""
        return -1, f"{where}{type(error).__name__}: {str(error)[:120]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return code, complaint(words, code, out.getvalue(), err.getvalue(), before, snapshot())


# ---- surroundings

COMMANDS = [
    ["--version"], ["create", "--help"], ["create", "new.npy", "5x4", "--seed", "1"], ["resume", "begun.npy"],
    ["verify", "items.npy"], ["show", "items.npy"], ["show", "model.safetensors"], ["show", "items.npy", "--json"],
    ["explain", "--layers", "8x3", "--batch", "8"], ["create", "items.npy", "3x4"], ["verify", "none\udcff.npy"],
    ["nonsense"],
]  # fmt: skip
STREAMS = {
    "closed stdin": "0<&-", "closed stdout": ">&-", "closed stderr": "2>&-", "all closed": "0<&- >&- 2>&-",
    "full stdout": ">/dev/full", "full stderr": "2>/dev/full", "full both": ">/dev/full 2>&1",
    "broken stdout": "| true", "broken stderr": "2>&1 >/dev/null | true", "head": "| head -1 >/dev/null",
    "stdin of zeros": "</dev/zero",
}  # fmt: skip
VARIABLES = {
    "no variables": None,
    "C": {"LC_ALL": "C"},
    "C and ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII streams": {"PYTHONIOENCODING": "ascii"},
    "Latin-1 streams": {"PYTHONIOENCODING": "latin-1"},
    "an unknown locale": {"LC_CTYPE": "xx_XX.KLINGON", "LANG": "\udcff"},
    "one column": {"COLUMNS": "1", "LINES": "1"},
    "no column": {"COLUMNS": "0"},
    "odd columns": {"COLUMNS": "-7", "LINES": "many"},
    "wide": {"COLUMNS": "1000000"},
    "a dumb terminal": {"TERM": "dumb", "FORCE_COLOR": "1"},
    "an unknown terminal": {"TERM": "\udcff"},
    "no home": {"HOME": "/nonexistent", "MPLCONFIGDIR": "/nonexistent"},
    "threads": {"XAVIERFAST_THREADS": LONG[:4000]},
    "odd threads": {"XAVIERFAST_THREADS": "-1"},
    "odd level": {"XAVIERFAST_LEVEL": "avx9000"},
    "no place": {"TMPDIR": "/nonexistent"},
}


def surrounded(
    words: list[str], redirection: str, variables: dict[str, str] | None, inner: str
) -> tuple[int, str, str]:
    """Exit code and what was printed, of a process of its own in Bash, whose own words do not count."""
    environment = {} if variables is None else os.environ | variables
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "XF_PYTHON": sys.executable}
    pipe = redirection.partition("|")
    script = f'"$XF_PYTHON" -P -m xavierfast "$@" {pipe[0]}'
    script = f"{{ {script}; echo $? >../code; }} {pipe[1]} {pipe[2]}" if pipe[1] else f"{script}; echo $? >../code"
    command = ["bash", "-c", script, "bash", *words]
    done = subprocess.run(
        command, cwd=inner, env=environment, capture_output=True, timeout=3 * SECONDS, stdin=subprocess.DEVNULL
    )
    code = int(Path(inner, "../code").read_text())
    err = "".join(line for line in done.stderr.decode(errors="replace").splitlines(True) if line[:5] != "bash:")
    return code, done.stdout.decode(errors="replace"), err


def surroundings(files_there: dict[str, bytes], outer: Path, stride: int):
    """Name, command and complaint of each command, or each so many, in each of them."""
    cases = [(name, text, {}) for name, text in STREAMS.items()] + [(n, "", v) for n, v in VARIABLES.items()]
    for k, (name, redirection, variables) in enumerate(cases):
        for number, words in list(enumerate(COMMANDS))[k % stride :: stride]:
            with fresh(outer) as inner:
                furnish(files_there)
                before = snapshot()
                try:
                    code, out, err = surrounded(words, redirection, variables, inner)
                except subprocess.TimeoutExpired:
                    yield name, words, f"no end within {3 * SECONDS} s"
                    continue
                refused = number >= 9
                lost = (
                    "2>" in redirection or ">&-" in redirection or "full" in name or name.startswith(("broken", "head"))
                )
                if lost:  # what it cannot say, its exit code has to: 141, of SIGPIPE, where nobody reads any more
                    err = err or "xavierfast: not heard"
                    wrong = "" if code in (0, 2, 3, 141) else f"exit code {code}"
                    wrong = wrong or complaint(words, code if code != 141 else 0, out, err, {}, {})
                    if "full stdout" in name and code == 0 and not refused and words[0] != "resume":
                        wrong = wrong or "exit code 0, and nothing was told"
                else:
                    wrong = complaint(words, code, out, err, before, snapshot())
                    if name == "odd level":  # refused by the import, before there is a command
                        wrong = (
                            "" if code == 3 and err.startswith("xavierfast: XAVIERFAST_LEVEL must") else "no sentence"
                        )
                    elif name == "odd threads":
                        wrong = wrong if code in (0, 2) else wrong or f"exit code {code}"
                    elif refused != (code >= 2):
                        wrong = wrong or f"exit code {code}: {err[-200:]}"
                yield name, words, wrong


@contextlib.contextmanager
def fresh(outer: Path):
    inner = tempfile.mkdtemp(dir=outer)
    os.chdir(inner)
    try:
        yield inner
    finally:
        os.chdir(outer)
        for folder, folders, names in os.walk(inner, topdown=False):
            for name in names:
                os.unlink(os.path.join(folder, name))
            for name in folders:
                path = os.path.join(folder, name)
                os.unlink(path) if os.path.islink(path) else os.rmdir(path)
        os.rmdir(inner)


def main(count: int = 1500, seed: int = 0, first: int = 0) -> int:
    begin, bad, codes = time.perf_counter(), {}, Counter()
    there, here = prepared(), os.getcwd()
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    signal.signal(signal.SIGALRM, stop)
    os.environ.pop("XAVIERFAST_THREADS", None)
    streams, stride = 0, 1 if count >= 1000 else 6
    with tempfile.TemporaryDirectory(dir=place) as name:
        outer = Path(name).resolve()
        try:
            if count > 1:  # in processes of their own, so before the limits
                for where, words, wrong in surroundings(there, outer, stride):
                    streams += 1
                    if wrong:
                        bad.setdefault(f"{where}: {wrong[:200]}", []).append(words)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
            slowest = (0.0, 0)
            for k in range(first, first + count):
                words = line(random.Random(f"{seed} {k}"))
                with fresh(outer):
                    start = time.perf_counter()
                    code, wrong = strike(words, there)
                    slowest = max(slowest, (time.perf_counter() - start, k))
                beside = set(os.listdir(outer)) - {"code"}
                wrong = wrong or (f"beside the folder: {beside}" if beside else "")
                codes[int(code)] += 1
                if wrong:
                    bad.setdefault(wrong, []).append([k, *words])
        finally:
            os.chdir(here)
    for wrong, cases in bad.items():
        shown = [w if len(str(w)) < 80 else f"{w[:30]}...({len(w)} characters)" for w in cases[0]]
        print(f"{len(cases)} times: {wrong}\n    {shown}")
    ends = ", ".join(f"{number:,} with {code}" for code, number in sorted(codes.items()))
    print(f"the command lines ended {ends}; the slowest took {slowest[0]:.2f} s, number {slowest[1]}")
    print(
        f"{count:,} command lines with seed {seed} and {streams} runs in odd surroundings, in "
        f"{time.perf_counter() - begin:.0f} s: "
        + (f"{len(bad)} kinds of bad ends" if bad else "each ended with a code and a sentence, and no file was hurt")
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
