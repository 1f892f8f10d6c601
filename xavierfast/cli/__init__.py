"""The ``xavierfast`` command: the functions of xavierfast.files, for the shell.

Each command has a module, with its options and what it prints. ``shell`` is the process (errors, signals, exit codes),
``writing`` what the commands that write have in common, ``text`` makes names fit for a terminal.
"""

from .._core.command import Exit
from .create import create, create_model
from .explain import explain
from .extend import extend
from .resume import resume, status
from .shell import EPILOG, Command, app, execute, run
from .show import show
from .verify import verify

__all__ = ["Exit", "app", "execute", "run"]

for command in (create, create_model, resume, status, verify, show, extend, explain):  # in the order of the help
    app.command(command.__name__.replace("_", "-"), cls=Command, epilog=EPILOG)(command)
