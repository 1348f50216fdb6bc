"""Tasks for SkyPilot, read by SkyPilot itself, with the machines that clouds have as its price lists name them."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from bedplate.plan import catalogue
from bedplate.plan.offers import SKYPILOT_DEVICES
from bedplate.plan.types import Option
from tests.app.test_launch import OPTIONS, made, offered

SKYPILOT = Path(sys.prefix) / "skypilot" / "bin" / "python"
COLUMNS = ("InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "GpuInfo", "Price", "SpotPrice",
           "Region", "AvailabilityZone", "Arch")  # fmt: skip

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not SKYPILOT.is_file(), reason="there is no SkyPilot: make .venv/.skypilot"),
]


def table(columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    written = csv.DictWriter(text, list(columns), restval="")
    written.writeheader()
    written.writerows(rows)
    return text.getvalue()


def price_lists() -> dict[str, str]:
    """Our machines as SkyPilot lists them: on GCP, accelerators have rows of their own, and machines have none."""
    clouds: dict[str, list[dict[str, Any]]] = {}
    for i in catalogue.load().instances:
        rows = clouds.setdefault(i.provider, [])
        device = {"AcceleratorName": SKYPILOT_DEVICES.get(i.accelerator or "", ""), "AcceleratorCount": i.accelerators,
                  "GpuInfo": "{}"} if i.accelerator else {}  # fmt: skip
        place = {"Price": i.price_hour, "SpotPrice": i.spot_hour, "Region": i.region}
        if i.provider == "gcp":
            place["AvailabilityZone"] = f"{i.region}-b"
            rows += [device | place] if device else []
            device = {}
        machine = i.instance.partition("+")[0]
        rows.append(
            {"InstanceType": machine, "vCPUs": i.vcpus, "MemoryGiB": i.memory_gib, "Arch": i.architecture}
            | device
            | place
        )
    names = [{"AcceleratorName": name, "Clouds": "['AWS', 'GCP', 'Azure']"} for name in SKYPILOT_DEVICES.values()]
    lists = {f"{cloud}/vms.csv": table(COLUMNS, rows) for cloud, rows in clouds.items()}
    return lists | {"common/accelerators.csv": table(("AcceleratorName", "Clouds"), names)}


def test_skypilot_reads_what_is_exported_for_it(tmp_path: Path) -> None:
    """Each cloud, architecture and market: it finds machine, region, market and number as they were planned."""
    options = [*OPTIONS, *offered("llm-chat"), *offered("chest-xray")]
    added = next(option for option in options if "+" in option.instance)
    wrong = msgspec.structs.replace(OPTIONS[0], instance="m9.huge")
    tasks = [made(option, "skypilot") for option in (*options, wrong)]
    unknown = {**tasks[0], "machines": 3}
    given = {"files": price_lists(), "tasks": [yaml.safe_dump(task) for task in (*tasks, unknown)]}
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(
        [SKYPILOT, Path(__file__).with_name("skypilot_reads.py")], input=json.dumps(given), env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = [json.loads(line.removeprefix("READ ")) for line in done.stdout.splitlines() if line.startswith("READ ")]

    def asked(option: Option) -> tuple[Any, ...]:
        machine = option.instance.partition("+")[0]
        return option.region, machine, option.market == "spot", option.machines

    for option, task, found in zip(options, tasks, said, strict=False):
        assert (found["region"], found["instance"], found["spot"], found["machines"]) == asked(option), found
        assert found["run"] == task["run"]
    assert said[options.index(added)]["added"] == {"T4": 1}
    assert "Invalid instance type 'm9.huge'" in said[len(options)]["refused"]
    assert "machines" in said[len(options) + 1]["refused"]
