"""The ``xavierfast`` command: the functions of xavierfast.files, for the shell."""

from .create import create
from .explain import explain
from .resume import resume, status
from .shell import EPILOG, Exit, app, run
from .show import show
from .verify import verify

__all__ = ["Exit", "app", "run"]

for command in (create, resume, status, verify, show, explain):  # in the order of the help
    app.command(epilog=EPILOG)(command)
