"""What burns the error budget of an endpoint goes back by itself, with its evidence, unless that must not come back."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bedplate.app import burning, endpoints, rollout_steps, rollouts
from bedplate.app.burning import Burns
from bedplate.ids import digest_bytes
from bedplate.observe.health import MINUTE, Rule
from bedplate.release.rollout import Objectives, Step, plan_of
from bedplate.serve.fleet import Took
from bedplate.store.rollouts import RolloutRow
from bedplate.usecase import load
from bedplate.usecase.starter import starter
from tests.app.rolling import Load, Served, not_a_number_above
from tests.serve.support import eventually, linear

KEPT = Objectives(answered=0.99)
ROW = RolloutRow(
    id="roll_2", endpoint="linear", use_case="linear", bundle=digest_bytes(b"new"), state="completed", step=1,
    stepped="", plan={}, spec={}, before={"digest": digest_bytes(b"old")}, evidence=[], outcomes={}, reason="", by="",
    created="2026-01-01T00:00:00.000000Z", updated="2026-01-01T00:00:00.000000Z",
)  # fmt: skip


def traffic(*parts: tuple[float, float, float]) -> Burns:
    """What an endpoint did: for so many seconds, this share of 100 requests a second failed, and this came late."""
    burns, took, now = Burns(), Took(), 0.0
    burns.take(now, {"linear": took})
    for seconds, failed, late in parts:
        for _ in range(int(seconds / burning.STRETCH)):
            now, count = now + burning.STRETCH, int(100 * burning.STRETCH)
            faults = int(count * failed)
            took += Took(burning.STRETCH, count - faults, int((count - faults) * late), faults)
            assert burns.due(now)
            burns.take(now, {"linear": took})
    return burns


def test_what_burns_since_a_release_came_is_an_alert_with_its_counts() -> None:
    alert = traffic((1800, 0.0, 0.0), (6 * MINUTE, 0.5, 0.0)).of(ROW, KEPT, came=1800.0)
    assert alert is not None
    assert (alert.objective, alert.limit, alert.before) == ("answered", 14.4, 0.0)
    assert alert.long == pytest.approx(50.0)
    assert alert.bad * 2 == alert.requests
    assert "got no answer" in alert.reason
    late = traffic((1800, 0.0, 0.0), (6 * MINUTE, 0.0, 0.4)).of(ROW, KEPT, came=1800.0)
    assert late is not None
    assert (late.objective, "too late" in late.reason) == ("in_time", True)


@pytest.mark.parametrize(
    "parts",
    [
        [(1800.0, 0.0, 0.0), (3600.0, 0.005, 0.005)],  # within the budget
        [(1800.0, 0.5, 0.0), (600.0, 0.5, 0.0)],  # it burnt before as well: the release is not at fault
        [(1800.0, 0.0, 0.0), (120.0, 1.0, 0.0), (600.0, 0.0, 0.0)],  # a spike that is over
    ],
)
def test_what_is_no_fault_of_the_release_is_none(parts: list[tuple[float, float, float]]) -> None:
    assert traffic(*parts).of(ROW, KEPT, came=1800.0) is None


def test_what_was_rolled_back_or_is_frozen_does_not_come_back_by_itself() -> None:
    def older(state: str, bundle: bytes = b"old") -> RolloutRow:
        return msgspec.structs.replace(ROW, id="roll_1", bundle=digest_bytes(bundle), state=state)

    assert "rolled back itself, by rollout roll_1" in burning.refusal([ROW, older("rolled_back")], ROW)
    assert "frozen" in burning.refusal([ROW, older("frozen")], ROW)
    assert burning.refusal([ROW, older("completed"), older("rolled_back")], ROW) == ""
    assert burning.refusal([ROW, older("rolled_back", b"another")], ROW) == ""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("burning") / "home") as made:
        made.watcher.close()
        rules = (Rule(severity="page", burn=3.0, long=2.0, short=0.5, sustained=True),)
        made.watcher = rollout_steps.Watcher(made.system, Burns(rules, stretch=0.25))
        yield made


def test_a_release_that_burns_the_budget_after_its_rollout_goes_back(served: Served) -> None:
    before, bad = served.served(), served.release(not_a_number_above(0.8))
    with Load(served):
        served.begin(bad, Step("split", 0.5, 0.5), guards=(), least=1, objectives=KEPT)
        eventually(lambda: served.state().state == "completed")
        eventually(lambda: served.state().state == "rolled_back")
    assert served.served() == before
    assert served.state().reason.startswith("alert slo_burn: ")
    assert served.actions()[-1] == ("roll_back", "rollout")
    with served.system.store.read() as tx:
        newest = tx.ledger.recent(1, resource="use_case/linear")[0]
        kept = tx.ledger.payload(newest.position)
        fact = tx.facts.latest("linear", "alert")
    assert fact is not None
    assert kept is not None
    assert fact.body["bad"] / fact.body["requests"] >= 0.03
    assert msgspec.json.decode(kept[1])["alert"] == fact.digest


@pytest.mark.long
def test_by_itself_nothing_goes_back_to_what_was_rolled_back(served: Served) -> None:
    good = served.release(linear(2.0))
    with Load(served):
        served.begin(good, Step("split", 0.5, 0.2), guards=(), least=1)
        eventually(lambda: served.state().state == "completed")
        rollouts.roll_back(served.system, served.who, "linear", "somebody had to")
        with served.system.store.transaction() as tx:  # and serves it again
            tx.endpoints.put("linear", use_case="linear", bundle=good.digest, spec=endpoints.as_row(good))
        endpoints.start(served.system, good)
        served.begin(
            served.release(not_a_number_above(0.7)), Step("split", 0.5, 0.5), guards=(), least=1, objectives=KEPT
        )
        eventually(lambda: served.actions()[-1] == ("alert", "rollout"))
    assert served.state().state == "completed"
    assert rollouts.roll_back(served.system, served.who, "linear").state == "rolled_back"
    assert served.served() == good.digest


def test_the_file_says_whether_a_burn_rolls_back(tmp_path: Path) -> None:
    starter(tmp_path / "uc", "linear")
    file = tmp_path / "uc" / "usecase.yaml"
    text = file.read_text("utf-8")
    assert plan_of(load(file).use_case).objectives is None
    file.write_text(text + "\nalerts: [{when: slo_burn, then: roll_back}]\n", "utf-8")
    loaded = load(file).use_case
    assert plan_of(loaded).objectives == Objectives(answered=loaded.requirements.availability)
