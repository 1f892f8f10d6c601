"""What the benches share: the machine's name, peers that may be missing, and a table of GB/s after the run."""

import datetime
import importlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import cpuinfo
import numpy as np
import pytest

import xavierfast as xf
from xavierfast import kernels
from xavierfast._core.threads import default_threads

REQUIRE_ALL = os.environ.get("XAVIERFAST_REQUIRE_ALL") == "1"


def peer(name):
    """A package to compare with; its rows are skipped where it is not installed."""
    if REQUIRE_ALL:
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture
def at_level(monkeypatch):
    """Make the public functions run another level of this CPU."""

    def use(level):
        module = importlib.import_module(f"xavierfast.kernels.{level}")
        monkeypatch.setattr(kernels, "fill", module.fill)

    return use


@pytest.fixture
def measure(benchmark):
    """Time a call that writes `size` bytes in `elements` elements; large ones in few rounds."""

    def run(group, call, size, elements, unit="elements"):
        benchmark.group = group
        benchmark.extra_info.update(size=size, elements=elements, unit=unit)
        if size >= 1 << 30:
            benchmark.pedantic(call, rounds=6)
        elif size >= 1 << 24:
            call()
            benchmark.pedantic(call, rounds=5)
        else:
            benchmark(call)

    return run


def warm(size, dtype=np.float32):
    """Memory that has been touched."""
    return np.ones(size // np.dtype(dtype).itemsize, dtype)


def machine():
    """The machine as Linux describes it in /proc/cpuinfo and lscpu, and the versions of what is compared."""

    def installed(name):
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    cpu = cpuinfo.get_cpu_info()
    brand = cpu.get("brand_raw", cpu.get("arch_string_raw"))
    numbers = ", ".join(f"{key} {cpu[key]}" for key in ("family", "model", "stepping") if key in cpu)
    packages = {
        name: installed(name) for name in ("numpy", "torch", "jax", "keras", "mkl", "safetensors", "dask", "zarr")
    }
    return {
        "cpu": f"{brand} ({numbers})" if numbers else brand,
        "cpus": default_threads(),
        "system": platform.system(),
        "level": xf.level,
        "packages": {"xavierfast": xf.__version__} | {name: found for name, found in packages.items() if found},
        "date": str(datetime.date.today()),
    }


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["xavierfast"] = machine()


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    rows = [bench for bench in (session.benchmarks if session else []) if bench.stats.data]
    if not rows:
        return
    write = terminalreporter.write_line
    here = machine()
    packages = ", ".join(f"{name} {found}" for name, found in here["packages"].items())
    write(f"\n{here['cpu']}, {here['cpus']} CPUs, {here['system']}, level {here['level']}; {packages}; {here['date']}")
    write("GB/s and 10^9 elements, or 10^6 rows, a second of the fastest round; GB/s of the median; against NumPy's.")
    for group in dict.fromkeys(bench.group for bench in rows):
        write(f"\n{group}")
        members = [bench for bench in rows if bench.group == group]
        numpy = next((bench.stats.min for bench in members if bench.params["who"].startswith("numpy")), None)
        for bench in sorted(members, key=lambda bench: bench.stats.min):
            best, median = bench.stats.min, bench.stats.median
            size, elements = bench.extra_info["size"], bench.extra_info["elements"]
            if "memory" in bench.extra_info:
                seconds, memory = bench.extra_info["seconds"], bench.extra_info["memory"]
                write(f"  {bench.params['who']:44s} {seconds:8.2f} s, {memory / 2**20:8,.0f} MiB")
                continue
            if not size:  # the import, which takes its own time
                write(f"  {bench.extra_info['import_seconds'] * 1e3:.1f} ms, median of 11 processes")
                continue
            many = f"{elements / best / 1e9:8.3f} G/s"
            if bench.extra_info["unit"] == "rows":
                many = f"{elements / best / 1e6:8.3f} M rows/s"
            rate = (
                f"{size / best / 1e9:8.2f} GB/s {many}, median {size / median / 1e9:8.2f} GB/s"
                if size > 1 << 20
                else f"{best * 1e6:8.1f} us, {size / best / 1e9:7.2f} GB/s, median {median * 1e6:8.1f} us"
            )
            ratio = f"  x {numpy / best:6.1f}" if numpy else ""
            write(f"  {bench.params['who']:44s} {rate}{ratio}")
