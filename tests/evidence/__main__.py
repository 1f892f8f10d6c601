"""The attacks that docs/evidence.md reports: ``python tests/evidence [--quick] [NAME ...]``, all of them or the named
ones, by a Python that has xavierfast[test]. Each is a script in this folder, which also runs by itself.

An attack ends with one sentence on what it found, and with 0 if all held, 1 if something did not, 77 if this machine
cannot run it. That is a failure too where XAVIERFAST_REQUIRE_ALL=1.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Minutes on two cores, and the arguments of a run of seconds, where there is one.
ATTACKS: dict[str, tuple[int, list[str] | None]] = {
    "fuzz": (1, ["3000", "1"]),
    "faults": (6, ["rotation by one"]),
}
UNABLE = 77


def strike(name: str, arguments: list[str]) -> tuple[int, str, float]:
    """Exit code, last line and seconds of an attack, whose output is shown as it comes."""
    began, last = time.monotonic(), ""
    command = [sys.executable, "-P", "-u", str(HERE / f"{name}.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(f"  {line}", end="", flush=True)
            last = line.strip() or last
    return process.returncode, last, time.monotonic() - began


def main() -> int:
    total = sum(minutes for minutes, _ in ATTACKS.values())
    parser = argparse.ArgumentParser(
        description=f"The attacks that docs/evidence.md reports; all take {total} minutes."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=", ".join(f"{n} ({m} min)" for n, (m, _) in ATTACKS.items())
    )
    parser.add_argument("--quick", action="store_true", help="small runs of those that have one")
    options = parser.parse_args()
    if unknown := set(options.names) - ATTACKS.keys():
        parser.error(f"no attack is named {', '.join(sorted(unknown))}")
    report = []
    for name, (minutes, quick) in ATTACKS.items():
        if (options.names and name not in options.names) or (options.quick and quick is None):
            continue
        print(f"== {name}" + ("" if options.quick else f", about {minutes} minutes"), flush=True)
        report.append((name, *strike(name, quick if options.quick and quick else [])))
    print()
    for name, code, last, seconds in report:
        outcome = {0: "held", UNABLE: "cannot run"}.get(code, f"FAILED ({code})")
        print(f"{name:12} {outcome:10} {seconds:6.0f} s  {last}")
    good = {0} if os.environ.get("XAVIERFAST_REQUIRE_ALL") == "1" else {0, UNABLE}
    return int(any(code not in good for _, code, _, _ in report))


if __name__ == "__main__":
    sys.exit(main())
