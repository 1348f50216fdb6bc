"""After a writer was killed: nothing of what it was given is lost, and nothing stays that nobody was told of."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from bedplate.journal import backlog as backlogs
from bedplate.journal import format as fmt
from bedplate.journal.segments import read, sync_folder
from bedplate.journal.writer import OpenSegment


def rescue(folder: Path, backlog: int, void: Callable[[bytes], bool]) -> int:
    """Write what a killed writer was given and did not write; gives how many records that were.

    ``backlog`` is the descriptor of its memory. Records that are ``void`` are left out, and taken out of the segment
    that it had open.

    Raises:
        IntegrityError: its segment is not what was sealed.
        OSError: the disk refuses.
    """
    segment, before, given = backlogs.left(backlog)
    path = folder / f"{segment}{fmt.OPEN}"
    with _held(path) as held:
        there: list[bytes] = []
        if segment:
            with contextlib.suppress(FileNotFoundError):  # it held nothing, or was sealed and taken away
                there = list(read(path))
        written = set(there[before:])
        late = [record for record in given if record not in written and not void(record)]
        kept = [record for record in there if not void(record)]
        anew = held and len(kept) < len(there)
        if records := [*kept, *late] if anew else late:
            made = OpenSegment(folder)
            made.write(records)
            made.seal()
        if anew:
            path.unlink()
            sync_folder(folder)
    return len(late)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Keep others from sealing an open segment; whether it is there, and nobody does so at this moment."""
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield path.exists()
