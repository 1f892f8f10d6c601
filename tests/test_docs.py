"""Every example in a docstring and every Python block of README and docs runs and gives what it shows; types check."""

import dataclasses
import doctest
import importlib
import json
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from support import missing, need

import xavierfast
from xavierfast._core.extras import RELEASED

ROOT = Path(__file__).parent.parent
if not (ROOT / "docs").is_dir():
    pytest.skip("the documentation is not beside the tests", allow_module_level=True)
COMPILED = ("_cpu", "portable", "avx2", "avx512")
MODULES = ["xavierfast"] + [
    module.name
    for module in pkgutil.walk_packages(xavierfast.__path__, "xavierfast.")
    if module.name.split(".")[-1] not in COMPILED
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs/engines.md"})]  # test_engines.py
API = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/api").glob("*.md"))}
MEMBERS = r"^\.\. members:: (\S+)\n\n((?:   .*\n)+)"  # the directive of docs/conf.py
PUBLIC = sorted({module for text in API.values() for module, _ in re.findall(MEMBERS, text, re.MULTILINE)})


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        tested = importlib.import_module(module)
    except ImportError as error:
        missing(str(error))
    examples = re.findall(r"^ *>>> .*", Path(tested.__file__).read_text(encoding="utf-8"), re.MULTILINE)
    if any("plot" in example for example in examples):
        need("matplotlib")
    failures, attempted = doctest.testmod(tested, optionflags=FLAGS)
    assert failures == 0
    assert attempted == len(examples)


def is_called(member):
    """Whether users call it, unlike the classes of results and errors, which the examples of functions show."""
    result = isinstance(member, type) and (issubclass(member, (tuple, Exception)) or dataclasses.is_dataclass(member))
    return callable(member) and not result


def is_ours(member):
    """Whether the package defines it, instead of passing on what a framework has."""
    return member.__module__.partition(".")[0] == "xavierfast"


@pytest.mark.parametrize("module", PUBLIC)
def test_each_public_function_has_an_example(module):
    try:
        tested = importlib.import_module(module)
    except ImportError as error:
        missing(str(error))
    members = {name: getattr(tested, name) for name in tested.__all__}
    ours = [name for name, member in members.items() if is_called(member) and is_ours(member)]
    assert ours
    for name in ours:
        assert ">>> " in (members[name].__doc__ or ""), name
        assert members[name].__module__ in MODULES, f"no test runs the examples of {name}"


@pytest.mark.parametrize("module", PUBLIC)
def test_the_pages_of_the_api_list_each_public_name(module):
    """Functions and classes once, with their docstrings; values, and what a framework has, in the text of the page."""
    try:
        tested = importlib.import_module(module)
    except ImportError as error:
        missing(str(error))
    blocks = [block for text in API.values() for block in re.findall(MEMBERS, text, re.MULTILINE)]
    listed = " ".join(names for of, names in blocks if of == module).split()
    everywhere = " ".join(names for _, names in blocks).split()  # xavierfast has two functions of xavierfast.tf1
    assert len(listed) == len(set(listed)) and set(listed) <= set(tested.__all__)
    for name in tested.__all__:
        member = getattr(tested, name)
        described = callable(member) and is_ours(member) and name != "xavier_initializer_conv2d"  # a second name
        assert name in everywhere if described else any(f"`{name}`" in text for text in API.values()), name


def test_every_public_module_has_a_page():
    private = {"_core", "kernels", "fans", "initializers", "model", "table", "cli", "__main__"}
    tops = {f"xavierfast.{module.name}" for module in pkgutil.iter_modules(xavierfast.__path__)}
    assert set(PUBLIC) == {"xavierfast"} | (tops - {f"xavierfast.{name}" for name in private})


def test_the_docs_say_how_to_install_as_the_errors_do():
    """Where this fails after ``RELEASED`` has changed, the pages that it names still say the old way."""
    pages = {page: page.read_text(encoding="utf-8") for page in [*PAGES, *API, ROOT / "docs/engines.md"]}
    pattern = r"pip install [^\n`]*?'?(xavierfast)?\[\w"
    wrong = {
        page.name for page, text in pages.items() for named in re.findall(pattern, text) if bool(named) != RELEASED
    }
    for name, unreleased in (("docs/install.md", "git clone"), ("README.md", "Nothing has been published yet")):
        if (unreleased in pages[ROOT / name]) == RELEASED:
            wrong.add(name)
    assert wrong == set()


def test_links_between_files_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 50
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_the_weekly_workflow_makes_each_attack():
    attacks = runpy.run_path(str(ROOT / "tests/evidence/__main__.py"))["ATTACKS"]
    workflow = (ROOT / ".github/workflows/evidence.yml").read_text(encoding="utf-8")
    assert re.findall(r"^          - (\w+)$", workflow, re.MULTILINE) == list(attacks)


def test_pages_hold_the_figures_that_were_recorded():
    record = runpy.run_path(str(ROOT / "benches/record.py"))
    for path, text in record["rendered"]().items():
        assert path.read_text(encoding="utf-8") == text, f"run python benches/record.py --render for {path.name}"


def run_in_shell(block):
    """Run the commands of a block, each of which must succeed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    small = block.replace("1000x5", "100x5")  # the network of `explain`, which takes a minute
    done = subprocess.run(["sh", "-e", "-c", small], capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page, tmp_path, monkeypatch):
    """The blocks of a page work one after the other in one folder: Python, commands, and files that begin with their
    name in a comment. Paths on shared storage and installations are left out."""
    monkeypatch.chdir(tmp_path)
    blocks = [
        (kind, block)
        for kind, block in re.findall(r"```(python|sh|bash|toml)\n(.*?)```", page.read_text(), re.DOTALL)
        if kind == "python" or block.startswith("# ") or (block.startswith("xavierfast ") and "/shared/" not in block)
    ]
    text = "\n".join(block for _, block in blocks)
    for module in re.findall(r"^(?:>>> | )*(?:import|from) ([\w.]+)", text, re.MULTILINE):
        need(module)
    if re.search(r"\bplot\(|plot=|--plot", text):
        need("matplotlib")
    if any(kind in ("sh", "bash") for kind, _ in blocks):
        need("typer")
    names: dict[str, object] = {}
    for kind, block in blocks:
        if kind == "toml":
            name = re.match(r"# ([\w.-]+)\n", block)
            if name:
                Path(name[1]).write_text(block, encoding="utf-8")
        elif kind != "python":
            run_in_shell(block)
        elif ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, page.name, str(page), 0)
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            runner.run(test, clear_globs=False)
            assert runner.summarize(verbose=False).failed == 0
            names.update(test.globs)
        else:
            exec(compile(block, str(page), "exec"), names)


# ---- types


def mypy(*arguments):
    """The errors that mypy finds: triples of a file's name, a line and the error's code."""
    need("mypy")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mypy", *arguments],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"MYPY_CACHE_DIR": os.devnull},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(.*?):(\d+):.* error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    assert bool(found) == bool(done.returncode), done.stdout
    return {(Path(file).name, int(line), code) for file, line, code in found}


def pyright(*arguments):
    """The errors and warnings that pyright finds, in the form of those of mypy."""
    need("pyright")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", *arguments],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )  # fmt: skip
    try:
        report = json.loads(done.stdout)
    except ValueError:  # pyright is written in JavaScript, and found no Node.js
        missing(f"pyright does not run: {done.stderr[-500:]}")
    assert report["summary"]["filesAnalyzed"] > 0
    found = [(item["file"], item["range"]["start"]["line"] + 1, item["rule"]) for item in report["generalDiagnostics"]]
    return {(Path(file).name, line, rule) for file, line, rule in found}


CHECKERS = {
    "mypy": (mypy, ["--config-file", "pyproject.toml"], ["--strict", "--config-file", os.devnull]),
    "pyright": (pyright, ["--project", "pyproject.toml"], []),
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_package_has_no_type_errors(checker):
    check, options, _ = CHECKERS[checker]
    assert check(*options) == set()


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_type_checkers_accept_and_refuse(checker):
    """In tests/typing, each line has the error that its comment names for the checker; other lines have none."""
    check, _, options = CHECKERS[checker]
    marked = set()
    for path in (ROOT / "tests/typing").glob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if mark := re.search(r"#! (\S+) (\S+)$", line):
                marked.add((path.name, number, mark[1 + list(CHECKERS).index(checker)]))
    assert len(marked) > 20
    assert check(*options, "tests/typing/accepted.py", "tests/typing/refused.py") == marked
