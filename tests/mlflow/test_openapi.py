"""What schemathesis finds when it reads our description of routes and sends what that says, and more."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import settings

from tests.api.routes import ROUTES
from tests.mlflow.conftest import Bedplate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHECKS = (
    "not_a_server_error",
    "negative_data_rejection",
    "ignored_auth",
    "use_after_free",
    "ensure_resource_availability",
)
CONFIGURATION = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 406, 413, 414, 422, 428, 431]
"""
"""What breaks a schema by its length may be too many bytes for a body, an address or a head as well: 413, 414, 431."""
APART = {
    "DELETE /api/v1/keys/{key}": "going on with what it found, it would end the key that it comes in with",
    "POST /api/v1/stop": "the server ends; what is sent there is attacked in tests/api/test_hostile.py",
}
"""Operations that are not tested with the others, and why. The first one is tested by itself."""
API = "/api/2.0/mlflow/"

# What a created thing is called, where its reply says so, and which operations take it: in a query or body under the
# same name, or in the path under another. By these links schemathesis goes on with what it made.
LINKS: tuple[tuple[str, dict[str, str], tuple[str, ...]], ...] = (
    (
        "POST experiments/create",
        {"experiment_id": "$response.body#/experiment_id"},
        (
            *("GET experiments/get", "POST experiments/update", "POST experiments/set-experiment-tag"),
            *("POST experiments/delete", "POST experiments/restore", "POST runs/create", "POST logged-models"),
        ),
    ),
    (
        "POST runs/create",
        {"run_id": "$response.body#/run/info/run_id"},
        (
            *("GET runs/get", "POST runs/update", "POST runs/log-metric", "POST runs/log-parameter"),
            *("POST runs/log-batch", "POST runs/set-tag", "POST runs/log-inputs", "POST runs/delete"),
            *("POST runs/restore", "GET metrics/get-history", "GET artifacts/list"),
        ),
    ),
    (
        "POST logged-models",
        {"model": "$response.body#/model/info/model_id"},
        (
            *("GET logged-models/{model}", "PATCH logged-models/{model}", "PATCH logged-models/{model}/tags"),
            *("POST logged-models/{model}/params", "DELETE logged-models/{model}"),
            "GET logged-models/{model}/artifacts/directories",
        ),
    ),
    (
        "POST registered-models/create",
        {"name": "$response.body#/registered_model/name"},
        (
            *("GET registered-models/get", "PATCH registered-models/update", "POST registered-models/set-tag"),
            *("POST model-versions/create", "POST registered-models/get-latest-versions"),
            "DELETE registered-models/delete",
        ),
    ),
    (
        "POST model-versions/create",
        {
            "name": "$response.body#/model_version/name",
            "version": "$response.body#/model_version/version",
        },
        (
            *("GET model-versions/get", "PATCH model-versions/update", "POST model-versions/set-tag"),
            *("POST model-versions/transition-stage", "POST registered-models/alias", "DELETE model-versions/delete"),
        ),
    ),
)


def linked(document: dict[str, Any]) -> dict[str, Any]:
    """The description, with links from what is created to what can be done with it."""
    for source, values, targets in LINKS:
        links = operation(document, source)["responses"]["200"].setdefault("links", {})
        for target in targets:
            to = operation(document, target)
            places = {parameter["name"]: parameter["in"] for parameter in to["parameters"]}
            given = {f"{places[name]}.{name}": value for name, value in values.items() if name in places}
            link: dict[str, Any] = {"operationId": to["operationId"], "parameters": given}
            if "requestBody" in to:
                in_path = {"model": "model_id"} if "model_id" in body_fields(document, to) else {}
                fields = {in_path.get(name, name): value for name, value in values.items()}
                link["requestBody"] = {
                    name: value for name, value in fields.items() if name in body_fields(document, to)
                }
            links[target] = link
    return document


def operation(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The operation of a method and a path below the API's prefix."""
    method, _, path = name.partition(" ")
    found: dict[str, Any] = document["paths"][API + path][method.lower()]
    return found


def body_fields(document: dict[str, Any], of: dict[str, Any]) -> set[str]:
    """The names of the fields of an operation's body."""
    reference = of["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return set(document["components"]["schemas"][reference.rpartition("/")[2]]["properties"])


def run(bedplate: Bedplate, folder: Path, *options: str) -> str:
    """What it says; it must have found nothing."""
    described = httpx.get(f"{bedplate.address}/api/v1/openapi.json", headers=bedplate.headers()).json()
    (folder / "openapi.json").write_text(json.dumps(linked(described)))
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", "openapi.json", "--url", bedplate.address),
        *("--header", f"Authorization: Bearer {bedplate.key}", "--checks", ",".join(CHECKS)),
        *("--no-color", "--continue-on-failure", "--warnings", "off", *options),
        *(("--seed", "1") if settings.default.derandomize else ()),
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "HYPOTHESIS_"))}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=560)

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    return done.stdout


DESCRIBED = len([route for route in ROUTES if not route.twin]) + 1
"""Each route once, under its first address, and the description itself."""


def together() -> list[str]:
    """Every operation but those apart."""
    return [option for name in APART for option in ("--exclude-path", name.partition(" ")[2])]


def operations(said: str) -> tuple[int, int]:
    """How many operations were tested, and how many there are."""
    found = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", said)
    assert found is not None, said
    assert found[1] == found[3], said
    return int(found[1]), int(found[2])


def test_schemathesis_finds_nothing_at_a_glance(bedplate: Bedplate, tmp_path: Path) -> None:
    """Every operation is asked something, the same each time; at random is what takes longer."""
    said = run(bedplate, tmp_path, *together(), "--phases", "fuzzing", "--max-examples", "1")

    assert operations(said) == (DESCRIBED - len(APART), DESCRIBED)


@pytest.mark.long
@pytest.mark.sweep
def test_schemathesis_finds_nothing(bedplate: Bedplate, tmp_path: Path) -> None:
    """Every operation at the edges of what it takes, at random, and one after the other along the links."""
    said = run(bedplate, tmp_path, *together(), "--max-examples", "4")

    assert operations(said) == (DESCRIBED - len(APART), DESCRIBED)
    assert "Stateful" in said
    assert "not applicable" not in said


@pytest.mark.long
@pytest.mark.sweep
def test_schemathesis_finds_nothing_about_keys(bedplate: Bedplate, tmp_path: Path) -> None:
    said = run(bedplate, tmp_path, "--include-path", "/api/v1/keys/{key}", "--phases", "coverage,fuzzing")

    assert operations(said)[0] == 1
