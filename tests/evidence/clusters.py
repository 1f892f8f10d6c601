"""Processes that are killed while they write: ``python tests/evidence/clusters.py [DASK_KILLS FILE_KILLS]``.

    dask     three worker processes write a zarr array again and again, and are killed by SIGKILL at random moments
    rivals   eight times, four processes create one zarr store at once, each with another seed: one of them must win
    writers  six processes write the parts of one file and of one model, are killed and run again until all have ended
    jax      2 and 4 processes of jax.distributed make one array, each of them its own shards
    s3       where moto[server] and s3fs are installed: four rivals and a write on a server with the interface of S3

In each case, what is stored must be the elements of the ``xavierfast.Table``, bit for bit, and nothing else is left.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from xavierfast import Table, files

SEED = 7
PYTHON = [sys.executable, "-W", "ignore", "-c"]
JAX = """
import sys
import jax
import numpy as np
number, count, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize(address, count, number)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import xavierfast as xf
import xavierfast.jax as xj
table = xf.Table((8_000, 64), "normal", std=0.02, seed=7, name="items")
mesh = Mesh(np.array(jax.devices()), ("x",))
for spec in (PartitionSpec("x"), PartitionSpec(None, "x"), PartitionSpec()):
    array = xj.make_array(table, NamedSharding(mesh, spec))
    assert not spec or len(array.addressable_shards) * count == len(jax.devices()) == count
    for shard in array.addressable_shards:
        assert np.asarray(shard.data).tobytes() == table[shard.index].tobytes(), (spec, shard.index)
print("done")
"""
RIVAL = """
import sys
import xavierfast as xf, xavierfast.dask as xd
store, seed = sys.argv[1], int(sys.argv[2])
table = xf.Table((4_000, 64), seed=seed, name="items")
print("ready", flush=True)
sys.stdin.readline()
try:
    xd.create(table, store, chunks=10, shards=20)
    print("won", flush=True)
except FileExistsError:
    print("lost", flush=True)
"""
WRITER = """
import sys
from xavierfast import Table, files
path, k = sys.argv[1], int(sys.argv[2])
table = Table((400_000, 64), seed=7, name="items")
if path.endswith(".npy"):
    files.create(path, table, shard=(k, 6), threads=1)
else:
    tables = {f"w{j}": Table((100_000, 64), seed=7, name=f"w{j}") for j in range(4)}
    files.create(path, tables, shard=(k, 6), max_shard_size=40_000_000, threads=1)
"""


def dask_kills(folder: Path, wanted: int, rng: random.Random) -> str:
    import dask
    from distributed import Client, LocalCluster

    import xavierfast.dask as xd

    table = Table((1 << 20, 64), seed=SEED, name="items")
    kills = runs = left = 0
    settings = {
        "distributed.scheduler.allowed-failures": 1000, "distributed.worker.memory.terminate": False,
        "logging.distributed": "critical",
    }  # fmt: skip
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):
        while kills < wanted:
            done = threading.Event()

            def kill(done: threading.Event = done) -> None:
                nonlocal kills
                while not done.wait(rng.uniform(0.05, 0.4)) and kills < wanted:
                    pids = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
                    if pids:
                        os.kill(rng.choice(pids), signal.SIGKILL)
                        kills += 1

            killer = threading.Thread(target=kill)
            killer.start()
            try:
                xd.create(table, folder / "z", chunks=1000, shards=2000, force=True, client=client)
            finally:
                done.set()
                killer.join()
            runs += 1
            left += sum(path.name.endswith(".partial") or path.name == xd.CLAIM for path in (folder / "z").rglob("*"))
            assert xd.verify(folder / "z").ok, "the array differs"
    assert not left, f"{left} partial files or claims are left"
    return f"{kills} kills of dask workers in {runs} creation(s)"


def rivals(store: str, rounds: int) -> str:
    import xavierfast.dask as xd

    for number in range(rounds):
        name = f"{store}{number}.zarr"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen([*PYTHON, RIVAL, name, str(seed)], **pipes) for seed in range(4)]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [process.communicate()[0].strip() for process in processes]
        assert sorted(results) == ["lost"] * 3 + ["won"], results
        assert xd.verify(name, Table((4_000, 64), seed=results.index("won"), name="items")).ok
    return f"{rounds} stores with 4 rivals each"


def writers(folder: Path, wanted: int, rng: random.Random) -> str:
    kills = 0
    for name in ("t.npy", "m.safetensors"):
        path, limit = folder / name, kills + wanted // 2
        waiting = dict.fromkeys(range(6))
        while waiting:
            for k, process in list(waiting.items()):
                if process is None:
                    waiting[k] = subprocess.Popen([*PYTHON, WRITER, str(path), str(k)])
                elif process.poll() == 0:
                    del waiting[k]
                elif process.poll() is not None:
                    waiting[k] = None
            time.sleep(rng.uniform(0.0, 0.1))
            running = [process for process in waiting.values() if process and process.poll() is None]
            if running and kills < limit:
                rng.choice(running).kill()
                kills += 1
        assert files.status(path, shards=6).complete and files.resume(path, sync=False) == 0
        assert files.verify(path).ok
        subprocess.run([*PYTHON, WRITER, str(path), "3"], check=True)  # a job that is retried after the end
    assert not list(folder.glob("*partial*")) + list(folder.glob(".*")), os.listdir(folder)
    return f"{kills} kills of 6 writers"


def jax_processes(count: int) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    processes = [
        subprocess.Popen([*PYTHON, JAX, str(k), str(count), address], stdout=subprocess.PIPE, text=True)
        for k in range(count)
    ]
    results = [process.communicate(timeout=300)[0].strip() for process in processes]
    assert results == ["done"] * count, results
    return f"{count} jax processes"


def s3() -> str:
    try:
        import s3fs
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        return f"no S3 ({error})"
    import logging

    import xavierfast.dask as xd

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    try:
        system = s3fs.S3FileSystem()
        system.mkdir("bucket")
        text = rivals("s3://bucket/rivals", 2)
        table, name = Table((1 << 18, 64), seed=SEED, name="items"), "s3://bucket/items.zarr"
        assert xd.create(table, name, chunks=1000, shards=4000) == table.nbytes
        system.rm("bucket/items.zarr/c/3/0")
        assert xd.create(table, name, resume=True) == 4000 * 64 * 4
        assert xd.verify(name).ok and not [key for key in system.find("bucket") if key.endswith(xd.CLAIM)]
        return f"on S3 {text}"
    finally:
        server.stop()


def main() -> int:
    of_dask, of_files = (int(text) for text in [*sys.argv[1:], "20", "40"][:2])
    rng, found = random.Random(SEED), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for trial in (
            lambda: dask_kills(folder, of_dask, rng),
            lambda: rivals(str(folder / "rivals"), 8),
            lambda: writers(folder / "files", of_files, rng),
            lambda: jax_processes(2),
            lambda: jax_processes(4),
            s3,
        ):
            (folder / "files").mkdir(exist_ok=True)
            found.append(trial())
            print(found[-1], flush=True)
    print(f"{', '.join(found)}: every element as in the Tables, and nothing else left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
