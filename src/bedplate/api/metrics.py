"""What the control plane tells Prometheus: how upkeep went."""

from collections.abc import Iterator

from bedplate import clock
from bedplate.api.use_cases import LOOKS, SMALL
from bedplate.app import upkeep
from bedplate.app.site import Site
from bedplate.http import Request, ResourceRef, Response, Route, fixed

KIND = "text/plain; version=0.0.4; charset=utf-8"


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""

    def metrics(request: Request) -> Response:
        with site.store.read() as tx:
            names = [row.name for row in tx.use_cases.list()]
            open_to = [n for n in names if site.allows(request.principal, "read", ResourceRef("UseCase", n))]
            found = upkeep.standings(tx, open_to)
        return Response(headers=[("content-type", KIND)], body=exposition(found))

    yield Route(
        "GET", "/metrics", "list", fixed("Home", "home"), LOOKS, SMALL, metrics,
        name="metrics", summary="How upkeep went, for Prometheus",
    )  # fmt: skip


def exposition(found: list[upkeep.Standing]) -> bytes:
    """The standings as Prometheus reads them."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry, labels = CollectorRegistry(), ("use_case", "task")
    ok = Gauge("bedplate_upkeep_ok", "Whether a task ended well when it was done last.", labels, registry=registry)
    ended = Gauge("bedplate_upkeep_ended_seconds", "When a task ended last, since 1970.", labels, registry=registry)
    for standing in found:
        ok.labels(standing.use_case, standing.task).set(standing.last.ok)
        ended.labels(standing.use_case, standing.task).set(clock.parse(standing.last.ended).timestamp())
    return bytes(generate_latest(registry))
