"""What contracts promise over time is held against the newest tables."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bedplate import clock
from bedplate.app import promises
from bedplate.app.stages.data import Ingested
from bedplate.app.system import System
from bedplate.app.table_reports import PromiseReport
from bedplate.cli import root
from bedplate.errors import DeniedError
from bedplate.ids import digest_of
from bedplate.records import Governance
from tests.app import invoices
from tests.app.test_erase import _somebody
from tests.governed import govern

NOW = datetime(2026, 6, 3, 12, tzinfo=UTC)
CONTRACT = (
    invoices.HEAD
    + """\
  - {property: freshness, value: 2, unit: d, element: invoices.day}
  - {property: freshness, value: 90, unit: min, element: invoices.at}
  - {property: completeness, value: 75, unit: percent}
  - {property: frequency, value: 1, unit: d, element: invoices}
schema:
  - name: invoices
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: day, logicalType: date}
      - {name: at, logicalType: timestamp}
"""
)
LINES = "id,day,at\n1,2026-06-01,2026-06-03 11:00:00\n2,2026-05-01,\n3,,2026-01-01 00:00:00\n,2026-06-03,\n"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with invoices.home(tmp_path, CONTRACT, LINES, NOW) as opened:
        yield opened


def _take_in(system: System, root: Path) -> None:
    result = invoices.take_in(system, root, "k")
    with system.store.transaction() as tx:
        dataset = tx.facts.put("dataset", "shop", result)
        whole = tx.facts.put("data", "shop", Ingested(datasets={"invoices": dataset.digest}), (dataset.digest,))
        tx.stages.finish("shop", "ingest", digest_of({}), {}, whole.digest, 0.1)


def _checked(system: System, folder: Path) -> PromiseReport:
    return promises.check(system, system.identity.authenticate(system.token), str(folder))


def test_tables_are_held_against_what_their_contracts_promise(system: System, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    assert not _checked(system, folder).kept, "nothing came in"
    _take_in(system, tmp_path)
    report = _checked(system, folder)
    assert report.kept
    assert report.promises[3].promise == "frequency"
    assert [(p.promise, p.found) for p in report.promises[:3]] == [
        ("freshness of day", "1 d 12 h old"),  # a day may grow until it ends
        ("freshness of at", "1 h old"),
        ("completeness", "75.00%"),
    ]
    with clock.frozen(NOW + timedelta(hours=1)):
        late = _checked(system, folder)
    assert [p.kept for p in late.promises] == [True, False, True, True]
    contract = folder / "contracts" / "invoices.odcs.yaml"
    contract.write_text(CONTRACT.replace("value: 75", "value: 75.1"))
    assert [p.kept for p in _checked(system, folder).promises] == [True, True, False, True]


def test_by_a_schedule_what_came_on_wednesday_will_do_until_friday(system: System, tmp_path: Path) -> None:
    _take_in(system, tmp_path)  # on Wednesday at noon, with rows of 11:00
    contract = tmp_path / "shop" / "contracts" / "invoices.odcs.yaml"
    kept = CONTRACT.replace("invoices.at}", 'invoices.at, scheduler: cron, schedule: "0 12 * * 3,5"}')
    contract.write_text(kept.replace("element: invoices}", 'element: invoices, schedule: "30 12 * * 3,5"}'))
    for hours, fresh, came in (
        (0, "1 h old at 2026-06-03 12:00 UTC", "before 2026-05-29 12:30 UTC"),
        (47, "1 h old at 2026-06-03 12:00 UTC", "before 2026-06-03 12:30 UTC"),
        (49, "2 d 1 h old at 2026-06-05 12:00 UTC", "before 2026-06-05 12:30 UTC"),
    ):
        with clock.frozen(NOW + timedelta(hours=hours)):
            _, at, _, frequency = _checked(system, tmp_path / "shop").promises
        assert (at.found, at.kept) == (fresh, hours < 48)
        assert at.wanted == "at most 1 h 30 min old, by the schedule 0 12 * * 3,5 (UTC)"
        assert frequency.found.endswith(came)


def test_times_are_seen_as_whoever_asks_may_see_them(system: System, tmp_path: Path) -> None:
    _take_in(system, tmp_path)
    govern(system, "shop", Governance(purpose="care", sensitive=("at",)))
    engineer = _somebody(system, "engineers")
    found = promises.check(system, engineer, str(tmp_path / "shop"))
    assert [p.found for p in found.promises][1] == "nothing"
    for groups in ((), ("viewers",)):
        with pytest.raises(DeniedError):
            promises.check(system, _somebody(system, *groups), str(tmp_path / "shop"))


def test_by_command(system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system.close()
    place = [str(tmp_path / "shop"), "--home", str(tmp_path / "home")]
    assert root.execute(["contract", "sla", *place]) == 2
    assert "at most 2 d old: nothing  BROKEN" in capsys.readouterr().out
