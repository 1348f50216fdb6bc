"""Who may do what at a replica: the snapshot in force, and decisions kept until it changes."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bedplate import clock
from bedplate.errors import AuthenticationError, BedplateError, DeniedError, IntegrityError, UnavailableError
from bedplate.http import ResourceRef
from bedplate.policy.policies import Policies
from bedplate.policy.values import Principal, endpoint
from bedplate.records import Governance
from bedplate.serve import snapshot as snapshots
from bedplate.serve.quotas import Meter, Meters

_log = logging.getLogger(__name__)
_MOST_KEPT = 10_000

T = TypeVar("T")


class Admitted(msgspec.Struct, frozen=True):
    """A request that may go on: for whom, by which policies, and until when that holds (seconds since 1970).

    ``meter`` counts what its principal asks for; None if no quota bounds it.
    """

    principal: Principal
    policies: str
    until: float
    meter: Meter | None = None


class Access:
    """Answers from memory; :meth:`refresh` reads the file when it changed. ``meters`` count for one endpoint."""

    def __init__(
        self, path: Path, public_key: Path, use_case: str, endpoint: str = "", meters: Meters | None = None
    ) -> None:
        self._path = path
        self._endpoint, self.meters = endpoint, meters
        self._key = snapshots.load_public_key(public_key)
        self._use_case = use_case
        self._stamp: tuple[int, int, int] | None = None
        self._number = 0
        self._keys: dict[str, snapshots.Key] = {}
        self._policies: Policies | None = None
        self._texts: tuple[str, ...] = ()
        self._kept: dict[tuple[object, ...], Any] = {}
        self._callers: dict[str, str] = {}
        self.routes: dict[str, snapshots.Route] = {}
        """Routes in force, by endpoint; none without a good snapshot."""
        self.governed: Governance | None = None
        """What rows of the use case are for and who may see them, as far as it is known."""
        self.refresh()

    @property
    def policies(self) -> Policies | None:
        """What decides; None without a good snapshot."""
        return self._policies

    @property
    def ready(self) -> bool:
        """Whether there is a good snapshot in force."""
        return self._policies is not None

    def refresh(self) -> None:
        """Take a changed snapshot into force; on a bad one, deny everything until a good one comes."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            stamp = (0, 0, 0)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            snapshot = snapshots.read(self._path, self._key)
            if snapshot.number < self._number:
                raise IntegrityError("the access snapshot is older than the one before", where=str(self._path))
            policies = self._policies
            if policies is None or snapshot.policies != self._texts:
                policies = Policies.load(*snapshot.policies)
        except BedplateError as error:
            _log.error("everything is denied: %s", error)
            self._policies, self._keys, self._kept, self.routes, self.governed = None, {}, {}, {}, None
            return
        self._number, self._texts = snapshot.number, snapshot.policies
        self._policies, self._keys, self._kept = policies, snapshot.keys, {}
        self.routes, self.governed = snapshot.routes, snapshot.governed.get(self._use_case)
        if self.meters is not None:
            self.meters.follow(snapshot.quotas.get(self._endpoint, snapshots.Quotas()))

    def admit(self, authorization: str | None, action: str, resource: ResourceRef) -> Admitted:
        """Authenticate an ``Authorization`` header and decide about ``action`` on an endpoint.

        Raises:
            AuthenticationError: no key, or one that is unknown, revoked or expired.
            DeniedError: policy does not allow it.
            UnavailableError: there is no snapshot to decide by.
        """
        what = authorization or "", action, resource.id
        known: Admitted | None = self._kept.get(what)
        if known is not None and (known.until == 0.0 or clock.now().timestamp() < known.until):
            return known
        self._kept.pop(what, None)
        return self.decided(what, lambda: self._decide(*what))

    def caller(self, authorization: str | None) -> str:
        """The id of the principal that was found behind this ``Authorization`` header last, empty if none was: who
        stands in a queue, which decides nothing else."""
        return self._callers.get(authorization or "", "")

    def decided(self, what: tuple[object, ...], decide: Callable[[], T]) -> T:
        """What ``decide`` gives, kept under ``what`` until other rules are in force or :meth:`forget`."""
        known: T | None = self._kept.get(what)
        if known is None:
            known = decide()
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[what] = known
        return known

    def forget(self) -> None:
        """Decide everything anew: what decisions rested on beside the rules is another."""
        self._kept.clear()

    def _decide(self, authorization: str, action: str, endpoint_name: str) -> Admitted:
        if self._policies is None:
            raise UnavailableError(
                "access cannot be decided now", fix="ask the operator to look at the access snapshot"
            )
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise AuthenticationError("no key was presented", fix="send Authorization: Bearer <key>")
        key = self._keys.get(snapshots.name_of_token(token.strip()))
        until = clock.parse(key.expires).timestamp() if key is not None and key.expires else 0.0
        if key is None or (until and clock.now().timestamp() >= until):
            raise AuthenticationError("the key is not valid", fix="ask for a new key")
        if len(self._callers) >= _MOST_KEPT:
            self._callers.clear()
        self._callers[authorization] = key.principal.id
        decision = self._policies.decide(key.principal, action, endpoint(endpoint_name, use_case=self._use_case))
        if not decision.allowed:
            raise DeniedError("; ".join(decision.reasons) or "no policy allows it")
        meter = self.meters.of(key.principal) if self.meters is not None else None
        return Admitted(key.principal, ",".join(decision.policies), until, meter)
