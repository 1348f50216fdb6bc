"""Feature views by key: what the online store says of each of its views, and the values of an entity.

Beside the values stands, in the namespace :data:`VIEWS`, what they are (:class:`Published`), so that whoever reads them
needs nothing else: a replica in the path of a request, the owner, a program of ours.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from bedplate import clock
from bedplate.errors import IntegrityError, NotFoundError
from bedplate.records import ViewRecord
from bedplate.serve.state import MISSING, key_of, schema_of

VIEWS = "bedplate.views"
"""The namespace that says of each view of a use case what it is."""
READS = "reads"
"""The folder, beside the prediction log of an endpoint, with the log of what was read by key at its replicas."""
_LOOK_AGAIN = 1.0

Reason = Literal["", "unknown", "stale"]


class Store(Protocol):
    """Where they are read: :class:`bedplate.online.Scoped`."""

    @property
    def waits(self) -> bool:
        """Whether a read waits for another machine."""

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""

    def getter(self, namespace: str) -> Callable[[bytes], bytes | None]:
        """:meth:`get` of one namespace."""

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order, from one moment."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What the store says of a view: its columns in order, its declaration, and the moment it was last materialised
    for (ISO 8601, UTC)."""

    columns: tuple[str, ...]
    declared: ViewRecord
    as_of: str


class Found(msgspec.Struct, frozen=True, gc=False):
    """The features of one entity, in order, None where there is none; ``moment`` is what they are of, in microseconds
    since 1970, and 0 for an entity that is not known. ``missing`` says why defaults stand for all of them."""

    values: tuple[float | None, ...]
    moment: int
    missing: Reason = ""


def published(store: Store, view: str) -> Published:
    """What the store says of a view.

    Raises:
        NotFoundError: nothing of it was materialised.
    """
    data = store.get(VIEWS, view.encode())
    if data is None:
        raise NotFoundError(f"no features of a view {view!r} are online", fix="see: bedplate features list")
    return msgspec.json.decode(data, type=Published)


class Lookup:
    """Reads one view of one entity.

    Raises:
        NotFoundError: as :func:`published`; or it is a view of pairs, whose values belong to a model.
    """

    def __init__(self, store: Store, view: str) -> None:
        self.view, self.about = view, published(store, view)
        self.names = msgspec.Raw(msgspec.json.encode(self.about.columns))
        """The names of its features as JSON, which every answer repeats."""
        if len(self.about.declared.entity) != 1:
            raise NotFoundError(f"{view!r} is a view of pairs, which are not read by one key", fix="name another view")
        self._get, self._get_many = store.getter(view), store.get_many
        self._looked = clock.monotonic()
        columns = self.about.columns
        self._unpack = struct.Struct(f"<4sq{len(columns)}f").unpack
        self._schema = schema_of(columns)
        self._missing = float(MISSING)
        defaults = self.about.declared.defaults
        self._absent = tuple(defaults.get(name) for name in columns)
        ttl = self.about.declared.ttl
        self._ttl = None if ttl is None else round(ttl * 1e6)

    @property
    def due(self) -> bool:
        """Whether what the store says of the view may be another by now."""
        return clock.monotonic() - self._looked > _LOOK_AGAIN

    def get(self, key: int) -> Found:
        """The features of the entity ``key``, by the declared defaults where it is unknown, or older than the view's
        time to live.

        Raises:
            IntegrityError: the store holds another shape of the view: look it up again.
            UnavailableError: the store does not answer.
        """
        return self._found(self._get(key_of(key)))

    def get_many(self, keys: Sequence[int]) -> list[Found]:
        """The features of several entities, by one question to the store. Raises as :meth:`get`."""
        return list(map(self._found, self._get_many(self.view, list(map(key_of, keys)))))

    def _found(self, data: bytes | None) -> Found:
        if data is None:
            return Found(self._absent, 0, "unknown")
        try:
            row: tuple[Any, ...] = self._unpack(data)
        except struct.error:
            raise _changed() from None
        if row[0] != self._schema:
            raise _changed()
        moment, values = row[1], row[2:]
        if self._ttl is not None and clock.microseconds() - moment > self._ttl:
            return Found(self._absent, moment, "stale")
        if self._missing in values:
            return Found(tuple([None if value == self._missing else value for value in values]), moment)
        return Found(values, moment)


def _changed() -> IntegrityError:
    return IntegrityError("the features of the view were changed while they were read", fix="ask again")
