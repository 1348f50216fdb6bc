"""Experiments: made, found, renamed, deleted and restored as in MLflow, each within one workspace."""

from collections.abc import Iterable, Sequence
from typing import Literal
from urllib.parse import quote

import msgspec

from bedplate import clock
from bedplate.errors import InputError, NotFoundError, StateError
from bedplate.store import Transaction, pages
from bedplate.store.experiments import ExperimentRow, Lifecycle
from bedplate.store.filters import Clause, Grammar, parse, parse_order
from bedplate.store.workspaces import DEFAULT
from bedplate.tracking import filters, validation
from bedplate.tracking.actors import Actor
from bedplate.tracking.validation import Tag

View = Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"]

LIFECYCLES: dict[View, tuple[Lifecycle, ...]] = {
    "ACTIVE_ONLY": ("active",),
    "DELETED_ONLY": ("deleted",),
    "ALL": ("active", "deleted"),
}
MOST_RESULTS = 50_000


class Experiment(msgspec.Struct, frozen=True):
    """An experiment with its tags."""

    row: ExperimentRow
    tags: dict[str, str]


class ExperimentPage(msgspec.Struct, frozen=True):
    """Experiments, and the token of the next page if there is one."""

    experiments: list[Experiment]
    next_page_token: str | None


def create(
    tx: Transaction,
    workspace: str,
    name: str,
    *,
    by: Actor,
    artifact_location: str = "",
    tags: Iterable[Tag] = (),
) -> ExperimentRow:
    """Make an experiment. Its artifacts lie with this server, unless ``artifact_location`` names another place.

    Raises:
        InputError: the name, the location or a tag is not as it must be.
        ConflictError: the workspace has an experiment of this name, maybe a deleted one.
        NotFoundError: there is no such workspace.
    """
    validation.experiment_name(name)
    checked = {tag.key: tag.value for tag in map(validation.experiment_tag, tags)}
    if artifact_location:
        validation.location(artifact_location)
    tx.workspaces.get(workspace)
    row = tx.experiments.add(workspace, name, now=now())
    location = artifact_location or location_of(workspace, row.id)
    tx.experiments.locate(row.id, location)
    tx.experiments.set_tags(row.id, checked)
    by.record(tx, "experiment.create", _resource(row.id), workspace=workspace, name=name, tags=checked)
    return msgspec.structs.replace(row, artifact_location=location)


def get(tx: Transaction, workspace: str, experiment: str) -> Experiment:
    """The experiment of this id, deleted or not.

    Raises:
        InputError: it is no id of an experiment.
        NotFoundError: the workspace has none of this id.
    """
    return _with_tags(tx, [row(tx, workspace, experiment)])[0]


def get_by_name(tx: Transaction, workspace: str, name: str) -> Experiment:
    """The experiment of this name, deleted or not.

    Raises:
        NotFoundError: the workspace has none of this name.
    """
    found = tx.experiments.by_name(workspace, name)
    if found is None:
        raise NotFoundError(f"there is no experiment named {name!r}")
    return _with_tags(tx, [found])[0]


def row(tx: Transaction, workspace: str, experiment: str) -> ExperimentRow:
    """The experiment of this id without its tags; with no id that of number 0.

    Raises:
        InputError: it is no id of an experiment.
        NotFoundError: the workspace has none of this id.
    """
    return tx.experiments.get(workspace, validation.experiment_id(experiment or "0"))


def active(tx: Transaction, workspace: str, experiment: str) -> ExperimentRow:
    """The experiment of this id, which must not be deleted.

    Raises:
        InputError: it is deleted, or it is no id of an experiment.
        NotFoundError: the workspace has none of this id.
    """
    found = row(tx, workspace, experiment)
    if found.lifecycle != "active":
        raise InputError(
            f"experiment {found.id} is {found.lifecycle}",
            fix="restore it first",
        )
    return found


def search(
    tx: Transaction,
    workspace: str,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    view: View = "ACTIVE_ONLY",
    max_results: int = 1_000,
    page_token: str | None = None,
) -> ExperimentPage:
    """The experiments of a workspace that match, newest first unless ``order_by`` says otherwise.

    Raises:
        InputError: filter, order, count or token is not as it must be.
    """
    count(max_results)
    clauses = experiment_clauses(filter, filters.EXPERIMENTS)
    orders = parse_order(order_by, filters.EXPERIMENTS)
    query = ("experiments", workspace, filter, tuple(order_by), view)
    after = pages.position(query, page_token)
    found, last = tx.experiment_search.find(
        workspace, clauses, orders, lifecycles=LIFECYCLES[view], limit=max_results, after=after
    )
    return ExperimentPage(_with_tags(tx, found), pages.token(query, last))


def rename(tx: Transaction, workspace: str, experiment: str, name: str, *, by: Actor) -> None:
    """Give an experiment another name.

    Raises:
        InputError: the name is not as it must be.
        NotFoundError: the workspace has no such experiment.
        StateError: it is deleted.
        ConflictError: another experiment of the workspace has this name.
    """
    validation.experiment_name(name)
    found = row(tx, workspace, experiment)
    if found.lifecycle != "active":
        raise StateError("a deleted experiment cannot be renamed", where=_resource(found.id), fix="restore it first")
    tx.experiments.rename(found.id, name, now=now())
    by.record(tx, "experiment.rename", _resource(found.id), workspace=workspace, name=name, was=found.name)


def delete(tx: Transaction, workspace: str, experiment: str, *, by: Actor) -> None:
    """Delete an experiment and its runs. They can be restored.

    Raises:
        NotFoundError: the workspace has no such experiment, or it is deleted already.
    """
    _mark(tx, workspace, experiment, "active", "deleted", "experiment.delete", by)


def restore(tx: Transaction, workspace: str, experiment: str, *, by: Actor) -> None:
    """Restore a deleted experiment with its runs: all of them, as all were deleted with it.

    Raises:
        NotFoundError: the workspace has no such experiment, or it is not deleted.
    """
    _mark(tx, workspace, experiment, "deleted", "active", "experiment.restore", by)


def set_tag(tx: Transaction, workspace: str, experiment: str, tag: Tag, *, by: Actor) -> None:
    """Set a tag; one that is there gets the new value.

    Raises:
        InputError: the tag is not as it must be, or the experiment is deleted.
        NotFoundError: the workspace has no such experiment.
    """
    validation.experiment_tag(tag)
    found = active(tx, workspace, experiment)
    tx.experiments.set_tags(found.id, {tag.key: tag.value})
    by.record(tx, "experiment.tag", _resource(found.id), workspace=workspace, tags={tag.key: tag.value})


def delete_tag(tx: Transaction, workspace: str, experiment: str, key: str, *, by: Actor) -> None:
    """Delete a tag.

    Raises:
        InputError: the experiment is deleted.
        NotFoundError: the workspace has no such experiment, or it has no such tag.
    """
    found = active(tx, workspace, experiment)
    if not tx.experiments.delete_tag(found.id, key):
        raise NotFoundError(f"experiment {found.id} has no tag {key!r}")
    by.record(tx, "experiment.untag", _resource(found.id), workspace=workspace, tags=[key])


def experiment_clauses(text: str, grammar: Grammar) -> tuple[Clause, ...]:
    """The comparisons of a filter, with ids of experiments checked.

    Raises:
        InputError: it is not of the grammar, or names what is no id of an experiment.
    """
    clauses = parse(text, grammar)
    for clause in clauses:
        if clause.kind == "attribute" and clause.key == "experiment_id":
            for each in clause.value if isinstance(clause.value, tuple) else (str(clause.value),):
                validation.experiment_id(each)
    return clauses


def count(max_results: int) -> None:
    """Check how many results are asked for.

    Raises:
        InputError: none, or too many.
    """
    if not 1 <= max_results <= MOST_RESULTS:
        raise InputError(
            f"max_results is {max_results}, from 1 to {MOST_RESULTS:,} are possible",
            fix="ask for pages",
        )


def now() -> int:
    """Milliseconds since 1970."""
    return int(clock.now().timestamp() * 1000)


def _mark(
    tx: Transaction, workspace: str, experiment: str, was: Lifecycle, to: Lifecycle, action: str, by: Actor
) -> None:
    found = row(tx, workspace, experiment)
    if found.lifecycle != was:
        raise NotFoundError(f"there is no {was} experiment {found.id}")
    moment = now()
    tx.experiments.mark(found.id, to, now=moment)
    runs = tx.runs.mark_all(found.id, to, deleted=moment if to == "deleted" else None)
    by.record(tx, action, _resource(found.id), workspace=workspace, name=found.name, runs=runs)


def _with_tags(tx: Transaction, rows: Sequence[ExperimentRow]) -> list[Experiment]:
    tags = tx.experiments.tags([each.id for each in rows])
    return [Experiment(each, tags.get(each.id, {})) for each in rows]


def location_of(workspace: str, experiment: int) -> str:
    """Where clients send artifacts: through this server, under the number, never the name, of the experiment."""
    if workspace == DEFAULT:
        return f"mlflow-artifacts:/{experiment}"
    return f"mlflow-artifacts:/workspaces/{quote(workspace, safe='')}/{experiment}"


def _resource(experiment: int) -> str:
    return f"experiment/{experiment}"
