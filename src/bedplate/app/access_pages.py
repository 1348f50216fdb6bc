"""What the access explorer shows: who sees what of a table and why, and what a change of policies would alter."""

from typing import TYPE_CHECKING

import msgspec

from bedplate.app import table_pages, tables
from bedplate.app.table_reports import AccessDiff, AccessView
from bedplate.errors import BedplateError
from bedplate.identity import Principal

if TYPE_CHECKING:
    from bedplate.app.system import System


class Explorer(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, what can be asked about, and the answer: ``view``, ``diff``, or the ``problem`` with it."""

    people: tuple[str, ...]
    tables: tuple[str, ...]
    use_cases: tuple[str, ...]
    who: str = ""
    table: str = ""
    purpose: str = ""
    policies: str = ""
    use_case: str = ""
    view: AccessView | None = None
    diff: AccessDiff | None = None
    problem: BedplateError | None = None


def explorer(system: "System", principal: Principal, *, who: str = "", table: str = "", purpose: str = "") -> Explorer:
    """The explorer; where somebody and a table are named, what they see and why.

    Raises:
        DeniedError: policy does not let the asking person administer the home.
    """
    with system.store.read() as tx:
        use_cases = tuple(sorted(row.name for row in tx.use_cases.list()))
    found = Explorer(
        people=tuple(table_pages.people(system)),
        tables=tuple(table_pages.names(system, principal)),
        use_cases=use_cases,
        who=who,
        table=table,
        purpose=purpose,
    )
    if not (found.who and found.table):
        return found
    try:
        view = tables.explain(system, principal, found.who, found.table, found.purpose or None)
    except BedplateError as error:
        return msgspec.structs.replace(found, problem=error)
    return msgspec.structs.replace(found, view=view)
