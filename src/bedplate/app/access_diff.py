"""What a change of policies, or of what a use case says about its rows, lets whom see more or less of. Changes nothing.

Everybody who can come in, and the flow, is held against every table that the change is about: what they see of its
newest version before and after. Where it is not the same rows, the rows are counted.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bedplate import usecase
from bedplate.app import access, checking, policies
from bedplate.app.table_reports import AccessChange, AccessDiff
from bedplate.errors import InputError, NotFoundError
from bedplate.identity import Principal, policy_principal
from bedplate.policy import values as policy
from bedplate.policy.values import FLOW
from bedplate.records import Governance, TableVersion
from bedplate.usecase import Loaded

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.data.reads import View
    from bedplate.policy.filters import Condition
    from bedplate.policy.policies import InForce, Policies

_MOST_COMPARED = 20_000
"""How many people are held against a table at most, over all tables: some seconds."""
_NOT_AT_ALL = "not at all"
_AS_IT_IS = "it is"


class _Rules(NamedTuple):
    """By what somebody sees a table: None where its use case was never checked, so that nothing is seen."""

    governance: Governance | None
    policies: "Policies | InForce"


def of_policies(system: "System", principal: Principal, text: str, *, where: str = "policy") -> AccessDiff:
    """What adding the policies of a text would change, those of the same ids replaced.

    Raises:
        DeniedError: policy does not let this person administer the home.
        InputError: the text cannot be used.
    """
    access.demand(system, principal, "administer", policy.HOME)
    after = policies.planned(system, text, where)
    tables = []
    for version in _tables(system):
        governance = _in_force(system, access.use_case_of(version.name))
        tables.append((version, _Rules(governance, system.policies), _Rules(governance, after)))
    return _compared(system, tables)


def of_use_case(system: "System", principal: Principal, path: str) -> AccessDiff:
    """What checking a use case as it stands in its folder now would change.

    Raises:
        DeniedError: policy does not let this person administer the home.
        UseCaseError, ContractError, InputError: the use case cannot be used.
    """
    access.demand(system, principal, "administer", policy.HOME)
    loaded: Loaded = usecase.load(Path(path))
    checking.sensitive(loaded)
    checking.masks(loaded)
    checking.row_policies(loaded)
    name = loaded.use_case.name
    rules = (_Rules(_in_force(system, name), system.policies), _Rules(access.governance_of(loaded), system.policies))
    return _compared(system, [(version, *rules) for version in _tables(system, name)])


def _tables(system: "System", use_case: str | None = None) -> Iterator[TableVersion]:
    for name in system.tables.names():
        if use_case is None or access.use_case_of(name) == use_case:
            try:
                yield system.tables.current(name)
            except NotFoundError:
                continue  # its first write has not ended, or never will


def _in_force(system: "System", use_case: str) -> Governance | None:
    with system.store.read() as tx:
        try:
            return access.governance(tx, use_case)
        except InputError:
            return None


def _compared(system: "System", tables: list[tuple[TableVersion, _Rules, _Rules]]) -> AccessDiff:
    with system.store.read() as tx:
        people = [FLOW, *(policy_principal(row) for row in tx.principals.list() if row.disabled is None)]

    @lru_cache(maxsize=1024)
    def count(version: TableVersion, condition: "Condition") -> int:
        from bedplate.data import predicates

        return int(system.tables.dataset(version).count_rows(filter=predicates.arrow(condition)))

    found: list[AccessChange] = []
    for asked, (version, before, after) in enumerate(tables):
        if (asked + 1) * len(people) > _MOST_COMPARED:
            return AccessDiff(changes=tuple(found), compared_all=False)
        for who in people:
            was, now = (_seen(system, who, version, rules) for rules in (before, after))
            change = _change(who, version, was, now, count)
            if change is not None:
                found.append(change)
    return AccessDiff(changes=tuple(found), compared_all=True)


def _seen(system: "System", who: policy.Principal, version: TableVersion, rules: _Rules) -> "View | None":
    if rules.governance is None:
        return None
    use_case = access.use_case_of(version.name)
    view = access.reader_for(system, use_case, rules.governance, who, policies=rules.policies).explain(version)
    return view if view.allowed else None


def _change(
    who: policy.Principal,
    version: TableVersion,
    was: "View | None",
    now: "View | None",
    count: "Callable[[TableVersion, Condition], int]",
) -> AccessChange | None:
    from bedplate.policy.filters import All, Not

    seen = now or was
    if seen is None:
        return None
    rows = (_rows(was), _rows(now))
    masks = {name: (_mask(was, name), _mask(now, name)) for name in seen.columns}
    columns = {name: pair for name, pair in masks.items() if pair[0] != pair[1]}
    more, fewer = (count(version, All((a, Not(b)))) if a != b else 0 for a, b in (rows[::-1], rows))
    if not (columns or more or fewer):
        return None
    return AccessChange(
        who=who.name,
        table=version.name,
        version=version.version,
        may_read=(was is not None, now is not None),
        columns=columns,
        rows_more=more,
        rows_fewer=fewer,
    )


def _rows(view: "View | None") -> "Condition":
    from bedplate.policy.filters import NOTHING, Constant

    if view is None:
        return NOTHING
    return Constant(True) if view.rows is None else view.rows.condition


def _mask(view: "View | None", column: str) -> str:
    return _NOT_AT_ALL if view is None else view.columns[column] or _AS_IT_IS
