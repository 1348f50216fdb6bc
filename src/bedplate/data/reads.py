"""Governed reads: policy is applied where bytes become rows, and every scan is recorded before a row goes out."""

from collections.abc import Callable, Sequence

import msgspec
import pyarrow as pa

from bedplate.data.tables import Tables
from bedplate.errors import DeniedError
from bedplate.policy.policies import Policies
from bedplate.policy.values import Principal, Resource
from bedplate.records import TableVersion


class ReadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One governed scan, allowed or denied, as it goes into the ledger."""

    principal: str
    purpose: str
    table: TableVersion
    columns: tuple[str, ...]
    allowed: bool
    policies: tuple[str, ...]
    reasons: tuple[str, ...]


class Reader:
    """Reads tables for one principal and one purpose.

    ``resource_of`` names what a table is to policy: its use case and the purposes its rows may be used for.
    ``on_read`` is called before any row is read; if it raises, nothing is read.
    """

    def __init__(
        self,
        tables: Tables,
        policies: Policies,
        principal: Principal,
        purpose: str,
        on_read: Callable[[ReadRecord], object],
        *,
        resource_of: Callable[[str], Resource],
    ) -> None:
        self._tables = tables
        self._policies = policies
        self._principal = principal
        self._purpose = purpose
        self._on_read = on_read
        self._resource_of = resource_of

    def read(self, version: TableVersion, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Stream the rows and columns of ``version`` that policy lets this principal see for this purpose.

        Raises:
            DeniedError: policy does not allow it.
            NotFoundError, InputError, IntegrityError: as :meth:`Tables.scan`.
        """
        decision = self._policies.decide(
            self._principal, "read", self._resource_of(version.name), {"purpose": self._purpose}
        )
        names = (
            tuple(columns if columns is not None else self._tables.schema(version).names) if decision.allowed else ()
        )
        self._on_read(
            ReadRecord(
                principal=self._principal.id,
                purpose=self._purpose,
                table=version,
                columns=names,
                allowed=decision.allowed,
                policies=decision.policies,
                reasons=decision.reasons,
            )
        )
        if not decision.allowed:
            raise DeniedError(
                f"{self._principal.name} may not read table {version.name} for purpose {self._purpose!r}: "
                + "; ".join(decision.reasons),
                where=version.name,
                fix="ask for a purpose that the use case names, or for a right",
            )
        return self._tables.scan(version, list(names))
