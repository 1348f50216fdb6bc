"""A retrained release takes its steps beside the one before, and the run that made it carries on after them."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import retail
from tests.serve.support import eventually

pytestmark = pytest.mark.long  # a minute of real commands
STEPS = "serve:\n  rollout: { steps: [50 %, 100 %], hold: 1 s, least: 5 }"


def told(home: Path, *arguments: str) -> Any:
    """What a command prints as JSON."""
    done = retail.command(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_retrained_release_takes_its_steps(tmp_path: Path, starter: Path) -> None:
    home = tmp_path / "home"
    told(home, "up", "--detach")
    try:
        first = told(home, "run", str(starter))
        retail.change(starter / "usecase.yaml", ("seed: 7", "seed: 8"), ("serve:", STEPS))
        waits = told(home, "run", str(starter))
        assert first["halted"] is None
        assert waits["halted"] == "waiting"
        assert "bedplate rollout status starter" in waits["halted_because"]
        status = told(home, "status")
        before = status["endpoints"][0]["bundle"]
        assert status["use_cases"][0]["sentence"] == "Version 1 is serving; version 2 is on its way in."
        assert told(home, "run", str(starter))["halted"] == "waiting"  # the same rollout, not another one

        url = told(home, "status")["endpoints"][0]["url"]
        key = (home / "keys" / "admin.key").read_text("ascii").strip()
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=10) as http:
            tensors = http.get("/v2/models/starter").json()["inputs"]
            body = {"inputs": [
                {"name": t["name"], "datatype": t["datatype"], "shape": [1 if n == -1 else n for n in t["shape"]],
                 "data": ["" if t["datatype"] == "BYTES" else 0 for _ in range(max(1, *t["shape"]))]}
                for t in tensors
            ]}  # fmt: skip

            def completed() -> bool:
                http.post("/v2/models/starter/infer", json=body).raise_for_status()
                return bool(told(home, "rollout", "status", "starter")["state"] == "completed")

            eventually(completed)
        ended = told(home, "run", str(starter))
        served = told(home, "status")["endpoints"][0]["bundle"]
        assert ended["halted"] is None
        assert served == told(home, "rollout", "status", "starter")["bundle"] != before

        assert told(home, "rollout", "roll-back", "starter", "--reason", "to see it go")["state"] == "rolled_back"
        status = told(home, "status")
        assert status["endpoints"][0]["bundle"] == before
        assert (status["use_cases"][0]["sentence"], status["use_cases"][0]["version"]) == ("Version 1 is serving.", 1)
        refused = retail.command(home, "run", str(starter))
        assert refused.returncode == 3
        assert "rolled back: to see it go" in refused.stderr
        assert told(home, "status")["endpoints"][0]["bundle"] == before
    finally:
        retail.command(home, "stop")
