"""Tables and files in long random histories that models foretell: ``python tests/evidence/histories.py``.

It runs tests/test_stateful.py with 1000 histories of up to 60 steps for each of its machines, where the ordinary tests
have 40 of 25. Other examples come each time; one that fails is printed as a program.
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    began = time.monotonic()
    tests = ["tests/test_stateful.py", "--hypothesis-profile", "deep", "-p", "no:cacheprovider"]
    code = subprocess.run([sys.executable, "-P", "-m", "pytest", "-q", *tests], cwd=ROOT).returncode
    found = "each step was foretold" if code == 0 else f"pytest ended with {code}"
    print(f"1000 histories of Tables and 1000 of folders in {time.monotonic() - began:.0f} s: {found}")
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
