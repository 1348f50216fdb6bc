"""The comparison itself: it must find what is planted, and pass over what no two servers share."""

import time
from typing import Any

import pytest

from tests.mlflow.compare import Reply, Tidy, findings, report
from tests.mlflow.corpus import CONVERSATIONS, IN_PARTS, IN_WORKSPACES
from tests.mlflow.differences import DIFFERENCES, Difference
from tests.mlflow.steps import Step, fill, find, get, post

RUN = {
    "run": {
        "info": {
            "run_id": "a" * 32,
            "experiment_id": "17",
            "run_name": "bold-fox-12",
            "start_time": int(time.time() * 1000),
            "artifact_uri": f"mlflow-artifacts:/17/{'a' * 32}/artifacts",
            "end_time": 5000,
        },
        "data": {"metrics": [{"key": "b", "value": 1.0}, {"key": "a", "value": 2.0}]},
    }
}
SAME = {
    "run": {
        "info": {
            "run_id": "b" * 32,
            "experiment_id": "3",
            "run_name": "calm-owl-7",
            "start_time": int(time.time() * 1000) + 5,
            "artifact_uri": f"mlflow-artifacts:/3/{'b' * 32}/artifacts",
            "end_time": 5000,
        },
        "data": {"metrics": [{"key": "a", "value": 2.0}, {"key": "b", "value": 1.0}]},
    }
}
STEP = get("runs/get", {"run_id": "x"})


def found(theirs: Reply, ours: Reply, *table: Difference, step: Step = STEP) -> list[tuple[str, str | None]]:
    """Field and permission of every finding."""
    return [(finding.field, finding.allowed) for finding in findings([step], [theirs], [ours], table)]


def ok(body: Any) -> Reply:
    """A reply of a server, tidied."""
    return Reply(200, True, Tidy()(body), "application/json")


def error(status: int, code: str, message: str = "m") -> Reply:
    """An error."""
    return Reply(status, True, {"error_code": code, "message": message}, "application/json")


def test_ids_times_and_made_up_names_are_passed_over():
    assert found(ok(RUN), ok(SAME)) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("run", "info", "end_time"), 5001),
        (("run", "info", "end_time"), "5000"),
        (("run", "info", "end_time"), 5000.0),
        (("run", "info", "end_time"), None),
        (("run", "info", "run_name"), "another"),
        (("run", "info", "start_time"), 1000),
        (("run", "info", "experiment_id"), "0"),
        (("run", "info", "artifact_uri"), f"mlflow-artifacts:/3/{'c' * 32}/artifacts"),
        (("run", "data", "metrics"), [{"key": "a", "value": 2.0}]),
        (("run", "data", "metrics"), [{"key": "a", "value": 2.0}, {"key": "b", "value": 1.5}]),
        (("run", "info", "extra"), ""),
    ],
)
def test_every_planted_change_is_found(place, value):
    import copy

    changed = copy.deepcopy(SAME)
    part: Any = changed
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value

    assert [allowed for _, allowed in found(ok(RUN), ok(changed))] == [None]


def test_a_missing_field_is_found():
    changed = {"run": {"info": SAME["run"]["info"]}}

    assert found(ok(RUN), ok(changed)) == [("run.data", None)]


def test_the_order_of_a_list_counts_unless_its_entries_have_keys():
    assert found(ok({"runs": ["a", "b"]}), ok({"runs": ["b", "a"]})) != []
    history = [{"key": "m", "value": 1.0}, {"key": "m", "value": 2.0}]
    assert found(ok({"metrics": history}), ok({"metrics": history[::-1]})) != []


def test_the_same_id_has_the_same_name_in_every_reply():
    tidy = Tidy()

    assert [tidy("a" * 32), tidy("b" * 32), tidy({"x": "a" * 32})] == ["<id 1>", "<id 2>", {"x": "<id 1>"}]
    assert tidy(f"models:/m-{'a' * 32}") == "models:/m-<id 1>"


def test_an_error_is_its_status_and_code_and_not_its_text():
    assert found(error(404, "RESOURCE_DOES_NOT_EXIST", "x"), error(404, "RESOURCE_DOES_NOT_EXIST", "y")) == []
    assert found(error(404, "RESOURCE_DOES_NOT_EXIST"), error(404, "ENDPOINT_NOT_FOUND")) == [("error_code", None)]
    assert found(error(404, "RESOURCE_DOES_NOT_EXIST"), error(400, "RESOURCE_DOES_NOT_EXIST")) == [("status", None)]
    assert found(error(404, "RESOURCE_DOES_NOT_EXIST"), error(404, "RESOURCE_DOES_NOT_EXIST", " ")) == [
        ("message", None)
    ]


def test_a_page_instead_of_an_error_must_be_json_here():
    page = Reply(405, False, "<html>", "text/html")

    assert found(page, error(405, "METHOD_NOT_ALLOWED")) == []
    assert found(page, page) == [("message", None)]


ALLOWED = Difference(
    name="allowed", where="w", theirs="t", ours="o", why="y", fields=(("GET */runs/get", "run.info.end_time"),)
)


def test_a_field_in_the_table_is_allowed_in_its_place_only():
    changed = {"run": {"info": {**SAME["run"]["info"], "end_time": 1}, "data": SAME["run"]["data"]}}
    elsewhere = post("runs/create", {})

    assert found(ok(RUN), ok(changed), ALLOWED) == [("run.info.end_time", "allowed")]
    assert found(ok(RUN), ok(changed), ALLOWED, step=elsewhere) == [("run.info.end_time", None)]


def test_a_step_that_differs_must_differ_as_it_says():
    step = get("runs/get", {}, differs="allowed", ours=(404, "NOT_IMPLEMENTED"))

    assert found(ok(RUN), error(404, "NOT_IMPLEMENTED"), ALLOWED, step=step) == [("differs", "allowed")]
    assert found(ok(RUN), error(400, "NOT_IMPLEMENTED"), ALLOWED, step=step) == [("declared", None)]
    both = error(404, "NOT_IMPLEMENTED")
    assert found(both, both, ALLOWED, step=step) == [("declared", None)]


def test_a_report_names_the_call_and_both_sides():
    text = report(findings([STEP], [error(404, "A")], [error(400, "B")], ()))

    assert "GET /api/2.0/mlflow/runs/get ?run_id=x" in text
    assert "404 A" in text
    assert "400 B" in text


def test_names_are_filled_in_everywhere():
    kept = {"e": "5", "r": "abc", "n": 7}

    assert fill({"a": ["$e", "x $r y", "$n"], "b": {"c": "$$ 5"}}, kept) == {
        "a": ["5", "x abc y", 7],
        "b": {"c": "$$ 5"},
    }
    assert find({"a": [{"b": 1}]}, "a.0.b") == 1
    assert find({"a": 1}, "a.b.c") == "nothing-was-kept"
    with pytest.raises(KeyError):
        fill("$nobody", kept)


def test_the_table_and_the_corpus_name_each_other():
    names = [entry.name for entry in DIFFERENCES]
    spoken = (*CONVERSATIONS.values(), *IN_WORKSPACES.values(), *IN_PARTS.values())
    used = {step.differs for steps in spoken for step in steps if step.differs}

    assert len(names) == len(set(names))
    assert used <= set(names)
    assert {entry.name for entry in DIFFERENCES if not entry.fields} <= used
