from pathlib import Path

import pyarrow as pa
import pytest

from bedplate.data import predicates
from bedplate.data.masks import Mask, Masks
from bedplate.data.reads import Protection, Reader, ReadRecord
from bedplate.data.tables import Tables
from bedplate.errors import DeniedError, InputError, StorageError
from bedplate.policy import values
from bedplate.policy.filters import RowPolicies
from bedplate.policy.policies import Policies
from bedplate.policy.values import FLOW, Principal, Resource
from bedplate.records import TableVersion

ROWS = pa.table(
    {"id": [1, 2, 3, 4], "name": ["ana", "bo", None, "cy"], "age": pa.array([31, 42, 57, None], pa.int64())}
)
POLICIES = Policies.load()


def _resource(name: str) -> Resource:
    return values.table(name, use_case="u", purposes=("care",))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


@pytest.fixture
def version(tables: Tables) -> TableVersion:
    return tables.write("t", ROWS, mode="overwrite")


def test_rows_go_out_for_the_purpose_that_the_use_case_names(tables: Tables, version: TableVersion) -> None:
    seen: list[ReadRecord] = []
    reader = Reader(tables, POLICIES, FLOW, "care", seen.append, resource_of=_resource)
    assert reader.read(version).read_all().equals(ROWS)
    assert reader.read(version, ["age"]).read_all().to_pydict() == {"age": [31, 42, 57, None]}
    assert [(r.allowed, r.columns, r.purpose, r.table) for r in seen] == [
        (True, ("id", "name", "age"), "care", version),
        (True, ("age",), "care", version),
    ]
    assert "flow" in seen[0].policies


@pytest.mark.parametrize(
    ("principal", "purpose", "reason"),
    [
        (FLOW, "marketing", "only for a purpose"),
        (FLOW, "", "only for a purpose"),
        (Principal(kind="User", id="u", name="eve"), "care", "no policy allows it"),
        (Principal(kind="User", id="u", name="vi", groups=("viewers",)), "care", "no policy allows it"),
    ],
)
def test_what_policy_denies_is_recorded_and_gives_no_row(
    tables: Tables, version: TableVersion, principal: Principal, purpose: str, reason: str
) -> None:
    seen: list[ReadRecord] = []
    with pytest.raises(DeniedError, match=reason):
        Reader(tables, POLICIES, principal, purpose, seen.append, resource_of=_resource).read(version)
    assert [(r.allowed, r.columns) for r in seen] == [(False, ())]


def test_a_read_that_cannot_be_recorded_does_not_happen(tables: Tables, version: TableVersion, tmp_path: Path) -> None:
    for path in tmp_path.rglob("*.parquet"):
        path.unlink()  # touching a row from here on would raise another error

    def fail(record: ReadRecord) -> None:
        raise StorageError("the ledger is full")

    with pytest.raises(StorageError, match="ledger"):
        Reader(tables, POLICIES, FLOW, "care", fail, resource_of=_resource).read(version)


def test_older_versions_are_governed_alike(tables: Tables, version: TableVersion) -> None:
    tables.write("t", ROWS.slice(0, 1), mode="overwrite")
    ignore: list[ReadRecord] = []
    with pytest.raises(DeniedError):
        Reader(tables, POLICIES, FLOW, "other", ignore.append, resource_of=_resource).read(version)
    allowed = Reader(tables, POLICIES, FLOW, "care", ignore.append, resource_of=_resource)
    assert allowed.read(version).read_all().num_rows == 4


def test_an_unknown_column_is_named(tables: Tables, version: TableVersion) -> None:
    ignore: list[ReadRecord] = []
    with pytest.raises(InputError, match="no column 'agee'"):
        Reader(tables, POLICIES, FLOW, "care", ignore.append, resource_of=_resource).read(version, ["agee"])


ENGINEER = Principal(kind="User", id="u9", name="eng", groups=("engineers",))
ADMIN = Principal(kind="User", id="u1", name="admin", groups=("administrators",))
PROTECTION = Protection(
    rows=RowPolicies.load(
        """@id("adults") permit (principal, action, resource) when { resource has age && resource.age >= 40 };
           @id("all") permit (principal in Group::"administrators", action, resource);""",
        predicates.attributes(ROWS.schema),
    ),
    masks=Masks(
        columns={"name": [Mask(kind="hash")]},
        tags={"personal": {"age": [Mask(kind="generalise", step=10)]}},
    ),
)


def _protected(tables: Tables, who: Principal, seen: list[ReadRecord], protection: Protection = PROTECTION) -> Reader:
    return Reader(
        tables,
        POLICIES,
        who,
        "care",
        seen.append,
        resource_of=_resource,
        protection_of=lambda *_: protection,
        mask_key=b"0123456789abcdef",
    )


def test_rows_are_filtered_and_values_masked(tables: Tables, version: TableVersion) -> None:
    seen: list[ReadRecord] = []
    rows = _protected(tables, ENGINEER, seen).read(version).read_all()
    assert rows.select(["id", "age"]).to_pydict() == {"id": [2, 3], "age": [40, 50]}
    code, missing = rows.column("name").to_pylist()
    assert missing is None
    assert len(code) == 32
    assert seen[0].masks == {"name": "hash", "age": "generalise"}
    assert seen[0].row_policies == ("adults",)
    assert _protected(tables, ENGINEER, seen).read(version, ["id"]).read_all().to_pydict() == {"id": [2, 3]}


def test_who_may_unmask_sees_values_as_they_are(tables: Tables, version: TableVersion) -> None:
    seen: list[ReadRecord] = []
    assert _protected(tables, ADMIN, seen).read(version).read_all().equals(ROWS)
    assert seen[0].masks == {}
    assert seen[0].row_policies == ("adults", "all")


def test_a_withheld_column_is_left_out_and_cannot_be_named(tables: Tables, version: TableVersion) -> None:
    seen: list[ReadRecord] = []
    reader = _protected(tables, ENGINEER, seen, Protection(masks=Masks(columns={"name": [Mask(kind="drop")]})))
    assert reader.read(version).read_all().column_names == ["id", "age"]
    with pytest.raises(DeniedError, match="name is withheld"):
        reader.read(version, ["id", "name"])
    assert [record.allowed for record in seen] == [True, False]


def test_protection_that_does_not_fit_the_table_shows_nothing(tables: Tables, version: TableVersion) -> None:
    seen: list[ReadRecord] = []
    mistyped = Protection(masks=Masks(columns={"nane": [Mask(kind="drop")]}))
    with pytest.raises(InputError, match="nane"):
        _protected(tables, ENGINEER, seen, mistyped).read(version)
    older = tables.write("t", pa.table({"id": [1], "name": ["ana"], "age": ["41"]}), mode="overwrite")
    with pytest.raises(DeniedError, match="age, which this version has not"):
        _protected(tables, ENGINEER, seen).read(older)
    assert seen[-1].allowed is False


def test_rows_can_be_looked_up_by_what_is_not_hidden(tables: Tables, version: TableVersion) -> None:
    seen: list[ReadRecord] = []
    reader = _protected(tables, ENGINEER, seen)
    assert reader.read(version, ["id"], where={"id": 3}).read_all().to_pydict() == {"id": [3]}
    assert reader.read(version, where={"id": 1}).read_all().num_rows == 0  # a row policy keeps it in
    for hidden in ({"name": "ana"}, {"id": 2, "age": 42}):
        with pytest.raises(DeniedError, match="is masked"):
            reader.read(version, ["id"], where=hidden)
    with pytest.raises(InputError, match="no column 'nane'"):
        reader.read(version, where={"nane": "ana"})
    assert [record.allowed for record in seen] == [True, True, False, False]
    found = _protected(tables, ADMIN, seen).read(version, ["id"], where={"name": "ana"}).read_all()
    assert found.to_pydict() == {"id": [1]}
