"""The known ways around row filters and masks, one test each: none of them tells what is hidden."""

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from bedplate.data import duck, ingest, reads
from bedplate.data import tables as tables_module
from bedplate.data.masks import Mask, Masks
from bedplate.data.predicates import attributes
from bedplate.data.reads import Protection, Reader, ReadRecord
from bedplate.data.tables import Tables
from bedplate.errors import BedplateError, ContractError, DeniedError, InputError
from bedplate.features import join
from bedplate.features.point_in_time import compute_view
from bedplate.features.views import FeatureView
from bedplate.policy import values
from bedplate.policy.filters import RowPolicies
from bedplate.policy.policies import InForce, Policies
from bedplate.policy.values import Principal
from bedplate.records import TableVersion
from bedplate.serve.state import packed
from bedplate.usecase.types import DataSet, Source

pytestmark = pytest.mark.slow

SECRET = "123-45-6789"
HIDDEN = "987-65-4321"
ROWS = pa.table(
    {
        "id": [1, 2, 3],
        "ssn": [SECRET, "111-11-1111", HIDDEN],
        "region": ["north", "north", "south"],
        "income": [90_000, 10_000, 50_000],
        "born": [dt.date(1990, 5, 6), dt.date(1950, 1, 2), dt.date(1970, 3, 4)],
    }
)
MASKS = Masks(
    columns={
        "ssn": [Mask(kind="hash")],
        "income": [Mask(kind="generalise", step=100_000)],
        "born": [Mask(kind="null")],
    }
)
POLICIES = Policies.load()
ENGINEER = Principal(kind="User", id="u9", name="eng", groups=("engineers",))
ADMIN = Principal(kind="User", id="u1", name="admin", groups=("administrators",))
NORTH = RowPolicies.load(
    """@id("north") permit (principal, action, resource) when { resource has region && resource.region == "north" };
       @id("all") permit (principal in Group::"administrators", action, resource);""",
    attributes(ROWS.schema),
)
PROTECTION = Protection(rows=NORTH, masks=MASKS)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


@pytest.fixture
def version(tables: Tables) -> TableVersion:
    return tables.write("t", ROWS, mode="overwrite")


def reader(
    tables: Tables,
    who: Principal = ENGINEER,
    *,
    policies: Policies | InForce = POLICIES,
    protection: Protection = PROTECTION,
    seen: list[ReadRecord] | None = None,
    now: Callable[[], Principal | None] | None = None,
) -> Reader:
    return Reader(
        tables,
        policies,
        who,
        "care",
        (seen if seen is not None else []).append,
        resource_of=lambda name: values.table(name, use_case="u", purposes=("care",)),
        protection_of=lambda *_: protection,
        mask_key=b"0123456789abcdef",
        now=now,
    )


def query(stream: pa.RecordBatchReader, sql: str) -> list[Any]:
    with duck.connect({"t": stream}, threads=1) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT count(*) FROM t WHERE ssn = '{SECRET}'",
        "SELECT count(*) FROM t WHERE income > 80000",
        "SELECT count(*) FROM t WHERE born < DATE '1960-01-01'",
        f"SELECT count(*) FROM t JOIN (VALUES ('{SECRET}')) AS guess(v) ON t.ssn = guess.v",
        "SELECT count(*) FROM (SELECT income FROM t GROUP BY income HAVING income >= 90000)",
    ],
    ids=["where", "range", "null", "join", "group"],
)
def test_a_masked_column_cannot_be_searched_by_where_join_or_group(
    tables: Tables, version: TableVersion, sql: str
) -> None:
    assert query(reader(tables).read(version), sql) == [(0,)]


def test_a_look_up_by_a_masked_column_is_denied_before_a_row_is_read(tables: Tables, version: TableVersion) -> None:
    for where in ({"ssn": SECRET}, {"income": 90_000}, {"id": 1, "born": dt.date(1990, 5, 6)}):
        with pytest.raises(DeniedError, match="is masked"):
            reader(tables).read(version, ["id"], where=where)


@pytest.mark.parametrize("column", ["ssn", "income", "born"])
def test_sorting_by_a_masked_column_sorts_by_the_mask(tables: Tables, version: TableVersion, column: str) -> None:
    """Asked for the lowest income first, nobody learns whose it is."""
    rows = reader(tables).read(version).read_all()
    by_sql = query(rows.to_reader(), f"SELECT id FROM t ORDER BY {duck.quote(column)}, id")
    by_mask = sorted(rows.to_pylist(), key=lambda row: (str(row[column]), row["id"]))
    assert [n for (n,) in by_sql] == [row["id"] for row in by_mask]
    assert rows["income"].to_pylist() == [0, 0]


def test_rows_that_are_kept_in_cannot_be_told_from_rows_that_are_not_there(
    tables: Tables, version: TableVersion
) -> None:
    """Looking for one at a time: limit 1 and a condition."""
    for where in ({"id": 3}, {"id": 4}, {"region": "south"}, {"region": "nowhere"}):
        found = reader(tables).read(version, ["id"], where=where)
        assert (found.schema.names, found.read_all().num_rows) == (["id"], 0)


def test_statistics_are_those_of_what_goes_out(tables: Tables, version: TableVersion) -> None:
    assert reader(tables).read(version, ["born"]).read_all().to_pydict() == {"born": [None, None]}
    found = query(reader(tables).read(version), "SELECT min(income), max(income), max(id), count(*) FROM t")
    assert found == [(0, 0, 2, 2)]
    summary = str(query(reader(tables).read(version), "SELECT * FROM (SUMMARIZE t)"))
    assert not any(text in summary for text in (SECRET, HIDDEN, "90000", "1990", "south"))


def test_the_log_keeps_no_least_or_greatest_value(tables: Tables, version: TableVersion, tmp_path: Path) -> None:
    tables.write("t", ROWS, mode="append")
    logs = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    assert any(path.suffix == ".json" for path in logs)
    for path in logs:
        assert not any(text.encode() in path.read_bytes() for text in (SECRET, HIDDEN, "90000"))


def test_no_dictionary_or_buffer_carries_values_that_do_not_go_out(tables: Tables) -> None:
    coded = ROWS.set_column(1, "ssn", ROWS["ssn"].dictionary_encode())
    version = tables.write("coded", coded, mode="overwrite")
    open_ = Protection(rows=NORTH)
    sink = pa.BufferOutputStream()
    stream = reader(tables, protection=open_).read(version)
    assert not any(pa.types.is_dictionary(field.type) for field in stream.schema)
    with pa.ipc.new_stream(sink, stream.schema) as writer:
        for batch in stream:
            writer.write_batch(batch)
    data = sink.getvalue().to_pybytes()
    assert SECRET.encode() in data  # a row of the north goes out whole
    assert HIDDEN.encode() not in data
    assert b"south" not in data


def test_explaining_a_query_shows_nothing_more(tables: Tables, version: TableVersion) -> None:
    for word in ("EXPLAIN", "EXPLAIN ANALYZE"):
        plan = str(query(reader(tables).read(version), f"{word} SELECT * FROM t WHERE income > 5"))
        assert not any(text in plan for text in (SECRET, HIDDEN, "north", "south", "90000"))
        assert "3 rows" not in plan.lower()


VIEW = FeatureView(
    name="v", entity=("id",), times={"t": "moment"}, rows=True, sql="SELECT id, moment, income, 1 AS there FROM t"
)
WHEN = pa.array([dt.datetime(2026, 1, 1)] * 3, pa.timestamp("us"))
LATER = pa.table({"id": [1, 2, 3], "asked": pa.array([dt.datetime(2026, 2, 1)] * 3, pa.timestamp("us"))})
CUT = [dt.datetime(2026, 2, 1, tzinfo=dt.UTC)]


def _sql(stream: pa.RecordBatchReader, sql: str) -> bytes:
    return str(query(stream, sql)).encode()


def _file(stream: pa.RecordBatchReader, write: Callable[[pa.Table, Any], object]) -> bytes:
    sink = pa.BufferOutputStream()
    write(stream.read_all(), sink)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _frame(stream: pa.RecordBatchReader) -> bytes:
    import polars

    return polars.from_arrow(stream.read_all()).write_json().encode()  # type: ignore[union-attr]


WAYS_OUT: dict[str, Callable[[pa.RecordBatchReader], bytes]] = {
    "parquet": lambda rows: _file(rows, lambda table, sink: pq.write_table(table, sink, compression="none")),
    "csv": lambda rows: _file(rows, csv.write_csv),
    "arrow": lambda rows: _file(rows, lambda table, sink: pa.ipc.new_file(sink, table.schema).write_table(table)),
    "frame": _frame,
    "sql": lambda rows: _sql(rows, "SELECT * FROM t"),
    "statistics": lambda rows: _sql(rows, "SELECT * FROM (SUMMARIZE t)"),
    "histogram": lambda rows: _sql(rows, "SELECT histogram(income), list(ssn), max(born), mode(region) FROM t"),
    "features": lambda rows: str(compute_view(VIEW, lambda _: rows, CUT).to_pydict()).encode(),
    "join": lambda rows: str(join(LATER, "asked", [VIEW], lambda _: rows).to_pydict()).encode(),
    "online": lambda rows: b"".join(value for _, value in packed(compute_view(VIEW, lambda _: rows, CUT), ("id",))),
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_masks_and_filters_hold_on_every_way_out(tables: Tables, way: str) -> None:
    """What leaves a governed read in any form is what went in: two rows of the north, their values masked."""
    version = tables.write("t", ROWS.append_column("moment", WHEN), mode="overwrite")
    masked, open_ = (WAYS_OUT[way](reader(tables, who).read(version)) for who in (ENGINEER, ADMIN))
    incomes = [np.float32(income).tobytes() for income in (90_000, 10_000, 50_000)] if way == "online" else []
    hidden = [SECRET.encode(), HIDDEN.encode(), b"south", b"90000", b"10000", b"50000", b"1990", *incomes]
    assert any(value in open_ for value in hidden)
    assert not any(value in masked for value in hidden)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY t TO 'out.csv'",
        "COPY (SELECT * FROM t) TO 'out.parquet' (FORMAT parquet)",
        "EXPORT DATABASE 'out'",
        "ATTACH 'out.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
    ],
)
def test_sql_exports_nothing_by_itself(tables: Tables, version: TableVersion, sql: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with (
        duck.connect({"t": reader(tables).read(version)}, threads=1) as connection,
        pytest.raises(duck.duckdb.Error, match=r"(?i)disabled|locked|permission"),
    ):
        connection.execute(sql.replace("'out", f"'{tmp_path}/out"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM query('SELECT * FROM raw')",
        "SELECT * FROM query_table('raw')",
        "SELECT * FROM raw",
        "SELECT * FROM read_parquet('**/*.parquet')",
        "SELECT * FROM parquet_metadata('**/*.parquet')",
        "SELECT * FROM parquet_scan('**/*.parquet')",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM pandas_scan(1)",
        "SELECT * FROM python_map_function(1)",
        "SELECT getenv('HOME')",
        "SELECT * FROM sniff_csv('/etc/hostname')",
        "FROM duckdb_logs()",
        "CALL enable_logging()",
        "SELECT * FROM read_duckdb('x')",
    ],
)
def test_no_function_of_duckdb_reaches_rows_beside_the_governed_ones(
    tables: Tables, version: TableVersion, sql: str
) -> None:
    raw = ROWS  # what a replacement scan would find
    with duck.connect({"t": reader(tables).read(version)}, threads=1) as connection:
        try:
            found = str(connection.execute(sql).fetchall())
        except duck.duckdb.Error as error:
            found = str(error)
        assert not any(text in found for text in (SECRET, HIDDEN, str(Path.home()) + "'"))
    assert raw.num_rows == 3


def test_every_version_is_filtered_and_masked_alike(tables: Tables, version: TableVersion) -> None:
    later = tables.write("t", ROWS.slice(0, 1), mode="append")
    for each in (version, later):
        rows = reader(tables).read(each).read_all()
        assert set(rows["region"].to_pylist()) == {"north"}
        assert rows["born"].null_count == rows.num_rows
        assert SECRET not in str(rows.to_pydict())


def test_what_somebody_else_read_before_is_not_given_out_again(tables: Tables, version: TableVersion) -> None:
    """Decisions and filters are remembered by who asks, groups included: of the same id one group more is another."""
    for _ in range(2):
        assert reader(tables, ADMIN).read(version).read_all().equals(ROWS)
        masked = reader(tables).read(version).read_all()
        assert (masked.num_rows, masked["born"].null_count) == (2, 2)
        demoted = Principal(kind="User", id=ADMIN.id, name=ADMIN.name, groups=("engineers",))
        assert reader(tables, demoted).read(version).read_all().equals(masked)
        with pytest.raises(DeniedError):
            reader(tables, Principal(kind="User", id=ADMIN.id, name=ADMIN.name)).read(version)


FROZEN = """@id("frozen") @reason("frozen") forbid (principal, action == Action::"read", resource is Table);"""


@pytest.mark.parametrize(
    "change",
    [
        lambda force, who: setattr(force, "now", Policies.load(FROZEN)),
        lambda force, who: who.update(now=None),
        lambda force, who: who.update(now=Principal(kind="User", id="u1", name="admin", groups=("engineers",))),
    ],
    ids=["policy", "disabled", "group"],
)
def test_a_right_that_is_taken_ends_a_stream_that_is_being_read(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, change: Callable[[InForce, dict[str, Any]], object]
) -> None:
    """Within the second in which a stream asks again; here it asks at every batch."""
    assert reads._LOOK_AGAIN <= 1.0
    monkeypatch.setattr(reads, "_LOOK_AGAIN", 0.0)
    many = pa.table({"region": pa.array(["north"] * (3 << 18)), "ssn": pa.nulls(3 << 18, pa.string())})
    many = many.append_column("income", pa.nulls(len(many), pa.int64())).append_column(
        "born", pa.nulls(len(many), pa.date32())
    )
    version = tables.write("many", many, mode="overwrite")
    force, who, seen = InForce(POLICIES), {"now": ADMIN}, list[ReadRecord]()
    protection = Protection(masks=MASKS)
    stream = reader(tables, ADMIN, policies=force, protection=protection, seen=seen, now=lambda: who["now"]).read(
        version
    )
    assert next(stream).num_rows
    change(force, who)
    with pytest.raises(DeniedError, match="changed while it was read"):
        stream.read_all()
    assert [record.allowed for record in seen] == [True, False]


# ---------------------------------------------------------------------------------------------------- what is said

CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: t
version: 1.0.0
status: active
schema:
  - name: people
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: ssn, logicalType: string, logicalTypeOptions: {pattern: "^[0-9]*$"}}
      - {name: born, logicalType: date}
    quality:
      - {name: rows, type: library, metric: rowCount, mustBeGreaterOrEqualTo: %(least)d, severity: error}
      - {name: sum, type: sql, query: "%(sql)s", mustBe: 1, severity: error}
"""
BAD_LINES = f"id,ssn,born\n{SECRET},1,2\n1,{SECRET},2000-01-01\n2,2,{SECRET}\n3,{SECRET},too,many\n4,7,2001-01-01\n"


def _ingested(folder: Path, sql: str, least: int = 1, sensitive: tuple[str, ...] = ()) -> Any:
    (folder / "people.csv").write_text(BAD_LINES)
    (folder / "c.odcs.yaml").write_text(CONTRACT % {"sql": sql, "least": least})
    spec = DataSet(contract="c.odcs.yaml", source=Source(kind="csv", path="people.csv"))
    return ingest.ingest(
        Tables(folder / "tables"), use_case="u", dataset="people", spec=spec, folder=folder, key="k",
        sensitive=sensitive,
    )  # fmt: skip


def _chain(error: BaseException) -> Iterator[str]:
    """What is said of an error anywhere: its text, and that of what it shows as its cause."""
    found: BaseException | None = error
    while found is not None:
        yield str(found)
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT CAST(ssn AS INTEGER) FROM (SELECT '7' || ssn || 'x' AS ssn FROM ${object})",
        "SELECT error(ssn) FROM ${object}",
        "SELECT 9223372036854775807 + CAST(ssn AS BIGINT) FROM ${object}",
        "SELECT 'x' || ssn FROM ${object}",
        "SELECT strptime(ssn, '%%d') FROM ${object}",
        "SELECT CAST(sum(CAST(ssn AS BIGINT)) AS TINYINT) FROM (SELECT '77777' AS ssn FROM ${object})",
    ],
)
def test_errors_of_sql_rules_quote_no_value(tmp_path: Path, sql: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ContractError) as raised:
        _ingested(tmp_path, sql.replace("%%", "%"))
    said = " ".join([*_chain(raised.value), caplog.text]).replace(str(tmp_path), "")
    assert "7" not in said.replace("Fix: ", "")


def test_rows_that_are_set_aside_are_counted_and_never_quoted(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as raised:
        _ingested(tmp_path, "SELECT 1", least=5)
    assert all(SECRET not in said for said in _chain(raised.value))
    result = _ingested(tmp_path, "SELECT 1")
    assert (result.accepted, result.rejected) == (1, 4)
    assert SECRET not in str(result)
    aside = Tables(tmp_path / "tables")
    assert SECRET in str(aside.scan(aside.current("u.people.quarantine")).read_all().to_pydict())  # it lies there only


def test_what_sql_measured_is_not_told_of_a_table_with_sensitive_columns(tmp_path: Path) -> None:
    measure = "SELECT max(CAST(ssn AS BIGINT)) + 41 FROM ${object}"
    with pytest.raises(ContractError, match=r"found 48"):
        _ingested(tmp_path, measure)
    with pytest.raises(ContractError) as raised:
        _ingested(tmp_path, measure, sensitive=("ssn",))
    assert "48" not in str(raised.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("sql", ["SELECT id, CAST(ssn AS INT) AS n FROM t", "SELECT id, error(ssn) AS n FROM t"])
def test_errors_of_feature_views_quote_no_value(tables: Tables, version: TableVersion, sql: str) -> None:
    view = FeatureView(name="v", entity=("id",), times={"t": None}, sql=sql)
    open_ = reader(tables, ADMIN)
    with pytest.raises(InputError) as raised:
        compute_view(view, lambda _: open_.read(version), [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)])
    assert all(SECRET not in said for said in _chain(raised.value))


def test_errors_of_a_read_quote_no_value(tables: Tables, version: TableVersion) -> None:
    asked: list[Mapping[str, Any]] = [{"id": SECRET}, {"nothing": SECRET}, {"ssn": 1}]
    for where in asked:
        with pytest.raises(BedplateError) as raised:
            reader(tables).read(version, where=where).read_all()
        assert HIDDEN not in " ".join(_chain(raised.value))


assert tables_module
