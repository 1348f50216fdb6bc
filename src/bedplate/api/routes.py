"""Every route of the API, in one list: what is not here is not there."""

from collections.abc import Iterator

from bedplate.api import (
    audit,
    features,
    metrics,
    models,
    people,
    policies,
    quotas,
    releases,
    rollouts,
    scorings,
    use_cases,
    workspaces,
)
from bedplate.app.site import Site
from bedplate.http import Route


def routes(site: Site) -> Iterator[Route]:
    """The routes under ``/api/v1``, ``/checkpoint``, ``/metrics`` and ``/tile``."""
    yield from use_cases.routes(site)
    yield from releases.routes(site)
    yield from rollouts.routes(site)
    yield from features.routes(site)
    yield from quotas.routes(site)
    yield from scorings.routes(site)
    yield from models.routes(site)
    yield from audit.routes(site)
    yield from people.routes(site)
    yield from workspaces.routes(site)
    yield from policies.routes(site)
    yield from metrics.routes(site)
