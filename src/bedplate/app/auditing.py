"""Verifying the ledger of a home, offline."""

from pathlib import Path

from bedplate.app.read_models import AuditReport
from bedplate.settings import Settings


def verify(settings: Settings, checkpoint: Path | None) -> AuditReport:
    """Check entries, tree, tiles and signatures; against a checkpoint kept elsewhere, if one is given."""
    raise NotImplementedError
