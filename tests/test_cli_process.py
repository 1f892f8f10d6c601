"""The process of the command: signals at any moment, readers that end, faults of its own, other writers."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from cli_support import COMMAND
from support import need

import xavierfast as xf
from xavierfast import files

STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}
LARGE = ["create", "items.npy", "400Kx128", "--seed", "7", "--init", "normal"]

# What Python runs before anything else, with a signal to itself or an error at the import of one module.
PRELUDE = """
import os, sys

def at(event, arguments):
    if event == "import" and arguments[0] == os.environ["AT"] and not done:
        done.append(True)
        {action}

done = []
sys.addaudithook(at)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    need("typer")
    need("rich")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def disturbed(action, module, *arguments, command=COMMAND):
    """Run the command, and take an action at the first import of a module."""
    Path("early").mkdir(exist_ok=True)
    Path("early/sitecustomize.py").write_text(PRELUDE.format(action=action))
    path = os.pathsep.join(filter(None, ["early", os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "AT": module, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)
    assert Path("early/sitecustomize.py").exists()
    return done


def script():
    """The command as pip installs it."""
    Path("bin").mkdir(exist_ok=True)
    Path("bin/xavierfast").write_text("import sys\nfrom xavierfast.__main__ import main\nsys.exit(main())\n")
    return [sys.executable, "-P", "bin/xavierfast"]


# ---- signals


@pytest.mark.parametrize("number", STOPPED)
@pytest.mark.parametrize(
    "module",
    ["xavierfast.kernels", "numpy", "numpy._core._multiarray_umath", "xavierfast.table", "typer", "rich.progress",
     "xavierfast.files.create", "xavierfast.cli.show", "ctypes"],
)  # fmt: skip
def test_a_signal_while_python_imports(number, module):
    """Most of these moments are before any handler of ours could be installed; the last is in the midst of the work."""
    for command in [COMMAND, *([script()] if module == "numpy" else [])]:
        done = disturbed(f"os.kill(os.getpid(), {int(number)})", module, *LARGE, command=command)
        assert done.returncode in (STOPPED[number], -number), (done.returncode, done.stderr)
        assert "Traceback" not in done.stderr and "Error" not in done.stderr, done.stderr
        assert not Path("items.npy").exists()


@pytest.mark.parametrize("number", STOPPED)
def test_a_signal_at_any_moment(number):
    """From the start of the process on, except for Python's own start, in which it prints a traceback for SIGINT."""
    codes = []
    for k in range(12):
        process = subprocess.Popen([*COMMAND, *LARGE], stderr=subprocess.PIPE, text=True)
        time.sleep(0.03 + 0.05 * k)
        process.send_signal(number)
        _, error = process.communicate()
        if "Traceback" in error and ("import prepare as _prepare" in error or "/xavierfast/" not in error):
            continue
        codes.append(process.returncode)
        assert "Traceback" not in error and "Exception" not in error, error
        for path in Path().glob("items*"):
            path.unlink()
    assert set(codes) <= {STOPPED[number], -number, 0}, codes
    assert set(codes) != {0}


def test_a_signal_that_is_ignored_stays_ignored():
    """As in a job that a shell without job control has put into the background."""
    run = 'trap "" INT TERM; "$@" & wait $!'
    disturbing = PRELUDE.format(action="os.kill(os.getpid(), 2); os.kill(os.getpid(), 15)")
    Path("early").mkdir()
    Path("early/sitecustomize.py").write_text(disturbing)
    path = os.pathsep.join(filter(None, ["early", os.environ.get("PYTHONPATH")]))
    for module in ("numpy", "ctypes"):
        done = subprocess.run(
            ["sh", "-c", run, "sh", *COMMAND, "create", "a.npy", "9x9", "--force"],
            capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path, "AT": module},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")


# ---- faults of our own


@pytest.mark.parametrize("module", ["numpy", "typer", "xavierfast.cli.show", "xavierfast.files.verify", "ctypes"])
def test_a_fault_of_the_program_is_no_difference(module):
    done = disturbed("raise RuntimeError('a bug')", module, "create", "a.npy", "9x9")
    assert done.returncode == 3, done.stderr
    assert done.stderr.endswith(
        "RuntimeError: a bug\n"
        "xavierfast: this is a fault of the program, not of its use: please report it with the lines above\n"
    )


@pytest.mark.parametrize("command", [["verify", "a.npy"], ["status", "a.npy"], ["show", "a.npy"], ["--version"]])
def test_a_fault_within_a_command(command):
    files.create("a.npy", xf.Table((9, 9), seed=0))
    code = f"""
        import sys
        from xavierfast import cli, files
        def fail(*arguments, **keywords):
            raise ZeroDivisionError("a bug")
        files.verify = files.status = files.measure = cli.shell.print = fail
        sys.argv = ["xavierfast", *{command!r}]
        cli.run()
    """
    done = subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 3
    assert "ZeroDivisionError: a bug\nxavierfast: this is a fault of the program" in done.stderr


@pytest.mark.parametrize("by", ["module", "script"])
def test_a_level_that_does_not_exist(by):
    command = COMMAND if by == "module" else script()
    environment = os.environ | {"XAVIERFAST_LEVEL": "avx9000"}
    done = subprocess.run([*command, "verify", "a.npy"], capture_output=True, text=True, env=environment)
    assert done.returncode == 3
    assert re.fullmatch(r"xavierfast: XAVIERFAST_LEVEL must be [^\n]*got 'avx9000'[^\n]*\n", done.stderr)


def test_other_programs_keep_their_handlers():
    code = """
        import signal, sys
        before = signal.getsignal(signal.SIGINT), sys.excepthook
        import xavierfast
        from xavierfast import cli
        assert (signal.getsignal(signal.SIGINT), sys.excepthook) == before
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    """
    Path("other.py").write_text(textwrap.dedent(code))
    for words in (["other.py"], ["other.py", "xavierfast"], ["-m", "other", "xavierfast"]):
        path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
        subprocess.run([sys.executable, "-P", *words], check=True, env=os.environ | {"PYTHONPATH": path})


# ---- readers that end


@pytest.mark.parametrize(
    "arguments",
    [["show", "a.safetensors"], ["verify", "a.safetensors"], ["show", "a.npy", "--json"], ["create", "--help"],
     ["--version"], ["status", "a.safetensors"], ["resume", "a.npy"], ["create", "new.npy", "3x4"]],
    ids=" ".join,
)  # fmt: skip
def test_a_reader_that_has_ended(arguments):
    """As in ``xavierfast show a.npy | head -1``: no word, and the end that other tools come to."""
    files.create("a.npy", xf.Table((9, 9), seed=0))
    files.create("a.safetensors", {f"w{k}": xf.Table((9, 9), seed=0, name=f"w{k}") for k in range(300)})
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, *arguments], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")
    if "new.npy" in arguments:
        assert files.verify("new.npy").ok


def test_head_in_a_shell():
    """The output is longer than a pipe holds, which is 64 KiB."""
    files.create("a.safetensors", {f"w{k}": xf.Table((9, 9), seed=0, name=f"w{k}") for k in range(4000)})
    line = '"$@" show a.safetensors | head -2 >/dev/null; echo ${PIPESTATUS[0]}'
    done = subprocess.run(["bash", "-c", line, "bash", *COMMAND], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("141\n", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_note_that_nobody_can_read_stops_nothing(unbuffered):
    read, write = os.pipe()
    os.close(read)
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([*COMMAND, "create", "a.npy", "9Kx9"], stdout=subprocess.PIPE, stderr=write, env=env)
    os.close(write)
    assert done.returncode == 0
    assert files.verify("a.npy").ok


# ---- other writers


@pytest.mark.parametrize("part", [[], ["--shard", "0/1"]])
def test_while_another_process_writes(part):
    process = subprocess.Popen([*COMMAND, *LARGE, *part], stderr=subprocess.PIPE, text=True)
    while not all(map(os.path.exists, ("items.npy.partial", "items.npy.partial.recipe.json"))):
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    try:
        for options in ([], ["--resume"], ["--force"]):
            done = subprocess.run([*COMMAND, *LARGE, *options], capture_output=True, text=True)
            assert done.returncode == 3
            assert re.fullmatch(r"xavierfast: items\.npy\.partial\S*: another process is writing .*\n", done.stderr), (
                done.stderr
            )
            assert "--force" not in done.stderr and "resume" not in done.stderr
        done = subprocess.run([*COMMAND, "status", "items.npy"], capture_output=True, text=True)
        assert done.returncode == 1
    finally:
        process.send_signal(signal.SIGCONT)
        process.communicate()
    assert process.returncode == 0
    done = subprocess.run([*COMMAND, "resume", "items.npy", "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == ("resumed" if part else "checked")
    assert np.load("items.npy", mmap_mode="r").shape == (400_000, 128)
