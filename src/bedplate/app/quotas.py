"""Quotas at endpoints: what single principals and groups may ask, beside what the file of the use case gives everybody.

A change is one entry of the ledger, and replicas know of it before it is committed.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate.app import access, endpoints
from bedplate.app.serving_models import EndpointQuota
from bedplate.errors import InputError, NotFoundError, StorageError
from bedplate.identity import Principal
from bedplate.policy import values as policy
from bedplate.records import Quota
from bedplate.serve import quotas as counting
from bedplate.serve.quotas import Used
from bedplate.store import Transaction
from bedplate.store.quotas import HolderKind

if TYPE_CHECKING:
    from bedplate.app.system import System


def put(
    system: "System", principal: Principal, endpoint: str, holder: str, quota: Quota, *, group: bool = False
) -> EndpointQuota:
    """Let a principal, or each member of a group, ask so much of an endpoint: in force within a second.

    Raises:
        DeniedError: policy does not let this person operate the use case.
        InputError: the quota bounds nothing, or cannot be one.
        NotFoundError: there is no such endpoint, or nobody of this name.
    """
    kind: HolderKind = "group" if group else "principal"
    quota = _checked(msgspec.convert(quota, Quota))
    policies = _demand(system, principal, endpoint)
    with system.changing_policies, system.store.transaction() as tx:
        row = tx.quotas.put(endpoint, kind, _id(tx, kind, holder), quota, by=principal.name)
        changes = {"kind": kind, "holder": row.holder, "quota": msgspec.to_builtins(quota)}
        _record(system, tx, principal, endpoint, "quota.set", policies, changes)
    return EndpointQuota(
        endpoint=endpoint, kind=kind, holder=holder, quota=quota, by=principal.name, created=row.created
    )


def remove(system: "System", principal: Principal, endpoint: str, holder: str, *, group: bool = False) -> EndpointQuota:
    """Have the file's quota, or that of a group, hold again for somebody.

    Raises:
        DeniedError: as :func:`put`.
        NotFoundError: there is no such endpoint or quota.
    """
    kind: HolderKind = "group" if group else "principal"
    policies = _demand(system, principal, endpoint)
    with system.changing_policies, system.store.transaction() as tx:
        who = _id(tx, kind, holder)
        before = next((row for row in tx.quotas.list(endpoint) if (row.kind, row.holder) == (kind, who)), None)
        tx.quotas.remove(endpoint, kind, who)
        assert before is not None, "it was removed just now"
        _record(system, tx, principal, endpoint, "quota.remove", policies, {"kind": kind, "holder": who})
    return EndpointQuota(
        endpoint=endpoint, kind=kind, holder=holder, quota=before.quota, by=before.by, created=before.created
    )


def listed(system: "System", principal: Principal, endpoint: str) -> tuple[EndpointQuota, ...]:
    """The quotas in force at an endpoint, the file's first, with what principals used of them.

    Raises:
        DeniedError: policy does not let this person see the use case.
        NotFoundError: there is no such endpoint.
    """
    with system.store.read() as tx:
        row = tx.endpoints.get(endpoint)
        kept = tx.quotas.list(endpoint)
        names = {person.id: person.name for person in tx.principals.list()}
    access.demand(system, principal, "read", policy.use_case(row.use_case))
    used = _used(endpoints.journal_of(system, endpoint) / counting.FILE)
    default = endpoints.spec_of(row).quota
    cost = next((status.cost for name, status in endpoints.live(system).items() if name == endpoint), None)
    each, price = (None, None) if cost is None else (cost.each, cost.price)
    found = []
    if default != Quota():
        found.append(EndpointQuota(endpoint=endpoint, kind="each", holder="everybody else", quota=default))
    for one in kept:
        mine = used.get(counting.name(one.holder)) if one.kind == "principal" else None
        found.append(
            EndpointQuota(
                endpoint=endpoint,
                kind=one.kind,
                holder=names.get(one.holder, one.holder) if one.kind == "principal" else one.holder,
                quota=one.quota,
                by=one.by,
                created=one.created,
                used_day=mine.day if mine else None,
                used_month=mine.month if mine else None,
                cost_month=mine.month * each if mine and each is not None else None,
                currency=price.currency if price is not None else "",
            )
        )
    return tuple(found)


def _used(path: Path) -> dict[bytes, Used]:
    if not path.exists():
        return {}
    try:
        counts = counting.Counts(path)
    except StorageError:
        return {}  # what is in force is worth telling without it
    try:
        return dict(counts.used())
    finally:
        counts.close()


def _checked(quota: Quota) -> Quota:
    if quota == Quota():
        raise InputError(
            "a quota that bounds nothing", where="quota", fix="give a rate, a day or a month; or remove it"
        )
    if quota.burst is not None and quota.rate is None:
        raise InputError("a burst of no rate", where="quota", fix="give the rate as well")
    if (quota.rate is not None and not 0 < quota.rate < 1e9) or (quota.burst is not None and quota.burst < 1):
        raise InputError("a rate and its burst must be above zero", where="quota", fix="to shut somebody out: --day 0")
    if any(count is not None and not 0 <= count < 1 << 62 for count in (quota.burst, quota.day, quota.month)):
        raise InputError("a count below zero, or too large", where="quota", fix="give zero or more")
    return quota


def _demand(system: "System", principal: Principal, endpoint: str) -> tuple[str, ...]:
    with system.store.read() as tx:
        row = tx.endpoints.get(endpoint)
    return access.demand(system, principal, "operate", policy.use_case(row.use_case)).policies


def _id(tx: Transaction, kind: HolderKind, holder: str) -> str:
    if kind == "group":
        if not holder or len(holder) > 200:
            raise InputError("that is no name of a group", where="group", fix="give the name of a group")
        return holder
    row = tx.principals.named(holder)
    if row is None:
        raise NotFoundError(f"no user or service {holder!r}", where="principal", fix="see: bedplate user list")
    return row.id


def _record(
    system: "System",
    tx: Transaction,
    principal: Principal,
    endpoint: str,
    action: str,
    policies: tuple[str, ...],
    payload: dict[str, Any],
) -> None:
    system.ledger.record(
        tx,
        actor=principal.id,
        action=action,
        resource=f"endpoint/{endpoint}",
        payload=payload,
        auth=principal.auth,
        policies=policies,
    )
    endpoints.write_access(system, tx, system.policies.now)
