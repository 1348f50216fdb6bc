"""Who may come in: principals, and the keys, sessions and login links that prove it. Secrets are kept as hashes."""

from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from bedplate import clock, ids
from bedplate.errors import ConflictError, NotFoundError
from bedplate.store.schema import keys, links, principals, sessions
from bedplate.store.sql import Repository, Row, dump, fields, param, parse

_id = param("id_")
_now = param("now_")
_INSERT = sa.insert(principals)
_GET = sa.select(principals).where(principals.c.id == _id)
_NAMED = sa.select(principals).where(principals.c.name == param("name_"))
_LIST = sa.select(principals).order_by(principals.c.name)
_GROUPS = sa.update(principals).where(principals.c.id == _id).values(groups=param("groups_"))
_DISABLE = sa.update(principals).where(principals.c.id == _id, principals.c.disabled.is_(None)).values(disabled=_now)


class PrincipalRow(msgspec.Struct, frozen=True, kw_only=True):
    """A person or a service. ``disabled`` is when it was shut out, if it was."""

    id: str
    kind: Literal["user", "service"]
    name: str
    groups: tuple[str, ...]
    created: str
    disabled: str | None = None


class CredentialRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key, session or link: its id is public, its secret is known by hash. ``ended``: revoked, or used once."""

    id: str
    principal: str
    secret_hash: bytes
    created: str
    expires: str | None
    ended: str | None
    label: str = ""


class Principals(Repository):
    """``tx.principals``."""

    def add(self, kind: Literal["user", "service"], name: str, groups: tuple[str, ...] = ()) -> PrincipalRow:
        """Add a principal; the id is made here.

        Raises:
            ConflictError: the name is taken.
        """
        if self.named(name) is not None:
            raise ConflictError(
                f"there is a user or service {name!r} already",
                fix="choose another name, or change its groups: bedplate user groups",
            )
        row = PrincipalRow(id=ids.new_id("prn"), kind=kind, name=name, groups=groups, created=clock.timestamp())
        self._execute(_INSERT, **{**msgspec.structs.asdict(row), "groups": dump(list(groups))})
        return row

    def get(self, principal: str) -> PrincipalRow:
        """The principal of this id.

        Raises:
            NotFoundError: there is none.
        """
        row = self._execute(_GET, id_=principal).first()
        if row is None:
            raise NotFoundError(f"no principal {principal}")
        return _principal(row)

    def named(self, name: str) -> PrincipalRow | None:
        """The principal of this name, if there is one."""
        row = self._execute(_NAMED, name_=name).first()
        return None if row is None else _principal(row)

    def set_groups(self, principal: str, groups: tuple[str, ...]) -> None:
        """Change the groups that a principal is in.

        Raises:
            NotFoundError: there is no such principal.
        """
        if self._execute(_GROUPS, id_=principal, groups_=dump(list(groups))).rowcount != 1:
            raise NotFoundError(f"no principal {principal}")

    def disable(self, principal: str) -> None:
        """Shut a principal out.

        Raises:
            NotFoundError: there is no such principal, or it is shut out already.
        """
        if self._execute(_DISABLE, id_=principal, now_=clock.timestamp()).rowcount != 1:
            raise NotFoundError(f"no active principal {principal}")

    def list(self) -> list[PrincipalRow]:
        """All principals, by name."""
        return [_principal(row) for row in self._execute(_LIST)]


class Credentials(Repository):
    """What keys, sessions and links have in common; the three subclasses name their table."""

    _table: sa.Table
    _ended: str

    def __init_subclass__(cls, *, table: sa.Table, ended: str) -> None:
        column = table.c[ended]
        cls._table, cls._ended = table, ended
        cls._insert = sa.insert(table)
        cls._get = sa.select(table).where(table.c.id == _id)
        cls._list = sa.select(table).order_by(table.c.created)
        cls._of = sa.select(table).where(table.c.principal == param("principal_")).order_by(table.c.created)
        live = sa.and_(table.c.id == _id, column.is_(None))
        cls._end = sa.update(table).where(live).values({ended: _now})
        cls._consume = (sa.update(table).where(live, sa.or_(table.c.expires.is_(None), table.c.expires > _now))).values(
            {ended: _now}
        )

    _insert: sa.Insert
    _get: sa.Select[Any]
    _list: sa.Select[Any]
    _of: sa.Select[Any]
    _end: sa.Update
    _consume: sa.Update

    def add(self, identifier: str, principal: str, secret_hash: bytes, *, expires: str | None, label: str = "") -> None:
        """Keep a credential. Its id is not secret; the secret itself never comes here."""
        values: dict[str, Any] = {"id": identifier, "principal": principal, "secret_hash": secret_hash}
        values |= {"created": clock.timestamp(), "expires": expires, self._ended: None}
        if "label" in self._table.c:
            values["label"] = label
        self._execute(self._insert, **values)

    def get(self, identifier: str) -> CredentialRow | None:
        """The credential of this id, if there is one; ended or not."""
        row = self._execute(self._get, id_=identifier).first()
        return None if row is None else self._credential(row)

    def of(self, principal: str) -> list[CredentialRow]:
        """The credentials of a principal, oldest first, ended ones too."""
        return [self._credential(row) for row in self._execute(self._of, principal_=principal)]

    def end(self, identifier: str) -> bool:
        """End a credential now; False if it is unknown or had ended."""
        return bool(self._execute(self._end, id_=identifier, now_=clock.timestamp()).rowcount == 1)

    def consume(self, identifier: str) -> bool:
        """End it if it is still valid, and say whether it was: of several at once exactly one gets True."""
        return bool(self._execute(self._consume, id_=identifier, now_=clock.timestamp()).rowcount == 1)

    def list(self) -> list[CredentialRow]:
        """The credentials of everybody, oldest first, ended ones too."""
        return [self._credential(row) for row in self._execute(self._list)]

    def _credential(self, row: Row) -> CredentialRow:
        return CredentialRow(
            id=row.id,
            principal=row.principal,
            secret_hash=bytes(row.secret_hash),
            created=row.created,
            expires=row.expires,
            ended=row._mapping[self._ended],
            label=row._mapping.get("label", ""),
        )


class Keys(Credentials, table=keys, ended="revoked"):
    """``tx.keys``."""


class Sessions(Credentials, table=sessions, ended="revoked"):
    """``tx.sessions``."""


class Links(Credentials, table=links, ended="used"):
    """``tx.links``."""


def _principal(row: Row) -> PrincipalRow:
    return msgspec.convert({**fields(row), "groups": parse(row.groups)}, PrincipalRow)
