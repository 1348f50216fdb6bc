"""Pages of data: each as its reader may see it, and every read of rows in the ledger."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from bedplate.app import access, contract_changes
from bedplate.app.feature_reports import SKEW, FeatureSkew, SkewReport
from bedplate.app.stages.data import Ingested
from bedplate.data.ingest import ingest
from bedplate.ids import digest_bytes, digest_of
from bedplate.records import Bundle, Estimate, FeatureSet, Governance, RowAccess, ViewRecord
from bedplate.usecase import load
from bedplate.usecase.starter import starter
from tests import team
from tests.governed import govern
from tests.team import Team
from tests.ui import hostile

NAME = "shop"
PEOPLE = f"{NAME}.people"
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: people
version: 1.0.0
status: active
slaProperties:
  - {property: retention, value: 2, unit: y, element: people.seen}
schema:
  - name: people
    description: Everybody who ever bought.
    properties:
      - {name: customer, logicalType: integer, required: true, primaryKey: true, description: "<b>The</b> card."}
      - {name: age, logicalType: integer, classification: restricted, logicalTypeOptions: {maximum: 120}}
      - {name: note, logicalType: string, tags: [contact]}
      - {name: region, logicalType: string, required: true}
      - {name: seen, logicalType: date}
"""
LINES = [f"{i},{i % 125},note {i},{'north' if i % 2 else 'south'},2026-01-{1 + i % 28:02d}" for i in range(1, 248)]
EVIL = hostile.ALL.replace("\n", " ").replace('"', "'")
ROWS = """
@id("flow") permit (principal == Service::"flow", action, resource);
@id("admins") permit (principal in Group::"administrators", action, resource);
@id("north") permit (principal in Group::"north", action, resource) when { resource.region == "north" };
"""
GOVERNANCE = Governance(
    purpose="care",
    sensitive=("age",),
    rows={"people": RowAccess(text=ROWS, columns={"region": "String"}, required=("region",))},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A use case whose people come batch by batch."""
    folder = tmp_path_factory.mktemp("cases") / NAME
    starter(folder, NAME)
    file = folder / "usecase.yaml"
    source = "    source: { kind: csv, path: data/invoices.csv }\n"
    people = "  people:\n    contract: contracts/people.odcs.yaml\n    source: { kind: csv, path: data/people.csv }\n"
    assert source in file.read_text()
    file.write_text(file.read_text().replace(source, f"{source}{people}    incremental: {{ watermark: seen }}\n"))
    (folder / "contracts" / "people.odcs.yaml").write_text(CONTRACT)
    lines = ["customer,age,note,region,seen", *LINES, f'900,30,"{EVIL}",north,2026-02-01', "7,too,many"]
    (folder / "data" / "people.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Team]:
    """A team, and a use case as its check, ingestion, features and release left it."""
    with team.running(tmp_path_factory.mktemp("data") / "home") as running:
        system, loaded = running.system, load(folder)
        govern(system, NAME, GOVERNANCE)
        running.member("nora", "engineers", "north")
        came_in = ingest(
            system.tables, use_case=NAME, dataset="people", spec=loaded.use_case.data["people"], folder=folder, key="k"
        )
        values = pa.table({"customer": [1], "recency": [2.0]})
        made = system.tables.write(access.table_name(NAME, "features", "recent"), values, mode="append")
        some = digest_bytes(b"some")
        with system.store.transaction() as tx:
            row = tx.use_cases.get(NAME)
            tx.use_cases.put(
                NAME, folder=str(folder), file="usecase.yaml", file_digest=row.file_digest, objective=row.objective
            )
            text = tx.facts.put(contract_changes.KIND, NAME, contract_changes.kept(loaded, "people"))
            dataset = tx.facts.put("dataset", NAME, came_in, (text.digest,))
            whole = tx.facts.put("data", NAME, Ingested(datasets={"people": dataset.digest}), (dataset.digest,))
            tx.stages.finish(NAME, "ingest", digest_of({}), {}, whole.digest, 0.1)
            system.ledger.record(
                tx, actor="ana", action="flow.ingest", resource=f"use_case/{NAME}", payload={"output": whole.digest}
            )
            view = FeatureSet(
                views={"recent": made}, columns={"recent": ("recency",)}, as_of=("2026-01-28T00:00:00",),
                code_digest=some, inputs=(came_in.table,),
                declared={"recent": ViewRecord(
                    digest=some, entity=("customer",), rests_on=(), ttl=172_800.0, owner="team-care"
                )},
            )  # fmt: skip
            features = tx.facts.put("features", NAME, view, (dataset.digest,))
            share = Estimate(value=0.25, low=0.2, high=0.3)
            found = FeatureSkew(feature="recency", share=share, size=share, largest=2.0, alarm=True)
            skew = SkewReport(
                use_case=NAME, samples=400, since=None, until="2026-01-29T00:00:00", limit=0.01, features=(found,),
                alarm=True,
            )  # fmt: skip
            tx.facts.put(SKEW, NAME, skew)
            bundle = Bundle(
                name=NAME, version=4, digest=some, tenant="", files={}, size=1, signature_digest=some, bom_digest=some
            )
            tx.facts.put("bundle", NAME, bundle, (features.digest,))
        yield running


def client(home: Team, who: str) -> httpx.Client:
    """The browser of somebody who signed in."""
    made = httpx.Client(base_url=home.address, headers={"accept": "text/html"}, timeout=120)
    principal = home.who(who)
    made.cookies.set(
        "bedplate_session",
        home.system.identity.redeem_link(home.system.identity.create_link(principal.id, actor=principal.id)),
    )
    return made


@pytest.fixture(scope="module")
def browsers(home: Team) -> Iterator[dict[str, httpx.Client]]:
    """A browser of each role."""
    made = {who: client(home, who) for who in ("administrator", "engineer", "nora", "viewer")}
    yield made
    for each in made.values():
        each.close()


def said(answer: httpx.Response) -> str:
    """What a page says, without its markup."""
    assert answer.headers["content-type"].startswith("text/html")
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", answer.text)))


def test_the_catalogue_finds_tables_by_name_column_tag_and_description(browsers: dict[str, httpx.Client]) -> None:
    admin = browsers["administrator"]
    whole = admin.get("/tables").text
    for name in (PEOPLE, f"{PEOPLE}.quarantine", f"{NAME}/features/recent"):
        assert f'title="{name}"' in whole
    for words, found in (
        ("recency", ["recent"]),
        ("CONTACT", ["people", "people.quarantine"]),
        ("ever bought", ["people"]),
    ):
        page = admin.get("/tables", params={"q": words}).text
        assert re.findall(r'class="clip" href="[^"]*" title="[^"]*">(?:features/)?([^<]*)<', page) == found, words
    assert "columns note" in said(admin.get("/tables", params={"q": "note"}))
    assert "Nothing matches" in said(admin.get("/tables", params={"q": "people recency"}))
    assert "No table that you may know of" in said(browsers["viewer"].get("/tables"))
    assert admin.get("/tables", params={"from": "x"}).status_code == 400


def counts(home: Team) -> list[str]:
    """How many rows there are now, accepted and read: some tests bring in more."""
    rows = home.system.tables.current(PEOPLE).rows
    return [str(rows), str(len(LINES) + 2)]


def test_a_table_shows_contract_quality_versions_and_who_sees_what(
    home: Team, browsers: dict[str, httpx.Client]
) -> None:
    page = browsers["administrator"].get(f"/tables/{PEOPLE}")
    text = said(page)
    for part in (
        "Everybody who ever bought.", "restricted", "age is above 120", "Rows are kept for 730 days from seen on",
        "stage ingest of a run", "ana", "care", "<b>The</b> card.", "coalesce", "row policy north", "No policy allows",
    ):  # fmt: skip
        assert part in text, part
    assert "<b>The" not in page.text
    assert re.search(rf"Rows {counts(home)[0]}\b", text)
    assert "north" not in said(browsers["engineer"].get(f"/tables/{PEOPLE}")).replace("note north", "")


@pytest.mark.parametrize("who", ["nora", "engineer"])
def test_whom_rows_are_kept_in_from_is_told_no_count(home: Team, browsers: dict[str, httpx.Client], who: str) -> None:
    for path in (f"/tables/{PEOPLE}", f"/rows/{PEOPLE}", "/tables", f"/quarantine/{NAME}/people"):
        text = said(browsers[who].get(path))
        for count in counts(home):
            assert not re.search(rf"\b{count}\b(?! h)", re.sub(r"note \d+", "", text)), (path, count)
        assert "not told" in text or "keep rows in" in text or "Not done" in text, path


def test_rows_are_shown_as_the_reader_may_see_them_and_looking_reads_none(
    home: Team, browsers: dict[str, httpx.Client]
) -> None:
    before, newest = home.size(), f"table/{PEOPLE}@{home.system.tables.current(PEOPLE).version}"
    assert browsers["nora"].get(f"/tables/{PEOPLE}").status_code == 200
    assert home.entries(before) == []
    page = browsers["nora"].get(f"/rows/{PEOPLE}")
    assert home.entries(before) == [("table.read", newest, "allow")]
    cells = re.search(r'aria-label="Rows">.*?</table>', page.text, re.S)
    assert cells is not None
    assert "north" in cells[0]
    assert "south" not in cells[0]
    assert re.search(r"age\s*<span class=\"pill[^>]*>hidden<", cells[0])
    denied = browsers["nora"].get(f"/rows/{PEOPLE}", params={"purpose": "marketing"})
    assert (denied.status_code, "purpose" in said(denied)) == (403, True)
    assert home.entries(before)[-1] == ("table.read", newest, "deny")


def test_what_rows_hold_is_text(home: Team, browsers: dict[str, httpx.Client]) -> None:
    rows = pa.table({"note": [EVIL], "many": [["<b>bold", "x"]], "pair": [{"a": "<svg onload=x>"}]})
    home.system.tables.write(f"{NAME}/scores/evil", rows, mode="overwrite")
    page = browsers["administrator"].get(f"/rows/{NAME}/scores/evil").text
    for dangerous in ("<script>doc", "<img src=x", "<svg onload", "<iframe", "<b>bold", "<hx-partial"):
        assert dangerous not in page, dangerous


def token(page: httpx.Response) -> str:
    """The form token of a page."""
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)
    assert found is not None
    return found[1]


def test_a_quarantine_counts_reasons_and_replays_what_keeps_the_contract(
    home: Team, folder: Path, browsers: dict[str, httpx.Client]
) -> None:
    admin, path = browsers["administrator"], f"/quarantine/{NAME}/people"
    page = admin.get(path)
    text = said(page)
    assert "age is above 120 age.maximum 6" in text
    assert "the row has 3 values where 5 are expected row 1" in text
    assert "hidden" not in text
    assert admin.post(path, data={"csrf": "0" * 64}).status_code == 403
    contract = folder / "contracts" / "people.odcs.yaml"
    corrected = CONTRACT.replace("maximum: 120", "maximum: 122")
    contract.write_text(corrected)
    unread = admin.post(path, data={"csrf": token(page)})
    assert (unread.status_code, f"hits models: {NAME} version 4" in said(unread)) == (400, True)
    contract.write_text(corrected.replace("1.0.0", "2.0.0"))
    replayed = admin.post(path, data={"csrf": token(page)})
    assert replayed.status_code == 200, said(replayed)
    assert "4 of 7 rows came in as version 1" in said(replayed)
    assert "3 still break the contract" in said(replayed)
    assert "The first" not in said(replayed), "all of them are shown"
    assert home.entries()[-2][:2] == ("table.replay", f"table/{PEOPLE}")
    assert "replay" in said(admin.get(f"/tables/{PEOPLE}"))
    again = browsers["engineer"].post(path, data={"csrf": token(browsers["engineer"].get(path))})
    assert "What keeps the contract came in as version" in said(again)
    assert " of 3 rows" not in said(again)
    refused = browsers["engineer"].get(path)
    assert "Not done." in said(refused)
    file = folder / "usecase.yaml"
    kept = file.read_text()
    file.write_text(kept.replace("risk:", "riks:"))
    broken = admin.get(f"/contracts/{NAME}")
    assert broken.status_code == 400
    assert "<h1>2 problems</h1>" in broken.text
    assert broken.text.count("<li>line") == 2
    assert "2 problems: line" in said(admin.get(path))
    file.write_text(kept)
    contract.write_text("no contract")
    wrong = admin.post(path, data={"csrf": token(page)})
    assert (wrong.status_code, "Not done." in said(wrong)) == (400, True)
    contract.write_text(CONTRACT)


def test_a_contract_that_breaks_readers_says_whom_before_it_is_accepted(
    folder: Path, browsers: dict[str, httpx.Client]
) -> None:
    contract = folder / "contracts" / "people.odcs.yaml"
    contract.write_text(CONTRACT.replace("      - {name: note, logicalType: string, tags: [contact]}\n", ""))
    text = said(browsers["engineer"].get(f"/contracts/{NAME}"))
    contract.write_text(CONTRACT)
    for part in ("a run would refuse them", "note the column is gone", f"{NAME} version 4", "a higher first number"):
        assert part in text, part
    assert "Nothing differs" in said(browsers["engineer"].get(f"/contracts/{NAME}"))


def test_the_explorer_says_who_sees_what_and_what_a_change_alters(browsers: dict[str, httpx.Client]) -> None:
    admin = browsers["administrator"]
    text = said(admin.get("/access", params={"who": "nora", "table": PEOPLE}))
    for part in ("nora may read shop.people", "north", "age hidden", "note as it is"):
        assert part in text, part
    other = {"who": "nora", "table": PEOPLE, "purpose": "x"}
    assert "nora may not read" in said(admin.get("/access", params=other))
    assert admin.get("/access", params={"who": "nobody", "table": PEOPLE}).status_code == 404
    more = '@id("v") permit (principal in Group::"viewers", action == Action::"read", resource is Table);'
    page = admin.get("/access")
    answer = said(admin.post("/access", data={"csrf": token(page), "policies": more}))
    assert re.search(r"viewer\.one shop\.people from now on", answer), answer
    assert "Nobody would see anything" in said(
        admin.post(
            "/access",
            data={
                "csrf": token(page),
                "policies": '@id("w") forbid (principal, action, resource) when { principal in Group::"no" };',
            },
        )
    )
    assert admin.post("/access", data={"csrf": token(page), "policies": "permit ("}).status_code == 400
    assert admin.post("/access", data={"csrf": token(page), "use_case": "none"}).status_code == 404
    assert "Nobody" not in said(admin.post("/access", data={"csrf": token(page), "use_case": NAME}))


def test_a_page_offers_no_way_that_its_reader_may_not_go(home: Team, browsers: dict[str, httpx.Client]) -> None:
    """Whoever reads rows and plans nothing is not sent to a page that is denied to them."""
    way = f'href="/contracts/{NAME}"'
    readers = 'principal in Group::"readers", action in [Action::"list", Action::"read"], resource'
    home.do("add_policies", text=f'@id("readers") permit ({readers});')
    home.member("rita", "readers")
    with client(home, "rita") as rita:
        page = rita.get(f"/tables/{PEOPLE}")
        assert (page.status_code, way in page.text) == (200, False)
        assert rita.get(f"/contracts/{NAME}").status_code == 403
        assert "rita may not administer the home:" in said(rita.get("/access"))
    assert way in browsers["engineer"].get(f"/tables/{PEOPLE}").text


def test_a_use_case_without_feature_views_is_not_among_the_features(
    home: Team, browsers: dict[str, httpx.Client]
) -> None:
    none = FeatureSet(views={}, columns={}, as_of=(), code_digest=digest_bytes(b"none"), inputs=())
    govern(home.system, "plain", GOVERNANCE)
    with home.system.store.transaction() as tx:
        tx.facts.put("features", "plain", none)
    text = said(browsers["administrator"].get("/features"))
    assert "Plain" not in text
    assert "team-care" in text


def test_features_say_how_fresh_they_are_and_which_models_use_them(browsers: dict[str, httpx.Client]) -> None:
    text = said(browsers["viewer"].get("/features"))
    fresh = ("28 Jan 2026, 00:00 UTC", "recency", f"{NAME} version 4", f"{NAME}/features/recent")
    declared = ("customer", "team-care", "2 d", "differs in 25.0 %", "400 predictions until 29 Jan 2026")
    for part in (*fresh, *declared):
        assert part in text, part


@pytest.mark.parametrize("path", [f"/tables/{NAME}.nothing", f"/rows/{NAME}.nothing", f"/quarantine/{NAME}/nothing"])
def test_what_is_not_there_is_not_found(home: Team, browsers: dict[str, httpx.Client], path: str) -> None:
    absent = browsers["administrator"].get(path)
    assert absent.status_code == 404
    assert "bedplate table list" in said(absent)
    assert str(home.system.home.root) not in absent.text
    assert browsers["viewer"].get(path).status_code == 403


def test_a_prediction_that_is_not_there_does_not_tell_where_the_home_lies(
    home: Team, browsers: dict[str, httpx.Client]
) -> None:
    absent = browsers["administrator"].get("/trace/pred_01m8qtxpmyz3ns8sz5mtqq0jmd")
    assert absent.status_code == 404
    assert "x-prediction-id" in said(absent)
    assert str(home.system.home.root) not in absent.text
