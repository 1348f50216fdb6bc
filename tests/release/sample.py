"""A use case file and what training could have found for it."""

from pathlib import Path

from bedplate.ids import Digest, digest_bytes
from bedplate.records import Comparison, Estimate, Metric, ModelSignature, TableVersion, TensorSpec, TrainResult
from bedplate.usecase import Loaded, load

FILE = """\
bedplate: 1
name: retail
owner: {team: growth, accountable: ana.silva}
objective:
  statement: Show each household the products it will want next.
  kpi: {name: basket_value, unit: USD, direction: up, baseline: 28.4, target: 29.3}
risk: {level: limited, affects_people: true}
workload: {kind: recommender, catalogue: 92000, users: 2500}
requirements:
  latency: {p99: 20 ms}
  throughput: {peak: 50/s}
  size: 10 MiB
  quality:
    - {metric: recall@20, better_than: each baseline, on: all}
    - {metric: recall@20, not_worse_than: {baseline: own, margin: 0.02}, on: light}
    - {metric: coverage, at_least: 0.05}
data:
  transactions: {contract: contracts/t.odcs.yaml, source: {kind: parquet, path: t.parquet}}
governance: {purpose: personalisation, sensitive: [age]}
release: {gates: [quality, latency, size, fairness, security], approvals: {production: "2 of [growth-leads, risk]"}}
"""


def loaded(folder: Path, text: str = FILE) -> Loaded:
    """``text`` as a loaded use case."""
    path = folder / "usecase.yaml"
    path.write_text(text)
    return load(path, check_files=False)


def digest(text: str) -> Digest:
    """A digest that stands for ``text``."""
    return digest_bytes(text.encode())


def estimate(value: float, half: float, n: int = 2000) -> Estimate:
    """An estimate with a symmetric interval."""
    return Estimate(value=value, low=value - half, high=value + half, n=n, method="bootstrap")


def comparison(baseline: str, difference: Estimate, on: str = "all") -> Comparison:
    """Candidate minus ``baseline`` in recall@20."""
    return Comparison(metric="recall@20", baseline=baseline, slice=on, difference=difference)


def training(*comparisons: Comparison, coverage: Estimate | None = None, isolated: bool = True) -> TrainResult:
    """A training that found these differences, beside good ones where nothing is given."""
    given = {(c.baseline, c.slice): c for c in comparisons}
    usual = {
        ("popular", "all"): comparison("popular", estimate(0.09, 0.01)),
        ("own", "all"): comparison("own", estimate(0.02, 0.005)),
        ("own", "light"): comparison("own", estimate(0.01, 0.009, 402), "light"),
        ("own", "age=25-34"): comparison("own", estimate(0.01, 0.02, 300), "age=25-34"),
    }
    return TrainResult(
        run_id="run_1",
        workload="recommender",
        artifacts={"model.json": digest_bytes(b'{"trees": []}')},
        signature=ModelSignature(
            predictor="recommender",
            inputs=(TensorSpec(name="household_id", datatype="INT64", shape=(-1,)),),
            outputs=(TensorSpec(name="product_id", datatype="INT64", shape=(-1, 20)),),
        ),
        parameters={"factors": 64},
        metrics=(
            Metric(metric="coverage", model="candidate", slice="all", estimate=coverage or estimate(0.2, 0.01)),
            Metric(metric="recall@20", model="candidate", slice="all", estimate=estimate(0.16, 0.005)),
        ),
        comparisons=tuple((usual | given).values()),
        split={"holdout_weeks": 4},
        inputs=(TableVersion(name="transactions", version=3, digest=digest("t"), rows=1000),),
        code_digest=digest("code"),
        environment_digest=digest("environment"),
        seed=7,
        seconds=60.0,
        isolated=isolated,
    )
