"""A training becomes a run that names its code, its libraries and its figures."""

import subprocess
from contextlib import closing

import pytest

from bedplate import store
from bedplate.errors import NotFoundError
from bedplate.tracking import code_of, environment_digest, experiments, of_training, runs, save
from bedplate.tracking.appends import Appends
from tests.release import sample


def test_a_training_is_kept_once_as_a_run(tmp_path):
    run = of_training("retail", sample.training())
    with closing(store.open(tmp_path / "bedplate.db")) as opened:
        with opened.transaction() as tx:
            appends = Appends(opened, ledger=None)  # what is appended is recorded only when a segment is sealed
            first, again = save(tx, appends, run, actor="flow"), save(tx, appends, run, actor="flow")
        with opened.read() as tx:
            page = runs.get(tx, "default", first)
            kept = page.runs[0]
            experiment = experiments.get(tx, "default", str(kept.experiment))

    assert first == again
    assert (experiment.row.name, kept.status, page.params[kept.key]) == ("retail", "FINISHED", [("factors", "64")])
    assert dict(page.tags[kept.key])["bedplate.data"] == "transactions@3"
    assert {name: value for name, value, _, _ in page.metrics[kept.key]} == {"coverage": 0.2, "recall@20": 0.16}


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
    assert (outside.commit, committed.changed) == (None, None)
    assert changed.commit == committed.commit
    assert changed.changed


def test_missing_code_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        code_of(tmp_path)


def test_the_environment_has_one_digest():
    assert environment_digest() == environment_digest()
