"""Runs on a disk that is full, in a mount namespace of its own: started by test_bad_input.

Arguments: a folder to mount the disk on, the folder of a use case.
"""

import subprocess
import sys
from pathlib import Path

from tests import retail
from tests.flow.test_bad_input import refused, whole


def main(disk: Path, folder: Path) -> None:
    """Refused with what to do on each size; whole once there is enough."""
    sizes = ("700k", "1500k", "2500k")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sizes[0]}", "none", str(disk)], check=True)
    for size in sizes:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
        ended = retail.command(disk / "home", "run", str(folder))
        refused(ended, 1, "Fix:")
        assert "full" in ended.stderr or "No space left" in ended.stderr, ended.stderr
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    whole(disk / "home", folder)


main(Path(sys.argv[1]), Path(sys.argv[2]))
