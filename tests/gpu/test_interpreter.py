"""The GPU's kernels in Triton's interpreter. It must be chosen before they are imported, so it has its own process."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support import missing

try:
    import torch  # noqa: F401
    import triton  # noqa: F401
except ImportError:
    missing("torch or triton is not installed")


def test_the_bits_of_the_cpu():
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        Path(__file__).with_name("cases.py"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | {"TRITON_INTERPRET": "1"}
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"^\d+ passed in ", done.stdout, re.MULTILINE), done.stdout[-500:]  # and none skipped
