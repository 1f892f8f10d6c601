"""File operations: symlinks are followed only on request, small files are written atomically, no write is short."""

import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from errno import EEXIST, EINTR, EIO, ELOOP, EMLINK, ENOSYS, ENOTSUP, EPERM
from typing import Any

from .untrusted_json import FormatError, from_json

# Sidecars, plans and indices are read whole, so larger ones are refused.
MAX_JSON_BYTES = 1 << 28


# ---- names in an open folder, which nobody can redirect by renaming or replacing the folder


@contextmanager
def folder_of(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Open the folder of a path; yield its descriptor, and the file's name in it."""
    check_local(path)
    folder, name = os.path.split(os.fsdecode(path))
    fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd, name
    finally:
        os.close(fd)


def check_local(path: str | os.PathLike[str]) -> None:
    """Raise ValueError for a URL: files are written in place, which object stores cannot do."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fsdecode(path)):
        raise ValueError(
            f"a path must be that of a file on a disk or on shared storage, got {os.fsdecode(path)!r}: "
            "xavierfast.dask.create writes zarr arrays to object stores"
        )


class Kind(Enum):
    """The kind of a folder's entry; the values are nouns for error messages."""

    NOTHING = "nothing"
    FILE = "a regular file"
    SYMLINK = "a symlink"
    FOLDER = "a folder"
    FIFO = "a named pipe"
    OTHER = "a device or a socket"


def kind_of(folder: int, name: str) -> Kind:
    """The kind of the entry that has this name; a symlink is not followed."""
    try:
        return _kind_of_mode(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return Kind.NOTHING


def _kind_of_mode(mode: int) -> Kind:
    kinds = {
        stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK, stat.S_IFDIR: Kind.FOLDER, stat.S_IFIFO: Kind.FIFO,
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), Kind.OTHER)


def exists(folder: int, name: str) -> bool:
    """Whether an entry of any kind has this name."""
    return kind_of(folder, name) is not Kind.NOTHING


def open_file(folder: int, name: str, flags: int, follow: bool = False) -> int:
    """Open a regular file and return its descriptor; a symlink is an error unless `follow`, which is for reading."""
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(name, flags, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno == ELOOP:
            raise OSError(ELOOP, "is a symlink, which is not followed; remove it first", name) from None
        raise
    kind = _kind_of_mode(os.fstat(fd).st_mode)
    if kind is not Kind.FILE:
        os.close(fd)
        raise OSError(EEXIST, f"is {kind.value}, not a regular file", name)
    return fd


def is_open(folder: int, name: str, fd: int) -> bool:
    """Whether a name refers to the open file `fd`."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def move(folder: int, source: str, target: str, replace: bool) -> None:
    """Rename `source` to `target`; raise FileExistsError if `target` exists, unless `replace`."""
    if not replace:
        try:
            os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            fd = open_file(folder, source, os.O_RDONLY)
            try:
                if not is_open(folder, target, fd):  # else a crash between link and unlink has left both names
                    raise
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in (EPERM, ENOSYS, ENOTSUP, EMLINK):
                raise
            if exists(folder, target):  # a file system without hard links
                raise FileExistsError(EEXIST, "already exists", target) from None
            replace = True
    if replace:
        os.rename(source, target, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(source, dir_fd=folder)


def write_small(folder: int, name: str, data: bytes, replace: bool) -> None:
    """Write a small file atomically: temporary file, fsync, rename."""
    temporary = f".{name}.{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        try:
            pwrite(fd, memoryview(data), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        move(folder, temporary, name, replace)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def remove_temporaries(folder: int, names: Iterable[str]) -> None:
    """Remove the temporary files that a crash in ``write_small`` has left of files with these names."""
    temporary = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.[0-9a-f]{{16}}")
    for name in os.listdir(folder):
        if temporary.fullmatch(name):
            os.unlink(name, dir_fd=folder)


def read_json(folder: int, name: str, follow: bool = False) -> Any:
    fd = open_file(folder, name, os.O_RDONLY, follow)
    try:
        size = os.fstat(fd).st_size
        if size > MAX_JSON_BYTES:
            raise FormatError(f"{name} must have at most {MAX_JSON_BYTES:,} bytes, got {size:,}")
        data = bytearray(size)
        return from_json(bytes(data[: pread(fd, memoryview(data), 0)]))
    finally:
        os.close(fd)


def free_bytes(fd: int) -> int | None:
    """The bytes that this process may still write on the file system of an open file or folder, None if unknown."""
    stat = os.statvfs(fd)
    if not stat.f_blocks:  # some network file systems say nothing
        return None
    return (stat.f_bavail if os.geteuid() else stat.f_bfree) * stat.f_frsize


def pwrite(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        if not written:
            raise OSError(EIO, "the system wrote nothing and gave no reason")
        data, offset = data[written:], offset + written


def pread(fd: int, data: memoryview, offset: int) -> int:
    """Read into `data`; return the number of bytes read, which is less than its length only at the end of the file."""
    done = 0
    while done < len(data):
        count = os.preadv(fd, [data[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def fallocate(fd: int, nbytes: int) -> int:
    """Reserve space with fallocate(2); return its error number, or 0.

    Where the file system lacks fallocate, os.posix_fallocate is no substitute: glibc would write to each block.
    """
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is None:
        return ENOSYS
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while call(fd, 0, 0, nbytes):
        if ctypes.get_errno() != EINTR:
            return ctypes.get_errno()
    return 0
