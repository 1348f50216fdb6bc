"""After a writer was killed: nothing of what it was given is lost, and nothing stays that nobody was told of."""

import contextlib
import fcntl
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from bedplate.journal import backlog as backlogs
from bedplate.journal import format as fmt
from bedplate.journal.segments import read, sync_folder
from bedplate.journal.writer import OpenSegment


def rescue(folder: Path, backlog: int, name: Callable[[bytes], str], void: Container[str]) -> int:
    """Write what a killed writer was given and did not write, and the drafts of what was not over; gives how many
    records that were.

    ``backlog`` is the descriptor of its memory. Records whose ``name`` is ``void`` are left out, and taken out of the
    segment that it had open. A draft of what is on record is none any more; of two of one name the longer is newer.

    Raises:
        IntegrityError: its segment is not what was sealed.
        OSError: the disk refuses.
    """
    segment, before, given, drafts = backlogs.left(backlog)
    path = folder / f"{segment}{fmt.OPEN}"
    with _held(path) as held:
        there: list[bytes] = []
        if segment:
            with contextlib.suppress(FileNotFoundError):  # it held nothing, or was sealed and taken away
                there = list(read(path))
        written = set(there[before:])
        late = [record for record in given if record not in written and name(record) not in void]
        kept = [record for record in there if name(record) not in void]
        if drafts:
            known = {name(record) for record in (*there, *given)}
            newest = {name(draft): draft for draft in sorted(drafts, key=len)}
            late += [draft for its, draft in newest.items() if its not in known]
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
