"""The tamper-evident audit log."""

from bedplate.ledger.ledger import Entry, Ledger
from bedplate.ledger.notes import Signer, Verifier, new_key
from bedplate.ledger.verify import Report, verify

__all__ = ["Entry", "Ledger", "Report", "Signer", "Verifier", "new_key", "verify"]
