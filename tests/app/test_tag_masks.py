"""A tag on a column of a contract chooses what people see of it, wherever its values could come out."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bedplate import usecase
from bedplate.app import access, checking
from bedplate.data import duck
from bedplate.errors import BedplateError, ContractError, DeniedError, InputError
from bedplate.identity import policy_principal
from bedplate.records import Governance, MaskRule
from bedplate.usecase.starter import starter
from tests import team
from tests.governed import govern
from tests.team import Team

NAME = "shop.people"
SECRET, OTHER = "marie.curie@example.org", "niels.bohr@example.org"
GOVERNED = Governance(
    purpose="care",
    sensitive=(),
    masks={
        "contact": MaskRule(kind="hash"),
        "place": MaskRule(kind="truncate", keep=2),
        "birth": MaskRule(kind="generalise", step=10),
        "pay": MaskRule(kind="noise", scale=1000, epsilon=0.5),
        "secret": MaskRule(kind="drop"),
        "unused": MaskRule(kind="null"),
    },
    tagged={
        "mail": ("contact",),
        "zip": ("place",),
        "year": ("birth", "place"),  # both: the stricter one
        "income": ("pay",),
        "note": ("secret",),
    },
    privacy_budget=1.5,
)
PEOPLE = pa.table(
    {
        "id": [1, 2, 3],
        "mail": [SECRET, OTHER, SECRET],
        "zip": ["75005", "21000", None],
        "year": [1867, 1885, 1867],
        "income": [51_234, 61_234, None],
        "note": ["n1", "n2", "n3"],
    }
)
SEEN = ("id", "mail", "zip", "year")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A home with a table in two versions, rows set aside, features, and a logged prediction."""
    with team.running(tmp_path_factory.mktemp("tags") / "home") as running:
        govern(running.system, "shop", GOVERNED)
        govern(running.system, "other", GOVERNED)
        write = running.system.tables.write
        for use_case in ("shop", "other"):
            write(f"{use_case}.people", PEOPLE.slice(0, 1), mode="append")
            write(f"{use_case}.people", PEOPLE, mode="overwrite")
        aside = {
            "mail": [SECRET, None],
            "year": ["x1867", None],
            "income": ["no", None],
            "_text": [None, f"4,{SECRET}"],
        }
        write(f"{NAME}.quarantine", pa.table(aside), mode="append")
        write("shop/features/recent", PEOPLE.select(["id", "mail", "year"]), mode="append")
        logged = f'{{"mail": "{SECRET}", "amount": 3, "year": 1867}}'
        columns: dict[str, Any] = {"id": ["p1"], **{name: [logged] for name in access.LOGGED}}
        write("shop/predictions", pa.table(columns), mode="append")
        yield running


def look(home: Team, table: str = NAME, role: str = "engineer", **asked: Any) -> list[dict[str, Any]]:
    found = home.do("read_table", role=role, name=table, **asked)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def test_each_tag_shows_what_its_mask_leaves_in_every_version(home: Team) -> None:
    rows = look(home, columns=SEEN)
    assert [row["zip"] for row in rows] == ["75", "21", None]
    assert [row["year"] for row in rows] == [1860, 1880, 1860]
    codes = [row["mail"] for row in rows]
    assert len(codes[0]) == 32
    assert codes[0] == codes[2] != codes[1]
    assert look(home, columns=SEEN, version=0) == rows[:1]  # time travel goes under the same masks, and the same codes
    assert look(home, "other.people", columns=("mail",))[0]["mail"] != codes[0]  # another use case: no join
    assert look(home, role="administrator", columns=SEEN)[0]["mail"] == SECRET
    with pytest.raises(DeniedError, match="note is withheld"):
        look(home, columns=("note",))


def test_what_was_set_aside_or_made_of_the_rows_is_masked_alike(home: Team) -> None:
    aside = look(home, f"{NAME}.quarantine", columns=("mail", "year", "_text"))
    assert len(aside[0].pop("mail")) == 32
    assert aside[0] == {"year": None, "_text": None}  # not a number: no decade
    assert aside[1] == {"mail": None, "year": None, "_text": None}
    features = look(home, "shop/features/recent")
    assert [row["mail"] for row in features] == [row["mail"] for row in look(home, columns=("mail",))]
    assert [row["year"] for row in features] == [1860, 1880, 1860]
    (logged,) = look(home, "shop/predictions")
    for name in access.LOGGED:
        assert logged[name] == '{"mail":null,"amount":3,"year":null}'


def test_statistics_and_sql_are_those_of_what_goes_out(home: Team) -> None:
    with home.system.store.read() as tx:
        governed = access.governance(tx, "shop")
    reader = access.reader_for(home.system, "shop", governed, policy_principal(home.who("engineer")))
    stream = reader.read(home.system.tables.current(NAME), list(SEEN))
    with duck.connect({"t": stream}, threads=1) as connection:
        found = str(connection.execute("SELECT min(mail), max(zip), min(year), count(DISTINCT mail) FROM t").fetchall())
    assert found.endswith("'75', 1860, 2)]")
    assert not any(text in found for text in (SECRET, OTHER, "75005", "1867"))


def test_errors_and_explanations_hold_no_value(home: Team) -> None:
    for asked in ({"columns": ("mail", "nothing")}, {"columns": ("note",)}, {"version": 7}):
        with pytest.raises(BedplateError) as raised:
            look(home, **asked)
        assert not any(text in str(raised.value) for text in (SECRET, OTHER, "75005"))
    view = home.do("explain_access", who="engineer.one", name=NAME)
    assert view.columns == {
        "id": "", "mail": "hash", "zip": "truncate", "year": "generalise", "income": "noise", "note": "drop",
    }  # fmt: skip


def test_policy_lifts_the_masks_of_one_tag_for_a_group(home: Team) -> None:
    home.member("posting.one", "engineers", "posting")
    home.do(
        "add_policies",
        text="""@id("addresses") @reason("letters are sent to them")
        permit (principal in Group::"posting", action == Action::"unmask", resource is Table)
        when { context.tag == "place" };""",
    )
    try:
        rows = look(home, role="posting.one", columns=SEEN)
        assert [row["zip"] for row in rows] == ["75005", "21000", None]
        assert [row["year"] for row in rows] == [1860, 1880, 1860]  # the mask of its other tag stays
        assert len(rows[0]["mail"]) == 32
        assert look(home, columns=("zip",))[0] == {"zip": "75"}
    finally:
        home.do("remove_policy", policy_id="addresses")


def test_noise_is_paid_for_by_each_person_and_purpose_until_the_budget_is_spent(home: Team) -> None:
    home.member("counting.one", "engineers")
    home.member("counting.two", "engineers")
    seen = [look(home, role="counting.one", columns=("income",)) for _ in range(3)]
    assert all(rows[2]["income"] is None for rows in seen)
    assert len({rows[0]["income"] for rows in seen}) == 3
    start = home.size()
    with pytest.raises(DeniedError, match="privacy budget"):
        look(home, role="counting.one")
    assert home.entries(start) == [("table.read", f"table/{NAME}@1", "deny")]
    assert look(home, role="counting.one", columns=("year",))  # costs none
    assert look(home, role="counting.two", columns=("income",))
    home.do("explain_access", who="counting.one", name=NAME)  # reads nothing, spends nothing
    with home.system.store.read() as tx:
        spent = [tx.privacy.spent("shop", home.who(f"counting.{n}").id, "care") for n in ("one", "two")]
    assert spent == [1.5, 0.5]
    assert look(home, role="administrator", columns=("income",))[0]["income"] == 51_234


def test_reads_at_once_never_overspend(home: Team) -> None:
    home.member("counting.three", "engineers")

    def one(_: int) -> bool:
        try:
            return bool(look(home, role="counting.three", columns=("income",)))
        except DeniedError:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(one, range(8))) == 3


CONTRACT = Path("contracts/invoices.odcs.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    starter(tmp_path / "shop", "shop")
    return tmp_path / "shop"


def _declare(folder: Path, tags: str, governance: str) -> usecase.Loaded:
    contract, file = folder / CONTRACT, folder / "usecase.yaml"
    at, purpose = "      - name: invoice_id\n", "  purpose: credit_control\n"
    contract.write_text(contract.read_text().replace(at, f"{at}        tags: {tags}\n"))
    file.write_text(file.read_text().replace(purpose, purpose + governance))
    return usecase.load(folder)


def test_a_file_names_masks_by_the_tags_of_its_contracts(folder: Path) -> None:
    loaded = _declare(folder, "[who, billing]", "  masks: {who: {kind: hash}}\n")
    checking.masks(loaded)
    said = access.governance_of(loaded)
    assert said.masks == {"who": MaskRule(kind="hash")}
    assert said.tagged == {"invoice_id": ("who",)}
    assert said.hidden == ("invoice_id",)


@pytest.mark.parametrize(
    ("tags", "governance", "match"),
    [
        ("[who]", "  masks: {whoo: {kind: hash}}\n", "whoo.*no column"),
        ("[who]", "  masks: {who: {kind: noise, scale: 1, epsilon: 0}}\n", "above 0"),
        ("[who]", "  masks: {who: {kind: noise, scale: 1, epsilon: 1}}\n", "the budget is 0"),
        ("[who]", "  masks: {who: {kind: truncate, keep: -1}}\n", "from 0"),
    ],
)
def test_masks_that_would_leave_a_column_open_are_refused_with_their_line(
    folder: Path, tags: str, governance: str, match: str
) -> None:
    loaded = _declare(folder, tags, governance)
    with pytest.raises(InputError, match=match) as raised:
        checking.masks(loaded)
    assert "usecase.yaml:" in str(raised.value)


def test_tags_that_are_no_list_of_words_are_refused(folder: Path) -> None:
    with pytest.raises(ContractError, match="tags is a list of words"):
        checking.masks(_declare(folder, "who", "  masks: {who: {kind: hash}}\n"))
