"""Which version was live at a moment, for ever; and whether the history is the one that the ledger holds."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from bedplate.errors import NotFoundError
from bedplate.release import environments as stages
from bedplate.store import Transaction
from bedplate.store.history import HistoryRow

By = Literal["stage", "alias", "environment"]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What was live. ``versions`` holds every version that was in the stage, by number; an alias has at most one.

    ``version`` is the one that a client got: the newest of them. ``since`` are the rows of the history that made them
    live, in the same order. ``name`` is what the model was called then.
    """

    workspace: str
    name: str
    model: str
    at: int
    by: By
    value: str
    version: int | None
    versions: tuple[int, ...]
    since: tuple[HistoryRow, ...]


def live(tx: Transaction, workspace: str, name: str, at: int, by: By, value: str) -> Live:
    """Which version of a model was live at a moment, in milliseconds.

    ``name`` is what the model was called then; a model that got that name later is found as well, if it existed. Models
    and versions that were deleted since are answered for like any other.

    Raises:
        NotFoundError: no model of this name existed then.
        InputError: there is no such stage.
    """
    model = _model(tx, workspace, name, at)
    if by == "stage":
        value = stages.stage_named(value)
        rows = tx.history.in_stage(model, value, at)
    else:
        look = tx.history.aliased if by == "alias" else tx.history.served
        found = look(model, value, at)
        rows = [] if found is None else [found]
    numbers = tuple(int(row.after) if by != "stage" else row.number or 0 for row in rows)
    return Live(
        workspace=workspace,
        name=tx.history.name_at(model, at) or name,
        model=model,
        at=at,
        by=by,
        value=value,
        version=max(numbers, default=None),
        versions=numbers,
        since=tuple(rows),
    )


def _model(tx: Transaction, workspace: str, name: str, at: int) -> str:
    then = tx.history.named(workspace, name, at)
    if then is not None:
        return then
    now = tx.models.find(workspace, name)
    if now is None or not tx.history.existed(now.id, at):
        raise NotFoundError(
            f"there was no registered model {name!r} at that time", fix="check the name, the workspace and the time"
        )
    return now.id


def history(
    tx: Transaction, workspace: str, name: str, number: int | None = None, *, below: int = 1 << 62, limit: int = 1000
) -> list[HistoryRow]:
    """What happened to a model, or to one version of it, newest first; of a deleted model what it went through.

    Raises:
        NotFoundError: no model ever had this name.
    """
    now = tx.models.find(workspace, name)
    known = now.id if now is not None else tx.history.last_of_name(workspace, name)
    if known is None:
        raise NotFoundError(f"no registered model was ever called {name!r}", fix="`bedplate models list` names them")
    return tx.history.of(known, number, below=below, limit=limit)


def verify(tx: Transaction) -> Iterator[str]:
    """What is wrong with the history: rows that the ledger does not hold as they are, and rows it holds that are gone.

    Rows from before there was a history name no entry; they cannot be held against anything.
    """
    rows = {row.seq: row for row in tx.history.all()}
    for place, seq in enumerate(sorted(rows), 1):
        if seq != place:
            yield f"the history of versions has no row {place}"
            break
    said: dict[int, tuple[int, dict[str, Any]]] = {}
    kept = set()
    for entry, _salt, payload in tx.ledger.payloads():
        kept.add(entry)
        if b'"history":[' in payload:
            for row in msgspec.json.decode(payload).get("history", ()):
                said[row["seq"]] = (entry, row)
    for seq, row in sorted(rows.items()):
        if row.entry is None:
            continue
        if seq in said:
            entry, words = said[seq]
            plain = {**msgspec.to_builtins(row), "entry": None}
            if entry != row.entry or words != plain:
                yield f"row {seq} of the history of versions is not the one that entry {entry} of the ledger holds"
        elif row.entry in kept:
            yield f"entry {row.entry} of the ledger does not hold row {seq} of the history of versions"
    for seq, (entry, _words) in sorted(said.items()):
        if seq not in rows:
            yield f"row {seq} of the history of versions, which entry {entry} of the ledger holds, is gone"
