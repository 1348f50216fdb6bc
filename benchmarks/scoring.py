"""A table through a model: our scoring against a bare ONNX Runtime loop over the same Parquet, in one run.

The loop does what a person would write: batches of a Parquet file, columns to arrays, the session, batches to a Parquet
file. Ours reads a table of the home (each page is verified), runs the predictor that serving loads, checks what it
gave, and commits a table whose rows say where they are from. Rounds in turns; also the loop without its writing, which
is the limit. Memory is the growth of the process's peak while ten times the rows went through.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

from bedplate.compute.task import Task
from bedplate.data.scoring import ROWS, Scorer, marked
from bedplate.data.tables import Tables
from bedplate.serve.predictors import NO_FEATURES, OnnxPredictor
from bedplate.train import tabular

COLUMNS, TREES = 10, 100
ROUNDS = 5
SHARE, GROWTH = 0.5, 50.0
"""At least this share of the bare loop's speed, and at most so many MB more for ten times the rows."""


def rows(count: int) -> Iterator[pa.RecordBatch]:
    """Made-up rows with an id, a few hundred thousand at a time."""
    random = np.random.default_rng(5)
    for start in range(0, count, 250_000):
        n = min(250_000, count - start)
        made = {"id": np.arange(start, start + n)}
        made |= {f"c{i}": random.standard_normal(n).astype(np.float32) for i in range(COLUMNS)}
        yield pa.RecordBatch.from_pydict(made)


def model() -> tuple[bytes, OnnxPredictor]:
    """Trees as the tabular recipe releases them: one input for each column."""
    import msgspec

    from bedplate.records import ModelSignature

    table = pa.Table.from_batches(list(rows(5000))).drop_columns(["id"])
    target = (table["c0"].to_numpy() * table["c1"].to_numpy() > 0).astype(np.int64)
    task = Task(
        tables={"t": table.append_column("y", pa.array(target))},
        parameters={"target": "y", "rounds": TREES, "task": "classification"},
        seed=1,
    )
    made = tabular.train(task)
    signature = msgspec.convert(made.result["signature"], ModelSignature)
    return made.files["model.onnx"], OnnxPredictor(made.files["model.onnx"], signature)


def loop(data: bytes, source: Path, target: Path | None) -> float:
    """The bare loop; seconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    began = time.perf_counter()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    schema = pa.schema([("id", pa.int64()), ("score", pa.float32())])
    writer = pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) if target else None
    for batch in pq.ParquetFile(source).iter_batches(ROWS, columns=["id", *names]):
        given = {name: batch.column(name).to_numpy()[:, None] for name in names}
        (score,) = session.run(["score"], given)
        if writer is not None:
            writer.write_batch(pa.RecordBatch.from_arrays([batch.column("id"), pa.array(score.ravel())], schema=schema))
    if writer is not None:
        writer.close()
    return time.perf_counter() - began


def ours(predictor: OnnxPredictor, tables: Tables, name: str, to: str) -> float:
    """The same by our path; seconds."""
    began = time.perf_counter()
    version = tables.current(name)
    scorer = Scorer(predictor, tables.schema(version), keep=["id"])
    marks = dict.fromkeys(("bundle", "evidence", "source", "scoring"), "sha256:" + "0" * 64)
    scored = scorer.score(tables.scan(version, list(scorer.read)), NO_FEATURES)
    tables.write(to, marked(scorer.schema, scored, marks), mode="overwrite")
    return time.perf_counter() - began


def peak() -> float:
    """The most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(count: int) -> None:
    """Print the ratios."""
    data, predictor = model()
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(Path(folder) / "tables")
        schema = next(rows(1)).schema
        for name, size in (("small", count // 10), ("large", count)):
            tables.write(name, pa.RecordBatchReader.from_batches(schema, rows(size)), mode="overwrite")
        plain = Path(folder) / "plain.parquet"
        with pq.ParquetWriter(plain, schema, compression="zstd", compression_level=1) as writer:
            for batch in rows(count):
                writer.write_batch(batch)
        ours(predictor, tables, "small", "warm")
        loop(data, plain, None)
        before = peak()
        ours(predictor, tables, "large", "scored")
        grown = peak() - before
        found: dict[str, list[float]] = {"bare, no writing": [], "bare": [], "Bedplate": []}
        for _ in range(ROUNDS):
            found["bare, no writing"].append(loop(data, plain, None))
            found["bare"].append(loop(data, plain, Path(folder) / "out.parquet"))
            found["Bedplate"].append(ours(predictor, tables, "large", "scored"))
        print(f"{count:,} rows of {COLUMNS} columns, {TREES} trees, medians of {ROUNDS} rounds in turns")
        for name, seconds in found.items():
            ratios = [s / o for s, o in zip(found["bare"], seconds, strict=True)]
            print(
                f"{name:<18} {count / statistics.median(seconds):>12,.0f} rows/s, of bare "
                f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            )
        share = statistics.median(bare / our for bare, our in zip(found["bare"], found["Bedplate"], strict=True))
        print(f"of bare {share:.2f}, at least {SHARE:g}: {'met' if share >= SHARE else 'MISSED'}")
        verdict = "met" if grown <= GROWTH else "MISSED"
        print(f"memory: {grown:.0f} MB more for ten times the rows, at most {GROWTH:g}: {verdict}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500_000)
