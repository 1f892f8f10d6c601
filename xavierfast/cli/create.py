"""The commands ``create``, for one table, and ``create-model``, for all tables of a model."""

from typing import Annotated, Any

import typer

from .._core.dtypes import DTYPES
from .._core.rules import RULES
from ..files import specs
from ..table import Table
from .numbers import parse_seed
from .options import (
    Bound,
    Distribution,
    DryRun,
    Force,
    Gain,
    High,
    Json,
    Low,
    Mean,
    Mode,
    NoSync,
    Quiet,
    Resume,
    Scale,
    Seed,
    Shard,
    Std,
    Threads,
    Value,
    check_choice,
    parameters_of,
)
from .shell import reporting
from .writing import Writing, final_name

__all__ = ["create", "create_model"]


def create(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH")],
    shape: Annotated[str, typer.Argument(metavar="SHAPE")],
    init: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="xavier_uniform (the default), he_normal, ...", autocompletion=lambda: list(RULES)
        ),
    ] = "xavier_uniform",
    dtype: Annotated[
        str,
        typer.Option(metavar="NAME", help="float32 (the default), bfloat16, ...", autocompletion=lambda: list(DTYPES)),
    ] = "float32",
    seed: Seed = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="The table's name, on which its values depend too.")] = "",
    layout: Annotated[
        str | None, typer.Option(metavar="LETTERS", help="One per axis: i inputs, o outputs, b copies, ...")
    ] = None,
    groups: Annotated[int, typer.Option(metavar="N", help="Groups of a grouped convolution.", min=1)] = 1,
    fan_in: Annotated[int | None, typer.Option(metavar="N", help="In place of the shape's fan-in.", min=1)] = None,
    fan_out: Annotated[int | None, typer.Option(metavar="N", help="In place of the shape's fan-out.", min=1)] = None,
    gain: Gain = None,
    scale: Scale = None,
    mode: Mode = None,
    distribution: Distribution = None,
    bound: Bound = None,
    low: Low = None,
    high: High = None,
    mean: Mean = None,
    std: Std = None,
    value: Value = None,
    rows: Annotated[
        str | None,
        typer.Option(metavar="FIRST:LAST", help="Write only these rows: 2M:5M, 2M: or :5M."),
    ] = None,
    shard: Shard = None,
    resume: Resume = False,
    force: Force = False,
    no_sync: NoSync = False,
    dry_run: DryRun = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write one table to a file.

    PATH ends in .npy, .bin or .safetensors; SHAPE is, for example, 10Mx128.
    """
    path = final_name(path)
    with reporting(path):
        keywords: dict[str, Any] = {
            "dtype": check_choice("--dtype", dtype, DTYPES), "seed": None if seed is None else parse_seed(seed),
            "name": name, "layout": layout, "groups": groups, "fan_in": fan_in, "fan_out": fan_out,
            **parameters_of(init, context.params),
        }  # fmt: skip
        table = Table(specs.parse_shape(shape), init, **keywords)  # type: ignore[arg-type]
        part = _part(shard)
        if rows is not None:
            first, last = specs.parse_range(rows)
            part["rows"] = (first, last if last is not None else table.shape[0] if table.shape else 1)
        Writing(
            path,
            {name: table},
            seed is not None,
            part,
            None,
            resume,
            force,
            not no_sync,
            dry_run,
            threads,
            quiet,
            as_json,
        ).run()


def create_model(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH")],
    spec: Annotated[
        str | None, typer.Option(metavar="FILE", help="A .toml or .json file with names, shapes and rules.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="FILE", help="A .safetensors file of the same names and shapes.")
    ] = None,
    rules: Annotated[
        str | None, typer.Option(metavar="FILE", help="For --like: a .toml or .json file of rules.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="For --like: one initialiser for all tensors.",
            autocompletion=lambda: list(RULES),
        ),
    ] = None,
    seed: Seed = None,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Split into files of at most this size: 5GB.")
    ] = None,
    shard: Shard = None,
    resume: Resume = False,
    force: Force = False,
    no_sync: NoSync = False,
    dry_run: DryRun = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write all tables of a model.

    PATH ends in .safetensors. Give either --spec, or --like with --rules or --init; docs/files.md shows a spec.

    Example: xavierfast create-model m.safetensors --spec model.toml --seed 0
    """
    path = final_name(path)
    with reporting(path):
        if (spec is None) == (like is None):
            raise ValueError("a model needs either --spec or --like, got " + ("none" if spec is None else "both"))
        if like is None and (rules is not None or init is not None):
            raise ValueError("--rules and --init are only for --like: a spec has its own rules")
        if rules is not None and init is not None:
            raise ValueError("--like takes --rules or --init, got both")
        chosen = None if seed is None else parse_seed(seed)
        if like is not None:
            one_rule = {"*": check_choice("--init", init or "xavier_uniform", RULES)}
            tables, has_seed = (
                specs.like(like, one_rule if rules is None else _rules(rules), chosen),
                chosen is not None,
            )
        else:
            fields = specs.read_spec(spec or "")
            tables, has_seed = specs.from_spec(fields, chosen), chosen is not None or "seed" in fields
        max_bytes = None if max_shard_size is None else specs.parse_size(max_shard_size)
        Writing(
            path,
            tables,
            has_seed,
            _part(shard),
            max_bytes,
            resume,
            force,
            not no_sync,
            dry_run,
            threads,
            quiet,
            as_json,
        ).run()


def _part(shard: str | None) -> dict[str, Any]:
    return {} if shard is None else {"shard": specs.parse_fraction(shard)}


def _rules(path: str) -> dict[str, Any]:
    fields = specs.read_spec(path)
    rules = fields.get("rules", fields)
    if not isinstance(rules, dict):
        raise ValueError(f"rules must map patterns to initialisers, got {rules!r:.80}")
    return rules
