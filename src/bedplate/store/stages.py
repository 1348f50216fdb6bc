"""Which stage of which use case is finished for which inputs: the row that decides whether work is done again."""

from typing import Any

import msgspec
import sqlalchemy as sa

from bedplate import clock
from bedplate.ids import Digest
from bedplate.store.schema import stages
from bedplate.store.sql import Repository, Row, Upsert, dump, param, parse

_use_case, _stage, _input = param("use_case_"), param("stage_"), param("input_")
_ONE = sa.and_(stages.c.use_case == _use_case, stages.c.stage == _stage, stages.c.input_digest == _input)
_OUTPUT = sa.select(stages.c.output).where(_ONE)
_NEXT = sa.select(sa.func.coalesce(sa.func.max(stages.c.put), 0) + 1).where(
    stages.c.use_case == _use_case, stages.c.stage == _stage
)
_FINISH = Upsert(stages, update=("inputs", "output", "seconds", "finished", "put"))
_REUSE = sa.update(stages).where(_ONE).values(put=param("put_"))
_LATEST = (
    sa.select(stages).where(stages.c.use_case == _use_case, stages.c.stage == _stage).order_by(stages.c.put.desc())
).limit(1)
_NAMES = sa.select(stages.c.stage).where(stages.c.use_case == _use_case).distinct()


class StageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One finished stage. ``inputs`` maps what the stage depends on to the digest it had; ``output`` is a fact."""

    use_case: str
    stage: str
    input_digest: Digest
    inputs: dict[str, str]
    output: Digest
    seconds: float
    finished: str


class Stages(Repository):
    """``tx.stages``."""

    def finished(self, use_case: str, stage: str, input_digest: Digest) -> Digest | None:
        """The fact that this stage made from these inputs, or None if it was never finished for them."""
        output = self._execute(_OUTPUT, use_case_=use_case, stage_=stage, input_=input_digest).scalar()
        return None if output is None else Digest(output)

    def finish(
        self, use_case: str, stage: str, input_digest: Digest, inputs: dict[str, str], output: Digest, seconds: float
    ) -> None:
        """Record that the stage is finished for these inputs; it becomes the latest. Again: the last word counts."""
        values: dict[str, Any] = {"use_case": use_case, "stage": stage, "input_digest": input_digest}
        values |= {"inputs": dump(inputs), "output": output, "seconds": seconds, "finished": clock.timestamp()}
        self._execute(_FINISH.on(self._connection), **values, put=self._next(use_case, stage))

    def reuse(self, use_case: str, stage: str, input_digest: Digest) -> None:
        """Make an earlier result the latest again: somebody changed the file back."""
        latest = self.latest(use_case, stage)
        if latest is not None and latest.input_digest != input_digest:
            put = self._next(use_case, stage)
            self._execute(_REUSE, use_case_=use_case, stage_=stage, input_=input_digest, put_=put)

    def latest(self, use_case: str, stage: str) -> StageRow | None:
        """The result that counts now."""
        row = self._execute(_LATEST, use_case_=use_case, stage_=stage).first()
        return None if row is None else _stage_row(row)

    def all_latest(self, use_case: str) -> dict[str, StageRow]:
        """The result that counts now, for each stage that was ever finished."""
        rows = (self.latest(use_case, name) for name in self._execute(_NAMES, use_case_=use_case).scalars().all())
        return {row.stage: row for row in rows if row is not None}

    def _next(self, use_case: str, stage: str) -> int:
        return int(self._execute(_NEXT, use_case_=use_case, stage_=stage).scalar_one())


def _stage_row(row: Row) -> StageRow:
    return StageRow(
        use_case=row.use_case,
        stage=row.stage,
        input_digest=Digest(row.input_digest),
        inputs=parse(row.inputs),
        output=Digest(row.output),
        seconds=row.seconds,
        finished=row.finished,
    )
