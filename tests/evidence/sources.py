"""A copy of the sources, for attacks that build or change them; no attack itself."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy_sources(folder: Path, *parts: str) -> None:
    """The package, its tests and `parts` besides, without what was built among them, and the files beside it."""
    for part in ("xavierfast", "tests", *parts):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
