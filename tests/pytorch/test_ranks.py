"""Sharded models in groups of processes: equal on all ranks, and independent of the size of the group."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import missing, need

try:
    import torch.distributed  # noqa: F401
except ImportError:
    missing("torch is not installed")

SIZES = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def digests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ranks.py")), str(folder), *map(str, SIZES)],
        capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {size: json.loads((folder / f"{size}.json").read_text()) for size in SIZES}


def test_models_do_not_depend_on_the_number_of_ranks(digests):
    for size in SIZES:
        assert digests[size] == digests[SIZES[0]]
    need("transformers")
    names = {f"{model} by {way}" for model in ("gpt2", "llama") for way in ("name", "number")}
    assert names | {"by name, True", "by name, False", "by number", "replicated"} == digests[1].keys()
