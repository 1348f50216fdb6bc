"""The control plane looks after tables by itself, as often as the file says, and tells how that went."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from bedplate import clock, settings, usecase
from bedplate.app import erase, upkeep
from bedplate.app.collecting import gc
from bedplate.app.system import System
from bedplate.app.upkeep import Upkeep, Upkept
from bedplate.errors import UseCaseError
from bedplate.identity import ADMINISTRATOR, policy_principal
from bedplate.policy.values import FLOW
from bedplate.records import Governance
from bedplate.store.use_cases import UseCaseRow
from bedplate.usecase.starter import starter
from tests import team
from tests.governed import govern
from tests.serve.support import eventually

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NAME, TABLE = "shop", "shop.people"
ASKED = ("promises", "expire", "compact", "scrub")
SECTION = "\nupkeep: { expire: 1 d, scrub: 7 d, compact: 1 h, promises: 1 h }\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / NAME
    starter(folder, NAME)
    file = folder / "usecase.yaml"
    file.write_text(file.read_text() + SECTION)
    return folder


@pytest.fixture
def system(tmp_path: Path, folder: Path) -> Iterator[System]:
    with System(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")})) as opened, clock.frozen(NOW):
        _fill(opened, folder)
        yield opened


def _fill(system: System, folder: Path) -> None:
    govern(system, NAME, Governance(purpose="care", sensitive=()))
    for number in range(3):
        system.tables.write(TABLE, pa.table({"id": [number]}), mode="append")
    with system.store.transaction() as tx:
        row = tx.use_cases.get(NAME)
        tx.use_cases.put(
            NAME, folder=str(folder), file="usecase.yaml", file_digest=row.file_digest, objective=row.objective
        )


def _look(system: System) -> list[tuple[str, bool, str]]:
    """What one look of a new control plane did."""
    before = _done(system)
    keeping = Upkeep(system, every=3600)
    keeping.look()
    keeping.close()
    return [(each.task, each.ok, each.found) for each in _done(system) if each not in before]


def _done(system: System) -> list[Upkept]:
    with system.store.read() as tx:
        return [standing.last for standing in upkeep.standings(tx, [NAME])]


def test_who_does_it_is_the_flow() -> None:
    assert policy_principal(upkeep.BY_ITSELF) == FLOW


def test_each_task_is_done_when_it_is_due_and_once_for_all_owners(system: System, folder: Path) -> None:
    first = _look(system)
    assert [(task, ok) for task, ok, _ in first] == [(task, True) for task in ASKED]
    assert f"wrote together {TABLE}" in first[2][2]
    assert len(system.tables.files(system.tables.current(TABLE))) == 1
    assert _look(system) == [], "another owner does nothing again"
    with clock.frozen(NOW + timedelta(hours=1)):
        assert [task for task, *_ in _look(system)] == ["promises", "compact"]
    with clock.frozen(NOW + timedelta(days=7)):
        assert len(_look(system)) == 4
    with system.store.read() as tx:
        entries = [e for e in tx.ledger.recent(50, resource=f"use_case/{NAME}") if b'"upkeep.' in e.entry]
    assert len(entries) == 10


def test_what_killed_writers_left_goes_after_a_week_by_upkeep_and_by_collecting(system: System, folder: Path) -> None:
    left = Path(system.tables.folder_of(TABLE).url) / "part_killed.parquet"

    def leave(age: timedelta) -> None:
        left.write_bytes(b"left")
        written = (NOW - age).timestamp()
        os.utime(left, (written, written))

    leave(timedelta(days=6))
    _look(system)
    assert left.exists(), "a write that is under way may hold it"
    leave(timedelta(days=8))
    with clock.frozen(NOW + timedelta(hours=1)):
        assert any("removed 1 file of writers" in said for task, _, said in _look(system) if task == "compact")
    assert not left.exists()
    leave(timedelta(days=8))
    administrator = system.identity.authenticate(system.token)
    assert gc(system, administrator, "1 d", dry_run=True).leftovers == 1
    assert left.exists()
    assert gc(system, administrator, "30 d", dry_run=False).leftovers == 0
    assert gc(system, administrator, "1 d", dry_run=False).leftovers == 1
    assert not left.exists()


def test_what_fails_is_told_and_tried_again_soon(system: System, folder: Path) -> None:
    administrator = system.identity.authenticate(system.token)
    erase.hold(system, administrator, NAME, "court order 12", on=True)
    file = next(Path(system.tables.folder_of(TABLE).url).glob("part_*.parquet"))
    file.write_bytes(file.read_bytes()[:-9] + b"rotten..!")
    found = {task: (ok, said) for task, ok, said in _look(system)}
    assert not found["expire"][0]
    assert "court order 12" in found["expire"][1]
    assert not found["scrub"][0]
    assert file.name in found["scrub"][1]
    erase.hold(system, administrator, NAME, "settled", on=False)
    with clock.frozen(NOW + timedelta(minutes=9)):
        assert _look(system) == []
    with clock.frozen(NOW + timedelta(minutes=10)):
        assert ("expire", True) in [(task, ok) for task, ok, _ in _look(system)]


def test_a_file_that_asks_for_nothing_or_cannot_be_read_has_nothing_done(system: System, folder: Path) -> None:
    file = folder / "usecase.yaml"
    text = file.read_text()
    file.write_text(text.replace(SECTION, ""))
    assert _look(system) == []
    file.write_text("bedplate: [")
    assert _look(system) == []
    file.unlink()
    assert _look(system) == []


def test_intervals_are_durations_of_a_minute_at_least(folder: Path) -> None:
    file = folder / "usecase.yaml"
    for wrong, match in (("30 s", "all the time"), ("often", "duration"), ("-1 d", "-1 d")):
        file.write_text(file.read_text().replace("scrub: 7 d", f"scrub: {wrong}"))
        with pytest.raises(UseCaseError, match=match):
            usecase.load(file)
        file.write_text(file.read_text().replace(f"scrub: {wrong}", "scrub: 7 d"))


def test_pages_and_metrics_tell_how_it_went(tmp_path: Path, folder: Path) -> None:
    with team.running(tmp_path / "home", evidence=True) as home:
        _fill(home.system, folder)
        with home.system.store.read() as tx:
            row: UseCaseRow = tx.use_cases.get(NAME)
        erase.hold(home.system, home.system.identity.authenticate(home.system.token), NAME, "court order", on=True)
        for task in upkeep.TASKS:
            upkeep.do(home.system, row, task)
        with home.client("viewer") as client:
            text = client.get("/metrics").text
            assert f'bedplate_upkeep_ok{{task="expire",use_case="{NAME}"}} 0.0' in text
            assert f'bedplate_upkeep_ok{{task="compact",use_case="{NAME}"}} 1.0' in text
            assert "bedplate_upkeep_ended_seconds" in text
        with home.client("engineer", accept="text/html") as client:
            page = client.get(f"/tables/{TABLE}").text
        assert "court order" in page
        assert "Compare served features" in page
        assert ADMINISTRATOR not in text


def test_the_owner_of_a_home_looks_by_itself(tmp_path: Path, folder: Path) -> None:
    with System(settings.load({"BEDPLATE_HOME": str(tmp_path / "own")})) as system:
        _fill(system, folder)
        keeping = Upkeep(system, every=0.01)
        try:
            eventually(lambda: len(_done(system)) == 4)
        finally:
            keeping.close()
