"""Evidence: a graph of facts, each kept under the digest of what it says and of what it rests on."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from bedplate import clock, ids
from bedplate.errors import InputError, NotFoundError
from bedplate.ids import Digest
from bedplate.records import Fact
from bedplate.store.schema import fact_parents, facts
from bedplate.store.sql import Repository, Row, dump, param, parse

_digest = param("digest_")
_INSERT = sa.insert(facts)
_LINK = sa.insert(fact_parents)
_NEXT = sa.select(sa.func.coalesce(sa.func.max(facts.c.put), 0) + 1).where(
    facts.c.use_case == param("use_case_"), facts.c.kind == param("kind_")
)
_TOUCH = sa.update(facts).where(facts.c.digest == _digest).values(put=param("put_"))
_GET = sa.select(facts).where(facts.c.digest == _digest)
_PARENTS = (
    sa.select(fact_parents.c.child, fact_parents.c.parent)
    .where(fact_parents.c.child.in_(sa.bindparam("children", expanding=True)))
    .order_by(fact_parents.c.child, fact_parents.c.position)
)
_LIST = (
    sa.select(facts)
    .where(facts.c.use_case == param("use_case_"), facts.c.kind == param("kind_"))
    .order_by(facts.c.put.desc())
    .limit(param("limit_"))
)
_CHILDREN = (
    sa.select(facts)
    .join(fact_parents, fact_parents.c.child == facts.c.digest)
    .where(fact_parents.c.parent == _digest)
    .order_by(facts.c.created, facts.c.digest)
    .distinct()
)


def _ancestry() -> sa.Select[Any]:
    above = (
        sa.select(fact_parents.c.parent.label("digest"))
        .where(fact_parents.c.child == _digest)
        .cte("above", recursive=True)
    )
    above = above.union(sa.select(fact_parents.c.parent).join(above, fact_parents.c.child == above.c.digest))
    return sa.select(facts).join(above, facts.c.digest == above.c.digest).order_by(facts.c.created, facts.c.digest)


_ANCESTORS = _ancestry()


def digest_of(kind: str, use_case: str, parents: Sequence[Digest], body: dict[str, Any]) -> Digest:
    """The digest of a fact: of its kind, use case, parents (in order) and body; never of when it was put."""
    return ids.digest_of({"kind": kind, "use_case": use_case, "parents": list(parents), "body": body})


class Facts(Repository):
    """``tx.facts``."""

    def put(
        self, kind: str, use_case: str, body: msgspec.Struct | dict[str, Any], parents: Sequence[Digest] = ()
    ) -> Fact:
        """Keep a fact and return it. Putting the same fact again changes nothing but makes it the latest.

        Raises:
            InputError: a parent is not in the store, so the chain of evidence would be broken.
        """
        plain: dict[str, Any] = msgspec.to_builtins(body, str_keys=True)
        digest = digest_of(kind, use_case, parents, plain)
        put = self._execute(_NEXT, use_case_=use_case, kind_=kind).scalar_one()
        known_fact = self.find(digest)
        if known_fact is not None:
            self._execute(_TOUCH, digest_=digest, put_=put)
            return known_fact
        row = {"digest": digest, "kind": kind, "use_case": use_case, "body": dump(plain), "created": clock.timestamp()}
        self._execute(_INSERT, **row, put=put)
        if parents:
            known = {p for p in parents if self._execute(_GET, digest_=p).first() is not None}
            missing = [p for p in parents if p not in known]
            if missing:
                raise InputError(f"the fact rests on {missing[0]}, which is not in the store", where=f"fact {kind}")
            links = [{"child": digest, "position": i, "parent": p} for i, p in enumerate(parents)]
            self._connection.execute(_LINK, links)
        return Fact(
            digest=digest, kind=kind, use_case=use_case, parents=tuple(parents), body=plain, created=row["created"]
        )

    def get(self, digest: Digest) -> Fact:
        """The fact with this digest.

        Raises:
            NotFoundError: there is none.
        """
        row = self._execute(_GET, digest_=digest).first()
        if row is None:
            raise NotFoundError(f"no fact {digest}", fix="check the digest; `bedplate status` lists what there is")
        return self._facts([row])[0]

    def find(self, digest: Digest) -> Fact | None:
        """The fact with this digest, if there is one."""
        row = self._execute(_GET, digest_=digest).first()
        return None if row is None else self._facts([row])[0]

    def latest(self, use_case: str, kind: str) -> Fact | None:
        """The fact of this kind that was put last."""
        found = self.list(use_case, kind, 1)
        return found[0] if found else None

    def ancestors(self, digest: Digest) -> list[Fact]:
        """Everything the fact rests on, directly or not, oldest first; the fact itself is not among it."""
        return self._facts(self._execute(_ANCESTORS, digest_=digest).all())

    def children(self, digest: Digest) -> list[Fact]:
        """The facts that rest directly on this one, oldest first."""
        return self._facts(self._execute(_CHILDREN, digest_=digest).all())

    def _facts(self, rows: Sequence[Row]) -> list[Fact]:
        parents: dict[str, list[Digest]] = {row.digest: [] for row in rows}
        if parents:
            for link in self._execute(_PARENTS, children=[*parents]):
                parents[link.child].append(Digest(link.parent))
        return [
            Fact(
                digest=Digest(row.digest),
                kind=row.kind,
                use_case=row.use_case,
                parents=tuple(parents[row.digest]),
                body=parse(row.body),
                created=row.created,
            )
            for row in rows
        ]

    def list(self, use_case: str, kind: str, limit: int = 100) -> list[Fact]:
        """Facts of a kind, the one put last first."""
        return self._facts(self._execute(_LIST, use_case_=use_case, kind_=kind, limit_=limit).all())
