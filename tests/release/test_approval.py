"""Approval by policy or by people; four eyes; distinct people for distinct names."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.records import GateReport, GateResult
from bedplate.release.approval import Vote, approve
from tests.release import sample

BUNDLE = sample.digest("bundle")
RULE = "2 of [growth-leads, risk]"
PASSED = GateReport(results=(), passed=True, summary="passed: 5 passed")


class Policy(NamedTuple):
    allowed: bool = True
    policies: tuple[str, ...] = ("release-dev",)
    reasons: tuple[str, ...] = ("dev releases need no approver",)


def vote(by, *groups, state="approved", reason=""):
    return Vote(by=by, groups=groups, state=state, reason=reason)


def production(*votes, makers=("mia",), rule=RULE, report=PASSED, policy=None):
    return approve(
        BUNDLE, "production", rule=rule, policy=policy or Policy(), report=report, votes=votes, makers=makers
    )


def test_dev_is_approved_by_policy_and_says_why():
    approval = approve(BUNDLE, "dev", rule=None, policy=Policy(), report=PASSED)

    assert approval.state == "approved"
    assert approval.reason == "dev releases need no approver"
    assert approval.policies == ("release-dev",)


def test_a_policy_that_forbids_wins_over_any_number_of_people():
    denied = Policy(allowed=False, reasons=("residency",))

    approval = production(vote("ana", "growth-leads"), vote("bo", "risk"), policy=denied)

    assert (approval.state, approval.reason) == ("refused", "residency")


def test_production_waits_and_names_who_is_needed():
    approval = production(vote("ana", "growth-leads"))

    assert approval.state == "waiting"
    assert approval.reason == "1 of 2 approvals (growth-leads: ana); still needed from risk"


def test_two_people_for_two_names_approve():
    approval = production(vote("ana", "growth-leads"), vote("bo", "risk"))

    assert approval.state == "approved"
    assert approval.by == ("ana", "bo")


def test_two_people_of_one_group_are_not_two_groups():
    assert production(vote("ana", "growth-leads"), vote("bo", "growth-leads")).state == "waiting"


def test_one_person_in_both_groups_is_one_approval():
    assert production(vote("ana", "growth-leads", "risk")).state == "waiting"


def test_people_are_assigned_so_that_as_many_names_as_possible_are_filled():
    assert production(vote("ana", "growth-leads", "risk"), vote("bo", "growth-leads")).state == "approved"


def test_who_made_the_model_cannot_approve_it():
    approval = production(vote("mia", "risk"), vote("ana", "growth-leads"))

    assert approval.state == "waiting"
    assert "mia made it and cannot approve it" in approval.reason


def test_strangers_do_not_count_for_or_against():
    votes = [vote("eve", "marketing"), vote("rob", state="refused")]

    assert production(*votes).reason.startswith("0 of 2")


def test_a_refusal_ends_it_and_gives_its_reason():
    approval = production(
        vote("ana", "growth-leads"),
        vote("bo", "risk", state="refused", reason="no test on new stores"),
        vote("cy", "risk"),
    )

    assert (approval.state, approval.reason) == ("refused", "refused by bo: no test on new stores")


def test_the_last_word_of_a_person_counts():
    ana, bo = vote("ana", "growth-leads"), vote("bo", "risk")

    assert production(ana, bo, vote("bo", "risk", state="withdrawn")).state == "waiting"
    assert production(ana, vote("bo", "risk", state="refused"), bo).state == "approved"


def test_a_waiver_from_dev_does_not_reach_production():
    waived = GateResult(gate="fairness", name="age=65+", verdict="insufficient_evidence", measured=None, limit="",
                        reason="", waiver="wvr_1")  # fmt: skip
    report = GateReport(results=(waived,), passed=True, summary="")

    assert production(vote("ana", "growth-leads"), vote("bo", "risk"), report=report).state == "refused"
    dev = approve(BUNDLE, "dev", rule=None, policy=Policy(), report=report)
    assert (dev.state, dev.waivers) == ("approved", ("wvr_1",))


def test_failed_gates_refuse_whatever_anybody_says():
    failed = GateReport(results=(), passed=False, summary="refused: 1 failed")

    assert production(vote("ana", "growth-leads"), vote("bo", "risk"), report=failed).state == "refused"


@pytest.mark.parametrize("rule", ["all of [growth-leads, risk]", RULE])
def test_all_of_is_as_many_as_there_are(rule):
    assert production(vote("ana", "growth-leads"), rule=rule).state == "waiting"


_people = st.sampled_from(["ana", "bo", "cy", "mia"])
_groups = st.lists(st.sampled_from(["growth-leads", "risk", "other"]), max_size=2).map(tuple)
_votes = st.lists(st.builds(Vote, by=_people, groups=_groups, state=st.sampled_from(["approved", "withdrawn"])))


@given(_votes)
def test_an_approval_always_rests_on_two_different_people_who_are_not_the_maker(votes):
    approval = production(*votes)

    if approval.state == "approved":
        assert len(set(approval.by)) == 2
        assert "mia" not in approval.by
