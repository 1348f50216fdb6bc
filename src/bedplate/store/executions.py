"""Runs of the whole flow: which are under way, which ended and how."""

from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from bedplate import clock, ids
from bedplate.errors import NotFoundError
from bedplate.store.schema import executions
from bedplate.store.sql import Repository, Row, fields, param

State = Literal["running", "waiting", "succeeded", "failed", "stopped"]

_id = param("id_")
_INSERT = sa.insert(executions)
_GET = sa.select(executions).where(executions.c.id == _id)
_STAGE = (
    sa.update(executions)
    .where(executions.c.id == _id)
    .values(stage=param("stage_"), message=param("message_"), state="running", ended=None)
)
_END = (
    sa.update(executions)
    .where(executions.c.id == _id)
    .values(state=param("state_"), message=param("message_"), ended=param("ended_"))
)
_LIST = (
    sa.select(executions)
    .where(executions.c.use_case == param("use_case_"))
    .order_by(executions.c.started.desc(), executions.c.id.desc())
    .limit(param("limit_"))
)
_RUNNING = sa.select(executions).where(executions.c.state == "running").order_by(executions.c.started)


class ExecutionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the flow. ``stage`` is the one it is in or ended in."""

    id: str
    use_case: str
    actor: str
    state: State
    stage: str
    message: str
    started: str
    ended: str | None


class Executions(Repository):
    """``tx.executions``."""

    def start(self, use_case: str, actor: str) -> ExecutionRow:
        """Begin a run of the flow; the id is made here."""
        row: dict[str, Any] = {"id": ids.new_id("exe"), "use_case": use_case, "actor": actor, "state": "running"}
        row |= {"stage": "", "message": "", "started": clock.timestamp(), "ended": None}
        self._execute(_INSERT, **row)
        return msgspec.convert(row, ExecutionRow)

    def enter(self, execution: str, stage: str, message: str = "") -> None:
        """Note which stage the run is in now."""
        self._execute(_STAGE, id_=execution, stage_=stage, message_=message)

    def end(self, execution: str, state: State, message: str = "") -> None:
        """Note how the run ended (or that it waits for somebody)."""
        self._execute(_END, id_=execution, state_=state, message_=message, ended_=clock.timestamp())

    def get(self, execution: str) -> ExecutionRow:
        """The run of this id.

        Raises:
            NotFoundError: there is none.
        """
        row = self._execute(_GET, id_=execution).first()
        if row is None:
            raise NotFoundError(f"no execution {execution}", fix="`bedplate status` lists the executions")
        return _execution(row)

    def latest(self, use_case: str) -> ExecutionRow | None:
        """The newest run of a use case."""
        found = self.list(use_case, 1)
        return found[0] if found else None

    def running(self) -> list[ExecutionRow]:
        """Runs that are marked as under way; after a kill, those that must be taken up again."""
        return [_execution(row) for row in self._execute(_RUNNING)]

    def list(self, use_case: str, limit: int = 20) -> list[ExecutionRow]:
        """Runs of a use case, newest first."""
        return [_execution(row) for row in self._execute(_LIST, use_case_=use_case, limit_=limit)]


def _execution(row: Row) -> ExecutionRow:
    return msgspec.convert(fields(row), ExecutionRow)
