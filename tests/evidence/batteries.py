"""Others' batteries of tests against the generator: ``python tests/evidence/batteries.py [BATTERY ...] [STREAM ...]``.

    BATTERY   smallcrush, crush, bigcrush     TestU01 (L'Ecuyer and Simard 2007): libtestu01-0-dev in Debian's non-free
              dieharder                       dieharder -a (Brown 2003): Marsaglia's Diehard, some of NIST's, its own
    STREAM    words     the raw words of one stream
              floats    the upper 24 bits of uniform float32s: a significand holds no more, so the rest is rounded
              seeds     a word of each of 256 neighbouring seeds in turn, 256 words a seed, then the next 256 seeds
              names     a word of each of "layer.0" .. "layer.999" in turn

Each battery named is given each stream named, all four if none is. Without a battery it is SmallCrush on these streams,
then dieharder and Crush on the words: one to two hours. BigCrush takes four to eight, ``smallcrush words`` ten seconds.
Needs a C compiler, TestU01 and dieharder.

A statistic of TestU01 is suspicious outside of [0.001, 0.999] and a failure outside of [1e-10, 1 - 1e-10], as its
authors say. One of dieharder is WEAK outside of [0.005, 0.995], upon which most are repeated with more samples (-Y 1),
and FAILED outside of [1e-6, 1 - 1e-6]. Exit code 1 if one failed; a few of the others are chance, and are counted.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from xavierfast import Table, kernels
from xavierfast._core.stream import derive_key

SEED = 2010
BLOCK = 1 << 16  # words
# By which it shows whether a battery ran to its end: the number of statistics, the name of the last.
CRUSHES = {"smallcrush": 15, "crush": 144, "bigcrush": 160}
LAST_OF_DIEHARDER = "dab_monobit2"
UNABLE = 77

PROGRAM = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <testu01/bbattery.h>
#include <testu01/swrite.h>
#include <testu01/unif01.h>

static uint32_t buffer[1 << 14];
static size_t left;

static unsigned int next(void)
{
    if (!left) {
        left = sizeof buffer / sizeof *buffer;
        if (fread(buffer, sizeof *buffer, left, stdin) != left)
            exit(3);
    }
    return buffer[--left];
}

int main(int argc, char **argv)
{
    unif01_Gen *generator = unif01_CreateExternGenBits("stdin", next);
    swrite_Basic = FALSE;
    if (argv[1][0] == 's')
        bbattery_SmallCrush(generator);
    else if (argv[1][0] == 'c')
        bbattery_Crush(generator);
    else
        bbattery_BigCrush(generator);
    for (int k = 0; k < bbattery_NTests; k++)
        printf("statistic %s: %.17g\n", bbattery_TestNames[k], bbattery_pVal[k]);
    return 0;
}
"""


# ---- streams, in blocks without end


def fill_words(key: bytes, position: int, out: np.ndarray) -> None:
    kernels.fill(kernels.WORDS, kernels.UINT32, key, (), out.ctypes.data, position, out.size)


def words() -> Iterator[np.ndarray]:
    key, out, position = derive_key(SEED, "batteries"), np.empty(BLOCK, np.uint32), 0
    while True:
        fill_words(key, position, out)
        yield out
        position += BLOCK


def floats() -> Iterator[np.ndarray]:
    table, out, position = Table(1 << 60, "uniform", seed=SEED, name="batteries"), np.empty(BLOCK, np.float32), 0
    while True:
        table._read_flat(position, out)
        bits = np.minimum(np.floor(out * np.float32(1 << 23)), (1 << 23) - 1).astype("<i4")
        yield np.ascontiguousarray(bits.view(np.uint8).reshape(-1, 4)[:, :3])  # four of them are three words
        position += BLOCK


def in_turn(keys: Iterator[list[bytes]], step: int) -> Iterator[np.ndarray]:
    for k, several in enumerate(keys):
        out = np.empty((len(several), 256), np.uint32)
        for key, row in zip(several, out, strict=True):
            fill_words(key, k * step, row)
        yield np.ascontiguousarray(out.T)


def seeds() -> Iterator[np.ndarray]:
    first = range(0, 1 << 62, 256)
    return in_turn(([derive_key(seed, "") for seed in range(k, k + 256)] for k in first), 0)


def names() -> Iterator[np.ndarray]:
    keys = [derive_key(SEED, f"layer.{k}") for k in range(1000)]
    return in_turn(iter(lambda: keys, None), 256)


STREAMS: dict[str, Callable[[], Iterator[np.ndarray]]] = {
    "words": words, "floats": floats, "seeds": seeds, "names": names,
}  # fmt: skip


# ---- batteries


def output_of(command: list[str], stream: str) -> list[str]:
    """The lines of a program that reads a stream from its standard input until it has enough."""

    def feed() -> None:
        try:
            for block in STREAMS[stream]():
                view = memoryview(block).cast("B")
                while view:
                    view = view[os.write(writing, view) :]
        except BrokenPipeError:
            pass
        finally:
            os.close(writing)

    reading, writing = os.pipe()
    lines = []
    with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE, text=True) as process:
        os.close(reading)
        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                print(f"  {lines[-1]}", flush=True)
        finally:
            process.kill()
            feeder.join()
    return lines


def crush(program: str, battery: str, stream: str) -> tuple[int, int, int, bool]:
    """Statistics, how many are suspicious, how many failed, and whether there are as many as there should be."""
    lines = output_of([program, battery], stream)
    p = np.array([float(line.split()[-1]) for line in lines if line.startswith("statistic ")])
    nearer = np.minimum(p, 1 - p)  # -1 is one that was not done: a failure
    return len(p), int((nearer < 0.001).sum()), int((~(nearer >= 1e-10)).sum()), len(p) == CRUSHES[battery]


def dieharder(stream: str) -> tuple[int, int, int, bool]:
    lines = output_of(["dieharder", "-a", "-g", "200", "-Y", "1", "-k", "2"], stream)
    rows = [[field.strip() for field in line.split("|")] for line in lines if line.count("|") == 5]
    outcomes = [row[-1] for row in rows if row[-1] in ("PASSED", "WEAK", "FAILED")]
    return (
        len(outcomes),
        outcomes.count("WEAK"),
        outcomes.count("FAILED"),
        LAST_OF_DIEHARDER in (row[0] for row in rows),
    )


def compiled(folder: str) -> str:
    """The program that gives its standard input to TestU01, or "" where there is no TestU01."""
    program = str(Path(folder) / "crush")
    command = ["cc", "-O2", "-x", "c", "-", "-o", program, "-ltestu01", "-ltestu01probdist", "-ltestu01mylib", "-lm"]
    done = subprocess.run(command, input=PROGRAM, capture_output=True, text=True)
    return "" if done.returncode else program


def main() -> int:
    given = set(sys.argv[1:])
    if unknown := given - {*CRUSHES, "dieharder", *STREAMS}:
        sys.exit(f"neither a battery nor a stream: {', '.join(sorted(unknown))}\n\n{__doc__}")
    streams = [name for name in STREAMS if name in given] or list(STREAMS)
    runs = [(battery, stream) for battery in (*CRUSHES, "dieharder") if battery in given for stream in streams]
    runs = runs or [*(("smallcrush", stream) for stream in streams), ("dieharder", "words"), ("crush", "words")]
    wanted = {battery for battery, _ in runs}
    passed, failures, summary = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        program = ""
        if wanted & CRUSHES.keys():
            if not shutil.which("cc"):
                print("no C compiler here")
                return UNABLE
            program = compiled(folder)
            if not program:
                print("no TestU01 here: libtestu01-0-dev in Debian's non-free")
                return UNABLE
        if "dieharder" in wanted and not shutil.which("dieharder"):
            print("no dieharder here")
            return UNABLE
        for battery, stream in runs:
            print(f"{battery} of {stream}, seed {SEED}", flush=True)
            began = time.monotonic()
            run = crush(program, battery, stream) if battery in CRUSHES else dieharder(stream)
            statistics, suspicious, failed, complete = run
            summary.append(f"{battery} of {stream}: {statistics} statistics, {suspicious} suspicious, {failed} failed")
            print(f"{summary[-1]}, {time.monotonic() - began:.0f} s" + ("" if complete else "; NOT ALL of it ran"))
            passed += statistics - failed
            failures += failed + (not complete)
    print(f"{passed} statistics passed, {failures} failed; {'; '.join(summary)}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
