"""The pages in a real browser, served by the real control plane, under the content policy that users get."""

import pytest
from playwright.sync_api import expect

from tests import plane, sample
from tests.ui import hostile
from tests.ui.fitting import all_fit

PAGES = ("/", "/portfolio", f"/use-cases/{sample.NAME}", f"/trace/{sample.PREDICTION}", "/audit")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with plane.running(tmp_path_factory.mktemp("ui") / "home") as running:
        yield running


@pytest.fixture
def page(browser, served):
    context = browser.new_context()
    made = context.new_page()
    made.goto(served.link())
    made.wait_for_url(f"{served.address}/")
    yield made
    context.close()


def test_a_link_lets_one_browser_in_once(browser, served):
    link = served.link()
    first, second = browser.new_context(), browser.new_context()
    one, two = first.new_page(), second.new_page()
    one.goto(link)
    one.wait_for_url(f"{served.address}/")
    two.goto(link)

    assert one.locator("h1").inner_text() == "Use cases"
    assert two.locator("h1").inner_text() == "Sign in"
    cookie = first.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    first.close()
    second.close()


def test_without_a_session_every_page_asks_to_sign_in(browser, served):
    context = browser.new_context()
    made = context.new_page()
    for path in PAGES:
        answer = made.goto(served.address + path)
        assert answer.status == 401
        assert "bedplate login" in made.content()
    context.close()


def test_pages_fit_and_are_quiet(page, served):
    all_fit(page, served.address, PAGES, lambda page: page.wait_for_timeout(150))


def test_the_theme_can_be_chosen_and_stays(page, served):
    page.emulate_media(color_scheme="light")
    page.goto(served.address)
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("[data-theme-toggle]").click()
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()

    assert before != after
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_charts_are_drawn(page, served):
    page.goto(f"{served.address}/use-cases/{sample.NAME}")
    expect(page.locator(".chart canvas")).to_have_count(2)  # each is drawn when its own data has come


def test_approving_goes_to_the_owner_with_the_reason(page, served):
    page.goto(f"{served.address}/use-cases/{sample.NAME}")
    page.locator("textarea[name=reason]").fill("The gates hold on 2,012 households.")
    page.get_by_role("button", name="Approve version 3").click()
    page.wait_for_load_state()

    assert served.changes[-1] == (
        "approve",
        {
            "use_case": sample.NAME,
            "environment": "production",
            "reason": "The gates hold on 2,012 households.",
        },
    )


def test_a_form_with_a_foreign_token_changes_nothing(page, served):
    before = len(served.changes)
    page.goto(f"{served.address}/use-cases/{sample.NAME}")
    page.locator("form.decide input[name=csrf]").evaluate("element => element.value = 'x'")
    page.locator("textarea[name=reason]").fill("x")
    page.get_by_role("button", name="Refuse").click()
    page.wait_for_load_state()

    assert "does not belong to this session" in page.content()
    assert len(served.changes) == before


def test_a_decision_about_a_version_that_is_gone_changes_nothing(page, served):
    before = len(served.changes)
    page.goto(f"{served.address}/use-cases/{sample.NAME}")
    page.locator("form.decide input[name=bundle]").evaluate("element => element.value = 'sha256:old'")
    page.locator("textarea[name=reason]").fill("x")
    page.get_by_role("button", name="Approve version 3").click()
    page.wait_for_load_state()

    assert "does not wait any more" in page.content()
    assert len(served.changes) == before


def test_the_search_leads_to_the_trace_and_wrong_ids_say_so(page, served):
    page.goto(served.address)
    page.get_by_placeholder("Trace a prediction id").fill(sample.PREDICTION)
    page.get_by_role("button", name="Trace").click()
    page.wait_for_url(f"**/trace/{sample.PREDICTION}")
    assert page.locator(".chain li").count() == len(sample.trace().nodes)

    page.get_by_placeholder("Trace a prediction id").fill("../../etc/passwd")
    page.get_by_role("button", name="Trace").click()
    page.wait_for_load_state()
    assert "this is no prediction id" in page.content()


def test_signing_out_ends_the_session(page, served):
    page.goto(served.address)
    cookie = page.context.cookies()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_load_state()
    page.context.add_cookies(cookie)

    assert page.goto(served.address).status == 401


def test_stored_text_is_shown_and_never_run(browser, tmp_path):
    text = hostile.ALL
    with plane.running(tmp_path / "home", statement=text, reason=text) as running:
        context = browser.new_context()
        made = context.new_page()
        dialogs: list[str] = []
        made.on("dialog", lambda dialog: dialogs.append(dialog.message))
        made.goto(running.link())
        made.wait_for_url(f"{running.address}/")
        for path in ("/", f"/use-cases/{sample.NAME}", "/audit"):
            assert made.goto(running.address + path).status == 200
            made.wait_for_timeout(200)
            assert "owned" not in made.title()
            assert made.locator("iframe").count() == 0
        made.goto(f"{running.address}/use-cases/{sample.NAME}")
        assert text in made.locator("p.lead").text_content()
        assert text in made.locator(".approvals").text_content()
        assert dialogs == []
        context.close()


def test_the_line_of_stages_follows_a_run(page, served):
    with served.store.transaction() as tx:
        execution = tx.executions.start(sample.NAME, "administrator")
        tx.executions.enter(execution.id, "train", "features changed")
    page.goto(f"{served.address}/use-cases/{sample.NAME}")
    assert page.locator(".spine li.running .stage-name").inner_text() == "Trained"

    with served.store.transaction() as tx:
        tx.executions.end(execution.id, "succeeded")
    page.locator(".spine li.running").wait_for(state="detached")

    assert page.locator(".spine li").count() == 13
