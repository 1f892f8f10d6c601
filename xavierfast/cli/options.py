"""Options that several commands have, and the checks of what they are given."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from .._core.rules import KINDS, MODES, RULES
from .._core.validation import did_you_mean
from .numbers import parse_number

Path = Annotated[str, typer.Argument(metavar="PATH")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
Threads = Annotated[int | None, typer.Option(metavar="N", help="Threads; by default one per usable CPU.", min=1)]
Sample = Annotated[int | None, typer.Option(metavar="N", help="Read only N blocks of 1 MiB, chosen at random.", min=1)]
Tensor = Annotated[str | None, typer.Option(metavar="NAME", help="Read only this tensor.")]
NoSync = Annotated[bool, typer.Option("--no-sync", help="Do not wait until the data is on the disk.")]
Seed = Annotated[str | None, typer.Option(metavar="SEED", help="7, 0x10 or 1,2; by default a new random one.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a begun file; check a finished one.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file, which stays intact until the end.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the space and time needed; write nothing.")]
Shard = Annotated[str | None, typer.Option(metavar="K/N", help="Write only shard K of N, from 0/N to (N-1)/N.")]


# ---- parameters of initialisers


def _takers(parameter: str) -> str:
    """The initialisers that take a parameter; families are named once, and aliases are left out."""
    names = [name for name, rule in RULES.items() if parameter in rule.defaults and name == rule.name]
    families = {f"{family}_{kind}": f"{family}_*" for family in ("xavier", "he", "lecun") for kind in KINDS}
    return ", ".join(dict.fromkeys(families.get(name, name) for name in names))


def _parameter(name: str, metavar: str, what: str) -> Any:
    return typer.Option(
        f"--{name}",
        metavar=metavar,
        help=f"{what} ({_takers(name)})",
        rich_help_panel="Parameters, such as 0.02 or 1/sqrt(128), and the initialisers that take them",
    )


Gain = Annotated[str | None, _parameter("gain", "X", "Factor")]
Scale = Annotated[str | None, _parameter("scale", "X", "Factor of the variance")]
Mode = Annotated[str | None, _parameter("mode", "MODE", "fan_in, fan_out, ...")]
Distribution = Annotated[str | None, _parameter("distribution", "KIND", ", ".join(KINDS))]
Bound = Annotated[str | None, _parameter("bound", "X", "Values from -X to X")]
Low = Annotated[str | None, _parameter("low", "X", "Least, in std if truncated")]
High = Annotated[str | None, _parameter("high", "X", "Most, in std if truncated")]
Mean = Annotated[str | None, _parameter("mean", "X", "Mean")]
Std = Annotated[str | None, _parameter("std", "X", "Standard deviation")]
Value = Annotated[str | None, _parameter("value", "X", "All values")]

PARAMETERS = ("gain", "scale", "mode", "distribution", "bound", "low", "high", "mean", "std", "value")


def check_choice(option: str, value: str, choices: Iterable[str]) -> str:
    """The value, which must be one of the choices; an error names those first that are spelt alike."""
    choices = list(choices)
    if value in choices:
        return value
    hint = did_you_mean(value, choices)
    raise ValueError(f"{option} {value!r:.80} is unknown{hint}; it must be one of {', '.join(choices)}")


def parameters_of(init: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an initialiser that options give."""
    known = RULES[check_choice("--init", init, RULES)].defaults
    given: dict[str, Any] = {}
    for name in PARAMETERS:
        text = options[name]
        if text is None:
            continue
        if name not in known:
            takes = " and ".join(f"--{name}" for name in known) or "no parameters"
            raise ValueError(f"--init {init} takes {takes}, got --{name}, which is of {_takers(name)}")
        if name in ("mode", "distribution"):
            given[name] = check_choice(f"--{name}", text, MODES if name == "mode" else KINDS)
        else:
            try:
                given[name] = parse_number(text)
            except ValueError as error:
                raise ValueError(f"--{name}: {error}") from None
    return given
