"""The command ``explain``."""

import json
import re
from typing import Annotated, Any

import typer

from .._core.rules import KINDS, MODES, RULES
from .numbers import parse_number, parse_seed
from .options import Json, check_choice
from .shell import reporting

__all__ = ["explain"]


def _activations() -> list[str]:
    from ..propagation import ACTIVATIONS

    return list(ACTIVATIONS)


def explain(
    layers: Annotated[
        str,
        typer.Option(metavar="WIDTHS", help="1000x5 for five layers of 1000, or each width, such as 784,512x3,10."),
    ] = "1000x5",
    activation: Annotated[
        str, typer.Option(metavar="NAME", help="sigmoid, tanh, relu, ...", autocompletion=_activations)
    ] = "tanh",
    init: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INIT",
            help='A scheme: he_normal, "normal(std=0.01)", old_heuristic, ...; may be repeated. By default, seven.',
            autocompletion=lambda: ["old_heuristic", *RULES],
        ),
    ] = None,
    input_std: Annotated[
        str,
        typer.Option(
            metavar="X",
            help="The inputs' standard deviation: 1 is that of normalised data; with 0.25, tanh is nearly linear.",
        ),
    ] = "1",
    batch: Annotated[int, typer.Option(metavar="N", help="The number of inputs.", min=1)] = 256,
    seed: Annotated[str, typer.Option(metavar="SEED", help="Of weights and inputs: 7, 0x10 or 1,2.")] = "0",
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw all this to a new .png, .svg or .pdf file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --plot replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Show what an initialisation does to a deep network.

    A batch of inputs goes up through the layers, and a random gradient comes back down. The result is a table with one
    row per scheme, and a sentence on what its figures mean.

    xavierfast explain --layers 300x5 --init zeros --init "normal(std=0.01)" --plot why.png
    """
    with reporting():
        from .. import propagation

        chosen: dict[str, Any] = {"inits": [_parse_init(text) for text in init]} if init else {}
        check_choice("--activation", activation, propagation.ACTIVATIONS)
        found = propagation.explain(
            propagation.parse_layers(layers), activation, input_std=_parse_input_std(input_std), batch=batch,
            seed=parse_seed(seed), plot=plot, force=force, **chosen,
        )  # fmt: skip
        print(json.dumps(found.to_dict()) if as_json else found)


def _parse_init(text: str) -> str | dict[str, Any]:
    """The scheme that a text such as he_normal or normal(std=0.01) names, as reports label it."""
    form = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", text.strip(), re.DOTALL)
    try:
        if form is None:
            raise ValueError(f"it must be a name, or a name and parameters, such as normal(std=0.01), got {text!r:.80}")
        name, inside = form.groups()
        known = RULES[name].defaults if check_choice("the scheme", name, ["old_heuristic", *RULES]) in RULES else {}
        if not inside:
            return name
        rule: dict[str, Any] = {"init": name}
        for part in inside.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or key not in known or key in rule:
                takes = f"the parameters {', '.join(known)}, each once, as {next(iter(known))}=..." if known else ""
                raise ValueError(f"{name} takes {takes or 'no parameters'}, got {part.strip()!r:.80}")
            choices = {"mode": MODES, "distribution": KINDS}.get(key)
            rule[key] = check_choice(key, value, choices) if choices else parse_number(value)
        return rule
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--init") from None


def _parse_input_std(text: str) -> float:
    try:
        std = parse_number(text)
        if isinstance(std, complex) or not 1e-20 <= std <= 1e20:
            raise ValueError(f"it must be from 1e-20 to 1e20, got {text!r:.80}")
        return float(std)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--input-std") from None
