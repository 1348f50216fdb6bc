"""What the process that parses a source tells its owner: chunks of rows, and lines that are none."""

from typing import TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

MAX_ROWS = 1 << 30
"""Bytes of the largest piece of rows, and of one of the slots that are written in turn."""
SLOTS = 2
"""So many pieces can lie in the shared memory: one is read while the next is written."""
ROW = "_bedplate_row"
"""The column that carries row numbers which do not follow one another."""


Numbers: TypeAlias = range | np.ndarray
"""Rising numbers of rows; a range where they follow one another: nobody looks at them unless a row is set aside."""


class Chunk(msgspec.Struct, frozen=True):
    """Some rows of one file. ``rows`` are their numbers in it, from 1, a CSV header not counted."""

    file: str
    table: pa.Table
    rows: Numbers


class BadLine(msgspec.Struct, frozen=True):
    """What stands in a file where a row should be, and is none."""

    file: str
    row: int
    text: str
    reason: str


class Told(msgspec.Struct, frozen=True):
    """Rows that lie in the next slot, ``size`` bytes of Arrow's stream format; or a bad line instead of rows."""

    file: str = ""
    first: int = 0
    """The number of the first of them in their file."""
    size: int = 0
    bad: BadLine | None = None
