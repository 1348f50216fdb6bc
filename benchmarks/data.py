"""Data: ingestion, contract checks, governed scans and point-in-time joins, each beside the same by hand.

Run: ``python benchmarks/data.py [--rows N] [--rounds N] [--only ingest,checks,scan,join,decision,memory]``; 10 million
rows of 12 columns and three rounds take two minutes or so. Each job is a process of its own, the jobs of a question
take turns, and a job's clock starts after its imports. Peaks are of the whole process and of the one that parses its
source.

- ingest: a Parquet file under a contract with six checks into a table that has reached the disk, with facts and
  ledger entry, beside delta-rs appending the same file as it comes, unchecked and unsynced.
- checks: the six checks alone, beside one DuckDB query that counts the same.
- scan: eight columns through policy, a row filter and two masks, beside the same rows and values in DuckDB's SQL.
- join: for each label the newest features before it, both tables under filter and masks, beside the same in SQL.
- decision: what policy, compilation and the ledger entry of a governed read take, before the first row.
- memory: the peaks of ingestion, checks, scan and join (a million labels at most) at a quarter, a half and the whole of
  the rows, and what 100 million would take by their slope. Below 10 million rows a file's row groups grow with them,
  and so do the peaks: ``--rows 40000000 --only memory`` says more than fewer, ``--rows 100000000`` says it all.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: payments
version: 1.0.0
status: active
schema:
- name: payments
  properties:
  - {name: id, logicalType: integer, required: true}
  - {name: customer, logicalType: integer, required: true}
  - {name: shop, logicalType: integer}
  - {name: time, logicalType: timestamp}
  - {name: amount, logicalType: number, logicalTypeOptions: {exclusiveMinimum: 0}}
  - {name: fee, logicalType: number}
  - name: currency
    logicalType: string
    quality: [{metric: invalidValues, arguments: {validValues: [EUR, USD, GBP, CHF, JPY]}, mustBe: 0}]
  - {name: channel, logicalType: string}
  - {name: latitude, logicalType: number, logicalTypeOptions: {minimum: -90, maximum: 90}}
  - {name: longitude, logicalType: number}
  - {name: fraud, logicalType: boolean}
  - {name: score, logicalType: number, logicalTypeOptions: {minimum: 0, maximum: 1}}
"""
CHECKS = """SELECT count(*) FILTER (id IS NULL), count(*) FILTER (customer IS NULL), count(*) FILTER (NOT amount > 0),
count(*) FILTER (currency NOT IN ('EUR', 'USD', 'GBP', 'CHF', 'JPY')),
count(*) FILTER (NOT latitude BETWEEN -90 AND 90), count(*) FILTER (NOT score BETWEEN 0 AND 1) FROM read_parquet(?)"""
FILTER = """@id("region")
permit (principal, action == Action::"read", resource) when { resource has currency && resource.currency != "JPY" };
@id("shops")
forbid (principal, action == Action::"read", resource) when { resource has shop && resource.shop < 1000 };
"""
WANTED = ("id", "customer", "shop", "time", "amount", "currency", "channel", "score")
SCAN = """SELECT id, customer, shop, date_trunc('month', time) AS time, amount, currency, left(channel, 1) AS channel,
score FROM read_parquet($files) WHERE coalesce(currency <> 'JPY', false) AND NOT coalesce(shop < 1000, true)"""
VISITS = """@id("adult")
permit (principal, action == Action::"read", resource) when { resource has group && resource.group != "minor" };
"""
ASOF = """SELECT l.customer, l.time, l.bought, f.time AS seen, f.f0, f.f1, f.f2, f.f3, f.segment
FROM labels l ASOF LEFT JOIN features f ON l.customer = f.customer AND l.time >= f.time"""


def main() -> None:
    """Make the data, run every job in turns, print the tables."""
    parser = argparse.ArgumentParser(description="Data, beside the same by hand.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="ingest,checks,scan,join,decision,memory")
    parser.add_argument("--folder", type=Path, help="where the data lies; kept, and used again")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        if (
            options.job == "make"
        ):  # in a process of its own, too: what a parent's peak was, its children are told as theirs
            _make(options.folder, options.rows)
        print(json.dumps(JOBS[options.job](options.folder) if options.job in JOBS else {}))
        return
    with tempfile.TemporaryDirectory(prefix="bedplate-bench-") as scratch:
        folder = options.folder or Path(scratch)
        wanted = options.only.split(",")
        _run(folder, "make", options.rows)
        for question in ("ingest", "checks", "scan", "hashed", "join"):
            if question in wanted or (question == "hashed" and "scan" in wanted):
                _compare(folder, question, options.rounds)
        if "decision" in wanted:
            _prepare(folder)
            found = _run(folder, "decision")
            print(f"\ndecision and ledger entry: {found['median']:.1f} ms; {found['first']:.1f} ms with compilation; "
                  f"of the processor {found['work']:.1f} and {found['work_first']:.1f} ms")  # fmt: skip
        if "memory" in wanted:
            _memory(folder, options.rows)


def _compare(folder: Path, question: str, rounds: int) -> None:
    if question != "ingest" and question != "checks":
        _prepare(folder)
    ours, theirs = f"{question}-ours", f"{question}-by-hand"
    found: dict[str, list[dict[str, Any]]] = {ours: [], theirs: []}
    for turn in range(rounds):
        for job in (ours, theirs) if turn % 2 else (theirs, ours):
            found[job].append(_run(folder, job))
    print(f"\n{question}: {found[ours][0]['rows']:,} rows")
    print("| job | million rows/s | processor s | peak MB |\n|---|---|---|---|")
    for job, results in found.items():
        speed = statistics.median(r["rows"] / r["seconds"] / 1e6 for r in results)
        processor = statistics.median(r["processor"] for r in results)
        print(f"| {job} | {speed:.2f} | {processor:.1f} | {max(r['peak'] for r in results)} |")
    ratios = sorted(h["seconds"] / o["seconds"] for o, h in zip(found[ours], found[theirs], strict=True))
    work = sorted(o["processor"] / h["processor"] for o, h in zip(found[ours], found[theirs], strict=True))
    print(f"speed, of by hand: {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]; "
          f"processor time, of by hand: {statistics.median(work):.2f}")  # fmt: skip


def _memory(folder: Path, rows: int) -> None:
    parts: dict[int, Path] = {}
    for part in (4, 2, 1):
        parts[rows // part] = folder / f"part-{part}" if part > 1 else folder
        _run(parts[rows // part], "make", rows // part)
    print("\n| job | rows | peak MB |\n|---|---|---|")
    for question in ("ingest", "checks", "scan", "join"):
        peaks = []
        for count, place in parts.items():
            if question in ("scan", "join"):
                _prepare(place)
            peaks.append((count, _run(place, f"{question}-ours")["peak"]))
            print(f"| {question} | {count:,} | {peaks[-1][1]} |")
        slope = (peaks[2][1] - peaks[1][1]) / (peaks[2][0] - peaks[1][0])
        at_most = peaks[2][1] + max(0.0, slope) * (1e8 - rows)
        print(f"{question}: {slope * 1e6:.1f} MB for each further million rows: {at_most:.0f} MB at 100 million")


def _run(folder: Path, job: str, rows: int = 0) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", job, "--folder", str(folder), "--rows", str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


# ----------------------------------------------------------------------------------------------------------------- data


def _make(folder: Path, rows: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (folder / f"{rows}.done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "payments.odcs.yaml").write_text(CONTRACT)
    start, span = np.datetime64("2025-01-01", "us"), 180 * 86_400_000_000
    writer: Any = None
    for part in range(10):
        random, count = np.random.default_rng(part), rows // 10
        currencies = pa.array(["EUR", "USD", "GBP", "CHF", "JPY"])
        channels = pa.array(["web", "app", "till", "machine"])
        table = pa.table({
            "id": np.arange(count) + part * count,
            "customer": random.integers(0, 1_000_000, count),
            "shop": random.integers(0, 50_000, count).astype("i4"),
            "time": np.sort(start + random.integers(0, span, count) * np.timedelta64(1, "us")),
            "amount": np.round(random.lognormal(3, 1, count) + 0.01, 2),
            "fee": np.round(random.gamma(2, 0.2, count), 4),
            "currency": currencies.take(pa.array(random.integers(0, 5, count))),
            "channel": channels.take(pa.array(random.integers(0, 4, count))),
            "latitude": random.uniform(35, 60, count),
            "longitude": random.uniform(-10, 30, count),
            "fraud": random.random(count) < 0.002,
            "score": random.random(count).astype("f4"),
        })  # fmt: skip
        writer = writer or pq.ParquetWriter(folder / "payments.parquet", table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()
    groups = pa.array(["adult", "adult", "adult", "minor"])

    def moments(count: int, part: int | None = None) -> Any:
        first, last = (0, span) if part is None else (span // 10 * part, span // 10 * (part + 1))
        return start + random.integers(first, last, count) * np.timedelta64(1, "us")

    def customers(count: int) -> dict[str, Any]:
        return {"customer": random.integers(0, rows // 20, count),
                "group": groups.take(pa.array(random.integers(0, 4, count)))}  # fmt: skip

    writer = None
    for part in range(10):  # of all rows at once the numbers alone would take 10 GB for 100 million
        random, count = np.random.default_rng(100 + part), rows // 10
        features = pa.table({
            **customers(count), "time": np.sort(moments(count, part)),
            **{f"f{i}": random.random(count).astype("f4") for i in range(4)},
            "segment": random.integers(0, 1000, count),
        })  # fmt: skip
        writer = writer or pq.ParquetWriter(folder / "features.parquet", features.schema, compression="zstd")
        writer.write_table(features)
    writer.close()
    random = np.random.default_rng(99)
    count = min(rows // 10, 1_000_000)  # what is asked for is held, so it does not grow with what is looked through
    labels = pa.table({**customers(count), "time": moments(count), "bought": random.random(count) < 0.1})
    pq.write_table(labels, folder / "labels.parquet", compression="zstd")
    (folder / f"{rows}.done").touch()


def _prepare(folder: Path) -> None:
    """The tables that scans and joins read, by both sides: the same files."""
    if not (folder / "tables.json").exists():
        _run(folder, "prepare")


def prepare(folder: Path) -> dict[str, Any]:
    """Write the tables that are read, and note their files."""
    import msgspec
    import pyarrow.parquet as pq

    from bedplate.data.tables import Tables

    tables = Tables(folder / "tables")
    made: dict[str, Any] = {}
    for name in ("payments", "features", "labels"):
        with pq.ParquetFile(folder / f"{name}.parquet") as file:
            # By groups: pyarrow holds what it read of all that one iterator reads, 4 GB of 100 million rows.
            groups = (file.iter_batches(1 << 18, row_groups=[group]) for group in range(file.num_row_groups))
            version = tables.write(name, chain.from_iterable(groups), mode="overwrite", key=name)
        under = next(path for path in (folder / "tables").iterdir() if (path / "_bedplate/name").read_text() == name)
        files = [str(under / file.path) for file in tables.files(version)]
        made[name] = {"version": msgspec.to_builtins(version), "files": files}
    (folder / "tables.json").write_text(json.dumps(made))
    return made


# ----------------------------------------------------------------------------------------------------------------- jobs


@contextmanager
def _timed(result: dict[str, Any]) -> Iterator[None]:
    before, started = _processor(), time.perf_counter()
    yield
    result["seconds"] = time.perf_counter() - started
    if "bedplate.data.parsing.template" in sys.modules:  # what parsed the sources has been waited for, and is counted
        sys.modules["bedplate.data.parsing.template"].TEMPLATE.end()
    result["processor"] = _processor() - before
    # The process that parses a source counts as well: both peaks together, whether or not they came at one moment.
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    result["peak"] = sum(resource.getrusage(kind).ru_maxrss for kind in kinds) // 1024


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime


def _warm() -> None:
    """Begin to load the process that parses while this one loads its half, as every command that takes data in does."""
    from bedplate.data.parsing.template import TEMPLATE

    TEMPLATE.warm()


def ingest_ours(folder: Path) -> dict[str, Any]:
    """A home, one ingestion, its facts and its ledger entry."""
    _warm()
    import deltalake  # noqa: F401 - loaded before the clock starts, as for the other side

    from bedplate import settings
    from bedplate.app.system import System
    from bedplate.data.ingest import ingest
    from bedplate.usecase.types import DataSet, Source

    spec = DataSet(contract="payments.odcs.yaml", source=Source(kind="parquet", path="payments.parquet"))
    result: dict[str, Any] = {}
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    with System(settings.load({"BEDPLATE_HOME": str(home)})) as system:
        with _timed(result):
            made = ingest(system.tables, use_case="bench", dataset="payments", spec=spec, folder=folder, key="once")
            with system.store.transaction() as tx:
                fact = tx.facts.put("dataset", "bench", made, ())
                system.ledger.record(
                    tx, actor="flow", action="flow.ingest", resource="use_case/bench", payload={"output": fact.digest}
                )
        assert made.accepted == made.read
        assert not any(outcome.failed for outcome in made.outcomes)
    shutil.rmtree(home)
    return {**result, "rows": made.accepted}


def ingest_by_hand(folder: Path) -> dict[str, Any]:
    """What delta-rs makes of the file."""
    import deltalake
    import pyarrow as pa
    import pyarrow.parquet as pq

    result: dict[str, Any] = {}
    shutil.rmtree(folder / "delta", ignore_errors=True)
    with _timed(result):
        file = pq.ParquetFile(folder / "payments.parquet")
        rows = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(1 << 17))
        deltalake.write_deltalake(str(folder / "delta"), rows, mode="append")
    shutil.rmtree(folder / "delta")
    return {**result, "rows": file.metadata.num_rows}


def checks_ours(folder: Path) -> dict[str, Any]:
    """The contract held against the file."""
    _warm()
    from bedplate.data import contracts, ingest
    from bedplate.usecase.types import DataSet, Source

    spec = DataSet(contract="payments.odcs.yaml", source=Source(kind="parquet", path="payments.parquet"))
    result: dict[str, Any] = {}
    with _timed(result):
        contract = contracts.load(folder / "payments.odcs.yaml")
        found = ingest.test(contract, "payments", spec, folder)
    assert not any(outcome.failed for outcome in found)
    return {**result, "rows": _rows(folder)}


def checks_by_hand(folder: Path) -> dict[str, Any]:
    """One query that counts the same."""
    import duckdb

    result: dict[str, Any] = {}
    with _timed(result):
        found = duckdb.connect().execute(CHECKS, [str(folder / "payments.parquet")]).fetchone()
    assert found is not None
    assert not any(found)
    return {**result, "rows": _rows(folder)}


def _rows(folder: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(folder / "payments.parquet").num_rows)


def _reader(folder: Path, on_read: Callable[[Any], object], masks: dict[str, Any], rows: dict[str, str]) -> Any:
    from bedplate.data import predicates
    from bedplate.data.masks import Masks
    from bedplate.data.reads import Protection, Reader
    from bedplate.data.tables import Tables
    from bedplate.policy import values
    from bedplate.policy.filters import RowPolicies
    from bedplate.policy.policies import Policies

    tables = Tables(folder / "tables")
    engineer = values.Principal(kind="User", id="ana", name="ana", groups=("engineers",))

    # Policies are in force before somebody reads: what a read pays is their evaluation for whoever asks.
    policies = {
        name: RowPolicies.load(text, predicates.attributes(tables.schema(tables.current(name))))
        for name, text in rows.items()
    }
    protections = {name: Protection(rows=policies[name], masks=Masks(columns=masks[name])) for name in rows}
    return Reader(
        tables, Policies.load(), engineer, "payments", on_read, mask_key=b"0123456789abcdef",
        protection_of=lambda _, version: protections[version.name],
        resource_of=lambda name: values.table(name, use_case="bench", purposes=("payments",)),
    )  # fmt: skip


def _tables(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "tables.json").read_text())  # type: ignore[no-any-return]


def _version(made: dict[str, Any]) -> Any:
    import msgspec

    from bedplate.records import TableVersion

    return msgspec.convert(made["version"], TableVersion)


def _masks(*, hashed: bool = False) -> dict[str, Any]:
    from bedplate.data.masks import Mask

    masks = {"time": [Mask(kind="generalise", unit="month")], "channel": [Mask(kind="truncate", keep=1)]}
    return masks | ({"shop": [Mask(kind="hash")]} if hashed else {})


def _scan(folder: Path, *, hashed: bool) -> dict[str, Any]:
    import duckdb  # noqa: F401 - loaded before the clock starts, as for the other side

    reader = _reader(folder, lambda _: None, {"payments": _masks(hashed=hashed)}, {"payments": FILTER})
    result: dict[str, Any] = {}
    with _timed(result):
        out = sum(batch.num_rows for batch in reader.read(_version(_tables(folder)["payments"]), list(WANTED)))
    return {**result, "rows": _rows(folder), "out": out}


def _scan_by_hand(folder: Path, *, hashed: bool) -> dict[str, Any]:
    import duckdb

    import bedplate.data.reads  # noqa: F401 - both sides bear the same imports

    sql = SCAN.replace("shop, date", "sha256('0123456789abcdef' || shop) AS shop, date", 1) if hashed else SCAN
    result: dict[str, Any] = {}
    with _timed(result):
        relation = duckdb.connect().sql(sql, params={"files": _tables(folder)["payments"]["files"]})
        out = sum(batch.num_rows for batch in relation.to_arrow_reader(1 << 16))
    return {**result, "rows": _rows(folder), "out": out}


def join_ours(folder: Path) -> dict[str, Any]:
    """What training does: governed labels joined with a view of governed rows."""
    import duckdb  # noqa: F401 - loaded before the clock starts, as for the other side

    from bedplate import features
    from bedplate.data.masks import Mask

    masks = {"labels": {"time": []}, "features": {"segment": [Mask(kind="generalise", step=100)],
                                                  "f3": [Mask(kind="null")]}}  # fmt: skip
    reader = _reader(folder, lambda _: None, masks, {"labels": VISITS, "features": VISITS})
    made, result = _tables(folder), {}
    names = ["customer", "time", "f0", "f1", "f2", "f3", "segment"]
    view = features.FeatureView(
        name="f", entity=("customer",), times={"features": "time"}, rows=True,
        sql=f"SELECT {', '.join(names)} FROM features",
    )  # fmt: skip
    with _timed(result):
        labels = reader.read(_version(made["labels"]), ["customer", "time", "bought"]).read_all()
        joined = features.join(
            labels, "time", [view], lambda _: reader.read(_version(made["features"]), names), memory=4 << 30
        )
    return {**result, "rows": joined.num_rows}


def join_by_hand(folder: Path) -> dict[str, Any]:
    """The same filters, masks and join, written in SQL."""
    import duckdb

    import bedplate.data.reads  # noqa: F401 - both sides bear the same imports

    made, result = _tables(folder), {}
    rows = "WHERE coalesce(\"group\" <> 'minor', false)"
    sql = f"""WITH labels AS (SELECT customer, time, bought FROM read_parquet($labels) {rows}),
    features AS (SELECT customer, time, f0, f1, f2, NULL::FLOAT AS f3, segment // 100 * 100 AS segment
    FROM read_parquet($features) {rows}) {ASOF}"""
    with _timed(result):
        connection = duckdb.connect()
        connection.execute("SET memory_limit = '4GiB'")
        relation = connection.sql(sql, params={name: made[name]["files"] for name in ("labels", "features")})
        out = sum(batch.num_rows for batch in relation.to_arrow_reader(1 << 16))
    return {**result, "rows": out}


def decision(folder: Path) -> dict[str, Any]:
    """From the question to the stream, with a ledger entry that has reached the disk; no row is read."""
    from bedplate import settings
    from bedplate.app.system import System

    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    with System(settings.load({"BEDPLATE_HOME": str(home)})) as system:

        def on_read(record: Any) -> None:
            with system.store.transaction() as tx:
                system.ledger.record(
                    tx, actor=record.principal, action="table.read", resource=record.table.name, purpose=record.purpose
                )

        reader = _reader(folder, on_read, {"payments": _masks()}, {"payments": FILTER})
        version = _version(_tables(folder)["payments"])
        times, work = [], []
        for _ in range(50):
            started, worked = time.perf_counter(), time.process_time()
            reader.read(version, list(WANTED))
            times.append((time.perf_counter() - started) * 1000)
            work.append((time.process_time() - worked) * 1000)
    shutil.rmtree(home)
    return {
        "first": times[0],
        "median": statistics.median(times[1:]),
        "work_first": work[0],
        "work": statistics.median(work[1:]),
    }


JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "prepare": prepare,
    "ingest-ours": ingest_ours,
    "ingest-by-hand": ingest_by_hand,
    "checks-ours": checks_ours,
    "checks-by-hand": checks_by_hand,
    "scan-ours": lambda folder: _scan(folder, hashed=False),
    "scan-by-hand": lambda folder: _scan_by_hand(folder, hashed=False),
    "hashed-ours": lambda folder: _scan(folder, hashed=True),
    "hashed-by-hand": lambda folder: _scan_by_hand(folder, hashed=True),
    "join-ours": join_ours,
    "join-by-hand": join_by_hand,
    "decision": decision,
}

if __name__ == "__main__":
    main()
