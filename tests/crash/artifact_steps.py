"""One change of artifacts in a process of its own, to be killed at a chosen call by :mod:`tests.crash.test_artifacts`.

``prepare`` makes a home with what is there before. Each other step makes one change, and says when it is acknowledged.
"""

import os
import signal
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bedplate import blobs, clock, store
from bedplate.ledger import Ledger, Signer
from bedplate.tracking.uploads import Part
from tests.tracking.conftest import WORKSPACE, Kept

START = datetime(2026, 1, 1, tzinfo=UTC)


def prepare(kept: Kept) -> None:
    """An artifact to replace, one to delete, an upload to complete, content to collect."""
    with clock.frozen(START):
        kept.put("r/old", b"old")
        kept.put("r/gone/a", b"gone a")
        kept.put("r/gone/b", b"gone b")
        kept.put("r/waste", b"waste")
        kept.delete("r/waste")
        upload = kept.uploads.begin(WORKSPACE, "r/big", 2, by=kept.ana).id
        for number in (1, 2):
            kept.part(upload, number, b"%d" % number * 1000)
    print(upload, flush=True)


def put(kept: Kept, upload: str) -> None:
    """Replace an artifact by large content."""
    kept.put("r/old", b"new" * 200_000)


def part(kept: Kept, upload: str) -> None:
    """Replace a part."""
    kept.part(upload, 2, b"two" * 200_000)


def complete(kept: Kept, upload: str) -> None:
    """Complete the upload."""
    with kept.store.read() as tx:
        parts = [Part(row.number, row.digest) for row in tx.uploads.parts(upload)]
    kept.uploads.complete(WORKSPACE, "r/big", upload, parts, by=kept.ana)


def delete(kept: Kept, upload: str) -> None:
    """Delete a folder."""
    kept.delete("r/gone")


def collect(kept: Kept, upload: str) -> None:
    """Remove content that nothing names."""
    with clock.frozen(START + timedelta(hours=25)):
        kept.contents.collect(timedelta(days=1))


def open_home(root: Path) -> Kept:
    """The home, as after a restart."""
    opened = store.open(root / "bedplate.db")
    ledger = Ledger(opened, root / "ledger", Signer((root / "ledger.key").read_text()))
    return Kept(opened, blobs.open(root / "blobs"), ledger)


if __name__ == "__main__":
    root, step, *more = Path(sys.argv[1]), *sys.argv[2:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # of every thread
    kept = open_home(root)
    if step == "prepare":
        with closing(kept.store):
            prepare(kept)
    else:
        print("READY", flush=True)
        signal.sigwait({signal.SIGUSR1})  # whoever is to kill this process has begun to watch it
        globals()[step](kept, more[0])
        os.write(1, b"DONE\n")
        os._exit(0)
