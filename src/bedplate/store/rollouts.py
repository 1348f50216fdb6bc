"""Rollouts: which release is being let in where, how far it is, and what was seen at each step."""

from typing import Any

import msgspec
import sqlalchemy as sa

from bedplate import clock, ids
from bedplate.ids import Digest
from bedplate.records import RolloutState
from bedplate.store.schema import rollouts
from bedplate.store.sql import Repository, Row, dump, fields, param, parse

_PLAIN = ("state", "step", "stepped", "reason", "updated")
_ADD = sa.insert(rollouts)
_OF = (
    sa.select(rollouts)
    .where(rollouts.c.endpoint == param("endpoint_"))
    .order_by(rollouts.c.created.desc(), rollouts.c.id.desc())
    .limit(param("limit_"))
)
_ACTIVE = sa.select(rollouts).where(rollouts.c.state.in_(("running", "frozen"))).order_by(rollouts.c.endpoint)
_CHANGE = (
    sa.update(rollouts)
    .where(rollouts.c.id == param("id_"))
    .values({name: param(f"{name}_") for name in (*_PLAIN, "evidence", "outcomes")})
)
_JSON = ("plan", "spec", "before", "evidence", "outcomes")


class RolloutRow(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout. ``spec`` is what the candidate becomes, ``before`` what the endpoint was started from until then.

    ``step`` counts from 0 and began at ``stepped``; ``evidence`` holds what was seen at the end of each step, and
    ``outcomes`` what was reported about the present one.
    """

    id: str
    endpoint: str
    use_case: str
    bundle: Digest
    state: RolloutState
    step: int
    stepped: str
    plan: dict[str, Any]
    spec: dict[str, Any]
    before: dict[str, Any]
    evidence: list[dict[str, Any]]
    outcomes: dict[str, Any]
    reason: str
    by: str
    created: str
    updated: str


class Rollouts(Repository):
    """``tx.rollouts``."""

    def add(
        self,
        endpoint: str,
        *,
        use_case: str,
        bundle: Digest,
        plan: dict[str, Any],
        spec: dict[str, Any],
        before: dict[str, Any],
        by: str,
    ) -> RolloutRow:
        """Begin a rollout at its first step; the id is made here."""
        now = clock.timestamp()
        row = RolloutRow(
            id=ids.new_id("roll"),
            endpoint=endpoint,
            use_case=use_case,
            bundle=bundle,
            state="running",
            step=0,
            stepped=now,
            plan=plan,
            spec=spec,
            before=before,
            evidence=[],
            outcomes={},
            reason="",
            by=by,
            created=now,
            updated=now,
        )
        values = msgspec.structs.asdict(row)
        self._execute(_ADD, **{**values, **{name: dump(values[name]) for name in _JSON}})
        return row

    def change(self, row: RolloutRow, **changes: Any) -> RolloutRow:
        """Keep a row with changes to its state, step, evidence, outcomes or reason."""
        changed = msgspec.structs.replace(row, updated=clock.timestamp(), **changes)
        values = msgspec.structs.asdict(changed)
        bound = {f"{name}_": values[name] for name in ("id", *_PLAIN)}
        bound |= {f"{name}_": dump(values[name]) for name in ("evidence", "outcomes")}
        self._execute(_CHANGE, **bound)
        return changed

    def active(self) -> list[RolloutRow]:
        """Rollouts that have not ended, by endpoint."""
        return [_rollout(row) for row in self._execute(_ACTIVE)]

    def list(self, endpoint: str, limit: int = 20) -> list[RolloutRow]:
        """The rollouts of an endpoint, newest first."""
        return [_rollout(row) for row in self._execute(_OF, endpoint_=endpoint, limit_=limit)]

    def latest(self, endpoint: str) -> RolloutRow | None:
        """The newest rollout of an endpoint."""
        return next(iter(self.list(endpoint, 1)), None)


def _rollout(row: Row) -> RolloutRow:
    values = fields(row)
    return msgspec.convert({**values, **{name: parse(values[name]) for name in _JSON}}, RolloutRow)
