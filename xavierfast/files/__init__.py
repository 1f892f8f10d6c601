"""Tables on disk: written at disk speed, resumable after any crash, verifiable bit for bit.

``create`` writes tables, ``resume`` finishes a file after a crash, ``status`` returns what an unfinished file lacks,
``verify`` recomputes a file and compares, ``measure`` returns statistics of its values, ``load`` and ``tables_of`` read
it. The package needs a POSIX system.
"""

from importlib.util import find_spec as _find_spec

for _module in ("fcntl", "resource"):
    if _find_spec(_module) is None:
        raise ImportError(
            "xavierfast.files needs a POSIX system, such as Linux or macOS, got one without Python's module "
            f"{_module}: save the array of a Table by other means, such as numpy.save",
            name=_module,
        )

from .blocks import TensorCheck
from .create import Timings, create
from .estimate import Estimate, estimate
from .extend import extend
from .formats import FormatError
from .measure import TensorStats, measure
from .reader import load, tables_of
from .resume import resume
from .specs import from_spec, like
from .status import Status, status
from .verify import Verification, verify

__all__ = [
    "Estimate", "FormatError", "Status", "TensorCheck", "TensorStats", "Timings", "Verification", "create",
    "estimate", "extend", "from_spec", "like", "load", "measure", "resume", "status", "tables_of", "verify",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
