"""The process: its commands and their help, what it does when it is stopped, and how it reports errors."""

import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from typer.core import TyperCommand

import xavierfast

from .. import files
from .._core.command import Exit, Terminated, end, end_with
from .text import as_text, printable, shell_word, shown_path

__all__ = ["EPILOG", "Command", "app", "execute", "in_shell_words", "notice", "progress_bar", "reporting", "run"]

EPILOG = "Exit codes: 0 done, 1 difference, 2 wrong usage, 3 failure, 130/143 stopped."

app = typer.Typer(
    name="xavierfast",
    help="Create, verify and show initial weights of neural networks on disk.",
    epilog=EPILOG,
    rich_markup_mode=None,  # boxes would take the help of one command beyond one screen
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Command(TyperCommand):
    """A command whose help fits on one screen: options in groups, most of them on one line."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        arguments = [param.metavar for param in self.get_params(ctx) if param.param_type_name == "argument"]
        formatter.write_usage(ctx.command_path, " ".join(["[OPTIONS]", *map(str, arguments)]))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if param.param_type_name == "argument":  # the command's description says what it is
                continue
            names = ", ".join(sorted(param.opts, key=len))
            value = "" if getattr(param, "is_flag", False) else param.metavar or str(param.name).upper()
            title = getattr(param, "rich_help_panel", None) or "Options"
            groups.setdefault(title, []).append((f"{names} {value}".strip(), getattr(param, "help", None) or ""))
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def run() -> NoReturn:
    """Run the command that sys.argv names, and end the process with its exit code."""
    try:
        for number, handler in ((signal.SIGTERM, _stop), (signal.SIGINT, signal.default_int_handler)):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end as other tools do if a reader such as head has ended
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # for locales that lack characters of bars and names
        if os.environ.get("COLUMNS") == "0":  # with 0 columns, rich would print nothing
            del os.environ["COLUMNS"]
        code = execute(sys.argv[1:])
        if sys.stdout is not None:
            try:
                sys.stdout.flush()
            except OSError:
                if code:  # the error has been printed, in the middle of the output
                    end_with(Exit(code))
                raise
        for number in (signal.SIGTERM, signal.SIGINT):  # from here on, no exception could be caught
            signal.signal(number, signal.SIG_DFL)
    except SystemExit:
        raise
    except typer.Abort:
        end_with(Exit.INTERRUPTED)
    except OSError as error:  # of standard output
        end_with(Exit.FAILURE, error.strerror or str(error))
    except BaseException as error:
        end(error)
    sys.exit(code)


def execute(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, and return its exit code."""
    group: Any = typer.main.get_command(app)
    try:
        return group.main(args=list(arguments), prog_name="xavierfast", standalone_mode=False) or 0
    except Exception as error:
        format_message = getattr(error, "format_message", None)  # of usage errors, whose classes typer does not name
        if format_message is None:
            raise
        context = getattr(error, "ctx", None)
        message = [format_message().strip().removesuffix(".")]
        option = getattr(error, "option_name", None) if type(error).__name__ == "NoSuchOption" else None
        others = [name for name, other in group.commands.items() if any(option in p.opts for p in other.params)]
        if others:
            *first, last = others
            message.append(f"{option} is an option of {', '.join(first)}{' and ' * bool(first)}{last}")
        help_of = context.command_path if context is not None else "xavierfast"
        print(printable(f"xavierfast: {'; '.join(message)} (see {help_of} --help)"), file=sys.stderr)
        return Exit.USAGE


def _stop(*_: object) -> NoReturn:
    raise Terminated


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"xavierfast {xavierfast.__version__}, level {xavierfast.level}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and the kernels' level.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


# ---- errors and notes

# Keywords as errors name them: force=True, or tensor= without a value; initialisers and layouts as notes advise them.
_KEYWORD = re.compile(r"\b(fan_in|fan_out|force|max_shard_size|name|rows|shard|tensor|value)=(True\b|(?=[\s,;:)]|$))")
_CALL = re.compile(r"\b(\w+)\((\w+)=([^()]*)\)")
_FAN = re.compile(r"\bfan_(in|out)=(\d+)")
_LAYOUT = re.compile(r"\blayout='(\w+)'")


def in_shell_words(text: str, path: str = "PATH") -> str:
    """Replace what a Python program has to pass or call, in an error or a note, by the option or the command."""
    if "for the tensor" not in text:  # of a model, whose spec has keywords as Python has
        text = _CALL.sub(lambda call: f"--init {call[1]} --{call[2]} {call[3]}".strip(), text)
        text = _LAYOUT.sub(r"--layout \1", _FAN.sub(r"--fan-\1 \2", text))
        text = _KEYWORD.sub(lambda match: "--" + match[1].replace("_", "-"), text)
    text = text.replace("call resume() with the tables", "run the command that created it with --resume --force")
    return text.replace("call resume()", f"run xavierfast resume {shell_word(path)}")


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
        if isinstance(error, OSError) and error.strerror is not None:
            text = error.strerror
            if error.filename is not None:
                text = f"{shown_path(as_text(error.filename))}: {text}"
        _fail(text, error, Exit.FAILURE, paths)
    except MemoryError as error:
        _fail(f"not enough memory: {error}" if str(error) else "not enough memory", error, Exit.FAILURE, paths)
    except (TypeError, ValueError, ImportError) as error:
        _fail(str(error), error, Exit.USAGE, paths)


def _fail(text: str, error: BaseException, code: Exit, paths: Sequence[str]) -> NoReturn:
    text += "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    name = error.filename if isinstance(error, OSError) else None
    path = next((path for path in paths if os.path.basename(path) == name), paths[0] if paths else "PATH")
    print(printable(f"xavierfast: {in_shell_words(text, path)}"), file=sys.stderr)
    raise typer.Exit(code) from None


def notice(text: str) -> None:
    """Print a line on stderr; where nobody can read it, the work goes on."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        print(printable(f"xavierfast: {text}"), file=sys.stderr, flush=True)
    except OSError:
        with suppress(OSError, ValueError):  # the stream would write the line again when the process ends
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stderr.fileno())
            os.close(null)
    finally:
        signal.signal(signal.SIGPIPE, before)


@contextmanager
def progress_bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on a terminal, and nothing in a pipe."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(shown_path(what))
        shown = 0.0

        def update(done: int, total: int) -> None:
            nonlocal shown
            now = monotonic()
            if now - shown > 0.1 or done == total:
                shown = now
                bar.update(task, completed=done, total=total)

        yield update
