"""What is older than it may be kept goes, by the times that the file and the contracts name."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bedplate import clock
from bedplate.app import erase, upkeep
from bedplate.app.system import System
from bedplate.app.upkeep import Upkeep
from bedplate.errors import DeniedError, InputError, StateError
from tests.app import invoices
from tests.app.test_erase import _somebody

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CONTRACT = (
    invoices.HEAD
    + """\
  - {property: latency, value: 4, unit: d}
  - {property: retention, value: 30, unit: d, element: invoices.seen}
schema:
  - name: invoices
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: seen, logicalType: date}
"""
)
LINES = "id,seen\n1,2026-05-31\n2,2026-05-01\n3,2026-05-03\n4,\n,2026-01-01\n,2026-05-31\n6,soon\n"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with invoices.home(tmp_path, CONTRACT, LINES, NOW) as opened:
        for key in ("a", "b"):
            invoices.take_in(opened, tmp_path, key)
        yield opened


def test_old_rows_go_from_every_version_and_from_what_was_set_aside(system: System) -> None:
    administrator = system.identity.authenticate(system.token)
    report = erase.expire(system, administrator, "shop")
    assert report.tables == {"shop.invoices": 2, "shop.invoices.quarantine": 2}  # each row in two versions
    for version in (0, 1):
        rows = system.tables.scan(system.tables.version("shop.invoices", version)).read_all()
        assert rows["id"].to_pylist() == [1, 3, 4]  # a row without a time is no older than any
    aside = system.tables.scan(system.tables.current("shop.invoices.quarantine")).read_all()
    assert aside["seen"].to_pylist() == ["2026-05-31", "soon"]
    assert report.kept_from["shop.invoices"] == (NOW - timedelta(days=30)).isoformat()
    with system.store.read() as tx:
        entry, payload = system.ledger.entry(tx, report.entry)
    assert payload is not None
    assert (entry.action, payload["rows"]) == ("retention.expire", report.tables)
    assert erase.expire(system, administrator, "shop").tables == {}
    with clock.frozen(NOW + timedelta(days=5)):
        assert erase.expire(system, administrator, "shop").tables == {"shop.invoices": 2}


def test_upkeep_is_neither_early_nor_late_when_the_clock_is_set(system: System, tmp_path: Path) -> None:
    file = tmp_path / "shop" / "usecase.yaml"
    file.write_text(f"{file.read_text()}\nupkeep: {{ expire: 1 d }}\n")
    keeping = Upkeep(system, every=3600)
    try:
        keeping.look()
        assert _ids(system) == [1, 3, 4]
        with clock.frozen(NOW + timedelta(days=400)):  # set ahead, by mistake
            keeping.look()
            assert _ids(system) == [1, 3, 4]
            (last,) = (one.last for one in _standings(system))
            assert (last.ok, last.ended) == (True, clock.timestamp())
        with clock.frozen(NOW + timedelta(days=1)):  # and put right: the last look seems to be a year ahead
            keeping.look()
            (last,) = (one.last for one in _standings(system))
            assert last.ended == clock.timestamp()
    finally:
        keeping.close()


def _ids(system: System) -> list[int]:
    ids: list[int] = system.tables.scan(system.tables.current("shop.invoices")).read_all()["id"].to_pylist()
    return ids


def _standings(system: System) -> list[upkeep.Standing]:
    with system.store.read() as tx:
        return [one for one in upkeep.standings(tx, ["shop"]) if one.last.task == "expire"]


def test_a_hold_and_policy_stand_before_it(system: System) -> None:
    administrator = system.identity.authenticate(system.token)
    with pytest.raises(DeniedError):
        erase.expire(system, _somebody(system, "viewers"), "shop")
    erase.hold(system, administrator, "shop", "audit", on=True)
    with pytest.raises(StateError, match="audit"):
        erase.expire(system, administrator, "shop")
    erase.hold(system, administrator, "shop", "over", on=False)
    assert erase.expire(system, _somebody(system, "engineers"), "shop").tables


def test_where_nothing_says_how_long_nothing_goes(system: System, tmp_path: Path) -> None:
    file = tmp_path / "shop" / "usecase.yaml"
    file.write_text(file.read_text().replace("  retention: 400 d\n", ""))
    contract = tmp_path / "shop" / "contracts" / "invoices.odcs.yaml"
    contract.write_text(CONTRACT.replace("property: retention", "property: other"))
    with pytest.raises(InputError, match="how long"):
        erase.expire(system, system.identity.authenticate(system.token), "shop")
