"""Who may import whom, and what an import loads: the rules of the package's rooms."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import need, run

import xavierfast

ROOT = Path(xavierfast.__file__).parent
FRAMEWORKS = {"torch", "jax", "keras", "dask", "zarr", "matplotlib", "typer", "rich", "fcntl", "triton"}


def imports_of(path: Path) -> set[str]:
    """Names of the modules that a file imports at its own import; not those that its functions import later."""
    package = ("xavierfast", *path.relative_to(ROOT).parts[:-1])
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else ()
                module = ".".join([*base, *([child.module] if child.module else [])])
                for alias in child.names:
                    name = f"{module}.{alias.name}"
                    found.add(name if is_module(name) else module)
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def rooms(*names: str) -> list[Path]:
    return [path for name in names for path in ((ROOT / name).rglob("*.py") if "." not in name else [ROOT / name])]


CORE = ("_core", "kernels", "fans.py", "table.py", "initializers.py", "model.py")
RULES = [
    (("_core",), ("xavierfast.table", "xavierfast.initializers", "xavierfast.model", "xavierfast.fans")),
    (CORE, ("xavierfast.files", "xavierfast.torch", "xavierfast.propagation", *FRAMEWORKS)),
    (
        ("torch", "jax", "keras.py", "tf1.py"),
        ("xavierfast.files", "xavierfast.propagation", "xavierfast.kernels.gpu", "matplotlib", "fcntl", "triton"),
    ),
    (("files",), ("xavierfast.torch", "xavierfast.propagation", *(FRAMEWORKS - {"fcntl"}))),
    (("propagation",), ("xavierfast.files", "xavierfast.torch", *FRAMEWORKS)),
]


@pytest.mark.parametrize(("room", "forbidden"), RULES, ids=["_core", "core", "frameworks", "files", "propagation"])
def test_imports(room, forbidden):
    paths = rooms(*room)
    assert paths
    for path in paths:
        for name in imports_of(path) - ({"triton", "triton.language"} if path.name == "gpu.py" else set()):
            assert not any(name == bad or name.startswith(f"{bad}.") for bad in forbidden), f"{path.name}: {name}"


def test_no_circle():
    """Modules can be put in an order in which each imports only earlier ones."""
    modules = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(("xavierfast", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    edges = {name: {other for other in imports_of(path) if other in modules} - {name} for name, path in modules.items()}
    while edges:
        free = [name for name, needs in edges.items() if not needs & edges.keys()]
        assert free, f"a circle among {sorted(edges)}"
        for name in free:
            del edges[name]


def test_size_of_the_top_level():
    """The modules and folders directly below xavierfast, and their imports of each other at import time, stay few."""
    imports: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).with_suffix("").parts[0]
        found = (f"{other}.__init__".split(".") for other in imports_of(path))
        imports.setdefault(name, set()).update(parts[1] for parts in found if parts[0] == "xavierfast")
    edges = {name: others - {name} for name, others in imports.items()}

    def chain(name: str) -> int:
        return 1 + max(map(chain, edges[name]), default=0)  # a circle would be a RecursionError

    assert len(edges) <= 16
    assert sum(map(len, edges.values())) <= 46
    assert max(map(chain, edges)) <= 7


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(run(code).split())


def test_what_an_import_loads():
    loaded = loaded_by(
        "import numpy\nbefore = set(sys.modules)\nimport xavierfast\nfor m in before: del sys.modules[m]"
    )
    ours = {name for name in loaded if name.partition(".")[0] == "xavierfast"}
    assert not any(name.startswith(("xavierfast.files", "xavierfast.torch", "xavierfast.propagation")) for name in ours)
    assert not FRAMEWORKS & loaded


def test_torch_loads_no_files_no_plots_and_no_kernels_for_gpus():
    """xavierfast.torch works where xavierfast.files and Triton cannot be imported, as on Windows."""
    need("torch")
    loaded = loaded_by("import xavierfast.torch")
    bad = ("xavierfast.files", "xavierfast.propagation", "xavierfast.kernels.gpu", "matplotlib")
    assert not [name for name in loaded if name.startswith(bad)]


WINDOWS = """
import sys
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios"):
    sys.modules[name] = None  # as if it did not exist
"""


def test_all_but_files_works_without_posix():
    code = (
        WINDOWS
        + """
import xavierfast as xf
import xavierfast.propagation, xavierfast.tf1

assert (xf.Table((500, 3), seed=1)[2] == xf.xavier_uniform((500, 3), seed=1)[2]).all()
for _ in range(2):
    try:
        import xavierfast.files
    except ImportError as error:
        print(error)
"""
    )
    assert run(code).splitlines() == 2 * [
        "xavierfast.files needs a POSIX system, such as Linux or macOS, got one without Python's module fcntl: "
        "save the array of a Table by other means, such as numpy.save"
    ]


def test_the_command_says_what_it_needs_without_posix():
    need("typer")
    code = WINDOWS + "import xavierfast.__main__ as command\ncommand.main()"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("xavierfast: xavierfast.files needs a POSIX system, ")
    assert done.stderr.count("\n") == 1


def test_torch_works_without_posix():
    need("torch")
    code = "import torch, xavierfast.torch as xt\nprint(xt.xavier_uniform_(torch.empty(20, 3), seed=1).std() > 0)"
    assert run("import torch\n" + WINDOWS + code) == "tensor(True)\n"  # torch itself looks for them


def test_a_source_tree_without_kernels_says_so(tmp_path):
    """A clone in which nothing has been built hides an installed copy from every Python that starts inside it."""
    for path in ROOT.rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    done = subprocess.run([sys.executable, "-c", "import xavierfast"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: xavierfast's kernels are not compiled for this Python in {tmp_path}/xavierfast/kernels: "
        "in a checkout, run pip install -e . there"
    )
    assert "circular import" not in done.stderr


def test_public_names():
    """dir() lists the public names, and nothing that was only imported."""
    assert set(dir(xavierfast)) == {*xavierfast.__all__, "__version__"}
    for name in ("files", "propagation"):
        module = __import__(f"xavierfast.{name}", fromlist=["*"])
        assert dir(module) == sorted(module.__all__)
    with pytest.raises(AttributeError, match="module 'xavierfast' has no attribute 'Tabel'"):
        xavierfast.Tabel  # noqa: B018
