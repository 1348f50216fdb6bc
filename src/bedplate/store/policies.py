"""The policies that users wrote, beside those that every home starts with."""

import msgspec
import sqlalchemy as sa

from bedplate import clock
from bedplate.errors import NotFoundError
from bedplate.ids import Digest, digest_bytes
from bedplate.store.schema import policies
from bedplate.store.sql import Repository, fields, param

_id = param("id_")
_LIST = sa.select(policies).order_by(policies.c.position)
_LAST = sa.select(sa.func.max(policies.c.position))
_ADD = sa.insert(policies)
_REMOVE = sa.delete(policies).where(policies.c.id == _id)


class PolicyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One policy under its own id, with who put it here and when. ``digest`` is that of ``text``."""

    id: str
    text: str
    digest: Digest
    by: str
    created: str
    position: int


class Policies(Repository):
    """``tx.policies``."""

    def list(self) -> list[PolicyRow]:
        """All of them, in the order in which they came."""
        return [msgspec.convert(fields(row), PolicyRow) for row in self._execute(_LIST)]

    def put(self, policy: str, text: str, *, by: str) -> PolicyRow:
        """Keep a policy, in the place of one of the same id if there is one."""
        self._execute(_REMOVE, id_=policy)
        row = PolicyRow(
            id=policy,
            text=text,
            digest=digest_bytes(text.encode()),
            by=by,
            created=clock.timestamp(),
            position=(self._execute(_LAST).scalar() or 0) + 1,
        )
        self._execute(_ADD, **msgspec.structs.asdict(row))
        return row

    def remove(self, policy: str) -> None:
        """Forget a policy.

        Raises:
            NotFoundError: there is none of this id.
        """
        if self._execute(_REMOVE, id_=policy).rowcount != 1:
            raise NotFoundError(f"no policy {policy!r} was added here", fix="bedplate policy list shows the ids")
