"""The section of a use case's page that shows a rollout, and its buttons, in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bedplate.ids import Digest
from bedplate.release.rollout import RolloutPlan, Step
from bedplate.stats.canary import Side, Tally
from bedplate.store.rollouts import RolloutRow
from tests import plane, sample

pytestmark = pytest.mark.slow

PAGE = f"/use-cases/{sample.NAME}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[plane.Plane]:
    with plane.running(tmp_path / "home") as running:
        yield running


def begun(served: plane.Plane, **changes: Any) -> RolloutRow:
    """A rollout in its second step, with what a replica counted in it."""
    steps = (Step("shadow", 1.0, 600.0), Step("split", 0.01, 600.0), Step("split", 0.1, 600.0))
    plan = RolloutPlan(steps=steps, guards=("errors", "latency"), least=20, patience=5.0, slack=0.01)
    spec = {"digest": sample.digest("before")}
    tally = Tally(stable=Side(requests=9000, errors=3, slow=450), candidate=Side(requests=91, errors=0, slow=5))
    seen = {"step": 0, "reason": "", "ended": "2026-11-24T10:00:00.000000Z", "findings": []}
    with served.store.transaction() as tx:
        row = tx.rollouts.add(
            sample.NAME, use_case=sample.NAME, bundle=Digest(sample.digest("candidate")),
            plan=msgspec.to_builtins(plan), spec=spec, before=spec, by="ana.silva",
        )  # fmt: skip
        counted = {**seen, "counts": msgspec.to_builtins(tally)}
        row = tx.rollouts.change(row, step=1, evidence=[counted], **changes)
    folder = served.home.run / "rollouts" / row.id
    folder.mkdir(parents=True)
    (folder / "1-1.json").write_bytes(msgspec.json.encode(tally))
    return row


def field(text: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]+)"', text)
    assert found is not None
    return found[1]


def test_one_button_rolls_back_and_one_freezes(browser: Any, served: plane.Plane) -> None:
    begun(served)
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.link())
    page.wait_for_url(f"{served.address}/")  # which it is led to
    for text, operation in (("Freeze", "freeze_rollout"), ("Roll back now", "roll_back")):
        page.goto(f"{served.address}{PAGE}#rollout")
        section = page.locator("section#rollout")
        assert "taking its steps" in section.inner_text()
        assert "9,000" in section.inner_text()
        section.get_by_role("button", name=text).click()
        page.wait_for_url(f"{served.address}{PAGE}#rollout")
        assert served.changes[-1] == (operation, {"endpoint": sample.NAME})
    context.close()


@pytest.mark.parametrize("width", [375, 1440])
def test_it_fits_narrow_and_wide(browser: Any, served: plane.Plane, width: int) -> None:
    begun(served)
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(served.link())
    page.wait_for_url(f"{served.address}/")  # which it is led to
    page.goto(f"{served.address}{PAGE}#rollout")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("section#rollout .button.danger").bounding_box()
    assert box["height"] >= 32
    context.close()


def test_a_form_without_its_token_or_about_another_rollout_changes_nothing(served: plane.Plane) -> None:
    begun(served)
    with httpx.Client(base_url=served.address, follow_redirects=True) as http:
        http.get(served.link())
        text = http.get(PAGE).text
        good = {"csrf": field(text, "csrf"), "rollout": field(text, "rollout"), "action": "freeze"}
        for changed, status in (({"csrf": "x"}, 403), ({"rollout": "roll_other"}, 409), ({"action": "delete"}, 400)):
            assert http.post(f"{PAGE}/rollout", data=good | changed).status_code == status
        assert served.changes == []
        http.post(f"{PAGE}/rollout", data=good)
    assert served.changes == [("freeze_rollout", {"endpoint": sample.NAME})]


def test_an_ended_rollout_has_no_button_and_says_why(served: plane.Plane) -> None:
    begun(served, state="rolled_back", reason="failed: 5 % of the candidate's answers")
    with httpx.Client(base_url=served.address, follow_redirects=True) as http:
        http.get(served.link())
        text = http.get(PAGE).text
    assert "rolled back" in text
    assert "5 % of the candidate" in text
    assert "Roll back now" not in text
