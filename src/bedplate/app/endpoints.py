"""Endpoints as the owner keeps them: what replicas may know, what each is started from, and bringing them back."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bedplate import bundle as bundles
from bedplate.app import access, residency
from bedplate.app.read_models import EndpointState, EndpointStatus, ServingCost
from bedplate.app.system import System
from bedplate.errors import DeniedError, InputError, IntegrityError, NotFoundError
from bedplate.identity import Principal, policy_principal
from bedplate.ids import digest_of
from bedplate.journal import Segment
from bedplate.policy import values as policy
from bedplate.policy.policies import Policies
from bedplate.records import Governance, ReplicaPrice, TableVersion
from bedplate.release.rollout import RolloutPlan
from bedplate.serve import snapshot, supervisor
from bedplate.serve.spec import ReplicaSpec
from bedplate.serve.wishes import Asked
from bedplate.store import Transaction
from bedplate.store.endpoints import EndpointRow
from bedplate.store.rollouts import RolloutRow

_STATES: dict[supervisor.State, EndpointState] = {
    "running": "ready",
    "starting": "starting",
    "restarting": "starting",
    "asleep": "asleep",
}


def access_path(system: System) -> Path:
    """The file that replicas read; it is there once an endpoint was started."""
    return system.home.run / "access.json"


def publish_access(system: System) -> None:
    """Write what replicas decide by: keys in force, their principals, policies. They take it up within a second."""
    with system.store.transaction() as tx:
        write_access(system, tx, system.policies.now)


def republish_access(system: System) -> None:
    """:func:`publish_access` where replicas were told anything yet."""
    if access_path(system).exists():
        publish_access(system)


def write_access(system: System, tx: Transaction, policies: Policies) -> None:
    """:func:`publish_access` with what ``tx`` sees: who writes the file later has seen more."""
    tx.ledger.head(lock=True)
    signer = snapshot.make_key(system.home.keys / "access.key", system.home.keys / "access.pub")
    active = {row.id: policy_principal(row) for row in tx.principals.list() if row.disabled is None}
    keys = {
        snapshot.key_name(key.id, key.secret_hash): snapshot.Key(principal=active[key.principal], expires=key.expires)
        for key in tx.keys.list()
        if key.ended is None and key.principal in active
    }
    up = [row for row in tx.rollouts.active() if row.id in system.rolling]
    routes = {row.endpoint: route for row in up if (route := route_of(system, tx, row)) is not None}
    quotas: dict[str, snapshot.Quotas] = {}
    for kept in tx.quotas.list():
        of = quotas.setdefault(kept.endpoint, snapshot.Quotas(principals={}, groups={}))
        (of.principals if kept.kind == "principal" else of.groups)[kept.holder] = kept.quota
    governed: dict[str, Governance] = {}
    for name in {row.use_case for row in tx.endpoints.list()}:
        with contextlib.suppress(InputError):  # it was never checked: nothing of it can be read
            governed[name] = access.governance(tx, name)
    path = access_path(system)
    try:
        before = snapshot.read(path, signer.public_key()).number
    except IntegrityError:
        before = 0  # there is none yet, or none that a replica would take
    snapshot.write(path, snapshot.new(keys, policies.texts, before, routes, quotas, governed), signer)


def route_of(system: System, tx: Transaction, row: RolloutRow) -> snapshot.Route | None:
    """How replicas share the requests of an endpoint in the present step of a rollout; None after its last."""
    plan = msgspec.convert(row.plan, RolloutPlan)
    if row.step >= len(plan.steps):
        return None
    spec = spec_from(row.spec)
    step = plan.steps[row.step]
    return snapshot.Route(
        rollout=row.id,
        step=row.step,
        mode=step.mode,
        share=step.share,
        salt=row.id,
        bundle=row.bundle,
        version=str(tx.versions.of_bundle(row.use_case, row.bundle) or ""),
        evidence=spec.evidence,
        socket=system.home.run / f"{row.id}.sock",
        tallies=tallies_of(system, row),
        patience=plan.patience,
        key=plan.key,
        slack=plan.slack,
    )


def tallies_of(system: System, row: RolloutRow) -> Path:
    """Where replicas leave what they count in a rollout."""
    return system.home.run / "rollouts" / row.id


def spec_of(row: EndpointRow) -> ReplicaSpec:
    """What the supervisor starts a replica of this endpoint from."""
    return spec_from(row.spec)


def spec_from(kept: dict[str, Any]) -> ReplicaSpec:
    """A spec from what :func:`as_row` made of it."""
    return msgspec.convert(kept, ReplicaSpec, dec_hook=lambda kind, value: kind(value))


def here(system: System, spec: ReplicaSpec) -> ReplicaSpec:
    """The spec with the paths of this home: the one that wrote it may lie elsewhere, as a copy of it that took over.

    Whatever loads a release asks for it here, so here it is asked whether what a replica holds may lie in this home.

    Raises:
        DeniedError: it may not, by the residency of the use case.
    """
    with system.store.read() as tx:
        asked = access.residency_of(tx, spec.use_case)
    residency.demand(
        system, "system", "endpoint.load", spec.use_case, asked, residency.of_home(system.settings), auth="none"
    )
    return msgspec.structs.replace(
        spec,
        bundle=bundles.path_of(system.home.bundles, spec.digest),
        public_key=system.opened.signing_public,
        snapshot=system.home.run / "access.json",
        snapshot_key=system.home.keys / "access.pub",
        journal=journal_of(system, spec.name),
        online=system.online_location,
        log=spec.log and msgspec.structs.replace(spec.log, secret=access.secret_of(system)),
    )


def as_row(spec: ReplicaSpec) -> dict[str, object]:
    """A spec as the store keeps it: without the place of the online features, which stands in the settings and may hold
    a password."""
    made: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(spec, online=""), enc_hook=str)
    return made


def start(system: System, spec: ReplicaSpec) -> str:
    """Serve a spec in this home, with the access rules of now; returns its address once it answers."""
    found = here(system, spec)
    publish_access(system)
    return system.supervisor.start(found)


def decide(system: System, spec: ReplicaSpec, asked: Asked) -> None:
    """Whether what somebody asked a replica for its endpoint may be done; it is on record when this returns.

    The replica decided by its copy of the policies and names the principal. Here both are read again: what changes
    something rests on no other process's word.

    Raises:
        DeniedError: who asks is not known or disabled, or policy does not allow it.
    """
    with system.store.read() as tx:
        try:
            row = tx.principals.get(asked.principal)
        except NotFoundError as error:
            raise DeniedError(f"nobody is known as {asked.principal}") from error
    if row.disabled is not None:
        raise DeniedError(f"{row.name} is disabled")
    who = Principal(id=row.id, kind=row.kind, name=row.name, groups=row.groups, auth="key", credential="")
    decision = access.demand(system, who, asked.wish, policy.endpoint(spec.name, use_case=spec.use_case))
    with system.store.transaction() as tx:
        system.ledger.record(
            tx,
            actor=who.id,
            action=f"endpoint.{asked.wish}",
            resource=f"endpoint/{spec.name}",
            payload={"bundle": spec.digest},
            policies=decision.policies,
        )


def restore(system: System) -> list[str]:
    """Bring back every endpoint that should be running; returns the names of those that could not be.

    One that may have no replica gets its address, and a replica with the first connection.
    """
    failed = []
    with system.store.read() as tx:
        rows = [row for row in tx.endpoints.list() if row.state == "running"]
    for row in rows:
        try:
            publish_access(system)
            system.supervisor.hold(here(system, spec_of(row)))
        except Exception as error:  # noqa: BLE001 one endpoint that cannot start must not keep the others down
            failed.append(f"{row.name}: {error}")
    return failed


def withdraw(system: System, use_case: str) -> None:
    """Take down whatever holds a release of a use case, as its rows may not lie here any more; the ledger says so.

    What should be served is left as it stands, so that it comes back in a home where it may.
    """
    with system.store.read() as tx:
        names = {row.name for row in tx.endpoints.list() if row.use_case == use_case}
    for name in (seen.name for seen in system.supervisor.status()):
        if name.partition("@")[0] in names:  # the candidate of a rollout stands behind it
            with contextlib.suppress(NotFoundError):
                system.supervisor.stop(name)
            with system.store.transaction() as tx:
                system.ledger.record(
                    tx, actor="system", action="endpoint.withdraw", resource=f"endpoint/{name}", auth="none"
                )


def journal_of(system: System, name: str) -> Path:
    """Where the replicas of an endpoint write predictions: a folder named by nothing that a user typed."""
    return system.home.journal / digest_of(name)[7:39]


def recorder(system: System, purpose: str = "") -> Callable[[Segment, TableVersion], None]:
    """What puts each shipped segment into the ledger, once: its count and its digest."""

    def record(segment: Segment, version: TableVersion) -> None:
        with system.store.transaction() as tx:
            if tx.ledger.recent(1, resource=f"table/{version.name}@{version.version}"):
                return  # killed between this entry and the removal of the segment: each has a version of its own
            system.ledger.record(
                tx,
                actor="flow",
                action="prediction.ship",
                resource=f"table/{version.name}@{version.version}",
                payload={
                    "segment": segment.id,
                    "count": segment.count,
                    "digest": segment.digest,
                    "table": version.digest,
                },
                purpose=purpose,
            )

    return record


def live(system: System) -> dict[str, EndpointStatus]:
    """What the supervisor says about endpoints now, by name."""
    with system.store.read() as tx:
        rows = {row.name: row for row in tx.endpoints.list()}
    found: dict[str, EndpointStatus] = {}
    for seen in system.supervisor.status():
        row = rows.get(seen.name)
        if row is not None:
            found[seen.name] = EndpointStatus(
                name=seen.name,
                use_case=row.use_case,
                url=seen.url,
                grpc=seen.grpc,
                state=_STATES[seen.state],
                bundle=seen.digest,
                revision=row.revision,
                since=seen.since or None,
                replicas=seen.ready,
                memory=seen.memory,
                requests=seen.took.predictions + seen.took.faults,
                failed=seen.took.faults,
                cost=cost(seen.price, seen.took.seconds, seen.took.predictions),
                error="" if seen.ready else seen.error,
            )
    return found


def cost(price: ReplicaPrice | None, seconds: float, predictions: int) -> ServingCost:
    """What predictions cost that took so many seconds of replicas, or why that is not known."""
    each = None if price is None else price.each(seconds, predictions)
    if price is None:
        why = "no price is known: the plan chose no option when this was released"
    elif each is None:
        why = "nothing was asked yet"
    else:
        why = (
            f"assumes {price.basis}; replicas of the endpoint for as long as they ran, whoever asked; not the owner of "
        )
        why += "the home, candidates of rollouts, storage and traffic"
    return ServingCost(price=price, seconds=seconds, predictions=predictions, each=each, why=why)
