"""The example that must not be released is refused."""

import json
from pathlib import Path

import msgspec
import pytest

from bedplate import settings
from bedplate.app.operations import Bedplate
from tests import retail

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_model_that_beats_no_baseline_is_refused(tmp_path: Path):
    """Exit code 3, the gate says why, and nothing is bundled; the same again at once."""
    home = tmp_path / "home"
    refused = retail.command(home, "run", str(EXAMPLES / "refused"), "--json")
    again = Bedplate(settings.load({"BEDPLATE_HOME": str(home), "BEDPLATE_PORT": "0"})).run(EXAMPLES / "refused")

    assert refused.returncode == 3, refused.stderr
    for summary in (json.loads(refused.stdout), msgspec.to_builtins(again)):
        states = {stage["stage"]: stage["state"] for stage in summary["stages"]}
        assert states["gates"] in ("finished", "skipped")
        assert states["bundle"] == "pending"
        assert not summary["evidence"]["gates"]["body"]["passed"]
    assert not any((home / "bundles").iterdir())
