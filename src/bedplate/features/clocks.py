"""Times that name a zone are moments; times that name none are somebody's clock. The two are never compared in silence.

What is ours, the moments that features are computed for or were served at, is in UTC, and so is a clock beside it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bedplate.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def same(where: str, kinds: "Mapping[str, pa.DataType]") -> None:
    """Times of several tables, by name of the table, name a zone all of them, or none does. Days are no times.

    Raises:
        InputError: some do, some do not.
    """
    import pyarrow as pa

    found: dict[bool, str] = {}
    for name, kind in kinds.items():
        if pa.types.is_timestamp(kind):
            found.setdefault(bool(kind.tz), name)
    if len(found) > 1:
        raise InputError(
            f"times of {found[True]} name a zone, and those of {found[False]} name none",
            where=where,
            fix=f"say of which zone those of {found[False]} are: timezone and defaultTimezone in its contract",
        )
