"""What happened to models and their versions, in order. Rows are added and read; nothing changes or removes one."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from bedplate.store.registry_schema import model_versions, registered_models, version_history
from bedplate.store.sql import Repository, Row, fields, param

Kind = Literal[
    "model-created",
    "model-renamed",
    "model-deleted",
    "created",
    "bundle",
    "stage",
    "alias-set",
    "alias-removed",
    "served",
    "converted",
    "deleted",
]
"""What can happen. Those that begin with ``model-`` are about the model as a whole."""
NAMING: tuple[Kind, ...] = ("model-created", "model-renamed", "model-deleted")
STAGING: tuple[Kind, ...] = ("created", "stage", "deleted")
POINTING: tuple[Kind, ...] = ("alias-set", "alias-removed")

_h = version_history.c
_model, _time, _value = param("model_"), param("time_"), param("value_")
_ADD = sa.insert(version_history)
_LAST = sa.select(sa.func.coalesce(sa.func.max(_h.seq), 0))
_LAST_TIME = sa.select(sa.func.coalesce(sa.func.max(_h.time), 0)).where(_h.model == _model)
_OWN = sa.select(registered_models.c.id).where(
    registered_models.c.workspace == param("workspace_"), registered_models.c.name == param("name_")
)
_NUMBERS = sa.union_all(
    sa.select(_h.number).where(_h.model.in_(_OWN), _h.number.is_not(None)),
    sa.select(_h.number).where(_h.workspace == param("workspace_"), _h.name == param("name_"), _h.number.is_not(None)),
    sa.select(model_versions.c.number).where(
        model_versions.c.workspace == param("workspace_"), model_versions.c.name == param("name_")
    ),
).subquery()
_HIGHEST = sa.select(sa.func.coalesce(sa.func.max(_NUMBERS.c.number), 0))
_OWN_NUMBERS = sa.select(_h.number).where(_h.model == _model, _h.number.is_not(None))
_SHARED = sa.select(sa.func.min(_h.number)).where(
    _h.workspace == param("workspace_"), _h.name == param("name_"), _h.model != _model, _h.number.in_(_OWN_NUMBERS)
)
_ALL = sa.select(version_history).order_by(_h.seq)
_OF = (
    sa.select(version_history)
    .where(_h.model == _model, _h.seq < param("below_"))
    .order_by(_h.seq.desc())
    .limit(param("limit_"))
)
_OF_VERSION = _OF.where(_h.number == param("number_"))
_EXISTED = sa.select(_h.seq).where(_h.model == _model, _h.kind == "model-created", _h.time <= _time)


def _newest(kinds: Sequence[Kind], per: sa.ColumnElement[object], *where: sa.ColumnElement[bool]) -> sa.Subquery:
    """The last row of these kinds up to a moment, for each value of ``per``: ``place`` is 1 there."""
    place = sa.func.row_number().over(partition_by=per, order_by=_h.seq.desc()).label("place")
    return sa.select(version_history, place).where(_h.kind.in_(kinds), _h.time <= _time, *where).subquery()


_NAMES = _newest(
    NAMING,
    _h.model,
    _h.model.in_(
        sa.select(_h.model).where(_h.workspace == param("workspace_"), _h.name == param("name_"), _h.kind.in_(NAMING))
    ),
)
_NAMED = (
    sa.select(_NAMES.c.model)
    .where(_NAMES.c.place == 1, _NAMES.c.after == param("name_"))
    .order_by(_NAMES.c.seq.desc())
    .limit(1)
)
_NAME_AT = (
    sa.select(_h.after)
    .where(_h.model == _model, _h.kind.in_(NAMING), _h.time <= _time)
    .order_by(_h.seq.desc())
    .limit(1)
)
_LAST_OF_NAME = (
    sa.select(_h.model)
    .where(_h.workspace == param("workspace_"), _h.name == param("name_"))
    .order_by(_h.seq.desc())
    .limit(1)
)
_STAGES = _newest(STAGING, _h.number, _h.model == _model)
_IN_STAGE = sa.select(_STAGES).where(_STAGES.c.place == 1, _STAGES.c.after == _value).order_by(_STAGES.c.number)
_POINTED = (
    sa.select(version_history)
    .where(
        _h.model == _model, _h.kind.in_(sa.bindparam("kinds_", expanding=True)), _h.value == _value, _h.time <= _time
    )
    .order_by(_h.seq.desc())
    .limit(1)
)


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened.

    ``value`` is the alias, the environment or the digest it is about; ``before`` and ``after`` are names, stages or
    version numbers. ``time`` is in milliseconds and never goes back within a model. ``entry`` is the ledger entry that
    holds the same row; None for what was carried over from before there was a history.
    """

    seq: int
    workspace: str
    name: str
    model: str
    number: int | None
    kind: Kind
    value: str = ""
    before: str = ""
    after: str = ""
    by: str
    time: int
    entry: int | None = None


class History(Repository):
    """``tx.history``."""

    def last(self) -> int:
        """The number of the newest row, 0 for none. Who is going to append MUST hold the lock of the ledger's head."""
        return int(self._execute(_LAST).scalar_one())

    def append(self, rows: Iterable[HistoryRow]) -> None:
        """Add rows, numbered on from :meth:`last`.

        Raises:
            ConflictError: a row does not follow the newest one.
        """
        for row in rows:
            self._execute(_ADD, **msgspec.structs.asdict(row))

    def last_time(self, model: str) -> int:
        """When something last happened to a model; 0 if nothing did."""
        return int(self._execute(_LAST_TIME, model_=model).scalar_one())

    def highest(self, workspace: str, name: str) -> int:
        """The highest number that a version of this name, or of the model that has it now, ever had; 0 for none."""
        return int(self._execute(_HIGHEST, workspace_=workspace, name_=name).scalar_one())

    def shared(self, workspace: str, name: str, model: str) -> int | None:
        """A number that a version of this model has or had, and another model's version had under this name."""
        found = self._execute(_SHARED, workspace_=workspace, name_=name, model_=model).scalar()
        return None if found is None else int(found)

    def all(self) -> Iterable[HistoryRow]:
        """Every row, in order."""
        return (_row(row) for row in self._execute(_ALL))

    def of(self, model: str, number: int | None = None, *, below: int = 1 << 62, limit: int = 1000) -> list[HistoryRow]:
        """What happened to a model, or to one version of it, newest first; ``below`` pages on from a row's ``seq``."""
        if number is None:
            rows = self._execute(_OF, model_=model, below_=below, limit_=limit)
        else:
            rows = self._execute(_OF_VERSION, model_=model, number_=number, below_=below, limit_=limit)
        return [_row(row) for row in rows]

    def named(self, workspace: str, name: str, time: int) -> str | None:
        """The id of the model that had this name at that moment."""
        found = self._execute(_NAMED, workspace_=workspace, name_=name, time_=time).scalar()
        return None if found is None else str(found)

    def name_at(self, model: str, time: int) -> str:
        """What a model was called at that moment; empty if it was not there."""
        return str(self._execute(_NAME_AT, model_=model, time_=time).scalar() or "")

    def last_of_name(self, workspace: str, name: str) -> str | None:
        """The id of the model that something last happened to under this name."""
        found = self._execute(_LAST_OF_NAME, workspace_=workspace, name_=name).scalar()
        return None if found is None else str(found)

    def existed(self, model: str, time: int) -> bool:
        """Whether the model of this id had been made by that moment."""
        return self._execute(_EXISTED, model_=model, time_=time).first() is not None

    def in_stage(self, model: str, stage: str, time: int) -> list[HistoryRow]:
        """What had brought each version into the stage that was in it at that moment, by number."""
        return [_row(row) for row in self._execute(_IN_STAGE, model_=model, value_=stage, time_=time)]

    def aliased(self, model: str, alias: str, time: int) -> HistoryRow | None:
        """What had pointed the alias to a version at that moment; None if it pointed to none."""
        return self._pointed(model, POINTING, alias, time)

    def served(self, model: str, environment: str, time: int) -> HistoryRow | None:
        """What had put a version to work in an environment at that moment; None if nothing was served there."""
        return self._pointed(model, ("served",), environment, time)

    def _pointed(self, model: str, kinds: Sequence[Kind], value: str, time: int) -> HistoryRow | None:
        row = self._execute(_POINTED, model_=model, kinds_=kinds, value_=value, time_=time).first()
        return None if row is None or not row.after else _row(row)


def _row(row: Row) -> HistoryRow:
    known = {name: value for name, value in fields(row).items() if name != "place"}
    return msgspec.convert(known, HistoryRow)
