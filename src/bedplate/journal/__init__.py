"""Append-only segment files: the prediction log, the ingestion log.

A *durable* append returns when its record is on disk (group commit: one fsync serves all who wait). A *buffered*
append returns at once; its record outlives the process within some hundredths of a second and the machine within a
second, and is not acknowledged as recorded. Every writer has its own segment, so replicas share a folder. A segment
is sealed by size, by age and on close; only then has it a digest.

:mod:`.format` says what the bytes mean, :mod:`.writer` writes them, :mod:`.segments` finds, reads and recovers them.
:mod:`.predictions` says what a record of the prediction log holds. :mod:`.backlog` outlives a writer that is killed,
and :mod:`.rescue` writes what was left in it.
"""

from bedplate.journal.backlog import Backlog
from bedplate.journal.rescue import rescue
from bedplate.journal.segments import Segment, read, recover, remove, segments
from bedplate.journal.writer import Mode, Writer

__all__ = ["Backlog", "Mode", "Segment", "Writer", "read", "recover", "remove", "rescue", "segments"]
