"""A use case with invoices under a contract of a test's own, in a home whose time stands still."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from bedplate import clock, settings
from bedplate.app.system import System
from bedplate.data.ingest import ingest
from bedplate.records import Governance, IngestResult
from bedplate.usecase.starter import starter
from bedplate.usecase.types import DataSet, Source
from tests.governed import govern

NAME = "shop"
HEAD = """
apiVersion: v3.1.0
kind: DataContract
id: invoices
version: 1.0.0
status: active
slaProperties:
"""
"""How a contract begins; the lines of its SLA properties follow, the first of them as line 8."""


@contextmanager
def home(root: Path, contract: str, lines: str, now: datetime) -> Iterator[System]:
    """The use case in ``root``, checked; nothing came in yet."""
    folder = root / NAME
    starter(folder, NAME)
    (folder / "contracts" / "invoices.odcs.yaml").write_text(contract)
    (folder / "data" / "invoices.csv").write_text(lines)
    with System(settings.load({"BEDPLATE_HOME": str(root / "home")})) as opened, clock.frozen(now):
        govern(opened, NAME, Governance(purpose="care", sensitive=()))
        with opened.store.transaction() as tx:
            row = tx.use_cases.get(NAME)
            tx.use_cases.put(
                NAME, folder=str(folder), file="usecase.yaml", file_digest=row.file_digest, objective=row.objective
            )
        yield opened


def take_in(system: System, root: Path, key: str) -> IngestResult:
    """Bring the invoices in."""
    spec = DataSet(contract="contracts/invoices.odcs.yaml", source=Source(kind="csv", path="data/invoices.csv"))
    return ingest(system.tables, use_case=NAME, dataset="invoices", spec=spec, folder=root / NAME, key=key)
