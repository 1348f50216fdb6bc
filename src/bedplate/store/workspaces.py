"""Workspaces: what experiments, models and artifacts belong to, and which groups may read and write in them."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from bedplate import clock
from bedplate.errors import ConflictError, NotFoundError, StateError
from bedplate.store.schema import metadata, workspaces
from bedplate.store.sql import Repository, Row, dump, fields, param, parse

DEFAULT = "default"
"""The workspace that is always there."""

_name = param("name_")
_ADD = sa.insert(workspaces)
_GET = sa.select(workspaces).where(workspaces.c.name == _name)
_LIST = sa.select(workspaces).order_by(workspaces.c.name)
_CHANGE = (
    sa.update(workspaces)
    .where(workspaces.c.name == _name)
    .values(
        description=param("description_"),
        shared=param("shared_"),
        readers=param("readers_"),
        writers=param("writers_"),
    )
)
_USED = {
    table.name: sa.select(table.c.workspace).where(table.c.workspace == _name).limit(1)
    for table in metadata.sorted_tables
    if "workspace" in table.c
}
_KEPT = ("version_history",)
"""What stays when a workspace goes: then its name is not given to another, which would inherit it."""
_DELETE = sa.delete(workspaces).where(workspaces.c.name == _name)


class WorkspaceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One workspace. A shared one is open to whoever has rights in the home, another only to the groups it names."""

    name: str
    description: str
    created: str
    shared: bool
    readers: tuple[str, ...]
    writers: tuple[str, ...]


class Workspaces(Repository):
    """``tx.workspaces``."""

    def add(
        self,
        name: str,
        description: str = "",
        *,
        shared: bool = False,
        readers: Sequence[str] = (),
        writers: Sequence[str] = (),
    ) -> WorkspaceRow:
        """Make a workspace.

        Raises:
            ConflictError: there is one of this name, or was one whose history is kept.
        """
        if self.find(name) is not None:
            raise ConflictError(f"there is a workspace {name} already", fix="choose another name")
        if self._holds(name):
            raise ConflictError(f"the history of a workspace {name} is kept", fix="choose another name")
        row = WorkspaceRow(
            name=name,
            description=description,
            created=clock.timestamp(),
            shared=shared,
            readers=tuple(readers),
            writers=tuple(writers),
        )
        groups = {"readers": dump(row.readers), "writers": dump(row.writers)}
        self._execute(_ADD, **{**msgspec.structs.asdict(row), **groups})
        return row

    def find(self, name: str) -> WorkspaceRow | None:
        """The workspace of this name, if there is one."""
        row = self._execute(_GET, name_=name).first()
        return None if row is None else _workspace(row)

    def get(self, name: str) -> WorkspaceRow:
        """The workspace of this name.

        Raises:
            NotFoundError: there is none.
        """
        row = self.find(name)
        if row is None:
            raise NotFoundError(f"no workspace {name}")
        return row

    def list(self) -> list[WorkspaceRow]:
        """All workspaces, by name."""
        return [_workspace(row) for row in self._execute(_LIST)]

    def change(self, row: WorkspaceRow) -> None:
        """Keep what is said about the workspace of this name, and who may read and write in it.

        Raises:
            NotFoundError: there is none of this name.
        """
        values = {
            "name_": row.name,
            "description_": row.description,
            "shared_": row.shared,
            "readers_": dump(row.readers),
            "writers_": dump(row.writers),
        }
        if self._execute(_CHANGE, **values).rowcount != 1:
            raise NotFoundError(f"no workspace {row.name}")

    def delete(self, name: str) -> None:
        """Delete an empty workspace.

        Raises:
            NotFoundError: there is none of this name.
            StateError: something belongs to it, deleted experiments among them.
        """
        self.get(name)
        held = [table for table in self._holds(name) if table not in _KEPT]
        if held:
            raise StateError(
                f"the workspace {name} is not empty: it holds {', '.join(held).replace('_', ' ')}",
                fix="delete them for good first, deleted experiments too",
            )
        self._execute(_DELETE, name_=name)

    def _holds(self, name: str) -> Sequence[str]:
        """The tables that have something of a workspace."""
        return [table for table, query in _USED.items() if self._execute(query, name_=name).first() is not None]


def _workspace(row: Row) -> WorkspaceRow:
    values = fields(row)
    return msgspec.convert(
        {**values, "shared": bool(row.shared), "readers": parse(row.readers), "writers": parse(row.writers)},
        WorkspaceRow,
    )
