"""A valid recommender use case, as a folder that each test may change."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bedplate.errors import UseCaseError
from bedplate.usecase import Problem, load

VALID = """\
bedplate: 1
name: retail
owner: {team: growth, accountable: ana.silva, contact: "#growth-ml"}
objective:
  statement: Show each household the products it will want next.
  kpi: {name: basket_value, unit: USD, direction: up, baseline: 28.40, target: 29.30}
  value: {per_unit: 0.12 USD, of: accepted_recommendation}
risk: {level: limited, affects_people: true, rationale: "..."}
workload: {kind: recommender, catalogue: 92000 items, users: 2500}
requirements:
  latency: {p99: 20 ms}
  throughput: {peak: 500/s, daily_shape: retail}
  availability: 99.9 %
  freshness: {features: 5 s, model: 7 d}
  quality:
    - {metric: recall@20, better_than: each baseline, on: all}
    - {metric: recall@20, not_worse_than: {baseline: own_most_bought, margin: 0.02}, on: light_households}
  budget: {monthly: 2000 USD, training_run: 40 USD, on_breach: block}
  residency: [eu]
data:
  transactions:
    contract: contracts/transactions.odcs.yaml
    source: {kind: csv, path: transactions.csv}
    subject: household_id
governance: {purpose: personalisation, retention: 400 d, sensitive: [age, income], erasure: by subject}
features: [household_recent]
train: {resources: {cpu: 2, memory: 4 GiB}, holdout: 28 d, schedule: null}
release:
  gates: [quality, latency, fairness, security]
  approvals:
    production: 2 of [growth-leads, risk]
serve: {protocol: [rest], replicas: {min: 0, max: 40}, rollout: {steps: [1 %, 10 %, 50 %, 100 %]}}
monitor: {drift: default, outcomes: {join: recommendation_id, within: 14 d, data: transactions}}
alerts: [{when: slo_burn, notify: "...", then: roll_back}]
retrain: {when: [drift, "new_rows >= 200000", "every 7 d"], if: "expected_gain > cost"}
"""

PIPELINE = """\
from bedplate.pipeline import feature_view


@feature_view(entity="household_id", inputs=("transactions",))
def household_recent() -> str:
    return "SELECT 1"
"""


def write(folder: Path, text: str = VALID) -> Path:
    (folder / "contracts").mkdir(exist_ok=True)
    (folder / "contracts" / "transactions.odcs.yaml").write_text("kind: DataContract\n")
    (folder / "transactions.csv").write_text("household_id\n1\n")
    (folder / "pipeline.py").write_text(PIPELINE)
    path = folder / "usecase.yaml"
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


@pytest.fixture
def problems(folder: Path) -> Callable[[str, str], tuple[Problem, ...]]:
    """The problems after replacing one text of the valid file by another."""

    def of(old: str, new: str) -> tuple[Problem, ...]:
        assert old in VALID
        path = folder / "usecase.yaml"
        path.write_text(VALID.replace(old, new))
        try:
            load(path)
        except UseCaseError as error:
            return tuple(p for p in error.problems if isinstance(p, Problem))
        return ()

    return of
