"""The chosen option for the tools that launch it: valid by their own schemas, for every cloud that is compared."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml

from bedplate import settings
from bedplate.app.exports import launch
from bedplate.app.exports.launch import Launch
from bedplate.app.operations import Bedplate
from bedplate.cli import root
from bedplate.errors import InputError
from bedplate.plan import catalogue
from bedplate.plan.types import Option

SCHEMAS = Path(__file__).with_name("launch_schemas")


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


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


@EACH
@pytest.mark.parametrize("machines", [1, 3])
def test_pods_of_kuberay_are_pods_and_fit_their_nodes(option: Option, machines: int) -> None:
    option = msgspec.structs.replace(option, machines=machines)
    cluster = made(option, "kuberay", image="registry.example/basket:1", namespace="shop")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec = cluster["spec"]
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    assert 1 + sum(group["replicas"] for group in groups[1:]) == machines
    for group in groups:
        assert isinstance(group["rayStartParams"], dict)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, "1.30", strict=True)
        container = group["template"]["spec"]["containers"][0]
        assert container["image"] == "registry.example/basket:1"
        share = container["resources"]["limits"]
        assert int(share["cpu"].removesuffix("m")) <= 1000 * option.vcpus
        assert int(share["memory"].removesuffix("Gi")) <= max(1, option.memory_gib)
    for group in groups[1:]:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


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
