"""Names from untrusted files and odd paths, as the command prints and draws them: none commands a terminal, or lies."""

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from support import need

import xavierfast as xf
from xavierfast import files

COMMAND = [sys.executable, "-P", "-m", "xavierfast"]
FORGED = "all values match the recipe, 256.00 kB in 0.00 s, 2.00 GB/s"
ROOTS = "$" + r"\sqrt{" * 60 + "x" + "}" * 60 + "$"
NAMES = [
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "a\rb", "\x00", "\x7f", "\t", "a\u2028b", "a\x85b",
    f"a\na.safetensors: {FORGED}", f"w: {FORGED}", "w: 0 of 4 rows differ: ", " " * 200 + "w 3x4 float32 48",
    "a  b" * 40, "\u202egnp.exe", "a\u2066b\u2069", "\u200fb", "a\u00adb", "\ufeffb", "\U000e0041tag", "\ud7ff",
    "\u3164", "\u0627\u0644", "e\u0301\u0301\u0301", ":smile:", "[red]x[/red]", "[/]", "[link=file:///]x[/link]",
    "[bold", "\\[x]", "'quoted'", '"', "$\\frac{$", ROOTS, "%s {} {0} %(x)s", "x" * 5000,
]  # fmt: skip
# What each name must be shown as: escapes and quotes, with which it can be read again, or itself if it is plain.
PLAIN = re.compile(r"[\w./\[\]:=%@+,~()*-]+", re.ASCII)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    need("typer")
    need("rich")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    """Exit code, and the lines on standard output and standard error."""
    from xavierfast import cli

    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = cli.execute(arguments)
    return code, out.getvalue(), error.getvalue()


def check_text(text, lines):
    """Each character is visible, and the lines are as many as there would be with harmless names."""
    assert not {c for c in text if not (c.isprintable() or c == "\n")}
    assert text.count("\n") == lines and (not text or text.endswith("\n")), text


def shown(name):
    from xavierfast.cli.text import shown_name

    return shown_name(name)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:30])
def test_a_name_is_shown_in_a_form_that_cannot_be_mistaken(name):
    text = shown(name)
    assert text.isprintable()
    assert text == name if PLAIN.fullmatch(name) and len(name) <= 1000 else text[0] in "'\""
    assert " " not in text or text[0] in "'\""
    if len(name) <= 60 and text != name:
        assert eval(text) == name


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:30])
def test_reports_of_a_file_with_this_tensor(name):
    table = xf.Table((4, 3), seed=0, name="w")
    files.create("a.safetensors", {name: table, "b": xf.Table((2, 3), seed=0, name="b")})
    code, out, _ = call("show", "a.safetensors")
    assert code == 0
    check_text(out, 3 if len(name) < 100 or not PLAIN.fullmatch(name) else out.count("\n"))
    assert len([line for line in out.splitlines() if "float32" in line and "4x3" in line]) == 1
    for line in map(str.strip, out.splitlines()[1:]):
        assert line.startswith((shown(name)[:60], "b ")) or PLAIN.fullmatch(name), line
    code, out, _ = call("show", "a.safetensors", "--tensor", name)
    check_text(out, out.count("\n"))
    assert out.startswith("Table((4, 3), 'xavier_uniform', seed=0, name='w')\n")
    with open("a.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    for command in (["verify"], ["resume"]):
        code, out, _ = call(*command, "a.safetensors")
        check_text(out, 2)
        assert code == 1
        differs, summary = out.splitlines()
        assert re.fullmatch(r"a\.safetensors: .*: 1 of \d rows differ: \d:\d", differs)
        assert differs.startswith((f"a.safetensors: {shown(name)}: 1 of", "a.safetensors: b: 1 of"))
        assert not re.search("all values match|all of it is right", summary)
    code, out, error = call("verify", "a.safetensors", "--tensor", name + "?")
    assert code == 2
    check_text(error, 1)
    found = json.loads(call("verify", "a.safetensors", "--json")[1])
    assert {check["name"] for check in found["tensors"]} == {name, "b"}


def test_no_line_of_a_report_can_be_forged():
    """Whatever the names are, the lines of `verify` that speak of the file as a whole are those of the command."""
    for name in NAMES:
        for path in Path().glob("a.safetensors*"):
            path.unlink()
        files.create("a.safetensors", {name: xf.Table((4, 3), seed=0, name="w")})
        os.truncate("a.safetensors", os.stat("a.safetensors").st_size - 1)
        out = call("verify", "a.safetensors")[1]
        assert (
            sum(": all values match the recipe, " in re.sub(r"'.*'|\".*\"", "", line) for line in out.splitlines()) == 0
        )
        assert out.splitlines()[-1].startswith("a.safetensors: does not match the recipe, ")


ODD_PATHS = [
    "a b.npy", "a\nb.npy", "\x1b[31m.npy", "[red]x.npy", ":smile:.npy", "\u202ex.npy", "-x.npy", "'.npy", "$x.npy",
    os.fsdecode(b"\xff.npy"),
]  # fmt: skip


@pytest.mark.parametrize("path", ODD_PATHS, ids=lambda name: ascii(name)[:30])
def test_paths(path):
    """In sentences a path is quoted if need be; in commands to copy, the shell finds the same path again."""
    dashes = ["--"] if path.startswith("-") else []
    code, out, error = call("create", "--seed", "1", "--rows", "0:5", *dashes, path, "9x9")
    assert code == 0, error
    check_text(out, 5)
    advice = re.search(r"run (xavierfast resume .*)\n", out)[1]
    for command in ("verify", "show"):
        code, _, error = call(command, *dashes, path)
        assert code == 3
        check_text(error, 1)
        assert re.search(r"run (xavierfast resume .*) to finish it", error)[1] == advice
    line = advice.replace("xavierfast", '"$@"', 1)
    done = subprocess.run(["bash", "-c", line, "bash", *COMMAND], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files.verify(path).ok
    for command in (["verify"], ["show"], ["status"], ["create", "--seed", "1"]):
        code, out, error = call(*command, *dashes, path, *(["9x9"] if "create" in command else []))
        assert code == (3 if "create" in command else 0)
        check_text(error, error.count("xavierfast: "))
        check_text(out, out.count("\n"))


def test_the_bar_shows_no_markup():
    parent, child = pty.openpty()
    command = [*COMMAND, "create", "[red]:smile:\x1b]0;x\x07.npy", "100Kx64", "--seed", "7", "--init", "normal"]
    process = subprocess.Popen(
        command, stderr=child, stdout=subprocess.PIPE, env=os.environ | {"TERM": "xterm", "COLUMNS": "150"}
    )
    os.close(child)
    text = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while block := os.read(parent, 4096):
            text += block
    os.close(parent)
    process.communicate()
    assert process.returncode == 0
    assert b"[red]:smile:\\x1b]0;x\\x07.npy" in text


def test_the_name_in_a_recipe_is_cut_too():
    files.create("a.npy", xf.Table((4, 3), seed=0, name=" " * 300 + "bound       5"))
    first = call("show", "a.npy")[1].splitlines()[0]
    assert first == f"Table((4, 3), 'xavier_uniform', seed=0, name={' ' * 60!r}... (313 characters))"


# ---- pictures


@pytest.mark.parametrize(
    "name",
    ["\x1b[31m", "\x00", "a\nb", "\u202eb", "\u3164", "$\\frac{$", ROOTS, "[red]", "x" * 500],
    ids=lambda name: ascii(name)[:30],
)
def test_a_name_in_a_picture(name, capfd):
    need("matplotlib")
    files.create("a.safetensors", {name: xf.Table((4, 3), seed=0, name="w")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, out, error = call("show", "a.safetensors", "--plot", "a.svg", "--quiet")
    assert (code, out, error) == (0, "", "")
    assert tuple(capfd.readouterr()) == ("", "")
    assert Path("a.svg").read_bytes().startswith(b"<?xml")


def test_a_plot_replaces_nothing_without_force():
    need("matplotlib")
    files.create("a.npy", xf.Table((40, 3), seed=0))
    Path("precious.png").write_bytes(b"precious")
    os.symlink("precious.png", "link.png")
    os.symlink("nowhere.png", "dangling.png")
    os.mkdir("folder.png")
    os.mkfifo("fifo.png")
    sentences = {
        "precious.png": "already exists; pass --force to replace it",
        "link.png": "is a symlink; pass --force to replace it",
        "dangling.png": "is a symlink; pass --force to replace it",
        "folder.png": "is no regular file, so that a plot cannot replace it; choose another name",
        "fifo.png": "is no regular file, so that a plot cannot replace it; choose another name",
    }
    for plot, sentence in sentences.items():
        assert call("show", "a.npy", "--plot", plot) == (3, "", f"xavierfast: {plot}: {sentence}\n")
    for plot in ("folder.png", "fifo.png"):
        assert call("show", "a.npy", "--force", "--plot", plot)[0] == 3
    for plot in ("link.png", "dangling.png"):
        assert call("show", "a.npy", "--force", "--quiet", "--plot", plot)[0] == 0
        assert not os.path.islink(plot) and Path(plot).read_bytes()[1:4] == b"PNG"
    assert Path("precious.png").read_bytes() == b"precious" and not os.path.exists("nowhere.png")
    assert call("show", "a.npy", "--force", "--quiet", "--plot", "precious.png")[0] == 0
    assert Path("precious.png").read_bytes()[1:4] == b"PNG"
    assert call("show", "a.npy", "--plot", "none/a.png")[0] == 3
    assert call("show", "a.npy", "--plot", "a.xyz")[0] == 2
    assert not [name for name in os.listdir() if name.startswith(".")]
