"""Text for people: sizes, speeds, and names from files that nobody vouches for."""

__all__ = ["as_text", "printable", "size", "speed"]


def as_text(name: str | bytes | int) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def printable(text: str) -> str:
    """Escape control characters, which an untrusted file may contain."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def size(nbytes: float) -> str:
    """Format a number of bytes for people, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if nbytes < 1000 or unit == "TB":
            break
        nbytes /= 1000
    return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:,.2f} {unit}"


def speed(nbytes: int, seconds: float) -> str:
    return f"{size(nbytes)} in {seconds:.2f} s, {nbytes / max(seconds, 1e-9) / 1e9:.2f} GB/s"
