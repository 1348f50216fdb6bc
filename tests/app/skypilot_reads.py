"""Run by SkyPilot's own Python: reads tasks as SkyPilot does, and says what it understood, a line of JSON each.

Standard input is JSON: ``files``, texts of the price lists that it would fetch, by their paths, and ``tasks``, as YAML.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Keep the lists where SkyPilot keeps those that it fetched, before anything of it looks there."""
    asked = json.load(sys.stdin)
    from sky.catalog import common

    for name, text in asked["files"].items():
        path = Path(common.get_catalog_path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for text in asked["tasks"]:
        print("READ", json.dumps(read(text)), flush=True)


def read(text: str) -> dict[str, Any]:
    """What a task asks for, or why it is refused: as a task, or for what the cloud does not have."""
    import yaml
    from sky import Task

    try:
        task = Task.from_yaml_config(yaml.safe_load(text))
        (asked,) = task.resources
        asked.validate()
    except ValueError as error:
        return {"refused": str(error)}
    return {
        "region": asked.region,
        "instance": asked.instance_type,
        "added": asked.accelerators,
        "spot": asked.use_spot,
        "machines": task.num_nodes,
        "run": task.run,
    }


if __name__ == "__main__":
    main()
