"""What `bedplate init` writes runs as it is; the example that must not be released is refused."""

import json
from pathlib import Path

import pytest

from tests import retail

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_starter_runs_as_it_is(starter: Path, tmp_path: Path):
    """Every stage, to a traced prediction."""
    done = retail.command(tmp_path / "home", "run", str(starter), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert {stage["state"] for stage in summary["stages"]} == {"finished"}
    assert summary["prediction"]


def test_a_model_that_beats_no_baseline_is_refused(tmp_path: Path):
    """Exit code 3, the gate says why, and nothing is bundled; the same again at once."""
    home = tmp_path / "home"
    for _ in range(2):
        refused = retail.command(home, "run", str(EXAMPLES / "refused"), "--json")
        assert refused.returncode == 3, refused.stderr
        summary = json.loads(refused.stdout)
        states = {stage["stage"]: stage["state"] for stage in summary["stages"]}
        assert states["gates"] in ("finished", "skipped")
        assert states["bundle"] == "pending"
        assert not summary["evidence"]["gates"]["body"]["passed"]
    assert not any((home / "bundles").iterdir())
