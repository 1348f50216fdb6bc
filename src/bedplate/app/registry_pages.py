"""What the pages of the registry show: models, their versions with what they rest on, and what happened to them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from bedplate.app.tracking_pages import PAGE, Problem, Query, problem_of
from bedplate.errors import BedplateError, NotFoundError
from bedplate.ids import Digest
from bedplate.records import Bundle, GateReport
from bedplate.release import environments as stages
from bedplate.release import past, requests, searching
from bedplate.release.approval import Vote
from bedplate.release.changes import version as find_version
from bedplate.release.checks import APPROVERS
from bedplate.release.environments import NONE, STAGES
from bedplate.release.foreign import Findings
from bedplate.release.searching import Tagged, Whole
from bedplate.store import Store, Transaction
from bedplate.store.experiments import ExperimentRow
from bedplate.store.history import HistoryRow
from bedplate.store.models import ModelRow, VersionRow
from bedplate.store.runs import RunRow
from bedplate.store.workspaces import DEFAULT
from bedplate.tracking.training import RUN_TAG

HISTORY = 100
"""Rows of the history that stand on a page."""
_POINTERS = 1_000


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the registered models of a workspace."""

    workspace: str
    query: Query
    models: tuple[Whole, ...] = ()
    next_page: str | None = None
    problem: Problem | None = None


class Happened(msgspec.Struct, frozen=True):
    """One row of the history, with the name of who did it."""

    row: HistoryRow
    by: str


class Pointer(msgspec.Struct, frozen=True):
    """Something that a version can be live under: a stage, an alias, or the environment that it was served in."""

    by: past.By
    value: str

    @property
    def text(self) -> str:
        """As the address of a page says it."""
        return f"{self.by}:{self.value}"


class LiveThen(msgspec.Struct, frozen=True):
    """The answer to "which version was live then": ``found`` is None where no model had the name."""

    at: int
    pointer: Pointer
    found: past.Live | None


class ModelDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page of a registered model shows. ``model`` is None if it was deleted; its history is not."""

    workspace: str
    name: str
    model: Whole | None
    versions: tuple[Tagged, ...] = ()
    next_page: str | None = None
    history: tuple[Happened, ...] = ()
    older: int | None = None
    pointers: tuple[Pointer, ...] = ()
    live: LiveThen | None = None
    use_case: str | None = None
    approvers: Mapping[str, str] = {}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version stands with one environment: its gates there, who must agree, and who did.

    ``problem`` says why that cannot be told.
    """

    environment: str
    stage: str
    report: GateReport | None = None
    rule: str | None = None
    votes: tuple[Vote, ...] = ()
    missing: str = ""
    problem: str = ""


class VersionDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page of one version shows."""

    workspace: str
    model: ModelRow
    version: Tagged
    findings: Findings | None
    standings: tuple[Standing, ...]
    history: tuple[Happened, ...]
    run: RunRow | None = None
    experiment: ExperimentRow | None = None
    use_case: str | None = None
    bundle: Bundle | None = None
    bundle_fact: Digest | None = None
    conversion: Mapping[str, Any] | None = None
    creator: str = ""
    aliases: tuple[str, ...] = ()


def model_list(store: Store, workspace: str, query: Query) -> ModelList:
    """A page of the models of a workspace. What is wrong with filter or order is part of the page.

    Raises:
        InputError: the page token does not belong to the query.
    """
    found = ModelList(workspace=workspace, query=query)
    problem = problem_of(query, searching.MODELS, "name")
    if problem is not None:
        return msgspec.structs.replace(found, problem=problem)
    with store.read() as tx:
        page = searching.models(
            tx,
            workspace,
            filter=query.filter,
            order_by=[query.order] if query.order else [],
            max_results=PAGE,
            page_token=query.page or None,
        )
    return msgspec.structs.replace(found, models=tuple(page.models), next_page=page.next_page_token)


def model_detail(
    store: Store,
    workspace: str,
    name: str,
    may_read: Callable[[str], bool],
    *,
    page: str = "",
    below: int | None = None,
    then: tuple[int, Pointer] | None = None,
) -> ModelDetail:
    """Everything about one model, found by its name or, where an address cannot hold that, by its id.

    ``below`` is where an older part of its history begins; ``then`` asks what was live at a moment.

    Raises:
        NotFoundError: no model of the workspace ever had this name.
        InputError: the page token does not belong here, or there is no such stage.
    """
    with store.read() as tx:
        row = tx.models.find(workspace, name) or tx.models.of_id(workspace, name)
        name = name if row is None else row.name
        happened = past.history(tx, workspace, name, below=1 << 62 if below is None else below, limit=HISTORY + 1)
        people = _people(tx)
        detail = ModelDetail(
            workspace=workspace,
            name=name,
            model=None,
            history=tuple(_happened(each, people) for each in happened[:HISTORY]),
            older=happened[HISTORY - 1].seq if len(happened) > HISTORY else None,
            pointers=_pointers(tx, workspace, name),
            live=None if then is None else _live(tx, workspace, name, *then),
        )
        if row is None:
            return detail
        quoted = name.replace("'", "''")
        versions = searching.versions(
            tx, workspace, filter=f"name = '{quoted}'", order_by=["version_number DESC"], max_results=PAGE,
            page_token=page or None,
        )  # fmt: skip
        whole = searching.get_model(tx, workspace, name)
        return msgspec.structs.replace(
            detail,
            model=whole,
            versions=tuple(searching.aliased(tx, workspace, [each.row for each in versions.versions])),
            next_page=versions.next_page_token,
            use_case=_use_case(tx, workspace, name, may_read),
            approvers={
                key.removeprefix(APPROVERS): value for key, value in whole.tags.items() if key.startswith(APPROVERS)
            },
        )


def version_detail(
    store: Store, workspace: str, name: str, number: int, may_read: Callable[[str], bool]
) -> VersionDetail:
    """Everything about one version.

    Raises:
        NotFoundError: the model has no such version, or there is no such model.
    """
    with store.read() as tx:
        named = tx.models.find(workspace, name) or tx.models.of_id(workspace, name)
        row, model = find_version(tx, workspace, name if named is None else named.name, number)
        people = _people(tx)
        happened = tx.history.of(model.id, number, limit=HISTORY)
        run = _run(tx, row)
        bundle = _bundle(tx, row)
        return VersionDetail(
            workspace=workspace,
            model=model,
            version=searching.get_version(tx, workspace, model.name, number),
            findings=msgspec.json.decode(row.findings, type=Findings) if row.findings else None,
            standings=tuple(
                _standing(tx, model, row, stage, environment)
                for stage, environment in STAGES.items()
                if environment is not None
            ),
            history=tuple(_happened(each, people) for each in happened),
            run=run,
            experiment=None if run is None else tx.experiments.find(workspace, run.experiment),
            use_case=_use_case(tx, workspace, model.name, may_read) if row.fact is not None else None,
            bundle=None if bundle is None else bundle[0],
            bundle_fact=None if bundle is None else bundle[1],
            conversion=tx.facts.get(row.evidence).body if row.evidence else None,
            creator=people.get(row.creator, row.creator),
            aliases=tuple(sorted(tx.models.aliases(workspace, [model.name])[model.name])),
        )


# -------------------------------------------------------------------------------------------------------------- parts


def _people(tx: Transaction) -> dict[str, str]:
    return {row.id: row.name for row in tx.principals.list()}


def _happened(row: HistoryRow, people: Mapping[str, str]) -> Happened:
    return Happened(row, people.get(row.by, row.by))


def _pointers(tx: Transaction, workspace: str, name: str) -> tuple[Pointer, ...]:
    """What versions of a model were or are live under: stages, and each alias and environment of its history."""
    rows = past.history(tx, workspace, name, limit=_POINTERS)
    aliases = sorted({row.value for row in rows if row.kind == "alias-set"})
    served = sorted({row.value for row in rows if row.kind == "served"})
    return (
        *(Pointer("alias", value) for value in aliases),
        *(Pointer("environment", value) for value in served),
        *(Pointer("stage", stage) for stage, environment in STAGES.items() if environment is not None),
    )


def _live(tx: Transaction, workspace: str, name: str, at: int, pointer: Pointer) -> LiveThen:
    try:
        return LiveThen(at, pointer, past.live(tx, workspace, name, at, pointer.by, pointer.value))
    except NotFoundError:
        return LiveThen(at, pointer, None)


def _use_case(tx: Transaction, workspace: str, name: str, may_read: Callable[[str], bool]) -> str | None:
    """The use case that a model is of, if the reader may know."""
    known = workspace == DEFAULT and tx.versions.any_of_flow(workspace, name)
    return name if known and may_read(name) else None


def _standing(tx: Transaction, model: ModelRow, row: VersionRow, stage: str, environment: str) -> Standing:
    seen = msgspec.json.decode(row.findings, type=Findings) if row.findings else None
    try:
        case = requests.case_of(tx, model, row, environment, seen)
        votes = requests.votes(tx, case.subject, case.digest, environment)
    except BedplateError as error:
        return Standing(environment=environment, stage=stage, problem=error.message)
    return Standing(
        environment=environment,
        stage=stage,
        report=case.report,
        rule=case.rule,
        votes=tuple(votes),
        missing=case.missing if case.rule is None and environment == stages.PRODUCTION else "",
    )


def _run(tx: Transaction, row: VersionRow) -> RunRow | None:
    """The run that a version came of: the one that a client named, or the one that the flow made of its training."""
    if row.run:
        return tx.runs.find(row.workspace, row.run)
    if row.fact is None:
        return None
    training = next((fact for fact in tx.facts.ancestors(row.fact) if fact.kind == "training"), None)
    experiment = tx.experiments.by_name(row.workspace, row.name)
    if training is None or experiment is None:
        return None
    made = tx.overview.tagged(experiment.id, RUN_TAG, str(training.body.get("run_id", "")), most=1)
    return next(iter(tx.runs.rows(made)), None)


def _bundle(tx: Transaction, row: VersionRow) -> tuple[Bundle, Digest] | None:
    if row.fact is None or row.bundle is None:
        return None
    for fact in tx.facts.children(row.fact):
        if fact.kind == "bundle" and fact.body.get("digest") == row.bundle:
            return msgspec.convert(fact.body, Bundle), fact.digest
    return None


def name_of(store: Store, workspace: str, text: str) -> str:
    """The name of the model that an address means by its name or its id."""
    with store.read() as tx:
        row = tx.models.find(workspace, text) or tx.models.of_id(workspace, text)
    return text if row is None else row.name


def stages_to(version: VersionRow) -> Sequence[str]:
    """The stages that a version can be moved to from where it is."""
    return [stage for stage in (*(s for s in STAGES if s != NONE), NONE) if stage != version.stage]
