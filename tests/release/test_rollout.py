"""The states of a rollout, and what its guards conclude from counts."""

from pathlib import Path

import pytest

from bedplate.errors import ConflictError
from bedplate.release import guards, rollout
from bedplate.release.rollout import RolloutPlan, Step
from bedplate.stats.canary import Events, Rows, Side, Tally, Values
from bedplate.usecase import load
from tests import retail

STEP = Step("split", 0.1, 60.0)
PLAN = RolloutPlan(
    steps=(Step("shadow", 1.0, 30.0), STEP), guards=("errors", "latency", "kpi", "rows"), least=20, patience=1.0,
    slack=0.01, key="X", differ=0.1, between=(10.0, 20.0), up=False,
)  # fmt: skip


def counted(stable: tuple[int, int, int], candidate: tuple[int, int, int], rows: tuple[int, int] = (0, 0)) -> Tally:
    """A tally of requests, errors and slow answers of both, each event in a second of its own."""
    tally = Tally(
        stable=Side(requests=stable[0], errors=stable[1], slow=stable[2]),
        candidate=Side(requests=candidate[0], errors=candidate[1], slow=candidate[2]),
        rows=Rows(compared=rows[0], different=rows[1]),
    )
    for events, index in ((tally.errors, 1), (tally.slow, 2)):
        for _ in range(candidate[index]):
            events.second(1, 1, 10)
        for _ in range(stable[index]):
            events.second(0, 1, 10)
    return tally


def test_the_table_says_what_can_happen() -> None:
    assert rollout.follow("running", "frozen_by") == "frozen"
    assert rollout.follow("frozen", "resumed") == "running"
    assert rollout.follow("completed", "rolled_back") == "rolled_back"
    for state, event in (("rolled_back", "resumed"), ("frozen", "all_passed"), ("completed", "frozen_by")):
        with pytest.raises(ConflictError, match="the rollout is"):
            rollout.follow(state, event)  # type: ignore[arg-type]
    assert set(rollout.MEANING) == {state for state, _ in rollout.TRANSITIONS} | set(rollout.TRANSITIONS.values())


def test_the_diagram_in_the_documentation_is_that_of_the_table() -> None:
    text = Path("docs/explain/rollout.md").read_text("utf-8")
    assert rollout.mermaid() in text


def test_a_step_waits_for_its_time_and_for_its_requests_and_then_passes() -> None:
    good = counted((900, 9, 45), (100, 1, 5))
    assert guards.judge(PLAN, STEP, good, Values(), 10.0).action == "wait"
    assert "50 s" in guards.judge(PLAN, STEP, good, Values(), 10.0).reason
    few = guards.judge(PLAN, STEP, counted((90, 0, 0), (10, 0, 0)), Values(), 61.0)
    assert (few.action, few.reason) == ("wait", "the candidate was asked 10 times of 20")
    passed = guards.judge(PLAN, STEP, good, Values(), 61.0)
    assert passed.action == "pass"
    assert [finding.guard for finding in passed.findings] == ["errors", "latency"]
    assert all(finding.e_value < finding.limit for finding in passed.findings)


def test_nothing_counted_yet_is_no_number_and_no_alarm() -> None:
    verdict = guards.judge(PLAN, STEP, Tally(), Values(), 1.0)
    assert verdict.action == "wait"
    assert [(finding.stable, finding.candidate) for finding in verdict.findings] == [(None, None)] * 2


@pytest.mark.parametrize(
    ("tally", "guard"),
    [(counted((900, 2, 40), (100, 20, 5)), "errors"), (counted((900, 2, 30), (100, 1, 60)), "latency")],
)
def test_errors_and_slowness_roll_back_also_before_the_step_is_over(tally: Tally, guard: str) -> None:
    verdict = guards.judge(PLAN, STEP, tally, Values(), 1.0)
    assert verdict.action == "roll_back"
    (alarm,) = [finding for finding in verdict.findings if finding.alarm]
    assert (alarm.guard, verdict.reason) == (guard, alarm.text)
    assert alarm.stable is not None
    assert alarm.candidate is not None
    assert alarm.candidate.low > alarm.stable.high


def test_evidence_for_less_than_what_matters_is_no_alarm() -> None:
    """A million requests show that 0.02 % is more than 0.01 %, which nobody would roll back for."""
    tally = Tally(stable=Side(requests=1_000_000, errors=100), candidate=Side(requests=1_000_000, errors=400))
    tally.errors = Events(on_candidate=400, counted=500)
    verdict = guards.judge(PLAN, Step("split", 0.5, 1.0), tally, Values(), 2.0)
    assert verdict.findings[0].e_value > verdict.findings[0].limit
    assert verdict.action == "pass"


def test_rows_are_held_against_what_may_differ_in_a_shadow_only() -> None:
    shadow = PLAN.steps[0]
    for different, action in ((5, "pass"), (60, "roll_back")):
        assert (
            guards.judge(PLAN, shadow, counted((100, 0, 0), (100, 0, 0), (100, different)), Values(), 31).action
            == action
        )
    assert guards.judge(PLAN, STEP, counted((100, 0, 0), (100, 0, 0), (100, 60)), Values(), 61).action == "pass"


def test_what_was_earned_is_shown_in_its_own_unit_and_rolls_back() -> None:
    """Less is better here: the candidate costs 18, the stable release 12, each between 10 and 20."""
    values = Values()
    for i in range(400):
        candidate = i % 4 == 0
        values.add(rollout.scaled(PLAN, 18.0 if candidate else 12.0), on_candidate=candidate)
    verdict = guards.judge(PLAN, STEP, counted((300, 0, 0), (100, 0, 0)), values, 1.0)
    assert verdict.action == "roll_back"
    (finding,) = [finding for finding in verdict.findings if finding.guard == "kpi"]
    assert finding.stable is not None
    assert finding.candidate is not None
    assert (finding.candidate.value, finding.stable.value) == (pytest.approx(18), pytest.approx(12))
    assert finding.candidate.low < 18 < finding.candidate.high
    assert rollout.scaled(PLAN, 25.0) == 0.0


def test_the_plan_is_what_the_file_asks_for() -> None:
    use_case = load(retail.EXAMPLE, check_files=False).use_case
    plan = rollout.plan_of(use_case)
    assert [step.share for step in plan.steps] == [0.01, 0.1, 0.5]
    assert plan.guards == ("errors", "latency", "kpi")
    assert plan.limit == 9 / rollout.ALPHA
    assert plan.patience == max(0.1, 4 * use_case.requirements.latency.p99)
