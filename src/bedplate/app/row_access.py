"""Who sees which rows: the row policies that a use case names by data set, held against the table that is read.

The rows of a data set go out as its policies say, in every version. Two kinds of tables hold rows that the policies
cannot judge any more, so they are shown as a whole or not at all:

- rows that were set aside broke their contract: they are shown to whom the policies keep nothing in;
- what was made of rows (features, logged predictions) is shown to whom the policies let out the same rows as to the
  flow that made it; what somebody else made of them (scores), to whom they keep nothing in.
"""

from typing import TYPE_CHECKING

from bedplate.errors import InputError
from bedplate.policy import derived
from bedplate.policy.values import FLOW, Principal
from bedplate.records import Governance, RowAccess
from bedplate.usecase import Loaded

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.policy.filters import RowPolicies

_TYPES = {"integer": "Long", "string": "String", "boolean": "Bool"}
"""Cedar's types of the logical types that row policies can speak of."""
_LARGEST = 1 << 18
_QUARANTINE = ".quarantine"


def read(loaded: Loaded) -> dict[str, RowAccess]:
    """The row policies that a use case names, by data set, as they stand in its folder now.

    Raises:
        ContractError: the contract of such a data set cannot be used.
        InputError: a file cannot be read, or is too large or no text.
    """
    from bedplate.data import contracts, deidentify

    found = {}
    safe = loaded.use_case.governance.deidentify != "none"
    for name, path in loaded.use_case.governance.rows.items():
        data = loaded.use_case.data[name]
        model = contracts.load(loaded.folder / data.contract).model(name)
        kept = {rule.column for rule in model.rows if rule.check == "required" and rule.severity == "info"}
        held = deidentify.kept(model) if safe and data.deidentify is None else {c.name for c in model.columns}
        columns = {c.name: _TYPES[c.logical_type] for c in model.columns if c.logical_type in _TYPES and c.name in held}
        required = tuple(c.name for c in model.columns if c.required and c.name in columns and c.name not in kept)
        text = _text(loaded, path)
        found[name] = RowAccess(text=text, columns=columns, required=required)  # type: ignore[arg-type]
    return found


def _text(loaded: Loaded, path: str) -> str:
    where = loaded.folder / path
    try:
        with where.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise InputError(f"the file is larger than {_LARGEST >> 10} KiB", where=str(where), fix="write fewer")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("the file is not UTF-8 text", where=str(where), fix="save it as UTF-8") from error
    except OSError as error:
        raise InputError(
            f"the file cannot be read: {error.strerror}", where=str(where), fix="check the path"
        ) from error


def check(rule: RowAccess, purpose: str, where: str) -> None:
    """Refuse row policies that cannot be used, or let no row out to the flow: nothing could be made of the data.

    Raises:
        InputError: these are such.
        UnavailableError: there is no process to parse them.
    """
    from bedplate.policy import untrusted
    from bedplate.policy.filters import NOTHING

    try:
        policies = untrusted.load_rows(rule.text, derived.as_contracted(rule))
    except InputError as error:
        error.where = where
        raise
    if policies.filter(FLOW, purpose).condition == NOTHING:
        raise InputError(
            f"these row policies let no row out to the flow for {purpose!r}",
            where=where,
            fix='add: permit (principal == Service::"flow", action, resource);',
        )


def of(
    use_case: str, governance: Governance, principal: Principal, purpose: str, table: str, columns: "pa.Schema"
) -> "tuple[RowPolicies | None, str]":
    """The row policies on a version of ``table`` with these columns (None: all rows go out), or why none goes out."""
    from bedplate.data import predicates

    if not governance.rows:
        return None, ""
    dataset = table.removeprefix(f"{use_case}.")
    if dataset == table:
        return None, derived.why_not(governance, principal, purpose, scores=table.startswith(f"{use_case}/scores/"))
    rule = governance.rows.get(dataset)
    if rule is not None:
        found = predicates.attributes(columns, rule.required)
        try:
            return derived.loaded(rule.text, tuple(found.items())), ""
        except InputError as error:
            return None, f"its row policies do not fit the columns of this version: {error.message}"
    rule = governance.rows.get(dataset.removesuffix(_QUARANTINE))
    if rule is not None and not derived.filter_of(rule, principal, purpose).everything:
        return None, "rows that were set aside go out only to whom the row policies let every row out"
    return None, ""


def keeps_in(governance: Governance, principal: Principal) -> tuple[str, ...]:
    """The data sets of which some rows are kept in from somebody, for the purpose of their use case."""
    return tuple(
        name
        for name, rule in governance.rows.items()
        if not derived.filter_of(rule, principal, governance.purpose).everything
    )
