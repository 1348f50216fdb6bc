"""What holds for artifacts in a folder only."""

import os
import resource
import shutil
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
    data = b"%d" % i * 1000
    digest = place.put(data) if i % 2 else place.put_pieces([data[:7], data[7:]])
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


@pytest.mark.parametrize("most", [1 << 20, 40 << 20])
def test_a_disk_that_fills_up_on_the_way_leaves_nothing(tmp_path: Path, most: int) -> None:
    """Content that does not fit is an error that says so; the same place takes the next one."""
    place = blobs.open(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with pytest.raises(StorageError, match="File too large") as raised:
            place.put_pieces(bytes(1 << 20) for _ in range(50))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert raised.value.fix
    assert list(tmp_path.iterdir()) == []
    assert place.get(place.put_pieces([b"fits"])) == b"fits"


_ORDER = """
import os, sys
from pathlib import Path
from bedplate import blobs
place = blobs.open(Path(sys.argv[1]))
os.write(2, b"BEGIN")
place.put_pieces([b"a" * 300_000, b"b"])
os.write(2, b"ACK")
"""


def test_content_and_folder_are_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    """The file is synced before it gets its name, the name before the call returns."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "strace"
    (tmp_path / "blobs").mkdir()
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,write"
    command = ["strace", "-f", "-y", "-e", calls, "-o", str(log), sys.executable, "-c", _ORDER, str(tmp_path / "blobs")]
    subprocess.run(command, check=True, capture_output=True)

    text = log.read_text()
    after = text[text.index('"BEGIN"') : text.index('"ACK"')]
    file, name, folder = after.index("fsync("), after.index("rename"), after.rindex("fsync(")
    assert file < name < folder
    assert ".incoming." in after[file : after.index("\n", file)]
