"""``bedplate models`` on a real home that nobody else owns."""

import json
import re
from types import SimpleNamespace

import pytest

from bedplate import settings as settings_module
from bedplate.app import owned
from bedplate.cli import root
from bedplate.release.registry import NewVersion


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with ``fraud``, which the tests only read (version 2 is in Staging, called candidate), and ``churn``."""
    folder = tmp_path_factory.mktemp("models") / "home"
    with owned.open_home(settings_module.load({"BEDPLATE_HOME": str(folder), "BEDPLATE_PORT": "0"})) as owner:
        models = owner.system.models
        by = owner.system.identity.authenticate(owner.local_token())
        for name in ("churn", "fraud"):
            models.write(lambda tx, name=name: models.rules.create_model(tx, by, "default", name, {}, "who pays back"))
            for _ in range(2):
                models.create_version(by, "default", name, NewVersion(source=f"s3://models/{name}"))
        models.transition(by, "default", "fraud", 2, "Staging")
        models.set_alias(by, "default", "fraud", "candidate", 2)
    return folder


@pytest.fixture
def run(home, capsys):
    def call(*arguments):
        code = root.execute([*arguments, "--home", str(home)])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call


def test_models_are_listed_with_stages_and_aliases(run):
    line = run("models", "list").out.splitlines()[-1]

    assert line.startswith("fraud")
    assert "None: 1, Staging: 2" in line or "Staging: 2" in line
    assert "candidate: 2" in line


def test_a_model_shows_its_versions_and_what_is_known_of_them(run):
    out = run("models", "show", "fraud").out

    assert "fraud in default: who pays back" in out
    assert "version 2 (candidate), stage Staging" in out
    assert "cannot be read here" in out


def test_the_history_is_told_newest_first(run):
    lines = run("models", "history", "fraud").out.splitlines()

    assert "alias-set candidate nothing -> 2 by administrator [ledger" in lines[0]
    assert "model-created" in lines[-1]
    assert len(run("models", "history", "fraud", "--version", "1").out.splitlines()) == 1
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC  ", line) for line in lines)


def test_what_was_live_is_answered_and_nothing_live_ends_with_1(run):
    known = json.loads(run("models", "history", "fraud", "--json").out)["lines"]
    then = known[1]["time"]

    now = run("models", "live", "fraud", "--alias", "candidate")
    before = run("models", "live", "fraud", "--alias", "candidate", "--at", then)
    stage = json.loads(run("models", "live", "fraud", "--stage", "staging", "--at", then, "--json").out)

    assert (now.code, "version 2 of fraud was as alias candidate" in now.out) == (0, True)
    assert re.match(r"At \d{4}-\d\d-\d\d \d\d:\d\d UTC ", now.out)
    assert before.code == 1
    assert stage["version"] == 2
    assert run("models", "live", "fraud").code == 1
    assert run("models", "live", "nobody").code == 2


def test_an_alias_is_pointed_and_taken_away(run):
    assert "points to version 1" in run("models", "alias", "churn", "old", "1", "--expected", "0").out
    taken = run("models", "alias", "churn", "old", "2", "--expected", "2")
    assert (taken.code, "points to version 1" in taken.err) == (1, True)
    assert "no alias old any more" in run("models", "alias", "churn", "old", "--delete").out
    assert run("models", "alias", "churn", "old").code == 2


def test_production_asks_and_approvers_are_named(run):
    refused = run("models", "alias", "churn", "champion", "1")
    named = run("models", "approvers", "churn", "1 of [risk]")

    assert refused.code == 1
    assert "nobody knows what is in them" in refused.err
    assert "production asks 1 of [risk]" in named.out
    assert "production asks 1 of [risk]" in run("models", "show", "churn").out
    assert "closed" in run("models", "approvers", "churn", "").out


def test_what_cannot_be_converted_says_why(run):
    answer = run("models", "convert", "fraud", "1")

    assert (answer.code, "are not with this server" in answer.err) == (1, True)


def test_a_home_that_is_not_there_is_named(tmp_path, capsys):
    assert root.execute(["models", "list", "--home", str(tmp_path / "nothing")]) == 2
    assert "there is no home here" in capsys.readouterr().err


def test_the_ledger_verifies_with_the_history(run):
    assert run("audit", "verify").code == 0
