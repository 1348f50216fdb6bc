"""The pages of tracking and registry in a real browser, under the content policy that users get."""

import pytest
from playwright.sync_api import expect

from tests import plane
from tests.ui import hostile, tracked
from tests.ui.fitting import all_fit
from tests.ui.tracked import MINUTE, T0, Tracked


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with plane.running(tmp_path_factory.mktemp("tracking") / "home") as running:
        running.known = tracked.fill(running)
        yield running


@pytest.fixture
def page(browser, served):
    context = browser.new_context()
    made = context.new_page()
    made.goto(served.link())
    made.wait_for_url(f"{served.address}/")
    yield made
    context.close()


@pytest.fixture
def runs(page, served):
    """The table of runs, open."""
    page.goto(f"{served.address}/experiments/{served.known['experiment']}")
    return page


def everywhere(served) -> list[str]:
    """An address of every kind of page."""
    known = served.known
    compared = "&".join(f"run={run}" for run in known["runs"][:4])
    rich = f"/runs/{known['rich']}"
    return [
        "/experiments", f"/experiments/{known['experiment']}", "/experiments/0", rich, f"/runs/{known['best']}",
        f"/runs/{known['going']}", f"/runs/compare?{compared}", f"{rich}/artifacts", f"{rich}/artifacts/report.json",
        f"{rich}/artifacts/predictions.csv", f"{rich}/artifacts/plots/confusion.png", f"{rich}/artifacts/weights.bin",
        f"/logged-models/{known['forest']}", "/models", "/models/churn-classifier/versions/2",
        "/models/churn-classifier?at=2030-01-01T00:00&under=alias:candidate",
    ]  # fmt: skip


def test_pages_fit_and_are_quiet(page, served):
    def drawn(page):
        for figure in page.locator("[data-curves]").all():
            figure.scroll_into_view_if_needed()
            expect(figure.locator("canvas")).to_have_count(1)

    all_fit(page, served.address, everywhere(served), drawn)


def test_addresses_that_clients_print_lead_to_the_same_things_here(page, served):
    known = served.known
    run = f"/runs/{known['best']}"
    experiment = f"/experiments/{known['experiment']}"
    for printed, here in (
        (f"#{experiment}", experiment),
        (f"#{experiment}{run}", run),
        (f"#{experiment}{run}/artifacts", run),
        (f"#{experiment}{run}?workspace=default", f"{run}?workspace=default"),
        (f"#{experiment}/models/{known['forest']}", f"/logged-models/{known['forest']}"),
        ("#/models/churn-classifier/versions/2", "/models/churn-classifier/versions/2"),
        ("#/models/churn-classifier", "/models/churn-classifier"),
    ):
        page.goto(f"{served.address}/")
        page.goto(f"{served.address}/{printed}")
        page.wait_for_url(served.address + here)
        expect(page.locator("main h1")).to_have_count(1)
    for stays in ("#/experiments/x", "#//elsewhere.example/", "#/prompts", "#main"):
        page.goto(f"{served.address}/models")
        page.goto(f"{served.address}/{stays}")
        expect(page.locator("main h1")).to_have_text("Use cases")


def test_pages_can_be_read_without_a_script(browser, served):
    context = browser.new_context(java_script_enabled=False)
    made = context.new_page()
    made.goto(served.link())
    made.wait_for_url(f"{served.address}/")  # which it is led to
    made.goto(f"{served.address}/experiments")
    made.get_by_role("link", name="churn").click()
    expect(made.locator("tbody tr")).to_have_count(50)
    made.get_by_role("link", name="Next page").click()
    expect(made.locator("tbody tr")).to_have_count(16)
    made.locator("tbody input[type=checkbox]").nth(0).check()
    made.locator("tbody input[type=checkbox]").nth(1).check()
    made.get_by_role("button", name="Compare ticked runs").click()
    expect(made.locator("h1")).to_have_text("2 runs side by side")
    made.goto(f"{served.address}/runs/{served.known['rich']}")
    expect(made.get_by_role("region", name="Latest values of metrics")).to_contain_text("grad_norm")
    expect(made.get_by_text("Curves are drawn by a script")).to_be_visible()
    context.close()


# -------------------------------------------------------------------------------------------------------------- table


def test_a_filter_is_written_mended_and_shared(runs, served, browser):
    box = runs.get_by_label("Filter runs")
    box.fill("metrics.auc >")
    box.press("Enter")
    expect(runs.get_by_role("alert")).to_contain_text("is compared with a number")
    expect(runs.get_by_role("alert").locator("mark")).to_be_visible()
    expect(box).to_have_value("metrics.auc >")

    box.fill("params.optimizer = 'sgd'")
    box.press("Enter")
    expect(runs.get_by_role("alert")).to_have_count(0)
    shown = runs.locator("tbody th.name").all_inner_texts()
    assert 10 < len(shown) < 50
    shared = runs.url
    runs.goto(f"{served.address}/experiments")
    runs.goto(shared)
    assert runs.locator("tbody th.name").all_inner_texts() == shown


def test_a_click_on_a_head_orders_and_the_next_one_turns_it_round(runs):
    head = runs.get_by_role("columnheader", name="auc", exact=True)
    place = head.evaluate("element => element.cellIndex") + 1

    def values() -> list[float]:
        return [float(text) for text in runs.locator(f"tbody tr > :nth-child({place})").all_inner_texts() if text]

    head.get_by_role("link").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    first = values()
    head.get_by_role("link").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    last = values()

    assert len(first) == len(last) == 50
    assert first == sorted(first, reverse=True)
    assert last == sorted(last)


def test_columns_are_chosen_with_the_keyboard_alone(runs):
    summary = runs.locator(".chooser summary")
    summary.focus()
    runs.keyboard.press("Enter")
    search = runs.get_by_label("Find a column")
    search.fill("grad")
    choice = runs.locator(".chooser .choice:visible")
    expect(choice).to_have_count(1)
    choice.locator("input").focus()
    runs.keyboard.press("Space")
    runs.get_by_role("button", name="Show these").focus()
    runs.keyboard.press("Enter")

    expect(runs.get_by_role("columnheader", name="grad_norm")).to_be_visible()
    expect(runs.get_by_role("columnheader", name="Status")).to_be_visible()


def test_the_button_counts_what_is_ticked(runs):
    button = runs.locator("[data-count]")
    expect(button).to_be_disabled()
    for number in (2, 3, 4):
        runs.locator("tbody input[type=checkbox]").nth(number).check()
    expect(button).to_have_text("Compare 3 runs")
    button.click()

    expect(runs.locator("h1")).to_have_text("3 runs side by side")
    expect(runs.locator(".curve").first.locator(".legend li")).to_have_count(3)


def test_rows_follow_their_runs_until_the_last_one_ends(page, served):
    home = Tracked(served)
    experiment = home.experiment("followed")
    home.run(experiment, "done", metrics={"loss": [0.9]})
    run = home.run(experiment, "going", started=T0 + MINUTE, minutes=None, metrics={"loss": [0.5]})
    page.goto(f"{served.address}/experiments/{experiment}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/rows?" in request.url else None)
    row, tick = page.locator(f"#run-{run}"), page.locator(f"#run-{run} input")
    tick.check()
    tick.focus()
    expect(row).to_contain_text("0.50000")

    home.log(run, T0 + 2 * MINUTE, loss=[0.5, 0.125])
    expect(row).to_contain_text("0.12500")
    expect(tick).to_be_checked()
    expect(tick).to_be_focused()
    home.end(run, T0 + 3 * MINUTE)
    expect(row).to_contain_text("finished")
    expect(page.locator("#live[data-hx-get]")).to_have_count(0)

    assert all(address.count("run=") == 1 for address in asked), "only what runs is asked for"
    before = len(asked)
    page.wait_for_timeout(2500)  # longer than one turn: nothing is asked any more
    assert len(asked) == before


def test_only_rows_on_the_screen_are_shown_anew(page, served):
    home = Tracked(served)
    experiment = home.experiment("taller-than-the-screen")
    top = home.run(experiment, "top", started=T0 + 90 * MINUTE, minutes=None, metrics={"loss": [0.5]})
    for number in range(40):
        home.run(experiment, f"done-{number}", started=T0 + (10 + number) * MINUTE, metrics={"loss": [0.9]})
    bottom = home.run(experiment, "bottom", minutes=None, metrics={"loss": [0.5]})
    page.set_viewport_size({"width": 1000, "height": 700})
    with page.expect_request(lambda request: "/rows?" in request.url) as asked:
        page.goto(f"{served.address}/experiments/{experiment}")
    assert f"run={top}" in asked.value.url
    assert f"other={bottom}" in asked.value.url

    home.log(bottom, T0 + 100 * MINUTE, loss=[0.5, 0.25])
    page.locator(f"#run-{bottom}").scroll_into_view_if_needed()
    expect(page.locator(f"#run-{bottom}")).to_contain_text("0.25000")


# ---------------------------------------------------------------------------------------------------------------- run


def test_curves_are_drawn_with_their_settings_in_the_address(page, served):
    page.goto(f"{served.address}/runs/{served.known['rich']}")
    figure = page.locator(".curve", has_text="train/loss").first
    expect(figure.locator("canvas")).to_have_count(1)
    expect(figure.locator(".legend li")).to_have_count(2)
    page.get_by_label("Scale").select_option("log")
    page.get_by_label("Along").select_option("time")
    page.get_by_label("Smoothing").select_option("0.6")

    assert {"scale=log", "axis=time", "smooth=0.6"} <= set(page.url.partition("?")[2].split("&"))
    page.reload()
    expect(page.get_by_label("Scale")).to_have_value("log")
    expect(page.locator(".curve", has_text="train/loss").first.locator("canvas")).to_have_count(1)
    page.get_by_label("One chart for each").select_option("name")
    expect(page.locator(".curve", has_text="val/loss").first.locator(".legend li")).to_have_count(2)


def test_curves_and_status_follow_a_run(page, served):
    home = Tracked(served)
    run = home.run(home.experiment("growing"), "grows", minutes=None, metrics={"loss": [0.5, 0.4]})
    page.goto(f"{served.address}/runs/{run}")
    value = page.locator(".curve output").first
    expect(value).to_have_text("0.40000")
    home.log(run, T0 + 10 * MINUTE, loss=[0.5, 0.4, 0.25])
    expect(value).to_have_text("0.25000")
    expect(page.locator("#latest")).to_contain_text("0.25000")
    home.end(run, T0 + 20 * MINUTE)

    expect(page.locator("h1 + .pill")).to_have_text("finished")
    expect(page.locator("[data-live]")).to_have_count(0)
    expect(page.locator("#now[data-hx-get]")).to_have_count(0)


def test_artifacts_are_previewed_and_downloaded(page, served):
    page.goto(f"{served.address}/runs/{served.known['rich']}")
    page.locator("#artifacts").get_by_role("link", name="plots/").click()
    page.get_by_role("link", name="confusion.png").click()
    picture = page.locator("img.picture")
    expect(picture).to_be_visible()
    assert picture.evaluate("element => element.decode().then(() => element.naturalWidth)") == 320
    page.get_by_role("link", name="..").click()
    page.get_by_role("link", name="notes.md").click()
    expect(page.locator("pre.file-text")).to_contain_text("ünïcode")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "notes.md"


# ----------------------------------------------------------------------------------------------------------- registry


def test_an_alias_is_asked_for_and_refused_with_the_reason(page, served):
    page.goto(f"{served.address}/models/churn-classifier/versions/3")
    page.get_by_label("Point an alias here").fill("champion")
    page.locator("form", has=page.get_by_label("Point an alias here")).get_by_role("button", name="Ask").click()

    refusal = page.get_by_role("alert")
    expect(refusal).to_contain_text("Not done.")
    expect(refusal).to_contain_text("holds a pickle")
    with served.store.read() as tx:
        assert "champion" not in tx.models.aliases("default", ["churn-classifier"])["churn-classifier"]


def test_a_label_is_set_and_stands_in_the_history(page, served):
    page.goto(f"{served.address}/models/churn-classifier/versions/1")
    page.get_by_label("Point an alias here").fill("baseline")
    page.locator("form", has=page.get_by_label("Point an alias here")).get_by_role("button", name="Ask").click()

    expect(page.locator(".title .chip")).to_have_text("@baseline")
    expect(page.locator(".timeline li").first).to_contain_text("Pointed @baseline to version 1")


def test_the_box_tells_which_version_was_live(page, served):
    page.goto(f"{served.address}/models/churn-classifier")
    page.get_by_label("At (UTC)").fill("2031-01-01T12:00:00")
    page.locator("select[name=under]").select_option("alias:candidate")
    page.get_by_role("button", name="Tell").click()

    expect(page.get_by_role("status")).to_contain_text("version 2 was live under the alias @candidate")


def test_what_clients_wrote_is_shown_and_never_run(page, served):
    home = Tracked(served)
    evil = hostile.ALL.replace("\u202e", "")
    experiment = home.experiment("hostile " + evil[:400], **{"mlflow.note.content": evil})
    runs = [
        home.run(
            experiment, evil, minutes=None if number else 2, params={"p": f"{number} {evil}"},
            metrics={"m": [1.0, 0.5]}, tags={"t": evil, "mlflow.note.content": evil},
        )
        for number in range(2)
    ]  # fmt: skip
    home.put(runs[0], "<img src=x onerror=\"document.title='owned'\">.csv", evil.encode())
    home.put(runs[0], "page.html", evil.encode())
    home.model("hostile " + evil.replace("/", "").replace(":", "")[:200], description=evil)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    for path in (
        "/experiments", f"/experiments/{experiment}?column=params.p&column=tags.t", f"/runs/{runs[0]}",
        f"/runs/compare?run={runs[0]}&run={runs[1]}", f"/runs/{runs[0]}/artifacts", "/models",
        f"/runs/{runs[0]}/artifacts/page.html", f"/runs/{runs[1]}",
    ):  # fmt: skip
        assert page.goto(served.address + path).status == 200
        for figure in page.locator("[data-curves]").all():
            figure.scroll_into_view_if_needed()
            expect(figure.locator(".legend li").first).to_be_visible()
        if page.locator("#live[data-hx-get], #now[data-hx-get]").count():
            for row in page.locator("tr[data-running]").all():
                row.scroll_into_view_if_needed()
            with page.expect_response(lambda answer: "/now" in answer.url or "/rows" in answer.url):
                pass
        assert page.title().endswith("Bedplate"), "no script has named the page"
        assert page.locator("iframe").count() == 0
        assert page.locator("main h1").count() == 1
    assert dialogs == []
