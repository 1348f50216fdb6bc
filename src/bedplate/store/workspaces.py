"""Workspaces: what experiments, models and artifacts belong to."""

import msgspec
import sqlalchemy as sa

from bedplate import clock
from bedplate.errors import ConflictError, NotFoundError
from bedplate.store.schema import experiments, workspaces
from bedplate.store.sql import Repository, fields, param

DEFAULT = "default"
"""The workspace that is always there."""

_name = param("name_")
_ADD = sa.insert(workspaces)
_GET = sa.select(workspaces).where(workspaces.c.name == _name)
_LIST = sa.select(workspaces).order_by(workspaces.c.name)
_DESCRIBE = sa.update(workspaces).where(workspaces.c.name == _name).values(description=param("description_"))
_USED = sa.select(experiments.c.id).where(experiments.c.workspace == _name).limit(1)
_DELETE = sa.delete(workspaces).where(workspaces.c.name == _name)


class WorkspaceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One workspace."""

    name: str
    description: str
    created: str


class Workspaces(Repository):
    """``tx.workspaces``."""

    def add(self, name: str, description: str = "") -> WorkspaceRow:
        """Make a workspace.

        Raises:
            ConflictError: there is one of this name.
        """
        if self.find(name) is not None:
            raise ConflictError(f"there is a workspace {name} already", fix="choose another name")
        row = WorkspaceRow(name=name, description=description, created=clock.timestamp())
        self._execute(_ADD, **msgspec.structs.asdict(row))
        return row

    def find(self, name: str) -> WorkspaceRow | None:
        """The workspace of this name, if there is one."""
        row = self._execute(_GET, name_=name).first()
        return None if row is None else msgspec.convert(fields(row), WorkspaceRow)

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
        return [msgspec.convert(fields(row), WorkspaceRow) for row in self._execute(_LIST)]

    def describe(self, name: str, description: str) -> None:
        """Change what is said about a workspace.

        Raises:
            NotFoundError: there is none of this name.
        """
        if self._execute(_DESCRIBE, name_=name, description_=description).rowcount != 1:
            raise NotFoundError(f"no workspace {name}")

    def delete(self, name: str) -> None:
        """Delete an empty workspace.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: experiments belong to it, deleted ones among them.
        """
        if self._execute(_USED, name_=name).first() is not None:
            raise ConflictError(f"experiments belong to the workspace {name}", fix="delete them for good first")
        if self._execute(_DELETE, name_=name).rowcount != 1:
            raise NotFoundError(f"no workspace {name}")
