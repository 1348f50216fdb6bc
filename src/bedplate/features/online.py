"""From feature tables to the online store, in the layout that predictors read (:mod:`bedplate.serve.state`)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from bedplate.online import Online
from bedplate.records import ViewRecord
from bedplate.serve.online_views import VIEWS, Published
from bedplate.serve.state import AS_OF, columns_of, packed

if TYPE_CHECKING:
    import pyarrow as pa


def at(table: "pa.Table", as_of: datetime) -> "pa.Table":
    """The rows of one moment; a time without a zone is UTC."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.equal(table[AS_OF], pa.scalar(_aware(as_of), table.schema.field(AS_OF).type)))


def materialise(
    online: Online,
    tables: Mapping[str, tuple[ViewRecord, "pa.Table"]],
    as_of: datetime,
    *,
    replace: bool = True,
) -> dict[str, int]:
    """Put the features of ``as_of`` into the online store of a use case, and what each view is beside them.

    ``tables`` maps a view to its declaration and feature table. With ``replace`` nothing of another moment is left;
    without, entities that are not in the tables keep what they have. Returns the number of values by view.

    Raises:
        InputError: an entity column does not hold whole numbers.
    """
    counts = {}
    for name, (declared, table) in tables.items():
        items = list(packed(at(table, as_of), declared.entity))
        columns = columns_of(table, declared.entity)
        about = Published(columns=columns, declared=declared, as_of=_aware(as_of).isoformat())
        online.put_many(name, items, replace=replace)
        online.put_many(VIEWS, [(name.encode(), msgspec.json.encode(about))])
        counts[name] = len(items)
    return counts


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
