import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = str(Path(__file__).with_name("full_disk.py"))
MOUNT = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" "$3" "$1" tmpfs'


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def test_a_file_over_the_limit_is_a_storage_error_with_nothing_half_done(tmp_path: Path) -> None:
    done = _run(sys.executable, SCRIPT, str(tmp_path), "limited")
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout


def test_a_full_disk_is_named_with_nothing_half_done(tmp_path: Path) -> None:
    if _run("unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)).returncode:
        pytest.skip("this machine does not let a user mount a small disk")
    done = _run("unshare", "-rm", "sh", "-c", MOUNT, "sh", str(tmp_path), sys.executable, SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "the disk is full" in done.stdout
