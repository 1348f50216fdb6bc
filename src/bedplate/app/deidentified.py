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
from bedplate.usecase.types import DataSet

if TYPE_CHECKING:
    from bedplate.app.system import System
    from bedplate.data.model import Column

LANDING = "landing"
"""The kind of the fact that says how rows of a use case land."""


class Landing(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``landing``: since ``time`` rows of each data set land by these methods, and before none landed by less.

    A data set whose rows land as they come has none.
    """

    methods: dict[str, str]
    profile: str
    time: str


def methods(loaded: Loaded) -> dict[str, str]:
    """How each data set is de-identified, in words that are kept; empty where it is not."""
    case = loaded.use_case
    safe = case.governance.deidentify != "none"
    if not safe and all(data.deidentify is None for data in case.data.values()):
        return dict.fromkeys(case.data, "")
    from bedplate.data.ingest import method

    return {name: method(data, safe_harbor=safe) for name, data in case.data.items()}


def nothing_is_open(system: "System", loaded: Loaded) -> None:
    """Refuse to de-identify beside rows that landed with more in them.

    Rows that were set aside count, also those of a run that failed, and so do logged predictions.

    Raises:
        InputError: there are such.
    """
    case, now = loaded.use_case, methods(loaded)
    if not any(now.values()):
        return
    from bedplate.data import ingest

    before = _landing(system, case.name)
    rows = [ingest.table_name(case.name, name) for name in case.data if _less(before.methods.get(name, ""), now[name])]
    places = [*rows, *(f"{name}.quarantine" for name in rows)]
    if case.governance.deidentify not in ("none", before.profile):
        places.append(access.predictions_table(case.name))
    open_ = [table for table in places if _holds(system, table)]
    if open_:
        raise InputError(
            f"{', '.join(open_)} hold rows as they came, and de-identification does not reach those",
            where="governance.deidentify" if case.governance.deidentify != "none" else "data: deidentify",
            fix="give the use case another name, or begin in a new home",
        )


def begin(system: "System", loaded: Loaded) -> bytes | None:
    """What an ingestion begins with: how rows land from now on is written down before the first does.

    Returns the key of codes where anything is de-identified.

    Raises:
        InputError: as :func:`nothing_is_open`.
    """
    nothing_is_open(system, loaded)
    name, profile, now = loaded.use_case.name, loaded.use_case.governance.deidentify, methods(loaded)
    before = _landing(system, name)
    if (before.profile, before.methods) != (profile, {each: how for each, how in now.items() if how}):
        said = Landing(profile=profile, methods={each: how for each, how in now.items() if how}, time=clock.timestamp())
        with system.store.transaction() as tx:
            tx.facts.put(LANDING, name, said)
    return access.mask_key(system, name) if any(now.values()) else None


def _landing(system: "System", use_case: str) -> Landing:
    with system.store.read() as tx:
        fact = tx.facts.latest(use_case, LANDING)
    return Landing(methods={}, profile="none", time="") if fact is None else msgspec.convert(fact.body, Landing)


def _less(before: str, now: str) -> bool:
    """Whether what was done before leaves in what is taken out now: by Safe Harbor, or by the profile of a picture."""

    def parts(method: str) -> set[str]:
        return {part.split(" (")[0] for part in method.split("; ") if part}

    return not parts(before) >= parts(now)


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
    from bedplate.data import contracts

    found = {name: contracts.load(loaded.folder / data.contract) for name, data in loaded.use_case.data.items()}
    models = {name: contract.model(name) for name, contract in found.items()}
    landed = {name: {column.name: _lands(column, data) for column in models[name].columns}
              for name, data in loaded.use_case.data.items()}  # fmt: skip
    for name, model in models.items():
        contract = found[name]
        for rule in model.references:
            if rule.table not in models:
                continue
            for column, to in zip(rule.columns, rule.to, strict=True):
                if landed[name].get(column) != landed[rule.table].get(to):
                    raise ContractError(
                        f"{name}.{column} refers to {rule.table}.{to}, and the two do not land alike",
                        where=contract.path,
                        fix="give both safe-harbor:none, or a class and safe-harbor:code",
                    )


def _lands(column: "Column", data: DataSet) -> Kept:
    """What is kept of a column where it lands: of a picture that was de-identified, the patient's code."""
    from bedplate.data import deidentify_files

    if data.deidentify is not None:
        return "code" if column.name == deidentify_files.PATIENT else "nothing"
    return _kept(column)


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
            found.setdefault(column.name, set()).add(_lands(column, data))
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
