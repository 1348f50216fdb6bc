"""Pages of experiments, runs and artifacts, as they are served: what they say, and that nothing on them runs."""

import html
import json
import math
import re
from urllib.parse import quote

import httpx
import pytest

from tests import plane
from tests.ui import hostile, tracked
from tests.ui.tracked import MINUTE, T0, Tracked


class Home:
    """A served home, what is in it, and a client of its administrator."""

    def __init__(self, running: plane.Plane) -> None:
        self.plane = running
        self.known = tracked.fill(running)
        self.experiment: int = self.known["experiment"]
        self.rich: str = self.known["rich"]
        headers = {"authorization": f"Bearer {running.key}", "accept": "text/html"}
        self.client = httpx.Client(base_url=running.address, headers=headers)

    def get(self, path: str, status: int = 200, **query: object) -> str:
        """The text of a page."""
        answer = self.client.get(path, params=query or None)  # type: ignore[arg-type]
        assert answer.status_code == status, answer.text[:2000]
        return answer.text

    def runs(self, **query: object) -> str:
        """The table of runs."""
        return self.get(f"/experiments/{self.experiment}", **query)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with plane.running(tmp_path_factory.mktemp("tracking") / "home") as running:
        made = Home(running)
        yield made
        made.client.close()


def names(page: str) -> list[str]:
    """The names of the runs of a table, in order."""
    return re.findall(r'<th scope="row" class="name"><a [^>]*>([^<]*)</a>', page)


def titles(page: str) -> list[str]:
    """The names of what a list shows, in order."""
    return re.findall(r'<th scope="row"><a class="clip" [^>]*>([^<]*)</a>', page)


def heads(page: str) -> list[str]:
    """The titles of the columns of a table of runs."""
    start = page.index("<thead>")
    return [html.unescape(text) for text in re.findall(r'title="([^"]*)"', page[start : page.index("</thead>", start)])]


def text(page: str) -> str:
    """What a page says, without its markup."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


# -------------------------------------------------------------------------------------------------------- experiments


def test_experiments_come_with_their_runs_and_tags(home):
    page = home.get("/experiments")
    said = text(page)

    assert "churn" in said
    assert "Who will leave within 30 days." in said
    assert "66" in said
    assert "1 running" in said
    assert "team: growth" in said


def test_experiments_are_filtered_and_sorted(home):
    assert "churn" in text(home.get("/experiments", filter="name LIKE 'chu%'"))
    assert "Nothing matches" in text(home.get("/experiments", filter="tags.team = 'nobody'"))
    ascending, descending = (titles(home.get("/experiments", order=f"name {way}")) for way in ("ASC", "DESC"))
    assert ascending == sorted(ascending)
    assert descending == ascending[::-1]


def test_words_alone_are_turned_into_a_comparison(home):
    page = home.get("/experiments", 400, filter="churn")

    assert "name ILIKE '%churn%'" in html.unescape(page)
    link = html.unescape(re.search(r'Did you mean <a href="([^"]*)"', page)[1])
    assert "churn" in text(home.get(link))


def test_a_home_without_runs_says_how_to_log_the_first(tmp_path):
    with plane.running(tmp_path / "home") as running:
        headers = {"authorization": f"Bearer {running.key}", "accept": "text/html"}
        with httpx.Client(base_url=running.address, headers=headers) as client:
            for path in ("/experiments", "/experiments/0", "/models"):
                page = client.get(path).text
                assert f"export MLFLOW_TRACKING_URI={running.address}" in page
                assert "MLFLOW_TRACKING_TOKEN" in page


# --------------------------------------------------------------------------------------------------------------- runs


def test_runs_are_listed_newest_first_and_in_pages(home):
    first = home.runs()
    link = html.unescape(re.search(r'href="([^"]*)">Next page', first)[1])
    second = home.get(link)

    assert names(first)[:2] == ["going-now", "rich-run"]
    assert (len(names(first)), len(names(second))) == (50, 16)
    assert not set(names(first)) & set(names(second))
    assert "Next page" not in second


def test_the_usual_columns_are_what_the_runs_logged(home):
    shown = heads(home.runs())

    assert shown[:2] == ["Run", "Status"]
    assert {"train/loss", "val/loss", "learning_rate"} <= set(shown)
    assert not any(name.startswith("system/") for name in shown)


def test_columns_are_chosen_by_the_address(home):
    page = home.runs(column=["metrics.val/loss", "tags.team", "run.commit", "params.none", "nonsense", "metrics."])

    assert heads(page)[:1] == ["Run"]
    assert set(heads(page)) == {"Run", "val/loss", "team", "Commit", "none"}
    assert "8c1d2e3f" in page


def test_every_column_can_be_ordered_by_and_runs_without_a_value_come_last(home):
    page = home.runs(order="metrics.`grad_norm` ASC")
    assert names(page)[0] == "rich-run"
    assert len(names(page)) == 50

    for link in re.findall(
        r'<a class="sort clip" href="([^"]*)"', home.runs(column=["metrics.auc", "run.user", "run.id"])
    ):
        assert names(home.get(html.unescape(link)))

    descending, ascending = home.runs(order="metrics.auc DESC"), home.runs(order="metrics.auc ASC")
    assert names(descending)[0] != names(ascending)[0]
    assert re.search(r'aria-sort="descending"><a class="sort clip"[^>]*title="auc"', descending)
    assert re.search(r'aria-sort="ascending"><a class="sort clip"[^>]*title="auc"', ascending)


def test_a_filter_finds_runs_and_stays_in_every_address(home):
    page = home.runs(filter="params.optimizer = 'sgd' AND status = 'FAILED'", column="params.optimizer")

    assert names(page)
    assert "finished" not in text(page[page.index("<tbody>") : page.index("</tbody>")])
    for link in re.findall(r'href="([^"]*order=[^"]*)"', page):
        assert quote("params.optimizer = 'sgd'", safe="").replace("%20", "+") in html.unescape(link)
        assert "column=params.optimizer" in html.unescape(link)


@pytest.mark.parametrize(
    ("wrong", "at", "fix"),
    [
        ("metrics.auc <", 14, "metrics.loss"),
        ("auc > 0.5", 1, "metrics.auc"),
        ("metrics.auc > 0.5 OR status = 'FAILED'", 19, "AND"),
        ("params.depth > 3", 14, "="),
        ("status = 'FAILED", 10, "never closed"),
    ],
)
def test_a_wrong_filter_says_where_and_what_to_write(home, wrong, at, fix):
    page = home.get(f"/experiments/{home.experiment}", 400, filter=wrong)
    box = page[page.index('id="problem"') : page.index("</div>", page.index('id="problem"'))]

    assert f"At character {at}" in text(box)
    assert fix in text(box)
    assert f'value="{html.escape(wrong).replace("&#x27;", "&#39;")}"' in page, "the box keeps what was written"


def test_a_wrong_order_or_view_is_said(home):
    assert "problem" in home.get(f"/experiments/{home.experiment}", 400, order="metrics.auc SIDEWAYS")
    assert "use one of active" in home.get(f"/experiments/{home.experiment}", 400, view="gone").lower()
    assert "token" in home.get(f"/experiments/{home.experiment}", 400, page="forged")


def test_deleted_runs_are_seen_only_where_they_are_asked_for(home):
    from bedplate.tracking import runs

    other = Tracked(home.plane)
    experiment = other.experiment("comes-and-goes")
    kept, gone = other.run(experiment, "kept"), other.run(experiment, "gone")
    with home.plane.store.transaction() as tx:
        runs.delete(tx, "default", gone, by=other.actor)
    address = f"/experiments/{experiment}"

    assert names(home.get(address)) == ["kept"]
    assert names(home.get(address, view="deleted")) == ["gone"]
    assert sorted(names(home.get(address, view="all"))) == ["gone", "kept"]
    assert "deleted" in text(home.get(f"/runs/{gone}"))
    assert "deleted" not in text(home.get(f"/runs/{kept}"))


def test_rows_of_running_runs_come_by_themselves_and_end_with_them(home):
    other = Tracked(home.plane)
    experiment = other.experiment("live")
    run = other.run(experiment, "alive", minutes=None, metrics={"loss": [0.5]})
    ask = {"run": run, "column": ["metrics.loss", "run.status"], "seen": run}

    before = home.get(f"/experiments/{experiment}/rows", **ask)
    other.log(run, T0 + MINUTE, loss=[0.5, 0.25])
    other.end(run, T0 + 2 * MINUTE)
    after = home.get(f"/experiments/{experiment}/rows", **ask)

    assert f'hx-target="#run-{run}"' in before
    assert "data-hx-trigger" in before
    assert "0.25000" in after
    assert "finished" in after
    assert "data-hx-trigger" not in after, "nothing runs, so nothing is asked"
    later = other.run(experiment, "later", started=T0 + MINUTE)
    assert "A run has begun since" in home.get(f"/experiments/{experiment}/rows", **ask)
    assert later


def test_rows_that_are_not_looked_at_come_along_and_are_shown_when_their_runs_end(home):
    other = Tracked(home.plane)
    experiment = other.experiment("long-list")
    seen, unseen = (other.run(experiment, name, minutes=None, metrics={"loss": [0.5]}) for name in ("seen", "unseen"))
    ask = {"run": seen, "other": unseen, "column": "metrics.loss", "seen": seen}

    before = home.get(f"/experiments/{experiment}/rows", **ask)
    other.end(unseen, T0 + MINUTE)
    after = home.get(f"/experiments/{experiment}/rows", **ask)

    assert f'hx-target="#run-{seen}"' in before
    assert f'hx-target="#run-{unseen}"' not in before
    assert f"run={seen}&amp;run={unseen}" in before or f"run={unseen}&amp;run={seen}" in before
    assert f'hx-target="#run-{unseen}"' in after
    assert f"run={unseen}" not in after
    home.get(f"/experiments/{experiment}/rows", 400, run=["0" * 32] * 51)


# ---------------------------------------------------------------------------------------------------------- comparing


def test_runs_side_by_side_show_where_they_differ(home):
    ids = home.known["runs"][:3]
    page = home.get("/runs/compare", run=ids)
    different = page[page.index("Parameters that differ") : page.index("The same in all")]

    assert "learning_rate" in different
    assert "features" not in different
    assert "features" in page
    chart = html.unescape(re.search(r'data-curves="([^"]*val%2Floss[^"]*)"', page)[1])
    points = json.loads(home.get(chart))["curves"]
    assert [curve["run"] for curve in points] == ids
    assert {len(curve["steps"]) for curve in points} == {60}


@pytest.mark.parametrize("count", [0, 1, 13])
def test_too_few_or_too_many_runs_are_not_compared(home, count):
    page = home.get("/runs/compare", 400, run=home.known["runs"][:count])

    assert "2 to 12 runs" in page


def test_a_run_that_is_not_here_is_not_compared(home):
    assert "there is no run" in home.get("/runs/compare", 404, run=[home.rich, "0" * 32])


# ---------------------------------------------------------------------------------------------------------------- run


def test_a_run_says_what_it_is_and_where_it_led(home):
    page = home.get(f"/runs/{home.rich}")
    said = text(page)

    for part in ("rich-run", "finished", "1 h 35 min", "ana", "fit.py", "The long one", "reviewed", "churn-classifier"):
        assert part in said, part
    assert "grad_norm" in said
    system = page[page.index('id="system"') :]
    assert "cpu_utilization_percentage" in system
    assert "system/" not in text(page[page.index('id="metrics"') : page.index('id="params"')])


def test_metrics_with_one_value_are_drawn_while_more_may_come(home):
    tracked = Tracked(home.plane)
    experiment = tracked.experiment("one-value")
    logged = {"loss": [0.5, 0.4], "accuracy": [0.9], "gap": [float("nan")]}
    going = tracked.run(experiment, "going", minutes=None, metrics=logged)
    ended = tracked.run(experiment, "ended", metrics=logged)
    only = tracked.run(experiment, "only", metrics={"accuracy": [0.9]})

    def drawn(run):
        return re.findall(r'data-curves="[^"]*key=([^"&]*)"', home.get(f"/runs/{run}"))

    assert (drawn(going), drawn(ended), drawn(only)) == (["accuracy", "gap", "loss"], ["loss"], [])
    table = home.get(f"/runs/{only}")
    assert "<details open><summary>Latest values (1)" in table
    assert "data-curve-controls" not in table


def test_a_run_shows_the_data_it_read_and_the_model_it_made(home):
    said = text(home.get(f"/runs/{home.known['best']}"))

    for part in ("transactions", "training", "Models it made", "forest", "classifier"):
        assert part in said, part


def test_a_logged_model_has_a_page_with_its_files(home):
    model = home.known["forest"]
    page = home.get(f"/logged-models/{model}")

    assert f'href="/logged-models/{model}"' in home.get(f"/runs/{home.known['best']}")
    for part in ("forest", "classifier", "nothing yet", "MLmodel", f"models:/{model}"):
        assert part in text(page), part
    assert "flavors:" in home.get(f"/logged-models/{model}/artifacts/MLmodel")
    answer = home.client.get(f"/logged-models/{model}/download/MLmodel")
    assert answer.content == tracked.MLMODEL
    home.get("/logged-models/m-" + "0" * 32, 404)


def test_curves_are_thinned_out_and_keep_their_gaps(home):
    page = json.loads(home.get("/runs/series", run=home.rich, key=["train/loss", "grad_norm", "none"]))
    loss, norm = page["curves"]

    assert (loss["key"], norm["key"]) == ("train/loss", "grad_norm")
    assert len(loss["steps"]) == 1000
    assert (loss["steps"][0], loss["steps"][-1]) == (0, 4999)
    gap = [value for step, value in zip(loss["steps"], loss["values"], strict=True) if 2400 <= step < 2600]
    assert gap
    assert set(gap) == {None}
    part = json.loads(home.get("/runs/series", run=home.rich, key="train/loss", steps="100:199"))["curves"][0]
    assert part["steps"] == list(range(100, 200))


def test_what_is_logged_later_is_told_once(home):
    other = Tracked(home.plane)
    run = other.run(other.experiment("appends"), "grows", minutes=None, metrics={"a": [1.0, 2.0]})
    first = json.loads(home.get("/runs/series", run=run, key="a"))["curves"][0]
    other.log(run, T0 + 10 * MINUTE, a=[3.0, math.nan, math.inf], b=[9.0])
    ask = {"run": run, "key": ["a", "b"]}
    more = json.loads(home.get("/runs/series", **ask, after=[first["after"], ""]))
    end = [curve["after"] for curve in more["curves"]]
    nothing = json.loads(home.get("/runs/series", **ask, after=end))

    assert first["values"] == [1.0, 2.0]
    assert [curve["values"] for curve in more["curves"]] == [[3.0, None, None], [9.0]]
    assert (more["running"], nothing) == (True, {"curves": [], "running": True})
    home.get("/runs/series", 400, run=run, key="b", after=first["after"])
    home.get("/runs/series", 400, run=run, key=["a", "b"], after=first["after"])
    home.get("/runs/series", 400, run=run, key="a", steps="x")
    home.get("/runs/series", 400, run=run, key=[f"m{i}" for i in range(61)])


def test_runs_within_a_run_lead_to_each_other(home):
    other = Tracked(home.plane)
    experiment = other.experiment("nested")
    parent = other.run(experiment, "sweep")
    child = other.run(experiment, "trial-1", tags={"mlflow.parentRunId": parent})

    assert "trial-1" in home.get(f"/runs/{parent}")
    assert f"/runs/{parent}" in home.get(f"/runs/{child}")


def test_a_run_of_the_line_leads_to_its_use_case_and_its_evidence(home):
    from tests import sample

    other = Tracked(home.plane)
    training = sample.training()
    with home.plane.store.read() as tx:
        experiment = tx.experiments.by_name("default", sample.NAME)
        fact = next(f for f in tx.facts.list(sample.NAME, "training") if f.body["run_id"] == training.run_id)
    number = experiment.id if experiment is not None else other.experiment(sample.NAME)
    run = other.run(number, training.run_id, tags={"bedplate.run": training.run_id})
    page = home.get(f"/runs/{run}")

    assert f'href="/use-cases/{sample.NAME}"' in page
    assert f"/evidence/{fact.digest}" in page


# ---------------------------------------------------------------------------------------------------------- artifacts


def test_artifacts_are_browsed_folder_by_folder(home):
    top = home.get(f"/runs/{home.rich}/artifacts")
    inside = home.get(f"/runs/{home.rich}/artifacts/model")

    assert re.findall(r'class="clip" title="([^"]*)"', top) == [
        "model", "notes.md", "plots", "predictions.csv", "report.json", "weights.bin",
    ]  # fmt: skip
    assert "MLmodel" in inside
    assert "predictions.csv" not in inside
    assert home.get(f"/runs/{home.rich}/artifacts/nothing", 404)


def test_text_json_tables_and_pictures_are_shown(home):
    base = f"/runs/{home.rich}/artifacts"

    assert "ünïcode" in home.get(f"{base}/notes.md")
    assert "&#34;slices&#34;: {\n" in home.get(f"{base}/report.json")
    table = home.get(f"{base}/predictions.csv")
    assert '<th scope="col" class="num">score</th>' in table
    assert '<td class="num">0.0007</td>' in table
    assert "the file goes on" in table
    assert f"/runs/{home.rich}/picture/plots/confusion.png" in home.get(f"{base}/plots/confusion.png")
    assert "neither text nor a picture" in home.get(f"{base}/weights.bin")


def test_a_picture_is_served_as_what_its_bytes_are_and_nothing_else_is(home):
    other = Tracked(home.plane)
    run = other.run(other.experiment("pictures"), "shows")
    other.put(run, "named.html", tracked.png())
    other.put(run, "evil.png", b"<script>alert(1)</script>")
    other.put(run, "evil.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    other.put(run, "page.html", b"<html><script>alert(1)</script></html>")
    picture = home.client.get(f"/runs/{run}/picture/named.html")

    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in picture.headers["content-security-policy"]
    for name in ("evil.png", "evil.svg", "page.html"):
        assert home.client.get(f"/runs/{run}/picture/{name}").status_code == 400
        shown = home.get(f"/runs/{run}/artifacts/{name}")
        assert "<script>alert" not in shown
        assert "<svg xmlns" not in shown
        assert "alert(1)" in html.unescape(shown)


def test_a_download_is_always_a_file(home):
    for path in ("notes.md", "plots/confusion.png", "weights.bin", "report.json"):
        answer = home.client.get(f"/runs/{home.rich}/download/{path}")

        assert answer.status_code == 200
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
    assert len(home.client.get(f"/runs/{home.rich}/download/weights.bin").content) == 256 * 40


def test_a_long_text_is_cut(home):
    other = Tracked(home.plane)
    run = other.run(other.experiment("long"), "writes")
    other.put(run, "log.txt", ("é" * 200_000).encode())
    page = home.get(f"/runs/{run}/artifacts/log.txt")

    assert page.count("é") == (256 << 10) // 2
    assert "the file goes on" in page


@pytest.mark.parametrize("path", ["../../etc/passwd", "%2e%2e/x", "a//b", "a%5cb", "a%00b"])
def test_a_path_that_leads_elsewhere_is_refused(home, path):
    for kind in ("artifacts", "picture", "download"):
        answer = home.client.get(f"/runs/{home.rich}/{kind}/{path}")
        assert answer.status_code in (400, 404)


# ---------------------------------------------------------------------------------------------------------- isolation


def test_a_workspace_shows_its_own_things_only(home):
    with home.plane.store.transaction() as tx:
        tx.workspaces.add("research")
    home.plane.site.system.workspaces.forget()
    there = Tracked(home.plane, "research")
    experiment = there.experiment("secret-experiment")
    run = there.run(experiment, "secret-run")
    there.put(run, "secret.txt", b"secret words")
    there.model("secret-model")
    model = there.logged_model(experiment, run, "secret-logged")

    within = home.get("/experiments", workspace="research")
    assert "secret-experiment" in within
    assert titles(within) == ["secret-experiment"]
    assert "<option selected>research</option>" in within
    assert "secret-run" in home.get(f"/experiments/{experiment}", workspace="research")
    assert "secret words" in home.get(f"/runs/{run}/artifacts/secret.txt", workspace="research")
    for path in (
        f"/experiments/{experiment}", f"/experiments/{experiment}/rows", f"/runs/{run}", f"/runs/{run}/now",
        f"/runs/{run}/artifacts", f"/runs/{run}/artifacts/secret.txt", f"/runs/{run}/download/secret.txt",
        f"/runs/{run}/picture/secret.txt", "/models/secret-model", f"/logged-models/{model}",
        f"/logged-models/{model}/artifacts",
    ):  # fmt: skip
        assert "secret-" not in home.get(path, 404).replace("secret-model", ""), path
    assert json.loads(home.get("/runs/series", run=run, key="x"))["curves"] == []
    home.get("/runs/compare", 404, run=[run, home.rich])
    assert "secret" not in home.get("/experiments")
    assert "secret" not in home.get("/models")


def test_every_link_keeps_to_its_workspace(home):
    with home.plane.store.transaction() as tx:
        tx.workspaces.add("team-a")
    home.plane.site.system.workspaces.forget()
    there = Tracked(home.plane, "team-a")
    experiment = there.experiment("one")
    run = there.run(experiment, "r", params={"p": "1"}, metrics={"m": [1.0]})
    there.put(run, "f.txt", b"x")
    for path in ("/experiments", f"/experiments/{experiment}", f"/runs/{run}", f"/runs/{run}/artifacts/f.txt"):
        page = home.get(path, workspace="team-a")
        for link in re.findall(r'(?:href|data-curves|data-hx-get)="(/(?:experiments|runs|models)[^"]*)"', page):
            assert "workspace=team-a" in link, (path, link)


def test_who_may_read_one_workspace_is_led_there_and_nowhere_else(home):
    with home.plane.store.transaction() as tx:
        tx.workspaces.add("guild", readers=("guild",))
    home.plane.site.system.workspaces.forget()
    Tracked(home.plane, "guild").experiment("of-the-guild")
    identity = home.plane.identity
    member = identity.add_principal("user", "gus", ("guild",), actor="administrator")
    key = identity.create_key(member.id, actor="administrator")
    with httpx.Client(base_url=home.plane.address, headers={"authorization": f"Bearer {key}"}) as client:
        landing = client.get("/").text
        assert "No use case is open to you" in landing
        assert 'href="/experiments?workspace=guild"' in landing
        within = client.get("/experiments?workspace=guild").text
        assert titles(within) == ["of-the-guild"]
        assert "<option" not in within.partition("</h1>")[2].partition("</div>")[0], "there is nothing to pick from"
        for path in ("/experiments", f"/experiments/{home.experiment}", f"/runs/{home.rich}", "/models", "/audit"):
            assert client.get(path).status_code == 403


def test_a_workspace_that_cannot_be_named_is_refused(home):
    assert home.client.get("/experiments?workspace=default&workspace=research").status_code == 400
    assert home.client.get("/experiments?workspace=no-such-place").status_code == 404


# ----------------------------------------------------------------------------------------------------------- escaping


def test_what_runs_log_is_text_on_every_page(tmp_path):
    with plane.running(tmp_path / "home") as running:
        home = Tracked(running)
        evil = hostile.ALL.replace("\u202e", "")
        experiment = home.experiment(evil[:200], note=evil[:200], **{"mlflow.note.content": evil})
        made = [
            home.run(
                experiment, evil, minutes=None if number else 1,
                params={"p": f"{number}{evil}"}, metrics={"m": [1.0]},
                tags={"t": evil, "mlflow.user": evil, "mlflow.source.name": evil, "mlflow.note.content": evil},
            )
            for number in range(2)
        ]  # fmt: skip
        for name in ("<img src=x onerror=alert(1)>.txt", "a'b\"c.csv", "{{ 7*7 }}.json"):
            home.put(made[0], name, evil.encode())
        headers = {"authorization": f"Bearer {running.key}", "accept": "text/html"}
        with httpx.Client(base_url=running.address, headers=headers) as client:
            pages = [
                "/experiments", f"/experiments/{experiment}", f"/runs/{made[0]}", f"/runs/{made[1]}/now",
                f"/runs/compare?run={made[0]}&run={made[1]}", f"/runs/{made[0]}/artifacts",
                f"/experiments/{experiment}?column={quote('params.p')}&column={quote('tags.t')}&column=run.user",
                f"/experiments/{experiment}/rows?run={made[1]}&column={quote('tags.t')}",
                f"/experiments/{experiment}?filter={quote(evil)}", f"/experiments?filter={quote(evil)}",
                *(f"/runs/{made[0]}/artifacts/{quote(n)}" for n in ("a'b\"c.csv", "{{ 7*7 }}.json")),
            ]  # fmt: skip
            for path in pages:
                page = client.get(path).text
                assert "onerror" in page or "7*7" in page or path.endswith("note"), path
                for dangerous in (
                    "<script>doc",
                    "<img src=x",
                    "<svg onload",
                    "<iframe",
                    "<i>x",
                    "<b>",
                    "<u>",
                    "<h1>owned",
                ):
                    assert dangerous not in page, (path, dangerous)
                assert page.count("<hx-partial") == (1 if "/rows" in path or path.endswith("/now") else 0), path
                assert "49" not in re.sub(r"[0-9a-f]{8,}|T\d\d:\d\d:\d\dZ", "", page) or "7*7" in page
