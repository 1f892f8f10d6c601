"""Text for people: sizes, speeds, and names, which may come from an untrusted file.

A printed name must not command a terminal (ESC, OSC), reverse the text around it (bidirectional marks), be taken for
markup or for an emoji code by rich, or look like lines of a report that the name's owner would like to be read.
"""

import re
import shlex

__all__ = ["as_text", "duration", "printable", "shell_word", "shown_name", "shown_path", "size", "speed"]

# Names of these characters only are shown as they are; among them is no space, so that no name looks like a sentence.
_PLAIN = re.compile(r"[A-Za-z0-9_./+@%:,=~\[\]()*-]{1,1000}")
# The length to which other names are cut: less than a terminal's line, so that no part of one has a line of its own.
MAX_QUOTED = 60


def as_text(name: str | bytes | int) -> str:
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)


def printable(text: str) -> str:
    """Escape all characters that are not visible: line breaks, control characters, bidirectional marks."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown_name(name: str) -> str:
    """The name of a tensor: as it is if it is plain, else in quotes, escaped, and cut if it is long."""
    if _PLAIN.fullmatch(name):
        return name
    rest = f"... ({len(name):,} characters)" if len(name) > MAX_QUOTED else ""
    return repr(name[:MAX_QUOTED]) + rest


def shown_path(path: str) -> str:
    """The path of a file, which its user has chosen: as it is if it is plain, else in quotes and escaped."""
    return path if _PLAIN.fullmatch(path) else repr(path)


def shell_word(path: str) -> str:
    """The word that stands for a path in a command to be copied into a shell."""
    path = f"./{path}" if path.startswith("-") else path
    if path.isprintable():
        return shlex.quote(path)
    escaped = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in path.encode(errors="surrogateescape")
    )
    return f"$'{escaped}'"


def size(nbytes: float) -> str:
    """Format a number of bytes for people, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if nbytes < 1000 or unit == "TB":
            break
        nbytes /= 1000
    return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:,.2f} {unit}"


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"


def speed(nbytes: int, seconds: float) -> str:
    return f"{size(nbytes)} in {duration(seconds)}, {nbytes / max(seconds, 1e-9) / 1e9:.2f} GB/s"
