"""Verifying the ledger of a home, and the history of model versions against it, offline."""

from pathlib import Path

from bedplate import ledger, store
from bedplate.app.read_models import AuditReport
from bedplate.errors import BedplateError, NotFoundError
from bedplate.release import past
from bedplate.settings import Home, Settings


def verify(settings: Settings, checkpoint: Path | None) -> AuditReport:
    """Check entries, tree, tiles and signatures; against a checkpoint kept elsewhere, if one is given.

    Raises:
        NotFoundError: there is no home, or no such checkpoint file.
    """
    home = Home(settings.home)
    if not home.manifest.is_file():
        raise NotFoundError("there is no home here", where=str(home.root), fix="run a use case first, or give --home")
    if checkpoint is not None and not checkpoint.is_file():
        raise NotFoundError("there is no such checkpoint", where=str(checkpoint), fix="name a file with a signed note")
    report = ledger.verify(home, checkpoint, database=settings.database or None)
    problems = (*report.problems, *_history(settings, home))
    return AuditReport(
        verified=not problems,
        entries=report.entries,
        root=report.root,
        checkpoint=f"{report.origin}, {report.signed:,} signed, {report.unsigned:,} since",
        against=str(checkpoint) if checkpoint is not None else None,
        problems=problems,
    )


def _history(settings: Settings, home: Home) -> tuple[str, ...]:
    try:
        opened = store.open(settings.database or home.database, read_only=True)
    except BedplateError:
        return ()  # what is wrong with the database stands among the problems of the ledger already
    try:
        with opened.read() as tx:
            return tuple(past.verify(tx))
    finally:
        opened.close()
