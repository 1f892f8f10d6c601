"""Run the benches once, keep their figures, and write them into README and docs.

    python benches/record.py            # run all benches: half an hour on 2 cores that do nothing else
    python benches/record.py -k fresh   # run some, and print their tables in Markdown; nothing is written
    python benches/record.py --render   # write README and docs again from the figures that are kept

``benches/figures/LEVEL.json`` holds the last run at each level of the kernels, by the name of the level. README's table
and the chart take each row from the first of these files, in the order of `LEVELS`, that has it.
"""

import json
import re
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "benches/figures"
LEVELS = ("avx2", "avx512")
NOTHING_TO_RUN = 5  # pytest's exit code
Row = dict[str, Any]

# The parts of docs/benchmarks.md, by the file of the bench.
TOPICS = {
    "test_fill": "Fills",
    "test_calls": "Small calls and the import",
    "test_table": "Parts of a table of 10^10 rows",
    "test_files": "Tables on disk",
    "test_torch": "PyTorch",
    "test_jax_keras": "JAX and Keras",
    "test_dask": "Dask and zarr",
    "test_gpu": "GPUs",
}
# The columns of the table of fills, by the first word of the one who fills.
PEERS = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX", "mkl": "MKL", "memset": "memset"}


# ---- running


def run(arguments: list[str]) -> dict[str, Any]:
    """Run benches in a process of pytest, and return the machine and the rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.json")
        command = [sys.executable, "-m", "pytest", "-q", "--benchmark-disable-gc", f"--benchmark-json={path}"]
        command += ["-W", "ignore:Not saving anything"]  # where this machine can run none of the benches
        done = subprocess.run([*command, *arguments], cwd=ROOT)
        if done.returncode not in (0, NOTHING_TO_RUN):
            print("some benches failed, as pytest says above: their figures are missing", file=sys.stderr)
        report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"benchmarks": []}
    rows = []
    for bench in report["benchmarks"]:
        extra, stats = bench["extra_info"], bench["stats"]
        row = {"topic": Path(bench["fullname"].partition("::")[0]).stem, "group": bench["group"]}
        row |= {"who": bench["params"]["who"], **extra, "best": stats["min"], "median": stats["median"]}
        rows.append(row)
    return {"machine": report["machine_info"]["xavierfast"] if rows else None, "rows": rows}


def record() -> None:
    """Run all benches, each file in a process of its own, and keep the figures after each.

    Files are written to the disk that holds the temporary folder, and once more to memory.
    """
    figures: dict[str, Any] = {"machine": None, "rows": []}
    for topic in TOPICS:
        found = run([f"benches/{topic}.py"])
        if topic == "test_files":
            memory = ["-k", "test_create or test_verify", "--basetemp=/dev/shm/xavierfast"]
            in_memory = run([f"benches/{topic}.py", *memory])["rows"]
            found["rows"] += [row | {"group": f"{row['group']}, in tmpfs"} for row in in_memory]
        figures = {"machine": figures["machine"] or found["machine"], "rows": figures["rows"] + found["rows"]}
        keep(figures)


def keep(figures: dict[str, Any]) -> None:
    lines = ",\n".join(f"  {json.dumps(row)}" for row in figures["rows"])
    text = f'{{\n "machine": {json.dumps(figures["machine"])},\n "rows": [\n{lines}\n ]\n}}\n'
    (FIGURES / f"{figures['machine']['level']}.json").write_text(text, encoding="utf-8")


# ---- tables


def rate(row: Row, key: str = "best") -> float:
    """GB/s."""
    return float(row["size"] / row[key] / 1e9)


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def duration(seconds: float) -> str:
    return (
        f"{number(seconds)} s" if seconds >= 1 else f"{number(seconds * 1e3)} ms" if seconds >= 1e-3 else micro(seconds)
    )


def micro(seconds: float) -> str:
    return f"{number(seconds * 1e6)} us"


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def fills(rows: list[Row]) -> str:
    """One line for each group; one column for each level and each peer; bold for the fastest that draws numbers."""
    ours = sorted({row["who"] for row in rows if row["who"].startswith("xavierfast ")}, key=_order)
    head = ["GB/s", *ours, *PEERS.values()]
    lines = []
    for group, members in groupby(rows, key=lambda row: row["group"]):
        found = {row["who"].removeprefix("np.empty + "): row for row in members}
        if "xavierfast" in found:  # of the bench of new memory, which runs the best level
            found[ours[0]] = found.pop("xavierfast")
        cells = [next((row for who, row in found.items() if who.split()[0] == peer), None) for peer in PEERS]
        cells = [*(found.get(who) for who in ours), *cells]
        best = max(rate(row) for row, name in zip(cells, head[1:], strict=True) if row and name != "memset")
        lines.append([group, *("" if row is None else _bold(number(rate(row)), rate(row) == best) for row in cells)])
    return table(head, lines)


def _order(who: str) -> int:
    return ["avx512", "avx2", "portable"].index(who.split()[1])


def _bold(text: str, is_best: bool) -> str:
    return f"**{text}**" if is_best else text


def others(rows: list[Row]) -> str:
    """One line for each measurement, with the fastest of a group first."""
    lines = []
    for group, members in groupby(rows, key=lambda row: row["group"]):
        for row in sorted(members, key=lambda row: row.get("seconds", row["best"])):
            best, median = row["best"], row["median"]
            if "memory" in row:
                cells = [f"{duration(row['seconds'])}, {row['memory'] / 2**20:,.0f} MiB", ""]
            elif "import_seconds" in row:
                cells = ["", duration(row["import_seconds"])]
            elif row["size"] <= 1 << 20:
                cells = [micro(best), micro(median)]
            elif row["unit"] == "rows":
                cells = [f"{number(row['elements'] / seconds / 1e6)} M rows/s" for seconds in (best, median)]
            else:
                cells = [f"{number(rate(row, key))} GB/s" for key in ("best", "median")]
            lines.append([group, row["who"], *cells])
            group = ""
    return table(["", "", "fastest round", "median"], lines)


def tables(figures: dict[str, Any]) -> str:
    rows = sorted(figures["rows"], key=lambda row: list(TOPICS).index(row["topic"]))
    texts = [describe(figures["machine"])]
    for topic, members in groupby(rows, key=lambda row: row["topic"]):
        texts += [f"### {TOPICS[topic]}", (fills if topic == "test_fill" else others)(list(members))]
    return "\n\n".join(texts)


def describe(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"Machine: {machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}; level {machine['level']}. "
        f"Versions: {packages}. Date: {machine['date']}. {machine.get('note', '')}".rstrip()
    )


def place(machine: dict[str, Any]) -> str:
    return f"{machine['cpus']}-core {machine['cpu']}, {machine['date']}"


def kept() -> dict[str, dict[str, Any]]:
    paths = [FIGURES / f"{level}.json" for level in LEVELS]
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()}


# ---- README and docs

# Lines of README's table, and the group of the bench that each comes from.
README = {
    "uniform float32 into memory, 1 thread": "uniform, float32, 256 MiB warm, 1 thread",
    "normal float32 into memory, 1 thread": "normal, float32, 256 MiB warm, 1 thread",
    "truncated normal float32 into memory, 1 thread": "truncated, float32, 256 MiB warm, 1 thread",
}
DISK = "a 1 GiB table on disk, synced, in a process of its own: time after the imports, memory beyond them"


def find(group: str) -> tuple[dict[str, Any], dict[str, Row]]:
    """The first of the kept runs that has a group, and the group's rows by the one who was measured."""
    for figures in kept().values():
        rows = {row["who"]: row for row in figures["rows"] if row["group"] == group}
        if rows:
            return figures["machine"], rows
    raise KeyError(group)


def readme() -> str:
    machines, lines = [], []
    for task, group in README.items():
        machine, rows = find(group)
        machines.append(machine)
        cells = [rows[f"xavierfast {machine['level']}"], *(_first(rows, peer) for peer in PEERS)]
        best = max(rate(row) for row in cells[:-1] if row)  # memset draws no numbers
        lines.append([task, *("" if row is None else _bold(number(rate(row)), rate(row) == best) for row in cells)])
    machine, rows = find(DISK)
    machines.append(machine)
    programs = [_first(rows, name) for name in ("xavierfast", *PEERS)]
    best = min(row["seconds"] for row in programs if row)
    cells = ["" if row is None else _bold(f"{row['seconds']:.1f} s", row["seconds"] == best) for row in programs]
    lines.append(["1 GiB written to disk, synced", *cells])
    lines.append(["on a GPU", "not yet run on a card", *[""] * len(PEERS)])
    names = [place(machine) for machine in machines]
    disk = "" if names[-1] == names[0] else f". The line of the disk comes from a {names[-1]}"
    return (
        f"GB/s, and seconds for the disk, on a {names[0]}{disk}.\n\n{table(['', 'xavierfast', *PEERS.values()], lines)}"
    )


def _first(rows: dict[str, Row], name: str) -> Row | None:
    """The fastest way of a library."""
    of_name = [row for who, row in rows.items() if who.split()[0].rstrip(",") == name]
    return min(of_name, key=lambda row: row.get("seconds", row["best"]), default=None)


def benchmarks() -> str:
    titles = {level: f"## At the level {level}" for level in LEVELS}
    return "\n\n".join(f"{titles[level]}\n\n{tables(figures)}" for level, figures in kept().items())


def framework(name: str, module: str, initializers: list[str], suffix: str = "") -> str:
    """A table of the time of initialisers in a framework, and of the memory of the one that `test_memory` calls."""
    shape = "(8192, 8192) float32"
    groups = {initializer: f"{module}.{initializer} of {shape}, new memory{suffix}" for initializer in initializers}
    machine = find(next(iter(groups.values())))[0]
    times = {initializer: find(group)[1] for initializer, group in groups.items()}
    normal = next(
        initializer for initializer in initializers if initializer.lower() in ("glorot_normal", "glorotnormal")
    )
    memory = find(f"{name}'s {normal} of {shape}, 256 MiB: a first call, growth of the peak memory")[1]
    lines = []
    for who in (f"xavierfast.{name}", f"xavierfast.{name} under jit", name):
        if who in memory:
            cells = [duration(rows[who]["best"]) for rows in times.values()]
            lines.append([f"`{who}`", *cells, f"{memory[who]['memory'] / 2**20:,.0f} MiB"])
    head = ["", *(f"`{initializer}`" for initializer in initializers), f"growth of peak memory, `{normal}`"]
    version = machine["packages"].get(name)
    which = f"{name} {version}" if version else name
    return f"Measured on a {place(machine)}, with {which}:\n\n{table(head, lines)}"


def cluster() -> str:
    """The rows of the bench of dask."""
    for figures in kept().values():
        if rows := [row for row in figures["rows"] if row["topic"] == "test_dask"]:
            machine = figures["machine"]
            return f"Measured on a {place(machine)}:\n\n{others(rows)}"
    raise KeyError("test_dask")


CHART = {
    "uniform, float32": "uniform, float32, 256 MiB warm, 1 thread",
    "normal, float32": "normal, float32, 256 MiB warm, 1 thread",
    "truncated normal, float32": "truncated, float32, 256 MiB warm, 1 thread",
    "normal, bfloat16": "normal, bfloat16, 256 MiB warm, 1 thread",
}
# Of the palette of Okabe and Ito, which people with any kind of colour vision tell apart; bars also have names.
INK = {"light": "#1f2328", "dark": "#e6e6e6"}
BLUE = {"light": "#0072b2", "dark": "#56b4e9"}
ORANGE = "#e69f00"


def chart(theme: str) -> str:
    """An SVG of horizontal bars, narrow enough to be read on a phone."""
    ink = INK[theme]
    width, left, bar, step = 480, 84, 13, 18
    fastest = max(rate(row) for group in CHART.values() for who, row in find(group)[1].items() if _draws(who))
    parts, y = [], 8
    for title, group in CHART.items():
        machine, rows = find(group)
        y += 22
        parts.append(f'<text x="0" y="{y - 6}" font-weight="bold">{title}</text>')
        named = {"xavierfast": rows[f"xavierfast {machine['level']}"]}
        named |= {PEERS[who.split()[0]]: row for who, row in rows.items() if who.split()[0] in PEERS and _draws(who)}
        for name, row in sorted(named.items(), key=lambda item: item[1]["best"]):
            length = max(1.0, (width - left - 60) * rate(row) / fastest)
            colour = BLUE[theme] if name == "xavierfast" else ORANGE
            parts.append(f'<text x="{left - 6}" y="{y + 11}" text-anchor="end">{name}</text>')
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" rx="1.5" fill="{colour}"/>')
            parts.append(f'<text x="{left + length + 5:.1f}" y="{y + 11}">{number(rate(row))}</text>')
            y += step
        y += 6
    machine = find(next(iter(CHART.values())))[0]
    y += 12
    parts.append(f'<text x="0" y="{y - 2}" font-size="10">{machine["cpu"]}, {machine["date"]}</text>')
    label = "; ".join(f"{title}: {', '.join(_speeds(group))}" for title, group in CHART.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" '
        f'font-family="system-ui, sans-serif" font-size="12.5" fill="{ink}" role="img">\n'
        f"<title>GB/s on one thread. {label}</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _draws(who: str) -> bool:
    return who not in ("memset", "ndarray.fill")


def _speeds(group: str) -> list[str]:
    rows = find(group)[1]
    return [f"{who} {number(rate(row))}" for who, row in rows.items() if _draws(who)]


def rendered() -> dict[Path, str]:
    """The files that hold figures, with the figures that are kept."""
    files = {}
    texts = {
        "README.md": readme(),
        "docs/benchmarks.md": benchmarks(),
        "docs/jax.md": framework("jax", "jax.nn.initializers", ["glorot_uniform", "glorot_normal"]),
        "docs/keras.md": framework(
            "keras", "keras.initializers", ["GlorotUniform", "GlorotNormal", "RandomNormal"], ", jax"
        ),
        "docs/dask.md": cluster(),
    }
    for name, text in texts.items():
        page = (ROOT / name).read_text(encoding="utf-8")
        pattern = r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)"
        files[ROOT / name], count = re.subn(pattern, lambda _, text=text: f"\n{text}\n\n", page, flags=re.DOTALL)
        assert count == 1, name
    for theme in INK:
        files[ROOT / f"docs/images/speed-{theme}.svg"] = chart(theme)
    return files


def main(arguments: list[str]) -> None:
    if arguments and arguments != ["--render"]:
        print(f"\n{tables(run(['benches', *arguments]))}")
        return
    if not arguments:
        record()
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
