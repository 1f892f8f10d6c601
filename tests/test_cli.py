"""The command: what it prints, what it writes, its exit codes, and how it ends when it is stopped."""

import contextlib
import io
import json
import math
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from cli_support import COMMAND, SPEC, call
from support import need

import xavierfast as xf
from xavierfast import files
from xavierfast._core.extras import how_to_install
from xavierfast._core.rules import RULES
from xavierfast.files import specs


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for module in ("typer", "rich"):
        need(module)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spawn(*arguments, code=0, **keywords):
    """The same in a process of its own."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, **keywords)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code >= 2 else done.stdout


@pytest.fixture
def items():
    table = xf.Table((1000, 64), seed=7, name="items")
    files.create("items.npy", table)
    return table


# ---- create


def test_create_writes_what_the_table_holds():
    out = call("create", "items.npy", "1Kx64", "--seed", "7", "--name", "items")
    assert re.fullmatch(
        r"items\.npy: written, 256\.00 kB in [\d.]+ m?s, [\d.]+ GB/s\n"
        r"  seed   7\n"
        r"  values fan_in 1,000, fan_out 64, bound 0\.0750939, std 0\.0433555\n"
        r"  time   [\d.]+ m?s computing at [\d.]+ GB/s, [\d.]+ m?s writing, [\d.]+ m?s waiting for the disk\n",
        out,
    )
    assert np.array_equal(np.load("items.npy"), xf.xavier_uniform((1000, 64), seed=7, name="items"))
    assert json.loads(Path("items.npy.recipe.json").read_text())["seed"] == 7


def test_create_passes_each_option_on():
    call(
        "create", "conv.bin", "8x4x3x3", "--init", "variance_scaling", "--mode", "fan_out", "--scale", "1/2",
        "--dtype", "float64", "--layout", "oihw", "--groups", "2", "--seed", str(1 << 90), "--name", "conv",
        "--threads", "1",
    )  # fmt: skip
    keywords = {"mode": "fan_out", "scale": 0.5, "dtype": "float64", "layout": "oihw", "groups": 2, "seed": 1 << 90}
    expected = xf.Table((8, 4, 3, 3), "variance_scaling", name="conv", **keywords)
    assert files.tables_of("conv.bin") == {"conv": expected}
    assert np.array_equal(files.load("conv.bin"), expected[...])
    call("create", "bias.npy", "10", "--fan-in", "3", "--fan-out", "4", "--seed", "0")
    assert np.array_equal(np.load("bias.npy"), xf.xavier_uniform(10, fan_in=3, fan_out=4, seed=0))


def test_without_a_seed_each_table_has_a_fresh_one():
    call("create", "a.npy", "2x2")
    call("create", "b.npy", "2x2")
    (a,), (b,) = files.tables_of("a.npy").values(), files.tables_of("b.npy").values()
    assert a.seed != b.seed
    assert files.verify("a.npy").ok


def test_create_from_a_spec(folder):
    (folder / "model.toml").write_text(SPEC)
    call("create-model", "model.safetensors", "--spec", "model.toml", "--seed", "3")
    assert files.tables_of("model.safetensors") == files.from_spec("model.toml", 3)
    call("create-model", "model.safetensors", "--spec", "model.toml", "--seed", "3", code=3)


def test_means_and_ranges(folder):
    call("create", "gate.npy", "1Kx64", "--init", "uniform", "--low", "0", "--high", "1", "--seed", "7")
    assert np.array_equal(np.load("gate.npy"), xf.uniform((1000, 64), low=0, high=1, seed=7))
    shown = json.loads(call("show", "gate.npy", "--json"))["tensors"][0]
    assert (shown["expected"]["mean"], shown["edges"]) == (0.5, [0.0, 1.0])
    assert "from the recipe's" in call("show", "gate.npy")
    tensor = 'scale = {shape = [64], init = "normal", mean = 1.0, std = 0.02}'
    (folder / "model.toml").write_text(f"[tensors]\n{tensor}\n")
    call("create-model", "model.safetensors", "--spec", "model.toml", "--seed", "3")
    call("verify", "model.safetensors")
    expected = xf.Table(64, "normal", mean=1.0, std=0.02, seed=3, name="scale")
    assert files.tables_of("model.safetensors") == {"scale": expected}
    assert "takes bound, or low and high" in call("create", "x.npy", "9", "--init", "uniform", "--low", "0", code=2)


def test_create_from_a_spec_in_json_with_a_seed_of_its_own(folder):
    spec = {"seed": 5, "tensors": {"w": "2Kix4"}, "rules": {"*": "he_normal"}}
    (folder / "model.json").write_text(json.dumps(spec))
    call("create-model", "model.safetensors", "--spec", "model.json")
    assert files.tables_of("model.safetensors") == {"w": xf.Table((2048, 4), "he_normal", seed=5, name="w")}


def test_create_like_another_model(folder):
    (folder / "model.toml").write_text(SPEC)
    (folder / "rules.json").write_text('{"*.bias": "skip", "*": {"init": "uniform", "bound": 0.5}}')
    call("create-model", "model.safetensors", "--spec", "model.toml", "--seed", "3")
    call("create-model", "other.safetensors", "--like", "model.safetensors", "--rules", "rules.json", "--seed", "4")
    tables = files.tables_of("other.safetensors")
    assert list(tables) == ["h.1.weight", "embed.weight", "h.0.weight"]
    assert tables["embed.weight"] == xf.Table(
        (1000, 64), "uniform", bound=0.5, dtype="bfloat16", seed=4, name="embed.weight"
    )
    call("create-model", "third.safetensors", "--like", "model.safetensors", "--init", "zeros", "--seed", "4")
    assert {table.init for table in files.tables_of("third.safetensors").values()} == {"zeros"}


def test_shards_and_their_index(folder):
    (folder / "model.toml").write_text(SPEC)
    call("create-model", "model.safetensors", "--spec", "model.toml", "--seed", "3", "--max-shard-size", "100kB")
    index = json.loads(Path("model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 128_000 + 8192 + 128 + 8192
    assert len(set(index["weight_map"].values())) == 2
    for name in ("model.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors"):
        call("verify", name)


def test_parts_in_any_order():
    part = ["create", "items.npy", "1Kx64", "--seed", "7"]
    out = call(*part, "--rows", "500:1K")
    assert re.match(
        r"items\.npy: part written, 128\.00 kB in .*\n  seed .*\n  values .*\n  time .*\n"
        r"when all parts are written, run xavierfast resume items\.npy\n",
        out,
    )
    assert "128.00 kB" in call(*part, "--rows", "500:1_000")
    call(*part, "--shard", "0/4")
    assert "unfinished; run xavierfast resume items.npy to finish it" in call("verify", "items.npy", code=3)
    call("resume", "items.npy")
    assert np.array_equal(np.load("items.npy"), xf.xavier_uniform((1000, 64), seed=7))
    assert "items.npy: was finished before, and all of it is right; 256.00 kB in" in call("resume", "items.npy")


@pytest.mark.parametrize("rows", ["500:", "500:1K", "500:1_000"])
def test_open_ranges_of_rows(rows):
    part = ["create", "items.npy", "1Kx64", "--seed", "7", "--rows"]
    assert json.loads(call(*part, rows, "--json"))["written"] == 128_000
    assert "0:500" in call("status", "items.npy", code=1)
    call(*part, ":500")
    assert call("status", "items.npy") == "items.npy: unfinished, nothing is missing\n"
    assert json.loads(call(*part, ":", "--json"))["written"] == 256_000


def test_status_of_parts():
    part = ["create", "items.npy", "1Kx64", "--seed", "7"]
    call(*part, "--shard", "0/4")
    call(*part, "--shard", "2/4")
    assert call("status", "items.npy.partial", "--shards", "4", code=1) == (
        "items.npy: missing shards: 1/4, 3/4\nitems.npy: unfinished, something is missing\n"
    )
    assert call("status", "items.npy", code=1) == (
        "items.npy: 500 of 1,000 rows are missing or wrong: 250:500, 750:1_000\n"
        "items.npy: unfinished, something is missing\n"
    )
    found = json.loads(call("status", "items.npy", "--shards", "4", "--json", code=1))
    assert (found["missing"], found["finished"], found["complete"]) == ([1, 3], False, False)
    call("resume", "items.npy")
    assert call("status", "items.npy", "--shards", "4") == "items.npy: finished, nothing is missing\n"
    assert call(*part, "--shard", "2/4") == "items.npy: finished already, and the part is as it should be\n"
    other = ["create", "items.npy", "1Kx64", "--seed", "8", "--shard", "1/4"]
    assert "already finished, and differs from the part to be written" in call(*other, code=3)
    assert "xavierfast.dask.create writes zarr arrays" in call("create", "s3://b/t.npy", "3x4", "--seed", "7", code=2)


def test_dry_run_tells_and_leaves_nothing(folder):
    found = json.loads(call("create", "items.npy", "1Mx128", "--dry-run", "--json"))
    assert found["nbytes"] == 512_000_128
    assert found["free"] > 0
    assert found["seconds"] is None or found["seconds"] > 0
    for option in ([], ["--force"]):
        missing = call("create", "items.npy", "1Tx100000", "--dry-run", "--quiet", *option, code=3)
        assert re.fullmatch(r"xavierfast: not enough free space: [\d,.]+ TB more needed\n", missing)
        error = call("create", "items.npy", "1Tx100000", "--quiet", *option, code=3)
        assert error.startswith("xavierfast: items.npy: No space left on device: 400,000,000,000,000,128 bytes are ")
        assert re.search(r"needed, and [\d,]{5,} are free\n$", error)
    assert not list(folder.iterdir())


def test_resume_is_the_same_command_again():
    command = ["create", "items.npy", "1Kx64", "--seed", "7", "--resume"]
    call(*command)
    before = Path("items.npy").stat().st_mtime_ns
    assert "was finished before, and all of it is right" in call(*command)
    assert Path("items.npy").stat().st_mtime_ns == before
    assert "another recipe" in call("create", "items.npy", "1Kx64", "--seed", "8", "--resume", code=3)
    assert "another recipe" in call("create", "items.npy", "1Kx65", "--resume", code=3)
    call("create", "items.npy", "1Kx64", "--resume")
    call("create", "items.npy", "1Kx65", "--seed", "7", "--resume", "--force")
    assert "1000x65" in call("show", "items.npy").replace(" ", "").replace("(1000,65)", "1000x65")


def test_force_replaces(items):
    call("create", "items.npy", "10x4", "--seed", "1", code=3)
    assert np.array_equal(np.load("items.npy"), items[...])
    call("create", "items.npy", "10x4", "--seed", "1", "--force", "--no-sync", "--quiet")
    assert np.array_equal(np.load("items.npy"), xf.xavier_uniform((10, 4), seed=1))


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "a.npy"],
        ["create", "a.npy", "3x4", "--spec", "model.toml"],
        ["create", "a.txt", "3x4"],
        ["create", "a.npy", "3xfour"],
        ["create", "a.npy", "0.5x4"],
        ["create", "a.npy", "3x4", "--init", "none"],
        ["create", "a.npy", "3x4", "--gain", "much"],
        ["create", "a.npy", "3x4", "--gian", "2"],
        ["create", "a.npy", "3x4", "--std", "2"],
        ["create", "a.npy", "3x4", "--seed", "1.5"],
        ["create", "a.npy", "3x4", "--rules", "rules.json"],
        ["create-model", "a.safetensors"],
        ["create-model", "a.safetensors", "--spec", "model.toml", "--like", "a.safetensors"],
        ["create-model", "a.safetensors", "--spec", "model.toml", "--init", "zeros"],
        ["create", "a.npy", "3x4", "--rows", "0:2"],
        ["create", "a.npy", "3x4", "--rows", "0-2", "--seed", "0"],
        ["create", "a.npy", "3x4", "--rows", "2:5", "--seed", "0"],
        ["create", "a.npy", "3x4", "--shard", "3", "--seed", "0"],
        ["create", "a.npy", "3x4", "--shard", "2/2", "--seed", "0"],
        ["create", "a.npy", "3x4", "--shard", "1/2", "--seed", "0", "--resume"],
        ["create", "a.npy", "3x4", "--max-shard-size", "5GB"],
        ["create", "a.safetensors", "3x4"],
        ["create", "a.npy", "3x4", "--threads", "0"],
        ["create", "a.npy", "3x4", "--nonsense"],
        ["create-model", "a.safetensors", "--spec", "model.txt"],
        ["create-model", "a.safetensors", "--spec", "model.toml", "--dtype", "float16"],
        ["verify"],
        ["verify", "items.npy", "--tensor", "other"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments, items, folder):
    (folder / "model.toml").write_text(SPEC)
    before = sorted(folder.iterdir())
    assert call(*arguments, code=2)
    assert sorted(folder.iterdir()) == before


# ---- numbers, seeds and words as people type them


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.02", 0.02), ("1e-3", 1e-3), ("2**-5", 2**-5), ("1/sqrt(128)", 1 / math.sqrt(128)), ("-3", -3), ("+3", 3),
        ("1/3", 1 / 3), ("(1 + 2) * 3 - 4", 5), (" 7 ", 7), ("sqrt(2 / (784 + 256))", math.sqrt(2 / 1040)),
        ("1_000", 1000), ("0x10", 16), ("exp(-1)", math.exp(-1)), ("log(2)", math.log(2)), ("pi/e", math.pi / math.e),
        ("inf", math.inf), ("-inf", -math.inf), ("2**0.5", 2**0.5), ("-2**2", -4), ("1+2j", 1 + 2j),
        ("2**1000", 2**1000),
        ("1e308 * 10", math.inf), ("2**-2000", 0.0),
    ],
)  # fmt: skip
def test_numbers(text, value):
    from xavierfast.cli.numbers import parse_number

    found = parse_number(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    ["", "x", "1 2", "two", "nan", "None", "True", "'a'", "[1]", "(1, 2)", "{}", "1 if 1 else 2", "1 < 2", "lambda: 0",
     "__import__('os')", "().__class__", "sqrt", "sqrt()", "sqrt(1, 2)", "sqrt(x=1)", "sqrt(*[1])", "pow(2, 3)", "2^3",
     "7 // 2", "7 % 2", "~1", "not 1", "1; 2", "x := 1", "1/0", "sqrt(-1)", "log(0)", "9**9**9**9", "2**1024",
     "10.0**400", "9**99999999", "(9**300)**300", "1" * 101, "(" * 90 + "1", "-" * 5000 + "1", "\x00", "1\n2",
     "(1+2j)**(1+2j)**9999", "\u0663 + x", "1" + "*1" * 2000],
)  # fmt: skip
def test_what_is_no_number(text):
    from xavierfast.cli.numbers import parse_number

    begin = time.perf_counter()
    with pytest.raises(ValueError, match=r"^a number must be one such as .*1/sqrt\(128\), .*; got "):
        parse_number(text)
    assert time.perf_counter() - begin < 1  # a bound on the work, which takes less than 1 ms


@pytest.mark.parametrize(
    ("text", "seed"),
    [("7", 7), ("0x10", 16), ("1,2", (1, 2)), ("1, 0x2", (1, 2)), ("5,", (5,)), ("007", 7), ("1_000", 1000),
     (str(1 << 300), 1 << 300)],
)  # fmt: skip
def test_seeds(text, seed):
    done = json.loads(call("create", "a.npy", "3x4", "--seed", text, "--json"))
    (table,) = files.tables_of("a.npy").values()
    assert table.seed == seed and done["seed"] == table.recipe["seed"]
    shown = re.search(r"^  seed   (\S+)$", call("create", "b.npy", "3x4", "--seed", text), re.MULTILINE)[1]
    call("create", "c.npy", "3x4", "--seed", shown)
    assert files.tables_of("c.npy") == {"": table}


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "1,,2", ",", "1;2", "0x", "\u0663", "1,-2", "1e3"])
def test_what_is_no_seed(text):
    assert "a seed must be an int >= 0 such as 7 or 0x10, or several such as 1,2" in call(
        "create", "a.npy", "3x4", "--seed", text, code=2
    )


def test_a_new_seed_is_printed_and_gives_the_table_again():
    out = call("create", "a.npy", "3x4")
    seed = re.search(r"^  seed   (0x[0-9a-f]+) \(random; passed as --seed, it gives .*\)$", out, re.M)[1]
    call("create", "b.npy", "3x4", "--seed", seed)
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--init", "xavier_unifrom"], "--init 'xavier_unifrom' is unknown (did you mean xavier_uniform?); it "),
        (["--init", "he_norml"], "did you mean he_normal?)"),
        (["--init", "xavier"], "did you mean xavier_normal or xavier_uniform?"),
        (["--init", "blue"], "--init 'blue' is unknown; it must be one of xavier_uniform, "),
        (["--dtype", "bfloat61"], "did you mean bfloat16"),
        (["--init", "he_normal", "--mode", "fan_inn"], "(did you mean fan_in?); it must be one of fan_in, "),
        (["--init", "variance_scaling", "--distribution", "nromal"], "did you mean normal"),
        (["--gian", "2"], "No such option: --gian (Possible options: --gain"),
        (["--init", "normal", "--gain", "2"], "normal takes --mean and --std, got --gain, which is of xavier_*"),
        (["--init", "zeros", "--std", "2"], "--init zeros takes no parameters, got --std, which is of normal, "),
        (["--init", "normal", "--std", "2^-5"], "--std: a number must be"),
    ],
)  # fmt: skip
def test_what_is_misspelt_names_the_right_words(arguments, said):
    assert said in call("create", "a.npy", "3x4", *arguments, code=2)


def test_parameters_are_those_of_python():
    values = {
        "gain": 0.5, "scale": 2.0, "mode": "fan_out", "distribution": "normal", "bound": 0.25, "low": -1.5,
        "high": 1.25,        "mean": -0.5, "std": 0.125, "value": 3,
    }  # fmt: skip
    for number, (init, rule) in enumerate(RULES.items()):
        chosen = {name: values[name] for name in rule.defaults if not (init == "uniform" and name == "bound")}
        options = [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
        call("create", f"{number}.npy", "3x4", "--seed", "1", "--init", init, *options)
        assert files.tables_of(f"{number}.npy") == {"": xf.Table((3, 4), init, seed=1, **chosen)}
    assert set(values) == set().union(*(rule.defaults for rule in RULES.values()))


# ---- help


@pytest.mark.parametrize(
    "command", ["", "create", "create-model", "resume", "status", "verify", "show", "extend", "explain"]
)
def test_help_fits_on_a_screen(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = call(*command.split(), "--help").splitlines()
    assert lines[0].startswith(f"Usage: xavierfast {command}".rstrip())
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    options = [line for line in lines[lines.index("Options:") :] if re.match(r"  -", line)]
    assert len(options) >= 4 and all(re.search(r"\S  +\S", line) for line in options), "an option without a word"


def test_help_says_which_initialisers_take_a_parameter(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = call("create", "--help")
    canonical = {rule.name for rule in RULES.values()}
    for parameter in {name for rule in RULES.values() for name in rule.defaults}:
        listed = re.search(rf"^  --{parameter} .*\(([^()]+)\)$", text, re.MULTILINE)[1].split(", ")
        found = {name for name in canonical for entry in listed if fnmatchcase(name, entry)}
        assert found == {name for name in canonical if parameter in RULES[name].defaults}


# ---- errors in the words of the shell


def test_what_exists_is_replaced_with_an_option(items, folder):
    command = ["create", "items.npy", "10x4", "--seed", "1"]
    assert call(*command, code=3) == "xavierfast: items.npy: already exists; pass --force to replace it\n"
    (folder / "new.npy").mkdir()
    error = "xavierfast: new.npy: is a folder, and --force replaces only files and symlinks\n"
    for option in ([], ["--force"]):
        assert call("create", "new.npy", "10x4", *option, code=3) == error


def test_what_is_unfinished_is_resumed_with_a_command(items, folder):
    (folder / "my tables").mkdir()
    path = "my tables/new.npy"
    files.create(path, items, rows=(3, 5))
    assert call("create", path, "1Kx64", code=3) == (
        "xavierfast: new.npy.partial: an unfinished table exists: run xavierfast resume 'my tables/new.npy' to finish "
        "it, or pass --force to start over\n"
    )
    unfinished = "xavierfast: new.npy: is unfinished; run xavierfast resume 'my tables/new.npy' to finish it\n"
    assert call("verify", path, code=3) == call("show", path, code=3) == unfinished
    assert call("verify", "items.npy", "--recipe", path, code=3) == unfinished
    call("resume", path)
    assert call("resume", "none.npy", code=3).startswith("xavierfast: none.npy: ")


def test_keywords_are_options(items, folder):
    (folder / "model.toml").write_text(SPEC)
    call("create-model", "model.safetensors", "--spec", "model.toml", "--seed", "3")
    for arguments, option in (
        (["create", "a.safetensors", "3x4"], "pass --name"),
        (["create", "a.npy", "3x4", "--init", "constant"], "constant needs --value, which"),
        (["create", "a.npy", "3x4", "--max-shard-size", "5GB"], "--max-shard-size is an option of create-model"),
        (
            ["create-model", "a.npy", "--spec", "model.toml", "--max-shard-size", "5GB"],
            "--max-shard-size is only for .safetensors files",
        ),
        (["create", "a.npy", "3x4", "--seed", "0", "--rows", "0:2", "--shard", "1/2"], "by --rows or by --shard, got"),
        (["create", "a.npy", "3x4", "--seed", "0", "--rows", "0:2", "--force"], "--force cannot replace"),
        (["create-model", "a.safetensors", "--spec", "model.toml", "--rows", "0:2"], "--rows is an option of create"),
    ):
        assert option in call(*arguments, code=2)
    files.create("model.npy", xf.Table((3, 4), seed=0, name="name=, force=True"))
    error = call("verify", "model.safetensors", "--report", "r.npy", code=2)
    assert error.endswith("choose one with --tensor\n")


# ---- notes


def test_xavier_on_an_embedding_is_noted_once(folder):
    note = "for an embedding of 10,000 rows, xavier_uniform gives small values: nothing sums over rows. Usual are "
    note += "--init uniform --bound 0.125 and --init normal --std 0.125, from 1 / sqrt(64)"

    def create(name, *options):
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            out = call("create", name, "10Kx64", "--seed", "7", *options)
        return out, error.getvalue()

    for k, options in enumerate(([], ["--dry-run"], ["--rows", "0:5"], ["--resume"])):
        assert create(f"{k}.npy", *options)[1] == f"xavierfast: note: {note}\n"
    assert create("quiet.npy", "--quiet") == ("", "")
    for options in (["--dry-run"], []):
        out, error = create("json.npy", "--json", *options)
        assert (json.loads(out)["note"], error) == (note, "")
    assert create("normal.npy", "--init", "normal")[1] == ""
    assert json.loads(create("zeros.npy", "--init", "zeros", "--json")[0])["note"] is None


def test_a_note_on_a_layout_is_in_the_words_of_the_shell():
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        call("create", "conv.npy", "8x4x3x3")
    assert "in PyTorch's order, --layout oixy, the fans would be 36 and 72" in error.getvalue()


def test_the_note_of_a_model_names_the_tensor(folder):
    spec = '[rules]\n"*" = "xavier_uniform"\n[tensors]\na = [64, 64]\nembed = "10Kx64"\nhead = "20Kx64"\n'
    (folder / "model.toml").write_text(spec)
    done = json.loads(call("create-model", "model.safetensors", "--spec", "model.toml", "--seed", "3", "--json"))
    assert done["note"].startswith("embed: for an embedding of 10,000 rows, xavier_uniform gives small values")
    assert done["note"].endswith(" (further notes: 1)")


# ---- verify


def test_verify_says_which_rows_differ(items):
    assert "all values match the recipe" in call("verify", "items.npy")
    with open("items.npy", "r+b") as file:
        for row in (3, 10, 11, 12):
            file.seek(128 + 256 * row)
            file.write(b"?")
    out = call("verify", "items.npy", code=1)
    assert out.startswith("items.npy: items: 4 of 1,000 rows differ: 3:4, 10:13\n")
    found = json.loads(call("verify", "items.npy", "--json", code=1))
    assert (found["ok"], found["nbytes"], found["extra"]) == (False, 256_000, 0)
    assert found["tensors"] == [
        {"name": "items", "rows": 1000, "differ": 4, "ranges": [[3, 4], [10, 13]], "problem": ""}
    ]
    assert call("verify", "items.npy", "--quiet", code=1) == ""
    call("verify", "items.npy", "--report", "differ.npy", code=1)
    assert np.flatnonzero(np.load("differ.npy")).tolist() == [3, 10, 11, 12]


def test_verify_a_trained_file_by_another_recipe(items):
    trained = items[...]
    trained[5] += 1
    np.save("trained.npy", trained)
    assert "recipe" in call("verify", "trained.npy", code=3)
    assert "1 of 1,000 rows differ: 5:6" in call("verify", "trained.npy", "--recipe", "items.npy", code=1)
    call("verify", "trained.npy", "--recipe", "items.npy.recipe.json", "--sample", "1", code=1)


def test_verify_reports_what_it_cannot_read(items):
    assert "No such file" in call("verify", "none.npy", code=3)
    os.truncate("items.npy", 100)
    assert "header" in call("verify", "items.npy", code=3)


def test_a_strangers_names_do_not_reach_the_terminal(folder):
    files.create("a.safetensors", {"\x1b[31mred": xf.Table((2, 2), seed=0, name="w")})
    for command in ("verify", "show"):
        out = call(command, "a.safetensors")
        assert "\x1b" not in out
    os.truncate("a.safetensors", os.stat("a.safetensors").st_size - 1)
    assert "\x1b" not in call("verify", "a.safetensors", code=1)


# ---- show


def test_show_measures(items):
    out = call("show", "items.npy")
    values = items[...].astype(float)
    assert f"bound       {items.bound:.9g}" in out
    assert f"{values.mean():+.3e}" in out
    assert f"extremes  {values.min():.9g} to {values.max():.9g}" in out
    assert out.count("█") > 100
    found = json.loads(call("show", "items.npy", "--json"))["tensors"][0]
    assert found["expected"]["std"] == items.std
    assert found["expected"]["recipe"] == items.recipe
    # Both are sums of 64000 float64 numbers in other orders.
    assert found["std"] == pytest.approx(values.std(), rel=1e-12)
    assert sum(found["histogram"]) == found["count"] == 64_000


def test_show_of_a_model_is_a_table(folder):
    (folder / "model.toml").write_text(SPEC)
    call("create-model", "model.safetensors", "--spec", "model.toml", "--seed", "3")
    lines = call("show", "model.safetensors").splitlines()
    assert len(lines) == 5
    assert lines[2].split()[:4] == ["embed.weight", "1000x64", "bfloat16", "128,000"]
    assert call("show", "model.safetensors", "--tensor", "h.0.bias").startswith("Table((64,), 'zeros'")


@pytest.mark.parametrize("init", ["xavier_uniform", "xavier_normal", "xavier_truncated_normal", "random_constant"])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_show_draws(init, ending, folder):
    need("matplotlib")
    files.create("a.npy", xf.Table((200, 300), init, seed=0))
    call("show", "a.npy", "--plot", f"a.{ending}")
    assert (folder / f"a.{ending}").read_bytes()[:4] in (b"\x89PNG", b"<?xm")


def test_explain(folder):
    need("matplotlib")
    out = call("explain", "--layers", "50x3", "--activation", "tanh", "--plot", "why.png")
    assert "zeros: All neurons of a layer are alike" in out
    assert max(map(len, out.splitlines())) <= 80
    assert (folder / "why.png").read_bytes()[:4] == b"\x89PNG"
    error = call("explain", "--layers", "5x2", "--plot", "why.png", code=3)
    assert error == "xavierfast: why.png: already exists; pass --force to replace it\n"
    call("explain", "--layers", "5x2", "--plot", "why.png", "--force")
    assert "--activation 'none' is unknown" in call("explain", "--activation", "none", code=2)
    assert "layers" in call("explain", "--layers", "0y3", code=2)


def test_explain_schemes():
    inits = ["zeros", "normal(std=1/sqrt(64))", " he_uniform ( gain = 2, mode=fan_out ) ", "zeros()", "old_heuristic"]
    options = [word for init in inits for word in ("--init", init)]
    found = json.loads(call("explain", "--layers", "8x3", "--input-std", "1/4", "--seed", "0x10", "--json", *options))
    *asked, suggested = [scheme["scheme"] for scheme in found["schemes"]]
    assert asked == ["zeros", "normal(std=0.125)", "he_uniform(gain=2, mode=fan_out)", "old_heuristic"]
    assert suggested == found["suggested"]
    assert (found["widths"], found["input_std"], found["schemes"][0]["seed"]) == ([8] * 4, 0.25, 16)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--init", "nromal", "the scheme 'nromal' is unknown (did you mean normal?)"),
        ("--init", "", "it must be a name, or a name and parameters, such as normal(std=0.01), got ''"),
        ("--init", "normal(std=0.01", "such as normal(std=0.01), got 'normal(std=0.01'"),
        ("--init", "normal(sdt=1)", "normal takes the parameters mean, std, each once, as mean=..., got 'sdt=1'"),
        ("--init", "normal(1)", "normal takes the parameters mean, std, each once, as mean=..., got '1'"),
        ("--init", "normal(std=1, std=2)", "got 'std=2'"),
        ("--init", "normal(std=x)", "a number must be one such as 0.02"),
        ("--init", "zeros(std=1)", "zeros takes no parameters, got 'std=1'"),
        ("--init", "old_heuristic(gain=1)", "old_heuristic takes no parameters, got 'gain=1'"),
        ("--init", "he_normal(mode=fan)", "mode 'fan' is unknown (did you mean fan_in or fan_out?)"),
        ("--init", "normal(std=-1)", "std must be finite and >= 0, got -1"),
        ("--input-std", "0", "it must be from 1e-20 to 1e20, got '0'"),
        ("--input-std", "-1", "it must be from 1e-20 to 1e20, got '-1'"),
        ("--input-std", "inf", "it must be from 1e-20 to 1e20, got 'inf'"),
        ("--input-std", "nan", "a number must be one such as 0.02"),
        ("--input-std", "1j", "it must be from 1e-20 to 1e20, got '1j'"),
        ("--batch", "0", "'--batch': "),
        ("--seed", "-1", "a seed must be an int >= 0"),
        ("--layers", "0x3", "each of widths must be at least 1, got 0"),
        ("--layers", "7", "widths must be two ints or more"),
    ],
)
def test_explain_refuses(option, value, text):
    assert text in call("explain", "--layers", "8x3", option, value, code=2)


# ---- how it ends and what surrounds it


def _start(path):
    with path.open("rb") as file:
        return file.read(6)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_can_be_stopped_and_resumed(number, code, folder):
    command = ["create", "items.npy", "1Mx128", "--seed", "7"]
    process = subprocess.Popen([*COMMAND, *command], stderr=subprocess.PIPE, text=True)
    partial = folder / "items.npy.partial"
    while not partial.exists() or _start(partial) != b"\x93NUMPY":
        time.sleep(0.001)
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode == code
    stopped = "xavierfast: stopped (items.npy is unfinished; run xavierfast resume items.npy to finish it)"
    assert error.splitlines()[1:] == [stopped]  # after the note on embeddings
    assert not (folder / "items.npy").exists()
    assert "were missing" in call(*command, "--resume")
    call("verify", "items.npy")
    assert sorted(os.listdir()) == ["items.npy", "items.npy.recipe.json"]


def test_a_bar_on_a_terminal_and_silence_in_a_pipe():
    parent, child = pty.openpty()
    command = [*COMMAND, "create", "items.npy", "300Kx128", "--seed", "7"]
    process = subprocess.Popen(command, stderr=child, stdout=subprocess.PIPE, env=os.environ | {"TERM": "xterm"})
    os.close(child)
    shown = b""
    try:
        while block := os.read(parent, 4096):
            shown += block
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(parent)
    process.communicate()
    assert process.returncode == 0
    assert b"items.npy" in shown
    assert "\u2501".encode() in shown  # of the bar
    done = subprocess.run([*COMMAND, "verify", "items.npy"], capture_output=True)
    assert done.stderr == b""


def test_help_and_version():
    assert call().startswith("Usage: xavierfast [OPTIONS] COMMAND")
    assert call("--version") == f"xavierfast {xf.__version__}, level {xf.level}\n"


def test_completion():
    script = Path(sys.executable).parent / "xavierfast"
    words = {"_XAVIERFAST_COMPLETE": "complete_bash", "COMP_WORDS": "xavierfast create --init lecun", "COMP_CWORD": "3"}
    done = subprocess.run([script], capture_output=True, text=True, env=os.environ | words)
    assert set(done.stdout.split()) == {"lecun_uniform", "lecun_normal", "lecun_truncated_normal"}


def test_without_the_extra_it_says_what_to_install(folder):
    (folder / "typer.py").write_text("raise ImportError('no typer', name='typer')")
    done = subprocess.run(
        [sys.executable, "-m", "xavierfast", "show", "a.npy"], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"xavierfast: the command needs typer: {how_to_install('cli')}\n"


def test_the_core_imports_none_of_it():
    code = "import sys, xavierfast; print([m for m in ('typer', 'rich', 'xavierfast.files') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- surroundings


def test_bars_in_any_encoding(items):
    for encoding, bar in (("ascii", "#"), ("latin-1", "#"), ("utf-8", "\u2588")):
        assert bar * 40 in spawn(
            "show", "items.npy", env=os.environ | {"PYTHONIOENCODING": encoding}, encoding=encoding
        )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["create", "--help"], ["show", "items.npy"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full(items, arguments, unbuffered):
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    assert (done.returncode, done.stderr) == (3, "xavierfast: No space left on device\n")


def test_a_terminal_without_columns():
    assert "No such command" in spawn("nonsense", code=2, env=os.environ | {"COLUMNS": "0"})


def test_a_fifo_is_no_spec():
    os.mkfifo("spec.toml")
    error = spawn("create-model", "m.safetensors", "--spec", "spec.toml", code=3, timeout=60)
    assert "spec.toml: is a named pipe, not a regular file" in error


def test_too_little_memory():
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32)); "
    code += "from xavierfast.__main__ import main; main()"
    command = [sys.executable, "-P", "-c", code, "explain", "--layers", "99999x5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("xavierfast: not enough memory: ")
    assert done.stderr.count("\n") == 1


# ---- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("7", 7), ("1_000", 1000), ("2k", 2000), ("3M", 3 * 10**6), ("4G", 4 * 10**9),
        ("5T", 5 * 10**12), ("6P", 6 * 10**15), ("2Ki", 2 << 10),
        ("3mi", 3 << 20), ("4Gi", 4 << 30), ("5Ti", 5 << 40), ("6Pi", 6 << 50),
        ("1.5k", 1500), ("0.5Ki", 512), ("1e3", 1000), ("1.5e1", 15),
    ],
)  # fmt: skip
def test_units(text, size):
    assert specs.parse_size(text) == size
    assert specs.parse_size(f"{text}B" if text[-1] in "kMGTPi" else text) == size
    assert specs.parse_shape(f"2x{text}") == (2, size)
    assert specs.parse_range(f"{text}:{text}") == (size, size)
    assert specs.parse_fraction(f"{text}/{text}") == (size, size)


def test_a_b_is_a_byte_or_a_billion():
    assert specs.parse_size("4b") == specs.parse_size("4B") == 4
    assert specs.parse_shape("4b") == specs.parse_shape("4B") == (4 * 10**9,)


@pytest.mark.parametrize("text", ["", "k", "1.0001k", "-1", "1 000", "1e100", "1kk", "1B B", "y", "\u0663"])
def test_what_is_no_size(text):
    for parse in (specs.parse_size, specs.parse_shape):
        with pytest.raises(ValueError, match="must be a whole number such as 1000"):
            parse(text)


def test_many_tensors_are_shown_at_a_low_cost(folder):
    tables = {f"w{k}": xf.Table((0,), "zeros", seed=0, name=f"w{k}") for k in range(20_000)}
    tables["last"] = xf.Table((3, 4), seed=0, name="last")
    files.create("m.safetensors", tables, sync=False)
    begin = time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    lines = call("show", "m.safetensors").splitlines()
    seconds = time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin
    assert len(lines) == 20_002
    assert lines[0].split()[:4] == ["tensor", "shape", "dtype", "bytes"]
    assert [line for line in lines if line.split()[:4] == ["last", "3x4", "float32", "48"]]
    assert seconds < 10  # 2.5 s; a millisecond more for each tensor with a grid of rich
