"""Registered models, their versions and their history, read from the store and told in reports."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from bedplate import clock
from bedplate.app.model_reports import (
    AliasMove,
    Conversion,
    HistoryLine,
    HistoryPage,
    LiveView,
    ModelList,
    ModelView,
    VersionApproval,
    VersionView,
)
from bedplate.errors import InputError
from bedplate.ids import Digest
from bedplate.records import Bundle, Fact, GateReport, TrainResult
from bedplate.release import past, requests, searching
from bedplate.release.checks import APPROVERS
from bedplate.release.environments import PRODUCTION
from bedplate.release.foreign import Findings
from bedplate.release.moves import Moved
from bedplate.release.past import By, Live
from bedplate.release.searching import Tagged, Whole
from bedplate.store import Transaction
from bedplate.store.history import HistoryRow
from bedplate.store.models import VersionRow
from bedplate.store.releases import ApprovalRow

PAGE = 200
"""Lines of a history on one page."""


# -------------------------------------------------------------------------------------------------------------- models


def models(tx: Transaction, workspace: str, *, after: str | None = None, limit: int = 100) -> ModelList:
    """The models of a workspace, by name; prompts are left out."""
    page = searching.models(tx, workspace, max_results=limit, page_token=after)
    return ModelList(models=tuple(_model(found) for found in page.models), next_page=page.next_page_token)


def model(tx: Transaction, workspace: str, name: str, *, limit: int = 50) -> ModelView:
    """One model with its newest versions.

    Raises:
        NotFoundError: there is none of this name.
    """
    found = searching.get_model(tx, workspace, name)
    rows = tx.versions.list(name, workspace=workspace)[:limit]
    versions = tuple(_version(tx, each, found) for each in searching.aliased(tx, workspace, rows))
    return msgspec.structs.replace(_model(found), versions=versions)


def _model(found: Whole) -> ModelView:
    row = found.row
    return ModelView(
        workspace=row.workspace,
        name=row.name,
        created=_time(row.created),
        updated=_time(row.updated),
        description=row.description or "",
        tags={key: value for key, value in found.tags.items() if not key.startswith(APPROVERS)},
        aliases=found.aliases,
        approvers={
            key.removeprefix(APPROVERS): value for key, value in found.tags.items() if key.startswith(APPROVERS)
        },
        stages={each.row.stage: each.row.number for each in found.latest},
    )


def _version(tx: Transaction, found: Tagged, of: Whole) -> VersionView:
    row = found.row
    seen = None if row.findings is None else msgspec.json.decode(row.findings, type=Findings)
    training, bundle, gates = _evidence(tx, row)
    return VersionView(
        workspace=row.workspace,
        name=row.name,
        version=row.number,
        stage=row.stage,
        aliases=found.aliases,
        status=row.status,
        created=_time(row.created),
        updated=_time(row.updated),
        creator=row.creator,
        description=row.description or "",
        tags=found.tags,
        use_case=row.name if row.fact is not None else None,
        source=row.source or "",
        run=training.run_id if training is not None else row.run or "",
        bundle=row.bundle,
        signature=bundle.signature_digest if bundle is not None else None,
        data=training.inputs if training is not None else (),
        gates=gates if gates is not None else requests.security(row, PRODUCTION, seen),
        approvals=_approvals(tx, row, of),
        safety="safe" if row.fact is not None else "unknown" if seen is None else seen.safety,
        reasons=() if seen is None else seen.reasons,
        flavors=() if seen is None else seen.flavors,
        onnx=row.onnx,
        evidence=row.evidence,
    )


def _evidence(tx: Transaction, row: VersionRow) -> tuple[TrainResult | None, Bundle | None, GateReport | None]:
    """Training, bundle and gates of a version that the flow made."""
    fact = None if row.fact is None else tx.facts.find(row.fact)
    if fact is None:
        return None, None, None
    training = next((each for each in tx.facts.ancestors(fact.digest) if each.kind == "training"), None)
    bundle = next((each for each in tx.facts.children(fact.digest) if _is_bundle(each, row.bundle)), None)
    return (
        None if training is None else msgspec.convert(training.body, TrainResult),
        None if bundle is None else msgspec.convert(bundle.body, Bundle),
        msgspec.convert(fact.body, GateReport),
    )


def _is_bundle(fact: Fact, digest: Digest | None) -> bool:
    return fact.kind == "bundle" and fact.body.get("digest") == digest


def _approvals(tx: Transaction, row: VersionRow, of: Whole) -> tuple[VersionApproval, ...]:
    if row.fact is not None:
        said: Sequence[ApprovalRow] = [a for a in tx.approvals.of_use_case(row.name) if a.bundle == row.bundle]
    else:
        own = requests.digest_of_version(of.row, row)
        said = [a for a in tx.approvals.of_use_case(of.row.id) if a.bundle == own]
    return tuple(
        VersionApproval(environment=a.environment, state=a.state, by=a.by, reason=a.reason, time=a.created)
        for a in said
    )


def alias_move(moved: Moved, alias: str, environment: str | None) -> AliasMove:
    """An alias that was moved, and on which ground."""
    row, ruling = moved.version, moved.ruling
    return AliasMove(
        workspace=row.workspace,
        name=row.name,
        alias=alias,
        version=row.number,
        environment=environment,
        ledger_index=moved.entry,
        reason=ruling.approval.reason if ruling is not None else "",
    )


def conversion(row: VersionRow, evidence: Mapping[str, object]) -> Conversion:
    """What a version was converted to."""
    assert row.onnx is not None
    assert row.evidence is not None
    compared = evidence["compared"]
    assert isinstance(compared, dict)
    return Conversion(
        workspace=row.workspace,
        name=row.name,
        version=row.number,
        onnx=row.onnx,
        evidence=row.evidence,
        compared=compared,
    )


# ------------------------------------------------------------------------------------------------------------- history


def history(
    tx: Transaction,
    workspace: str,
    name: str,
    version: int | None = None,
    *,
    before: int | None = None,
    limit: int = PAGE,
) -> HistoryPage:
    """What happened to a model, or to one version of it, newest first; also to one that is gone.

    Raises:
        NotFoundError: no model was ever called that.
    """
    below = 1 << 62 if before is None else before
    rows = past.history(tx, workspace, name, version, below=below, limit=limit + 1)
    more = rows[limit - 1].seq if len(rows) > limit else None
    return HistoryPage(workspace=workspace, name=name, lines=_lines(tx, rows[:limit]), before=more)


def live(tx: Transaction, workspace: str, name: str, at: datetime | None, by: By, value: str) -> LiveView:
    """Which version was live at a moment, or is now.

    Raises:
        NotFoundError: no model of this name existed then.
        InputError: there is no such stage.
    """
    moment = clock.now() if at is None else at
    found: Live = past.live(tx, workspace, name, clock.milliseconds(moment), by, value)
    return LiveView(
        workspace=workspace,
        name=found.name,
        at=clock.text(moment),
        by=by,
        value=found.value,
        version=found.version,
        versions=found.versions,
        since=_lines(tx, found.since),
    )


def parse_time(text: str) -> datetime:
    """A moment as people and programs write it: RFC 3339, a date, or milliseconds since 1970. Without a zone: UTC.

    Raises:
        InputError: it is none.
    """
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{text!r} is no moment", where="at", fix="write 2026-03-01T12:00:00Z, a date, or milliseconds since 1970"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def which(stage: str | None, alias: str | None, environment: str | None) -> tuple[By, str]:
    """What decides which version was live; the stage Production where nothing is said.

    Raises:
        InputError: more than one thing is said.
    """
    given: list[tuple[By, str]] = []
    for by, value in (("stage", stage), ("alias", alias), ("environment", environment)):
        if value is not None:
            given.append((by, value))  # type: ignore[arg-type]
    if len(given) > 1:
        raise InputError(
            "a stage, an alias or an environment can be asked for, not several", fix="leave out the others"
        )
    return given[0] if given else ("stage", "Production")


def _lines(tx: Transaction, rows: Sequence[HistoryRow]) -> tuple[HistoryLine, ...]:
    people = {row.id: row.name for row in tx.principals.list()} if rows else {}
    return tuple(
        HistoryLine(
            seq=row.seq,
            time=_time(row.time),
            kind=row.kind,
            version=row.number,
            value=row.value,
            before=row.before,
            after=row.after,
            by=people.get(row.by, row.by),
            name=row.name,
            entry=row.entry,
        )
        for row in rows
    )


def _time(milliseconds: int) -> str:
    return clock.text(clock.of_milliseconds(milliseconds))
