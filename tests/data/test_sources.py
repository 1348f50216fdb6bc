"""One suite over every kind of source: the same rows come in, whatever they lie in and wherever that is."""

import http.server
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import obstore
import obstore.store
import psycopg
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from bedplate.data import ingest as ingestion
from bedplate.data.parsing import formats
from bedplate.data.sources import BadLine, Chunk, Reach, opened, places
from bedplate.data.tables import Tables
from bedplate.errors import (
    ContractError,
    DeniedError,
    InputError,
    NotFoundError,
    UnavailableError,
    UserCodeError,
)
from bedplate.policy.residency import Place
from bedplate.usecase.types import DataSet, Source
from tests import servers

ROWS = pa.table({
    "visit": [1, 2, 3],
    "day": pa.array(["2024-05-01", "2024-05-02", None], pa.string()).cast(pa.date32()),
    "cost": [2.5, None, 7.25],
    "note": ["first", 'with, "comma"', "ünï"],
    "kept": [True, False, None],
})  # fmt: skip
TEXTS = [{name: None if v is None else str(v) for name, v in row.items()} for row in ROWS.to_pylist()]
CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: visits
version: 1.0.0
status: active
schema:
- name: visits
  properties:
  - {name: visit, logicalType: integer, primaryKey: true}
  - {name: day, logicalType: date}
  - {name: cost, logicalType: number, logicalTypeOptions: {minimum: 0}}
  - {name: note, logicalType: string}
  - {name: kept, logicalType: boolean}
"""
QUERY = "SELECT visit, day, cost, note, kept FROM visits ORDER BY visit"


def given() -> Iterator[Any]:
    """What stands for a resource of dlt: a row, a list of rows, and a table, one after the other."""
    rows = ROWS.to_pylist()
    yield rows[0]
    yield [rows[1]]
    yield ROWS.slice(2)


def failing() -> Iterator[Any]:
    yield {"visit": 1}
    raise RuntimeError("the service said no")


def _file(kind: str, path: Path) -> Path:
    """The rows in a file of a kind."""
    if kind == "parquet":
        pq.write_table(ROWS, path)
    elif kind == "csv":
        pacsv.write_csv(ROWS, path)
    elif kind in ("array", "lines"):
        rows = [{**row, "day": row["day"] and str(row["day"])} for row in ROWS.to_pylist()]
        path.write_text(json.dumps(rows, indent=1) if kind == "array" else "\n".join(map(json.dumps, rows)))
    else:
        make = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with make(path, ROWS.schema) as writer:
            writer.write_table(ROWS, max_chunksize=2)
    return path


FORMATS = {
    "parquet": "parquet", "csv": "csv", "array": "json", "lines": "json", "arrow": "arrow", "stream": "arrow",
}  # fmt: skip


class Site(http.server.BaseHTTPRequestHandler):
    """Files, and what a server may do instead of giving one."""

    files: ClassVar[dict[str, bytes]] = {}
    elsewhere = ""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        if name in ("moved", "away", "local", "scheme"):
            to = {"moved": "/rows.csv", "away": self.elsewhere, "local": "file:///etc/passwd", "scheme": "gopher://a/b"}
            self.send_response(302)
            self.send_header("Location", to[name])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = self.files.get(name)
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.send_header("ETag", f'"{hash(data)}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@contextmanager
def _serving() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with _serving() as address:
        yield address


LOOPBACK = Reach(networks=("127.0.0.0/8",))


@pytest.fixture
def make(tmp_path: Path, site: str, request: pytest.FixtureRequest) -> Callable[[str], tuple[Source, Reach]]:
    """A source by name, with the rows in it."""

    def made(name: str) -> tuple[Source, Reach]:
        if name in FORMATS:
            return Source(kind=FORMATS[name], path=_file(name, tmp_path / name).name), Reach()  # type: ignore[arg-type]
        if name == "http":
            Site.files["rows.csv"] = _file("csv", tmp_path / "rows.csv").read_bytes()
            return Source(kind="csv", path=f"{site}/moved"), LOOPBACK
        if name == "s3":
            s3: servers.S3 = request.getfixturevalue("s3")
            address = s3.address()
            bucket, _, prefix = address.removeprefix("s3://").partition("/")
            store = obstore.store.S3Store(bucket, config=s3.options, client_options={"allow_http": True})
            for part in (0, 1):
                pq.write_table(ROWS.slice(2 * part, 2), tmp_path / "part")
                obstore.put(store, f"{prefix}/part-{part}.parquet", (tmp_path / "part").read_bytes())
            return Source(kind="parquet", path=address), Reach(storage=s3.options)
        if name == "rows":
            return Source(kind="rows", connection="crm"), Reach(connections={"crm": f"program:{__name__}:given"})
        if name == "sqlite":
            with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
                _fill(database.execute, "?")
                database.commit()
            return Source(kind="sql", path="shop.db", query=QUERY), Reach()
        postgresql: servers.Postgresql = request.getfixturevalue("postgresql")
        address = postgresql.database()
        with psycopg.connect(address) as connection:
            _fill(connection.execute, "%s")
        return Source(kind="sql", connection="shop", query=QUERY), Reach(connections={"shop": address})

    return made


def _fill(execute: Callable[..., Any], mark: str) -> None:
    execute("CREATE TABLE visits (visit int, day text, cost double precision, note text, kept boolean)")
    for row in ROWS.to_pylist():
        values = tuple(str(v) if k == "day" and v is not None else v for k, v in row.items())
        execute(f"INSERT INTO visits VALUES ({', '.join([mark] * 5)})", values)


EVERY = [*FORMATS, "http", "s3", "rows", "sqlite", "postgresql"]


@pytest.mark.parametrize("name", EVERY)
def test_every_source_gives_the_same_rows(tmp_path: Path, make: Any, name: str) -> None:
    source, reach = make(name)
    (tmp_path / "c.odcs.yaml").write_text(CONTRACT)
    tables = Tables(tmp_path / "tables")
    spec = DataSet(contract="c.odcs.yaml", source=source)
    asked = {"use_case": "u", "dataset": "visits", "spec": spec, "folder": tmp_path, "reach": reach}
    result = ingestion.ingest(tables, key="k", **asked)
    assert (result.read, result.accepted, result.rejected) == (3, 3, 0)
    assert tables.scan(result.table).read_all().equals(ROWS)
    assert ingestion.ingest(tables, key="k", **asked) == result  # once, however often
    before = places.version(source, tmp_path, reach)
    assert places.version(source, tmp_path, reach) == before
    with opened(source, tmp_path, reach) as files:
        assert len(files.digest()) == len("sha256:") + 64


@pytest.mark.parametrize("name", ["parquet", "csv", "array", "arrow", "sqlite"])
def test_a_reader_that_leaves_early_or_comes_again_gets_its_rows(tmp_path: Path, make: Any, name: str) -> None:
    source, reach = make(name)
    with opened(source, tmp_path, reach) as files:
        names = files.columns(ROWS.column_names).names or files.keys()
        assert set(names) == set(ROWS.column_names)
        rows = files.read(["note", "visit"])
        assert isinstance(next(rows), Chunk)
        rows.close()  # type: ignore[attr-defined]
        again = [item for item in files.read(["note", "visit"]) if isinstance(item, Chunk)]
        assert [v for item in again for v in item.table.column("note").to_pylist()] == ROWS.column("note").to_pylist()
        assert all(item.table.column_names == ["note", "visit"] for item in again)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("parquet", b"PAR1" + b"\xff" * 64 + b"\x40\x00\x00\x00PAR1"),
        ("arrow", b"ARROW1\x00\x00" + b"\x7f" * 200),
        ("array", b'[{"visit": 1}, {"visit": 2'),
        ("array", b'[{"visit": 1}] and more'),
        ("sqlite", b"SQLite format 3\x00" + b"\xff" * 2000),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "bad").write_bytes(data)
    kind = "sql" if name == "sqlite" else FORMATS[name]
    source = Source(kind=kind, path="bad", query=QUERY if kind == "sql" else "")  # type: ignore[arg-type]

    def read() -> None:
        with opened(source, tmp_path) as files:
            files.columns([])
            list(files.read(["visit"]))

    with pytest.raises((ContractError, UnavailableError)) as caught:
        read()
    assert "bad" in str(caught.value)


def test_an_array_is_cut_where_its_rows_end(tmp_path: Path) -> None:
    rows = [{"visit": 1, "note": 'a "quote\\" ] } ,'}, {"visit": 2, "note": {"deep": [1, {"er": "]"}]}}, 7]
    (tmp_path / "r.json").write_text(" \n" + json.dumps(rows))
    with opened(Source(kind="json", path="r.json"), tmp_path) as files:
        chunk, *bad = sorted(
            files.read(["visit", "note"], ["visit", "note"]), key=lambda item: isinstance(item, BadLine)
        )
    assert isinstance(chunk, Chunk)
    assert chunk.table.column("note").to_pylist() == [rows[0]["note"], '{"deep":[1,{"er":"]"}]}']  # type: ignore[index]
    assert [(item.row, item.reason) for item in bad if isinstance(item, BadLine)] == [(3, "is not an object")]


def test_a_bomb_ends_the_process_that_reads_it_and_nothing_else(tmp_path: Path) -> None:
    schema = pa.schema([("note", pa.string())])
    with pa.ipc.new_file(tmp_path / "b.arrow", schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(pa.table({"note": ["x" * (1 << 20)] * 200}))
    assert (tmp_path / "b.arrow").stat().st_size < 1 << 20
    (tmp_path / "long.csv").write_bytes(b"visit\n" + b"1" * (2 * formats.MAX_CELL + 10))
    (tmp_path / "long.json").write_bytes(b'[{"visit": "' + b"1" * (formats.MAX_CELL + 10) + b'"}]')
    with (
        pytest.raises(ContractError, match="memory"),
        opened(Source(kind="arrow", path="b.arrow"), tmp_path, memory=180 << 20) as files,
    ):
        list(files.read(["note"]))
    for kind in ("csv", "json"):
        source = Source(kind=kind, path=f"long.{kind}")  # type: ignore[arg-type]
        with pytest.raises(ContractError, match=r"read as csv|larger than 16 MiB"), opened(source, tmp_path) as files:
            list(files.read(["visit"]))


def test_a_parquet_file_that_claims_more_than_it_can_hold_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1]}), tmp_path / "n.parquet")
    data = (tmp_path / "n.parquet").read_bytes()
    end = int.from_bytes(data[-8:-4], "little") + 8
    # The footer is Thrift: num_rows of the file and of its group are the varint 2 (zigzag of 1).
    claimed = data[-end:].replace(b"\x16\x02", b"\x16" + b"\x80\xd0\xdb\xc3\xf4\x02", 2)
    claimed = claimed[:-8] + (len(claimed) - 8).to_bytes(4, "little") + b"PAR1"
    (tmp_path / "n.parquet").write_bytes(data[:-end] + claimed)
    with (
        pytest.raises(ContractError, match=r"far too small|says it holds|cannot be read"),
        opened(Source(kind="parquet", path="n.parquet"), tmp_path) as files,
    ):
        files.columns([])


def test_what_a_web_server_may_not_do(tmp_path: Path, site: str) -> None:
    Site.files["rows.csv"] = _file("csv", tmp_path / "rows.csv").read_bytes()

    def fetch(path: str, reach: Reach = LOOPBACK) -> None:
        with opened(Source(kind="csv", path=path), tmp_path, reach):
            pass

    fetch(f"{site}/rows.csv")
    with pytest.raises(DeniedError, match="no public address"):
        fetch(f"{site}/rows.csv", Reach())
    with pytest.raises(NotFoundError, match="no such file"):
        fetch(f"{site}/none.csv")
    with _serving() as other:
        Site.elsewhere = f"{other}/rows.csv"
        with pytest.raises(DeniedError, match="another origin"):
            fetch(f"{site}/away")
    for path in ("local", "scheme"):
        with pytest.raises((DeniedError, UnavailableError)):
            fetch(f"{site}/{path}")
    for path in ("file:///etc/passwd", "ftp://host/rows.csv"):
        with pytest.raises(InputError, match="does not lie at"):
            fetch(path)
    with pytest.raises(InputError, match="with a user"):
        fetch(site.replace("http://", "http://ana:secret@"))


def test_a_file_that_is_too_large_is_not_fetched(tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Site.files["rows.csv"] = b"visit\n" + b"1\n" * 1000
    monkeypatch.setattr(places, "MAX_FILE", 100)
    with (
        pytest.raises(DeniedError, match="larger than 100"),
        opened(Source(kind="csv", path=f"{site}/rows.csv"), tmp_path, LOOPBACK),
    ):
        pass


def test_a_connection_is_one_that_the_home_names(tmp_path: Path, postgresql: servers.Postgresql) -> None:
    reach = Reach(connections={"shop": postgresql.database(), "gone": "postgresql://x:secret@127.0.0.1:1/x"})
    cases: list[tuple[str, str, type[Exception], str]] = [
        ("none", "SELECT 1", InputError, "no connection 'none'"),
        ("shop", "SELEKT 1", ContractError, "refuses the query"),
        ("shop", "SELECT * FROM nothing", ContractError, "refuses the query"),
        ("gone", "SELECT 1", UnavailableError, "cannot be re"),
    ]
    for name, query, kind, words in cases:
        with (
            pytest.raises(kind, match=words) as caught,
            opened(Source(kind="sql", connection=name, query=query), tmp_path, reach),
        ):
            pass
        assert "secret" not in str(caught.value)
    with (
        pytest.raises(InputError, match="is no program"),
        opened(Source(kind="rows", connection="shop"), tmp_path, reach),
    ):
        pass
    failing_reach = Reach(connections={"crm": f"program:{__name__}:failing"})
    with (
        pytest.raises(UserCodeError, match="said no"),
        opened(Source(kind="rows", connection="crm"), tmp_path, failing_reach),
    ):
        pass


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM kept RETURNING a",
        "SELECT 1; DELETE FROM kept",
        "SELECT nextval('ticket')",  # a change that no rollback takes back
    ],
)
def test_a_query_changes_nothing_in_the_database(tmp_path: Path, postgresql: servers.Postgresql, query: str) -> None:
    address = postgresql.database()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (a int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        connection.execute("CREATE SEQUENCE ticket")

        source, reach = Source(kind="sql", connection="shop", query=query), Reach(connections={"shop": address})
        with pytest.raises((ContractError, UnavailableError)), opened(source, tmp_path, reach):
            pass

        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)
        assert connection.execute("SELECT is_called FROM ticket").fetchone() == (False,)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM visits RETURNING visit",
        "SELECT visit FROM visits; DELETE FROM visits",
        "ATTACH '/etc/passwd' AS other",
        "PRAGMA table_list",
        "SELECT load_extension('libc.so.6')",
        "SELECT visit FROM nothing",
    ],
)
def test_a_query_of_a_file_of_sqlite_reads_its_tables_alone(tmp_path: Path, make: Any, query: str) -> None:
    source, reach = make("sqlite")
    with (
        pytest.raises(ContractError, match="refuses the query"),
        opened(Source(kind="sql", path=source.path, query=query), tmp_path, reach),
    ):
        pass


REMOTE = ["http", "s3", "rows", "postgresql"]


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize(
    ("source_is", "home_is", "refused"),
    [
        ("eu", "eu", ""),
        ("us", "eu", "the source of visits says that it is in us"),
        ("", "eu", "the source of visits does not say where it is"),
        ("eu", "us", "the home says that it is in us"),
        ("eu", "", "the home does not say where it is"),
    ],
)
def test_a_source_is_fetched_from_where_rows_may_lie_to_where_they_may(
    tmp_path: Path, make: Any, name: str, source_is: str, home_is: str, refused: str
) -> None:
    made, reach = make(name)
    source = msgspec.structs.replace(made, region=source_is)
    here = (Place("the home", home_is, "BEDPLATE_REGION"),)
    for residency, says in ((("eu",), refused), ((), "")):
        held = msgspec.structs.replace(reach, residency=residency, here=here)
        if says:
            with pytest.raises(DeniedError, match=f"visits may not be read: .*{says}") as raised:
                places.version(source, tmp_path, held, dataset="visits")
            assert raised.value.where in ("BEDPLATE_REGION", "data.visits.source.region")
            with pytest.raises(DeniedError, match=f"visits may not be read: .*{says}"):
                _columns(source, held)
        else:
            assert places.version(source, tmp_path, held, dataset="visits")
            assert "visit" in _columns(source, held)


def _columns(source: Source, reach: Reach) -> Any:
    with opened(source, Path(), reach, dataset="visits") as files:
        return files.columns(ROWS.column_names).names or files.keys()


def test_a_file_of_this_machine_lies_where_the_home_does_unless_it_says_so(tmp_path: Path, make: Any) -> None:
    source, reach = make("csv")
    held = msgspec.structs.replace(reach, residency=("eu",), here=(Place("the home", "", "BEDPLATE_REGION"),))
    with opened(source, tmp_path, held, dataset="visits"):
        pass  # to look at a file where it lies brings it nowhere
    with (
        pytest.raises(DeniedError, match="the source of visits says that it is in us"),
        opened(msgspec.structs.replace(source, region="us"), tmp_path, held, dataset="visits"),
    ):
        pass


@pytest.mark.parametrize("kind", ["sql", "rows"])
def test_a_connection_that_is_not_there_is_said_of_its_data_set(tmp_path: Path, kind: Any) -> None:
    source = Source(kind=kind, connection="shop", query="SELECT 1")
    with (
        pytest.raises(InputError, match="no connection 'shop'") as raised,
        opened(source, tmp_path, Reach(), dataset="visits"),
    ):
        pass
    assert raised.value.where == "data.visits.source.connection"
