"""Tier 5: value stability. The stream contract, version 1, is frozen: these digests may never change.

``python tests/test_goldens.py`` writes the table anew: with the lines of new calls, and with none that differ.
"""

import hashlib
import json
from pathlib import Path

import pytest

import xavierfast as xf

DTYPES = ("float32", "float64", "float16", "bfloat16")
FILE = Path(__file__).parent / "goldens.json"
INF = float("inf")
CALLS = {
    "uniform": (xf.uniform, {"bound": 0.05}),
    "uniform from 0 to 1": (xf.uniform, {"low": 0.0, "high": 1.0}),
    "uniform from -3 to 0.7": (xf.uniform, {"low": -3.0, "high": 0.7}),
    "normal": (xf.normal, {"std": 0.02}),
    "normal about 1": (xf.normal, {"mean": 1.0, "std": 0.02}),
    "truncated 2 about 1": (xf.truncated_normal, {"mean": 1.0, "std": 0.02}),
    "truncated 3 about -0.5": (xf.truncated_normal, {"mean": -0.5, "std": 0.02, "low": -3.0, "high": 3.0}),
    "truncated one-sided about 0.1": (xf.truncated_normal, {"mean": 0.1, "low": 0.0, "high": INF}),
    "truncated 2": (xf.truncated_normal, {"std": 0.02}),
    "truncated 3": (xf.truncated_normal, {"std": 0.02, "low": -3.0, "high": 3.0}),
    "truncated wide": (xf.truncated_normal, {"std": 0.02, "low": -50.0, "high": 50.0}),
    "truncated one-sided": (xf.truncated_normal, {"low": 0.0, "high": INF}),
    "truncated far": (xf.truncated_normal, {"low": 6.0, "high": INF}),
    "truncated beyond": (xf.truncated_normal, {"low": -INF, "high": -50.0}),
    "random_constant": (xf.random_constant, {"bound": 0.1}),
    "xavier_uniform": (xf.xavier_uniform, {"fan_in": 300, "fan_out": 200}),
    "xavier_normal": (xf.xavier_normal, {"fan_in": 300, "fan_out": 200, "gain": 5 / 3}),
    "xavier_truncated_normal": (xf.xavier_truncated_normal, {"fan_in": 300, "fan_out": 200}),
    "he_uniform": (xf.he_uniform, {"fan_in": 300, "fan_out": 200}),
    "lecun_truncated_normal": (xf.lecun_truncated_normal, {"fan_in": 300, "fan_out": 200}),
}
STREAMS = {"zero": {"seed": 0}, "named": {"seed": [2010, 249], "name": "embed.weight"}}
N = 100_003


def digest(call, stream, dtype):
    function, keywords = CALLS[call]
    out = function(N, dtype=dtype, **keywords, **STREAMS[stream])
    part = out.itemsize // 2 if dtype.startswith("complex") else out.itemsize
    little = out.view(f"u{part}").astype(f"<u{part}")
    return hashlib.sha256(little.tobytes()).hexdigest()


KEYS = [f"{call}/{stream}/{dtype}" for call in CALLS for stream in STREAMS for dtype in DTYPES]
TWO_SIDED = ("uniform", "normal", "truncated 2", "truncated 3", "xavier_uniform", "xavier_truncated_normal")
MOVED = ("uniform from -3 to 0.7", "normal about 1")
KEYS += [f"{call}/named/{dtype}" for call in TWO_SIDED for dtype in ("complex64", "complex128")]
KEYS += [f"{call}/named/{dtype}" for call in (*TWO_SIDED, *MOVED) for dtype in ("float8_e4m3fn", "float8_e5m2")]


@pytest.mark.parametrize("key", KEYS)
def test_stable(use_level, ml_dtypes, key):
    assert digest(*key.split("/")) == json.loads(FILE.read_text())[key]


def test_all_are_kept():
    assert sorted(json.loads(FILE.read_text())) == sorted(KEYS)


if __name__ == "__main__":
    FILE.write_text(json.dumps({key: digest(*key.split("/")) for key in KEYS}, indent=1) + "\n")
