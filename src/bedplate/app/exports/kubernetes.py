"""An endpoint as Kubernetes objects: the same replica, from the same signed bundle, with nothing it does not need.

A pod may do nothing but answer: no root, no capability, no writable root, no token of a service account, no connection
that it opens itself. What it serves is in its image; keys and policies come from a Secret, as one signed snapshot.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec

from bedplate.errors import InputError
from bedplate.ids import Digest
from bedplate.online import is_address
from bedplate.serve import spec as specs
from bedplate.serve.scaling import DAYS, FULL, Scale, Shift
from bedplate.serve.spec import ReplicaSpec
from bedplate.settings import thread_limits

Object = dict[str, Any]
Form = Literal["deployment", "kserve"]

PORT = 8080
_DOMAIN = "bedplate.dev"
_SPEC, _KEYS, _ACCESS = "/etc/bedplate/spec", "/etc/bedplate/keys", "/etc/bedplate/access"
_JOURNAL, _ONLINE, _BUNDLE = "/var/lib/bedplate/journal", "/var/lib/bedplate/online", "/bundle"
_USER = 10001
_GIB, _MIB = 1 << 30, 1 << 20


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One release that answers: what its replicas are started from, and its share of the requests, 0 to 1."""

    spec: ReplicaSpec
    version: str
    share: float = 1.0


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica may take: processor cores and bytes."""

    cores: float
    memory: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that the objects are made of.

    ``request`` is what a replica took, ``limit`` what the plan gives it. ``regions`` are those that residency allows;
    empty: any. ``public_key`` and ``snapshot_key`` are PEM texts. ``features`` says that the model reads online
    features. ``candidate`` is the release that a rollout gives a share now. ``image`` without a tag: each release has
    its own, named after its bundle.
    """

    name: str
    use_case: str
    image: str
    stable: Release
    candidate: Release | None
    request: Share
    limit: Share
    regions: tuple[str, ...]
    public_key: str
    snapshot_key: str
    features: bool
    namespace: str = "default"
    gateway: str = ""
    hosts: tuple[str, ...] = ()


def objects(facts: Facts, form: Form = "deployment") -> list[Object]:
    """The objects, in an order in which they can be applied."""
    releases = [facts.stable] + ([facts.candidate] if facts.candidate is not None else [])
    made = [_config(facts, release) for release in releases]
    if form == "kserve":
        return [*made, _network_policy(facts), _inference_service(facts)]
    for release in releases:
        made += [_deployment(facts, release), _service(facts, release), _scaler(facts, release)]
        made += [_disruption_budget(facts, release)]
    made.append(_network_policy(facts))
    if facts.gateway:
        made.append(_route(facts, releases))
    return made


# -------------------------------------------------------------------------------------------------- names and labels


def _name(facts: Facts, release: Release) -> str:
    return facts.name if release is facts.stable else f"{facts.name}-candidate"


def _selector(facts: Facts, release: Release) -> dict[str, str]:
    role = "stable" if release is facts.stable else "candidate"
    return {"app.kubernetes.io/name": facts.name, f"{_DOMAIN}/role": role}


def _meta(facts: Facts, release: Release | None, name: str) -> Object:
    labels = {
        "app.kubernetes.io/name": facts.name,
        "app.kubernetes.io/part-of": facts.use_case,
        "app.kubernetes.io/managed-by": "bedplate",
    }
    meta: Object = {"name": name, "namespace": facts.namespace, "labels": labels}
    if release is not None:
        labels |= _selector(facts, release)
        labels["app.kubernetes.io/version"] = release.version
        labels[f"{_DOMAIN}/bundle"] = _short(release.spec.digest)
        meta["annotations"] = {
            f"{_DOMAIN}/bundle": release.spec.digest,
            f"{_DOMAIN}/evidence": release.spec.evidence,
        }
    return meta


def _short(digest: Digest) -> str:
    """The first 16 digits: a label has 63 characters, a digest more."""
    return digest.partition(":")[2][:16]


# ------------------------------------------------------------------------------------------------------------- pods


def _online(location: str) -> str:
    """Where a pod reads online features.

    Raises:
        InputError: an address that holds a password, which everybody who may read the objects would see.
    """
    if not is_address(location):
        return _ONLINE
    if "@" in location:
        raise InputError(
            "the address of the online features holds a password, which would stand in a ConfigMap",
            where="BEDPLATE_ONLINE",
            fix="let the server know its clients by network or TLS, and give an address without a password",
        )
    return location


def _config(facts: Facts, release: Release) -> Object:
    """What a replica is told at its start, and the public halves of the keys it believes."""
    name = _name(facts, release)
    local = (name, f"{name}.{facts.namespace}", f"{name}.{facts.namespace}.svc")
    spec = msgspec.structs.replace(
        release.spec,
        bundle=Path(_BUNDLE),
        public_key=Path(_KEYS, "bundle.pub.pem"),
        snapshot=Path(_ACCESS, "access.json"),
        snapshot_key=Path(_KEYS, "access.pub.pem"),
        journal=Path(_JOURNAL),
        online=_online(release.spec.online),
        host="0.0.0.0",  # noqa: S104  inside a pod; the network policy says who reaches it
        port=PORT,
        grpc=None,  # the objects route HTTP alone
        hosts=("localhost", "127.0.0.1", *local, f"{local[-1]}.cluster.local", *facts.hosts),
        scale=Scale(),
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(facts, release, f"{name}-{_short(release.spec.digest)}"),
        "immutable": True,
        "data": {
            "spec.json": specs.encode(spec).decode(),
            "bundle.pub.pem": facts.public_key,
            "access.pub.pem": facts.snapshot_key,
        },
    }


def _probe(path: str, **more: int) -> Object:
    """A replica answers only to names it knows, and a kubelet asks by address."""
    header = [{"name": "Host", "value": "localhost"}]
    return {"httpGet": {"path": path, "port": "http", "httpHeaders": header}, **more}


def _container(facts: Facts, release: Release, name: str) -> Object:
    return {
        "name": name,
        "image": f"{facts.image}:{_short(release.spec.digest)}",
        "args": [f"{_SPEC}/spec.json"],
        "env": [{"name": key, "value": value} for key, value in thread_limits(release.spec.threads).items()],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": _probe("/v2/health/ready", periodSeconds=1, failureThreshold=60),
        "readinessProbe": _probe("/v2/health/ready", periodSeconds=2, timeoutSeconds=2, failureThreshold=2),
        "livenessProbe": _probe("/v2/health/live", periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        "resources": {
            "requests": {"cpu": _cores(facts.request.cores), "memory": _memory(facts.request.memory)},
            "limits": {"cpu": _cores(facts.limit.cores), "memory": _memory(facts.limit.memory)},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "spec", "mountPath": _SPEC, "readOnly": True},
            {"name": "keys", "mountPath": _KEYS, "readOnly": True},
            {"name": "access", "mountPath": _ACCESS, "readOnly": True},
            {"name": "journal", "mountPath": _JOURNAL},
            {"name": "online", "mountPath": _ONLINE, "readOnly": facts.features},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  a folder of the pod alone
        ],
    }


def _pod(facts: Facts, release: Release, container: str) -> Object:
    config = f"{_name(facts, release)}-{_short(release.spec.digest)}"
    keys = [{"key": name, "path": name} for name in ("bundle.pub.pem", "access.pub.pem")]
    online: Object = (
        {"persistentVolumeClaim": {"claimName": f"{facts.name}-online", "readOnly": True}}
        if facts.features
        else {"emptyDir": {}}
    )
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(release.spec.drain * 2) + 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(facts, release, container)],
        "volumes": [
            {"name": "spec", "configMap": {"name": config, "items": [{"key": "spec.json", "path": "spec.json"}]}},
            {"name": "keys", "configMap": {"name": config, "items": keys}},
            {"name": "access", "secret": {"secretName": f"{facts.name}-access", "defaultMode": 0o440}},
            {"name": "journal", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "online", **online},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }
    if facts.regions:
        terms = [{"key": "topology.kubernetes.io/region", "operator": "In", "values": list(facts.regions)}]
        required = {"nodeSelectorTerms": [{"matchExpressions": terms}]}
        pod["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return pod


def _cores(cores: float) -> str:
    return f"{round(cores * 1000)}m"


def _memory(size: int) -> str:
    return f"{-(-size // _MIB)}Mi"


# ---------------------------------------------------------------------------------------------- deployment and service


def _deployment(facts: Facts, release: Release) -> Object:
    meta = _meta(facts, release, _name(facts, release))
    spread = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _selector(facts, release)},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {  # how many replicas there are is the scaler's to say
            "selector": {"matchLabels": _selector(facts, release)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": meta["labels"], "annotations": meta["annotations"]},
                "spec": {**_pod(facts, release, "replica"), "topologySpreadConstraints": [spread]},
            },
        },
    }


def _service(facts: Facts, release: Release) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(facts, release, _name(facts, release)),
        "spec": {
            "type": "ClusterIP",
            "selector": _selector(facts, release),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _disruption_budget(facts: Facts, release: Release) -> Object:
    """One pod at a time. With a single one this lets a node be emptied; ask for two to be served meanwhile."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(facts, release, _name(facts, release)),
        "spec": {
            "selector": {"matchLabels": _selector(facts, release)},
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


# ------------------------------------------------------------------------------------------------------------- scale


def _scaler(facts: Facts, release: Release) -> Object:
    """The autoscaler of Kubernetes; where there is a schedule, which it has not, that of KEDA; never both."""
    scale, name = release.spec.scale, _name(facts, release)
    meta = _meta(facts, release, name)
    low = max(1, scale.min)  # neither can keep a request that arrives while there is no pod
    if not scale.schedule:
        busy = {"type": "Utilization", "averageUtilization": round(100 * FULL)}
        return {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": meta,
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": low,
                "maxReplicas": scale.max,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": busy}}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            },
        }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": meta,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicaCount": low,
            "maxReplicaCount": scale.max,
            "cooldownPeriod": 60,
            "triggers": [
                {"type": "cpu", "metricType": "Utilization", "metadata": {"value": str(round(100 * FULL))}},
                *(_cron(shift, scale) for shift in scale.schedule),
            ],
        },
    }


def _cron(shift: Shift, scale: Scale) -> Object:
    """A part of the day as KEDA takes it: two moments a week's pattern; a night ends on the day after it begins."""
    begins = [(DAYS.index(day) + 1) % 7 for day in shift.days]  # cron counts from Sunday
    night = shift.start >= shift.end
    ends = [(day + night) % 7 for day in begins]
    return {
        "type": "cron",
        "metadata": {
            "timezone": scale.zone,
            "start": _moment(shift.start, begins),
            "end": _moment(shift.end, ends),
            "desiredReplicas": str(min(shift.min, scale.max)),
        },
    }


def _moment(time: str, days: list[int]) -> str:
    hour, _, minute = time.partition(":")
    return f"{int(minute)} {int(hour)} * * {'*' if len(days) == len(DAYS) else ','.join(map(str, sorted(days)))}"


# ----------------------------------------------------------------------------------------------------------- network


def _network_policy(facts: Facts) -> Object:
    """Callers are pods that say so, in this namespace or in one that says so; a replica opens no connection itself."""
    caller = {"matchLabels": {f"{_DOMAIN}/caller": "true"}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(facts, None, facts.name),
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": facts.name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"podSelector": caller}, {"namespaceSelector": caller}],
                    "ports": [{"protocol": "TCP", "port": PORT}],
                }
            ],
            "egress": [],
        },
    }


def _route(facts: Facts, releases: list[Release]) -> Object:
    """The split of a rollout, as weights of a thousandth."""
    shares = [release.share for release in releases]
    weights = [round(1000 * share) for share in shares]
    weights[0] = 1000 - sum(weights[1:])
    backends = [
        {"name": _name(facts, release), "port": 80, "weight": weight}
        for release, weight in zip(releases, weights, strict=True)
    ]
    made: Object = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _meta(facts, None, facts.name),
        "spec": {"parentRefs": [{"name": facts.gateway}], "rules": [{"backendRefs": backends}]},
    }
    if facts.hosts:
        made["spec"]["hostnames"] = list(facts.hosts)
    return made


# ------------------------------------------------------------------------------------------------------------- KServe


def _inference_service(facts: Facts) -> Object:
    """KServe's object: the newest release as its predictor, with the candidate's share where there is one.

    Its Knative keeps requests while there is no pod, so ``min`` may be 0.
    """
    newest = facts.candidate or facts.stable
    scale = newest.spec.scale
    predictor: Object = {
        "minReplicas": scale.min,
        "maxReplicas": scale.max,
        "scaleMetric": "cpu",
        "scaleTarget": round(100 * FULL),
        **_pod(facts, newest, "kserve-container"),
    }
    if facts.candidate is not None:
        predictor["canaryTrafficPercent"] = round(100 * facts.candidate.share)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _meta(facts, newest, facts.name),
        "spec": {"predictor": predictor},
    }
