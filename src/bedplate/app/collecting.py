"""Deleting for good what was deleted long enough ago, for whoever may administer the home."""

from datetime import timedelta
from typing import TYPE_CHECKING

from bedplate import clock
from bedplate.app import access, tables
from bedplate.app.read_models import GcReport
from bedplate.errors import InputError
from bedplate.identity import Principal
from bedplate.policy import values as policy
from bedplate.tracking.actors import Actor
from bedplate.tracking.collect import collect
from bedplate.usecase import quantities

if TYPE_CHECKING:
    from bedplate.app.system import System


def gc(system: "System", principal: Principal, older_than: str, *, dry_run: bool) -> GcReport:
    """Delete for good what was deleted ``older_than`` ago, in every workspace, and content that nothing names.

    Raises:
        DeniedError: the principal may not administer the home.
        InputError: ``older_than`` is no duration.
    """
    decision = access.demand(system, principal, "administer", policy.HOME)
    try:
        age = timedelta(seconds=quantities.parse(older_than, "duration"))
    except (quantities.QuantityError, OverflowError) as error:
        raise InputError(f"{error}", where="--older-than", fix="give a duration, for example 30 d") from error
    by = Actor(ledger=system.ledger, name=principal.id, auth=principal.auth, policies=decision.policies)
    found = collect(system.store, system.contents, system.uploads, age, by=by, dry_run=dry_run)
    system.appends.forget()
    before = clock.now() - max(age, tables.UNDER_WAY)
    orphans = sum(system.tables.collect(name, before, dry_run=dry_run) for name in system.tables.names())
    return GcReport(
        older_than=older_than,
        dry_run=dry_run,
        runs=found.runs,
        models=found.models,
        experiments=found.experiments,
        rows=found.rows,
        files=found.files,
        kept=found.kept,
        uploads=found.uploads,
        contents=found.content.removed,
        size=found.content.bytes,
        waiting=found.content.waiting,
        leftovers=found.content.leftovers + orphans,
    )
