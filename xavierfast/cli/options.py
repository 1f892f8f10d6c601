"""Options that several commands have."""

from typing import Annotated

import typer

# Titles of the groups of options in the help.
TABLE, MODEL, PART = "Options for one table", "Options for a model", "Options for a part of a file"

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
Threads = Annotated[int | None, typer.Option(help="Number of threads; by default, one per usable CPU.", min=1)]
Sample = Annotated[int | None, typer.Option(help="Read only this many blocks of 1 MiB, chosen at random.", min=1)]
Tensor = Annotated[str | None, typer.Option(help="Read only the tensor of this name.")]
Sync = Annotated[bool, typer.Option(help="Wait until the table is on the disk before it gets its final name.")]
