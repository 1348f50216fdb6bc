"""Feature views of a home: what is declared, what is online, and the values of an entity as somebody may see them."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import clock, journal, usecase
from bedplate.app import access, declarations, endpoints, residency
from bedplate.app.feature_reports import (
    SKEW,
    EntityValues,
    FeatureValues,
    Materialised,
    SkewReport,
    ViewLine,
    ViewReport,
    inherited,
)
from bedplate.app.stages import data
from bedplate.errors import DeniedError, InputError, NotFoundError, StateError
from bedplate.identity import Principal, policy_principal
from bedplate.policy import derived
from bedplate.records import FeatureRead, FeatureSet
from bedplate.serve.online_views import READS, Found, Lookup, published
from bedplate.usecase import Loaded

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.app.system import System
    from bedplate.features.views import FeatureView

MOST_KEYS = 1000
_reads = msgspec.json.Decoder(FeatureRead).decode_lines


def listed(system: "System", principal: Principal) -> tuple[ViewLine, ...]:
    """The views of the use cases that policy lets this person list, as they were last computed."""
    with system.store.read() as tx:
        names = [row.name for row in tx.use_cases.list()]
    found = []
    for name in names:
        made = _computed(system, name)
        if made is None or not _may_list(system, principal, name):
            continue
        for view, declared in made.declared.items():
            found.append(
                ViewLine(
                    use_case=name,
                    view=view,
                    entity=declared.entity,
                    features=len(made.columns[view]) + len(declared.on_demand),
                    owner=declared.owner,
                    as_of=_as_of(system, name, view),
                    digest=declared.digest,
                )
            )
    return tuple(found)


def show(system: "System", principal: Principal, use_case: str, view: str) -> ViewReport:
    """One view.

    Raises:
        DeniedError: policy does not let this person list the tables of the use case.
        NotFoundError: there is no such use case, or it has no such view.
    """
    made = _made(system, principal, use_case, view)
    declared = made.declared[view]
    with system.store.read() as tx:
        governed = access.governance(tx, use_case)
        skew = tx.facts.latest(use_case, SKEW)
    tags, sensitive = inherited(governed, declared)
    return ViewReport(
        use_case=use_case,
        view=view,
        features=(*made.columns[view], *declared.on_demand),
        declared=declared,
        purposes=(governed.purpose,),
        tags=tags,
        sensitive=sensitive,
        table=made.views[view].name,
        version=made.views[view].version,
        as_of=_as_of(system, use_case, view),
        online=system.online_of(use_case).count(view),
        skew=None if skew is None else msgspec.convert(skew.body, SkewReport),
    )


def record_reads(system: "System", endpoint: str) -> int:
    """Put what replicas of an endpoint were asked by key into the ledger, one entry for each sealed segment of their
    log: its count and digest, and who asked how often, of which view, for what. How many segments there were.

    Raises:
        IntegrityError: a segment is not what was sealed. It stays.
    """
    folder = endpoints.journal_of(system, endpoint) / READS
    journal.recover(folder)  # of replicas that were killed
    found = journal.segments(folder, sealed_only=True)
    for segment in found:
        asked = Counter[tuple[str, str, str, str]]()
        keys = Counter[tuple[str, str, str, str]]()
        for read in chain.from_iterable(map(_reads, journal.read(segment))):
            who = read.principal, read.view, read.purpose, read.decision
            asked[who] += 1
            keys[who] += read.keys
        names = ("principal", "view", "purpose", "decision")
        told = [dict(zip(names, who, strict=True), requests=asked[who], keys=keys[who]) for who in sorted(asked)]
        with system.store.transaction() as tx:
            resource = f"reads/{segment.id}"
            if not tx.ledger.recent(1, resource=resource):  # else killed between this entry and the removal below
                system.ledger.record(
                    tx, actor="flow", action="features.read", resource=resource,
                    payload={
                        "endpoint": endpoint, "segment": segment.id, "count": segment.count, "digest": segment.digest,
                        "reads": told,
                    },
                )  # fmt: skip
        journal.remove(segment)
    return len(found)


def get(
    system: "System", principal: Principal, use_case: str, view: str, keys: Sequence[int], purpose: str | None = None
) -> FeatureValues:
    """The features of some entities, as policy lets this person see them; the read is in the ledger.

    Raises:
        DeniedError: policy does not let this person read them for that purpose.
        InputError: no key, too many, or one of more than 64 bits.
        NotFoundError: there is no such view, or nothing of it is online.
    """
    if not 1 <= len(keys) <= MOST_KEYS or any(not -(1 << 63) <= key < 1 << 63 for key in keys):
        raise InputError(f"{len(keys)} keys cannot be looked up", fix=f"give 1 to {MOST_KEYS} whole numbers of 64 bits")
    made = _made(system, principal, use_case, view)
    with system.store.read() as tx:
        governed = access.governance(tx, use_case)
    who, chosen = policy_principal(principal), governed.purpose if purpose is None else purpose
    name = made.views[view].name
    resource = derived.resource_of(name, use_case, governed)
    declared = made.declared[view]
    outside = residency.withheld(system.settings, governed)
    refused = derived.refusal(system.policies, who, resource, chosen, governed, declared)
    refused = refused or ("" if outside is None else outside.reason)
    with system.store.transaction() as tx:
        system.ledger.record(
            tx,
            actor=principal.id,
            action="features.read",
            resource=f"table/{name}",
            decision="deny" if refused else "allow",
            payload={"keys": len(keys), "reasons": [refused] if refused else []},
            auth=principal.auth,
            purpose=chosen,
        )
    if refused:
        raise DeniedError(
            f"{principal.name} may not read features of {view} for purpose {chosen!r}: {refused}",
            where=name,
            fix=outside.fix if outside is not None else "ask for a purpose that the use case names, or for a right",
        )
    lookup = Lookup(system.online_of(use_case), view)
    masked = any(derived.hides(system.policies, who, resource, chosen, governed, each) for each in declared.rests_on)
    return FeatureValues(
        use_case=use_case,
        view=view,
        features=lookup.about.columns,
        entities=tuple(
            entity(key, found, masked=masked) for key, found in zip(keys, lookup.get_many(keys), strict=True)
        ),
        masked=masked,
    )


def entity(key: int, found: Found, *, masked: bool) -> EntityValues:
    """What was found of an entity, to be shown."""
    return EntityValues(
        key=key,
        values=(None,) * len(found.values) if masked else found.values,
        as_of=datetime.fromtimestamp(found.moment / 1e6, UTC).isoformat() if found.moment else None,
        missing=found.missing,
    )


def materialise(
    system: "System",
    principal: Principal,
    use_case: str,
    views: Sequence[str] = (),
    as_of: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Materialised:
    """Compute views, all of them unless some are named, from the newest rows, and put them online.

    They are those of the moment ``as_of``, by default now. With ``since`` and ``until`` (not included), views of rows
    are computed anew only for entities with a row that came into a window, or left one, in that range; the others keep
    what they have.

    Raises:
        DeniedError: policy does not let this person operate the use case.
        InputError: no such view or time; or a range for a view of moments.
        StateError: a view was declared anew since it was computed: the model was trained on another one.
    """
    from bedplate import features

    loaded = loaded_of(system, use_case)
    decision = access.demand(system, principal, "operate", access.use_case_resource(loaded.use_case))
    chosen = _chosen(system, loaded, views)
    moment = time(as_of, "--as-of") or clock.now()
    touched = _range(since, until, moment)
    if touched is not None and (whole := [view.name for view in chosen if not view.rows]):
        raise InputError(
            f"{whole[0]} is a view of moments, which is computed whole", where="--from", fix="name views of rows alone"
        )
    residency.demand(
        system, principal.id, "features.materialise", use_case, loaded.use_case.requirements.residency,
        residency.of_home(system.settings),
    )  # fmt: skip
    made = _computed(system, use_case)
    assert made is not None, "its views were chosen from there"
    counts: dict[str, int] = {}
    with system.lock(use_case):
        for view in chosen:
            table = features.compute_view(view, governed(system, loaded), [moment], touched=touched)
            if not view.rows:  # what was served stands in its table too, to be learned from and compared with
                system.tables.write(
                    made.views[view.name].name,
                    table,
                    mode="append",
                    key=f"materialised:{view.digest}:{moment.isoformat()}",
                )
            given = {view.name: (made.declared[view.name], table)}
            counts |= features.materialise(system.online_of(use_case), given, moment, replace=touched is None)
    shown = moment.astimezone(UTC).isoformat()
    with system.store.transaction() as tx:
        entry = system.ledger.record(
            tx,
            actor=principal.id,
            action="features.materialise",
            resource=f"use_case/{use_case}",
            decision="allow",
            payload={"as of": shown, "entities": counts, "from": since, "to": until},
            auth=principal.auth,
            policies=decision.policies,
            purpose=loaded.use_case.governance.purpose,
        )
    return Materialised(use_case=use_case, as_of=shown, views=counts, entry=entry)


# ------------------------------------------------------------------------------------------------------------ internal


def loaded_of(system: "System", use_case: str) -> Loaded:
    """The use case as it stands in its folder now.

    Raises:
        NotFoundError: there is none of this name.
        UseCaseError: it cannot be used.
    """
    with system.store.read() as tx:
        row = tx.use_cases.get(use_case)
    return usecase.load(Path(row.folder) / row.file, check_files=False)


def governed(system: "System", loaded: Loaded) -> Any:
    """``read(data set)``: the flow's governed read of its newest version."""
    from bedplate.data import ingest

    reader, name = access.reader(system, loaded.use_case), loaded.use_case.name

    def read(dataset: str) -> "pa.RecordBatchReader":
        return reader.read(system.tables.current(ingest.table_name(name, dataset)))

    return read


def unchanged(system: "System", loaded: Loaded) -> "tuple[FeatureView, ...]":
    """The views of the file as they were computed last.

    Raises:
        InputError: nothing was computed yet.
        StateError: one was declared anew since.
    """
    name = loaded.use_case.name
    made = _computed(system, name)
    if made is None:
        raise InputError(f"no features of {name} were computed yet", fix=f"bedplate run {loaded.folder}")
    views = declarations.views_of(system, loaded)
    for view in views:
        before = made.declared.get(view.name)
        if before is None or before.digest != view.digest:
            raise StateError(
                f"the view {view.name} was declared anew since it was computed",
                where=str(loaded.folder),
                fix=f"bedplate run {loaded.folder}: it is computed, and models are trained on it, first",
            )
    return views


def _chosen(system: "System", loaded: Loaded, wanted: Sequence[str]) -> "tuple[FeatureView, ...]":
    views = unchanged(system, loaded)
    known = {view.name: view for view in views}
    for name in wanted:
        if name not in known:
            raise InputError(f"there is no view {name!r}", where="VIEW", fix=f"name one of {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(wanted)) or views


def _computed(system: "System", use_case: str) -> FeatureSet | None:
    with system.store.read() as tx:
        made = tx.facts.latest(use_case, "features")
    found = None if made is None else msgspec.convert(made.body, FeatureSet)
    return found if found is not None and found.declared else None


def _made(system: "System", principal: Principal, use_case: str, view: str) -> FeatureSet:
    with system.store.read() as tx:
        tx.use_cases.get(use_case)
        governed = access.governance(tx, use_case)
    table = access.table_name(use_case, data.PART, view)
    access.demand(system, principal, "list", access.table_resource(table, use_case, governed))
    made = _computed(system, use_case)
    if made is None or view not in made.declared:
        raise NotFoundError(f"{use_case} has no feature view {view!r}", fix="see: bedplate features list")
    return made


def _may_list(system: "System", principal: Principal, use_case: str) -> bool:
    with system.store.read() as tx:
        resource = access.table_resource(use_case, use_case, access.governance(tx, use_case))
    return system.policies.decide(policy_principal(principal), "list", resource, {}).allowed


def _as_of(system: "System", use_case: str, view: str) -> str | None:
    try:
        return published(system.online_of(use_case), view).as_of
    except NotFoundError:
        return None


def _range(since: str | None, until: str | None, moment: datetime) -> tuple[datetime, datetime] | None:
    low, high = time(since, "--from"), time(until, "--to")
    if low is None and high is None:
        return None
    low, high = low or datetime(1, 1, 2, tzinfo=UTC), high or moment
    if low >= high:
        raise InputError("the range ends before it begins", where="--to", fix="give a later time than --from")
    return low, high


def time(text: str | None, where: str) -> datetime | None:
    """A moment that somebody wrote; without a zone it is UTC. Raises InputError where it is none."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no time", where=where, fix="write 2026-01-31T10:00 (UTC)") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
