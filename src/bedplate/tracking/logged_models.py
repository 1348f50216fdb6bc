"""Logged models: begun, finished, searched and deleted as in MLflow, each in an experiment of one workspace."""

import json
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from bedplate.errors import InputError, NotFoundError, StateError, UnfitError
from bedplate.http.messages import too_deep
from bedplate.store import Transaction, pages
from bedplate.store.logged_models import (
    PENDING,
    READY,
    UPLOAD_FAILED,
    LoggedModelRow,
    ModelMetric,
    ModelPoint,
)
from bedplate.store.model_search import ATTRIBUTES, STATUS, DatasetFilter, ModelOrder
from bedplate.store.runs import Pairs, RunRow
from bedplate.tracking import experiments, filters, names, runs, validation
from bedplate.tracking.actors import Actor
from bedplate.tracking.inputs import LONGEST_DIGEST, LONGEST_MODEL_ID, LONGEST_NAME, once
from bedplate.tracking.validation import Metric, Param, Tag

LONGEST_KEY = 255
LONGEST_TYPE = 500
LONGEST_RUN_ID = 32
USUAL_RESULTS = 100
DEEPEST = 64
"""How deep the description of a model may nest."""
FORBIDDEN = frozenset("/:.%\"'")
"""What the name of a logged model may not hold: it stands in addresses such as ``models:/name``."""
HISTORY_TAG = "mlflow.log-model.history"
VERSIONS_TAG = "mlflow.modelVersions"

_HISTORY = ("run_id", "artifact_path", "utc_time_created", "model_uuid")
_NEEDED = ("artifact_path", "flavors", "utc_time_created", "run_id")


class LoggedModelPage(msgspec.Struct, frozen=True):
    """Logged models in order, what was logged of them by the key of the model, and the token of the next page."""

    models: list[LoggedModelRow]
    params: Pairs
    tags: Pairs
    metrics: dict[int, list[ModelMetric]]
    next_page_token: str | None = None


class Measured(NamedTuple):
    """A checked value that a run logs about a model, maybe on one dataset."""

    metric: Metric
    model_id: str
    dataset_name: str = ""
    dataset_digest: str = ""


class Key(NamedTuple):
    """One key to order by, as clients give it."""

    field_name: str
    ascending: bool = True
    dataset_name: str = ""
    dataset_digest: str = ""


# --------------------------------------------------------------------------------------------------------------- life


def create(
    tx: Transaction,
    workspace: str,
    experiment: str,
    *,
    by: Actor,
    name: str = "",
    model_type: str = "",
    source_run: str = "",
    params: Sequence[Param] = (),
    tags: Sequence[Tag] = (),
) -> LoggedModelPage:
    """Begin a model; its files come after it, and then :func:`finish` says so. Without a name one is made up.

    Raises:
        InputError: a part of it is not as it must be, or the experiment is deleted.
        UnfitError: a param or a tag comes twice.
        NotFoundError: the workspace has no such experiment.
    """
    if FORBIDDEN & set(name):
        raise InputError(
            f"Invalid model name ({name[:200]!r}) provided. It cannot contain any of / : . % \" '",
            where="name",
            fix="choose a name without them",
        )
    for part, value, most in (
        ("name", name, LONGEST_NAME),
        ("model_type", model_type, LONGEST_TYPE),
        ("source_run_id", source_run, LONGEST_RUN_ID),
    ):
        validation.text(value, part, most)
    given_params, given_tags = _pairs("params", params), _pairs("tags", tags)
    parent = experiments.active(tx, workspace, experiment)
    model = f"m-{uuid.uuid4().hex}"
    row = tx.logged_models.add(
        model,
        parent.id,
        name=name or names.make_up(),
        model_type=model_type,
        source_run=source_run,
        artifact_location=f"{parent.artifact_location.rstrip('/')}/models/{model}/artifacts",
        now=experiments.now(),
    )
    tx.logged_models.add_params(row, given_params)
    tx.logged_models.set_tags(row, given_tags)
    by.record(
        tx, "logged_model.create", _resource(row),
        workspace=workspace, experiment=parent.id, name=row.name, params=given_params, tags=given_tags,
    )  # fmt: skip
    return _with_data(tx, [row])


def get(tx: Transaction, workspace: str, model: str, *, allow_deleted: bool = False) -> LoggedModelPage:
    """The model of this id with what was logged of it.

    Raises:
        NotFoundError: the workspace has none, or it is deleted and that is not allowed.
    """
    return _with_data(tx, [find(tx, workspace, model) if allow_deleted else active(tx, workspace, model)])


def active(tx: Transaction, workspace: str, model: str) -> LoggedModelRow:
    """The model of this id without what was logged of it.

    Raises:
        NotFoundError: the workspace has none, or it is deleted.
    """
    row = find(tx, workspace, model)
    if row.lifecycle != "active":
        raise _missing(model)
    return row


def find(tx: Transaction, workspace: str, model: str) -> LoggedModelRow:
    """The model of this id, deleted or not, without what was logged of it.

    Raises:
        NotFoundError: the workspace has none.
    """
    row = tx.logged_models.find(workspace, model)
    if row is None:
        raise _missing(model)
    return row


def finish(tx: Transaction, workspace: str, model: str, status: int, *, by: Actor) -> LoggedModelPage:
    """Say how the upload of a model's files ended.

    Raises:
        NotFoundError: the workspace has no such model.
    """
    row = find(tx, workspace, model)
    moment = experiments.now()
    tx.logged_models.finish(row.key, status, now=moment)
    word = {number: word for word, number in STATUS.items()}[status]
    by.record(tx, "logged_model.finish", _resource(row), workspace=workspace, status=word)
    return _with_data(tx, [msgspec.structs.replace(row, status=status, updated=moment)])


def status(given: str) -> int:
    """The number of a status in which an upload may end, from its name or number.

    Raises:
        InputError: it is neither.
    """
    number = STATUS.get(given)
    if number not in (PENDING, READY, UPLOAD_FAILED):
        raise InputError(
            f"{given[:100]!r} is no status of a logged model",
            fix="use LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED",
        )
    return number


def delete(tx: Transaction, workspace: str, model: str, *, by: Actor) -> None:
    """Delete a model. Deleting it again changes when that was.

    Raises:
        NotFoundError: the workspace has no such model.
    """
    row = find(tx, workspace, model)
    tx.logged_models.mark(row.key, "deleted", now=experiments.now())
    by.record(tx, "logged_model.delete", _resource(row), workspace=workspace, experiment=row.experiment)


def set_tags(tx: Transaction, workspace: str, model: str, tags: Sequence[Tag], *, by: Actor) -> None:
    """Set tags; one that is there gets the new value, and one that is given twice the last.

    Raises:
        InputError: a tag is not as it must be.
        NotFoundError: the workspace has no such model.
    """
    given = {tag.key: tag for tag in tags}
    values = _pairs("tags", list(given.values()))
    row = find(tx, workspace, model)
    if values:
        tx.logged_models.set_tags(row, values)
        by.record(tx, "logged_model.tag", _resource(row), workspace=workspace, tags=values)


def delete_tag(tx: Transaction, workspace: str, model: str, key: str, *, by: Actor) -> None:
    """Delete a tag.

    Raises:
        NotFoundError: the workspace has no such model, or it has no such tag.
    """
    row = find(tx, workspace, model)
    if not tx.logged_models.delete_tag(row.key, key):
        raise NotFoundError(f"No tag with key {key!r} found for model with ID {model!r}")
    by.record(tx, "logged_model.untag", _resource(row), workspace=workspace, tags=[key])


def log_params(tx: Transaction, workspace: str, model: str, params: Sequence[Param], *, by: Actor) -> None:
    """Log params.

    Raises:
        InputError: a param is not as it must be.
        UnfitError: one comes twice, or the model has it already.
        NotFoundError: the workspace has no such model.
    """
    values = _pairs("params", params)
    row = find(tx, workspace, model)
    known = dict(tx.logged_models.params([row.key]).get(row.key, ()))
    there = sorted(values.keys() & known.keys())
    if there:
        raise UnfitError(
            f"The model {model} has the params {', '.join(map(repr, there[:10]))} already", fix="log each param once"
        )
    if values:
        tx.logged_models.add_params(row, values)
        by.record(tx, "logged_model.params", _resource(row), workspace=workspace, params=values)


# ------------------------------------------------------------------------------------------------------------ metrics


def measured(metric: Metric, model_id: str, dataset_name: str, dataset_digest: str) -> Measured | None:
    """Check what a checked value was measured of, and on which dataset; None if it is about no model.

    Raises:
        InputError: a dataset has only one of name and digest, or a part is too long or cannot be stored.
    """
    if bool(dataset_name) != bool(dataset_digest):
        raise InputError(
            "Both dataset_name and dataset_digest must be provided if one is provided", fix="give both or neither"
        )
    validation.text(model_id, "model_id", LONGEST_MODEL_ID)
    validation.text(dataset_name, "dataset_name", LONGEST_NAME)
    validation.text(dataset_digest, "dataset_digest", LONGEST_DIGEST)
    return Measured(metric, model_id, dataset_name, dataset_digest) if model_id else None


def points(tx: Transaction, workspace: str, run: RunRow, values: Sequence[Measured]) -> list[ModelPoint]:
    """Values about models as the store keeps them, to be numbered yet. Nothing is written.

    Raises:
        UnfitError: the workspace has no such model.
    """
    models = {each.model_id: tx.logged_models.find(workspace, each.model_id) for each in values}
    found = []
    for (key, value, timestamp, step), model, name, digest in values:
        row = models[model]
        if row is None:
            raise UnfitError(f"There is no logged model with ID '{model}'", fix="log the model first")
        point = (run.key, key, float(value), timestamp, step, name, digest)
        found.append(ModelPoint(row.key, row.id, row.experiment, *point, position=0))
    return found


# ------------------------------------------------------------------------------------------------------------- search


def search(
    tx: Transaction,
    workspace: str,
    within: Sequence[str],
    *,
    filter: str = "",
    datasets: Sequence[DatasetFilter] = (),
    order_by: Sequence[Key] = (),
    max_results: int = 0,
    page_token: str | None = None,
) -> LoggedModelPage:
    """Models of these experiments that match, newest first unless ``order_by`` says otherwise.

    With ``datasets`` only values count that were measured on one of them. Experiments of other workspaces are as good
    as none.

    Raises:
        InputError: an id, filter, dataset, order, count or token is not as it must be.
    """
    if max_results < 0:
        raise InputError(f"max_results is {max_results}, and must not be negative")
    if not all(each.name for each in datasets):
        raise InputError("one of the datasets has no dataset_name", fix="give dataset_name")
    numbers = [validation.experiment_id(each) for each in within]
    clauses = experiments.experiment_clauses(filter, filters.LOGGED_MODELS)
    orders = _orders(order_by)
    for each in (*datasets, *(DatasetFilter(order.dataset_name, order.dataset_digest) for order in orders)):
        validation.text(each.name, "dataset_name")
        validation.text(each.digest, "dataset_digest")
    query = ("logged-models", workspace, tuple(numbers), filter, tuple(datasets), tuple(order_by))
    after = pages.position(query, page_token)
    keys, last = tx.model_search.models(
        tx.experiments.within(workspace, numbers),
        clauses,
        orders,
        datasets=datasets,
        limit=min(max_results or USUAL_RESULTS, experiments.MOST_RESULTS),
        after=after,
    )
    return _with_data(tx, tx.logged_models.rows(keys), pages.token(query, last))


def _orders(given: Sequence[Key]) -> list[ModelOrder]:
    """The keys to order by, each once: what a key that comes again says is said already."""
    orders: dict[tuple[str, ...], ModelOrder] = {}
    for field, ascending, name, digest in given:
        kind, dot, key = field.partition(".")
        if not dot:
            attribute = filters.LOGGED_MODELS.aliases.get(field, field)
            if attribute not in ATTRIBUTES:
                raise InputError(
                    f"Invalid order by field name: {field[:200]}",
                    where="order_by",
                    fix=f"use metrics.<name> or one of {', '.join(ATTRIBUTES)}",
                )
            orders.setdefault((attribute,), ModelOrder("attribute", attribute, ascending))
        elif kind != "metrics":
            raise InputError(
                f"Invalid order by field name: {field[:200]}. Only metrics are supported.", where="order_by"
            )
        else:
            validation.text(key, "order_by")
            orders.setdefault((kind, key, name, digest), ModelOrder("metric", key, ascending, name, digest))
    return list(orders.values())


# ------------------------------------------------------------------------------------------------ models of former days


def described(model_json: str) -> dict[str, Any]:
    """What a run keeps of an MLmodel file that a client of former days describes to it.

    Raises:
        InputError: it is no JSON, or lacks what is needed.
    """
    model = _parsed(model_json)
    if model is None:
        raise InputError("Malformed model info: it is not valid JSON, or nests too deep", where="model_json")
    if not isinstance(model, dict):
        raise InputError("Malformed model info: it is no object", where="model_json")
    missing = [name for name in _NEEDED if name not in model]
    if missing:
        raise InputError(f"Model json is missing mandatory fields: {', '.join(missing)}", where="model_json")
    flavors = model["flavors"]
    if not isinstance(flavors, dict):
        raise InputError("Malformed model info: its flavors are no object", where="model_json")
    kept = {name: model.get(name) for name in _HISTORY}
    kept = {name: value for name, value in kept.items() if value is not None or name == "model_uuid"}
    kept["flavors"] = {
        name: {key: value for key, value in flavor.items() if key != "config"} if isinstance(flavor, dict) else flavor
        for name, flavor in flavors.items()
    }
    return kept


def add_to_history(tx: Transaction, workspace: str, run: str, model: dict[str, Any], *, by: Actor) -> None:
    """Add a model as :func:`described` to the tag in which a run lists the models that were logged to it.

    Raises:
        InputError: the run is deleted, or the list would hold what cannot be stored.
        NotFoundError: the workspace has no such run.
        StateError: somebody set the tag to what is no list.
    """
    row = runs.active(tx, workspace, run)
    before = dict(tx.runs.tags([row.key]).get(row.key, ())).get(HISTORY_TAG, "[]")
    listed = _parsed(before)
    if not isinstance(listed, list):
        raise StateError(f"the tag {HISTORY_TAG} is no list", where=f"run/{row.id}", fix="delete the tag")
    value = validation.text(json.dumps([*listed, model]), HISTORY_TAG)
    runs.set_tags(tx, workspace, row, [Tag(HISTORY_TAG, value)], by=by)


def add_version(tx: Transaction, workspace: str, model: str, name: str, number: int) -> None:
    """Add a registered version to the tag in which a logged model lists those that were made of it.

    It is part of registering the version, which has its entry in the ledger. A model that is not there lists nothing.
    """
    row = tx.logged_models.find(workspace, model)
    if row is None:
        return
    listed = _parsed(dict(tx.logged_models.tags([row.key]).get(row.key, ())).get(VERSIONS_TAG, "[]"))
    versions = [*(listed if isinstance(listed, list) else []), {"name": name, "version": number}]
    tx.logged_models.set_tags(row, {VERSIONS_TAG: json.dumps(versions)})


# ------------------------------------------------------------------------------------------------------------ helpers


def _parsed(text: str) -> Any:
    """The value of a JSON text that strangers wrote; None if it is none, or nests too deep to be gone through."""
    try:
        return None if too_deep(text.encode(), DEEPEST) else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _pairs(what: str, given: Sequence[Param] | Sequence[Tag]) -> dict[str, str]:
    once(what, (each.key for each in given))
    for index, (key, value) in enumerate(given):
        validation.text(key, f"{what}[{index}].key", LONGEST_KEY)
        validation.text(value, f"{what}[{index}].value")
    return {each.key: each.value for each in given}


def _with_data(tx: Transaction, rows: list[LoggedModelRow], token: str | None = None) -> LoggedModelPage:
    keys = [row.key for row in rows]
    models = tx.logged_models
    return LoggedModelPage(rows, models.params(keys), models.tags(keys), models.metrics(keys), token)


def _missing(model: str) -> NotFoundError:
    return NotFoundError(f"there is no logged model {model[:200]!r}")


def _resource(row: LoggedModelRow) -> str:
    return f"logged_model/{row.id}"
