"""The endpoints that should be running: desired state; what runs is the supervisor's to say."""

from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from bedplate import clock
from bedplate.errors import NotFoundError
from bedplate.ids import Digest
from bedplate.store.schema import endpoints
from bedplate.store.sql import Repository, Row, Upsert, dump, fields, param, parse

_name = param("name_")
_PUT = Upsert(endpoints, update=("use_case", "bundle", "revision", "state", "spec", "updated"))
_GET = sa.select(endpoints).where(endpoints.c.name == _name)
_LIST = sa.select(endpoints).order_by(endpoints.c.name)
_STATE = sa.update(endpoints).where(endpoints.c.name == _name).values(state=param("state_"), updated=param("updated_"))


class EndpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """What should be served under a name. ``spec`` is what the supervisor starts a replica from."""

    name: str
    use_case: str
    bundle: Digest
    revision: int
    state: Literal["running", "stopped"]
    spec: dict[str, Any]
    updated: str


class Endpoints(Repository):
    """``tx.endpoints``."""

    def put(self, name: str, *, use_case: str, bundle: Digest, spec: dict[str, Any]) -> EndpointRow:
        """Want this bundle served under this name. The revision counts up when the bundle or the spec changes."""
        row = self._execute(_GET, name_=name).first()
        before = None if row is None else _endpoint(row)
        same = before is not None and before.bundle == bundle and before.spec == spec
        revision = 1 if before is None else before.revision + (not same)
        values: dict[str, Any] = {"name": name, "use_case": use_case, "bundle": bundle, "revision": revision}
        values |= {"state": "running", "updated": clock.timestamp()}
        self._execute(_PUT.on(self._connection), **values, spec=dump(spec))
        return msgspec.convert({**values, "spec": spec}, EndpointRow)

    def set_state(self, name: str, state: Literal["running", "stopped"]) -> None:
        """Want it running, or not.

        Raises:
            NotFoundError: there is no such endpoint.
        """
        if self._execute(_STATE, name_=name, state_=state, updated_=clock.timestamp()).rowcount != 1:
            raise NotFoundError(f"no endpoint {name!r}")

    def get(self, name: str) -> EndpointRow:
        """One endpoint.

        Raises:
            NotFoundError: there is none of this name.
        """
        row = self._execute(_GET, name_=name).first()
        if row is None:
            raise NotFoundError(f"no endpoint {name!r}", fix="`bedplate status` lists the endpoints")
        return _endpoint(row)

    def list(self) -> list[EndpointRow]:
        """All endpoints, by name."""
        return [_endpoint(row) for row in self._execute(_LIST)]


def _endpoint(row: Row) -> EndpointRow:
    return msgspec.convert({**fields(row), "spec": parse(row.spec)}, EndpointRow)
