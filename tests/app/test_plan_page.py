"""The plan as a page: it says what the plan says, for every kind of plan, and runs no script."""

import re
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from bedplate.app import plan_page, planning
from bedplate.cli import root
from bedplate.plan import explain
from bedplate.plan.types import Plan
from bedplate.settings import Home
from bedplate.usecase import load
from tests.plan.conftest import PROBE, SETTINGS

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module", params=["llm-chat", "chest-xray"])
def plan(request: pytest.FixtureRequest) -> Plan:
    return planning.derive(load(EXAMPLES / request.param), PROBE, SETTINGS)[1]


def test_it_says_what_the_plan_says(plan: Plan) -> None:
    page = plan_page.page(plan)
    assert plan.chosen is not None
    assert all(escape(text) in page for text in explain.words(plan))
    assert plan.chosen.instance in page
    assert all(flip.to in page for flip in plan.flips)
    assert "probability" in page
    assert plan.chosen.cost is not None
    allowed = plan.requirements.allowed(plan.chosen.cost.period)  # a run is held to the budget of a run
    assert allowed is not None
    assert f"<td>at most {allowed.amount:,.0f} {allowed.currency}</td>" in page
    assert "<script" not in page
    assert '<p class="verdict met">' in page
    for figure, option in ((f, o) for o in plan.runners_up for f in o.predicted[:1]):
        assert f"{option.lost}; " in page, "a runner-up says what one would get for it"
        assert explain.span(figure.estimate.value) in page
    doubtful = tuple(msgspec.structs.replace(f, chance=0.6 if f.limit else None) for f in plan.chosen.predicted)
    unsure = msgspec.structs.replace(plan, chosen=msgspec.structs.replace(plan.chosen, predicted=doubtful))
    assert '<p class="verdict open">' in plan_page.page(unsure), "what may well break its promise is no good news"


def test_pictures_are_drawn_inside_their_frames(plan: Plan) -> None:
    page = plan_page.page(plan)
    pictures = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert len(pictures) >= 2
    for picture in pictures:
        drawn = ElementTree.fromstring(picture)
        _, _, width, height = map(float, drawn.attrib["viewBox"].split())
        for dot in drawn.iter("circle"):
            assert 0 <= float(dot.attrib["cx"]) <= width
            assert 0 <= float(dot.attrib["cy"]) <= height


def test_the_line_goes_through_options_that_nothing_beats(plan: Plan) -> None:
    picture = re.search(r'<svg [^>]*aria-label="Cost against [^>]*>.*?</svg>', plan_page.page(plan), re.DOTALL)
    assert picture is not None
    drawn = ElementTree.fromstring(picture[0])
    line = next(drawn.iter("polyline")).attrib["points"].split()
    points = [tuple(map(float, point.split(","))) for point in line]
    dots = [
        (float(d.attrib["cx"]), float(d.attrib["cy"])) for d in drawn.iter("circle") if d.attrib["class"] != "dot faint"
    ]
    for x, y in points:
        assert not any(other_x < x and other_y > y for other_x, other_y in dots)  # y grows downwards


def test_a_plan_without_a_choice_says_why(plan: Plan) -> None:
    none = msgspec.structs.replace(plan, chosen=None, runners_up=(), binding=None, breach="block", reason="too <dear>")
    page = plan_page.page(none)
    assert "Nothing was chosen: too &lt;dear&gt;." in page


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.html"
    arguments = ["plan", str(EXAMPLES / "llm-chat"), "--page", str(out), "--home", str(tmp_path / "home")]
    assert root.execute(arguments) == 0
    assert "Plan of llm-chat" in capsys.readouterr().out
    assert "<h1>Plan of llm-chat</h1>" in out.read_text()


def test_a_plan_and_its_page_rest_on_one_measurement(tmp_path: Path) -> None:
    """Where the home keeps none: two measurements of one machine differ, and with them what is chosen."""
    home = Home(tmp_path / "home")
    assert planning.probe(home, keep=False) == planning.probe(home, keep=False)
    assert not home.probe.exists(), "nothing is kept by who only asks"
