"""The tables of a home by command: each as whoever asks may see it, and each change in the ledger."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bedplate.cli import root
from bedplate.errors import DeniedError, InputError, NotFoundError
from bedplate.records import Governance
from tests import team
from tests.governed import govern
from tests.team import Team

NAME = "shop.people"
ROWS = pa.table({"id": [1, 2, 3], "age": ["25-34", None, "65+"], "seen": pa.array([0, 1, 2], pa.timestamp("us"))})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A team, and a use case with one table that has three versions."""
    with team.running(tmp_path_factory.mktemp("tables") / "home") as running:
        system = running.system
        govern(system, "shop", Governance(purpose="care", sensitive=("age",)))
        for rows in (ROWS.slice(0, 1), ROWS.slice(1), ROWS.slice(0, 2)):
            system.tables.write(NAME, rows, mode="append")
        yield running


def test_a_table_is_listed_shown_and_read_as_one_may_see_it(home: Team) -> None:
    assert (NAME, "shop", 5) in [(t.name, t.use_case, t.rows) for t in home.do("list_tables", role="engineer")]
    view = home.do("show_table", role="engineer", name=NAME)
    assert (view.purpose, view.rows, view.files) == ("care", 5, 3)
    assert view.columns == {"id": "int64", "age": "string", "seen": "timestamp[us]"}
    start = home.size()
    whole = home.do("read_table", name=NAME, version=1)
    assert whole.columns == ("id", "age", "seen")
    assert whole.rows[2] == (3, "65+", "1970-01-01T00:00:00.000002")
    masked = home.do("read_table", role="engineer", name=NAME, columns=("age", "id"), limit=2)
    assert (masked.rows, masked.more) == (((None, 1), (None, 2)), True)
    assert home.entries(start) == [
        ("table.read", f"table/{NAME}@1", "allow"),
        ("table.read", f"table/{NAME}@2", "allow"),
    ]


def test_who_may_not_know_of_a_table_learns_nothing_of_it(home: Team) -> None:
    for role in ("viewer", "auditor", "caller", "nobody"):
        assert home.do("list_tables", role=role) == ()
        for operation, more in (
            ("show_table", {}),
            ("table_history", {}),
            ("read_table", {"version": 99}),
            ("scrub_table", {}),
            ("compact_table", {}),
            ("restore_table", {"version": 0}),
            ("explain_access", {"who": "engineer.one"}),
        ):
            with pytest.raises(DeniedError):
                home.do(operation, role=role, name=NAME, **more)
    before = home.do("table_history", name=NAME)
    assert [change.version for change in before] == [2, 1, 0]
    start = home.size()
    with pytest.raises(DeniedError, match="only for a purpose"):
        home.do("read_table", role="engineer", name=NAME, purpose="marketing")
    assert home.entries(start) == [("table.read", f"table/{NAME}@2", "deny")]


@pytest.mark.parametrize(
    ("operation", "arguments", "error", "match"),
    [
        ("read_table", {"name": "none.such"}, NotFoundError, "no table"),
        ("show_table", {"name": "none.such"}, NotFoundError, "no table"),
        ("read_table", {"name": NAME, "version": 9}, NotFoundError, "no version 9"),
        ("read_table", {"name": NAME, "as_of": "1999-01-01"}, NotFoundError, "from before"),
        ("read_table", {"name": NAME, "as_of": "soon"}, InputError, "is no time"),
        ("read_table", {"name": NAME, "version": 0, "as_of": "2026-01-01"}, InputError, "two answers"),
        ("read_table", {"name": NAME, "limit": 0}, InputError, "limit is 0"),
        ("read_table", {"name": NAME, "columns": ("idd",)}, InputError, "no column 'idd'"),
        ("restore_table", {"name": NAME, "version": 9}, NotFoundError, "no version 9"),
        ("explain_access", {"name": NAME, "who": "eve"}, NotFoundError, "no user 'eve'"),
    ],
)
def test_what_cannot_be_asked_is_named(
    home: Team, operation: str, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        home.do(operation, **arguments)


def test_who_sees_what_and_why_is_told_without_a_read(home: Team) -> None:
    start = home.size()
    view = home.do("explain_access", name=NAME, who="engineer.one")
    assert (view.allowed, view.purpose) == (True, "care")
    assert view.columns == {"id": "", "age": "null", "seen": ""}
    assert "engineers" in view.policies
    shown = home.do("read_table", role="engineer", name=NAME)
    for index, (name, mask) in enumerate(view.columns.items()):
        assert all(row[index] is None for row in shown.rows) == (mask == "null"), name
    assert not home.do("explain_access", name=NAME, who="engineer.one", purpose="marketing").allowed
    denied = home.do("explain_access", name=NAME, who="viewer.one")
    assert (denied.allowed, denied.columns) == (False, {})
    assert denied.reasons
    assert [entry[0] for entry in home.entries(start)] == ["table.read"]


def test_upkeep_is_recorded_and_rot_is_found_by_command(home: Team, capsys: pytest.CaptureFixture[str]) -> None:
    kept = "shop.visits"
    for rows in (ROWS.slice(0, 1), ROWS.slice(1), ROWS.slice(0, 2)):
        home.system.tables.write(kept, rows, mode="append")
    start = home.size()
    compacted = home.do("compact_table", role="engineer", name=kept)
    assert (compacted.version, compacted.files, compacted.rows) == (3, 1, 5)
    assert home.do("compact_table", role="engineer", name=kept) == compacted
    restored = home.do("restore_table", role="engineer", name=kept, version=0)
    assert (restored.version, restored.rows) == (4, 1)
    assert [change.what for change in home.do("table_history", name=kept)][:2] == ["restore", "compact"]
    assert home.do("scrub_table", name=kept).sound
    assert [entry[0] for entry in home.entries(start)] == ["table.compact", "table.restore", "table.scrub"]

    place = ["--home", str(home.system.home.root), "--json"]
    for command in (["list"], ["show", kept], ["history", kept], ["read", kept, "--as-of", "2999-01-01"]):
        assert root.execute(["table", *command, *place]) == 0
        assert json.loads(capsys.readouterr().out)
    assert root.execute(["access", "explain", "engineer.one", kept, *place[:2]]) == 0
    assert "age     null" in capsys.readouterr().out
    held = {item.path for item in home.system.tables.files(home.system.tables.current(kept))}
    file = next(path for path in Path(home.system.home.tables).rglob("*.parquet") if path.name in held)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert root.execute(["table", "scrub", kept, *place]) == 2
    assert json.loads(capsys.readouterr().out)["damaged"] == [file.name]
