import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.data import duck
from bedplate.errors import ContractError, InputError

WAYS_OUT = [
    "SELECT * FROM read_csv('/etc/hostname')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM '/etc/hostname'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM 'https://example.com/a.parquet'",
    "COPY (SELECT 1) TO '/tmp/bedplate-out.csv'",
    "ATTACH '/tmp/bedplate-out.db'",
    "EXPORT DATABASE '/tmp/bedplate-out'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '/tmp/x.duckdb_extension'",
    "SELECT * FROM outside",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET lock_configuration",
    "SET memory_limit = '1TB'",
    "SELECT * FROM duckdb_secrets()",
]


@pytest.mark.parametrize("sql", WAYS_OUT)
def test_sql_cannot_leave(sql: str) -> None:
    outside = pa.table({"a": [1]})  # what a replacement scan would find
    with duck.connect({"view": outside}) as connection, pytest.raises(Exception):  # noqa: B017, PT011
        connection.execute(sql).fetchall()


def test_views_are_seen() -> None:
    with duck.connect({"view": pa.table({"a": [1, 2]})}) as connection:
        assert connection.execute("SELECT sum(a) FROM view").fetchall() == [(3,)]


@pytest.mark.parametrize("sql", ["COPY (SELECT 1) TO 'x'", "SELECT 1; SELECT 2", "", "PRAGMA version", "SELEC"])
def test_only_one_select_is_taken(sql: str) -> None:
    with pytest.raises(InputError):
        duck.check_select(sql)


def test_endless_sql_is_stopped() -> None:
    endless = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    with duck.connect() as connection, pytest.raises(ContractError):
        duck.first_row(connection, endless, "test", seconds=0.2)


@given(st.text(min_size=1, max_size=20).filter(lambda name: "\x00" not in name and name.isprintable()))
def test_any_name_can_be_quoted(name: str) -> None:
    with duck.connect() as connection:
        cursor = connection.execute(f"SELECT 1 AS {duck.quote(name)}")
        assert cursor.description is not None
        assert cursor.description[0][0] == name


def test_queries_of_one_engine_see_their_own_views_under_the_same_settings() -> None:
    with duck.engine() as engine:
        with (
            engine.connect({"view": pa.table({"a": [1]})}) as one,
            engine.connect({"view": pa.table({"a": [2]})}) as two,
        ):
            assert one.execute("SELECT a FROM view").fetchall() == [(1,)]
            assert two.execute("SELECT a FROM view").fetchall() == [(2,)]
        with engine.connect() as other:
            with pytest.raises(duckdb.CatalogException):
                other.execute("SELECT a FROM view")
            names = ("TimeZone", "asof_loop_join_threshold", "threads", "preserve_insertion_order")
            told = other.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in names)).fetchone()
            assert told == ("UTC", 0, os.cpu_count(), True)
            assert other.execute("SELECT TIMESTAMPTZ '2026-01-01 00:00:00+02'::VARCHAR").fetchone() == (
                "2025-12-31 22:00:00+00",
            )


def test_a_stream_that_one_query_reads_may_ask_another_of_the_same_engine() -> None:
    with duck.engine(threads=1) as engine:

        def doubled() -> Iterator[pa.RecordBatch]:
            for number in range(20):
                with engine.connect({"v": pa.table({"a": [number]})}) as inner:
                    yield from inner.sql("SELECT 2 * a AS a FROM v").to_arrow_table().cast(schema).to_batches()

        schema = pa.schema([("a", pa.int64())])
        with engine.connect({"source": pa.RecordBatchReader.from_batches(schema, doubled())}) as outer:
            assert outer.execute("SELECT sum(a) FROM source").fetchone() == (380,)


def test_an_engine_is_opened_by_its_first_query_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with duck.engine() as engine:
        assert not list(tmp_path.iterdir())
        with engine.connect() as connection:
            connection.execute("SELECT 1")
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
