"""Runs: begun, found, logged to, ended, deleted and restored as in MLflow, each within one workspace."""

import uuid
from collections.abc import Sequence

import msgspec

from bedplate.errors import InputError, NotFoundError
from bedplate.store import Transaction, pages
from bedplate.store.filters import parse, parse_order
from bedplate.store.lacking import RUN
from bedplate.store.metrics import Latest
from bedplate.store.runs import Pairs, RunRow, RunStatus
from bedplate.tracking import experiments, filters, names, validation
from bedplate.tracking.actors import Actor
from bedplate.tracking.experiments import LIFECYCLES, View
from bedplate.tracking.validation import Param, Tag

NAME_TAG = "mlflow.runName"
USER_TAG = "mlflow.user"


class RunList(msgspec.Struct, frozen=True):
    """Runs in order without what was logged to them, and the token of the next page if there is one."""

    runs: list[RunRow]
    next_page_token: str | None


class RunPage(msgspec.Struct, frozen=True):
    """Runs in order, what was logged to them by the key of the run, and the token of the next page if there is one."""

    runs: list[RunRow]
    metrics: Latest
    params: Pairs
    tags: Pairs
    next_page_token: str | None = None


def create(
    tx: Transaction,
    workspace: str,
    experiment: str,
    *,
    by: Actor,
    user_id: str = "",
    name: str = "",
    started: int = 0,
    tags: Sequence[Tag] = (),
) -> RunPage:
    """Begin a run. Its name is ``name``, else what the tag ``mlflow.runName`` says, else one is made up.

    Raises:
        InputError: a tag is not as it must be, the name and its tag disagree, or the experiment is deleted.
        NotFoundError: the workspace has no such experiment.
    """
    checked = dict(validation.tag(tag, f"tags[{index}]") for index, tag in enumerate(tags))
    validation.milliseconds(started, "start_time")
    validation.text(user_id, "user_id")
    validation.text(name, "run_name")
    tagged = checked.get(NAME_TAG, "")
    if name and tagged and name != tagged:
        raise InputError(
            f"the run is named {name!r}, and its tag {NAME_TAG} says {tagged!r}",
            fix="give one of them",
        )
    parent = experiments.active(tx, workspace, experiment)
    name = name or tagged or names.make_up()
    checked[NAME_TAG] = name
    identifier = uuid.uuid4().hex
    row = tx.runs.add(
        identifier,
        parent.id,
        name=name,
        user_id=user_id,
        started=started,
        artifact_uri=f"{parent.artifact_location.rstrip('/')}/{identifier}/artifacts",
    )
    tx.runs.set_tags(row, checked.items())
    by.record(tx, "run.create", _resource(row), workspace=workspace, experiment=parent.id, name=name)
    return RunPage([row], {}, {}, {row.key: list(checked.items())})


def get(tx: Transaction, workspace: str, run: str) -> RunPage:
    """The run of this id, deleted or not, with what was logged to it.

    Raises:
        NotFoundError: the workspace has none.
    """
    return _with_data(tx, [tx.runs.get(workspace, run)], None)


def active(tx: Transaction, workspace: str, run: str) -> RunRow:
    """The run of this id, which must not be deleted.

    Raises:
        InputError: it is deleted.
        NotFoundError: the workspace has none.
    """
    row = tx.runs.get(workspace, run)
    check_active(row)
    return row


def check_active(row: RunRow) -> None:
    """Check that a run may be logged to.

    Raises:
        InputError: it is deleted.
    """
    if row.lifecycle != "active":
        raise InputError(
            f"run {row.id} is {row.lifecycle}",
            fix="restore it first",
        )


def search(
    tx: Transaction,
    workspace: str,
    within: Sequence[str],
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    view: View = "ACTIVE_ONLY",
    max_results: int = 1_000,
    page_token: str | None = None,
) -> RunPage:
    """Runs of these experiments that match, newest first unless ``order_by`` says otherwise.

    Experiments of other workspaces are as good as none.

    Raises:
        InputError: an id, filter, order, count or token is not as it must be.
    """
    found = listed(
        tx,
        workspace,
        within,
        filter=filter,
        order_by=order_by,
        view=view,
        max_results=max_results,
        page_token=page_token,
    )
    return _with_data(tx, found.runs, found.next_page_token)


def listed(
    tx: Transaction,
    workspace: str,
    within: Sequence[str],
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    view: View = "ACTIVE_ONLY",
    max_results: int = 1_000,
    page_token: str | None = None,
) -> RunList:
    """As :func:`search`, for who asks for chosen values of the runs alone.

    Raises:
        InputError: as :func:`search`.
    """
    experiments.count(max_results)
    numbers = [validation.experiment_id(each) for each in within]
    clauses = parse(filter, filters.RUNS)
    orders = parse_order(order_by, filters.RUNS)
    query = ("runs", workspace, tuple(numbers), filter, tuple(order_by), view)
    after = pages.position(query, page_token)
    numbers = tx.experiments.within(workspace, numbers)
    keys, last = tx.search.runs(numbers, clauses, orders, lifecycles=LIFECYCLES[view], limit=max_results, after=after)
    return RunList(tx.runs.rows(keys), pages.token(query, last))


def update(
    tx: Transaction,
    workspace: str,
    run: str,
    *,
    by: Actor,
    status: RunStatus | None = None,
    ended: int | None = None,
    name: str = "",
) -> RunRow:
    """Change status, end or name of a run; what is not given stays. Its tag ``mlflow.runName`` follows the name.

    Raises:
        InputError: the run is deleted, or a value is not as it must be.
        NotFoundError: the workspace has no such run.
    """
    row = active(tx, workspace, run)
    if ended is not None:
        validation.milliseconds(ended, "end_time")
    if name:
        validation.tag(Tag(NAME_TAG, name))
    return _update(tx, workspace, row, by, status=status, ended=ended, name=name)


def delete(tx: Transaction, workspace: str, run: str, *, by: Actor) -> None:
    """Delete a run; it can be restored. Deleting it again changes when it was deleted.

    Raises:
        NotFoundError: the workspace has no such run.
    """
    row = tx.runs.get(workspace, run)
    tx.runs.mark(row.key, "deleted", deleted=experiments.now())
    by.record(tx, "run.delete", _resource(row), workspace=workspace, experiment=row.experiment)


def restore(tx: Transaction, workspace: str, run: str, *, by: Actor) -> None:
    """Restore a run; one that is not deleted stays as it is.

    Raises:
        NotFoundError: the workspace has no such run.
    """
    row = tx.runs.get(workspace, run)
    tx.runs.mark(row.key, "active", deleted=None)
    by.record(tx, "run.restore", _resource(row), workspace=workspace, experiment=row.experiment)


def set_tags(tx: Transaction, workspace: str, row: RunRow, tags: Sequence[Tag], *, by: Actor) -> None:
    """Set checked tags of an active run. The tag ``mlflow.runName`` renames it."""
    values = dict(tags)
    if not values:
        return
    if values.get(NAME_TAG):
        tx.runs.update(row.key, name=values[NAME_TAG], status=row.status, ended=row.ended)
    tx.runs.set_tags(row, values.items())
    by.record(tx, "run.tag", _resource(row), workspace=workspace, tags=values)


def set_tag(tx: Transaction, workspace: str, run: str, tag: Tag, *, by: Actor) -> None:
    """Set one tag of a run.

    Raises:
        InputError: the tag is not as it must be, or the run is deleted.
        NotFoundError: the workspace has no such run.
    """
    checked = validation.tag(tag)
    set_tags(tx, workspace, active(tx, workspace, run), [checked], by=by)


def delete_tag(tx: Transaction, workspace: str, run: str, key: str, *, by: Actor) -> None:
    """Delete a tag of a run.

    Raises:
        InputError: the run is deleted.
        NotFoundError: the workspace has no such run, or it has no such tag.
    """
    row = active(tx, workspace, run)
    if not tx.runs.delete_tag(row.key, key):
        raise NotFoundError(f"run {run} has no tag {key!r}")
    by.record(tx, "run.untag", _resource(row), workspace=workspace, tags=[key])


def new_params(tx: Transaction, row: RunRow, params: Sequence[Param], fresh: dict[tuple[int, str], str]) -> list[Param]:
    """Those of the params that the run does not have yet. ``fresh`` are those about to be logged, and gets them too.

    Raises:
        InputError: one has another value already; a param never changes.
    """
    known = dict(tx.runs.params([row.key]).get(row.key, ()))
    for key, value in params:
        there = known.get(key, fresh.get((row.key, key), value))
        if there != value:
            raise InputError(
                f"the param {key!r} of run {row.id} is {there!r} already and cannot become {value!r}",
                fix="log it under another name, to another run, or as a tag",
            )
    new = [each for each in params if each.key not in known and (row.key, each.key) not in fresh]
    fresh.update({(row.key, each.key): each.value for each in new})
    return new


def _update(
    tx: Transaction,
    workspace: str,
    row: RunRow,
    by: Actor,
    *,
    status: RunStatus | None,
    ended: int | None,
    name: str,
) -> RunRow:
    changed = msgspec.structs.replace(
        row,
        status=row.status if status is None else status,
        ended=row.ended if ended is None else ended,
        name=name or row.name,
    )
    tx.runs.update(row.key, name=changed.name, status=changed.status, ended=changed.ended)
    if name:
        tx.runs.set_tags(row, [(NAME_TAG, name)])
    values = {"status": changed.status, "ended": changed.ended, "name": changed.name}
    by.record(tx, "run.update", _resource(row), workspace=workspace, **values)
    return changed


def _with_data(tx: Transaction, rows: list[RunRow], token: str | None) -> RunPage:
    keys = [row.key for row in rows]
    return RunPage(rows, tx.metrics.latest(keys), tx.runs.params(keys), tx.runs.tags(keys), token)


def _resource(row: RunRow) -> str:
    return f"{RUN}{row.id}"
