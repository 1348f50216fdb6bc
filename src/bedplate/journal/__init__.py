"""Append-only segment files: the prediction log, the ingestion log.

A *durable* append returns when the record is on disk (group commit: one fsync serves all who wait). A *buffered* append
returns at once; its record reaches the disk within a second, and is not acknowledged as recorded. Every writer has its
own segment, so replicas share a folder. A segment is sealed by size, by age and on close; only then has it a digest.

:mod:`.format` says what the bytes mean, :mod:`.writer` writes them, :mod:`.segments` finds, reads and recovers them.
"""

from bedplate.journal.segments import Segment, read, recover, segments
from bedplate.journal.writer import Mode, Writer

__all__ = ["Mode", "Segment", "Writer", "read", "recover", "segments"]
