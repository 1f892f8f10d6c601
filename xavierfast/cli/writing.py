"""What ``create``, ``create-model`` and ``resume`` share: they write tables, and report what they have done."""

import json
import os
from dataclasses import asdict, dataclass, field
from errno import EEXIST, ENOENT
from time import perf_counter
from typing import Any

import typer

from .. import files
from .._core.command import Exit
from .._core.recipe import to_json
from ..files.formats import FORMATS
from ..files.plan import Plan
from ..files.posix import Kind, folder_of, kind_of
from ..files.reader import opened
from ..table import Table
from .differences import difference_lines
from .shell import in_shell_words, notice, progress_bar
from .text import duration, shell_word, shown_name, shown_path, size, speed

__all__ = ["Report", "Writing", "figures", "final_name", "finished_name", "go_on", "is_unfinished"]

Tables = dict[str, Table]


def final_name(path: str) -> str:
    """The name of a finished file, also for the name that it has while it is unfinished."""
    return path.removesuffix(".partial")


@dataclass
class Report:
    """What has been done to a file, and with which tables."""

    path: str
    state: str  # as docs/files.md lists them
    tables: Tables
    written: int  # bytes of blocks that this call has written
    seconds: float = 0.0
    has_seed: bool = True  # whether the caller gave the seed
    timings: files.Timings | None = None
    note: str | None = None
    found: files.Verification | None = None  # of a finished file that differs

    @property
    def nbytes(self) -> int:
        if self.state in ("part", "extended"):
            return self.written
        return sum(table.nbytes for table in self.tables.values())

    def fields(self) -> dict[str, Any]:
        table = next(iter(self.tables.values()))
        numbers = figures(table) if len(self.tables) == 1 else dict.fromkeys(figures(table))
        spent = asdict(self.timings) if self.timings else dict.fromkeys(asdict(files.Timings()))
        differing = [] if self.found is None else [asdict(c) for c in self.found.tensors if c.differ or c.problem]
        return {
            "path": self.path, "state": self.state, "nbytes": self.nbytes, "written": self.written,
            "seconds": self.seconds, **spent, "tables": len(self.tables), "seed": table.recipe["seed"], **numbers,
            "note": self.note, "tensors": differing,
        }  # fmt: skip

    def print(self, quiet: bool, as_json: bool) -> None:
        if as_json:
            print(json.dumps(self.fields()))
        elif not quiet:
            print("\n".join(self.lines()))
        if self.state == "differs":
            raise typer.Exit(Exit.DIFFERENCE)

    def lines(self) -> list[str]:
        path = shown_path(self.path)
        measured = speed(self.nbytes, self.seconds)
        rewritten = f"{size(self.written)} were missing or wrong, and have been written"
        if self.found is not None:
            way = "if that is not training, pass --force to write the initial values again"
            last = f"{path}: was finished before, and values differ from its recipe; they stay as they are: {way}"
            return [*difference_lines(self.path, self.found, "differ"), last]
        shape = "x".join(map(str, next(iter(self.tables.values())).shape))
        first = {
            "extended": f"{path}: extended to {shape}, {measured}",
            "finished": f"{path}: is finished, and was not checked: run xavierfast verify {shell_word(self.path)}",
            "shard": f"{path}: the shard is right ({rewritten}); others have not been checked",
            "created": f"{path}: written, {measured}",
            "part": f"{path}: part written, {measured}",
            "resumed": f"{path}: finished; {rewritten}; {measured}",
            "checked": f"{path}: was finished before, and all of it is right; {measured}",
            "repaired": f"{path}: was finished before; {rewritten}; {measured}",
        }[self.state]
        if self.state == "part" and not self.written:
            return [f"{path}: finished already, and the part is as it should be"]
        lines = [first, *self._descriptions()]
        if self.state == "part":
            lines.append(f"when all parts are written, run xavierfast resume {shell_word(self.path)}")
        return lines

    def _descriptions(self) -> list[str]:
        table = next(iter(self.tables.values()))
        new = "" if self.has_seed else " (random; passed as --seed, it gives these values again)"
        lines = [f"  seed   {seed_text(table.seed)}{new}"]
        if len(self.tables) == 1:
            found = [] if table.fan_in is None else [f"fan_in {table.fan_in:,}, fan_out {table.fan_out:,}"]
            found += [] if table.bound is None else [f"bound {table.bound:.6g}"]
            found += [f"mean {table.mean:.6g}"] if table.mean else []
            lines.append(f"  values {', '.join([*found, f'std {table.std:.6g}'])}")
        else:
            lines.append(f"  tables {len(self.tables):,}")
        if self.timings:
            parts = asdict(self.timings)
            rate = f" at {self.nbytes / parts['computing'] / 1e9:.2f} GB/s" if parts["computing"] else ""
            computing, writing, syncing = map(duration, parts.values())
            lines.append(f"  time   {computing} computing{rate}, {writing} writing, {syncing} waiting for the disk")
        return lines


def figures(table: Table) -> dict[str, Any]:
    """The numbers of a table that people look for, for JSON."""
    bound = None if table.bound is None else to_json(table.bound)
    return {
        "fan_in": table.fan_in, "fan_out": table.fan_out, "bound": bound, "mean": to_json(table.mean),
        "std": to_json(table.std),
    }  # fmt: skip


def seed_text(seed: int | tuple[int, ...]) -> str:
    """A seed as --seed takes it."""
    if isinstance(seed, tuple):
        return ",".join(map(seed_text, seed)) + "," * (len(seed) == 1)
    return str(seed) if seed < 1 << 64 else hex(seed)


@dataclass
class Writing:
    """One creation: its tables, and the options that concern the writing."""

    path: str
    tables: Tables
    has_seed: bool
    part: dict[str, Any] = field(default_factory=dict)
    max_shard_size: int | None = None
    resume: bool = False
    force: bool = False
    sync: bool = True
    dry_run: bool = False
    threads: int | None = None
    quiet: bool = False
    as_json: bool = False

    def run(self) -> None:
        if os.path.isdir(self.path) and os.path.splitext(self.path)[1] not in FORMATS:
            example = os.path.join(self.path, f"items{FORMATS[0]}")
            raise ValueError(f"{shown_path(self.path)} is a folder, and a table needs a file name, such as {example}")
        if self.part and not self.has_seed:
            raise ValueError("all parts of one table must have the same seed: pass --seed")
        if self.part and self.resume:
            raise ValueError(
                "--resume cannot be combined with --rows or --shard: the same command again writes the part again"
            )
        note = self._note()
        if note and not (self.quiet or self.as_json):
            notice(f"note: {note}")
        if self.dry_run:
            self._print_estimate(note)
            return
        begin = perf_counter()
        with progress_bar(self.path, self.quiet or self.as_json) as progress:
            keywords: Any = {"sync": self.sync, "threads": self.threads, "progress": progress}
            report = self._resumed(keywords) if self.resume else None
            report = report or self._created(keywords)
        report.seconds, report.note, report.has_seed = perf_counter() - begin, note, self.has_seed
        report.print(self.quiet, self.as_json)

    def _created(self, keywords: Any) -> Report:
        timings, state = files.Timings(), "part" if self.part else "created"
        written = files.create(
            self.path, self.tables, force=self.force, max_shard_size=self.max_shard_size, timings=timings, **self.part,
            **keywords,
        )  # fmt: skip
        return Report(self.path, state, self.tables, written, timings=timings if written else None)

    def _resumed(self, keywords: Any) -> Report | None:
        """Go on with the file, or check a finished one; return None if a new one has to be created."""
        try:
            recorded = _recorded_tables(self.path)
        except (OSError, files.FormatError) as error:
            if self.force:
                return None
            if isinstance(error, files.FormatError | FileNotFoundError):
                error.add_note("pass --force to replace it")
            raise
        if recorded is None and not is_unfinished(self.path):
            return None
        if recorded is not None and not self._agrees(recorded):
            if self.force:
                return None
            state = "is unfinished" if is_unfinished(self.path) else "is finished"
            raise FileExistsError(
                f"{shown_path(self.path)} {state} and has another recipe: pass --force to replace it by the new table"
            )
        tables = self.tables if self.has_seed else None
        return go_on(self.path, tables, self.force, keywords | {"max_shard_size": self.max_shard_size})

    def _agrees(self, recorded: Tables) -> bool:
        """Whether tables are those asked for; where no seed was given, any seed is right."""
        ignored = {} if self.has_seed else {"seed": None}
        return {k: t.recipe | ignored for k, t in recorded.items()} == {
            k: t.recipe | ignored for k, t in self.tables.items()
        }

    def _note(self) -> str | None:
        """The first note on a table whose initialisation is probably not wanted, and the number of further notes."""
        notes = [(name, note) for name, table in self.tables.items() for note in table._notes()]
        if not notes:
            return None
        name, note = notes[0][0], in_shell_words(notes[0][1])
        further = f" (further notes: {len(notes) - 1:,})" if len(notes) > 1 else ""
        return f"{shown_name(name)}: {note}{further}" if name else f"{note}{further}"

    def _print_estimate(self, note: str | None) -> None:
        found = files.estimate(
            self.path, self.tables, max_shard_size=self.max_shard_size, force=self.force, sync=self.sync,
            threads=self.threads,
        )  # fmt: skip
        if self.as_json:
            print(json.dumps({"path": self.path, **found._asdict(), "note": note}))
        else:
            free = "unknown space" if found.free is None else size(found.free)
            seconds = "" if found.seconds is None else f", about {found.seconds:,.1f} s"
            print(f"{shown_path(self.path)}: {size(found.nbytes)} needed, {free} free{seconds}")
        if found.free is not None and found.nbytes > found.free:
            notice(f"not enough free space: {size(found.nbytes - found.free)} more needed")
            raise typer.Exit(Exit.FAILURE)


# ---- files that have been begun, or finished


def finished_name(path: str) -> str:
    """The name of a finished file; raise FileNotFoundError for the name of one that is unfinished."""
    name = final_name(path)
    if name != path and is_unfinished(name):
        raise FileNotFoundError(ENOENT, "is unfinished; call resume() to finish it", os.path.basename(name))
    return name


def is_unfinished(path: str) -> bool:
    """Whether a file has been begun; raise FileExistsError for what is no file in the place of one."""
    begun = False
    with folder_of(path) as (folder, name):
        for partial in (f"{name}.partial", f"{name}.partial.recipe.json"):
            kind = kind_of(folder, partial)
            if kind not in (Kind.NOTHING, Kind.FILE, Kind.SYMLINK):
                message = f"is {kind.value} in the place of an unfinished table; remove it"
                raise FileExistsError(EEXIST, message, partial)
            begun = begun or kind is not Kind.NOTHING
    return begun


def _recorded_tables(path: str) -> Tables | None:
    """The tables of an unfinished or finished file by its recipes, or None if there is no file."""
    with folder_of(path) as (folder, name):
        plan = Plan.read(folder, name)
    if plan is not None:
        return plan.tables
    try:
        return files.tables_of(path)
    except FileNotFoundError:
        if os.path.lexists(path) or os.path.lexists(f"{path}.index.json"):
            raise
        return None


def go_on(path: str, tables: Tables | None, force: bool, keywords: Any, shard: tuple[int, int] | None = None) -> Report:
    """Finish an unfinished file, or a shard of it, or verify a finished one.

    In a finished file, only what is missing is written, unless `force`: values that differ may be those of training.
    """
    if is_unfinished(path):
        written = files.resume(path, tables, shard=shard, **keywords)
        state = "resumed" if shard is None or not is_unfinished(path) else "shard"
        return Report(path, state, _recorded_tables(path) or {}, written)
    if shard is not None:
        return Report(path, "finished", files.tables_of(path), 0)
    try:
        found = files.verify(path, threads=keywords["threads"], progress=keywords["progress"])
    except FileNotFoundError as error:
        if os.path.lexists(f"{path}.index.json"):
            error.add_note("a file of the model is lost: run the command that created it with --resume --force")
        raise
    except files.FormatError as error:
        if not force:
            error.add_note("pass --force to write all of it again")
            raise
    else:
        if found.ok:
            return Report(path, "checked", files.tables_of(path), 0)
        if not (force or _only_missing(path, found)):
            return Report(path, "differs", files.tables_of(path), 0, found=found)
    written = files.resume(path, tables, **keywords)
    return Report(path, "repaired", files.tables_of(path), written)


def _only_missing(path: str, found: files.Verification) -> bool:
    """Whether the rows that differ are all beyond the end of a file, which is too short."""
    held = {}
    with opened(path) as tensor_files:
        for file in tensor_files:
            for span in (entry.span() for entry in file.entries(file.recorded())):
                held[span.tensor.name] = span.last // span.row if span.row else span.tensor.rows
    return not found.extra and all(
        not check.problem and (not check.differ or check.ranges[0][0] >= held[check.name]) for check in found.tensors
    )
