"""A use case from its file to a trace, again with nothing changed, and again with one thing changed."""

import pytest

from bedplate.app.read_models import STAGES
from bedplate.errors import InputError, NotFoundError
from tests import retail
from tests.flow.conftest import Done

pytestmark = [pytest.mark.slow, pytest.mark.long]

AFTER_OBSERVE = ("observe", "decide", "look", "trace")


def states(summary):
    """What a run did with each stage."""
    return {stage.stage: stage.state for stage in summary.stages}


def test_every_stage_ends(done: Done):
    """Thirteen stages, in order, each with a line that says what came of it, and evidence for each part."""
    summary = done.summary
    assert [(stage.stage, stage.state) for stage in summary.stages] == [(name, "finished") for name in STAGES]
    assert all(stage.summary and stage.output for stage in summary.stages)
    assert [event.stage for event in done.events if event.state == "finished"] == list(STAGES)

    evidence = summary.evidence
    assert len(evidence.datasets) == 8
    assert all(item.body.accepted for item in evidence.datasets)
    assert evidence.training is not None
    assert {metric.metric for metric in evidence.training.body.metrics} >= {"recall@20", "ndcg@20"}
    assert evidence.gates is not None
    assert evidence.gates.body.passed
    assert evidence.endpoint is not None
    assert evidence.endpoint.body.load is not None
    assert evidence.endpoint.body.load.failed == 0
    assert evidence.observation is not None
    assert evidence.observation.body.predictions == 4 * 12


def test_nothing_is_redone_when_nothing_changed(done: Done):
    """The second run skips every stage, ends in the same evidence, and is quick."""
    assert {plan.action for plan in done.bedplate.plan(done.folder).stages} == {"skip"}
    before = done.bedplate.audit_verify().entries

    again = done.bedplate.run(done.folder)

    assert states(again) == dict.fromkeys(STAGES, "skipped")
    assert [s.output for s in again.stages] == [s.output for s in done.summary.stages]
    assert again.prediction == done.summary.prediction
    assert again.seconds < 5
    assert done.bedplate.audit_verify().entries == before, "a run that does nothing records nothing"


def test_only_what_depends_on_a_change_is_redone(done: Done, tmp_path):
    """More households in the replay: the plan says what that costs, and the run does just that."""
    changed = retail.copy(done.folder, tmp_path / "changed")
    retail.change(changed / "usecase.yaml", ("replay: 12 households", "replay: 14 households"))

    plan = {stage.stage: stage for stage in done.bedplate.plan(changed).stages}
    summary = done.bedplate.run(changed)

    # The file itself is what `check` records, and the plan counts what watching costs. What the first run taught the
    # planner makes it choose no other machine than the one that serves: nothing is cheaper beyond doubt.
    said = {name for name, stage in plan.items() if stage.action == "run"}
    redone = {name for name, state in states(summary).items() if state == "finished"}
    assert redone == said == {"check", "plan", *AFTER_OBSERVE}, plan["serve"].because
    assert "monitor" in plan["observe"].because
    assert summary.evidence.observation is not None
    assert summary.evidence.observation.body.predictions == 4 * 14


def test_one_stage_alone(done: Done, tmp_path):
    """`--only` does one stage if what it needs is done, and says what is missing if not."""
    alone = done.bedplate.run(done.folder, only="features")
    assert states(alone)["features"] == "skipped"
    assert states(alone)["train"] == "pending"

    changed = retail.copy(done.folder, tmp_path / "changed")
    retail.change(changed / "usecase.yaml", ("seed: 7", "seed: 8"))
    with pytest.raises(InputError, match="must run first"):
        done.bedplate.run(changed, only="observe")
    with pytest.raises(NotFoundError, match="no stage 'observ'"):
        done.bedplate.run(done.folder, only="observ")


def test_a_training_is_done_again_and_watched(done: Done):
    """What it waits for is found on the rows that it had; nothing that it makes is kept."""
    assert done.summary.evidence.training is not None
    run = done.summary.evidence.training.body.run_id
    report = done.bedplate.profile(run, seconds=60)
    assert (report.target, report.verify) == (run, f"bedplate profile {run} --duration 60")
    assert "of a training that took" in report.what
    assert any("lightgbm" in label for frame in report.frames for label in frame.stack)
    again = done.bedplate.run(done.folder).evidence.training
    assert again is not None
    assert again.body.run_id == run
    with pytest.raises(NotFoundError, match="no training"):
        done.bedplate.profile("run_0", seconds=3)


def test_what_a_run_leaves_can_be_proved(done: Done):
    """The ledger verifies, a prediction is traced to the objective, the status says where the use case stands."""
    audit = done.bedplate.audit_verify()
    assert audit.verified, audit.problems

    assert done.summary.prediction is not None
    trace = done.bedplate.trace(done.summary.prediction)
    assert trace.verified
    assert trace.nodes[0].kind == "prediction"
    assert trace.nodes[-1].kind == "objective"

    done.bedplate.run(done.folder)  # the status is about the newest run, which another test may have had refused
    status = done.bedplate.status()
    assert [use_case.name for use_case in status.use_cases] == [retail.NAME]
    assert status.use_cases[0].state == "served"
    assert status.owner is None
