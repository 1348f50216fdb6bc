"""Verifying the ledger of a home, and against it what runs logged and how model versions moved, offline."""

from pathlib import Path

from bedplate import ledger, store
from bedplate.app.read_models import AuditReport
from bedplate.errors import NotFoundError
from bedplate.release import past
from bedplate.settings import Home, Settings
from bedplate.tracking import appends


def verify(settings: Settings, checkpoint: Path | None) -> AuditReport:
    """Check entries, tree, tiles, signatures and the rows of runs; against a checkpoint kept elsewhere if there is one.

    Raises:
        NotFoundError: there is no home, or no such checkpoint file.
    """
    home = Home(settings.home)
    if not home.manifest.is_file():
        raise NotFoundError("there is no home here", where=str(home.root), fix="run a use case first, or give --home")
    if checkpoint is not None and not checkpoint.is_file():
        raise NotFoundError("there is no such checkpoint", where=str(checkpoint), fix="name a file with a signed note")
    report = ledger.verify(home, checkpoint, database=settings.database or None)
    problems = report.problems
    if report.ok:  # else the database is not one to read further
        problems = _kept(settings, home)
    return AuditReport(
        verified=report.ok and not problems,
        entries=report.entries,
        root=report.root,
        checkpoint=f"{report.origin}, {report.signed:,} signed, {report.unsigned:,} since",
        against=str(checkpoint) if checkpoint is not None else None,
        problems=problems,
    )


def _kept(settings: Settings, home: Home) -> tuple[str, ...]:
    opened = store.open(settings.database or home.database, read_only=True)
    try:
        with opened.read() as tx:
            return (*past.verify(tx), *appends.verify(tx))
    finally:
        opened.close()
