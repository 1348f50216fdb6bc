"""Use cases that de-identify: what each ingestion begins with, what their contracts must agree on, and what may be
logged of what their models are asked.

De-identification reaches rows that come in, never those that are there. So a use case says in a fact how its rows land,
before the first does; to turn it on where anything lies already is refused, whichever run put it there.
"""

from typing import TYPE_CHECKING

import msgspec

from bedplate import clock
from bedplate.app import access
from bedplate.errors import ContractError, InputError, NotFoundError
from bedplate.identifiers import Kept, LogRules
from bedplate.usecase import Loaded

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.data.model import Column

LANDING = "landing"
"""The kind of the fact that says how rows of a use case land."""


class Landing(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``landing``: since ``time`` rows land under this profile, and before none did if it is not ``none``."""

    profile: str
    time: str


def nothing_is_open(system: "System", loaded: Loaded) -> None:
    """Refuse to de-identify beside rows that landed as they came.

    Rows that were set aside count, also those of a run that failed, and so do logged predictions.

    Raises:
        InputError: there are such.
    """
    case = loaded.use_case
    if case.governance.deidentify == "none" or _landing(system, case.name) == case.governance.deidentify:
        return
    from bedplate.data import ingest

    rows = [ingest.table_name(case.name, name) for name in case.data]
    places = (*rows, *(f"{name}.quarantine" for name in rows), access.predictions_table(case.name))
    open_ = [table for table in places if _holds(system, table)]
    if open_:
        raise InputError(
            f"{', '.join(open_)} hold rows as they came, and de-identification does not reach those",
            where="governance.deidentify",
            fix="give the use case another name, or begin in a new home",
        )


def begin(system: "System", loaded: Loaded) -> bytes | None:
    """What an ingestion begins with: how rows land from now on is written down before the first does.

    Returns the key of codes where the use case de-identifies.

    Raises:
        InputError: as :func:`nothing_is_open`.
    """
    nothing_is_open(system, loaded)
    name, profile = loaded.use_case.name, loaded.use_case.governance.deidentify
    if (_landing(system, name) or "none") != profile:
        with system.store.transaction() as tx:
            tx.facts.put(LANDING, name, Landing(profile=profile, time=clock.timestamp()))
    return None if profile == "none" else access.mask_key(system, name)


def _landing(system: "System", use_case: str) -> str | None:
    with system.store.read() as tx:
        fact = tx.facts.latest(use_case, LANDING)
    return None if fact is None else msgspec.convert(fact.body, Landing).profile


def _holds(system: "System", table: str) -> bool:
    try:
        system.tables.current(table)
    except NotFoundError:
        return False
    return True


def check_references(loaded: Loaded) -> None:
    """Refuse references between columns that do not land alike: a code stands in no column of numbers.

    Raises:
        ContractError: there are such.
    """
    from bedplate.data import contracts, deidentify

    models = {
        name: (contract := contracts.load(loaded.folder / data.contract), contract.model(name))
        for name, data in loaded.use_case.data.items()
    }
    for name, (contract, model) in models.items():
        for rule in model.references:
            if rule.table not in models:
                continue
            other = models[rule.table][1]
            for column, to in zip(rule.columns, rule.to, strict=True):
                if (column in deidentify.coded(model)) != (to in deidentify.coded(other)) or (
                    (column in deidentify.kept(model)) != (to in deidentify.kept(other))
                ):
                    raise ContractError(
                        f"{name}.{column} refers to {rule.table}.{to}, and the two do not land alike",
                        where=contract.path,
                        fix="give both safe-harbor:none, or a class and safe-harbor:code",
                    )


def log_rules(system: "System", loaded: Loaded) -> LogRules | None:
    """What the prediction log may hold, by the columns of all contracts; None where the use case does not de-identify.

    Of a name that two contracts tell differently about, nothing.
    """
    from bedplate.data import contracts

    if loaded.use_case.governance.deidentify == "none":
        return None
    found: dict[str, set[Kept]] = {}
    for name, data in loaded.use_case.data.items():
        for column in contracts.load(loaded.folder / data.contract).model(name).columns:
            found.setdefault(column.name, set()).add(_kept(column))
    columns: dict[str, Kept] = {
        name: next(iter(rules)) if len(rules) == 1 else "nothing" for name, rules in sorted(found.items())
    }
    return LogRules(columns=columns, secret=access.secret_of(system))


def _kept(column: "Column") -> Kept:
    """What is logged of a column: as it lands, and nothing of a date or a text."""
    from bedplate.data import deidentify

    if deidentify.is_coded(column):
        return "code"
    kinds: dict[str | None, Kept] = {"none": "value", "zip": "zip", "age": "age"}
    return kinds.get(deidentify.class_of(column), "nothing")
