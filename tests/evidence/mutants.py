"""Mutants of the Python around the kernels: ``python tests/evidence/mutants.py [MODULE ...] [--sample N] [--seed S]``.

Each is a copy of a module in which one operator, comparison, condition, number, loop, decorator or except clause is
another; the tests of that module must fail. cosmic-ray makes them (``pip install cosmic-ray``): mutmut 3 leaves alone
what stands outside of functions, and decorated functions, here all initialisers, properties and caches. Sums up and
lists the survivors; exit code 1 if fewer are killed than were known to be. All modules take hours, which several runs
may share, a module each; ``_core.stream --sample 20`` is over in half a minute.
"""

import argparse
import ast
import compileall
import importlib.util
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from itertools import groupby
from math import sqrt
from pathlib import Path
from time import perf_counter

from sources import copy_sources

# One replacement for an operator, two for an order: cosmic-ray's further ones die of the same tests, or of a TypeError.
KINDS = re.compile(
    r"core/(AddNot|ExceptionReplacer|NumberReplacer|RemoveDecorator|Replace(And|Or|True|False|Break|Continue)With\w+"
    r"|ReplaceUnaryOperator_Delete_\w+|ReplaceUnaryOperator_USub_UAdd|ZeroIterationForLoop"
    r"|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_FloorDiv|Div_Mul|FloorDiv_Mul|Mod_FloorDiv|Pow_Mul|LShift_RShift"
    r"|RShift_LShift|BitAnd_BitOr|BitOr_BitAnd)"
    r"|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt"
    r"|GtE_Lt))"
)
# What decides nothing but speed or memory: no test of values sees it, and benches do.
SPEED = re.compile(
    r"@(lru_)?cache\b|^(PARALLEL_MIN_BYTES|PIECE_BYTES|STREAMING_MIN_BYTES|FASTER_THAN_MEMORY|MIN_PIECE_SECONDS|CHUNK|BLOCK_BYTES)\b"
    r"|\bstreaming = |if took < |size \*= 2|if out\.nbytes < PARALLEL_MIN_BYTES"
)
SLOW = (
    "test_signals or test_memory or temporaries or many_threads or many_callers or parts_of_several or two_creators or "
    "rounding_mode or flush_to_zero or interrupted or test_fork or nested_to_the_limit or forced_level or "
    "impossible_level or descriptors or junk_recipes"
)
TABLE = "tests/test_table.py"
FILES = "tests/files", "tests/test_strangers.py"


def some(file: str, names: str) -> tuple[str, ...]:
    return tuple(f"{file}::{name}" for name in names.split())


INDICES = some(TABLE, "test_numpys_rules test_index_errors test_what_cannot_index test_far_positions test_chunks")
KEPT = some(TABLE, "test_recipe_is_json test_hostile_recipes test_missing_fields test_equality")
DTYPES = some(TABLE, "test_small_floats test_expected_deviation TestComplex")
# Pytest's exit codes: 2 and 4 are of test modules that cannot be collected, as a mutant cannot be imported.
OUTCOMES = {0: "survived", 1: "killed", 2: "killed", 4: "killed"}
# Tests that cover a module, the quickest first; SLOW ones among them are left out.
TESTS = {
    "_core.stream": ("tests/test_known_answers.py", "tests/test_api.py"),
    "fans": ("tests/test_fans.py", "tests/test_api.py"),
    "_core.distributions": (
        "tests/test_goldens.py", "tests/test_api.py", *DTYPES, "tests/test_invariance.py", TABLE,
        "tests/test_strangers.py::test_extreme_parameters", "tests/test_truncated.py",
    ),
    "_core.recipe": (
        *KEPT, "tests/test_api.py", TABLE, *some("tests/test_strangers.py", "test_recipes test_from_recipe"),
    ),
    "_core.indexing": (*INDICES, TABLE),
    "table": (
        *INDICES, *KEPT, "tests/test_api.py", TABLE,
        "tests/files/test_create.py::test_views",
        *some("tests/files/test_resume.py", "test_rows_in_any_order test_resume_counts_bytes"),
    ),
    "_core.threads": ("tests/test_threads.py", "tests/test_api.py::test_bad_thread_environment"),
    "_core.validation": ("tests/test_api.py", "tests/test_fans.py", TABLE),
    "_core.fill": (
        *INDICES,
        *some("tests/test_invariance.py", "test_empty_and_scalar test_slices test_buffers test_layouts"),
        *some("tests/test_invariance.py", "test_large_strided test_large_rows_in_fortran_order"),
        f"{TABLE}::test_large_reads", f"{TABLE}::test_small_floats", "tests/test_threads.py",
        "tests/test_api.py::test_bad_thread_environment",
    ),
    "_core.rules": (
        "tests/test_api.py", "tests/test_tf1.py", "tests/test_goldens.py", *DTYPES,
        f"{TABLE}::test_functions_are_the_short_way",
    ),
    "model": ("tests/test_model.py",),
    "files.formats": FILES,
    "files.blocks": FILES,
    "files.row_ranges": ("tests/files/test_row_ranges.py", "tests/files/test_verify.py"),
    "files.specs": ("tests/test_strangers.py", "tests/test_cli.py"),
    "files.posix": FILES,
    "files.target": FILES,
    "files.plan": FILES,
    "files.create": FILES,
    "files.resume": FILES,
    "files.repair": FILES,
    "files.extend": FILES,
    "files.handles": FILES,
    "files.limits": ("tests/test_strangers.py",),
    "files.estimate": FILES,
    "files.verify": FILES,
    "files.reader": FILES,
    "files.measure": FILES,
}  # fmt: skip


LEFT_OUT = "annotations", "asserts", "texts of errors", "speed alone"
# Percent killed where all mutants have been tried; those that survived do the same as the original, or nearly.
KNOWN = {"fans": 92, "_core.stream": 96, "_core.recipe": 95, "model": 86}


def mutants_of(path: Path) -> list[tuple[str, int, tuple[int, int]]]:
    """Operator, occurrence and place of each that cosmic-ray makes."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import WorkDB, use_db

    with use_db(":memory:", WorkDB.Mode.create) as database:
        init([path], database, {})
        made = [item.mutations[0] for item in database.work_items]
    return sorted((m.operator_name, m.occurrence, m.start_pos) for m in made if KINDS.fullmatch(m.operator_name))


def left_out(source: str) -> dict[tuple[int, int], str]:
    """The places at which a mutant tells nothing, and why."""
    places = {}
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise):
            spans = [(node, "texts of errors")]
        elif isinstance(node, ast.Assert) or (isinstance(node, ast.keyword) and node.arg == "strict"):
            spans = [(node, "asserts")]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            spans = [(node, "annotations")]
        else:
            types = (getattr(node, "annotation", None), getattr(node, "returns", None))
            spans = [(part, "annotations") for part in types if part is not None]
        for part, why in spans:
            for number in range(part.lineno, part.end_lineno + 1):
                first = part.col_offset if number == part.lineno else 0
                last = part.end_col_offset if number == part.end_lineno else len(lines[number - 1])
                places |= dict.fromkeys(((number, column) for column in range(first, last)), why)
    for number, line in enumerate(lines, 1):
        if SPEED.search(line):
            places |= dict.fromkeys(((number, column) for column in range(len(line))), "speed alone")
    return places


def mutated(source: str, operator: str, occurrence: int) -> str:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    return mutate_code(source, get_operator(operator)(), occurrence)


def run_tests(folder: Path, tests: tuple[str, ...], shown: bool) -> None:
    """In a process of its own, whose exit code is pytest's."""
    import pytest

    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(1 if shown else 3):
        os.dup2(nothing, descriptor)
    os.chdir(folder)
    options = ["-x", "-q", f"--tb={'short' if shown else 'no'}", "--assert=plain", "-p", "no:cacheprovider"]
    options.append(f"--basetemp={folder}/pytest")
    os._exit(pytest.main([*options, "-k", f"not ({SLOW})", *tests]))


def verdict(folder: Path, tests: tuple[str, ...], seconds: float, shown: bool = False) -> str:
    """File by file, each in a fork of an interpreter that has imported what tests need, which saves a second."""
    for _, group in groupby(tests, lambda test: test.partition("::")[0]):
        process = multiprocessing.get_context("fork").Process(target=run_tests, args=(folder, tuple(group), shown))
        process.start()
        process.join(seconds)
        late = process.is_alive()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with whatever the tests have started
        process.join()
        outcome = "timeout" if late else OUTCOMES.get(process.exitcode, "crash")
        if outcome != "survived":
            break
    return outcome


def attack(name: str, folder: Path, sample: int, seed: int) -> Counter[str]:
    path = folder / "xavierfast" / f"{name.replace('.', '/')}.py"
    source = path.read_text(encoding="utf-8")
    # Bytecode is told from its source by size and seconds, and a mutant may change neither.
    Path(importlib.util.cache_from_source(str(path))).unlink()
    excused = left_out(source)
    mutants = mutants_of(path)
    counts = Counter(excused[place] for *_, place in mutants if place in excused)
    mutants = [mutant for mutant in mutants if mutant[-1] not in excused]
    counts["mutants"] = len(mutants)
    if sample < len(mutants):
        mutants = random.Random(seed).sample(mutants, sample)
    tests = *TESTS[name], f"tests/test_docs.py::test_docstrings[xavierfast.{name}]"
    began = perf_counter()
    if verdict(folder, tests, 3600, shown=True) != "survived":
        sys.exit(f"the tests of {name} fail, or do not run, without a mutant: {' '.join(tests)}")
    seconds = 10 + 4 * (perf_counter() - began)
    path.write_text("raise ImportError\n" + source, encoding="utf-8")
    if verdict(folder, tests, seconds) == "survived":
        sys.exit(f"the tests of {name} do not import the mutants")
    for operator, occurrence, (line, _) in sorted(mutants, key=lambda mutant: mutant[-1]):
        code = mutated(source, operator, occurrence)
        path.write_text(code, encoding="utf-8")
        outcome = verdict(folder, tests, seconds)
        counts[outcome] += 1
        if outcome != "killed":
            new = code.splitlines()[line - 1].strip()
            print(f"{outcome} {name}.py:{line} {operator.partition('/')[2]}\n    {new}", flush=True)
    path.write_text(source, encoding="utf-8")
    counts["seconds"] = round(perf_counter() - began)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(TESTS))
    parser.add_argument("--sample", type=int, default=1 << 30, help="mutants of each module, chosen at random")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - set(TESTS)
    if unknown:
        parser.error(f"no tests are known for {', '.join(sorted(unknown))}")
    needed = "cosmic_ray", "pytest", "hypothesis", "xavierfast"
    missing = [name for name in needed if not importlib.util.find_spec(name)]
    if missing or not hasattr(os, "fork"):
        print(f"cannot run here: needs fork and {', '.join(missing) or 'POSIX'}")
        return 77
    installed = Path(importlib.util.find_spec("xavierfast").submodule_search_locations[0])
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # which removes the copy
    os.environ.pop("XAVIERFAST_REQUIRE_ALL", None)  # one level is enough
    os.environ |= {"CI": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    rows = {}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where fsync costs nothing
    with tempfile.TemporaryDirectory(dir=memory) as temporary:
        folder = Path(temporary).resolve()
        copy_sources(folder, "docs")  # which lists the public modules
        # Levels differ in nothing that the Python around them sees: the fastest that this machine runs will do.
        command = [sys.executable, "-P", "-c", "import xavierfast; print(xavierfast.level)"]
        level = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for name in ("_cpu", level):
            (library,) = installed.glob(f"kernels/{name}.*.so")
            shutil.copy(library, folder / "xavierfast/kernels")
        for tests in (folder / "tests").glob("test_*.py"):
            text = tests.read_text(encoding="utf-8")
            text = re.sub(r"max_examples=(\d+)", lambda found: f"max_examples={int(found[1]) // 10}", text)
            tests.write_text(text, encoding="utf-8")
        conftest = folder / "tests/conftest.py"  # a failure is enough: the least one is not looked for
        text = conftest.read_text(encoding="utf-8")
        assert text.count("derandomize=True") == 1
        phases = "phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate)"
        conftest.write_text(text.replace("derandomize=True", f"derandomize=True, {phases}"), encoding="utf-8")
        compileall.compile_dir(folder, quiet=1)
        os.environ["PYTHONPATH"] = temporary
        sys.path.insert(0, temporary)
        for module in ("pytest", "hypothesis.extra.numpy"):  # what a fork need not import again; xavierfast it must
            importlib.import_module(module)
        for name in arguments.modules or TESTS:
            rows[name] = attack(name, folder, arguments.sample, arguments.seed)
    columns = "mutants", "killed", "timeout", "crash", "survived", "score", "seconds"
    print("\n" + f"{'':14}" + "".join(f"{column:>12}" for column in columns))
    worse = []
    for name, row in rows.items():
        caught = row["killed"] + row["timeout"] + row["crash"]
        tried = caught + row["survived"]
        row["score"] = f"{caught / tried:.1%}"
        print(f"{name:14}" + "".join(f"{row[column]:>12}" for column in columns))
        known = KNOWN.get(name, 0) / 100
        if caught / tried < known - (3 * sqrt(known * (1 - known) / tried) if tried < row["mutants"] else 0):
            worse.append(name)
    tried, survived = (sum(row[key] for row in rows.values() for key in keys) for keys in (columns[1:5], columns[4:5]))
    excused = sum((Counter({why: row[why] for why in LEFT_OUT}) for row in rows.values()), Counter())
    print(f"left out: {', '.join(f'{count} of {why}' for why, count in excused.items())}")
    print(
        f"{tried - survived} of {tried} mutants of {len(rows)} modules killed, {survived} survived; "
        + (f"fewer than known of {', '.join(worse)}" if worse else "as many as known, or more")
    )
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
