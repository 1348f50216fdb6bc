"""The option that a plan chose, as files of the tools that launch it: pure functions from facts to documents."""

import math
import shlex
from typing import Any, Literal

import msgspec

from bedplate.errors import InputError
from bedplate.ids import Digest
from bedplate.plan.types import Option

Tool = Literal["skypilot", "ray", "kuberay", "terraform"]
TOOLS: tuple[Tool, ...] = ("skypilot", "ray", "kuberay", "terraform")

_RAY = "2.53.0"
_IMAGE = f"rayproject/ray:{_RAY}-py311"
_SYSTEM_CORES, _SYSTEM_GIB = 0.5, 1.0
"""Kept on a node of a cluster for its own daemons."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What is launched: the option, where the use case lies, and what its training asks for."""

    use_case: str
    option: Option
    currency: str
    image: str = ""
    namespace: str = "default"


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
        InputError: the option is this machine, which nothing can launch, or was never sized.
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
    return ["pip install 'bedplate[train]'"], "bedplate run . && bedplate up"


def _skypilot(launch: Launch) -> Document:
    option = launch.option
    setup, run = _commands(launch)
    return Document(
        name=f"{launch.use_case}.sky.yaml",
        content={
            "name": launch.use_case,
            "resources": {
                "infra": f"{option.provider}/{option.region}",
                "instance_type": option.instance,
                "use_spot": option.market == "spot",
                "ports": [8080],
                "labels": _labels(launch),
            },
            "num_nodes": option.machines,
            "workdir": ".",
            "setup": "\n".join(setup) + "\n",
            "run": run + "\n",
        },
        needs=(f"start it in the folder of the use case: sky launch -c {launch.use_case} {launch.use_case}.sky.yaml",),
    )


def _ray(launch: Launch) -> Document:
    option = launch.option
    provider, node, needs = _ray_provider(option)
    setup, _ = _commands(launch)
    machine = {"node_config": node, "resources": {"CPU": option.vcpus}}
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
            f"then: ray exec {launch.use_case}.ray.yaml 'cd ~/{launch.use_case} && bedplate run .'",
        ),
    )


def _ray_provider(option: Option) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """The provider's part, that of a node, and what only its account knows."""
    if option.provider == "aws":
        return {"type": "aws", "region": option.region}, {"InstanceType": option.instance}, ()
    if option.provider == "gcp":
        provider = {"type": "gcp", "region": option.region, "availability_zone": f"{option.region}-b"}
        return provider, {"machineType": option.instance}, ("the id of your project: add provider.project_id",)
    if option.provider == "azure":
        node = {"azure_arm_parameters": {"vmSize": option.instance}}
        provider = {"type": "azure", "location": option.region, "resource_group": "bedplate"}
        return provider, node, ("a key pair for machines: ssh-keygen, and auth.ssh_private_key in the file",)
    raise InputError(
        f"Ray's cluster launcher has no provider {option.provider}", where="--option",
        fix="use bedplate export skypilot, or an option of aws, gcp or azure",
    )  # fmt: skip


def _kuberay(launch: Launch) -> Document:
    option = launch.option
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
            f"nodes of {option.instance} in {option.region}",
            f"start it: kubectl apply -f {launch.use_case}.kuberay.yaml",
        ),
    )


def _pod(launch: Launch, container: str) -> dict[str, Any]:
    """A pod that has a node of the chosen type to itself; requests equal limits, so that nothing else moves it."""
    option = launch.option
    cores = max(0.5, math.floor(2 * (option.vcpus - _SYSTEM_CORES)) / 2)
    share = {"cpu": f"{round(1000 * cores)}m", "memory": f"{max(1, int(option.memory_gib - _SYSTEM_GIB))}Gi"}
    return {
        "metadata": {"labels": _labels(launch)},
        "spec": {
            "automountServiceAccountToken": False,
            "nodeSelector": {
                "node.kubernetes.io/instance-type": option.instance,
                "topology.kubernetes.io/region": option.region,
                "kubernetes.io/arch": "arm64" if option.architecture in ("arm64", "arm") else "amd64",
            },
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
    option, cost = launch.option, launch.option.cost
    setup, run = _commands(launch)
    return Document(
        name=f"{launch.use_case}.auto.tfvars.json",
        content={
            "use_case": launch.use_case,
            "cloud": option.provider,
            "region": option.region,
            "instance_type": option.instance,
            "machine_count": option.machines,
            "replica_count": option.replicas,
            "architecture": option.architecture,
            "labels": _labels(launch),
            "monthly_budget": None if cost is None else round(cost.total.high, 2),
            "currency": launch.currency,
            "user_data": "#!/bin/sh\nset -e\n"
            + "\n".join(setup)
            + f"\ncd {shlex.quote(f'/opt/{launch.use_case}')}\n{run}\n",
        },
        needs=(
            "a module of yours that declares these variables; Terraform reads the file by its name",
            f"the folder of the use case on each machine, at /opt/{launch.use_case}",
        ),
    )


def _labels(launch: Launch) -> dict[str, str]:
    return {"bedplate-use-case": launch.use_case, "managed-by": "bedplate"}
