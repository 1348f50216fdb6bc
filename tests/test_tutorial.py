"""The tutorial as a reader would run it: every shell block, in order, in an empty folder with a home of its own."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "tutorial" / "index.md"


@pytest.mark.long
def test_every_command_of_the_tutorial_works(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BEDPLATE_")}
    environment |= {"BEDPLATE_HOME": str(tmp_path / "home"), "BEDPLATE_PORT": "0"}

    def run(line):
        words = shlex.split(line, comments=True)
        assert words[0] == "bedplate", line
        return subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    try:
        for line in filter(None, "\n".join(blocks).splitlines()):
            result = run(line)
            assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
    finally:
        run("bedplate stop")
