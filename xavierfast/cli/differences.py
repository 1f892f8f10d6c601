"""The lines that say which rows of a file differ from its recipe."""

from .. import files
from .text import shown_name, shown_path

__all__ = ["check_lines", "difference_lines"]

# The ranges of rows that a line lists.
MAX_LISTED = 10


def difference_lines(path: str, found: files.Verification, how: str) -> list[str]:
    lines = check_lines(path, found.tensors, how)
    if found.extra:
        lines.append(f"{shown_path(path)}: {found.extra:,} bytes after the last tensor")
    return lines


def check_lines(path: str, checks: tuple[files.TensorCheck, ...], how: str) -> list[str]:
    """One line for each tensor that differs, or could not be compared."""
    lines = []
    for check in checks:
        name = f"{shown_path(path)}: {shown_name(check.name)}" if check.name else shown_path(path)
        if check.problem:
            lines.append(f"{name}: {check.problem}")
        elif check.differ:
            shown = check.ranges[:MAX_LISTED]
            listed = ", ".join(f"{first:,}:{last:,}".replace(",", "_") for first, last in shown)
            rest = check.differ - sum(last - first for first, last in shown)
            listed += f" and {rest:,} more" if rest else ""
            lines.append(f"{name}: {check.differ:,} of {check.rows:,} rows {how}: {listed}")
    return lines
