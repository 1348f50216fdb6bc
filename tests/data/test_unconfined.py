"""Where a kernel cannot confine what parses a source, that is said, or the source is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: visits
version: 1.0.0
status: active
schema:
- name: visits
  properties: [{name: visit, logicalType: integer, primaryKey: true}]
"""
INGEST = """
import sys
from pathlib import Path
from bedplate import settings
from bedplate.app import inputs
from bedplate.data.ingest import ingest
from bedplate.data.tables import Tables
from bedplate.errors import DeniedError
from bedplate.usecase.types import DataSet, Source
folder = Path(sys.argv[1])
spec = DataSet(contract="c.odcs.yaml", source=Source(kind="csv", path="rows.csv"))
try:
    made = ingest(
        Tables(folder / "tables"), use_case="u", dataset="visits", spec=spec, folder=folder, key="k",
        reach=inputs.reach(settings.load()),
    )
    print(made.accepted, made.unconfined)
except DeniedError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize(("wanted", "words"), [("preferred", "2 this kernel has no Landlock"), ("required", "refused")])
def test_a_kernel_without_landlock_is_said_or_refused(tmp_path: Path, wanted: str, words: str) -> None:
    (tmp_path / "c.odcs.yaml").write_text(CONTRACT)
    (tmp_path / "rows.csv").write_text("visit\n1\n2\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.without_landlock", sys.executable, "-c", INGEST, str(tmp_path)],
        env=os.environ | {"BEDPLATE_ISOLATION": wanted}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(words)
    assert "no Landlock" in done.stdout
    assert (tmp_path / "tables").exists() == (wanted == "preferred")
    assert ("not isolated" in done.stderr) == (wanted == "preferred")
