"""A release is let in step by step: a good one to the end, a bad one back again, and no caller notices either."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bedplate import ids
from bedplate.app import rollout_steps, rollouts
from bedplate.errors import ConflictError, DeniedError, NotFoundError
from bedplate.release.rollout import Step
from tests.app.rolling import Load, Served, hangs_above, not_a_number_above, slow
from tests.serve.support import eventually, linear

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("rollouts") / "home") as made:
        yield made


@pytest.fixture
def served(home: Served) -> Iterator[Served]:
    yield home
    with contextlib.suppress(ConflictError, NotFoundError):  # what a test left under way must not be the next one's
        rollouts.roll_back(home.system, home.who, "linear")


def test_a_good_release_takes_its_steps_and_is_rolled_back_on_demand(served: Served) -> None:
    before = served.served()
    spec = served.release(linear())
    steps = (Step("shadow", 1.0, 1.0), Step("split", 0.1, 1.5), Step("split", 0.5, 1.0))
    with Load(served) as load:
        assert served.begin(spec, *steps).state == "running"
        eventually(lambda: served.state().state == "completed")
        assert served.served() == spec.digest
        report = served.state()
        assert [step.state for step in report.steps] == ["passed"] * 3
        assert report.steps[0].rows >= 5
        assert report.steps[0].different == 0
        assert all(step.findings for step in report.steps)
        done = rollouts.roll_back(served.system, served.who, "linear", "a customer asked")
    assert (done.state, served.served()) == ("rolled_back", before)
    assert load.failed == []
    assert load.answered > 50
    itself = [(action, "rollout") for action in ("step", "step", "step", "complete")]
    assert served.actions()[-6:] == [("start", served.who.id), *itself, ("roll_back", served.who.id)]


@pytest.mark.parametrize(
    ("name", "model", "because"),
    [
        pytest.param("one that gives no number", not_a_number_above(-1.0), "failed: ", marks=pytest.mark.long),
        pytest.param("one with 5 % errors", not_a_number_above(0.95), "failed: ", marks=pytest.mark.long),
        ("one that hangs", hangs_above(0.5), "failed: "),
        ("one that is slow", slow(4_000), "slow: "),
    ],
)
def test_a_bad_release_is_rolled_back_and_no_caller_fails(
    served: Served, name: str, model: bytes, because: str
) -> None:
    before = served.served()
    spec = served.release(model)
    with Load(served) as load:
        served.begin(spec, Step("split", 0.1, 600.0), slack=0.001, patience=0.25)
        eventually(lambda: served.state().state == "rolled_back", what=f"{name} was not rolled back")
    report = served.state()
    assert load.failed == []
    assert load.answered > 50
    assert served.served() == before
    assert report.reason.startswith(because)
    assert any(finding.alarm and finding.e_value >= finding.limit for finding in report.steps[0].findings)
    assert served.actions()[-1] == ("roll_back", "rollout")


def test_a_release_that_is_not_what_was_signed_never_gets_a_request(served: Served) -> None:
    spec = served.release(linear(3.0))
    (spec.bundle / "model.onnx").chmod(0o600)
    (spec.bundle / "model.onnx").write_bytes(linear(4.0))
    with Load(served) as load:
        report = served.begin(spec)
    assert (report.state, load.failed) == ("rolled_back", [])
    assert report.reason.startswith("the candidate is not ready")


def test_frozen_it_takes_no_step_and_resumed_it_goes_on(served: Served) -> None:
    with Load(served) as load:
        served.begin(served.release(linear(5.0)), Step("split", 0.5, 1.0), Step("split", 0.6, 60.0), least=1)
        assert rollouts.freeze(served.system, served.who, "linear").state == "frozen"
        with pytest.raises(ConflictError, match="frozen"):
            rollouts.freeze(served.system, served.who, "linear")
        with pytest.raises(ConflictError, match="already"):
            served.begin(served.release(linear(6.0)))
        time.sleep(2.5)
        assert served.state().steps[1].state == "to come"
        rollouts.resume(served.system, served.who, "linear")
        eventually(lambda: served.state().steps[1].state == "now")
        assert rollouts.roll_back(served.system, served.who, "linear").state == "rolled_back"
        with pytest.raises(ConflictError, match="rolled back"):
            rollouts.roll_back(served.system, served.who, "linear")
    assert load.failed == []


def test_what_came_of_answers_rolls_a_release_back(served: Served) -> None:
    spec = served.release(linear(7.0))
    served.begin(spec, Step("split", 0.5, 60.0), guards=("kpi",), key="X", between=(0.0, 10.0))
    keys = [f"k{i}" for i in range(600)]
    row = rollout_steps.latest(served.system, "linear")
    earned = [(key, 2.0 if rollouts.position(row.id, key) < 0.5 else 6.0) for key in keys]
    report = rollouts.take_outcomes(served.system, served.who, "linear", earned)
    (finding,) = report.steps[0].findings
    assert finding.guard == "kpi"
    assert finding.stable is not None
    assert finding.candidate is not None
    assert (finding.candidate.value, finding.stable.value) == (pytest.approx(2.0), pytest.approx(6.0))
    eventually(lambda: served.state().state == "rolled_back")
    with pytest.raises(ConflictError, match="told apart"):
        rollouts.take_outcomes(served.system, served.who, "linear", earned)


def test_rows_that_differ_too_often_roll_a_shadow_back(served: Served) -> None:
    with Load(served) as load:
        served.begin(served.release(linear(8.0)), Step("shadow", 1.0, 60.0), guards=("errors", "rows"), differ=0.2)
        eventually(lambda: served.state().state == "rolled_back")
    assert "rows differ" in served.state().reason
    assert load.failed == []


@pytest.mark.long
def test_an_owner_that_was_killed_leaves_a_rollout_that_the_next_one_carries_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "tests.app.rolling", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "frozen\n"
        owner.kill()
    with Served(home) as made, Load(made) as load:
        report = made.state()
        assert report.state == "frozen"
        eventually(lambda: made.state().steps[0].candidate > 5)
        rollouts.resume(made.system, made.who, "linear")
        eventually(lambda: made.state().state == "completed")
        assert made.served() == report.bundle
    assert load.failed == []


def test_who_may_only_look_changes_nothing(served: Served) -> None:
    served.begin(served.release(linear(9.0)), Step("split", 0.5, 60.0))
    name = served.system.identity.add_principal("user", ids.new_id("u"), ["viewers"], actor=served.who.id)
    key = served.system.identity.create_key(getattr(name, "id", name), actor=served.who.id)
    viewer = served.system.identity.authenticate(key)
    assert rollouts.report(served.system, viewer, "linear").state == "running"
    for change in (rollouts.freeze, rollouts.roll_back, rollouts.start):
        with pytest.raises(DeniedError):
            change(served.system, viewer, "linear")
    assert served.state().state == "running"


def test_the_newest_approved_release_is_let_in_as_the_file_asks(served: Served) -> None:
    spec = served.release(linear(1.0000001))
    with Load(served) as load:
        report = rollouts.start(served.system, served.who, "linear")
        assert [(step.mode, step.share, step.hold) for step in report.steps] == [
            ("shadow", 1.0, 1.0),
            ("split", 0.5, 1.0),
        ]
        eventually(lambda: served.state().state == "completed")
        with pytest.raises(ConflictError, match="newest approved release already"):
            rollouts.start(served.system, served.who, "linear")
    assert (load.failed, served.served()) == ([], spec.digest)


def test_nothing_was_rolled_out(tmp_path: Path) -> None:
    with Served(tmp_path / "home") as made:
        with pytest.raises(NotFoundError, match="rolled out"):
            made.state()
        made.system.serving = False
        with pytest.raises(ConflictError, match="served"):
            made.begin(made.release(linear()))
