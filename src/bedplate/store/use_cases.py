"""The use cases that this home knows, each with the folder it was last loaded from."""

import msgspec
import sqlalchemy as sa

from bedplate import clock
from bedplate.errors import NotFoundError
from bedplate.ids import Digest
from bedplate.store.schema import use_cases
from bedplate.store.sql import Repository, Row, Upsert, fields, param

_PUT = Upsert(use_cases, update=("folder", "file", "file_digest", "objective", "updated"))
_GET = sa.select(use_cases).where(use_cases.c.name == param("name_"))
_LIST = sa.select(use_cases).order_by(use_cases.c.name)


class UseCaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """One use case. ``objective`` is the digest of its latest objective fact."""

    name: str
    folder: str
    file: str
    file_digest: Digest
    objective: Digest
    created: str
    updated: str


class UseCases(Repository):
    """``tx.use_cases``."""

    def put(self, name: str, *, folder: str, file: str, file_digest: Digest, objective: Digest) -> None:
        """Make the use case known, or say where it lies now."""
        now = clock.timestamp()
        values = {"name": name, "folder": folder, "file": file, "file_digest": file_digest, "objective": objective}
        self._execute(_PUT.on(self._connection), **values, created=now, updated=now)

    def get(self, name: str) -> UseCaseRow:
        """The use case of this name.

        Raises:
            NotFoundError: no such use case ran here yet.
        """
        row = self._execute(_GET, name_=name).first()
        if row is None:
            raise NotFoundError(f"no use case {name!r} in this home", fix="run it first: bedplate run FOLDER")
        return _use_case(row)

    def list(self) -> list[UseCaseRow]:
        """All use cases, by name."""
        return [_use_case(row) for row in self._execute(_LIST)]


def _use_case(row: Row) -> UseCaseRow:
    return msgspec.convert(fields(row), UseCaseRow)
