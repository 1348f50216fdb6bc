"""Features by key over HTTP: ``POST /v1/features``, as whoever asks may see them.

What policy says of a caller and a view is decided once, until the access snapshot or the view changes.
"""

from typing import Annotated, Any

import msgspec

from bedplate.errors import DeniedError, UnavailableError
from bedplate.http import Limits, Request, Response, Route, fixed, unaudited
from bedplate.http.messages import decode_json
from bedplate.policy import derived
from bedplate.policy.policies import Policies
from bedplate.policy.values import Principal
from bedplate.records import Governance
from bedplate.serve.access import Access
from bedplate.serve.handlers import ENTITY
from bedplate.serve.online_views import Lookup, Store
from bedplate.serve.rest import Failure, failure

_MOST_KEPT = 10_000
_JSON = ("content-type", "application/json")

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


class _Rules(msgspec.Struct, frozen=True):
    """What was decided by, of which it holds as long as these are in force."""

    policies: Policies
    governed: Governance


class Features:
    """The edge of one replica: ``store`` holds the features of its use case."""

    def __init__(self, access: Access, store: Store, use_case: str, name: str) -> None:
        self._access = access
        self._store = store
        self._use_case, self._name = use_case, name
        self._lookups: dict[str, Lookup] = {}
        self._rules: _Rules | None = None
        self._kept: dict[tuple[Principal, str, str], bool] = {}
        self._encode = msgspec.json.Encoder().encode

    def routes(self, limits: Limits) -> list[Route]:
        """What is mounted."""
        own = fixed(ENTITY, self._name)
        look = unaudited("features by key are read as often as predictions are asked for; what was decided stands")
        return [
            Route(
                "POST", "/v1/features", "read", own, look, limits, self._answer, name="features",
                summary="Features of entities by key", render=failure, error_type=Failure,
                request_type=FeaturesRequest, response_type=FeaturesResponse,
            ),
        ]  # fmt: skip

    async def _answer(self, request: Request) -> Response:
        wanted = decode_json(request.body, FeaturesRequest, request.depth)
        lookup = self._lookup(wanted.view)
        masked = self._masked(request.decision.principal, lookup, wanted.purpose)
        found = lookup.get_many(wanted.keys)
        body: Any = {
            "features": lookup.about.columns,
            "values": [each.values for each in found] if not masked else [[None] * len(each.values) for each in found],
            "moments": [each.moment for each in found],
            "missing": [each.missing for each in found],
            "masked": masked,
        }
        return Response(headers=[_JSON], body=self._encode(body))

    def _lookup(self, view: str) -> Lookup:
        known = self._lookups.get(view)
        if known is None or known.due:
            found = Lookup(self._store, view)
            if known is not None and found.about.declared != known.about.declared:
                self._kept.clear()
            known = self._lookups[view] = found
        return known

    def _masked(self, principal: Principal, lookup: Lookup, purpose: str | None) -> bool:
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
        if self._rules is None or self._rules.policies is not policies or self._rules.governed is not governed:
            self._rules = _Rules(policies, governed)
            self._kept.clear()
        chosen = governed.purpose if purpose is None else purpose
        key = (principal, lookup.view, chosen)
        known = self._kept.get(key)
        if known is None:
            known = self._decide(principal, lookup, chosen, self._rules)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = known
        return known

    def _decide(self, principal: Principal, lookup: Lookup, purpose: str, rules: _Rules) -> bool:
        policies, governed, declared = rules.policies, rules.governed, lookup.about.declared
        resource = derived.resource_of(f"{self._use_case}/features/{lookup.view}", self._use_case, governed)
        refused = derived.refusal(policies, principal, resource, purpose, governed, declared)
        if refused:
            raise DeniedError(refused, where=lookup.view)
        return any(derived.hides(policies, principal, resource, purpose, governed, name) for name in declared.rests_on)
