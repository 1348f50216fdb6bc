"""The examples' files pass every check."""

from pathlib import Path

import pytest

from bedplate import usecase
from bedplate.compute import sandbox

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["ensemble", "retail", "refused"])
def test_the_file_and_its_code_are_sound(name):
    """`bedplate check` finds nothing, and pipeline.py declares what the file names."""
    loaded = usecase.load(EXAMPLES / name / "usecase.yaml")
    declared = {d.name: d.kind for d in sandbox.describe(EXAMPLES / name / "pipeline.py")}

    assert set(loaded.use_case.features) <= {n for n, kind in declared.items() if kind == "feature_view"}
    assert "train" in declared.values()
