"""Governed reads: policy is applied where bytes become rows, and every scan is recorded before a row goes out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any, NoReturn

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from bedplate import clock
from bedplate.data import predicates
from bedplate.data.masks import Mask, Masking, Masks
from bedplate.data.tables import Tables
from bedplate.errors import DeniedError, InputError
from bedplate.policy.filters import RowFilter, RowPolicies
from bedplate.policy.policies import InForce, Policies
from bedplate.policy.values import Decision, Principal, Resource
from bedplate.records import TableVersion

_LOOK_AGAIN = 1.0
"""Seconds after which a stream that is still read asks again whether it may be."""


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """What protects a table beyond the decision on the whole of it.

    ``rows`` says which rows go out, all where there is none. ``masks`` hide values from whoever policy does not allow
    ``unmask``. ``withheld`` is why no row goes out at all, empty where some may, and ``fix`` what to do about it.
    """

    rows: RowPolicies | None = None
    masks: Masks = Masks()
    withheld: str = ""
    fix: str = ""


class ReadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One governed scan, allowed or denied, as it goes into the ledger. ``privacy`` is the epsilon that it spends."""

    principal: str
    purpose: str
    table: TableVersion
    columns: tuple[str, ...]
    allowed: bool
    policies: tuple[str, ...]
    reasons: tuple[str, ...]
    masks: dict[str, str] = {}
    row_policies: tuple[str, ...] = ()
    privacy: float = 0


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may see of a table: the mask on each column (empty for none), and which rows (None for all)."""

    allowed: bool
    policies: tuple[str, ...]
    reasons: tuple[str, ...]
    columns: dict[str, str] = {}
    rows: RowFilter | None = None


def _of_type(field: pa.Field, value: Any) -> pa.Scalar:
    try:
        return pa.scalar(value, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, ValueError, OverflowError):
        raise InputError(
            f"a {type(value).__name__} cannot be looked for in {field.name}", fix=f"{field.name} holds {field.type}"
        ) from None


def _same(a: View, b: View) -> bool:
    """Whether they show the same, whichever policies say so."""
    rows = [None if view.rows is None else view.rows.condition for view in (a, b)]
    return (a.allowed, a.columns, rows[0]) == (b.allowed, b.columns, rows[1])


class Reader:
    """Reads tables for one principal and one purpose.

    ``resource_of`` names what a table is to policy: its use case and the purposes its rows may be used for.
    ``on_read`` is called before any row is read; if it raises, nothing is read: it refuses what no privacy is left for.
    ``protection_of`` gives the row policies and masks on a version for a principal; ``mask_key`` keys the codes of
    masks that hash: the same key, codes that join. ``now`` says who the principal is at the moment, None once they may
    not come in: a stream ends where what they may see is no longer what it gives.
    """

    def __init__(
        self,
        tables: Tables,
        policies: Policies | InForce,
        principal: Principal,
        purpose: str,
        on_read: Callable[[ReadRecord], object],
        *,
        resource_of: Callable[[str], Resource],
        protection_of: Callable[[Principal, TableVersion], Protection] | None = None,
        mask_key: bytes = b"",
        now: Callable[[], Principal | None] | None = None,
    ) -> None:
        self._tables = tables
        self._policies = policies
        self._principal = principal
        self._purpose = purpose
        self._on_read = on_read
        self._resource_of = resource_of
        self._protection_of = protection_of
        self._mask_key = mask_key
        self._now = now

    def read(
        self,
        version: TableVersion,
        columns: Sequence[str] | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        few: bool = False,
    ) -> pa.RecordBatchReader:
        """Stream the rows and columns of ``version`` that policy lets this principal see for this purpose.

        ``few``: whoever reads will stop early.
        Only rows in which each column of ``where`` has that value, if given. Columns that are masked by ``drop`` are
        left out; naming one is denied, and so is looking for a value of any column that is masked.

        Raises:
            DeniedError: policy does not allow it; while the stream is read, that it does not any more.
            InputError: a column that the table has not, in ``where`` or in a mask; a mask that hashes without a key.
            NotFoundError, IntegrityError: as :meth:`Tables.scan`.
        """
        decision, protection = self._may_read(self._principal, version)
        if not decision.allowed:
            self._refuse(version, decision, protection.fix)
        schema = self._tables.schema(version)
        asked, wanted = tuple(schema.names if columns is None else columns), dict(where or {})
        if strange := sorted({*asked, *wanted}.difference(schema.names)):
            raise InputError(
                f"table {version.name} has no column {strange[0]!r}", fix=f"use one of {', '.join(schema.names)}"
            )
        masks = self._masks(self._principal, version, protection, schema, [*asked, *wanted])
        if hidden := sorted(masks.keys() & wanted.keys()):
            self._refuse(version, Decision(allowed=False, reasons=(f"{', '.join(hidden)} is masked",)))
        dropped = [name for name, mask in masks.items() if mask.kind == "drop"]
        if dropped and columns is not None:
            self._refuse(version, Decision(allowed=False, reasons=(f"{', '.join(dropped)} is withheld",)))
        names = tuple(name for name in asked if name not in dropped)
        if not names and asked:
            self._refuse(version, Decision(allowed=False, reasons=("every column is withheld",)))
        rows = self._rows(version, protection, schema)
        masking = Masking(schema, names, masks, self._mask_key)
        self._record(version, decision, names, masks, () if rows is None else rows.policies)
        conditions = [] if rows is None else [predicates.arrow(rows.condition)]
        conditions += [pc.field((name,)) == _of_type(schema.field(name), value) for name, value in wanted.items()]
        stream = self._tables.scan(version, masking.columns, reduce(and_, conditions) if conditions else None, few=few)
        return self._watched(version, masking.after(stream))

    def explain(self, version: TableVersion) -> "View":
        """What a read of every column would give, and why. Nothing is read, and nothing recorded.

        Raises:
            InputError: a mask names a column that the table has not.
            NotFoundError: there is no such version.
        """
        return self._seen(self._principal, version)

    def _seen(self, principal: Principal, version: TableVersion) -> View:
        decision, protection = self._may_read(principal, version)
        if not decision.allowed:
            return View(allowed=False, policies=decision.policies, reasons=decision.reasons)
        schema = self._tables.schema(version)
        masks = self._masks(principal, version, protection, schema, schema.names)
        return View(
            allowed=True,
            policies=decision.policies,
            reasons=decision.reasons,
            columns={name: masks[name].kind if name in masks else "" for name in schema.names},
            rows=None if protection.rows is None else protection.rows.filter(principal, self._purpose),
        )

    def _watched(self, version: TableVersion, stream: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """The same stream, until what the principal may see of the version is something else than when it began."""
        now = self._now
        if now is None:
            return stream
        began = self._seen(self._principal, version)

        def batches() -> Iterator[pa.RecordBatch]:
            looked = clock.monotonic()
            for batch in stream:
                if clock.monotonic() - looked >= _LOOK_AGAIN:
                    principal = now()
                    if principal is None or not _same(began, self._seen(principal, version)):
                        reason = "what they may see of it changed while it was read"
                        self._refuse(version, Decision(allowed=False, reasons=(reason,)))
                    looked = clock.monotonic()
                yield batch

        return pa.RecordBatchReader.from_batches(stream.schema, batches())

    def _may_read(self, principal: Principal, version: TableVersion) -> tuple[Decision, Protection]:
        """Whether anything of it may be read at all, and what protects the rest."""
        decision = self._decide(principal, "read", version)
        if not decision.allowed or self._protection_of is None:
            return decision, Protection()
        protection = self._protection_of(principal, version)
        if protection.withheld:
            return Decision(allowed=False, reasons=(protection.withheld,)), protection
        return decision, protection

    def _decide(self, principal: Principal, action: str, version: TableVersion, **context: str) -> Decision:
        resource = self._resource_of(version.name)
        return self._policies.decide(principal, action, resource, {"purpose": self._purpose, **context})

    def _masks(
        self,
        principal: Principal,
        version: TableVersion,
        protection: Protection,
        schema: pa.Schema,
        names: Sequence[str],
    ) -> dict[str, Mask]:
        protection.masks.check(schema, f"table {version.name}, version {version.version}")
        tags = protection.masks.on(names)
        lifted = {tag for tag in tags if self._decide(principal, "unmask", version, tag=tag).allowed}
        return {name: mask for name in names if (mask := protection.masks.of(name, lifted)) is not None}

    def _rows(self, version: TableVersion, protection: Protection, schema: pa.Schema) -> RowFilter | None:
        if protection.rows is None:
            return None
        known = predicates.attributes(schema)
        for name, attribute in protection.rows.columns.items():
            if name not in known or known[name].type != attribute.type:
                reason = f"row policies speak of the column {name}, which this version has not as {attribute.type}"
                self._refuse(version, Decision(allowed=False, reasons=(reason,)))
        return protection.rows.filter(self._principal, self._purpose)

    def _record(
        self,
        version: TableVersion,
        decision: Decision,
        columns: tuple[str, ...] = (),
        masks: Mapping[str, Mask] | None = None,
        row_policies: tuple[str, ...] = (),
    ) -> None:
        self._on_read(
            ReadRecord(
                principal=self._principal.id,
                purpose=self._purpose,
                table=version,
                columns=columns,
                allowed=decision.allowed,
                policies=decision.policies,
                reasons=decision.reasons,
                masks={name: mask.kind for name, mask in (masks or {}).items()},
                privacy=sum(mask.epsilon for mask in (masks or {}).values() if mask.kind == "noise"),
                row_policies=row_policies,
            )
        )

    def _refuse(self, version: TableVersion, decision: Decision, fix: str = "") -> NoReturn:
        self._record(version, decision)
        raise DeniedError(
            f"{self._principal.name} may not read table {version.name} for purpose {self._purpose!r}: "
            + "; ".join(decision.reasons),
            where=version.name,
            fix=fix or "ask for a purpose that the use case names, or for a right",
        )
