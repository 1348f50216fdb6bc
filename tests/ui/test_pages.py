import msgspec
import pytest

from bedplate.app.read_models import Evidence, UseCasePage
from bedplate.plan.portfolio import Portfolio, Share
from bedplate.records import Estimate
from bedplate.ui import charts, pages
from bedplate.ui.render import places, render, told
from tests import sample

VIEW = pages.View(user="administrator", csrf="token", path="/", version="1", may_decide=True)


def test_an_empty_home_says_what_to_do():
    html = pages.use_cases(VIEW, ())

    assert "bedplate init my-use-case" in html


def test_every_section_of_a_use_case_without_evidence_says_what_to_do():
    html = pages.use_case(VIEW, UseCasePage(status=sample.status(), stages=(), evidence=Evidence()), None)

    assert html.count('class="empty"') == len(pages.SECTIONS)


def test_a_full_page_shows_each_figure_with_its_interval():
    html = pages.use_case(VIEW, sample.page(), None)

    for text in ("[15.2, 16.4]", "[8.6, 10.2]", "[14.5, 15.3]", "[0.017, 0.025]"):
        assert text in html, text


def test_replayed_history_is_never_called_value():
    html = pages.use_case(VIEW, sample.page(), None)
    start = html.index('id="watch"')
    section = html[start : html.index("</section>", start)]

    assert "matched purchases" in section
    assert "revenue" not in section
    assert "uplift" not in section


def test_only_who_may_decide_gets_the_buttons():
    import msgspec

    assert "Approve version 3" in pages.use_case(VIEW, sample.page(), None)
    barred = msgspec.structs.replace(VIEW, may_decide=False)
    assert "Approve version 3" not in pages.use_case(barred, sample.page(), None)


def test_a_broken_chain_is_said_out_loud():
    import msgspec

    trace = sample.trace()
    node = msgspec.structs.replace(trace.nodes[3], verified=False)
    broken = msgspec.structs.replace(trace, verified=False, nodes=(*trace.nodes[:3], node, *trace.nodes[4:]))
    html = pages.trace(VIEW, broken)

    assert "a digest does not match" in html
    assert html.count("not verified") == 1


def test_an_undefined_name_in_a_template_is_an_error():
    import jinja2
    import pytest

    with pytest.raises(jinja2.UndefinedError):
        render("use_cases.html", {"use_cases": ()})


def test_places_follow_the_width_of_the_interval():
    def of(half):
        return places(Estimate(value=1, low=1 - half, high=1 + half))

    assert [of(half) for half in (30, 2.0, 1.1, 0.8, 0.05, 0.006, 0.0015, 0.0)] == [0, 0, 1, 1, 2, 3, 4, 3]


def test_a_chart_holds_every_interval_and_zero():
    chart = charts.intervals([("a", sample.est(-0.5, 0.1), "", ""), ("b", sample.est(0.2, 0.4), "", "")], mark=0.0)

    for row in chart.rows:
        assert 0 <= row.low <= row.value <= row.high <= 100
    assert chart.start == -0.6
    assert 0 < chart.mark < 100


def test_series_follow_the_windows():
    points = pages.series(sample.page(), "matched")

    assert points["x"] == ["4 Dec 2017", "11 Dec 2017", "18 Dec 2017", "25 Dec 2017"]
    assert points["series"][0]["values"] == pytest.approx([0.15, 0.158, 0.159, 0.151])
    assert points["series"][0]["low"] == pytest.approx([0.142, 0.15, 0.151, 0.143])
    assert pages.series(sample.page(), "latency")["series"][0]["values"] == pytest.approx([9.1, 9.6, 10.1, 10.6])
    assert pages.series(sample.page(), "nothing") is None


def test_what_a_recipe_says_of_its_test_is_told_in_words():
    said = {
        "kind": "time", "test_from": "2017-12-04T00:00:00+00:00", "learned_from": ["2017-11-06T00:00:00+00:00", "a"],
        "households": 2012, "slices": {"all": 2012}, "checks": {"candidate_recall": 0.356344345, "left_out": []},
    }  # fmt: skip
    assert told(said) == [
        ("kind", "time"), ("test_from", "4 Dec 2017, 00:00 UTC"), ("learned_from", "6 Nov 2017, 00:00 UTC, a"),
        ("households", "2,012"), ("candidate_recall", "0.35634"),
    ]  # fmt: skip


def test_the_portfolio_says_what_comes_first_and_why_the_rest_does_not():
    share = {"alone": 90.0, "option": "aws/eu-north-1/c7a.large (reserved)"}
    found = Portfolio(
        shares=(
            Share(use_case="chat", state="funded", order=1, worth=400.0, cost=80.0, why="each USD brings 5.0", **share),
            Share(use_case="<b>", state="no value", order=0, worth=None, cost=90.0, why="not said", **share),
        ),
        budget=100.0, currency="USD", cost=80.0, worth=400.0, saved=10.0, pool="one machine, shared by chat and <b>",
        gap=0.0,
    )  # fmt: skip
    html = pages.portfolio(VIEW, found, "100 USD")
    for text in (
        "80.00 USD</strong> a month of 100.00 USD",
        "Each USD brings 5.0.",
        "that saves 10.00 USD",
        "not stated",
    ):
        assert text in html
    assert "<b>" not in html
    empty = msgspec.structs.replace(found, shares=(), pool="", saved=0.0)
    assert "No use case has a plan yet" in pages.portfolio(VIEW, empty, "")
