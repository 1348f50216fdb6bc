"""Moving versions to stages and pointing aliases to them: requests to release, where stage or alias is an environment.

Like all changes of the registry they happen one after the other, under the lock of the ledger's head, so what
``expected`` compares with cannot change meanwhile.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bedplate.errors import ConflictError, InputError
from bedplate.identity import Principal
from bedplate.ledger import Ledger
from bedplate.policy.policies import Decides
from bedplate.release import checks, requests
from bedplate.release import environments as stages
from bedplate.release.changes import UNSAID, Change, Origins, model, moment, version, write
from bedplate.release.environments import ALIASES
from bedplate.release.foreign import Findings
from bedplate.release.requests import Ruling
from bedplate.store import Transaction
from bedplate.store.models import ModelRow, VersionRow


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """How a request ended; ``ruling`` is None where nobody had to be asked."""

    version: VersionRow
    entry: int
    ruling: Ruling | None = None

    @property
    def refused(self) -> str:
        """Why nothing was moved; empty if it was."""
        return "" if self.ruling is None or self.ruling.allowed else self.ruling.refusal


class Moves:
    """Stages and aliases of one home. ``aliases`` are those that stand for an environment."""

    def __init__(
        self, ledger: Ledger, policies: Decides, origins: Origins, aliases: Mapping[str, str] = ALIASES
    ) -> None:
        self._ledger, self._policies, self._origins, self._aliases = ledger, policies, origins, aliases

    def transition(
        self,
        tx: Transaction,
        by: Principal,
        workspace: str,
        name: str,
        number: int,
        stage: str,
        *,
        archive_existing: bool = False,
        expected: str | None = None,
    ) -> Moved:
        """Move a version to a stage, if it may go into the environment that the stage stands for.

        ``archive_existing`` sends away what else is in that stage. With ``expected`` the version must be in that stage.
        A refusal is an answer, not an error: it is recorded in this transaction, so the caller MUST commit it.

        Raises:
            NotFoundError: there is no such version.
            InputError: there is no such stage, or none that others could be sent away from.
            ConflictError: the version is not in the stage ``expected``.
        """
        wanted = stages.stage_named(stage)
        environment = stages.STAGES[wanted]
        if archive_existing and environment is None:
            raise InputError(
                f"versions cannot be archived from {wanted}", where="archive_existing_versions",
                fix="it goes with the stages Staging and Production",
            )  # fmt: skip
        tx.ledger.head(lock=True)
        row, of = version(tx, workspace, name, number)
        if expected is not None and row.stage != stages.stage_named(expected):
            raise ConflictError(f"version {number} of {name} is in {row.stage}, not {expected}", fix="look again")
        ruling = None
        if environment is not None and row.stage != wanted:
            ruling = requests.judge(tx, self._policies, by, of, row, environment, self._seen(tx, row))
            if not ruling.allowed:
                return self._refused(tx, by, of, row, ruling, f"stage {wanted}")
        others = tx.versions.in_stage(workspace, name, wanted) if archive_existing else ()
        time = moment(tx, of)
        changes = []
        for other in others:
            if other.number != number:
                tx.versions.move(other, stages.ARCHIVED, time)
                changes.append(Change(kind="stage", number=other.number, before=other.stage, after=stages.ARCHIVED))
        tx.versions.move(row, wanted, time)
        if row.stage != wanted:
            changes.append(Change(kind="stage", number=number, before=row.stage, after=wanted))
        tx.models.touch(workspace, name, time)
        entry = self._granted(tx, by, "model_version.stage", of, row, changes, ruling, stage=wanted)
        return Moved(version=msgspec.structs.replace(row, stage=wanted, updated=time), entry=entry, ruling=ruling)

    def set_alias(
        self,
        tx: Transaction,
        by: Principal,
        workspace: str,
        name: str,
        alias: str,
        number: int,
        *,
        expected: int | None = UNSAID,
    ) -> Moved:
        """Point an alias to a version, if it may go into the environment that the alias stands for.

        With ``expected`` the alias must point to that version, or to none for None. A refusal is an answer, not an
        error: it is recorded in this transaction, so the caller MUST commit it.

        Raises:
            NotFoundError: there is no such version.
            InputError: the alias cannot be used.
            ConflictError: the alias does not point to ``expected``.
        """
        checks.new_alias(alias)
        tx.ledger.head(lock=True)
        row, of = version(tx, workspace, name, number)
        before = tx.models.aliases(workspace, [name])[name].get(alias)
        if expected != UNSAID and before != expected:
            points = f"to version {before}" if before is not None else "to no version"
            raise ConflictError(f"the alias {alias} of {name} points {points}", fix="look again, then decide")
        environment = stages.of_alias(alias, self._aliases)
        ruling = None
        if environment is not None and before != number and row.source not in checks.PROMPT_SOURCES:
            ruling = requests.judge(tx, self._policies, by, of, row, environment, self._seen(tx, row))
            if not ruling.allowed:
                return self._refused(tx, by, of, row, ruling, f"alias {alias}")
        tx.models.set_alias(workspace, name, alias, number)
        change = Change(
            kind="alias-set",
            number=number,
            value=alias,
            before="" if before is None else str(before),
            after=str(number),
        )
        changes = [change] if before != number else []
        entry = self._granted(tx, by, "model.alias", of, row, changes, ruling, alias=alias)
        return Moved(version=row, entry=entry, ruling=ruling)

    def delete_alias(
        self, tx: Transaction, by: Principal, workspace: str, name: str, alias: str, *, expected: int | None = UNSAID
    ) -> int | None:
        """Remove an alias and return the ledger entry; nothing happens, None, if there is no such alias.

        With ``expected`` it must point to that version.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: the alias does not point to ``expected``.
        """
        checks.alias(alias)
        tx.ledger.head(lock=True)
        row = model(tx, workspace, name)
        before = tx.models.aliases(workspace, [name])[name].get(alias)
        if expected != UNSAID and before != expected:
            raise ConflictError(f"the alias {alias} of {name} points elsewhere", fix="look again, then decide")
        if before is None:
            return None
        tx.models.delete_alias(workspace, name, alias)
        change = Change(kind="alias-removed", number=before, value=alias, before=str(before))
        return write(self._ledger, tx, by, "model.unalias", row, [change])

    def environment_of(self, alias: str) -> str | None:
        """The environment that an alias stands for; None for a label."""
        return stages.of_alias(alias, self._aliases)

    def _seen(self, tx: Transaction, row: VersionRow) -> Findings | None:
        """What is in the files of a client's version, if they are still those that were looked at."""
        content = None if row.folder is None else self._origins.content(tx, row.workspace, row.folder)
        if content is None:
            return None
        if row.findings is None or content != row.content:
            return Findings(safety="unknown", content=content)
        return msgspec.json.decode(row.findings, type=Findings)

    def _refused(
        self, tx: Transaction, by: Principal, of: ModelRow, row: VersionRow, ruling: Ruling, what: str
    ) -> Moved:
        """Write down that a request was refused, and why."""
        self._say(tx, by, ruling)
        entry = self._ledger.record(
            tx,
            actor=by.id,
            action="release.request",
            resource=f"model/{of.workspace}/{of.name}",
            decision="deny",
            payload={"version": row.number, "for": what, **_said(ruling)},
            auth=by.auth,
            policies=ruling.approval.policies,
        )
        return Moved(version=row, entry=entry, ruling=ruling)

    def _granted(
        self,
        tx: Transaction,
        by: Principal,
        action: str,
        of: ModelRow,
        row: VersionRow,
        changes: Sequence[Change],
        ruling: Ruling | None,
        **said: Any,
    ) -> int:
        """Write down what was moved, and on which ground."""
        if ruling is None:
            return write(self._ledger, tx, by, action, of, changes, version=row.number, **said)
        self._say(tx, by, ruling)
        return write(
            self._ledger, tx, by, action, of, changes, policies=ruling.approval.policies, version=row.number, **said,
            **_said(ruling),
        )  # fmt: skip

    def _say(self, tx: Transaction, by: Principal, ruling: Ruling) -> None:
        """Keep the answer with the evidence of its use case, and the approval that lay in asking in the ledger."""
        case, answer = ruling.case, ruling.approval
        if case.evidence is not None:
            tx.facts.put("approval", case.subject, answer, (case.evidence.digest,))
        if ruling.voted:
            self._ledger.record(
                tx,
                actor=by.id,
                action="release.approve",
                resource=case.resource_name,
                payload={
                    "bundle": case.digest,
                    "environment": case.environment,
                    "reason": requests.ASKED,
                    "by": by.name,
                },
                auth=by.auth,
                policies=answer.policies,
            )


def _said(ruling: Ruling) -> dict[str, Any]:
    answer = ruling.approval
    return {
        "environment": answer.environment,
        "approval": answer.state,
        "approved by": list(answer.by),
        "reason": ruling.refusal if not ruling.allowed else answer.reason,
        "gates": ruling.case.report.summary,
    }
