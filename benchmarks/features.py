"""Features beside Feast: point-in-time joins, and reads of 20 features of one key.

Run: ``python benchmarks/features.py --peer PYTHON [--labels N] [--rows N] [--entities N] [--rounds R]``,
where ``PYTHON`` is that of an environment with Feast: ``make peers`` makes one. 20,000 labels, 200,000 rows, 20,000
entities and three rounds take two minutes or so. Each job is a process of its own, the two sides take
turns, and a job's clock starts after its imports.

- join: for each label the newest of five features before it. Both read the same Parquet file. Feast by its file store.
- online: one read of 20 features, LMDB beside Feast's SQLite store.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

JOINED = tuple(f"f{i}" for i in range(5))
READS = 300

FEAST = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from datetime import datetime, timedelta, timezone
import dask.dataframe, numpy as np, pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float32

job, folder, count, reads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
path, names = (folder + "/rows.parquet", ["f%d" % i for i in range(5)])
if job != "join":
    path, names = folder + "/online.parquet", ["f%d" % i for i in range(20)]
with open(folder + "/feature_store.yaml", "w") as file:
    file.write("project: p\\nprovider: local\\nregistry: %s/registry.db\\n"
               "online_store: {type: sqlite, path: %s/online.db}\\n"
               "offline_store: {type: file}\\nentity_key_serialization_version: 3\\n" % (folder, folder))
store = FeatureStore(folder)
customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.INT64)
view = FeatureView(name="v", entities=[customer], ttl=timedelta(days=4000),
                   schema=[Field(name=n, dtype=Float32) for n in names],
                   source=FileSource(path=path, timestamp_field="event_timestamp"))
store.apply([customer, view])
wanted = ["v:" + name for name in names]
if job == "join":
    labels = pd.read_parquet(folder + "/labels.parquet")
    started = time.perf_counter()
    found = store.get_historical_features(labels, wanted).to_df()
    print(json.dumps({"seconds": time.perf_counter() - started, "out": len(found)}))
else:
    now = datetime.now(timezone.utc)
    store.materialize(now - timedelta(days=4000), now)
    keys = np.random.default_rng(2).integers(0, count, reads).tolist()
    store.get_online_features(wanted, [{"customer": 0}]).to_dict()
    started = time.perf_counter()
    for key in keys:
        store.get_online_features(wanted, [{"customer": key}]).to_dict()
    print(json.dumps({"microseconds": (time.perf_counter() - started) / reads * 1e6}))
"""


def main() -> None:
    """Make the data, run both sides in turns, print the tables."""
    parser = argparse.ArgumentParser(description="Features, beside Feast.")
    parser.add_argument("--peer", type=Path, help="the Python of an environment with Feast")
    parser.add_argument("--labels", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--join", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.join is not None:
        print(json.dumps(_join(options.join)))
        return
    if options.peer is None:
        print("these are measured beside Feast: make peers")
        return
    with tempfile.TemporaryDirectory(prefix="bedplate-bench-") as scratch:
        _make(Path(scratch), options)
        _joins(Path(scratch), options)
        _online(Path(scratch), options)


def _make(folder: Path, options: argparse.Namespace) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random, moment = np.random.default_rng(1), pa.timestamp("us", "UTC")
    start, span = np.datetime64("2025-01-01", "us"), 180 * 86_400_000_000

    def table(count: int, customers: Any, **columns: Any) -> pa.Table:
        times = start + random.integers(0, span, count) * np.timedelta64(1, "us")
        return pa.table({"customer": customers, "event_timestamp": pa.array(times, moment), **columns})

    def numbers(count: int, names: Any) -> dict[str, Any]:
        return {name: random.random(count).astype("f4") for name in names}

    rows = table(options.rows, random.integers(0, options.rows // 10, options.rows), **numbers(options.rows, JOINED))
    pq.write_table(rows, folder / "rows.parquet")
    labels = table(options.labels, random.integers(0, options.rows // 10, options.labels))
    pq.write_table(labels, folder / "labels.parquet")
    every = [f"f{i}" for i in range(20)]
    newest = table(options.entities, np.arange(options.entities), **numbers(options.entities, every))
    pq.write_table(newest, folder / "online.parquet")


# ----------------------------------------------------------------------------------------------------------------- join


def _joins(folder: Path, options: argparse.Namespace) -> None:
    ours = [sys.executable, __file__, "--peer", str(options.peer), "--join", str(folder)]
    jobs = {"Bedplate": ours, "Feast": _feast(folder, options, "join")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for turn in range(options.rounds):
        for name in list(jobs)[:: -1 if turn % 2 else 1]:
            found[name].append(_told(jobs[name]))
    print(f"\njoin: {options.labels:,} labels, {options.rows:,} rows")
    print("| side | labels/s | labels that came back |\n|---|---|---|")
    for name, results in found.items():
        speed = statistics.median(options.labels / each["seconds"] for each in results)
        print(f"| {name} | {speed:,.0f} | {results[0]['out']:,} |")
    _ratio([f["seconds"] / o["seconds"] for o, f in zip(found["Bedplate"], found["Feast"], strict=True)])


def _join(folder: Path) -> dict[str, Any]:
    import duckdb  # noqa: F401 - loaded before the clock starts, as for the other side
    import pyarrow.parquet as pq

    from bedplate import features

    view = features.FeatureView(
        name="v", entity=("customer",), times={"rows": "event_timestamp"}, rows=True, ttl=4000 * 86_400.0,
        sql=f"SELECT customer, event_timestamp, {', '.join(JOINED)} FROM rows",
    )  # fmt: skip
    labels = pq.read_table(folder / "labels.parquet")
    started = time.perf_counter()
    found = features.join(
        labels, "event_timestamp", [view], lambda _: pq.read_table(folder / "rows.parquet").to_reader()
    )
    return {"seconds": time.perf_counter() - started, "out": found.num_rows}


# --------------------------------------------------------------------------------------------------------------- online


def _online(folder: Path, options: argparse.Namespace) -> None:
    import numpy as np
    from benchmarks import online as beside

    from bedplate import online
    from bedplate.serve.online_views import Lookup

    world = beside._world(folder / "world", options.entities)
    store = online.Scoped(online.open(world.home.online, read_only=True), "demo")
    keys = np.random.default_rng(2).integers(0, options.entities, 20_000).tolist()
    lookup = Lookup(store, "recent")
    ours = [beside._microseconds(lookup.get, keys) for _ in range(options.rounds)]
    store.close()
    feast = [_told(_feast(folder, options, "online"))["microseconds"] for _ in range(options.rounds)]
    print(f"\nonline, 20 features of one key: Bedplate {statistics.median(ours):.2f} µs, "
          f"Feast {statistics.median(feast):,.0f} µs")  # fmt: skip
    _ratio([f / o for o, f in zip(ours, feast, strict=True)])


def _feast(folder: Path, options: argparse.Namespace, job: str) -> list[str]:
    return [str(options.peer), "-c", FEAST, job, str(folder), str(options.entities), str(READS)]


def _told(command: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _ratio(ratios: list[float]) -> None:
    ratios.sort()
    print(f"times Feast: {statistics.median(ratios):,.1f} [{ratios[0]:,.1f}, {ratios[-1]:,.1f}]")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
