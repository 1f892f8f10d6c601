"""The plan of a creation: the files that it makes, their names, and the order in which they get them.

Until a table is complete and on the disk, it has another name::

    items.npy.partial               the table, whose whole space is reserved
    items.npy.partial.recipe.json   the plan: recipes and options, with which any process can finish the table
    items.npy                       the complete table, by a rename after fsync
    items.npy.recipe.json           the recipe, where the format has no room for it (.npy, .bin)

With `max_shard_size`, safetensors are split into several files and an index. The plan exists before the first of the
other files and until all of them have their names, and whoever writes any of them holds a lock on it.
"""

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EEXIST
from typing import Any

from .._core.validation import check_count
from ..table import Table
from .formats import FormatError, Tables, format_of_path, named, tables_from_recipes
from .limits import MAX_MODEL_BYTES, MAX_RECIPE_BYTES, json_excess
from .posix import (
    Kind,
    check_own,
    check_room,
    exists,
    is_open,
    json_of,
    kind_of,
    lock,
    move,
    open_file,
    read_json,
    remove_matching,
    sync_folder,
    write_locked,
    write_small,
)  # fmt: skip
from .reader import read_index
from .target import Target

__all__ = ["Plan"]


class Plan:
    """The files that one call of ``create`` makes in an open folder, and the call's arguments.

    `groups`, by the names of the files, replaces the division of the tables by `max_shard_size`.
    """

    def __init__(
        self,
        name: str,
        tables: Tables,
        max_shard_size: int | None,
        force: bool,
        groups: Mapping[str, dict[str, Table]] | None = None,
    ) -> None:
        self.name = name
        self.ending = format_of_path(name)
        self.partial = f"{name}.partial"
        self.plan_file = f"{name}.partial.recipe.json"
        self.tables = named(tables)
        self.force = force
        if max_shard_size is not None:
            max_shard_size = check_count("max_shard_size", max_shard_size)
            if self.ending != ".safetensors":
                raise ValueError(f"max_shard_size= is only for .safetensors files, got {name!r}")
        self.max_shard_size = max_shard_size
        self.identity = secrets.token_hex(16)  # which tells this plan from a later one of the same tables
        self.kept_rows: int | None = None  # the rows of a finished file to which rows are being appended
        self.replaces: list[str] = []  # files of an earlier table that are not replaced by files of the same name
        self._fd = -1
        self._wrote = False
        if groups is None:
            parts = _groups(self.tables, max_shard_size)
            stem = name.removesuffix(self.ending)
            names = [f"{stem}-{k:05d}-of-{len(parts):05d}{self.ending}" for k in range(1, len(parts) + 1)]
            groups = dict(zip(names if len(parts) > 1 else [name], parts, strict=True))
        self.targets = [Target(*pair) for pair in groups.items()]
        index = f"{name}.index.json"
        self.index = None if list(groups) == [name] else index
        self.sidecar = f"{name}.recipe.json" if self.ending != ".safetensors" else None
        # If a single file replaces a set of shards, or a set a single file, readers might prefer the old one.
        self.superseded = None if self.sidecar else name if self.index else index

    @property
    def nbytes(self) -> int:
        return sum(target.image.nbytes for target in self.targets)

    def to_json(self) -> bytes:
        recipes = {name: table.recipe for name, table in self.tables.items()}
        fields = {
            "max_shard_size": self.max_shard_size, "force": self.force, "tables": recipes, "identity": self.identity,
            "replaces": self.replaces, "kept_rows": self.kept_rows,
        }  # fmt: skip
        return json.dumps(fields).encode() + b"\n"

    def _checked_json(self) -> bytes:
        """The plan's text; raise ValueError if that or what will be written later is too large to be read again."""
        data = self.to_json()
        texts = [(data, MAX_MODEL_BYTES)]
        if self.sidecar:
            texts.append((self.sidecar_data(), MAX_RECIPE_BYTES))
        for text, most in texts:
            if len(text) > most or json_excess(text):
                raise ValueError(f"tables must have recipes of at most {most:,} bytes, got {len(text):,}: make fewer")
        return data

    @classmethod
    def read(cls, folder: int, name: str) -> "Plan | None":
        """Read the plan of an unfinished file, which may be untrusted; return None if there is no plan."""
        plan_file = f"{name}.partial.recipe.json"
        try:
            fd = open_file(folder, plan_file, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return cls._parse(name, json_of(fd, plan_file, MAX_MODEL_BYTES))
        finally:
            os.close(fd)

    @classmethod
    def _parse(cls, name: str, fields: Any) -> "Plan":
        what, required = f"{name}.partial.recipe.json", {"max_shard_size", "force", "tables"}
        known = required | {"identity", "replaces", "kept_rows"}
        if not isinstance(fields, dict) or not required <= set(fields) <= known:
            raise FormatError(f"{what} must have the fields max_shard_size, force and tables")
        identity, replaces, kept_rows = fields.get("identity", ""), fields.get("replaces", []), fields.get("kept_rows")
        if type(fields["force"]) is not bool:
            raise FormatError(f"{what} must have true or false as force, got {fields['force']!r:.80}")
        if type(fields["max_shard_size"]) not in (int, type(None)):
            raise FormatError(
                f"{what} must have an int or null as max_shard_size, got {fields['max_shard_size']!r:.80}"
            )
        if not isinstance(identity, str) or not re.fullmatch(r"([0-9a-f]{32})?", identity):
            raise FormatError(f"{what} must have 32 hexadecimal digits as identity, got {identity!r:.80}")
        if not isinstance(replaces, list) or not all(isinstance(file, str) for file in replaces):
            raise FormatError(f"{what} must have a list of names as replaces, got {replaces!r:.80}")
        plan = cls(name, tables_from_recipes(fields["tables"]), fields["max_shard_size"], fields["force"])
        own = plan._own_names()
        if replaces and not (plan.force and all(own.fullmatch(file) for file in replaces)):
            raise FormatError(f"{what} must name only files of an earlier table as replaces, got {replaces!r:.80}")
        if kept_rows is not None:
            rows = plan.targets[0].image.tensors[0].rows
            if type(kept_rows) is not int or not plan.sidecar or plan.force or not 0 <= kept_rows <= rows:
                raise FormatError(f"{what} must have a number of rows as kept_rows, got {kept_rows!r:.80}")
        plan.identity, plan.replaces, plan.kept_rows = identity, replaces, kept_rows
        return plan

    def _own_names(self) -> re.Pattern[str]:
        """The names of all files that belong to a table of this name, of whatever number of shards."""
        stem, ending = re.escape(self.name.removesuffix(self.ending)), re.escape(self.ending)
        return re.compile(rf"{stem}(-[0-9]{{5}}-of-[0-9]{{5}})?{ending}(\.partial)?|{stem}{ending}\.index\.json")

    # ---- obstacles

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

    def refuse_superseded(self, folder: int) -> None:
        """Raise FileExistsError for a file or an index that readers might take for the table in place of its own."""
        if self.superseded and exists(folder, self.superseded):
            message = "exists too, and programs may read it instead; remove one of them, or pass force=True to create()"
            raise FileExistsError(EEXIST, message, self.superseded)

    def refuse_unfinished(self, folder: int) -> None:
        """Raise FileExistsError for files that an earlier creation has left, unless `force` allows their removal, and
        BlockingIOError if a process is writing them."""
        for name in [target.partial for target in self.targets] + [self.plan_file]:
            kind = kind_of(folder, name)
            if kind not in (Kind.NOTHING, Kind.FILE):
                raise FileExistsError(EEXIST, f"is {kind.value} in the place of an unfinished table; remove it", name)
            if kind is Kind.FILE and not self.force:
                with suppress(FileNotFoundError):
                    os.close(_open_locked(folder, self.plan_file, fcntl.LOCK_EX))
                message = "an unfinished table exists: call resume() to finish it, or pass force=True to start over"
                raise FileExistsError(EEXIST, message, name)

    def _same_sidecar(self, folder: int, name: str) -> bool:
        """Whether `name` is the sidecar that a removed table left behind, with the recipe of the new table."""
        try:
            return (
                name == self.sidecar
                and read_json(folder, name, MAX_RECIPE_BYTES) == next(iter(self.tables.values())).recipe
            )
        except (OSError, ValueError):
            return False

    # ---- the plan's file, and the lock on it

    @classmethod
    def resumed(cls, folder: int, name: str, shared: bool, wait: bool = False) -> "Plan | None":
        """Lock and read the plan of an unfinished file; return None if there is no plan."""
        plan_file = f"{name}.partial.recipe.json"
        try:
            fd = _open_locked(folder, plan_file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
        except FileNotFoundError:
            return None
        try:
            plan = cls._parse(name, json_of(fd, plan_file, MAX_MODEL_BYTES))
        except BaseException:
            os.close(fd)
            raise
        plan._fd = fd
        return plan

    def begin(self, folder: int) -> None:
        """Write the plan's file and lock it. With `force`, it replaces an earlier plan, whose files are removed."""
        earlier = -1
        if self.force:
            with suppress(FileNotFoundError):
                earlier = _open_locked(folder, self.plan_file, fcntl.LOCK_EX)
        try:
            leftovers = [target.partial for target in self.targets]
            if self.force:
                before = self._plan_before(earlier)
                self.replaces = self._old_names(folder, before)
                leftovers += [target.partial for target in before.targets] if before else []
            data = self._checked_json()
            check_room(folder, self.plan_file, len(data))
            try:
                self._fd = write_locked(folder, self.plan_file, data, earlier >= 0, fcntl.LOCK_EX)
                self._wrote = True
            except FileExistsError:
                raise FileExistsError(EEXIST, "another process has just begun to write it", self.plan_file) from None
            except FileNotFoundError:  # by `remove_temporaries`
                raise FileExistsError(EEXIST, "another process has just completed it", self.plan_file) from None
            if self.force:
                self.forget_verified(folder)
                for name in leftovers:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
        finally:
            if earlier >= 0:
                os.close(earlier)

    def _plan_before(self, fd: int) -> "Plan | None":
        if fd < 0:
            return None
        try:
            return Plan._parse(self.name, json_of(fd, self.plan_file, MAX_MODEL_BYTES))
        except (ValueError, TypeError):
            return None

    def _old_names(self, folder: int, before: "Plan | None") -> list[str]:
        """The files of earlier tables of this name, finished or not, that no file of this plan will replace."""
        if self.superseded is None:
            return []
        names = {self.superseded}
        index = f"{self.name}.index.json"
        if kind_of(folder, index) is Kind.FILE:
            with suppress(OSError, ValueError):
                names.update(read_index(folder, index)["weight_map"].values())
        if before is not None:
            names.update(before.replaces)
            names.update(name for target in before.targets for name in (target.name, target.partial))
        own = self._own_names()
        kept = {self.index} | {name for target in self.targets for name in (target.name, target.partial)}
        return sorted(name for name in names - kept if own.fullmatch(name))

    def join(self, folder: int) -> None:
        """Share the lock on the plan's file with other writers of parts; write it if there is none."""
        try:
            self._fd = write_locked(folder, self.plan_file, self._checked_json(), False, fcntl.LOCK_SH)
            self._wrote = True
        except (FileExistsError, FileNotFoundError):  # the latter by `remove_temporaries`
            other = Plan.resumed(folder, self.name, shared=True)
            if other is None:
                message = "another process has just completed or removed it"
                raise FileExistsError(EEXIST, message, self.plan_file) from None
            self._fd, self.identity = other._fd, other.identity
            if not self.is_like(other) or other.force:
                message = "the unfinished table has another recipe; all parts need the same tables and seed"
                raise FileExistsError(EEXIST, message, self.plan_file) from None

    def is_like(self, other: "Plan") -> bool:
        """Whether two plans make the same files."""
        mine, others = ((list(p.tables.items()), p.max_shard_size, p.kept_rows) for p in (self, other))
        return mine == others

    def undo(self, folder: int) -> None:
        """Remove the files that this call has made, unless another process has joined it meanwhile."""
        if self._fd < 0:
            return
        try:
            lock(self._fd, fcntl.LOCK_EX, self.plan_file)
        except BlockingIOError:
            return
        made = [target.partial for target in self.targets if target.is_new]
        for name in made + [self.plan_file] * self._wrote:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)

    def close(self) -> None:
        """Close all files, and give up the lock."""
        for target in self.targets:
            target.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---- records of the parts that several processes have verified

    def note_verified(self, folder: int, k: int, n: int) -> None:
        write_small(folder, self._record(k, n), self.identity.encode(), True)

    def all_verified(self, folder: int, n: int) -> bool:
        return all(self._is_verified(folder, k, n) for k in range(n))

    def _is_verified(self, folder: int, k: int, n: int) -> bool:
        try:
            fd = open_file(folder, self._record(k, n), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            check_own(folder, self._record(k, n), fd, links=True)
            return os.pread(fd, 64, 0) == self.identity.encode()
        finally:
            os.close(fd)

    def forget_verified(self, folder: int) -> int:
        """Remove all records; return their number."""
        return remove_matching(folder, self._records)

    def _record(self, k: int, n: int) -> str:
        return f"{self.name}.partial.verified-{k}-of-{n}"

    @property
    def _records(self) -> str:
        return rf"{re.escape(self.name)}\.partial\.verified-[0-9]+-of-[0-9]+"

    def remove_temporaries(self, folder: int) -> None:
        """Remove the temporary files that a crash in ``write_small`` has left, and those of processes that are about to
        begin: they get an error."""
        small = [re.escape(name) for name in (self.plan_file, self.sidecar, self.index) if name]
        remove_matching(folder, rf"\.({'|'.join([*small, self._records])})\.[0-9a-f]{{16}}")

    # ---- the end

    def publish(self, folder: int, sync: bool) -> None:
        """Give the finished files their names.

        The order is that of the class's promise: the tables' bytes are on the disk before anything that an earlier
        table has is replaced, and every new name is on the disk before a name of the earlier table is removed. The plan
        goes last.
        """
        open_targets = [target for target in self.targets if target.file is not None]  # the others have their names
        for target in open_targets:
            target.check_places(folder, self.force)
        if sync:
            for target in open_targets:
                target.sync()
        if not is_open(folder, self.plan_file, self._fd):
            raise FileExistsError(EEXIST, "was removed or replaced while the table was written", self.plan_file)
        self.remove_temporaries(folder)
        if sync:  # the plan, which tells what to do after a loss of power among the renames
            sync_folder(folder)
        if self.sidecar:
            write_small(folder, self.sidecar, self.sidecar_data(), True)
        for target in open_targets:
            move(folder, target.partial, target.name, self.force)
        if self.index:
            write_small(folder, self.index, self.index_data(), True)
        if sync:
            sync_folder(folder)
        for name in self.replaces:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        if (self.forget_verified(folder) or self.replaces) and sync:
            sync_folder(folder)
        self.end(folder, sync)

    def end(self, folder: int, sync: bool) -> None:
        os.unlink(self.plan_file, dir_fd=folder)
        if sync:
            sync_folder(folder)

    def sidecar_data(self) -> bytes:
        recipe = next(iter(self.tables.values())).recipe
        return json.dumps(recipe, indent=1).encode() + b"\n"

    def index_data(self) -> bytes:
        weights = {name: target.name for target in self.targets for name in target.tables}
        size = sum(table.nbytes for table in self.tables.values())
        fields = {"metadata": {"total_size": size}, "weight_map": weights}
        return json.dumps(fields, indent=2).encode() + b"\n"

    @contextmanager
    def noted_as_unfinished(self) -> Iterator[None]:
        """Add a note to any error: how to finish the table."""
        try:
            yield
        except BaseException as error:
            error.add_note(f"{self.name} is unfinished; call resume() to finish it")
            raise


def _open_locked(folder: int, plan_file: str, how: int, wait: bool = False) -> int:
    """Open and lock a plan's file, which must be this user's own; return its descriptor."""
    fd = open_file(folder, plan_file, os.O_RDWR)
    try:
        check_own(folder, plan_file, fd, links=True)
        lock(fd, how, plan_file, wait)
        if not is_open(folder, plan_file, fd):
            raise FileExistsError(EEXIST, "another process has just completed or removed it", plan_file)
        return fd
    except BaseException:
        os.close(fd)
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
