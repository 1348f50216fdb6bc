"""Endpoints as the owner keeps them: what replicas may know, what each is started from, and bringing them back."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from bedplate import bundle as bundles
from bedplate.app.read_models import EndpointStatus
from bedplate.app.system import System
from bedplate.identity import policy_principal
from bedplate.ids import digest_of
from bedplate.journal import Segment
from bedplate.records import TableVersion
from bedplate.serve import snapshot
from bedplate.serve.spec import ReplicaSpec
from bedplate.store.endpoints import EndpointRow


def publish_access(system: System) -> None:
    """Write what replicas decide by: the keys in force and their principals. They take it up within a second."""
    signer = snapshot.make_key(system.home.keys / "access.key", system.home.keys / "access.pub")
    keys: dict[str, snapshot.Key] = {}
    with system.store.read() as tx:
        for principal in tx.principals.list():
            if principal.disabled is not None:
                continue
            known = policy_principal(principal)
            for key in tx.keys.of(principal.id):
                if key.ended is None:
                    name = snapshot.key_name(key.id, key.secret_hash)
                    keys[name] = snapshot.Key(principal=known, expires=key.expires)
    snapshot.write(system.home.run / "access.json", snapshot.new(keys), signer)


def spec_of(row: EndpointRow) -> ReplicaSpec:
    """What the supervisor starts a replica of this endpoint from."""
    return msgspec.convert(row.spec, ReplicaSpec, dec_hook=lambda kind, value: kind(value))


def here(system: System, spec: ReplicaSpec) -> ReplicaSpec:
    """The spec with the paths of this home: the one that wrote it may lie elsewhere, as a copy of it that took over."""
    return msgspec.structs.replace(
        spec,
        bundle=bundles.path_of(system.home.bundles, spec.digest),
        public_key=system.opened.signing_public,
        snapshot=system.home.run / "access.json",
        snapshot_key=system.home.keys / "access.pub",
        journal=journal_of(system, spec.name),
        online=system.home.online,
    )


def as_row(spec: ReplicaSpec) -> dict[str, object]:
    """A spec as the store keeps it."""
    made: dict[str, object] = msgspec.to_builtins(spec, enc_hook=str)
    return made


def start(system: System, spec: ReplicaSpec) -> str:
    """Serve a spec, with the access rules of now; returns its address once it answers."""
    publish_access(system)
    return system.supervisor.start(spec)


def restore(system: System) -> list[str]:
    """Start every endpoint that should be running; returns the names of those that could not be."""
    failed = []
    with system.store.read() as tx:
        rows = [row for row in tx.endpoints.list() if row.state == "running"]
    for row in rows:
        try:
            start(system, here(system, spec_of(row)))
        except Exception as error:  # noqa: BLE001 one endpoint that cannot start must not keep the others down
            failed.append(f"{row.name}: {error}")
    return failed


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
                state="ready" if seen.state == "running" else "starting",
                bundle=seen.digest,
                revision=row.revision,
                since=seen.since,
            )
    return found
