"""What every change of the registry does: look up what it is about, and write down what happened.

One entry of the ledger stands for one change. Its payload holds the rows of the history as they are added, so the two
can be held against each other; see :func:`bedplate.release.past.verify`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from bedplate import clock
from bedplate.errors import NotFoundError, StateError
from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.ledger import Ledger
from bedplate.release import environments as stages
from bedplate.store import Transaction
from bedplate.store.history import HistoryRow, Kind
from bedplate.store.models import ModelRow, VersionRow

UNSAID = -1
"""``expected`` was not given: whatever an alias points to may be replaced."""


class Origins(Protocol):
    """Where tracking keeps what versions are made from."""

    def run(self, tx: Transaction, workspace: str, run: str) -> str | None:
        """Where the artifacts of a run lie; None if there is no such run."""
        ...

    def content(self, tx: Transaction, workspace: str, folder: str) -> Digest | None:
        """The digest of all files in a folder, as :func:`bedplate.release.foreign.content_of` makes it.

        None if the folder is not with this server.
        """
        ...

    def logged_model(self, tx: Transaction, workspace: str, model: str) -> tuple[str, str | None] | None:
        """Where the artifacts of a logged model lie, and the run that made it; None if there is no such model."""
        ...


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens to a model, or to one of its versions; :class:`HistoryRow` explains the fields."""

    kind: Kind
    number: int | None = None
    value: str = ""
    before: str = ""
    after: str = ""


def write(
    ledger: Ledger,
    tx: Transaction,
    by: Principal,
    action: str,
    model: ModelRow,
    changes: Sequence[Change],
    /,
    *,
    policies: Sequence[str] = (),
    **said: Any,
) -> int:
    """Record a change and add what happened to the history. Returns the index of the ledger entry.

    The caller MUST hold the lock of the ledger's head.
    """
    seq, time = tx.history.last(), moment(tx, model)
    rows = [
        HistoryRow(
            seq=seq + place,
            workspace=model.workspace,
            name=model.name,
            model=model.id,
            by=by.id,
            time=time,
            **msgspec.structs.asdict(change),
        )
        for place, change in enumerate(changes, 1)
    ]
    entry = ledger.record(
        tx,
        actor=by.id,
        action=action,
        resource=f"model/{model.workspace}/{model.name}",
        payload={**said, "history": rows} if rows else said,
        auth=by.auth,
        policies=policies,
    )
    tx.history.append(msgspec.structs.replace(row, entry=entry) for row in rows)
    return entry


def moment(tx: Transaction, model: ModelRow) -> int:
    """Now, in milliseconds; never before what happened to the model last, whatever the clock says."""
    return max(clock.milliseconds(), tx.history.last_time(model.id))


def model(tx: Transaction, workspace: str, name: str) -> ModelRow:
    """The registered model of this name.

    Raises:
        NotFoundError: there is none in the workspace.
    """
    row = tx.models.find(workspace, name)
    if row is None:
        raise NotFoundError(f"there is no registered model {name!r}", fix="`bedplate models list` names them")
    return row


def version(tx: Transaction, workspace: str, name: str, number: int) -> tuple[VersionRow, ModelRow]:
    """A version and its model.

    Raises:
        NotFoundError: there is none of this number.
    """
    of = tx.models.find(workspace, name)
    if of is None:
        raise NotFoundError(f"there is no version {number} of a registered model {name!r}")
    return tx.versions.get(name, number, workspace=workspace), of


def newest(tx: Transaction, workspace: str, name: str, only: Sequence[str] = ()) -> list[VersionRow]:
    """The newest version of a model in each stage, or in the stages ``only``.

    Raises:
        NotFoundError: there is no such model.
        InputError: one of ``only`` is no stage.
    """
    wanted = {stages.stage_named(stage) for stage in only} or set(stages.STAGES)
    model(tx, workspace, name)
    return [row for row in tx.versions.latest(workspace, [name])[name] if row.stage in wanted]


def refuse_flow(tx: Transaction, row: ModelRow, what: str) -> None:
    """Refuse what cannot be done to the model of a use case.

    Raises:
        StateError: it is one.
    """
    if tx.versions.any_of_flow(row.workspace, row.name):
        raise StateError(
            f"{row.name!r} is the model of a use case and cannot be {what}", fix="register a model of your own"
        )


def location_of(row: VersionRow) -> str:
    """Where the files of a version lie."""
    if row.bundle is not None:
        return f"bundle:/{row.bundle}"
    return row.location or row.source or ""
