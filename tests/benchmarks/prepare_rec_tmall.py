"""Speed and memory of preparing long Rec-Tmall logs, beside chunked pandas doing the same steps.

    python tests/benchmarks/prepare_rec_tmall.py [--millions 10 20 40] [--folder DIR]

Simulated logs of 10, 20 and 40 million rows are prepared as `bench data prepare rec_tmall` does it, from the
text to the complete folder with its fingerprint, each in a process of its own; the second one by pandas too.
Printed are rows a second, peak resident memory, both ratios, and whether both kept the same events. Targets:
4 times as fast as pandas, below 1 GB, 40 million rows in at most 1.15 times the memory of 10 million.

Users grow with the rows, 136 rows a user (the published log: 1,333,729,303 rows, user ids up to 9,774,184);
the catalog stays at 500,000 items. The logs need 43 bytes a row on the disk, the preparation 50 more.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS_PER_USER, ITEMS = 136, 500_000
LOG = "tianchi_2014002_rec_tmall_log_parta.txt"
BEHAVIORS = {"click": 1, "collect": 2}
CHUNK, BUCKETS = 1_000_000, 16
MIN_EVENTS, KEEP_LAST = 5, 50  # as `bench.data.preparation.prepare` by default


def write(folder: Path, rows: int) -> None:
    """Write a simulated log."""
    from bench.datasets.rec_tmall.simulation import write_log

    folder.mkdir(parents=True, exist_ok=True)
    write_log(folder / LOG, rows, rows // ROWS_PER_USER, ITEMS)


def ours(raw: Path, out: Path) -> None:
    """Prepare a log as the command line does."""
    os.environ["BENCH_DATA"] = str(out)
    from bench.data.library import prepare_named

    prepare_named("rec_tmall", raw=raw, name=None, overrides={})


def with_pandas(raw: Path, out: Path) -> None:
    """Prepare a log with pandas: the same filters, orders, numbers, files and a fingerprint."""
    import numpy as np
    import pandas as pd

    out.mkdir(parents=True)
    names = ["item", "user", "behavior", "timestamp"]
    buckets: list[list[Any]] = [[] for _ in range(BUCKETS)]
    chunks = pd.read_csv(
        raw / LOG, sep="\x01", header=None, names=names, chunksize=CHUNK, encoding_errors="replace",
        dtype={"item": "int64", "user": "str", "behavior": "str", "timestamp": "str"},
    )  # fmt: skip
    for chunk in chunks:
        chunk = chunk[chunk["behavior"].isin(list(BEHAVIORS))]
        times = pd.to_datetime(chunk["timestamp"], format="%Y-%m-%d %H:%M:%S").to_numpy()
        typed = pd.DataFrame(
            {
                "user": chunk["user"].str.slice(1).astype("int64"),
                "item": chunk["item"],
                "behavior": chunk["behavior"].map(BEHAVIORS).astype("int8"),
                "timestamp": times.astype("datetime64[s]").astype("int64"),
            }
        )
        for number, part in typed.groupby(typed["user"] * BUCKETS // 10_000_000):
            buckets[number].append(part)
    events, touched = [], []
    for bucket in buckets:
        part = pd.concat(bucket).sort_values(["user", "timestamp"], kind="stable")
        bucket.clear()
        part = part[part.groupby("user")["user"].transform("size") >= MIN_EVENTS]
        touched.append(part[["user", "item"]].drop_duplicates().sort_values(["user", "item"]))
        events.append(part.groupby("user").tail(KEEP_LAST))
    events, touched = pd.concat(events), pd.concat(touched)
    users, items = np.sort(events["user"].unique()), np.sort(touched["item"].unique())
    for table, name in ((events, "events"), (touched, "touched")):
        table["user"] = np.searchsorted(users, table["user"])
        table["item"] = (np.searchsorted(items, table["item"]) + 1).astype("int32")
        table.to_parquet(out / f"{name}.parquet", index=False)
    pd.DataFrame({"user": users}).to_parquet(out / "users.parquet")
    pd.DataFrame({"item": items}).to_parquet(out / "items.parquet")
    digest = hashlib.sha256()
    for name in ("events", "touched", "users", "items"):
        for _, column in pd.read_parquet(out / f"{name}.parquet").items():
            digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())
    (out / "dataset.json").write_text(json.dumps({"fingerprint": digest.hexdigest()}))


def same(first: Path, second: Path) -> bool:
    """Return whether two prepared folders hold the same events, touched items, users and items."""
    import polars as pl

    files = ("events.parquet", "touched.parquet", "users.parquet", "items.parquet")
    pairs = ((pl.read_parquet(first / name), pl.read_parquet(second / name)) for name in files)
    return all(one.equals(other) for one, other in pairs)


def measured(step: str, *arguments: Path | int) -> dict[str, Any]:
    """Run a step in a process of its own; return its seconds, CPU seconds, peak memory in MB, and result."""
    command = [sys.executable, __file__, "--step", step, *map(str, arguments)]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_step(step: str, arguments: list[str]) -> None:
    """Run a step here and print what `measured` returns."""
    paths = [Path(argument) for argument in arguments]
    begin = time.perf_counter()
    result = None
    if step == "write":
        write(paths[0], int(arguments[1]))
    elif step == "same":
        result = same(*paths)
    else:
        {"ours": ours, "pandas": with_pandas}[step](*paths)
    seconds, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    peak, cpu = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "result": result}))


def line(what: str, rows: int, found: dict[str, Any]) -> str:
    """Return one line of the report."""
    time_taken = f"{found['seconds']:6.1f} s ({found['cpu']:6.1f} s CPU)"
    speed = f"{rows / found['seconds'] / 1e6:5.2f} million rows/s"
    return f"{what}: {time_taken}, {speed}, peak {found['peak']:5.0f} MB"


def report(folder: Path, millions: list[int]) -> None:
    """Measure and print."""
    least, middle, most = (million * 1_000_000 for million in millions)
    found = {}
    for rows in (middle, least, most):
        measured("write", folder / f"raw-{rows}", rows)
        found[rows] = measured("ours", folder / f"raw-{rows}", folder / f"ours-{rows}")
        print(line(f"{rows // 1_000_000:3d} million rows, bench ", rows, found[rows]), flush=True)
        if rows == middle:
            other = measured("pandas", folder / f"raw-{rows}", folder / "pandas")
            print(line(f"{rows // 1_000_000:3d} million rows, pandas", rows, other), flush=True)
            alike = measured("same", folder / f"ours-{rows}" / "rec_tmall", folder / "pandas")["result"]
            ratio, of_cpu = other["seconds"] / found[rows]["seconds"], other["cpu"] / found[rows]["cpu"]
            print(f"{ratio:.1f} times as fast as pandas ({of_cpu:.1f} times less CPU); same events: {alike}")
        (folder / f"raw-{rows}" / LOG).unlink()
    growth = found[most]["peak"] / found[least]["peak"]
    print(f"memory of {most // 1_000_000} over {least // 1_000_000} million rows: {growth:.2f}")


def main() -> None:
    """Parse the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--millions", nargs=3, type=int, default=[10, 20, 40], help="rows of the three logs")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder is removed again")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        run_step(given.step[0], given.step[1:])
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        report(Path(folder), given.millions)


if __name__ == "__main__":
    main()
