"""The command ``explain``."""

from typing import Annotated

import typer

from .shell import reporting


def _activations() -> list[str]:
    from ..propagation import ACTIVATIONS

    return list(ACTIVATIONS)


def explain(
    layers: Annotated[
        str, typer.Option(help="Widths: 1000x5 for five layers of 1000, or each width, such as 784,512x3,10.")
    ] = "1000x5",
    activation: Annotated[
        str, typer.Option(help="The activation: sigmoid, tanh, relu, ...", autocompletion=_activations)
    ] = "tanh",
    batch: Annotated[int, typer.Option(help="The number of inputs to push through the network.", min=1)] = 256,
    seed: Annotated[int, typer.Option(help="The seed of the weights and the inputs.", min=0)] = 0,
    plot: Annotated[
        str | None, typer.Option(help="Draw histograms and variances to this .png, .svg or .pdf file.")
    ] = None,
) -> None:
    """Show how zeros, old heuristics, Xavier and He affect the signals and gradients of a deep network.

    xavierfast explain --layers 1000x5 --activation tanh --plot why.png
    """
    with reporting():
        from .. import propagation

        widths = propagation.parse_layers(layers)
        print(propagation.explain(widths, activation, batch=batch, seed=seed, plot=plot))
