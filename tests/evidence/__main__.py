"""The attacks that docs/evidence.md reports: ``python tests/evidence [--quick] [NAME ...]``, all of them or the named
ones, by a Python that has xavierfast[evidence]. Each is a script in this folder, which also runs by itself.

An attack ends with one sentence on what it found, and with 0 if all held, 1 if something did not, 77 if this machine
cannot run it, for the reason that it gives.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Minutes on two cores, the arguments of a long run, and those of one of seconds, where there is one.
ATTACKS: dict[str, tuple[int, list[str], list[str] | None]] = {
    "fuzz": (2, ["100000", "1"], ["3000", "1"]),
    "parsers": (10, [], ["20000"]),
    "arguments": (5, [], ["100"]),
    "histories": (6, [], None),
    "disk": (4, [], ["4"]),
    "power": (2, [], ["3"]),
    "interrupts": (3, [], ["4"]),
    "surroundings": (8, [], ["--quick"]),
    "failures": (8, [], ["100"]),
    "fused": (2, [], ["100000000"]),
    "faults": (20, [], ["rotation by one"]),
    "mutants": (75, ["--sample", "20"], ["_core.stream", "--sample", "15"]),
    "streams": (20, [], ["--uniforms", "1e8", "--normals", "1e7"]),
    "sanitizers": (35, [], None),
    "builds": (15, [], None),
    "machines": (45, [], None),
    "batteries": (60, [], None),
    "torchrec_shards": (4, [], None),
    "models": (20, [], None),
    "gpu_assembly": (6, [], None),
    "clusters": (4, [], None),
    "minimum": (13, [], None),
    "cross": (15, [], None),
}
UNABLE = 77


def strike(name: str, arguments: list[str]) -> tuple[int, str, float]:
    """Exit code, last line and seconds of an attack, whose output is shown as it comes."""
    began, last = time.monotonic(), ""
    command = [sys.executable, "-u", str(HERE / f"{name}.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(f"  {line}", end="", flush=True)
            last = line.strip() or last
    return process.returncode, last, time.monotonic() - began


def main() -> int:
    total = sum(minutes for minutes, *_ in ATTACKS.values())
    parser = argparse.ArgumentParser(
        description=f"The attacks that docs/evidence.md reports; all take {total / 60:.0f} hours."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=", ".join(f"{n} ({m} min)" for n, (m, *_) in ATTACKS.items())
    )
    parser.add_argument("--quick", action="store_true", help="small runs of those that have one")
    options = parser.parse_args()
    if unknown := set(options.names) - ATTACKS.keys():
        parser.error(f"no attack is named {', '.join(sorted(unknown))}")
    if options.quick and (slow := [name for name in options.names if ATTACKS[name][2] is None]):
        parser.error(f"there is no quick run of {', '.join(slow)}")
    report = []
    for name, (minutes, long, quick) in ATTACKS.items():
        if (options.names and name not in options.names) or (options.quick and quick is None):
            continue
        print(f"== {name}" + ("" if options.quick else f", about {minutes} minutes"), flush=True)
        report.append((name, *strike(name, quick if options.quick and quick else long)))
    print()
    for name, code, last, seconds in report:
        outcome = {0: "held", UNABLE: "cannot run"}.get(code, f"FAILED ({code})")
        print(f"{name:15} {outcome:10} {seconds:6.0f} s  {last}")
    return int(any(code not in (0, UNABLE) for _, code, _, _ in report))


if __name__ == "__main__":
    sys.exit(main())
