"""Approvals of model versions, and waivers of gates."""

from typing import Literal

import msgspec
import sqlalchemy as sa

from bedplate import clock, ids
from bedplate.errors import NotFoundError
from bedplate.ids import Digest
from bedplate.store.schema import approvals, waivers
from bedplate.store.sql import Repository, Row, dump, fields, param, parse

_use_case = param("use_case_")
_APPROVE = sa.insert(approvals)
_APPROVALS = (
    sa.select(approvals)
    .where(
        approvals.c.use_case == _use_case,
        approvals.c.bundle == param("bundle_"),
        approvals.c.environment == param("environment_"),
    )
    .order_by(approvals.c.created, approvals.c.id)
)
_USE_CASE_APPROVALS = (
    sa.select(approvals).where(approvals.c.use_case == _use_case).order_by(approvals.c.created, approvals.c.id)
)
_WAIVE = sa.insert(waivers)
_WITHDRAW = (
    sa.update(waivers)
    .where(waivers.c.id == param("id_"), waivers.c.withdrawn.is_(None))
    .values(withdrawn=param("withdrawn_"))
)
_WAIVERS = (
    sa.select(waivers)
    .where(waivers.c.use_case == _use_case, waivers.c.withdrawn.is_(None))
    .order_by(waivers.c.created, waivers.c.id)
)


class ApprovalRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one principal (or a policy, in ``by``) said about one bundle for one environment."""

    id: str
    use_case: str
    bundle: Digest
    environment: str
    state: Literal["approved", "refused"]
    by: str
    reason: str
    policies: tuple[str, ...]
    created: str


class WaiverRow(msgspec.Struct, frozen=True, kw_only=True):
    """A named person's waiver of one gate that lacks evidence, in one environment."""

    id: str
    use_case: str
    gate: str
    environment: str
    by: str
    reason: str
    created: str
    withdrawn: str | None = None


class Approvals(Repository):
    """``tx.approvals``."""

    def add(
        self,
        use_case: str,
        bundle: Digest,
        environment: str,
        *,
        state: Literal["approved", "refused"],
        by: str,
        reason: str,
        policies: tuple[str, ...] = (),
    ) -> ApprovalRow:
        """Keep what somebody, or a policy, said about a bundle."""
        row = ApprovalRow(
            id=ids.new_id("apr"),
            use_case=use_case,
            bundle=bundle,
            environment=environment,
            state=state,
            by=by,
            reason=reason,
            policies=policies,
            created=clock.timestamp(),
        )
        self._execute(_APPROVE, **{**msgspec.structs.asdict(row), "policies": dump(list(policies))})
        return row

    def of_use_case(self, use_case: str) -> list[ApprovalRow]:
        """Everything said about the bundles of a use case, in order."""
        return [_approval(row) for row in self._execute(_USE_CASE_APPROVALS, use_case_=use_case)]

    def list(self, use_case: str, bundle: Digest, environment: str) -> list[ApprovalRow]:
        """Everything said about one bundle for one environment, in order."""
        rows = self._execute(_APPROVALS, use_case_=use_case, bundle_=bundle, environment_=environment)
        return [_approval(row) for row in rows]


class Waivers(Repository):
    """``tx.waivers``."""

    def add(self, use_case: str, gate: str, *, environment: str, by: str, reason: str) -> WaiverRow:
        """Keep a waiver; the id is made here."""
        row = WaiverRow(
            id=ids.new_id("wvr"),
            use_case=use_case,
            gate=gate,
            environment=environment,
            by=by,
            reason=reason,
            created=clock.timestamp(),
        )
        self._execute(_WAIVE, **msgspec.structs.asdict(row))
        return row

    def withdraw(self, waiver: str) -> None:
        """End a waiver.

        Raises:
            NotFoundError: there is no such waiver in force.
        """
        if self._execute(_WITHDRAW, id_=waiver, withdrawn_=clock.timestamp()).rowcount != 1:
            raise NotFoundError(f"no waiver {waiver} in force")

    def list(self, use_case: str) -> list[WaiverRow]:
        """Waivers in force, oldest first."""
        rows = self._execute(_WAIVERS, use_case_=use_case)
        return [msgspec.convert(fields(row), WaiverRow) for row in rows]


def _approval(row: Row) -> ApprovalRow:
    return msgspec.convert({**fields(row), "policies": parse(row.policies)}, ApprovalRow)
