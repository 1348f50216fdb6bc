"""The chosen option for the tools that launch it: valid by their own schemas, for every cloud that is compared."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml

from bedplate import settings
from bedplate.app import planning
from bedplate.app.exports import launch
from bedplate.app.exports.launch import Launch
from bedplate.app.operations import Bedplate
from bedplate.cli import root
from bedplate.errors import InputError
from bedplate.plan import catalogue
from bedplate.plan.types import Option, Plan
from bedplate.usecase import load
from tests.plan.conftest import PROBE, SETTINGS

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).with_name("launch_schemas")
EXAMPLES = [
    pytest.param(path.parent.name, marks=pytest.mark.long if path.parent.name == "llm-pretraining" else ())
    for path in sorted((ROOT / "examples").glob("*/usecase.yaml"))
]
"""The one that is longest to plan is tried with what takes longest."""
TERRAFORM = shutil.which("terraform")


@cache
def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


@cache
def planned(example: str) -> Plan:
    nowhere = msgspec.structs.replace(SETTINGS, home=Path("/nowhere"))
    return planning.derive(load(ROOT / "examples" / example), PROBE, nowhere)[1]


def offered(example: str) -> list[Option]:
    """The best option of each provider and market that a plan compared."""
    found: dict[tuple[str, str], Option] = {}
    for option in planned(example).options:
        if option.machines and option.provider != "here":
            found.setdefault((option.provider, option.market), option)
    return list(found.values())


def options(machines: int = 2) -> list[Option]:
    """One machine type of each cloud and architecture of the catalogue, sized."""
    found: dict[tuple[str, str], Option] = {}
    for i in catalogue.load().instances:
        found.setdefault(
            (i.provider, i.architecture),
            Option(
                provider=i.provider, region=i.region, instance=i.instance, architecture=i.architecture, vcpus=i.vcpus,
                memory_gib=i.memory_gib, price_hour=i.price_hour, price_date=i.price_date,
                price_source=i.price_source, price_quality=i.price_quality, machines=machines, replicas=4, p99=None,
                utilisation=None, service=None, method="", cost=None, meets=True, lost="",
            ),
        )  # fmt: skip
    return list(found.values())


OPTIONS = options()
EACH = pytest.mark.parametrize("option", OPTIONS, ids=lambda o: f"{o.provider}-{o.architecture}")


def made(option: Option, tool: launch.Tool, **more: Any) -> dict[str, Any]:
    document = launch.document(Launch(use_case="basket", option=option, currency="USD", **more), tool)
    assert document.needs
    # what people get is text: read it again as the tools do
    return yaml.safe_load(yaml.safe_dump(document.content, sort_keys=False))  # type: ignore[no-any-return]


@EACH
def test_a_task_is_one_of_skypilot(option: Option) -> None:
    task = made(option, "skypilot")
    jsonschema.validate(task, schema("skypilot-task"))
    jsonschema.validate(task["resources"], schema("skypilot-resources"))
    assert task["resources"]["infra"] == f"{option.provider}/{option.region}"
    assert (task["resources"]["instance_type"], task["num_nodes"]) == (option.instance, 2)
    assert not task["resources"]["use_spot"]
    assert made(msgspec.structs.replace(option, market="spot"), "skypilot")["resources"]["use_spot"]


def test_the_schemas_refuse_what_is_none() -> None:
    task = made(OPTIONS[0], "skypilot")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**task, "machines": 2}, schema("skypilot-task"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**task["resources"], "infra": "here/here"}, schema("skypilot-resources"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**made(OPTIONS[0], "ray"), "nodes": 2}, schema("ray-cluster"))


@EACH
@pytest.mark.parametrize("machines", [1, 3])
def test_a_cluster_is_one_of_ray(option: Option, machines: int) -> None:
    option = msgspec.structs.replace(option, machines=machines)
    if option.provider not in ("aws", "gcp", "azure"):
        with pytest.raises(InputError, match="no provider"):
            made(option, "ray")
        return
    cluster = made(option, "ray")
    jsonschema.validate(cluster, schema("ray-cluster"))
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    assert 1 + sum(kind["min_workers"] for kind in types.values()) == machines == 1 + cluster["max_workers"]


def held(cluster: dict[str, Any], option: Option) -> None:
    """A RayCluster by its own fields, its pods by those of Kubernetes, and each within its node."""
    jsonschema.validate(cluster, schema("kuberay-cluster"))
    spec = cluster["spec"]
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    assert 1 + sum(group["replicas"] for group in groups[1:]) == option.machines
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        pod["metadata"] = {"name": "p", **pod["metadata"]}
        kubernetes_validate.validate(pod, "1.30", strict=True)
        share = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert int(share["cpu"].removesuffix("m")) <= 1000 * option.vcpus
        assert int(share["memory"].removesuffix("Gi")) <= max(1, option.memory_gib)
        assert bool(set(share) - {"cpu", "memory"}) == (option.layout is not None)
    for group in groups[1:]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@EACH
@pytest.mark.parametrize("machines", [1, 3])
def test_pods_of_kuberay_are_pods_and_fit_their_nodes(option: Option, machines: int) -> None:
    option = msgspec.structs.replace(option, machines=machines)
    cluster = made(option, "kuberay", image="registry.example/basket:1", namespace="shop")
    held(cluster, option)
    container = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/basket:1"


@pytest.mark.parametrize("name", ["a" * 54, "ends-with-", "1st"])
def test_a_name_that_kuberay_refuses_is_refused_here(name: str) -> None:
    with pytest.raises(InputError, match="takes no cluster called"):
        launch.document(Launch(use_case=name, option=OPTIONS[0], currency="USD"), "kuberay")


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_is_planned_for_each_example_is_launched_by_each_tool(example: str) -> None:
    options = offered(example)
    assert options
    for option in options:
        task = made(option, "skypilot")
        jsonschema.validate(task, schema("skypilot-task"))
        jsonschema.validate(task["resources"], schema("skypilot-resources"))
        assert task["resources"]["use_spot"] == (option.market == "spot")
        cluster = made(option, "kuberay")
        held(cluster, option)
        devices = sum(
            int(count)
            for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"].get("workerGroupSpecs", ()))
            for name, count in group["template"]["spec"]["containers"][0]["resources"]["limits"].items()
            for _ in range(group.get("replicas", 1))
            if name not in ("cpu", "memory")
        )
        assert devices >= (option.layout.devices if option.layout else 0)
        if option.provider in ("aws", "gcp", "azure"):
            jsonschema.validate(launched := made(option, "ray"), schema("ray-cluster"))
            node = json.dumps(launched["available_node_types"]["head"]["node_config"]).lower()
            assert ("spot" in node or "preemptible" in node) == (option.market == "spot")


def test_a_machine_of_your_own_is_no_cloud(tmp_path: Path) -> None:
    own = msgspec.structs.replace(OPTIONS[0], provider="own", region="eu")
    for tool in ("skypilot", "ray"):
        with pytest.raises(InputError):
            made(own, tool)  # type: ignore[arg-type]
    pod = made(own, "kuberay")["spec"]["headGroupSpec"]["template"]["spec"]
    assert set(pod["nodeSelector"]) == {"kubernetes.io/arch"}  # whose region and type nobody labels


@pytest.mark.skipif(TERRAFORM is None, reason="needs terraform")
def test_terraform_takes_the_variables_that_the_guide_declares(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "how-to" / "launch.md").read_text()
    declared = "\n".join(re.findall(r"```hcl\n(.*?)```", guide, re.DOTALL))
    names = re.findall(r'variable "(\w+)"', declared)
    shown = "".join(f'output "{name}" {{\n  value = var.{name}\n}}\n' for name in names)
    (tmp_path / "main.tf").write_text(declared + shown)
    run = {"cwd": tmp_path, "check": True, "capture_output": True, "text": True, "env": {"CHECKPOINT_DISABLE": "1"}}
    for option in (*offered("chest-xray")[:1], OPTIONS[0]):
        document = launch.document(Launch(use_case="basket", option=option, currency="USD"), "terraform")
        (tmp_path / document.name).write_text(json.dumps(document.content))
        assert TERRAFORM is not None
        subprocess.run([TERRAFORM, "init", "-input=false", "-no-color"], **run)  # type: ignore[call-overload]
        said = subprocess.run([TERRAFORM, "apply", "-auto-approve", "-input=false", "-no-color"], **run)  # type: ignore[call-overload]
        assert "undeclared" not in said.stdout + said.stderr
        outputs = json.loads(subprocess.run([TERRAFORM, "output", "-json"], **run).stdout)  # type: ignore[call-overload]
        assert {name: held["value"] for name, held in outputs.items()} == {
            name: value for name, value in document.content.items() if value is not None
        }


@EACH
def test_variables_of_terraform_are_plain_values(option: Option) -> None:
    document = launch.document(Launch(use_case="basket", option=option, currency="USD"), "terraform")
    assert document.name.endswith(".auto.tfvars.json")  # the name by which Terraform reads it unasked
    variables = json.loads(json.dumps(document.content))
    assert all(name.isidentifier() for name in variables)
    assert (variables["instance_type"], variables["machine_count"]) == (option.instance, 2)


@pytest.mark.parametrize("tool", launch.TOOLS)
def test_this_machine_and_what_was_never_sized_cannot_be_launched(tool: launch.Tool) -> None:
    for changes, problem in (({"provider": "here"}, "nothing to launch"), ({"machines": None}, "never sized")):
        option = msgspec.structs.replace(OPTIONS[0], **changes)
        with pytest.raises(InputError, match=problem):
            made(option, tool)


def test_the_plan_of_a_home_is_exported_by_its_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, folder = tmp_path / "home", tmp_path / "mine"
    bedplate = Bedplate(msgspec.structs.replace(settings.load(), home=home))
    bedplate.init(folder)
    for stage in ("check", "plan"):
        bedplate.run(folder, only=stage)
    capsys.readouterr()
    plan = bedplate.plan(folder)
    rented = next(o.name for o in plan.options if o.provider == "aws" and o.replicas)
    out = tmp_path / "task.yaml"
    common = ("--home", str(home))

    assert root.execute(["export", "skypilot", "mine", "--option", rented, "--out", str(out), *common]) == 0
    assert out.read_text().startswith("# from the plan sha256:")
    assert yaml.safe_load(out.read_text())["resources"]["instance_type"] == rented.rpartition("/")[2].split()[0]
    assert "sky launch" in capsys.readouterr().err

    assert root.execute(["export", "terraform", "mine", "--option", rented, *common]) == 0
    assert json.loads(capsys.readouterr().out)["cloud"] == "aws"

    assert root.execute(["export", "ray", "mine", "--option", "aws/moon/m1", *common]) == 2
    assert "compared no" in capsys.readouterr().err
    assert root.execute(["export", "ray", "nothing", *common]) == 2
    assert root.execute(["export", "kuberay", "mine", "--option", rented, "--image", "A B", *common]) == 2
    assert "no image can be named" in capsys.readouterr().err
