"""Fixtures of the tests of files."""

import pytest
from support import need


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let small tables have several blocks."""
    from file_support import BLOCK_BYTES  # not above: where there is no POSIX, this import skips the tests

    monkeypatch.setattr("xavierfast.files.blocks.BLOCK_BYTES", BLOCK_BYTES)


@pytest.fixture
def safetensors():
    need("safetensors.numpy")
    return need("safetensors")
