"""Backfills and replays by command: who may, what becomes of the rows, and the ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bedplate.app.ingesting import Rate
from bedplate.errors import DeniedError, InputError, NotFoundError
from bedplate.usecase.starter import starter
from tests import team
from tests.team import Team

WHOLE = "source: { kind: csv, path: data/invoices.csv }"
PARTS = WHOLE + "\n    incremental: { watermark: issued_on, late: refuse }"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with team.running(tmp_path_factory.mktemp("ingesting") / "home") as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    starter(tmp_path, "late-invoices")
    path = tmp_path / "usecase.yaml"
    assert WHOLE in path.read_text()
    path.write_text(path.read_text().replace(WHOLE, PARTS))
    return tmp_path


def test_a_range_comes_in_once_and_what_was_set_aside_after_the_contract_is_right(home: Team, folder: Path) -> None:
    rows = len((folder / "data" / "invoices.csv").read_text().splitlines()) - 1
    contract = folder / "contracts" / "invoices.odcs.yaml"
    right = contract.read_text()
    contract.write_text(right.replace("minimum: 1, maximum: 120", "minimum: 1, maximum: 31"))
    asked = {"path": str(folder), "dataset": "invoices"}
    start = home.size()
    first = home.do("backfill_table", since="2000-01-01", until=None, **asked)
    again = home.do("backfill_table", since=None, until=None, **asked)
    assert first.accepted + first.rejected == rows
    assert first.rejected
    assert (again.known, again.accepted, again.version) == (first.accepted, 0, first.version)
    empty = home.do("backfill_table", since="2000-01-01", until="2000-01-02", **asked)
    assert (empty.known + empty.outside, empty.accepted, empty.rejected) == (rows, 0, 0)
    contract.write_text(right)
    done = home.do("replay_table", **asked)
    assert (done.read, done.accepted, done.left) == (first.rejected, first.rejected, 0)
    entries = [entry for entry in home.entries(start) if entry[0].startswith("table.")]
    assert entries == [
        *[("table.ingest", "table/late-invoices.invoices", "allow")] * 3,
        ("table.replay", "table/late-invoices.invoices", "allow"),
    ]
    with home.system.store.read() as tx:
        last = home.system.ledger.entry(tx, home.size() - 1)[0]
    assert last.policies, "the entry names no policy that allowed it"


def test_who_may_not_operate_the_use_case_brings_nothing_in(home: Team, folder: Path) -> None:
    asked = {"path": str(folder), "dataset": "invoices"}
    for role in ("viewer", "auditor", "nobody"):
        with pytest.raises(DeniedError):
            home.do("backfill_table", role=role, since=None, until=None, **asked)
        with pytest.raises(DeniedError):
            home.do("replay_table", role=role, **asked)
    with pytest.raises(NotFoundError, match="no data set"):
        home.do("replay_table", path=str(folder), dataset="orders")
    with pytest.raises(InputError, match="no value of issued_on"):
        home.do("backfill_table", since="soon", until=None, **asked)
    (folder / "usecase.yaml").write_text((folder / "usecase.yaml").read_text().replace(PARTS, WHOLE))
    for operation, more in (("backfill_table", {"since": None, "until": None}), ("replay_table", {})):
        with pytest.raises(InputError, match="read whole"):
            home.do(operation, **asked, **more)


def test_progress_tells_rows_bytes_and_rate() -> None:
    told: list[tuple[str, float | None, float | None]] = []
    Rate("orders", lambda *event: told.append(event))(2_000, 10_000, 3_000_000)
    ((text, done, total),) = told
    assert text.startswith("orders 2,000 rows, 3.0 MB, ")
    assert text.endswith(" rows/s")
    assert (done, total) == (2_000, 10_000)
