"""The places that this home keeps rows in, and the one question about them: may rows of a use case lie there?

Whatever a home keeps of a use case (tables, features online, logged predictions, models, caches) lies in its places, so
each of them counts for every operation. Sources and copies are places beside them.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from bedplate.errors import DeniedError, InputError
from bedplate.policy.residency import Place, Refusal, refusal
from bedplate.records import REGIONS, Governance
from bedplate.settings import Settings
from bedplate.usecase.types import UseCase

if TYPE_CHECKING:
    from bedplate.app.system import System


def of_home(settings: Settings) -> tuple[Place, ...]:
    """The home, and whatever it keeps things in outside of its folder."""
    places = [Place("the home", settings.region, "BEDPLATE_REGION")]
    if settings.storage:
        places.append(Place("its object storage", settings.storage_region, "BEDPLATE_STORAGE_REGION"))
    if settings.database:
        places.append(Place("its database", settings.database_region, "BEDPLATE_DATABASE_REGION"))
    if settings.online:
        places.append(Place("its server of online features", settings.online_region, "BEDPLATE_ONLINE_REGION"))
    return tuple(places)


def of_use_case(settings: Settings, use_case: UseCase) -> tuple[Place, ...]:
    """Every place that a run of a use case brings its rows from or to."""
    from bedplate.data.sources import places

    sources = (places.where(data.source, name) for name, data in use_case.data.items())
    return (*of_home(settings), *chain.from_iterable(sources))


def declared(settings: Settings, use_case: UseCase) -> dict[str, object]:
    """What the ledger keeps of a stage that went on: where rows have to stay, and where each place says that it is."""
    residency = use_case.requirements.residency
    if not residency:
        return {}
    return {"residency": list(residency), "places": {p.name: p.region for p in of_use_case(settings, use_case)}}


def of_copy(region: str) -> Place:
    """Where a backup is written to.

    Raises:
        InputError: there is no such region.
    """
    if region and region not in REGIONS:
        raise InputError(f"{region!r} is not a region", where="--region", fix=f"use one of {', '.join(REGIONS)}")
    return Place("the backup", region, "--region")


def may_copy(system: "System", actor: str, region: str) -> dict[str, tuple[str, ...]]:
    """Refuse a backup to a region that a use case of this home does not allow. Where rows of each have to stay.

    Raises:
        DeniedError: one does not allow it; the ledger says so.
        InputError: there is no such region.
    """
    from bedplate.app import access  # imports this module

    place = of_copy(region)
    with system.store.read() as tx:
        found = {row.name: access.residency_of(tx, row.name) for row in tx.use_cases.list()}
    for use_case, residency in found.items():
        demand(system, actor, "home.backup", use_case, residency, (place,))
    return {use_case: residency for use_case, residency in found.items() if residency}


def withheld(settings: Settings, governance: Governance) -> Refusal | None:
    """Why nothing of a use case may be kept here, by what its file said when it was last checked."""
    return refusal(governance.residency, of_home(settings))


def demand(
    system: "System",
    actor: str,
    action: str,
    use_case: str,
    residency: Sequence[str],
    places: Iterable[Place],
    *,
    auth: str = "key",
) -> None:
    """Refuse to bring rows of a use case to places where they may not lie; the ledger says so.

    Raises:
        DeniedError: they may not.
    """
    places = tuple(places)
    refused = refusal(residency, places)
    if refused is None:
        return
    with system.store.transaction() as tx:
        system.ledger.record(
            tx,
            actor=actor,
            action=action,
            resource=f"use_case/{use_case}",
            decision="deny",
            payload={
                "reasons": [refused.reason],
                "residency": list(residency),
                "places": {place.name: place.region for place in places},
            },
            auth=auth,
        )
    raise denied(use_case, refused)


def denied(use_case: str, refused: Refusal) -> DeniedError:
    """The error that says so."""
    return DeniedError(f"{use_case}: {refused.reason}", where=refused.where, fix=refused.fix)
