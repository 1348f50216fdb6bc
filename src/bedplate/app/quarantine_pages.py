"""What the page of a quarantine shows: why rows were set aside, the rows as the reader may see them, the way back."""

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from bedplate.app import queries, tables
from bedplate.app.table_pages import QUARANTINE
from bedplate.app.table_reports import TableRows, TableView
from bedplate.errors import BedplateError
from bedplate.identity import Principal, policy_principal

if TYPE_CHECKING:
    from bedplate.app.system import System

LOOKED = tables.MOST_ROWS
"""Rows that reasons are counted over at most: a page does not read a whole table."""
SHOWN = 50


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why rows were set aside: the rules that they broke, in words, and how many of those looked at."""

    rules: tuple[str, ...]
    text: str
    rows: int


class QuarantinePage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a data set that its contract rejected, as one reader may see them.

    ``rows`` is None where none may be seen; ``refused`` says why. ``looked`` rows were counted, all where not ``more``.
    ``no_replay`` says why its rows cannot be replayed; empty where they can. ``masks`` are those on columns of it.
    """

    use_case: str
    dataset: str
    view: TableView
    reasons: tuple[Reason, ...] = ()
    rows: TableRows | None = None
    looked: int = 0
    more: bool = False
    refused: BedplateError | None = None
    no_replay: str = ""
    masks: Mapping[str, str] = {}


def page(system: "System", principal: Principal, use_case: str, dataset: str) -> QuarantinePage:
    """The quarantine of a data set. The rows are read for the purpose of the use case; the ledger says so.

    Raises:
        DeniedError: policy does not let them know of it.
        NotFoundError: nothing was set aside.
    """
    from bedplate.data.ingest import table_name

    name = f"{table_name(use_case, dataset)}{QUARANTINE}"
    found = QuarantinePage(
        use_case=use_case,
        dataset=dataset,
        view=tables.show(system, principal, name),
        no_replay=_no_replay(system, use_case, dataset),
    )
    try:
        rows = tables.read(system, principal, name, limit=LOOKED)
    except BedplateError as error:
        return msgspec.structs.replace(found, refused=error)
    return msgspec.structs.replace(
        found,
        reasons=_reasons(rows),
        rows=msgspec.structs.replace(rows, rows=tuple(islice(rows.rows, SHOWN))),
        looked=len(rows.rows),
        more=rows.more,
        masks=tables.seen(system, policy_principal(principal), system.tables.version(name, rows.version)).columns,
    )


def _reasons(rows: TableRows) -> tuple[Reason, ...]:
    """The reasons, the most frequent first; none where the reader may not see them."""
    if not {"_rules", "_reasons"} <= {*rows.columns}:
        return ()
    rules, texts = rows.columns.index("_rules"), rows.columns.index("_reasons")
    counted = Counter((tuple(row[rules] or ()), row[texts] or "") for row in rows.rows)
    return tuple(Reason(rules=key[0], text=key[1], rows=count) for key, count in counted.most_common())


def _no_replay(system: "System", use_case: str, dataset: str) -> str:
    try:
        data = queries.loaded(system.store, use_case).use_case.data.get(dataset)
    except BedplateError as error:
        return error.message
    if data is None:
        return f"the use case has no data set {dataset} any more"
    if data.incremental is None:
        return f"the data set {dataset} is read whole each time: the next run judges its rows anew, by its contract"
    return ""
