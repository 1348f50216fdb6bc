"""An endpoint as Kubernetes objects: valid by the published schemas, confined, and startable as they are."""

import copy
import json
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest

from bedplate.app.exports.kubernetes import Facts, Object, Release, Share, objects
from bedplate.serve import spec as specs
from bedplate.serve.scaling import Scale, Shift
from bedplate.serve.sockets import listen
from tests.serve.support import World, body, client, eventually

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).with_name("schemas")
KSERVE = ROOT / ".venv" / "inference" / "bin" / "python"
WEEK = ("mon", "tue", "wed", "thu", "fri")
SHIFTS = (Shift(start="07:30", end="19:00", min=2, days=WEEK), Shift(start="22:00", end="04:00", min=9, days=("sat",)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("kubernetes"))


def facts(world: World, *, scale: Scale | None = None, candidate: float | None = None, **changes: Any) -> Facts:
    """What is known of the linear model, with a candidate beside it if it has a share."""
    release = Release(spec=world.spec(scale=scale or Scale(min=1, max=4)), version="1", share=1 - (candidate or 0))
    other = None
    if candidate is not None:
        other = Release(spec=world.spec(world.bundle(version=2), scale=scale or Scale()), version="2", share=candidate)
    known = Facts(
        name="linear",
        use_case="demo",
        image="registry.example/linear",
        stable=release,
        candidate=other,
        request=Share(cores=1.0, memory=120 << 20),
        limit=Share(cores=1.5, memory=4 << 30),
        regions=("eu-central-1", "europe-west3"),
        public_key=world.spec().public_key.read_text(),
        snapshot_key=world.spec().snapshot_key.read_text(),
        features=False,
        namespace="shop",
        gateway="public",
        hosts=("linear.example.org",),
    )
    return msgspec.structs.replace(known, **changes)


def strict(schema: Any) -> Any:
    """The schema with no room for keys that it does not name: a cluster would drop them without a word."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(part) for key, part in schema.items()}
    if isinstance(made.get("properties"), dict) and made["properties"]:
        made.setdefault("additionalProperties", False)
    return made


@cache
def custom(kind: str) -> Any:
    return strict(json.loads((SCHEMAS / f"{kind.lower()}.json").read_text()))


def check(made: Object) -> None:
    """Hold an object against the schema that its makers published."""
    kind = made["kind"]
    if kind in ("HTTPRoute", "ScaledObject"):
        jsonschema.validate(made, custom(kind))
    elif kind == "InferenceService":
        (found,) = kserve(made)
        if found:
            raise jsonschema.ValidationError("; ".join(found))
    else:
        kubernetes_validate.validate(made, "1.33", strict=True)


def kserve(*made: Object) -> list[list[str]]:
    """What KServe's own classes have against each object."""
    if not KSERVE.exists():
        pytest.skip("the stock inference clients are not set up: make test does")
    asked = json.dumps(made)
    program = str(Path(__file__).with_name("kserve_check.py"))
    done = subprocess.run([KSERVE, program], input=asked, capture_output=True, text=True, check=True)
    told: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return told


def by_kind(made: list[Object]) -> dict[str, Object]:
    """The first object of each kind."""
    return {item["kind"]: item for item in reversed(made)}


@pytest.mark.parametrize("scale", [Scale(), Scale(min=0, max=4), Scale(min=2, max=6, schedule=SHIFTS)])
@pytest.mark.parametrize("candidate", [None, 0.1])
def test_every_object_fits_its_published_schema(world: World, scale: Scale, candidate: float | None) -> None:
    made = objects(facts(world, scale=scale, candidate=candidate))
    for item in made:
        check(item)
    kinds = [item["kind"] for item in made]
    each = 1 if candidate is None else 2
    scaler = "ScaledObject" if scale.schedule else "HorizontalPodAutoscaler"
    for kind in ("ConfigMap", "Deployment", "Service", "PodDisruptionBudget", scaler):
        assert kinds.count(kind) == each
    assert kinds.count("NetworkPolicy") == kinds.count("HTTPRoute") == 1
    assert {"HorizontalPodAutoscaler", "ScaledObject"} & set(kinds) == {scaler}  # two would pull at one target
    names = [(item["kind"], item["metadata"]["name"]) for item in made]
    assert len(set(names)) == len(names)
    text = json.dumps(made)
    assert "PRIVATE KEY" not in text
    assert str(world.root) not in text


def test_kserve_takes_its_object_and_no_other(world: World) -> None:
    plain, split = (
        by_kind(objects(facts(world, scale=Scale(min=0, max=3), candidate=share), "kserve"))["InferenceService"]
        for share in (None, 0.25)
    )
    wrong = [copy.deepcopy(plain) for _ in range(3)]
    wrong[0]["spec"]["predictor"]["minReplica"] = 1
    wrong[1]["spec"]["predictor"]["maxReplicas"] = "3"
    wrong[2]["spec"]["predictor"]["containers"][0]["securityContext"]["readonlyRootFilesystem"] = True
    told = kserve(plain, split, *wrong)
    assert told[:2] == [[], []]
    assert all(told[2:])
    assert plain["spec"]["predictor"]["minReplicas"] == 0
    assert split["spec"]["predictor"]["canaryTrafficPercent"] == 25
    assert split["metadata"]["labels"]["app.kubernetes.io/version"] == "2"


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "spec.template.spec.securityContext.runAsNonRoot", "yes"),
        ("Deployment", "spec.template.spec.securityContext.runAsNonRot", True),
        ("Deployment", "spec.template.spec.containers.0.ports.0.containerPort", "http"),
        ("Deployment", "spec.template.spec.automountToken", False),
        ("Deployment", "spec.selector", None),
        ("Service", "spec.ports.0.port", "eighty"),
        ("HorizontalPodAutoscaler", "spec.maxReplicas", None),
        ("PodDisruptionBudget", "spec.maxUnavailabe", 1),
        ("NetworkPolicy", "spec.ingress.0.form", []),
        ("ConfigMap", "data.spec", 1),
        ("HTTPRoute", "spec.rules.0.backendRefs.0.weight", 2_000_000),
        ("HTTPRoute", "spec.rules.0.backendRefs.0.wieght", 1),
        ("HTTPRoute", "spec.hostnames.0", "Not A Host"),
        ("ScaledObject", "spec.scaleTargetRef", None),
        ("ScaledObject", "spec.minReplicas", 1),
        ("ScaledObject", "spec.triggers.0.metadata.value", 70),
    ],
)
def test_a_wrong_object_is_refused(world: World, kind: str, path: str, value: Any) -> None:
    scale = Scale(min=1, max=3, schedule=SHIFTS if kind == "ScaledObject" else ())
    made = copy.deepcopy(by_kind(objects(facts(world, scale=scale)))[kind])
    check(made)
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
    at: Any = made
    for key in parents:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(made)


def test_a_pod_may_do_nothing_but_answer(world: World) -> None:
    made = by_kind(objects(facts(world)))
    pod = made["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    kinds = {volume["name"]: set(volume) - {"name"} for volume in pod["volumes"]}
    assert all(kinds[name] == {"emptyDir"} for name in writable)
    assert kinds["access"] == {"secret"}
    assert made["NetworkPolicy"]["spec"]["egress"] == []
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["eu-central-1", "europe-west3"]
    assert "affinity" not in json.dumps(objects(facts(world, regions=())))
    assert pod["terminationGracePeriodSeconds"] > 2 * world.spec().drain


def test_what_answers_is_named_by_digest_and_evidence(world: World) -> None:
    known = facts(world, candidate=0.3)
    known = msgspec.structs.replace(
        known, stable=msgspec.structs.replace(known.stable, spec=world.spec(scale=Scale(), grpc=0))
    )
    config = by_kind(objects(known))["ConfigMap"]["data"]["spec.json"]
    assert specs.decode(config.encode()).grpc is None
    for made in objects(known):
        release = (
            known.candidate if made["metadata"]["labels"].get("bedplate.dev/role") == "candidate" else known.stable
        )
        assert release is not None
        if made["kind"] in ("NetworkPolicy", "HTTPRoute"):
            continue
        assert made["metadata"]["annotations"] == {
            "bedplate.dev/bundle": release.spec.digest,
            "bedplate.dev/evidence": release.spec.evidence,
        }
        label = made["metadata"]["labels"]["bedplate.dev/bundle"]
        assert release.spec.digest.startswith(f"sha256:{label}")
        assert re.fullmatch(r"[a-z0-9]{16}", label)
    (rule,) = by_kind(objects(known))["HTTPRoute"]["spec"]["rules"]
    assert [(ref["name"], ref["weight"]) for ref in rule["backendRefs"]] == [("linear", 700), ("linear-candidate", 300)]


def test_a_schedule_is_two_moments_for_keda(world: World) -> None:
    scale = Scale(min=0, max=6, zone="Europe/Berlin", schedule=SHIFTS)
    spec = by_kind(objects(facts(world, scale=scale)))["ScaledObject"]["spec"]
    day, night = (trigger["metadata"] for trigger in spec["triggers"] if trigger["type"] == "cron")
    assert day == {
        "timezone": "Europe/Berlin",
        "start": "30 7 * * 1,2,3,4,5",
        "end": "0 19 * * 1,2,3,4,5",
        "desiredReplicas": "2",
    }
    assert (night["start"], night["end"], night["desiredReplicas"]) == ("0 22 * * 6", "0 4 * * 0", "6")
    assert spec["minReplicaCount"] == 1


def test_a_replica_starts_from_the_objects_as_they_are(world: World, tmp_path: Path) -> None:
    """The spec of the config map, its mounts in a folder: one process that opens its own socket and drains."""
    config = by_kind(objects(facts(world)))["ConfigMap"]
    deployment = by_kind(objects(facts(world)))["Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    mounts = {
        "/etc/bedplate/keys": tmp_path / "keys",
        "/etc/bedplate/access": world.snapshot.parent,
        "/var/lib/bedplate": tmp_path / "lib",
        "/bundle": world.spec().bundle,
    }
    (tmp_path / "keys").mkdir()
    for name in ("bundle.pub.pem", "access.pub.pem"):
        (tmp_path / "keys" / name).write_text(config["data"][name])
    text = config["data"]["spec.json"]
    for inside, outside in mounts.items():
        text = text.replace(f'"{inside}', f'"{outside}')
    told = specs.decode(text.encode())
    assert (told.host, told.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    (tmp_path / "spec.json").write_bytes(specs.encode(msgspec.structs.replace(told, host="127.0.0.1", port=port)))
    command = [sys.executable, "-m", "bedplate.serve.replica", str(tmp_path / "spec.json")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as replica, client("http://127.0.0.1") as http:
        try:
            probe = container["readinessProbe"]["httpGet"]
            headers = {header["name"]: header["value"] for header in probe["httpHeaders"]}
            assert replica.stderr is not None
            assert any("ready" in line for line in replica.stderr)
            http.base_url = f"http://127.0.0.1:{port}"
            assert http.get(probe["path"], headers=headers).status_code == 200
            for host, status in (("linear.shop.svc", 200), ("linear.example.org", 200), ("evil.example", 421)):
                answer = http.post("/v2/models/linear/infer", json=body(), headers={"host": host})
                assert answer.status_code == status
        finally:
            replica.send_signal(signal.SIGTERM)
        eventually(lambda: replica.poll() is not None)
        assert replica.returncode == 0
