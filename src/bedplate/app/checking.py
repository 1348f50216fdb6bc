"""What can be said about a use case from its file and its data alone, without a home."""

from pathlib import Path

import msgspec

from bedplate import usecase
from bedplate.app.read_models import CheckReport, ContractTestReport
from bedplate.errors import NotFoundError
from bedplate.retrain.conditions import parse, parse_worth


def check(path: Path) -> CheckReport:
    """Read and check a use case, its contracts included.

    Raises:
        UseCaseError: with every problem of the file.
        ContractError: a contract is not one.
    """
    from bedplate.data import contracts

    loaded = usecase.load(path)
    use_case = loaded.use_case
    for condition in use_case.retrain.when:
        parse(condition)
    parse_worth(use_case.retrain.if_)
    for data in use_case.data.values():
        contracts.load(loaded.folder / data.contract)
    return CheckReport(
        name=use_case.name,
        path=str(loaded.path),
        digest=loaded.digest,
        workload=use_case.workload.kind,
        data=tuple(use_case.data),
        features=use_case.features,
        gates=use_case.release.gates,
    )


def contract_test(path: Path, dataset: str | None) -> ContractTestReport:
    raise NotImplementedError


_ = (msgspec, NotFoundError)
