"""Features by key over HTTP: ``POST /v1/features``, as whoever asks may see them.

What policy says of a caller and a view is decided once, until the access snapshot or the view changes.
"""

import asyncio
from functools import partial
from typing import Annotated, Any

import msgspec

from bedplate import clock
from bedplate.errors import DeniedError, StorageError, UnavailableError
from bedplate.http import READ, Limits, Request, Response, Route, fixed
from bedplate.http.messages import decode_json
from bedplate.journal import Writer
from bedplate.policy import derived
from bedplate.policy.policies import Policies
from bedplate.policy.values import Principal
from bedplate.records import FeatureRead, Governance
from bedplate.serve.access import Access
from bedplate.serve.handlers import ENTITY
from bedplate.serve.online_views import READS, Lookup, Store
from bedplate.serve.rest import Failure, failure
from bedplate.serve.spec import ReplicaSpec

_JSON = ("content-type", "application/json")
_lines = msgspec.json.Encoder().encode_lines
Key = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class FeaturesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose features of which view, and what for: the purpose of the use case unless another one is named."""

    view: Name
    keys: Annotated[tuple[Key, ...], msgspec.Meta(min_length=1, max_length=1000)]
    purpose: Name | None = None


class FeaturesResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Features in order, and the values of each key in theirs, null where there is none; ``moments`` is what they are
    of, in microseconds since 1970, 0 where an entity is not known. ``missing`` says why defaults stand for all of a
    key's: ``unknown`` or ``stale``. ``masked``: they rest on what is hidden from the caller, so all are null."""

    features: tuple[str, ...]
    values: list[tuple[float | None, ...]]
    moments: list[int]
    missing: list[str]
    masked: bool = False


class Features:
    """The edge of one replica: ``store`` holds the features of its use case.

    Each read is on record, in a log of its own beside that of predictions, and in the ledger with its segment. It is
    opened with the first read. Reads of one turn of the loop have one moment and are one record, a line for each; in
    durable mode each is on disk, as a record of its own, before it is answered.
    """

    def __init__(self, access: Access, store: Store, spec: ReplicaSpec) -> None:
        self._access = access
        self._store = store
        self._spec = spec
        self._lookups: dict[str, Lookup] = {}
        self._log: Writer | None = None
        self._noted: list[FeatureRead] = []
        self._moment = ""
        self._encode = msgspec.json.Encoder().encode

    def seal(self) -> None:
        """Seal the log of reads, so that it can be shipped now.

        Raises:
            StorageError: it cannot be written.
        """
        if self._log is not None:
            self._hand_over()
            self._log.seal()

    def close(self) -> None:
        """Seal the log of reads, and end."""
        if self._log is not None:
            self._hand_over()
            self._log.close()

    def routes(self, limits: Limits) -> list[Route]:
        """What is mounted."""
        own = fixed(ENTITY, self._spec.name)
        return [
            Route(
                "POST", "/v1/features", "read", own, READ, limits, self._answer, name="features",
                summary="Features of entities by key", render=failure, error_type=Failure,
                request_type=FeaturesRequest, response_type=FeaturesResponse,
                at_once=not (self._store.waits or self._spec.mode == "durable"),
            ),
        ]  # fmt: skip

    async def _answer(self, request: Request) -> Response:
        wanted = decode_json(request.body, FeaturesRequest, request.depth)
        lookup = self._lookups.get(wanted.view)
        if lookup is None or lookup.due:
            lookup = await self._look_up(wanted.view)
        principal = request.decision.principal
        governed = self._access.governed
        purpose = wanted.purpose or ("" if governed is None else governed.purpose)
        try:
            masked = self._masked(principal, lookup, purpose)
        except DeniedError:
            await self._record(principal, wanted, purpose, "deny")
            raise
        await self._record(principal, wanted, purpose, "allow")
        keys = wanted.keys
        if self._store.waits:  # others are answered while another machine is waited for
            found = await asyncio.to_thread(lookup.get_many, keys)
        else:
            found = [lookup.get(keys[0])] if len(keys) == 1 else lookup.get_many(keys)
        body: Any = {
            "features": lookup.names,
            "values": [each.values for each in found] if not masked else [[None] * len(each.values) for each in found],
            "moments": [each.moment for each in found],
            "missing": [each.missing for each in found],
            "masked": masked,
        }
        return Response(headers=[_JSON], body=self._encode(body))

    async def _look_up(self, view: str) -> Lookup:
        """What the store says of the view now."""
        known, store = self._lookups.get(view), self._store
        found = await asyncio.to_thread(Lookup, store, view) if store.waits else Lookup(store, view)
        if known is not None and found.about.declared != known.about.declared:
            self._access.forget()
        self._lookups[view] = found
        return found

    async def _record(self, principal: Principal, wanted: FeaturesRequest, purpose: str, decision: str) -> None:
        """Put one read on record; in durable mode it is on disk then.

        Raises:
            UnavailableError: it cannot be.
        """
        if not self._noted:
            self._moment = clock.timestamp()
        read = FeatureRead(
            time=self._moment, principal=principal.id, view=wanted.view, purpose=purpose, decision=decision,
            keys=len(wanted.keys),
        )  # fmt: skip
        failure: StorageError | None = None
        try:
            if self._log is None:
                self._log = Writer(self._spec.journal / READS, self._spec.mode, seal_seconds=self._spec.seal)
            if self._spec.mode == "durable":
                failure = await self._written(self._log, read)
            else:
                self._note(self._log, read)
        except StorageError as error:
            failure = error
        if failure is not None:
            raise UnavailableError("the read cannot be logged", fix="try again later") from failure

    async def _written(self, log: Writer, read: FeatureRead) -> StorageError | None:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[StorageError | None] = loop.create_future()
        log.submit(_lines([read]), partial(_tell, loop, written))
        return await written

    def _note(self, log: Writer, read: FeatureRead) -> None:
        if not self._noted:
            log.check()
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._noted.append(read)

    def _hand_over(self) -> None:
        """Give the log what was read in this turn of the loop."""
        noted, self._noted = self._noted, []
        if noted and self._log is not None:
            self._log.submit(_lines(noted), None)

    def _masked(self, principal: Principal, lookup: Lookup, purpose: str) -> bool:
        """Whether what the features tell is hidden from the caller.

        Raises:
            DeniedError: they may not read them at all.
            UnavailableError: there is no snapshot to decide by.
        """
        policies, governed = self._access.policies, self._access.governed
        if policies is None or governed is None:
            raise UnavailableError(
                "access cannot be decided now", fix="ask the operator to look at the access snapshot"
            )
        what = READS, principal, lookup.view, purpose
        return self._access.decided(what, lambda: self._decide(principal, lookup, purpose, policies, governed))

    def _decide(
        self, principal: Principal, lookup: Lookup, purpose: str, policies: Policies, governed: Governance
    ) -> bool:
        declared, use_case = lookup.about.declared, self._spec.use_case
        resource = derived.resource_of(f"{use_case}/features/{lookup.view}", use_case, governed)
        refused = derived.refusal(policies, principal, resource, purpose, governed, declared)
        if refused:
            raise DeniedError(refused, where=lookup.view)
        return any(derived.hides(policies, principal, resource, purpose, governed, name) for name in declared.rests_on)


def _tell(
    loop: asyncio.AbstractEventLoop, written: "asyncio.Future[StorageError | None]", failure: StorageError | None
) -> None:
    """From the thread of the log: how the writing of a record ended."""

    def settle() -> None:
        if not written.done():  # its caller went away
            written.set_result(failure)

    loop.call_soon_threadsafe(settle)
