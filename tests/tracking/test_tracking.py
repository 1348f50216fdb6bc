"""A training becomes a run that names its code, its libraries and its figures."""

import subprocess
from contextlib import closing
from itertools import pairwise

import pytest

from bedplate import ids, store
from bedplate.compute.sandbox import Usage
from bedplate.errors import NotFoundError
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.tracking import Code, SystemMetrics, code_of, environment_digest, experiments, of_training, runs, save
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appends
from tests.release import sample


@pytest.fixture
def opened(tmp_path):
    with closing(store.open(tmp_path / "bedplate.db")) as database:
        yield database


@pytest.fixture
def by(opened, tmp_path):
    with closing(Ledger(opened, tmp_path / "ledger", Signer(new_key("bedplate/test")))) as ledger:
        yield Actor(ledger=ledger, name="ana")


def test_a_training_is_kept_once_as_a_run(opened, by):
    code = Code(digest="sha256:1", files={}, commit="abc", changes="-a\n+b")
    run = of_training("retail", sample.training(), code)
    files = {name: (ids.digest_bytes(text.encode()), len(text)) for name, text in run.files.items()}
    appends = Appends(opened, by.ledger)
    with opened.transaction() as tx:
        first, again = (save(tx, appends, run, files, by=by) for _ in range(2))
    with opened.read() as tx:
        page = runs.get(tx, "default", first)
        kept = page.runs[0]
        experiment = experiments.get(tx, "default", str(kept.experiment))
        folder = kept.artifact_uri.removeprefix("mlflow-artifacts:/")
        diff = tx.artifacts.find("default", f"{folder}/code/changes.diff")
        libraries = tx.artifacts.find("default", f"{folder}/environment/requirements.txt")

    assert first == again
    assert (experiment.row.name, kept.status, page.params[kept.key]) == ("retail", "FINISHED", [("factors", "64")])
    tags = dict(page.tags[kept.key])
    assert (tags["bedplate.data"], tags["mlflow.source.git.commit"]) == ("transactions@3", "abc")
    assert {name: value for name, value, _, _ in page.metrics[kept.key]} == {"coverage": 0.2, "recall@20": 0.16}
    assert diff.digest == ids.digest_bytes(b"-a\n+b\n")
    assert libraries.size > 100
    assert kept.ended >= kept.started


def test_what_a_process_used_becomes_metrics():
    system = SystemMetrics()
    for second in range(1, 4):
        system.add(Usage(float(second), 1.5 * second, second * 1_000_000, 2))

    metrics = system.metrics(began=1_000)

    assert [(m.value, m.timestamp, m.step) for m in metrics if m.key == "system/cpu_utilization_percentage"] == [
        (150.0, 2_000, 0),
        (150.0, 3_000, 1),
        (150.0, 4_000, 2),
    ]
    assert [m.value for m in metrics if m.key == "system/system_memory_usage_megabytes"] == [1.0, 2.0, 3.0]


def test_a_long_training_keeps_few_moments_evenly_apart():
    system = SystemMetrics(most=100)
    for second in range(1, 10_001):
        system.add(Usage(float(second), 0.5 * second, 5, 2))

    moments = [m.timestamp for m in system.metrics(began=0)][::2]

    assert 50 <= len(moments) <= 101
    assert len({b - a for a, b in pairwise(moments)}) == 1
    assert moments[-1] > 9_800_000


def test_code_is_known_by_digest_and_by_commit(tmp_path):
    (tmp_path / "pipeline.py").write_text("a = 1\n")
    outside = code_of(tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    committed = code_of(tmp_path)
    (tmp_path / "pipeline.py").write_text("a = 2\n")
    changed = code_of(tmp_path)

    assert outside.digest == committed.digest != changed.digest
    assert (outside.commit, committed.changes) == (None, None)
    assert changed.commit == committed.commit
    assert "+a = 2" in changed.changes


def test_missing_code_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        code_of(tmp_path)


def test_the_environment_has_one_digest():
    assert environment_digest() == environment_digest()
