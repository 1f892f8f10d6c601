"""Names, bytes and space on a disk: no symlink followed, no small file half there, no short write."""

import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST, EINTR, EIO, ELOOP, EMLINK, ENOSYS, ENOTSUP, EPERM
from typing import Any

from .untrusted_json import FormatError, from_json

# Sidecars, plans and indices are read whole.
LARGEST_JSON = 1 << 28


# ---- the folder: names that nobody can redirect meanwhile


@contextmanager
def folder_of(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder of a path, and the name in it."""
    folder, name = os.path.split(os.fsdecode(path))
    fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd, name
    finally:
        os.close(fd)


def exists(folder: int, name: str) -> str:
    """What has this name, or nothing."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return ""
    return "a symlink" if stat.S_ISLNK(mode) else "a file" if stat.S_ISREG(mode) else "no regular file"


def open_file(folder: int, name: str, flags: int, follow: bool = False) -> int:
    """A descriptor of a regular file, behind a symlink only if it may `follow` it, to read."""
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(name, flags, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno == ELOOP:
            raise OSError(ELOOP, "a symlink is in the way, and is not followed", name) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(EEXIST, "what is in the way is no regular file", name)
    return fd


def is_open(folder: int, name: str, fd: int) -> bool:
    """Whether a name is that of an open file."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def move(folder: int, source: str, target: str, replace: bool) -> None:
    """Rename; where it must not replace, FileExistsError in place of it."""
    if not replace:
        try:
            os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            fd = open_file(folder, source, os.O_RDONLY)
            try:
                if not is_open(folder, target, fd):
                    raise
            finally:  # a death between the link and the unlink has left both names
                os.close(fd)
        except OSError as error:
            if error.errno not in (EPERM, ENOSYS, ENOTSUP, EMLINK):
                raise
            if exists(folder, target):  # a file system without hard links
                raise FileExistsError(EEXIST, "it exists", target) from None
            replace = True
    if replace:
        os.rename(source, target, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(source, dir_fd=folder)


def write_small(folder: int, name: str, data: bytes, replace: bool) -> None:
    """A file that is there at once and whole."""
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
    """What a death in ``write_small`` has left of these files."""
    temporary = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.[0-9a-f]{{16}}")
    for name in os.listdir(folder):
        if temporary.fullmatch(name):
            os.unlink(name, dir_fd=folder)


def read_json(folder: int, name: str, follow: bool = False) -> Any:
    fd = open_file(folder, name, os.O_RDONLY, follow)
    try:
        size = os.fstat(fd).st_size
        if size > LARGEST_JSON:
            raise FormatError(f"{name} must have at most {LARGEST_JSON:,} bytes, got {size:,}")
        data = bytearray(size)
        return from_json(bytes(data[: pread(fd, memoryview(data), 0)]))
    finally:
        os.close(fd)


def pwrite(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        if not written:
            raise OSError(EIO, "the system wrote nothing and gave no reason")
        data, offset = data[written:], offset + written


def pread(fd: int, data: memoryview, offset: int) -> int:
    """The number of bytes read, fewer than asked for at the end of the file alone."""
    done = 0
    while done < len(data):
        count = os.preadv(fd, [data[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def fallocate(fd: int, nbytes: int) -> int:
    """fallocate(2), whose emulation in glibc writes to each block where the file system lacks it; the error or 0."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is None:
        return ENOSYS
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while call(fd, 0, 0, nbytes):
        if ctypes.get_errno() != EINTR:
            return ctypes.get_errno()
    return 0
