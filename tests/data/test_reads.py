from pathlib import Path

import pyarrow as pa
import pytest

from bedplate.data.reads import Reader, ReadRecord
from bedplate.data.tables import Tables
from bedplate.errors import DeniedError, InputError, StorageError
from bedplate.policy import values
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
