"""The option that a plan chose, as files of the tools that launch it: pure functions from facts to documents."""

import math
import re
import shlex
from typing import Any, Literal, NamedTuple

import msgspec

from bedplate.errors import InputError
from bedplate.ids import Digest
from bedplate.plan.accelerators import accelerator
from bedplate.plan.types import Option

Tool = Literal["skypilot", "ray", "kuberay", "terraform"]
TOOLS: tuple[Tool, ...] = ("skypilot", "ray", "kuberay", "terraform")

_RAY = "2.53.0"
_IMAGE = f"rayproject/ray:{_RAY}-py311"
_SYSTEM_CORES, _SYSTEM_GIB = 0.5, 1.0
"""Kept on a node of a cluster for its own daemons."""
_KUBERAY_NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
"""A label of DNS (RFC 1035), short enough for the services that KubeRay names after a cluster."""


class _Devices(NamedTuple):
    """Accelerators of a machine: what Ray and Kubernetes call them, and how many there are of each machine."""

    ray: str
    kubernetes: str
    each: int


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What is launched: the option, where the use case lies, and what its training asks for.

    ``region`` is what the machine says of where it is, for a use case with residency.
    """

    use_case: str
    option: Option
    currency: str
    image: str = ""
    namespace: str = "default"
    region: str = ""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One file for a tool: its usual name, its content, and what must be there beside it, in words and commands."""

    name: str
    content: dict[str, Any]
    needs: tuple[str, ...]


class LaunchExport(Document, frozen=True, kw_only=True):
    """The file of a tool, and the plan that it is from."""

    use_case: str
    tool: Tool
    plan: Digest


def document(launch: Launch, tool: Tool) -> Document:
    """The file of one tool.

    Raises:
        InputError: the option is this machine, which nothing can launch, was never sized, or is no place or name of
            that tool.
    """
    option = launch.option
    if option.provider == "here":
        raise InputError(
            f"the plan of {launch.use_case} runs on this machine; there is nothing to launch", where="--option",
            fix="name an option of the plan that a cloud rents: --option PROVIDER/REGION/INSTANCE",
        )  # fmt: skip
    if not option.machines:
        raise InputError(
            f"{option.instance} was never sized: {option.lost}", where="--option", fix="name one that has a price"
        )
    return {"skypilot": _skypilot, "ray": _ray, "kuberay": _kuberay, "terraform": _terraform}[tool](launch)


def _commands(launch: Launch) -> tuple[list[str], str]:
    """How a bare machine gets Bedplate, and what it runs in the folder of the use case."""
    served = launch.option.cost is None or launch.option.cost.period == "month"
    declared = f"export BEDPLATE_REGION={launch.region} && " if launch.region else ""
    return ["pip install 'bedplate[train]'"], declared + "bedplate run ." + (" && bedplate up" if served else "")


def _alone(option: Option) -> tuple[str, ...]:
    """What to know of several machines: one of them owns the use case."""
    if (option.machines or 1) == 1:
        return ()
    return (
        "the first machine runs the use case and owns its home; what the others do is up to pipeline.py, and an "
        "endpoint on all of them is what bedplate export kubernetes makes",
    )


def _devices(option: Option) -> _Devices | None:
    """The accelerators that each machine gives to the layout; None where it runs on processors."""
    layout = option.layout
    if layout is None:
        return None
    generation = accelerator(layout.accelerator).generation
    ray, kubernetes = (
        ("TPU", "google.com/tpu") if generation == "tpu"
        else ("GPU", "amd.com/gpu" if generation.startswith("cdna") else "nvidia.com/gpu")
    )  # fmt: skip
    return _Devices(ray, kubernetes, math.ceil(layout.devices / (option.machines or 1)))


class _Machine(NamedTuple):
    """A machine type as its cloud calls it, and what is added to it: an accelerator by its short name, and how many."""

    name: str
    added: str
    number: int


def _machine(option: Option) -> _Machine:
    """GCP sells the accelerators of N1 machines by themselves: the catalogue's ``n1-standard-4+1xT4`` is two things."""
    name, _, added = option.instance.partition("+")
    count, _, device = added.partition("x")
    return _Machine(name, device, int(count or 0))


def _skypilot(launch: Launch) -> Document:
    option, machine = launch.option, _machine(launch.option)
    if option.provider == "own":
        raise InputError(
            "SkyPilot rents machines, and this option is your own", where="--option",
            fix="use bedplate export kuberay or terraform, or name an option that a cloud rents",
        )  # fmt: skip
    setup, run = _commands(launch)
    if (option.machines or 1) > 1:  # it starts the same command on every machine
        run = f'if [ "$SKYPILOT_NODE_RANK" = 0 ]; then {run}; fi'
    return Document(
        name=f"{launch.use_case}.sky.yaml",
        content={
            "name": launch.use_case,
            "resources": {
                "infra": f"{option.provider}/{option.region}",
                "instance_type": machine.name,
                **({"accelerators": f"{machine.added}:{machine.number}"} if machine.added else {}),
                "use_spot": option.market == "spot",
                "ports": [8080],
                "labels": _labels(launch),
            },
            "num_nodes": option.machines,
            "workdir": ".",
            "setup": "\n".join(setup) + "\n",
            "run": run + "\n",
        },
        needs=(
            f"start it in the folder of the use case: sky launch -c {launch.use_case} {launch.use_case}.sky.yaml",
            *_alone(option),
        ),
    )


def _ray(launch: Launch) -> Document:
    option = launch.option
    provider, node, needs = _ray_provider(option)
    setup, run = _commands(launch)
    devices = _devices(option)
    resources = {"CPU": option.vcpus} | ({devices.ray: devices.each} if devices is not None else {})
    machine = {"node_config": node, "resources": resources}
    more = (option.machines or 1) - 1
    types: dict[str, Any] = {"head": {**machine, "min_workers": 0, "max_workers": 0}}
    if more:
        types["worker"] = {**machine, "min_workers": more, "max_workers": more}
    return Document(
        name=f"{launch.use_case}.ray.yaml",
        content={
            "cluster_name": launch.use_case,
            "max_workers": more,
            "provider": provider,
            "auth": {"ssh_user": "azureuser" if option.provider == "azure" else "ubuntu"},
            "available_node_types": types,
            "head_node_type": "head",
            "file_mounts": {f"~/{launch.use_case}": "."},
            "setup_commands": [f"pip install 'ray[default]=={_RAY}'", *setup],
        },
        needs=(
            *needs,
            f"start it in the folder of the use case: ray up {launch.use_case}.ray.yaml",
            f"then: ray exec {launch.use_case}.ray.yaml 'cd ~/{launch.use_case} && {run}'",
            *_alone(option),
        ),
    )


def _ray_provider(option: Option) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """The provider's part, that of a node, and what only its account knows."""
    spot = option.market == "spot"
    if option.provider == "aws":
        market = {"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}
        return {"type": "aws", "region": option.region}, {"InstanceType": option.instance, **market}, ()
    if option.provider == "gcp":
        provider = {"type": "gcp", "region": option.region, "availability_zone": f"{option.region}-b"}
        machine = _machine(option)
        rules: list[dict[str, Any]] = [{"preemptible": True}] if spot else []
        rules += [{"onHostMaintenance": "TERMINATE"}] if _devices(option) else []  # accelerators cannot move along
        node: dict[str, Any] = {"machineType": machine.name} | ({"scheduling": rules} if rules else {})
        if machine.added:
            device = {"acceleratorType": _nvidia(machine), "acceleratorCount": machine.number}
            node["guestAccelerators"] = [device]
        return provider, node, ("the id of your project: add provider.project_id",)
    if option.provider == "azure":
        node = {"azure_arm_parameters": {"vmSize": option.instance} | ({"priority": "Spot"} if spot else {})}
        provider = {"type": "azure", "location": option.region, "resource_group": "bedplate"}
        return provider, node, ("a key pair for machines: ssh-keygen, and auth.ssh_private_key in the file",)
    raise InputError(
        f"Ray's cluster launcher has no provider {option.provider}", where="--option",
        fix="use bedplate export skypilot, or an option of aws, gcp or azure",
    )  # fmt: skip


def _nvidia(machine: _Machine) -> str:
    """What Google calls an accelerator that is added to a machine."""
    return f"nvidia-tesla-{machine.added.lower()}"


def _kuberay(launch: Launch) -> Document:
    option = launch.option
    if not _KUBERAY_NAME.fullmatch(launch.use_case):
        raise InputError(
            f"KubeRay takes no cluster called {launch.use_case}", where="name",
            fix="use a name of at most 53 small letters, digits and -, no - at its end; or bedplate export skypilot",
        )  # fmt: skip
    more = (option.machines or 1) - 1
    spec: dict[str, Any] = {
        "rayVersion": _RAY,
        "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": _pod(launch, "ray-head")},  # noqa: S104  inside a pod
    }
    if more:
        spec["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": more,
                "minReplicas": more,
                "maxReplicas": more,
                "rayStartParams": {},
                "template": _pod(launch, "ray-worker"),
            }
        ]
    meta = {"name": launch.use_case, "namespace": launch.namespace, "labels": _labels(launch)}
    return Document(
        name=f"{launch.use_case}.kuberay.yaml",
        content={"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": meta, "spec": spec},
        needs=(
            "KubeRay's operator in the cluster, and an image with Bedplate in it (--image), from its Containerfile",
            f"nodes of {option.instance.replace('+', ' with ')} in {option.region}",
            f"start it: kubectl apply -f {launch.use_case}.kuberay.yaml",
            *_alone(option),
        ),
    )


def _pod(launch: Launch, container: str) -> dict[str, Any]:
    """A pod that has a node of the chosen type to itself; requests equal limits, so that nothing else moves it."""
    option, devices = launch.option, _devices(launch.option)
    cores = max(0.5, math.floor(2 * (option.vcpus - _SYSTEM_CORES)) / 2)
    share = {"cpu": f"{round(1000 * cores)}m", "memory": f"{max(1, int(option.memory_gib - _SYSTEM_GIB))}Gi"}
    if devices is not None:
        share[devices.kubernetes] = str(devices.each)
    where = {"kubernetes.io/arch": "arm64" if option.architecture in ("arm64", "arm") else "amd64"}
    if option.provider != "own":  # a cloud's controller labels its nodes so
        machine = _machine(option)
        where["node.kubernetes.io/instance-type"] = machine.name
        where |= {"cloud.google.com/gke-accelerator": _nvidia(machine)} if machine.added else {}
        where["topology.kubernetes.io/region"] = option.region
    return {
        "metadata": {"labels": _labels(launch)},
        "spec": {
            "automountServiceAccountToken": False,
            "nodeSelector": where,
            "containers": [
                {
                    "name": container,
                    "image": launch.image or _IMAGE,
                    "resources": {"requests": dict(share), "limits": share},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def _terraform(launch: Launch) -> Document:
    option, cost, devices = launch.option, launch.option.cost, _devices(launch.option)
    machine, (setup, run) = _machine(option), _commands(launch)
    return Document(
        name=f"{launch.use_case}.auto.tfvars.json",
        content={
            "use_case": launch.use_case,
            "cloud": option.provider,
            "region": option.region,
            "instance_type": machine.name,
            "added_accelerator": _nvidia(machine) if machine.added else None,
            "machine_count": option.machines,
            "replica_count": option.replicas,
            "architecture": option.architecture,
            "accelerators": 0 if devices is None else devices.each,
            "spot": option.market == "spot",
            "labels": _labels(launch),
            "budget": None if cost is None else round(cost.total.high, 2),
            "budget_period": None if cost is None else cost.period,
            "currency": launch.currency,
            "user_data": "#!/bin/sh\nset -e\n"
            + "\n".join(setup)
            + f"\ncd {shlex.quote(f'/opt/{launch.use_case}')}\n{run}\n",
        },
        needs=(
            "a module of yours that declares these variables; Terraform reads the file by its name",
            f"the folder of the use case on each machine, at /opt/{launch.use_case}",
            *_alone(option),
        ),
    )


def _labels(launch: Launch) -> dict[str, str]:
    return {"bedplate-use-case": launch.use_case, "managed-by": "bedplate"}
