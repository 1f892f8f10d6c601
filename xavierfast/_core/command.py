"""How the process of the command ``xavierfast`` ends while it is still importing, and in any case that nobody foresaw.

Exit code 1 means that a difference was found, and Python would end with it after any uncaught error. This module is
imported before all others, NumPy among them, which take most of the command's first 0.3 seconds, and imports little
itself: Ctrl-C during its imports shows a traceback of Python.
"""

import os
import signal
import sys
from enum import Enum

TYPE_CHECKING = False  # as type checkers understand it; that of `typing` would take 8 ms
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["Exit", "Terminated", "end", "end_with", "prepare"]


class Exit(int, Enum):
    """The exit codes other than 0; the last two are those of the shell for SIGINT and SIGTERM."""

    DIFFERENCE = 1
    USAGE = 2
    FAILURE = 3
    INTERRUPTED = 130
    TERMINATED = 143


class Terminated(BaseException):
    """Raised on SIGTERM, as KeyboardInterrupt is raised on SIGINT."""


def is_command() -> bool:
    """Whether this process was started as ``xavierfast``, or as ``python -m xavierfast``."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0] if sys.argv else ""
    # While the package of -m is imported, sys.argv[0] is "-m", and the words before the others name the package.
    return name == "xavierfast" or (name == "-m" and sys.orig_argv[-len(sys.argv)] in ("xavierfast", "-mxavierfast"))


def prepare() -> None:
    """In the process of the command, let Ctrl-C end it at once and without a traceback, and errors by exit code 3.

    In other processes, nothing happens. ``xavierfast.cli.run`` handles signals itself as soon as it begins.
    """
    if is_command():
        sys.excepthook = lambda kind, error, trace: end(error)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def end(error: BaseException) -> "NoReturn":
    """End the process after an error that nothing else has handled."""
    if isinstance(error, KeyboardInterrupt):
        end_with(Exit.INTERRUPTED)
    if isinstance(error, Terminated):
        end_with(Exit.TERMINATED)
    if isinstance(error, MemoryError):
        end_with(Exit.FAILURE, "not enough memory")
    if not isinstance(error, ImportError):  # such as that of a level that this CPU has not, whose text says all
        import traceback

        traceback.print_exception(error)
        error = RuntimeError("this is a fault of the program, not of its use: please report it with the lines above")
    end_with(Exit.FAILURE, str(error))


def end_with(code: Exit, text: str = "") -> "NoReturn":
    """End the process at once, without the steps of Python's own end, in which a signal could raise another error."""
    try:
        if text:
            print(f"xavierfast: {text}", file=sys.stderr)
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        pass  # nobody can read it
    os._exit(code)
