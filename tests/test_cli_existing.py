"""Files that exist already, finished and unfinished, and what is no file; exit codes and JSON as documented."""

import json
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from cli_support import SPEC, call
from support import need

import xavierfast as xf
from xavierfast import files


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for module in ("typer", "rich"):
        need(module)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def items():
    table = xf.Table((1000, 64), seed=7, name="items")
    files.create("items.npy", table)
    return table


# ---- a file that is there already


SAME = ["create", "items.npy", "1Kx64", "--seed", "7", "--name", "items"]
GO_ON = [[*SAME, "--resume"], ["resume", "items.npy"], ["resume", "items.npy.partial"]]


def change(offset, data=b"?", path="items.npy"):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("command", GO_ON, ids=" ".join)
@pytest.mark.parametrize("size", [200, 1000, 128 + 256, 256_127])
def test_what_is_missing_of_a_finished_file_is_written(command, size, items):
    os.truncate("items.npy", size)
    assert "is shorter" not in call("verify", "items.npy", code=1)
    out = call(*command)
    assert re.match(r"items\.npy: was finished before; [\d.]+ kB were missing or wrong, and have been written; ", out)
    assert "all values match" in call("verify", "items.npy")
    assert json.loads(call(*command, "--json"))["state"] == "checked"


@pytest.mark.parametrize("command", GO_ON, ids=" ".join)
def test_what_differs_in_a_finished_file_stays_without_force(command, items):
    change(128 + 256 * 5)
    before = Path("items.npy").read_bytes()
    out = call(*command, code=1)
    differs, summary = out.splitlines()
    assert differs == "items.npy: items: 1 of 1,000 rows differ: 5:6"
    assert summary.startswith(
        "items.npy: was finished before, and values differ from its recipe; they stay as they are"
    )
    assert "pass --force to write the initial values again" in summary
    done = json.loads(call(*command, "--json", code=1))
    assert (done["state"], done["written"]) == ("differs", 0)
    assert done["tensors"] == [{"name": "items", "rows": 1000, "differ": 1, "ranges": [[5, 6]], "problem": ""}]
    assert call(*command, "--quiet", code=1) == ""
    os.truncate("items.npy", 200_000)  # what differs and is there still stays
    call(*command, code=1)
    assert Path("items.npy").read_bytes() == before[:200_000]
    done = json.loads(call(*command, "--force", "--json"))
    assert (done["state"], done["tensors"]) == ("repaired", []) and done["written"] > 0
    assert np.array_equal(np.load("items.npy"), items[...])
    assert call("verify", "items.npy")


@pytest.mark.parametrize("command", GO_ON, ids=" ".join)
def test_a_damaged_header_is_written_with_force(command, items):
    change(9, b"\xff\xff")
    error = call(*command, code=3)
    assert "header" in error and re.search(r"\(pass --force to (replace it|write all of it again)\)\n$", error)
    call(*command, "--force")
    assert call("verify", "items.npy")


def test_a_model_of_several_files_is_checked_and_completed(folder):
    (folder / "model.toml").write_text(SPEC)
    command = ["create-model", "m.safetensors", "--spec", "model.toml", "--seed", "3", "--max-shard-size", "100kB"]
    assert json.loads(call(*command, "--resume", "--json"))["state"] == "created"
    last = max(folder.glob("m-*.safetensors"))
    os.truncate(last, last.stat().st_size - 100)
    assert json.loads(call(*command, "--resume", "--json"))["state"] == "repaired"
    with last.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    assert json.loads(call("resume", "m.safetensors", "--json", code=1))["state"] == "differs"
    assert json.loads(call("resume", "m.safetensors", "--json", "--force"))["state"] == "repaired"
    assert json.loads(call("resume", "m.safetensors", "--json"))["state"] == "checked"


def test_hosts_share_the_resumption(items):
    files.create("new.npy", items, rows=(300, 1000))
    resume = ["resume", "new.npy", "--shard"]
    first = call(*resume, "0/3")
    assert first.startswith("new.npy: the shard is right (") and "others have not been checked\n" in first
    assert json.loads(call(*resume, "2/3", "--json"))["state"] == "shard"
    assert "is unfinished" in call("verify", "new.npy", code=3)
    assert json.loads(call(*resume, "1/3", "--json"))["state"] == "resumed"
    assert call("verify", "new.npy")
    change(300, path="new.npy")  # which a shard's job does not notice any more, and does not claim to have seen
    assert call(*resume, "1/3").startswith("new.npy: is finished, and was not checked: run xavierfast verify new.npy\n")
    assert "3 shards count from 0 to 2, got 3" in call(*resume, "3/3", code=2)


def test_rows_are_appended(items):
    table = xf.Table((1000, 64), "normal", seed=7, name="items")
    files.create("grow.npy", table)
    np.load("grow.npy", mmap_mode="r+")[5] = 1.0
    out = call("extend", "grow.npy", "1.5Kx64")
    assert re.match(r"grow\.npy: extended to 1500x64, 128\.00 kB in ", out)
    assert "1 of 1,500 rows differ: 5:6" in call("verify", "grow.npy", code=1)
    assert json.loads(call("extend", "grow.npy", "2K", "--json"))["written"] == 128_000
    assert json.loads(call("extend", "grow.npy", "2K", "--json"))["written"] == 0
    assert np.array_equal(np.load("grow.npy")[6:], xf.normal((2000, 64), seed=7, name="items")[6:])
    for shape in ("1K", "3Kx65", "3Kx64x1"):
        assert "extend only appends rows" in call("extend", "grow.npy", shape, code=2)
    error = call("extend", "items.npy", "2K", code=2)
    assert "depend on the number of rows" in error and "with --fan-in 1000 and --fan-out 64" in error
    assert "extend appends to .npy and .bin files" in call("extend", "a.safetensors", "2K", code=2)
    assert call("extend", "none.npy", "2K", code=3).startswith("xavierfast: none.npy")


def test_a_lost_file_of_a_model(folder):
    (folder / "model.toml").write_text(SPEC)
    command = ["create-model", "m.safetensors", "--spec", "model.toml", "--seed", "3", "--max-shard-size", "100kB"]
    call(*command)
    max(folder.glob("m-*.safetensors")).unlink()
    for option in ([], ["--force"]):
        error = call("resume", "m.safetensors", *option, code=3)
        assert "is lost: run the command that created it with --resume --force)" in error
    error = call(*command, "--resume", code=3)
    assert "m-00002-of-00002.safetensors: No such file" in error and "(pass --force to replace it)" in error
    call(*command, "--resume", "--force")
    assert call("verify", "m.safetensors")


def test_another_recipe_is_replaced_with_force(items, folder):
    other = ["create", "items.npy", "1Kx64", "--seed", "8", "--name", "items", "--resume"]
    assert call(*other, code=3) == (
        "xavierfast: items.npy is finished and has another recipe: pass --force to replace it by the new table\n"
    )
    files.create("begun.npy", items, rows=(3, 5))
    begun = ["create", "begun.npy", "1Kx64", "--seed", "8", "--name", "items", "--resume"]
    assert "begun.npy is unfinished and has another recipe" in call(*begun, code=3)
    for command in (other, begun):
        assert json.loads(call(*command, "--force", "--json"))["state"] == "created"
        assert files.tables_of(command[1]) == {"items": xf.Table((1000, 64), seed=8, name="items")}
        assert call("verify", command[1])
    assert not list(folder.glob("*partial*"))


def test_both_names_of_an_unfinished_file_work(items):
    for name in ("new.npy", "new.npy.partial"):
        files.create("new.npy", items, rows=(3, 5))
        assert call("status", name, code=1) == call("status", "new.npy", code=1)
        error = "xavierfast: new.npy: is unfinished; run xavierfast resume new.npy to finish it\n"
        for command in ("verify", "show"):
            assert call(command, name, code=3) == error
        assert json.loads(call("resume", name, "--json"))["path"] == "new.npy"
        for command in ("verify", "show", "status", "resume"):
            assert call(command, name)
        assert "new.npy: finished, nothing is missing" in call("status", name)
        for path in Path().glob("new.npy*"):
            path.unlink()
    assert json.loads(call("create", "new.npy.partial", "3x4", "--json"))["path"] == "new.npy"
    # A finished file, and the unfinished one that will replace it, are two things.
    call("create", "new.npy", "3x4", "--seed", "1", "--force")
    Path("new.npy.partial.recipe.json").write_text("{}")
    assert call("verify", "new.npy")
    assert "is unfinished" in call("verify", "new.npy.partial", code=3)


KINDS = {"folder": "is a folder", "fifo": "is a named pipe", "socket": "is a device or a socket", "loop": "symlink"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".npy", ".safetensors", ".npy.partial"])
def test_what_is_no_file_is_named(kind, ending, folder):
    path = f"t{ending}"
    if kind == "folder":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
    else:
        os.symlink(path, path)
    before = os.lstat(path)
    create = ["create", f"t{ending.removesuffix('.partial')}", "9x9", "--seed", "1", "--name", "w"]
    commands = [create + options for options in ([], ["--force"], ["--resume"], ["--resume", "--force"], ["--dry-run"])]
    commands += [[command, path] for command in ("resume", "verify", "show", "status")]
    for command in commands:
        if kind == "loop" and ("--force" in command or ending.endswith("partial")):
            continue  # a symlink may be replaced
        error = call(*command, code=3)
        named = KINDS[kind] in error or (command[0] != "create" and "symbolic links" in error)
        assert named and f"t{ending}"[:5] in error, (command, error)
        assert "--force to replace it" not in error or kind == "loop"
        assert os.path.samestat(os.lstat(path), before)
        assert os.listdir() == [path], command


# ---- exit codes and JSON as docs/files.md lists them


def rows_of_table(heading):
    """The cells of the rows of the table in docs/files.md that begins with a heading."""
    text = (Path(__file__).parent.parent / "docs/files.md").read_text(encoding="utf-8")
    lines = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def documented_keys(command):
    keys = set()
    for names, commands, _ in rows_of_table("key"):
        words = set(re.findall(r"[\w-]+", commands))
        if words & {"all", command} or (
            "writing" in words and command in ("create", "create-model", "resume", "extend")
        ):
            keys |= set(re.findall(r"`(\w+)`", names))
    return keys


def test_json_has_the_documented_keys(items, folder):
    (folder / "model.toml").write_text(SPEC)
    files.create("begun.npy", items, rows=(3, 5))
    files.create("grow.npy", xf.Table((1000, 64), "normal", seed=0))
    lines = {
        "create": [
            [*SAME, "--resume"], ["create", "new.npy", "3x4"], [*SAME, "--rows", "1:"],
            ["create", "p.npy", "9x9", "--rows", "1:", "--seed", "0"],
        ],
        "extend": [["extend", "grow.npy", "1200"], ["extend", "grow.npy", "1200x64"]],
        "create-model": [["create-model", "m.safetensors", "--spec", "model.toml"]],
        "status": [["status", "begun.npy"], ["status", "begun.npy", "--shards", "3"], ["status", "items.npy"]],
        "resume": [
            ["resume", "begun.npy", "--shard", "0/2"], ["resume", "begun.npy"], ["resume", "items.npy"],
            ["resume", "items.npy", "--shard", "0/2"],
        ],
        "verify": [["verify", "items.npy"], ["verify", "m.safetensors"]],
        "show": [["show", "items.npy"], ["show", "m.safetensors"]],
        "--dry-run": [["create", "dry.npy", "3x4", "--dry-run"]],
    }  # fmt: skip
    states = set()
    for command, examples in lines.items():
        for line in examples:
            done = json.loads(call(*line, "--json", code=1 if line[:2] == ["status", "begun.npy"] else 0))
            assert set(done) == documented_keys(command), line
            states.add(done.get("state"))
    change(300)
    states.add(json.loads(call("resume", "items.npy", "--json", code=1))["state"])
    states.add(json.loads(call("resume", "items.npy", "--json", "--force"))["state"])
    documented = next(meaning for names, _, meaning in rows_of_table("key") if names == "`state`")
    assert states - {None} == set(re.findall(r"`(\w+)`", documented))
    numbers = next(meaning for names, _, meaning in rows_of_table("key") if names == "`tensors`")
    shown = re.search(r"For `show`: ([^.]*)\.", numbers)[1].split(", ")
    assert list(json.loads(call("show", "items.npy", "--json"))["tensors"][0]) == shown
    others = re.search(r"For others: (.*)\.", re.sub(r" \([^)]*\)", "", numbers))[1].split(", ")
    assert list(json.loads(call("verify", "items.npy", "--json"))["tensors"][0]) == others


def test_exit_codes_are_the_documented_ones():
    from xavierfast.cli import Exit

    assert [int(code) for code, _ in rows_of_table("exit code")] == [0, *Exit]
