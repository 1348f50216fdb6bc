"""What holds for artifacts in a folder only."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bedplate import blobs, ids
from bedplate.blobs.port import key
from bedplate.errors import StorageError

_WRITER = """
import sys
from pathlib import Path
from bedplate import blobs
place = blobs.open(Path(sys.argv[1]))
for i in range(10**6):
    digest = place.put(b"%d" % i * 1000)
    sys.stdout.write(f"{digest} {i}\\n")
    sys.stdout.flush()
"""


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    """Files have mode 0600 and folders 0700."""
    place = blobs.open(tmp_path / "blobs")
    path = tmp_path / "blobs" / key(place.put(b"secret"))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("torn", [b"", b"hal"])
def test_a_torn_file_is_mended_by_putting_again(tmp_path: Path, torn: bytes) -> None:
    """A file that a power failure cut short is written again, not taken for the artifact."""
    place = blobs.open(tmp_path)
    digest = place.put(b"halves")
    (tmp_path / key(digest)).write_bytes(torn)

    place.put(b"halves")

    assert place.get(digest) == b"halves"


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """An error while writing is clear, and leaves no partial file."""
    (tmp_path / "blobs").write_text("a file where the folder should be")

    with pytest.raises(StorageError) as raised:
        blobs.open(tmp_path / "blobs").put(b"x")

    assert raised.value.fix
    assert (tmp_path / "blobs").is_file()


def test_killed_writers_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    """Whatever the writer said it had put is there and whole, after kill -9 at a random moment."""
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(30)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        place = blobs.open(tmp_path)
        for line in said:
            if line.endswith("\n"):
                digest, number = line.split()
                assert place.get(ids.Digest(digest)) == b"%d" % int(number) * 1000
