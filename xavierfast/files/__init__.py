"""Tables on disk: written at disk speed, resumable after any crash, verifiable bit for bit.

``create`` writes tables, ``resume`` finishes a file after a crash, ``verify`` recomputes a file and compares,
``inspect`` measures its values, ``load`` and ``tables_of`` read it. The package needs a POSIX system.
"""

from .blocks import Check
from .create import Estimate, create, estimate, resume
from .formats import FormatError
from .reader import load, tables_of
from .specs import from_spec, like
from .statistics import Figures, inspect
from .verify import Verification, verify

__all__ = [
    "Check", "Estimate", "Figures", "FormatError", "Verification", "create", "estimate", "from_spec", "inspect", "like",
    "load", "resume", "tables_of", "verify",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
