"""What can be said about a use case from its file and its data alone, without a home."""

from pathlib import Path

from bedplate import usecase
from bedplate.app import declarations, inputs, residency
from bedplate.app.read_models import CheckReport
from bedplate.app.table_reports import ContractResult, ContractTestReport
from bedplate.data.parsing.template import TEMPLATE
from bedplate.errors import InputError, NotFoundError
from bedplate.policy.residency import refusal
from bedplate.retrain.conditions import parse, parse_worth
from bedplate.settings import Settings
from bedplate.usecase import Loaded
from bedplate.usecase.problems import nearest


def check(path: Path, settings: Settings) -> CheckReport:
    """Read and check a use case, its contracts and views in SQL included.

    Whether its rows may lie in the home of these settings is a note: the file may be meant for another one.

    Raises:
        UseCaseError: with every problem of the file.
        ContractError: a contract is not one.
        InputError: a file of SQL does not say what a feature view is.
    """
    from bedplate.data import contracts

    loaded = usecase.load(path)
    use_case = loaded.use_case
    for condition in use_case.retrain.when:
        parse(condition)
    parse_worth(use_case.retrain.if_)
    for data in use_case.data.values():
        contracts.load(loaded.folder / data.contract)
    sensitive(loaded)
    masks(loaded)
    deidentified(loaded)
    row_policies(loaded)
    if use_case.features:
        declarations.in_sql(loaded)
    refused = refusal(use_case.requirements.residency, residency.of_use_case(settings, use_case))
    notes = () if refused is None else (f"a run here would be refused: {refused.reason} ({refused.fix})",)
    return CheckReport(
        name=use_case.name,
        path=str(loaded.path),
        digest=loaded.digest,
        workload=use_case.workload.kind,
        data=tuple(use_case.data),
        features=use_case.features,
        gates=use_case.release.gates,
        notes=notes,
    )


def sensitive(loaded: Loaded) -> None:
    """Refuse a sensitive column that no contract has: a mistyped name would leave its column open.

    Raises:
        InputError: there is one.
        ContractError: a contract is not one.
    """
    from bedplate.data import contracts

    named = loaded.use_case.governance.sensitive
    if not named:
        return
    known: dict[str, None] = {}
    for data in loaded.use_case.data.values():
        for model in contracts.load(loaded.folder / data.contract).models:
            known |= dict.fromkeys(column.name for column in model.columns)
    for column in named:
        if column not in known:
            like = nearest(column, known)
            raise InputError(
                f"governance.sensitive names {column!r}, which is a column of no contract",
                where=f"{loaded.path}:{loaded.line('governance', 'sensitive')}",
                fix=f"did you mean {like!r}?" if like else "name columns of the contracts",
            )


def masks(loaded: Loaded) -> None:
    """Refuse masks that could not be put on, or a tag that no column bears: a mistyped one would leave columns open.

    Raises:
        InputError: there are such.
        ContractError: a contract is not one.
    """
    from bedplate.data import contracts
    from bedplate.data.masks import Mask

    governance = loaded.use_case.governance
    borne: dict[str, None] = {}
    for data in loaded.use_case.data.values() if governance.masks else ():
        for model in contracts.load(loaded.folder / data.contract).models:
            borne |= dict.fromkeys(mark for column in model.columns for mark in column.marks)
    for tag, rule in governance.masks.items():
        where = f"{loaded.path}:{loaded.line('governance', 'masks')}"
        if tag not in borne:
            like = nearest(tag, borne)
            raise InputError(
                f"governance.masks names the tag {tag!r}, which no column of a contract bears",
                where=where,
                fix=f"did you mean {like!r}?" if like else "write tags: [...] at columns of the contracts",
            )
        try:
            Mask.of(rule)
        except InputError as error:
            error.where = where
            raise
        if rule.kind == "noise" and not rule.epsilon <= governance.privacy_budget < float("inf"):
            raise InputError(
                f"the mask of {tag!r} spends {rule.epsilon:g} at each read, and the budget is "
                f"{governance.privacy_budget:g}",
                where=where,
                fix="write governance.privacy_budget: what each person may spend for each purpose",
            )


def deidentified(loaded: Loaded) -> None:
    """Refuse de-identification of contracts that do not say what identifies somebody.

    Raises:
        ContractError: there are such.
    """
    from bedplate.app.deidentified import check_references
    from bedplate.data import contracts
    from bedplate.data.ingest import deidentifiable

    harbor = loaded.use_case.governance.deidentify != "none"
    for name, data in loaded.use_case.data.items():
        deidentifiable(contracts.load(loaded.folder / data.contract), name, data, safe_harbor=harbor)
    if harbor:
        check_references(loaded)


def row_policies(loaded: Loaded) -> None:
    """Refuse row policies that do not fit the contract, or that let no row out to the flow.

    Raises:
        InputError: there are such.
    """
    from bedplate.app import row_access

    for name, rule in row_access.read(loaded).items():
        where = f"{loaded.folder / loaded.use_case.governance.rows[name]}"
        row_access.check(rule, loaded.use_case.governance.purpose, where)


def contract_infer(source: Path, settings: Settings, name: str | None = None) -> str:
    """A first contract for a file of rows, named after it unless ``name`` says otherwise.

    Raises:
        ContractError, InputError: the file is of no known kind, cannot be read, or holds no rows.
        NotFoundError: there is no such file.
    """
    from bedplate.data import infer

    kinds: dict[str, infer.FileKind] = {
        ".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".arrow": "arrow",
        ".feather": "arrow", ".arrows": "arrow",
    }  # fmt: skip
    kind = kinds.get(source.suffix.lower())
    if not source.is_file():
        raise NotFoundError("there is no such file", where=str(source), fix="name a file of rows")
    if kind is None:
        raise InputError(
            "its kind cannot be told from its name", where=str(source), fix="use .parquet, .csv, .json or .arrow"
        )
    return infer.infer(source, kind, name or source.stem, inputs.reach(settings))


def contract_test(path: Path, settings: Settings) -> ContractTestReport:
    """Hold every source of a use case against its contract, keeping no row.

    Raises:
        ContractError: a contract is wrong, or a source has other columns.
    """
    TEMPLATE.warm()  # while this process loads its half
    from bedplate.data import contracts, ingest

    loaded = usecase.load(path)
    results = []
    known = {name: (contracts.load(loaded.folder / data.contract), data) for name, data in loaded.use_case.data.items()}
    for name, (contract, data) in known.items():
        reach = inputs.reach(settings, loaded.use_case)
        outcomes = ingest.test(contract, name, data, loaded.folder, reach, known)
        results.append(ContractResult(dataset=name, contract=contract.id, outcomes=outcomes))
    passed = not any(o.failed and o.severity == "error" for result in results for o in result.outcomes)
    return ContractTestReport(use_case=loaded.use_case.name, passed=passed, results=tuple(results))
