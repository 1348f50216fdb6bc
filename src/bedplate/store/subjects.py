"""Where a person's value stands in the database beside the tables of data: found, and taken out where that may be."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from bedplate.ids import Digest
from bedplate.store import model_schema, registry_schema
from bedplate.store.schema import artifacts, experiments, ledger_payloads, metadata, params, runs, tags
from bedplate.store.sql import Repository, param

_PATTERN = param("pattern_")
_KEYS: sa.BindParameter[Any] = sa.bindparam("keys_", expanding=True)
_ESCAPE = "\\"


def _named(table: sa.Table, *more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Rows of a table of keys and values in which the value may stand, with the run that they are of."""
    whole = table.c.value + sa.func.coalesce(table.c.rest, "")
    stands = [text.like(_PATTERN, escape=_ESCAPE) for text in (table.c.key, whole)]
    return (
        sa.select(experiments.c.workspace, runs.c.id, table.c.run, table.c.key, table.c.value, table.c.rest, *more)
        .join(runs, runs.c.key == table.c.run)
        .join(experiments, experiments.c.id == runs.c.experiment)
        .where(sa.or_(sa.and_(table.c.key.in_(_KEYS), table.c.value == param("value_")), *stands))
        .order_by(table.c.run, table.c.key)
    )


_PARAMS, _TAGS = _named(params, params.c.position), _named(tags)
_REMOVE = {
    table.name: sa.delete(table).where(table.c.run == param("run_"), table.c.key == param("key_"))
    for table in (params, tags)
}
_ARTIFACTS = sa.select(artifacts.c.workspace, artifacts.c.folder, artifacts.c.name).where(
    artifacts.c.digest == param("digest_")
)
_NOT_LOOKED_AT = {"metrics", "latest_metrics", ledger_payloads.name}
"""Tables of numbers, whose keys are looked at in none; payloads are looked at by :meth:`Subjects.payloads`."""
_ALL = (metadata, model_schema.datasets.metadata, registry_schema.registered_models.metadata)


class Logged(NamedTuple):
    """A param or a tag that names somebody. ``position`` is the place of a param in the chain, None for a tag."""

    workspace: str
    run: str
    run_key: int
    key: str
    position: int | None


class Subjects(Repository):
    """``tx.subjects``."""

    def logged(self, value: str, columns: Sequence[str], *, anywhere: bool) -> list[Logged]:
        """Params and tags of runs that name somebody: ``value`` under the key of a column or, with ``anywhere``, as a
        word in any of them."""
        asked = {"value_": value, "keys_": list(columns), "pattern_": _like(value) if anywhere else ""}
        found = []
        for table, statement in ((params, _PARAMS), (tags, _TAGS)):
            for row in self._execute(statement, **asked):
                text = f"{row.value}{row.rest or ''}"
                if (row.key in columns and text == value) or (anywhere and stands_in(value, f"{row.key} {text}")):
                    position = row.position if table is params else None
                    found.append(Logged(row.workspace, row.id, row.run, row.key, position))
        return found

    def remove(self, logged: Logged) -> None:
        """Remove a param or a tag."""
        table = tags if logged.position is None else params
        self._execute(_REMOVE[table.name], run_=logged.run_key, key_=logged.key)

    def payloads(self, value: str) -> Iterator[int]:
        """The entries of the ledger whose payload says ``value`` as a word."""
        wanted = word(value)
        for row in self._execute(sa.select(ledger_payloads.c.position, ledger_payloads.c.payload)):
            if wanted.search(bytes(row.payload)):
                yield row.position

    def holding(self, value: str) -> dict[str, int]:
        """Rows of each table in which ``value`` stands as a word in any text."""
        found: dict[str, int] = {}
        for table in {table.name: table for each in _ALL for table in each.sorted_tables}.values():
            texts = [c for c in table.columns if isinstance(c.type, sa.String) and not isinstance(c.type, sa.Enum)]
            if table.name in _NOT_LOOKED_AT or not texts:
                continue
            where = sa.or_(*(column.like(_like(value), escape=_ESCAPE) for column in texts))
            rows = self._execute(sa.select(*texts).where(where))
            count = sum(any(stands_in(value, str(cell)) for cell in row if cell is not None) for row in rows)
            if count:
                found[table.name] = count
        return found

    def artifacts(self, digest: Digest) -> list[str]:
        """The names of the artifacts with this content, each after its workspace."""
        rows = self._execute(_ARTIFACTS, digest_=digest)
        return [f"{row.workspace}/{row.folder}{row.name}" for row in rows]


def word(value: str) -> re.Pattern[bytes]:
    """Finds ``value`` in bytes where it is not part of a longer word or number."""
    return re.compile(rb"(?<![\w-])" + re.escape(value.encode()) + rb"(?![\w-])")


def stands_in(value: str, text: str) -> bool:
    """Whether ``value`` stands in a text as a word."""
    return word(value).search(text.encode("utf-8", "surrogatepass")) is not None


def _like(value: str) -> str:
    for sign in (_ESCAPE, "%", "_"):
        value = value.replace(sign, _ESCAPE + sign)
    return f"%{value}%"
