"""What the page of a logged model shows: a model as a run logged it, before anybody registers it."""

from collections.abc import Mapping

import msgspec

from bedplate.release import searching
from bedplate.release.searching import Tagged
from bedplate.store import Store
from bedplate.store.experiments import ExperimentRow
from bedplate.store.logged_models import LoggedModelRow, ModelMetric
from bedplate.store.model_search import STATUS
from bedplate.store.runs import RunRow
from bedplate.tracking import logged_models

_WORDS = {number: word.removeprefix("LOGGED_MODEL_").replace("_", " ").lower() for word, number in STATUS.items()}
_VERSIONS = 20


class LoggedModelDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page of one logged model shows. ``run`` is the one that made it, if it is here."""

    workspace: str
    row: LoggedModelRow
    status: str
    experiment: ExperimentRow
    run: RunRow | None
    params: tuple[tuple[str, str], ...]
    tags: Mapping[str, str]
    metrics: tuple[ModelMetric, ...]
    versions: tuple[Tagged, ...]


def logged_model_detail(store: Store, workspace: str, model: str) -> LoggedModelDetail:
    """Everything about one logged model, deleted or not.

    Raises:
        NotFoundError: the workspace has no such model.
    """
    with store.read() as tx:
        page = logged_models.get(tx, workspace, model, allow_deleted=True)
        row = page.models[0]
        found = searching.versions(tx, workspace, filter=f"source_path = 'models:/{row.id}'", max_results=_VERSIONS)
        return LoggedModelDetail(
            workspace=workspace,
            row=row,
            status=_WORDS.get(row.status, "not known"),
            experiment=tx.experiments.get(workspace, row.experiment),
            run=tx.runs.find(workspace, row.source_run) if row.source_run else None,
            params=tuple(sorted(page.params.get(row.key, ()))),
            tags=dict(page.tags.get(row.key, ())),
            metrics=tuple(page.metrics.get(row.key, ())),
            versions=tuple(searching.aliased(tx, workspace, [each.row for each in found.versions])),
        )
