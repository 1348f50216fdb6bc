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
