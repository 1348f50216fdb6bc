"""What principals and groups may ask of endpoints, beside what the file of the use case gives everybody."""

from typing import Literal

import msgspec
import sqlalchemy as sa

from bedplate import clock
from bedplate.errors import NotFoundError
from bedplate.records import Quota
from bedplate.store.schema import quotas
from bedplate.store.sql import Repository, Row, Upsert, fields, param

HolderKind = Literal["principal", "group"]

_PUT = Upsert(quotas, update=("rate", "burst", "day", "month", "by", "created"))
_LIST = sa.select(quotas).order_by(quotas.c.endpoint, quotas.c.kind, quotas.c.holder)
_REMOVE = sa.delete(quotas).where(
    quotas.c.endpoint == param("endpoint_"), quotas.c.kind == param("kind_"), quotas.c.holder == param("holder_")
)


class QuotaRow(msgspec.Struct, frozen=True, kw_only=True):
    """One quota; ``holder`` is the id of a principal or the name of a group."""

    endpoint: str
    kind: HolderKind
    holder: str
    quota: Quota
    by: str
    created: str


class QuotaRows(Repository):
    """``tx.quotas``."""

    def put(self, endpoint: str, kind: HolderKind, holder: str, quota: Quota, *, by: str) -> QuotaRow:
        """Keep a quota, in the place of the one before."""
        row = QuotaRow(endpoint=endpoint, kind=kind, holder=holder, quota=quota, by=by, created=clock.timestamp())
        values = msgspec.structs.asdict(row)
        self._execute(_PUT.on(self._connection), **{**values, **msgspec.structs.asdict(values.pop("quota"))})
        return row

    def list(self, endpoint: str | None = None) -> list[QuotaRow]:
        """All of them, or those of one endpoint, by endpoint and holder."""
        return [row for row in map(_quota, self._execute(_LIST)) if endpoint is None or row.endpoint == endpoint]

    def remove(self, endpoint: str, kind: HolderKind, holder: str) -> None:
        """Forget a quota.

        Raises:
            NotFoundError: there is none.
        """
        if self._execute(_REMOVE, endpoint_=endpoint, kind_=kind, holder_=holder).rowcount != 1:
            raise NotFoundError("there is no such quota", where=endpoint, fix=f"see: bedplate quota list {endpoint}")


def _quota(row: Row) -> QuotaRow:
    values = fields(row)
    quota = {name: values.pop(name) for name in ("rate", "burst", "day", "month")}
    return msgspec.convert({**values, "quota": quota}, QuotaRow)
