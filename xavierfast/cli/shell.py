"""The process: its commands, its exit codes, what it does when it is stopped, and how it reports errors."""

import io
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from time import monotonic
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

import xavierfast

from .. import files
from .text import as_text, printable

__all__ = ["EPILOG", "Exit", "app", "progress_bar", "reporting", "run"]

EPILOG = (
    "Exit codes: 0 success, 1 a difference was found, 2 wrong usage, 3 a file or a disk failed, 130 interrupted, "
    "143 terminated."
)

app = typer.Typer(
    name="xavierfast",
    help="Create, verify and show initial weights of neural networks on disk.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Exit(int, Enum):
    DIFFERENCE = 1
    USAGE = 2
    FAILURE = 3
    INTERRUPTED = 130
    TERMINATED = 143


class Terminated(BaseException):
    """Raised on SIGTERM, as KeyboardInterrupt is raised on SIGINT."""


def run() -> None:
    """Run the command that sys.argv names."""

    def stop(*_: object) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for locales that lack characters of bars and names
    if os.environ.get("COLUMNS") == "0":  # with 0 columns, rich would print nothing
        del os.environ["COLUMNS"]
    try:
        app()
    except OSError as error:  # from --help and --version, before a command has begun
        print(f"xavierfast: {error}", file=sys.stderr)
        sys.exit(Exit.FAILURE)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"xavierfast {xavierfast.__version__}, level {xavierfast.level}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and the kernels' level.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


# Keywords of xavierfast.files as its errors name them: force=True, or tensor= without a value.
_KEYWORD = re.compile(r"\b(force|max_shard_size|name|rows|shard|tensor)=(True\b|(?=[\s,;:)]|$))")


def _in_shell_words(text: str, path: str) -> str:
    """Replace what a Python program has to pass or call, in an error, by the option or the command."""
    text = _KEYWORD.sub(lambda match: "--" + match[1].replace("_", "-"), text)
    return text.replace("call resume()", f"run xavierfast resume {shlex.quote(path)}")


@contextmanager
def reporting(*paths: str) -> Iterator[None]:
    """Turn errors, which may be about any of the `paths`, into one line on stderr and an exit code."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        code = Exit.TERMINATED if isinstance(error, Terminated) else Exit.INTERRUPTED
        _fail("stopped", error, code, paths)
    except (OSError, files.FormatError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{as_text(error.filename)}: {error.strerror}"
        _fail(text, error, Exit.FAILURE, paths)
    except MemoryError as error:
        _fail("not enough memory", error, Exit.FAILURE, paths)
    except (TypeError, ValueError, ImportError) as error:
        _fail(str(error), error, Exit.USAGE, paths)


def _fail(text: str, error: BaseException, code: Exit, paths: Sequence[str]) -> NoReturn:
    text += "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    name = error.filename if isinstance(error, OSError) else None
    path = next((path for path in paths if os.path.basename(path) == name), paths[0] if paths else "PATH")
    print(printable(f"xavierfast: {_in_shell_words(text, path)}"), file=sys.stderr)
    raise typer.Exit(code) from None


@contextmanager
def progress_bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on a terminal, and nothing in a pipe."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(escape(printable(what)))
        shown = 0.0

        def update(done: int, total: int) -> None:
            nonlocal shown
            now = monotonic()
            if now - shown > 0.1 or done == total:
                shown = now
                bar.update(task, completed=done, total=total)

        yield update
