"""The life of a model version is one table."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import ConflictError
from bedplate.release.states import FIRST, MEANING, TRANSITIONS, Event, State, follow, mermaid, replay

PAGE = Path(__file__).parents[2] / "docs" / "explain" / "release.md"


def test_the_usual_lives():
    assert replay(["gates_passed", "signed", "policy_approved", "served"]) == "live"
    assert replay(["gates_passed", "signed", "approval_asked", "quorum_reached", "served", "superseded"]) == "retired"
    assert replay(["gates_failed"]) == "refused"


def test_nothing_is_served_without_an_approval():
    with pytest.raises(ConflictError, match="a version that is bundled cannot be served") as caught:
        replay(["gates_passed", "signed", "served"])

    assert "approval asked" not in str(caught.value.message)
    assert "policy_approved" in str(caught.value.fix)


@given(st.lists(st.sampled_from(get_args(Event)), max_size=12))
def test_whatever_happens_live_was_approved_and_refused_stays_refused(events):
    state, seen = FIRST, [FIRST]
    for event in events:
        try:
            state = follow(state, event)
        except ConflictError:
            continue
        seen.append(state)

    if "live" in seen:
        assert seen.index("approved") < seen.index("live")
        assert seen.index("bundled") < seen.index("approved")
    if "refused" in seen:
        assert seen[-1] == "refused"


def test_every_state_has_a_meaning_and_can_be_reached():
    assert set(MEANING) == set(get_args(State))
    assert set(TRANSITIONS.values()) | {FIRST} == set(get_args(State))
    assert {event for _, event in TRANSITIONS} == set(get_args(Event))


def test_the_page_shows_the_diagram_of_the_table():
    assert f"```mermaid\n{mermaid()}\n```" in PAGE.read_text()
