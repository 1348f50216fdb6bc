"""The SQL database: one repository file per aggregate, migrations."""

from bedplate.store.database import Store, Transaction
from bedplate.store.database import open_store as open

__all__ = ["Store", "Transaction", "open"]
