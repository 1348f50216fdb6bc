"""Every route of MLflow's API, in one list: what is not here is not there."""

from collections.abc import Iterator

from bedplate.api.mlflow import (
    artifacts,
    experiments,
    inputs,
    logged_models,
    metrics,
    registry,
    runs,
    server,
    users,
    workspaces,
)
from bedplate.app.site import Site
from bedplate.http import Route


def routes(site: Site) -> Iterator[Route]:
    """The routes under ``/api/2.0``, ``/api/3.0`` and their twins for pages, and the probes beside them."""
    yield from server.routes(site)
    yield from experiments.routes(site)
    yield from runs.routes(site)
    yield from metrics.routes(site)
    yield from inputs.routes(site)
    yield from logged_models.routes(site)
    yield from artifacts.routes(site)
    yield from registry.routes(site)
    yield from workspaces.routes(site)
    yield from users.routes(site)
