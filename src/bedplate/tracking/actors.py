"""Who changes something in tracking, and the entry that each change leaves in the audit ledger."""

from typing import Any

import msgspec

from bedplate.ledger import Ledger
from bedplate.store import Transaction


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked for a change, how they were known, and the policies that let them."""

    ledger: Ledger
    name: str
    auth: str = "key"
    policies: tuple[str, ...] = ()
    request_id: str = ""

    def record(self, tx: Transaction, action: str, resource: str, **payload: Any) -> int:
        """Write the entry of a change within its transaction: without the one there is not the other.

        Returns its place in the ledger.
        """
        return self.ledger.record(
            tx,
            actor=self.name,
            action=action,
            resource=resource,
            payload=payload,
            auth=self.auth,
            policies=self.policies,
            request_id=self.request_id,
        )
