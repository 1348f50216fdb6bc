"""Pages of the registry: what they say, what they ask for, and what was live when."""

import html
import re
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
import pytest

from bedplate import clock
from tests import plane
from tests.ui import hostile, tracked
from tests.ui.tracked import Tracked

BASE = "/models/churn-classifier"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with plane.running(tmp_path_factory.mktemp("registry") / "home") as running:
        running.known = tracked.fill(running)
        yield running


@pytest.fixture(scope="module")
def client(served):
    """A browser that signed in, as far as forms go."""
    with httpx.Client(base_url=served.address, headers={"accept": "text/html"}) as made:
        made.cookies.set("bedplate_session", served.identity.redeem_link(served.link().rsplit("/", 1)[1]))
        yield made


def text(page: str) -> str:
    """What a page says, without its markup."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def ask(client: httpx.Client, address: str, what: str, **form: str) -> httpx.Response:
    """Send the form of a version's page."""
    page = client.get(address).text
    token = re.search(r'name="csrf" value="([0-9a-f]+)"', page)[1]
    return client.post(f"{address}/{what}", data={"csrf": token, **form})


def test_models_come_with_stages_and_aliases(client):
    said = text(client.get("/models").text)

    assert "churn-classifier" in said
    assert "Staging" in said
    assert "@candidate → 2" in said
    assert "Nothing matches" in text(client.get("/models", params={"filter": "name = 'x'"}).text)
    wrong = client.get("/models", params={"filter": "churn"})
    assert (wrong.status_code, "name ILIKE '%churn%'" in html.unescape(wrong.text)) == (400, True)


def test_a_model_lists_its_versions_and_what_happened(client):
    said = text(client.get(BASE).text)

    for part in (
        "can run code", "Registered version 3", "Moved version 1 from None to Staging",
        "Moved version 1 from Staging to Archived", "Pointed @candidate to version 2 , away from version 1",
        "ledger entry", "by administrator",
    ):  # fmt: skip
        assert part in said, part


def test_a_version_says_what_it_rests_on(client, served):
    page = client.get(f"{BASE}/versions/2").text
    said = text(page)

    for part in ("rich-run", "churn", "can run code", "model.pkl holds a pickle", "files run no code", "failed"):
        assert part in said, part
    assert f'/runs/{served.known["rich"]}"' in page
    assert "bedplate models convert churn-classifier 2" in said


def test_a_box_tells_which_version_was_live(served, client):
    home = Tracked(served)
    home.model("timed")
    moments = []
    models = served.site.models
    for number in (1, 2):
        home.version("timed", served.known["rich"])
        at = datetime(2027, 1, number, 12, tzinfo=UTC)
        with clock.frozen(at):
            models.set_alias(home.principal, "default", "timed", "canary", number)
        moments.append(at)

    def told(at: str, under: str = "alias:canary") -> str:
        page = client.get("/models/timed", params={"at": at, "under": under}).text
        return text(page[page.index('<p class="answer"') :].partition("</p>")[0])

    assert "version 1 was live under the alias @canary" in told("2027-01-01T13:00")
    assert "since 1 Jan 2027, 12:00 UTC" in told("2027-01-01T13:00")
    assert "version 2 was live" in told("2027-01-02T12:00:00")
    assert "no version was live" in told("2027-01-01T11:59")
    assert "there was no model of this name" in told("2001-01-01T00:00")
    assert "no version was live" in told("2027-01-03T00:00", "stage:Production")
    models.write(lambda tx: models.rules.delete_model(tx, home.principal, "default", "timed"))
    page = client.get("/models/timed").text
    assert "The model was deleted" in text(page)
    assert "version 1 was live under the alias @canary" in told("2027-01-01T13:00")


@pytest.mark.parametrize(
    ("at", "under"), [("yesterday", "alias:a"), ("2027-01-01T00:00", "moon:a"), ("2027-01-01", "")]
)
def test_what_is_no_moment_or_no_alias_is_said(client, at, under):
    assert client.get(BASE, params={"at": at, "under": under}).status_code == 400


def test_an_alias_that_is_a_label_is_set(served, client):
    answer = ask(client, f"{BASE}/versions/3", "alias", alias="shadow")

    assert answer.status_code == 303
    assert answer.headers["location"] == f"{BASE}/versions/3"
    assert "@shadow" in client.get(f"{BASE}/versions/3").text
    with served.store.read() as tx:
        assert tx.models.aliases("default", ["churn-classifier"])["churn-classifier"]["shadow"] == 3


def test_a_refused_request_shows_its_reason_and_changes_nothing(served, client):
    for what, form in (("alias", {"alias": "champion"}), ("stage", {"stage": "Production"})):
        answer = ask(client, f"{BASE}/versions/3", what, **form)
        box = answer.text[answer.text.index('class="problem"') :].partition("</div>")[0]

        assert answer.status_code == 403
        assert "Not done." in box
        assert "production" in box
        assert "pickle" in box
        assert "Ledger entry" in box
    with served.store.read() as tx:
        assert "champion" not in tx.models.aliases("default", ["churn-classifier"])["churn-classifier"]
        assert tx.versions.get("churn-classifier", 3).stage == "None"
        denied = [e for e in tx.ledger.recent(4, resource="model/default/churn-classifier") if b'"deny"' in e.entry]
        assert len(denied) >= 2


def test_a_stage_that_others_changed_meanwhile_is_not_touched(client):
    answer = ask(client, f"{BASE}/versions/3", "stage", stage="Archived", expected="Staging")

    assert answer.status_code == 409
    assert "not Staging" in text(answer.text)


@pytest.mark.parametrize("alias", ["latest", "v3", "a b", "<b>", ""])
def test_an_alias_that_cannot_be_is_refused_where_it_was_asked_for(client, alias):
    answer = ask(client, f"{BASE}/versions/3", "alias", alias=alias)

    assert answer.status_code == 400
    assert "Not done." in answer.text
    assert "<b>'" not in answer.text


def test_a_form_of_another_session_changes_nothing(served, client):
    answer = client.post(f"{BASE}/versions/3/alias", data={"csrf": "0" * 64, "alias": "stolen"})

    assert answer.status_code == 403
    with served.store.read() as tx:
        assert "stolen" not in tx.models.aliases("default", ["churn-classifier"])["churn-classifier"]


def test_things_that_are_not_there_are_not_found(client):
    for path in ("/models/nothing", f"{BASE}/versions/99", "/models/nothing/versions/1"):
        assert client.get(path).status_code == 404


def test_a_name_that_no_path_can_hold_has_a_page_all_the_same(served, client):
    home = Tracked(served)
    odd = ("50% off", "a\\b", "n" * 250, "it's <b>bold<b>")
    for name in odd:
        home.model(name)
        home.version(name, served.known["rich"])
    page = client.get("/models").text
    links = {
        html.unescape(title): link for link, title in re.findall(r'class="clip" href="([^"]*)" title="([^"]*)"', page)
    }
    for name in odd:
        address = links[name]
        assert name in html.unescape(client.get(address).text)
        assert client.get(f"{address}/versions/1").status_code == 200
        assert ask(client, f"{address}/versions/1", "alias", alias="label").status_code == 303


def test_what_clients_write_about_models_is_text(served, client):
    home = Tracked(served)
    evil = hostile.ALL.replace("\u202e", "")
    name = "<img src=x onerror=alert(1)>"
    home.model(name, description=evil, note=evil[:200])
    home.version(name, served.known["rich"], description=evil)
    for path in ("/models", f"/models/{quote(name)}", f"/models/{quote(name)}/versions/1"):
        page = client.get(path).text
        assert "7*7" in page
        for dangerous in ("<script>doc", "<img src=x", "<svg onload", "<iframe", "<b>bold", "<hx-partial"):
            assert dangerous not in page, (path, dangerous)


def signed_in(served, name: str, *groups: str) -> httpx.Client:
    """The browser of a new user in these groups."""
    user = served.identity.add_principal("user", name, groups, actor="administrator")
    made = httpx.Client(base_url=served.address, headers={"accept": "text/html"})
    link = served.identity.create_link(user.id, actor=user.id)
    made.cookies.set("bedplate_session", served.identity.redeem_link(link))
    return made


def test_only_who_may_write_gets_the_forms_and_gets_through(served):
    with signed_in(served, "vera", "viewers") as made:
        page = made.get(f"{BASE}/versions/3")

        assert page.status_code == 200
        assert "Ask for a stage" not in page.text
        token = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)[1]
        answer = made.post(f"{BASE}/versions/3/alias", data={"csrf": token, "alias": "mine"})
        assert answer.status_code == 403
        assert "may not write" in answer.text


def test_who_is_named_consents_by_asking(served, client):
    home, registry = Tracked(served), served.site.models
    run = home.run(home.experiment("safe"), "safe")
    home.put(run, "model/MLmodel", b"flavors:\n  lightgbm:\n    data: model.lgb\n")
    home.put(run, "model/model.lgb", b"tree\nversion=v4\nnum_class=1\n\nend of trees\n")
    home.model("agreed")
    home.version("agreed", run)
    registry.write(
        lambda tx: registry.rules.name_approvers(tx, home.principal, "default", "agreed", "production", "1 of [risk]")
    )
    address = "/models/agreed/versions/1"
    refused = ask(client, address, "stage", stage="Production")
    assert (refused.status_code, "1 of [risk]" in refused.text) == (403, True)

    with signed_in(served, "rita", "engineers", "risk") as made:
        assert ask(made, address, "stage", stage="Production").status_code == 303
        said = text(made.get(address).text)
    assert "approved by rita: asked for the release" in said
    assert "Moved version 1 from None to Production" in said
    assert "runs no code" in said
