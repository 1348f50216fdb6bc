"""Rows batch by batch: each once, late ones as declared, set-aside ones after the contract is corrected."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bedplate.data import incremental, replay
from bedplate.data import ingest as ingestion
from bedplate.data.tables import Tables
from bedplate.errors import ContractError, InputError, NotFoundError
from bedplate.records import IngestResult
from bedplate.usecase.types import DataSet, Incremental, Source

CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: orders
version: 1.0.0
status: active
schema:
- name: orders
  {more}
  properties:
  - {{name: id, logicalType: integer, primaryKey: true}}
  - {{name: day, logicalType: timestamp}}
  - {{name: cost, logicalType: number, logicalTypeOptions: {{minimum: {least}}}}}
  {extra}
"""


class Shop:
    """A folder with one data set, its source a CSV file."""

    def __init__(self, folder: Path, **wanted: Any) -> None:
        self.folder, self.tables = folder, Tables(folder / "tables")
        self.spec = DataSet(
            contract="c.odcs.yaml",
            source=Source(kind="csv", path="rows.csv"),
            incremental=Incremental(watermark="day", **wanted),
        )
        self.contract()

    def contract(self, least: int = 0, extra: str = "", more: str = "description: x") -> None:
        text = CONTRACT.format(least=least, extra=extra, more=more)
        (self.folder / "c.odcs.yaml").write_text(text)

    def bring(self, *rows: str, head: str = "id,day,cost", window: Any = None) -> IngestResult:
        (self.folder / "rows.csv").write_text("\n".join([head, *rows]) + "\n")
        return ingestion.ingest(
            self.tables, use_case="u", dataset="orders", spec=self.spec, folder=self.folder, key="k", window=window
        )

    def replay(self) -> replay.Replayed:
        return replay.replay(self.tables, use_case="u", dataset="orders", spec=self.spec, folder=self.folder)

    def ids(self, name: str = "u.orders") -> list[Any]:
        return sorted(self.tables.scan(self.tables.current(name)).read_all().column("id").to_pylist())


FIRST = ("1,2026-01-01,5", "2,2026-01-02,6")


def test_a_batch_that_comes_again_is_there_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    first = shop.bring(*FIRST)
    again = shop.bring(*FIRST)
    assert (again.accepted, again.known, again.table) == (0, 2, first.table)
    more = shop.bring(*FIRST, "3,2026-01-03,7")
    assert (more.read, more.accepted, more.known, more.rejected) == (3, 1, 2, 0)
    assert shop.ids() == [1, 2, 3]
    assert shop.tables.version("u.orders", 0).rows == 2


@pytest.mark.parametrize(("late", "accepted"), [("accept", 3), ("refuse", 2)])
def test_late_rows_are_counted_and_treated_as_declared(tmp_path: Path, late: str, accepted: int) -> None:
    shop = Shop(tmp_path, lateness=86_400.0, late=late)
    shop.bring(*FIRST)
    result = shop.bring("3,2025-12-31T23:59,1", "4,2026-01-01,1", "5,2026-02-01,1")
    assert (result.late, result.accepted, result.rejected) == (1, accepted, 3 - accepted)
    if late == "refuse":
        aside = shop.tables.scan(shop.tables.current("u.orders.quarantine")).read_all().to_pylist()
        assert [(row["id"], row["_rules"]) for row in aside] == [("3", ["late"])]
        assert shop.replay().accepted == 1  # somebody decided otherwise


def test_a_backfill_brings_in_its_range_alone(tmp_path: Path) -> None:
    shop = Shop(tmp_path, late="refuse")
    shop.bring("9,2026-03-01,1")
    model = ingestion.contracts.load(tmp_path / "c.odcs.yaml").model("orders")
    assert shop.spec.incremental is not None
    window = incremental.window(model, shop.spec.incremental, "2026-01-01", "2026-01-03")
    rows = ("1,2025-12-31,1", "2,2026-01-01,1", "3,2026-01-02T23:59:59,1", "4,2026-01-03,1", "9,2026-03-01,1")
    result = shop.bring(*rows, window=window)
    assert (result.read, result.accepted, result.known, result.outside, result.late) == (5, 2, 1, 2, 0)
    assert shop.ids() == [2, 3, 9]
    assert shop.bring(*rows, window=window).accepted == 0
    for since, until in (("soon", None), ("2026-01-02", "2026-01-01")):
        with pytest.raises(InputError):
            incremental.window(model, shop.spec.incremental, since, until)


def test_rows_set_aside_stay_over_batches_and_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.bring(*FIRST, "3,2026-01-03,-1")
    shop.bring("4,2026-01-04,-2", *FIRST, "3,2026-01-03,-1")
    assert shop.ids("u.orders.quarantine") == ["3", "4"]


def test_a_replay_brings_in_what_keeps_the_corrected_contract_once(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.bring(*FIRST, "2,2026-01-02,9", "3,2026-01-03,-1", "4,2026-01-04,-9", "one,two", "5,never,1")
    assert shop.replay().accepted == 0
    shop.contract(least=-5)
    quarantine = shop.tables.current("u.orders.quarantine")
    done = shop.replay()
    assert (done.read, done.accepted, done.left) == (5, 1, 4)
    assert shop.ids() == [1, 2, 3]
    aside = shop.tables.scan(shop.tables.current("u.orders.quarantine")).read_all().to_pylist()
    assert sorted((row["_source_row"], row["id"]) for row in aside) == [(3, "2"), (5, "4"), (6, None), (7, "5")]
    assert shop.replay().accepted == 0
    with shop.tables.staged(quarantine) as staged:  # killed after the table was written, before the quarantine was
        staged.commit(mode="overwrite")
    again = shop.replay()
    assert (again.accepted, again.known, again.left) == (0, 1, 4)
    assert shop.ids() == [1, 2, 3]


def test_a_contract_may_gain_columns_and_not_lose_them(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.bring(*FIRST)
    with pytest.raises(ContractError, match="note is not in the contract"):
        shop.bring("3,2026-01-03,1,x", head="id,day,cost,note")
    shop.contract(more="customProperties: [{property: additionalColumns, value: ignore}]")
    shop.bring("3,2026-01-03,1,x", head="id,day,cost,note")
    shop.contract(extra="- {name: note, logicalType: string}")
    result = shop.bring("4,2026-01-04,1,y", head="id,day,cost,note")
    rows = shop.tables.scan(result.table).read_all()
    assert dict(zip(rows.column("id").to_pylist(), rows.column("note").to_pylist(), strict=True)) == {
        1: None, 2: None, 3: None, 4: "y",
    }  # fmt: skip
    shop.contract()
    with pytest.raises(ContractError, match="note was string and is gone"):
        shop.bring("5,2026-01-05,1")
    assert shop.ids() == [1, 2, 3, 4]


def test_what_cannot_be_known_again_is_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    path = tmp_path / "c.odcs.yaml"
    path.write_text(path.read_text().replace(", primaryKey: true", ""))
    with pytest.raises(ContractError, match="need a primary key"):
        shop.bring(*FIRST)
    path.write_text(path.read_text().replace("name: day", "name: moment"))
    with pytest.raises(ContractError, match="watermark day is no"):
        shop.bring(*FIRST)
    shop.contract()
    with pytest.raises(NotFoundError):
        shop.replay()


def test_a_database_is_asked_for_what_is_new(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("CREATE TABLE orders (id int, day text, cost real)")
        database.executemany(
            "INSERT INTO orders VALUES (?, ?, 1)", [(i, f"2026-01-{i:02} 00:00:00") for i in range(1, 21)]
        )
        database.commit()
    shop = Shop(tmp_path, lateness=2 * 86_400.0)
    query = "SELECT id, day, cost FROM orders WHERE day >= :since AND day < :until"
    spec = DataSet(
        contract="c.odcs.yaml",
        source=Source(kind="sql", path="shop.db", query=query),
        incremental=shop.spec.incremental,
    )
    shop.spec = spec
    assert shop.bring().accepted == 20
    again = shop.bring()
    assert (again.read, again.known, again.accepted) == (3, 3, 0)
    assert isinstance(shop.tables.scan(again.table).read_all(), pa.Table)
