"""Tables on disk against losses of power: python tests/evidence/power.py [SAMPLES] [SEED].

The calls by which a file is created, replaced, shared out, resumed, repaired or extended are recorded, and the disk is
made again as a loss of power after each of them could leave it: of a file, what fsync has written and any part of what
came later; of the names in a folder, what fsync of the folder has written and any selection of the changes that came
later, in which none is half done. SAMPLES (300) such disks are made for each call; 3 is the quick version. On each, an
owner resumes, or creates the file again where there is nothing to resume. Then all files must be those of an
undisturbed run, and before that: a file without a plan must agree with its recipe, an earlier table is whole until the
new one is, rows that were kept are kept, and what was reported as done is on the disk.
"""

import contextlib
import errno
import fcntl
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from xavierfast import Table
from xavierfast.files import create, extend, resume, target, verify

SMALL = Table((700, 64), seed=7, name="items")
OTHER = Table((700, 64), seed=8, name="items")
GROWING = Table((700, 64), "normal", std=0.02, seed=7, name="items")
MODEL = {f"w{k}": Table((100 + 50 * k, 64), seed=5, name=f"w{k}") for k in range(4)}
OLD_MODEL = {name: table.shard(slice(0, 50)) for name, table in MODEL.items()}


class Case(NamedTuple):
    """What is there before, the calls, and what their owner does after a loss of power."""

    before: Callable[[], object]
    calls: Callable[[], object]
    after: Callable[[], object]
    name: str
    old: object = None  # the tables of before, if they are to be whole until the new ones are


def damage(name: str, *bits: int) -> None:
    with open(name, "r+b") as file:
        for bit in bits:
            file.seek(bit)
            file.write(b"damaged")


def finish(name: str, tables: object, force: bool = False, **options: object) -> None:
    """Resume, or create what cannot be resumed."""
    try:
        resume(name, tables, **options)
    except (FileNotFoundError, FileExistsError, ValueError):
        create(name, tables, force=force, **options)


SETS = {"max_shard_size": 80_000}
CASES = {
    "create": Case(lambda: None, lambda: create("t.npy", SMALL), lambda: finish("t.npy", SMALL), "t.npy"),
    "create .bin": Case(lambda: None, lambda: create("t.bin", SMALL), lambda: finish("t.bin", SMALL), "t.bin"),
    "create a model": Case(
        lambda: None, lambda: create("m.safetensors", MODEL), lambda: finish("m.safetensors", MODEL), "m.safetensors"
    ),
    "create a set": Case(
        lambda: None,
        lambda: create("m.safetensors", MODEL, **SETS),
        lambda: finish("m.safetensors", MODEL, **SETS),
        "m.safetensors",
    ),
    "replace": Case(
        lambda: create("t.npy", OTHER),
        lambda: create("t.npy", SMALL, force=True),
        lambda: finish("t.npy", SMALL, force=True),
        "t.npy",
        OTHER,
    ),
    "replace a set by a file": Case(
        lambda: create("m.safetensors", OLD_MODEL, max_shard_size=20_000),
        lambda: create("m.safetensors", MODEL, force=True),
        lambda: finish("m.safetensors", MODEL, force=True),
        "m.safetensors",
    ),
    "replace a file by a set": Case(
        lambda: create("m.safetensors", OLD_MODEL),
        lambda: create("m.safetensors", MODEL, force=True, **SETS),
        lambda: finish("m.safetensors", MODEL, force=True, **SETS),
        "m.safetensors",
        OLD_MODEL,
    ),
    "replace a set by a smaller one": Case(
        lambda: create("m.safetensors", OLD_MODEL, max_shard_size=20_000),
        lambda: create("m.safetensors", MODEL, force=True, **SETS),
        lambda: finish("m.safetensors", MODEL, force=True, **SETS),
        "m.safetensors",
    ),
    "parts": Case(
        lambda: None,
        lambda: [create("t.npy", SMALL, shard=(k, 2)) for k in range(2)] + [resume("t.npy")],
        lambda: finish("t.npy", SMALL),
        "t.npy",
    ),
    "resume, shared out": Case(
        lambda: create("t.npy", SMALL, shard=(1, 3)),
        lambda: [resume("t.npy", shard=(k, 3)) for k in range(3)],
        lambda: [resume("t.npy", SMALL, shard=(k, 3)) for k in range(3)],
        "t.npy",
    ),
    "repair": Case(
        lambda: (create("t.npy", SMALL), damage("t.npy", 50, 5_000, 100_000)),
        lambda: resume("t.npy"),
        lambda: resume("t.npy"),
        "t.npy",
    ),
    "repair a truncated model": Case(
        lambda: (create("m.safetensors", MODEL), os.truncate("m.safetensors", 100)),
        lambda: resume("m.safetensors", MODEL),
        lambda: resume("m.safetensors", MODEL),
        "m.safetensors",
    ),
    "repair a sidecar": Case(
        lambda: (create("t.bin", SMALL), os.truncate("t.bin.recipe.json", 9)),
        lambda: resume("t.bin", SMALL),
        lambda: resume("t.bin", SMALL),
        "t.bin",
    ),
    "extend": Case(
        lambda: (create("t.npy", GROWING), damage("t.npy", 5_000)),
        lambda: extend("t.npy", 1000),
        lambda: extend("t.npy", 1000),
        "t.npy",
    ),
    "extend .bin": Case(
        lambda: (create("t.bin", GROWING), damage("t.bin", 5_000)),
        lambda: extend("t.bin", 1000),
        lambda: extend("t.bin", 1000),
        "t.bin",
    ),
}


# ---- recording


class Disk:
    """What the calls of a process change: files by number, names, and which of the changes are on the disk."""

    def __init__(self) -> None:
        self.files = {k: Path(name).read_bytes() for k, name in enumerate(sorted(os.listdir()))}
        self.names = {name: k for k, name in enumerate(sorted(os.listdir()))}
        self.numbers = {os.stat(name).st_ino: k for name, k in self.names.items()}
        self.calls: list[tuple] = []

    def number(self, fd: int) -> int:
        return self.numbers.setdefault(os.fstat(fd).st_ino, len(self.numbers))


@contextlib.contextmanager
def recorded(disk: Disk, planted: str = "") -> Iterator[None]:
    """Record what the calls in this context change; the `planted` kind of fsync is taken for one that did nothing."""
    real = {name: getattr(os, name) for name in ("open", "pwrite", "ftruncate", "fsync", "link", "rename", "unlink")}

    def wrapped_open(name, flags, *arguments, **keywords):
        fd = real["open"](name, flags, *arguments, **keywords)
        if flags & os.O_CREAT and flags & os.O_EXCL:
            # A number that was used by a file which is gone is that of a new one.
            disk.numbers[os.fstat(fd).st_ino] = len(disk.files) + sum(call[0] == "create" for call in disk.calls)
            disk.calls.append(("create", name, disk.number(fd)))
        return fd

    def pwrite(fd, data, offset):
        disk.calls.append(("write", disk.number(fd), offset, bytes(data)))
        return real["pwrite"](fd, data, offset)

    def ftruncate(fd, size):
        disk.calls.append(("truncate", disk.number(fd), size))
        real["ftruncate"](fd, size)

    def fsync(fd):
        is_folder = os.path.isdir(f"/proc/self/fd/{fd}")
        if planted != ("names" if is_folder else "bytes"):
            disk.calls.append(("sync names",) if is_folder else ("sync", disk.number(fd)))
        real["fsync"](fd)

    def names(kind):
        def call(*names, **keywords):
            real[kind](*names, **keywords)
            disk.calls.append((kind, *names))

        return call

    changed = {"open": wrapped_open, "pwrite": pwrite, "ftruncate": ftruncate, "fsync": fsync}
    changed |= {kind: names(kind) for kind in ("link", "rename", "unlink")}
    reserve, target.fallocate = target.fallocate, lambda fd, nbytes: errno.ENOSYS
    try:
        for name, function in changed.items():
            setattr(os, name, function)
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        target.fallocate = reserve


# ---- disks after a loss of power


def applied(data: bytes, call: tuple) -> bytes:
    if call[0] == "truncate":
        return data[: call[2]].ljust(call[2], b"\0")
    _, _, offset, new = call
    return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new) :]


def after_loss(rng: random.Random, disk: Disk, count: int) -> tuple[dict[str, int], dict[int, bytes]]:
    """The names and the files that the first `count` calls can have left on the disk."""
    calls, kept = disk.calls[:count], rng.choice([0, 0.5, 0.5, 0.9, 1])
    contents = dict(disk.files)
    synced = {call[1]: k for k, call in enumerate(calls) if call[0] == "sync"}
    for k, call in enumerate(calls):
        if call[0] == "create":
            contents[call[2]] = b""
        elif call[0] in ("write", "truncate") and (k < synced.get(call[1], -1) or rng.random() < kept):
            contents[call[1]] = applied(contents[call[1]], call)
    names, now = dict(disk.names), dict(disk.names)
    sync = max((k for k, call in enumerate(calls) if call[0] == "sync names"), default=-1)
    for k, call in enumerate(calls):
        # The number that each call has given a name, whether or not earlier calls have reached the disk.
        kind, changed = call[0], {}
        if kind == "create":
            changed = {call[1]: call[2]}
        elif kind == "link":
            changed = {call[2]: now[call[1]]}
        elif kind == "rename":
            changed = {call[2]: now[call[1]], call[1]: None}
        elif kind == "unlink":
            changed = {call[1]: None}
        for place in (now, names) if k < sync or rng.random() < kept else (now,):
            for name, number in changed.items():
                place.pop(name, None)
                if number is not None:
                    place[name] = number
    return names, contents


def found() -> dict[str, bytes]:
    return {name: Path(name).read_bytes() for name in sorted(os.listdir()) if not name.startswith(".")}


def attack(kind: str, case: Case, samples: int, seed: int, outer: Path, planted: str = "") -> tuple[int, list[str]]:
    """The number of different disks, and what was found on them."""
    os.chdir(tempfile.mkdtemp(dir=outer))
    case.before()
    old, disk = found(), Disk()
    with recorded(disk, planted):
        case.calls()
    wanted, disks, findings = found(), 0, []
    os.chdir(tempfile.mkdtemp(dir=outer))
    for count in range(len(disk.calls) + 1):
        seen = set()
        for k in range(samples):
            names, contents = after_loss(random.Random(f"{seed} {kind} {count} {k}"), disk, count)
            key = hash(tuple((name, number, contents[number]) for name, number in sorted(names.items())))
            if key in seen:
                continue
            seen.add(key)
            disks += 1
            first: dict[int, str] = {}
            for name, number in names.items():
                if first.setdefault(number, name) == name:
                    Path(name).write_bytes(contents[number])
                else:
                    os.link(first[number], name)
            left = {name: contents[number] for name, number in names.items()}
            where = f"{kind}, after call {count} of {len(disk.calls)}, sample {k}"
            try:
                problem = judge(case, left, old, wanted, count == len(disk.calls))
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            if problem:
                findings.append(f"{where}: {problem}; left {[(n, len(d)) for n, d in sorted(left.items())]}")
            for name in os.listdir():
                os.unlink(name)
    return disks, findings


def judge(case: Case, left: dict[str, bytes], old: dict[str, bytes], wanted: dict[str, bytes], done: bool) -> str:
    visible = {name: data for name, data in left.items() if not name.startswith(".")}
    if done and visible != wanted:
        return "what was reported as done is not on the disk"
    planned = any(name.endswith(".partial.recipe.json") for name in visible)
    old_is_whole = all(visible.get(name) == data for name, data in old.items())
    if case.old is not None and not planned and not old_is_whole and not verify(case.name).ok:
        return "neither the old table nor the new one, and no plan that tells what to do"
    if "extend" in case.calls.__code__.co_names:
        start = 128 if case.name.endswith(".npy") else 0
        if not visible[case.name][start:].startswith(old[case.name][start:]):
            return "rows that were kept are lost"
    case.after()
    return "" if found() == wanted else f"other files after resume: {sorted(found())}"


def main(samples: int = 300, seed: int = 0) -> int:
    if not hasattr(fcntl, "flock") or not os.path.isdir("/proc/self/fd"):
        print("cannot run here: Linux is needed, for /proc")
        return 77
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    disks, count, began, here = 0, 0, time.monotonic(), os.getcwd()
    for kind, planted in [*((kind, "") for kind in CASES), ("replace", "bytes"), ("replace a file by a set", "names")]:
        with tempfile.TemporaryDirectory(dir=place) as outer:
            try:
                made, findings = attack(kind, CASES[kind], samples, seed, Path(outer), planted)
            finally:
                os.chdir(here)
        if planted:
            print(f"{kind}, planted: fsync of {planted} does nothing: {len(findings)} findings", flush=True)
            count += not findings
            continue
        for finding in findings:
            print(f"FOUND {finding}", flush=True)
        disks, count = disks + made, count + len(findings)
        print(f"{kind:32}{made:>8,} disks", flush=True)
    print(
        f"seed {seed}: {disks:,} disks after losses of power in {len(CASES)} kinds of calls, "
        f"{time.monotonic() - began:.0f} s; {count} findings"
    )
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
