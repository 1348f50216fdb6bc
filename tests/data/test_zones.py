"""Times with a zone and times without are never taken for one another: from the source to a feature."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bedplate.data import contract_diff, contracts, incremental, infer, replay
from bedplate.data import ingest as ingestion
from bedplate.data.tables import Tables
from bedplate.errors import ContractError, InputError
from bedplate.usecase.types import DataSet, Incremental, Source

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
BARE, ZONED, LISBON = pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Lisbon")
OPEN: dict[str, Any] = {}
NONE, IN_LISBON = {"timezone": False}, {"timezone": True, "defaultTimezone": "Europe/Lisbon"}


class Place:
    """A folder with one data set, read whole or batch by batch."""

    def __init__(self, folder: Path, options: dict[str, Any], *, batches: bool = False, **more: Any) -> None:
        self.folder, self.tables = folder, Tables(folder / "tables")
        self.wanted = Incremental(watermark="id") if batches else None
        at = {"name": "at", "logicalType": "timestamp", "logicalTypeOptions": options, **more}
        self.text = contract(at)
        (folder / "c.odcs.yaml").write_text(self.text)

    def bring(self, kind: pa.DataType | None, *values: Any, first: int = 1) -> pa.ChunkedArray:
        """What stands in the column after rows came in: typed, by Parquet, or as text, by CSV."""
        numbers = list(range(first, first + len(values)))
        if kind is not None:
            pq.write_table(pa.table({"id": numbers, "at": pa.array(values, kind)}), self.folder / "rows.parquet")
        else:
            lines = [f"{number},{value}" for number, value in zip(numbers, values, strict=True)]
            (self.folder / "rows.csv").write_text("\n".join(["id,at", *lines, ""]))
        self.spec = DataSet(
            contract="c.odcs.yaml",
            source=Source(
                kind="csv" if kind is None else "parquet", path=f"rows.{'csv' if kind is None else 'parquet'}"
            ),
            incremental=self.wanted,
        )
        made = ingestion.ingest(
            self.tables, use_case="u", dataset="t", spec=self.spec, folder=self.folder, key=str(values)
        )
        return self.column(made.table)

    def column(self, version: Any) -> pa.ChunkedArray:
        return self.tables.scan(version).read_all().column("at")


def contract(at: dict[str, Any]) -> str:
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "t", "version": "1.0.0", "status": "active"}
    key = {"name": "id", "logicalType": "integer", "primaryKey": True}
    return yaml.safe_dump({**head, "schema": [{"name": "t", "properties": [key, at]}]}, sort_keys=False)


KEPT: dict[str, tuple[dict[str, Any], pa.DataType | None, Any, Any]] = {
    # what the contract says, what comes in, and as what it is kept
    "open, a moment": (OPEN, LISBON, NOON, (ZONED, NOON)),
    "open, a clock": (OPEN, BARE, NOON.replace(tzinfo=None), (BARE, NOON.replace(tzinfo=None))),
    "Lisbon, a clock": (IN_LISBON, BARE, datetime(2024, 5, 1, 13), (ZONED, NOON)),
    "Lisbon, a moment": (IN_LISBON, LISBON, NOON, (ZONED, NOON)),
    "Lisbon, a day": (IN_LISBON, pa.date32(), NOON.date(), (ZONED, datetime(2024, 4, 30, 23, tzinfo=UTC))),
    "Lisbon, text": (IN_LISBON, None, "2024-05-01 13:00:00", (ZONED, NOON)),
    "Lisbon, text with a zone": (IN_LISBON, None, "2024-05-01T14:00:00+02:00", (ZONED, NOON)),
    "open, text with a zone": (OPEN, None, "2024-05-01T14:00:00+02:00", (BARE, NOON.replace(tzinfo=None))),
    "none, a clock": (NONE, BARE, NOON.replace(tzinfo=None), (BARE, NOON.replace(tzinfo=None))),
    "none, a moment": (NONE, LISBON, NOON, "the contract .* says timestamp without a zone"),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_comes_in_is_kept_as_what_it_is_or_refused(tmp_path: Path, case: str) -> None:
    options, kind, value, kept = KEPT[case]
    place = Place(tmp_path, options)
    if isinstance(kept, str):
        with pytest.raises(ContractError, match=kept):
            place.bring(kind, value)
        return
    found = place.bring(kind, value)
    assert (found.type, found.to_pylist()) == (kept[0], [kept[1]])


def test_texts_of_which_some_name_a_zone_need_a_contract_that_says_what_the_others_are(tmp_path: Path) -> None:
    place = Place(tmp_path, OPEN)
    for alike in (["2024-05-01T12:00:00Z", "2024-05-01T14:00:00+02:00"], ["2024-05-01 12:00:00", "2024-05-01"]):
        place.bring(None, *alike)
    for mixed in (["2024-05-01T12:00:00Z", "2024-05-01 13:00:00"], ["2024-05-01", "", "2024-05-01T12:00:00+0200"]):
        with pytest.raises(ContractError, match="some times in at name a zone") as caught:
            place.bring(None, *mixed)
        assert "defaultTimezone" in str(caught.value)


def test_what_is_added_to_a_table_has_its_clock(tmp_path: Path) -> None:
    place = Place(tmp_path, OPEN, batches=True)
    place.bring(LISBON, NOON)
    assert place.bring(None, "2024-05-01T15:00:00+02:00", first=2).to_pylist() == [NOON, NOON.replace(hour=13)]
    with pytest.raises(ContractError, match="in the source or in the table, do not"):
        place.bring(None, "2024-05-01 16:00:00", first=3)
    with pytest.raises(ContractError, match=r"at was timestamp.*tz=UTC. and is timestamp.us."):
        place.bring(BARE, NOON.replace(tzinfo=None), first=3)


def test_what_was_set_aside_comes_back_as_the_moment_that_it_was(tmp_path: Path) -> None:
    place = Place(tmp_path, {"minimum": "2024-06-01T00:00:00"}, batches=True)
    place.bring(LISBON, NOON.replace(month=7), NOON)
    (tmp_path / "c.odcs.yaml").write_text(place.text.replace("2024-06-01", "2024-01-01"))
    again = replay.replay(place.tables, use_case="u", dataset="t", spec=place.spec, folder=tmp_path)
    found = place.column(again.table)
    assert (again.accepted, found.type, found.to_pylist()) == (1, ZONED, [NOON.replace(month=7), NOON])


@pytest.mark.parametrize(
    ("options", "limit", "left"),
    [
        (IN_LISBON, "2024-05-01T13:30:00", 1),  # half past twelve in UTC
        (IN_LISBON, "2024-05-01T12:30:00Z", 1),
        (IN_LISBON, "2024-05-01T14:00:00", 0),
        (NONE, "2024-05-01T12:30:00", 1),
    ],
)
def test_a_limit_is_of_the_zone_of_its_column(tmp_path: Path, options: dict[str, Any], limit: str, left: int) -> None:
    place = Place(tmp_path, {**options, "minimum": limit}, quality=[])
    clock = datetime(2024, 5, 1, 13 if options is NONE else 14, 45)
    values = [clock.replace(hour=clock.hour - 1, minute=15), clock]
    if left:
        assert len(place.bring(BARE, *values)) == left if limit[-1] != "Z" else True
    else:
        assert len(place.bring(BARE, *values)) == 1


def test_what_is_no_limit_of_a_clock_is_told_with_its_line(tmp_path: Path) -> None:
    text = contract(
        {"name": "at", "logicalType": "timestamp", "logicalTypeOptions": {**NONE, "minimum": "2024-05-01T12:00Z"}}
    )
    with pytest.raises(ContractError, match=r"line .*names a zone, which times of this column do not"):
        contracts.parse_contract(text.encode(), "c")


def test_values_inside_of_values_have_the_zone_that_the_contract_says(tmp_path: Path) -> None:
    def listed(options: dict[str, Any]) -> str:
        inner = {"logicalType": "timestamp", "logicalTypeOptions": options}
        return contract({"name": "at", "logicalType": "array", "items": inner})

    place = Place(tmp_path, OPEN)
    text = '"[""2024-05-01T13:00:00"", ""2024-05-01T12:00:00Z""]"'
    (tmp_path / "c.odcs.yaml").write_text(listed(IN_LISBON))
    assert place.bring(None, text).to_pylist() == [[NOON, NOON]]
    with pytest.raises(ContractError, match="column at is list"):
        place.bring(pa.list_(BARE), [NOON.replace(tzinfo=None)])
    (tmp_path / "c.odcs.yaml").write_text(listed(NONE))
    with pytest.raises(ContractError, match="all 1 rows break the contract"):
        place.bring(None, text)
    with pytest.raises(ContractError, match="column at is list"):
        place.bring(pa.list_(ZONED), [NOON])


def test_rows_of_another_clock_are_not_written_into_a_table(tmp_path: Path) -> None:
    tables = Tables(tmp_path / "tables")
    bare, zoned = (pa.table({"at": pa.array([NOON], kind)}) for kind in (BARE, ZONED))
    tables.write("t", zoned, mode="append")
    with pytest.raises(InputError):
        tables.write("t", bare, mode="append")
    nested = [pa.table({"at": pa.array([{"x": [NOON]}], pa.struct([("x", pa.list_(kind))]))}) for kind in (BARE, ZONED)]
    for first, second in ((bare, zoned), nested):
        with (
            pytest.raises(InputError, match="rows come with"),
            tables.stage("other", [*first.to_batches(), *second.to_batches()], first.schema),
        ):
            pass
    assert tables.scan(tables.current("t")).read_all().column("at").to_pylist() == [NOON]


def test_a_reference_does_not_compare_a_moment_with_a_clock(tmp_path: Path) -> None:
    place = Place(tmp_path, OPEN, relationships=[{"type": "foreignKey", "to": "days.at"}])
    place.tables.write("u.days", pa.table({"at": pa.array([NOON], ZONED)}), mode="overwrite")
    assert place.bring(LISBON, NOON).to_pylist() == [NOON]
    with pytest.raises(ContractError, match="compares moments with times that name no zone"):
        place.bring(BARE, NOON.replace(tzinfo=None))


def test_a_range_that_names_a_zone_is_of_that_zone() -> None:
    model = contracts.parse_contract(contract({"name": "at", "logicalType": "timestamp"}).encode(), "c").model("t")
    found = incremental.window(model, Incremental(watermark="at"), "2024-05-01T14:00+02:00", "2024-05-01T13:00")
    assert (found.since, found.until) == (datetime(2024, 5, 1, 12), datetime(2024, 5, 1, 13))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2024-05-01T12:00:00Z", {"timezone": True}),
        ("2024-05-01 12:00:00", {"timezone": False}),
    ],
)
def test_an_inferred_contract_says_whether_times_name_a_zone(tmp_path: Path, text: str, said: dict[str, Any]) -> None:
    (tmp_path / "rows.csv").write_text(f"id,at\n1,{text}\n2,\n")
    made = infer.infer(tmp_path / "rows.csv", "csv", "t")
    assert yaml.safe_load(made)["schema"][0]["properties"][1]["logicalTypeOptions"] == said
    kind = ZONED if said["timezone"] else BARE
    pq.write_table(pa.table({"at": pa.array([None, NOON], kind)}), tmp_path / "rows.parquet")
    typed = yaml.safe_load(infer.infer(tmp_path / "rows.parquet", "parquet", "t"))
    assert typed["schema"][0]["properties"][0]["logicalTypeOptions"] == said
    (tmp_path / "rows.csv").write_text("id,at\n1,2024-05-01T12:00:00Z\n2,2024-05-01 12:00:00\n")
    mixed = yaml.safe_load(infer.infer(tmp_path / "rows.csv", "csv", "t"))
    assert mixed["schema"][0]["properties"][1]["logicalType"] == "string"


def test_another_zone_is_a_change_that_breaks(tmp_path: Path) -> None:
    def model(options: dict[str, Any]) -> Any:
        at = {"name": "at", "logicalType": "timestamp", "logicalTypeOptions": options}
        return contracts.parse_contract(contract(at).encode(), "c").model("t")

    for old, new, what, breaks in (
        (OPEN, NONE, "times might name a zone or not, and times named no zone now", "both"),
        (NONE, IN_LISBON, "times named no zone, and times that named none were of Europe/Lisbon now", "both"),
        (OPEN, {"format": "dd.MM.yyyy HH:mm"}, "the format was ISO 8601 and is dd.MM.yyyy HH:mm", "source"),
    ):
        (change,) = contract_diff.compare(model(old), model(new))
        assert (change.what, change.breaks) == (what, breaks)
