"""The facts that an export of an endpoint is made of, from the store, the bundle and what replicas took."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from bedplate import bundle as bundles
from bedplate.app import access, endpoints, planning
from bedplate.app.exports import kubernetes as objects
from bedplate.app.exports.kubernetes import Facts, Form, Release, Share
from bedplate.app.serving_models import KubernetesExport
from bedplate.app.system import System
from bedplate.errors import InputError
from bedplate.identity import Principal
from bedplate.online import is_address
from bedplate.plan.types import Option, Plan
from bedplate.policy import values as policy
from bedplate.serve.spec import ReplicaSpec
from bedplate.store import Transaction
from bedplate.store.rollouts import RolloutRow

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_IMAGE = re.compile(r"[a-z0-9]+([._/:-]+[a-z0-9]+)*")
_GUESS, _LEAST = 160 << 20, 128 << 20
"""Bytes that a replica is given where none was measured, and the fewest."""
_SPARE = 1.25


def kubernetes(
    system: System,
    principal: Principal,
    endpoint: str,
    *,
    form: Form,
    image: str,
    namespace: str,
    gateway: str,
    hosts: Sequence[str],
) -> KubernetesExport:
    """An endpoint, and the candidate that a rollout lets in now, as Kubernetes objects.

    Raises:
        NotFoundError: there is no such endpoint.
        DeniedError: policy does not let the principal see its use case.
        InputError: a name cannot be one in Kubernetes.
        IntegrityError: a bundle cannot be trusted.
    """
    for what, text, shape in (
        ("namespace", namespace, _LABEL),
        ("gateway", gateway or "x", _HOST),
        ("image", image or "x", _IMAGE),
        *(("host", host, _HOST) for host in hosts),
    ):
        if not shape.fullmatch(text):
            raise InputError(f"{text!r} cannot be a {what}", where=what, fix="use lower-case letters, digits, - and .")
    with system.store.read() as tx:
        row = tx.endpoints.get(endpoint)
    access.demand(system, principal, "read", policy.use_case(row.use_case))
    endpoints.publish_access(system)  # there is a snapshot, and the key that it is signed with
    stable = endpoints.here(system, endpoints.spec_of(row))
    with system.store.read() as tx:
        rollout = tx.rollouts.latest(endpoint)
        candidate = _candidate(system, tx, rollout) if rollout is not None else None
        planned, stays = tx.facts.latest(row.use_case, "plan"), access.residency_of(tx, row.use_case)
        version = str(tx.versions.of_bundle(row.use_case, row.bundle) or "0")
    manifest = bundles.verify(stable.bundle, public_key=stable.public_key, digest=stable.digest)
    request, limit = _shares(system, stable, msgspec.convert(planned.body, Plan).chosen if planned else None)
    facts = Facts(
        name=row.name,
        use_case=row.use_case,
        image=image or row.name,
        stable=Release(spec=stable, version=version, share=1.0 - (candidate.share if candidate is not None else 0.0)),
        candidate=candidate,
        request=request,
        limit=limit,
        regions=regions(system, stays),
        public_key=stable.public_key.read_text("ascii"),
        snapshot_key=stable.snapshot_key.read_text("ascii"),
        features=manifest.signature.predictor in ("recommender", "onnx-features") and not is_address(stable.online),
        namespace=namespace,
        gateway=gateway,
        hosts=tuple(hosts),
    )
    made = objects.objects(facts, form)
    return KubernetesExport(endpoint=endpoint, objects=tuple(made), needs=tuple(_needs(system, facts)))


def _candidate(system: System, tx: Transaction, row: RolloutRow) -> Release | None:
    """The release of a rollout that answers a share now; shadow copies stay here, for a gateway compares nothing."""
    if row.state not in ("running", "frozen"):
        return None
    route = endpoints.route_of(system, tx, row)
    if route is None or route.mode != "split":
        return None
    spec = endpoints.here(system, endpoints.spec_from(row.spec))
    bundles.verify(spec.bundle, public_key=spec.public_key, digest=spec.digest)
    return Release(spec=spec, version=route.version or "0", share=route.share)


def _shares(system: System, spec: ReplicaSpec, chosen: Option | None) -> tuple[Share, Share]:
    """What a replica is promised, by what one took; and its most, by the plan: its part of the machine chosen there."""
    took = next((s.memory // s.ready for s in system.supervisor.status() if s.name == spec.name and s.ready), _GUESS)
    asked = Share(cores=float(spec.threads), memory=max(_LEAST, int(took * _SPARE)))
    if chosen is None or not chosen.replicas or not chosen.machines:
        return asked, Share(cores=2 * asked.cores, memory=2 * asked.memory)
    each = max(1.0, chosen.replicas / chosen.machines)
    planned = int(chosen.memory_gib / each * (1 << 30))
    return asked, Share(cores=max(asked.cores, chosen.vcpus / each), memory=max(asked.memory, planned))


def regions(system: System, residency: Sequence[str]) -> tuple[str, ...]:
    """The regions that a plan could choose, machines of one's own included, which lie where data may."""
    known = planning.prices(system.settings).instances
    found = tuple(sorted({i.region for i in known if i.residency in residency}))
    if residency and not found:
        raise InputError(
            f"no region that prices are known of lies in {' or '.join(residency)}, so nothing can keep pods there",
            where="requirements.residency", fix="bring in prices of machines there: bedplate prices import",
        )  # fmt: skip
    return found


def _needs(system: System, facts: Facts) -> list[str]:
    """What has to be there beside the objects, in words and commands."""
    where: dict[str, Any] = {"n": facts.namespace, "name": facts.name, "file": endpoints.access_path(system)}
    needs = [
        "an image for each bundle, from the Containerfile of Bedplate: see how-to/kubernetes.md",
        "keys and policies, again after each change of them: kubectl -n {n} create secret generic {name}-access "
        "--from-file={file} --dry-run=client -o yaml | kubectl apply -f -".format(**where),
    ]
    if facts.features:
        needs.append(f"a volume claim {facts.name}-online that holds the online features")
    return needs
