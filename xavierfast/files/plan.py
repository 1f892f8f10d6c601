"""The plan of a creation: the files that it makes, their names, and the order in which they get them.

Until a table is complete and on the disk, it has another name::

    items.npy.partial               the table: its whole space is reserved, and its writer holds a lock on it
    items.npy.partial.recipe.json   the plan: recipes and options, with which any process can finish the table
    items.npy                       the complete table, by a rename after fsync
    items.npy.recipe.json           the recipe, where the format has no room for it (.npy, .bin)

With `max_shard_size`, safetensors are split into several files and an index.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST

from .._core.validation import check_count
from ..table import Table
from .formats import FormatError, Tables, format_of_path, named, tables_from_recipes
from .posix import Kind, exists, kind_of, move, read_json, remove_temporaries, write_small
from .target import Target, refuse_small_disk

__all__ = ["Plan"]


class Plan:
    """The files that one call of ``create`` makes in an open folder, and the call's arguments."""

    def __init__(self, name: str, tables: Tables, max_shard_size: int | None, force: bool) -> None:
        self.name = name
        self.ending = format_of_path(name)
        self.plan_file = f"{name}.partial.recipe.json"
        self.tables = named(tables)
        self.force = force
        if max_shard_size is not None:
            max_shard_size = check_count("max_shard_size", max_shard_size)
            if self.ending != ".safetensors":
                raise ValueError(f"max_shard_size= is only for .safetensors files, got {name!r}")
        self.max_shard_size = max_shard_size
        self.wrote_plan_file = False
        groups = _groups(self.tables, max_shard_size)
        stem = name.removesuffix(self.ending)
        names = [f"{stem}-{k:05d}-of-{len(groups):05d}{self.ending}" for k in range(1, len(groups) + 1)]
        self.targets = [Target(*pair) for pair in zip(names if len(groups) > 1 else [name], groups, strict=True)]
        index = f"{name}.index.json"
        self.index = index if len(groups) > 1 else None
        self.sidecar = f"{name}.recipe.json" if self.ending != ".safetensors" else None
        # If a single file replaces a set of shards, or a set a single file, readers might prefer the old one.
        self.superseded = None if self.sidecar else name if self.index else index

    def to_json(self) -> bytes:
        recipes = {name: table.recipe for name, table in self.tables.items()}
        fields = {"max_shard_size": self.max_shard_size, "force": self.force, "tables": recipes}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def read(cls, folder: int, name: str) -> "Plan | None":
        """Read the plan of an unfinished file, which may be untrusted; return None if there is no plan."""
        try:
            fields = read_json(folder, f"{name}.partial.recipe.json")
        except FileNotFoundError:
            return None
        if not isinstance(fields, dict) or set(fields) != {"max_shard_size", "force", "tables"}:
            raise FormatError(f"{name}.partial.recipe.json must have the fields max_shard_size, force and tables")
        return cls(name, tables_from_recipes(fields["tables"]), fields["max_shard_size"], bool(fields["force"]))

    def refuse_finished(self, folder: int) -> None:
        """Raise FileExistsError for a final name that is taken, unless `force` allows its replacement.

        Only files and symlinks can be replaced. A sidecar that already holds the same recipe is no obstacle.
        """
        others = [name for name in (self.index, self.sidecar, self.superseded) if name]
        for name in [target.name for target in self.targets] + others:
            kind = kind_of(folder, name)
            if kind is Kind.NOTHING:
                continue
            if kind not in (Kind.FILE, Kind.SYMLINK):
                raise FileExistsError(EEXIST, f"is {kind.value}, and force=True replaces only files and symlinks", name)
            if not self.force and not self._same_sidecar(folder, name):
                state = "already exists" if kind is Kind.FILE else "already exists as a symlink"
                raise FileExistsError(EEXIST, f"{state}; pass force=True to replace it", name)

    def refuse_unfinished(self, folder: int) -> None:
        """Raise FileExistsError for files that an earlier creation has left, unless `force` allows their removal, and
        BlockingIOError if a process is writing them."""
        for name in [target.partial for target in self.targets] + [self.plan_file]:
            kind = kind_of(folder, name)
            if kind not in (Kind.NOTHING, Kind.FILE):
                raise FileExistsError(EEXIST, f"is {kind.value} in the place of an unfinished table; remove it", name)
            if kind is Kind.FILE and not self.force:
                for target in self.targets:
                    target.refuse_writer(folder)
                message = "an unfinished table exists: call resume() to finish it, or pass force=True to start over"
                raise FileExistsError(EEXIST, message, name)

    def refuse_small_disk(self, folder: int) -> None:
        """Raise OSError if the files of the plan do not fit on the disk."""
        refuse_small_disk(folder, sum(target.image.nbytes for target in self.targets), self.name)

    def remove_unfinished(self, folder: int) -> None:
        """Remove the files that an earlier creation has left; raise BlockingIOError if a process is writing them."""
        try:
            earlier = Plan.read(folder, self.name)
        except (ValueError, TypeError):
            earlier = None
        for target in [*self.targets, *(earlier.targets if earlier else ())]:
            target.refuse_publisher(folder)
            if not exists(folder, target.partial):
                continue
            try:
                target.claim(folder, 0)
                os.unlink(target.partial, dir_fd=folder)
            finally:
                target.close()
        with suppress(FileNotFoundError):
            os.unlink(self.plan_file, dir_fd=folder)

    def _same_sidecar(self, folder: int, name: str) -> bool:
        """Whether `name` is the sidecar that a removed table left behind, with the recipe of the new table."""
        try:
            return name == self.sidecar and read_json(folder, name) == next(iter(self.tables.values())).recipe
        except (OSError, ValueError):
            return False

    def write_file(self, folder: int) -> None:
        """Write the plan's file, or accept an equal one: each host that writes a part of one table may call this."""
        try:
            write_small(folder, self.plan_file, self.to_json(), False)
            self.wrote_plan_file = True
        except FileExistsError:
            if Plan.read(folder, self.name) != self:
                message = "the unfinished table has another recipe; all parts need the same tables and seed"
                raise FileExistsError(EEXIST, message, self.plan_file) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.to_json() == other.to_json()

    def publish(self, folder: int, sync: bool) -> None:
        """Give the finished files their names: sidecar first, then files, then index; superseded files go last."""
        open_targets = [target for target in self.targets if target.fd >= 0]  # the others already have their names
        for target in open_targets:
            target.check_places(folder, self.force)
        remove_temporaries(folder, [name for name in (self.plan_file, self.sidecar, self.index) if name])
        if self.sidecar:
            recipe = next(iter(self.tables.values())).recipe
            write_small(folder, self.sidecar, json.dumps(recipe, indent=1).encode() + b"\n", True)
        for target in open_targets:
            if sync:
                target.sync(folder)
            move(folder, target.partial, target.name, self.force)
        if self.index:
            weights = {name: target.name for target in self.targets for name in target.tables}
            size = sum(table.nbytes for table in self.tables.values())
            fields = {"metadata": {"total_size": size}, "weight_map": weights}
            write_small(folder, self.index, json.dumps(fields, indent=2).encode() + b"\n", True)
        if self.superseded and self.force:
            with suppress(FileNotFoundError):
                os.unlink(self.superseded, dir_fd=folder)
        os.unlink(self.plan_file, dir_fd=folder)
        if sync:
            os.fsync(folder)

    @contextmanager
    def noted_as_unfinished(self) -> Iterator[None]:
        """Add a note to any error: how to finish the table."""
        try:
            yield
        except BaseException as error:
            error.add_note(f"{self.name} is unfinished; call resume() to finish it")
            raise


def _groups(tables: dict[str, Table], max_bytes: int | None) -> list[dict[str, Table]]:
    """Split the tables, in their order, into groups of at most `max_bytes` bytes; a larger table gets its own group."""
    groups: list[dict[str, Table]] = [{}]
    filled = 0
    for name, table in tables.items():
        if groups[-1] and max_bytes is not None and filled + table.nbytes > max_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = table
        filled += table.nbytes
    return groups
