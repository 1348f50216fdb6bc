"""Erasing a person: each step takes what is theirs out of one place, and the ledger keeps a proof without their data.

The person is named by the value of the columns that the file calls ``subject``. Rows go out of every version of every
table of the use case: data sets, what was set aside, features, scores, logged predictions; then online features. Models
that were trained on them keep what they learned, so they are listed: they are to be trained anew. What lies outside the
home, sources and backups, is named and not touched.
"""

import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bedplate import clock, identifiers, journal
from bedplate.app import access, endpoints, inputs, leftovers, queries
from bedplate.app.table_reports import ErasureReport, ExpiryReport, HoldReport, Left
from bedplate.errors import BedplateError, InputError, NotFoundError, StateError, UnavailableError
from bedplate.identity import Principal
from bedplate.ids import Digest
from bedplate.records import Bundle, FeatureSet, IngestResult
from bedplate.serve.state import key_of, without
from bedplate.usecase.types import UseCase

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

    from bedplate.app.system import System

HOLD = "hold"
"""The kind of the fact that says whether a law or a dispute forbids to erase."""
_LONGEST = 200


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Fact ``hold``: nothing of the use case is erased while ``on``, and why."""

    on: bool
    reason: str
    by: str
    time: str


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to erase: ``value`` of the columns of these names, or, where rows were de-identified, its ``code``."""

    use_case: UseCase
    folder: Path
    value: str
    columns: tuple[str, ...]
    code: str | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """What stands for the person where rows landed."""
        return (self.value,) if self.code is None else (self.value, self.code)


# --------------------------------------------------------------------------------------------------------------- asked


def subject(system: "System", principal: Principal, use_case: str, value: str, reason: str) -> ErasureReport:
    """Take everything of one person out of a use case.

    Raises:
        DeniedError: policy does not let this person administer the use case.
        InputError: the file names no subject, or this can be nobody.
        NotFoundError: there is no such use case.
        StateError: it is on hold.
        UnavailableError: a replica still has predictions of the person in its log; run it again.
    """
    asked = _asked(system, use_case, value)
    decision = access.demand(system, principal, "administer", access.use_case_resource(asked.use_case))
    if any(value in _said(reason) for value in asked.values):
        raise InputError("the reason names the person, and stays", where="--reason", fix="leave them out of it")
    _not_on_hold(system, use_case)
    with system.lock(use_case):
        _ship(system, asked)
        online = _online(system, asked)
        tables = _tables(system, asked)
        models = _models(system, use_case, tables)
        served = _served(system, models)
    logged, left = 0, list[Left]()
    for each in asked.values:
        count, closed = leftovers.take_out(system, principal, each, asked.columns)
        logged, left = logged + count, [*left, *closed]
    left += [each for value in asked.values for each in leftovers.remaining(system, value) if each not in left]
    sources = _sources(system, asked)
    with system.store.transaction() as tx:
        entry = system.ledger.record(
            tx,
            actor=principal.id,
            action="subject.erase",
            resource=f"use_case/{use_case}",
            decision="allow",
            payload={
                "reason": _said(reason),
                "rows": tables,
                "online features": online,
                "params, tags and payloads": logged,
                "models to train anew": list(models.values()),
                "endpoints that serve them": list(served),
                "sources that still hold it": list(sources),
                "what stays": [f"{each.where}: {each.why}" for each in left],
            },
            auth=principal.auth,
            policies=decision.policies,
            purpose=asked.use_case.governance.purpose,
        )
    return ErasureReport(
        use_case=use_case,
        tables=tables,
        online=online,
        logged=logged,
        models=tuple(models.values()),
        endpoints=served,
        sources=sources,
        left=tuple(left),
        entry=entry,
    )


def expire(system: "System", principal: Principal, use_case: str, at: datetime | None = None) -> ExpiryReport:
    """Take out what is older than it may be kept: logged predictions by ``governance.retention``, rows of data sets by
    the SLA property ``retention`` of their contract. As of ``at``, or now.

    Raises:
        ContractError: a contract cannot be used.
        DeniedError: policy does not let this person operate the use case.
        InputError: neither the file nor a contract says how long anything is kept.
        NotFoundError: there is no such use case.
        StateError: it is on hold.
    """
    from bedplate.data.erase import erase as erase_rows

    loaded = queries.loaded(system.store, use_case)
    case, folder = loaded.use_case, loaded.folder
    decision = access.demand(system, principal, "operate", access.use_case_resource(case))
    _not_on_hold(system, use_case)
    limits = _limits(case, folder, clock.now() if at is None else at)
    if not limits:
        raise InputError(
            f"nothing says how long rows of {use_case} are kept",
            where=str(folder),
            fix="write governance.retention, or slaProperties: - {property: retention, ...} in a contract",
        )
    rows: dict[str, int] = {}
    with system.lock(use_case):
        for table, (column, before) in limits.items():
            if table not in system.tables.names():
                continue
            erased = erase_rows(system.tables, table, partial(_older, column=column, before=before))
            if erased.rows:
                rows[table] = erased.rows
    cuts = {table: before.isoformat() for table, (_, before) in limits.items()}
    with system.store.transaction() as tx:
        entry = system.ledger.record(
            tx,
            actor=principal.id,
            action="retention.expire",
            resource=f"use_case/{use_case}",
            decision="allow",
            payload={"rows": rows, "kept from": cuts},
            auth=principal.auth,
            policies=decision.policies,
        )
    return ExpiryReport(use_case=use_case, tables=rows, kept_from=cuts, entry=entry)


def _limits(case: UseCase, folder: Path, now: datetime) -> dict[str, tuple[str, datetime]]:
    """By table, the column that says how old a row is, and the oldest time that is kept."""
    from bedplate.data import contracts, ingest

    found = dict[str, tuple[str, datetime]]()
    if case.governance.retention is not None:
        before = now - timedelta(seconds=case.governance.retention)
        found[access.predictions_table(case.name)] = ("time", before)
    for name, data in case.data.items():
        contract = contracts.load(folder / data.contract)
        for kept in contract.retention:
            if kept.table in ("", contract.model(name).name):
                table = ingest.table_name(case.name, name)
                limit = (kept.column, now - timedelta(days=kept.days))
                found |= {table: limit, f"{table}.quarantine": limit}
    return found


def _older(schema: "pa.Schema", column: str, before: datetime) -> "pc.Expression | None":
    import pyarrow as pa
    import pyarrow.compute as pc

    if column not in schema.names:
        return None
    kind, field, plain = schema.field(column).type, pc.field((column,)), before.astimezone(UTC).replace(tzinfo=None)
    if pa.types.is_date(kind):
        return field < pa.scalar(plain.date(), kind)
    if pa.types.is_timestamp(kind):
        return field < pa.scalar(before if kind.tz else plain, kind)
    if pa.types.is_string(kind):  # rows that were set aside are kept as they stood
        day = pc.strptime(pc.utf8_slice_codeunits(field, 0, 10), format="%Y-%m-%d", unit="s", error_is_null=True)
        return day < pa.scalar(plain.replace(hour=0, minute=0, second=0, microsecond=0), pa.timestamp("s"))
    return None


def hold(system: "System", principal: Principal, use_case: str, reason: str, *, on: bool) -> HoldReport:
    """Forbid to erase anything of a use case, or allow it again.

    Raises:
        DeniedError: policy does not let this person administer the use case.
        NotFoundError: there is no such use case.
    """
    loaded = queries.loaded(system.store, use_case).use_case
    decision = access.demand(system, principal, "administer", access.use_case_resource(loaded))
    body = Hold(on=on, reason=_said(reason), by=principal.name, time=clock.timestamp())
    with system.store.transaction() as tx:
        tx.facts.put(HOLD, use_case, body)
        system.ledger.record(
            tx,
            actor=principal.id,
            action="erasure.hold" if on else "erasure.lift",
            resource=f"use_case/{use_case}",
            decision="allow",
            payload={"reason": body.reason},
            auth=principal.auth,
            policies=decision.policies,
        )
    return HoldReport(use_case=use_case, on=on, reason=body.reason, by=body.by)


def _said(reason: str) -> str:
    if not reason.strip() or len(reason) > 2000:
        raise InputError("a reason is needed", where="--reason", fix="say why, without naming the person")
    return reason.strip()


def _asked(system: "System", name: str, value: str) -> _Asked:
    loaded = queries.loaded(system.store, name)
    use_case, folder = loaded.use_case, loaded.folder
    columns = tuple(sorted({data.subject for data in use_case.data.values() if data.subject is not None}))
    if not columns:
        raise InputError(
            f"no data set of {name} names the person that its rows are about",
            where=f"{folder}/usecase.yaml",
            fix="name the column: data.<name>.subject",
        )
    if not value.strip() or len(value) > _LONGEST:
        raise InputError("this can be nobody", where="SUBJECT", fix=f"give the value of {', '.join(columns)}")
    code = None
    pictures = any(data.deidentify is not None and data.subject is not None for data in use_case.data.values())
    if pictures or use_case.governance.deidentify != "none":
        code = identifiers.code(access.mask_key(system, name), value)
    return _Asked(use_case=use_case, folder=folder, value=value.strip(), columns=columns, code=code)


def _not_on_hold(system: "System", use_case: str) -> None:
    with system.store.read() as tx:
        found = tx.facts.latest(use_case, HOLD)
    if found is None or not msgspec.convert(found.body, Hold).on:
        return
    held = msgspec.convert(found.body, Hold)
    raise StateError(
        f"nothing of {use_case} may be erased: {held.reason} ({held.by})",
        fix=f"once that is over: bedplate erasure lift {use_case} --reason ...",
    )


# --------------------------------------------------------------------------------------------------------------- steps


def _ship(system: "System", asked: _Asked) -> None:
    """Move logged predictions into their table, where they can be erased.

    Raises:
        UnavailableError: a replica still has some of this person in its own log.
    """
    from bedplate.observe.ship import ship

    with system.store.read() as tx:
        names = [row.name for row in tx.endpoints.list() if row.use_case == asked.use_case.name]
    for name in names:
        folder = endpoints.journal_of(system, name)
        try:
            system.supervisor.seal(name)
        except NotFoundError:
            journal.recover(folder)  # no replica runs here: what they left open is whole
        table = access.predictions_table(asked.use_case.name)
        ship(folder, system.tables, table, on_segment=endpoints.recorder(system))
        files = (path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else ()
        contents = (path.read_bytes() for path in files)
        if any(value.encode() in content for content in contents for value in asked.values):
            raise UnavailableError(
                f"a replica of {name} still has predictions of this person in its log",
                where=str(folder),
                fix="run the same command again in a moment",
            )


def _tables(system: "System", asked: _Asked) -> dict[str, int]:
    """Take the rows out of every table of the use case; how many, by table that had any."""
    from bedplate.data.erase import erase as erase_rows

    name, found = asked.use_case.name, {}
    for table in system.tables.names():
        if access.use_case_of(table) != name:
            continue
        try:
            system.tables.current(table)
        except NotFoundError:
            continue  # its first write has not ended, or never will
        erased = erase_rows(system.tables, table, _marked(system, asked, table))
        if erased.rows:
            found[table] = erased.rows
    return found


def _marked(system: "System", asked: _Asked, table: str) -> "Callable[[pa.Schema], pc.Expression | None]":
    """Which rows of a table are the person's."""
    import pyarrow.compute as pc

    logged = _logged(system, asked, table) if table == access.predictions_table(asked.use_case.name) else ()

    def marked(schema: "pa.Schema") -> "pc.Expression | None":
        each = [(name, value) for name in asked.columns for value in asked.values]
        conditions = [c for name, value in each if (c := _is(schema, name, value)) is not None]
        if "_text" in schema.names:  # a line that is no row: whoever it is about, it goes if it names the person
            word = rf"(^|[^\w-]){re.escape(asked.value)}($|[^\w-])"
            conditions.append(pc.match_substring_regex(pc.field("_text"), word))
        if logged:
            conditions.append(pc.field("id").isin(list(logged)))
        if not conditions:
            return None
        whole = conditions[0]
        for condition in conditions[1:]:
            whole = pc.or_kleene(whole, condition)
        return whole

    return marked


def _is(schema: "pa.Schema", column: str, value: str) -> "pc.Expression | None":
    import pyarrow as pa
    import pyarrow.compute as pc

    if column not in schema.names:
        return None
    kind, field = schema.field(column).type, pc.field((column,))
    if pa.types.is_string(kind):
        return pc.utf8_trim_whitespace(field) == value
    if pa.types.is_integer(kind):
        try:
            return field == pa.scalar(int(value), kind)
        except (ValueError, pa.ArrowInvalid, OverflowError):
            return None
    if pa.types.is_floating(kind):
        try:
            return field == pa.scalar(float(value), kind)
        except ValueError:
            return None
    return None


def _logged(system: "System", asked: _Asked, table: str) -> tuple[str, ...]:
    """The ids of logged predictions that are about the person: asked for them, or with their id among the inputs."""
    found: dict[str, None] = {}
    for version in range(system.tables.current(table).version + 1):
        rows = system.tables.scan(system.tables.version(table, version), ["id", "entity", "inputs", "features"])
        for batch in rows:
            for row in batch.to_pylist():
                given = [row[name] for name in ("inputs", "features")]
                texts = [text for text in given if any(value in text for value in asked.values)]
                if row["entity"] in asked.values or any(_named(text, asked) for text in texts):
                    found[row["id"]] = None
    return tuple(found)


def _named(text: str, asked: _Asked) -> bool:
    try:
        values = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return True  # what it says cannot be told apart
    return any(_within(values.get(name), asked.values) for name in asked.columns) if isinstance(values, dict) else False


def _within(value: Any, wanted: tuple[str, ...]) -> bool:
    if isinstance(value, list):
        return any(_within(item, wanted) for item in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() in wanted


def _online(system: "System", asked: _Asked) -> int:
    """Take the person's online features out; of how many views."""
    with system.store.read() as tx:
        features = tx.facts.latest(asked.use_case.name, "features")
    try:
        key, count = key_of(int(asked.value)), 0
    except (ValueError, struct.error):
        return 0  # online keys are whole numbers of 64 bits
    if features is None:
        return 0
    online = system.online_of(asked.use_case.name)
    for view, declared in msgspec.convert(features.body, FeatureSet).declared.items():
        left: dict[bytes, bytes | None] = {}
        if declared.entity[0] in asked.columns and online.get(view, key) is not None:
            left[key] = None
        if len(declared.entity) > 1 and declared.entity[1] in asked.columns:
            for first, value in online.items(view):
                if first not in left and (rest := without(value, key)) != value:
                    left[first] = rest
        if left:
            online.erase(view, left)
            count += 1
    return count


def _models(system: "System", use_case: str, tables: dict[str, int]) -> dict[Digest, str]:
    """The model versions that rest on data sets in which the person was, by the digest of their bundle."""
    found: dict[Digest, str] = {}
    with system.store.read() as tx:
        for fact in tx.facts.list(use_case, "bundle"):
            datasets = (found for found in tx.facts.ancestors(fact.digest) if found.kind == "dataset")
            if tables.keys() & {msgspec.convert(each.body, IngestResult).table.name for each in datasets}:
                made = msgspec.convert(fact.body, Bundle)
                found[made.digest] = f"{made.name} version {made.version}"
    return found


def _served(system: "System", models: dict[Digest, str]) -> tuple[str, ...]:
    """The endpoints that serve one of the models, or that are letting one in."""
    with system.store.read() as tx:
        serving = [(row.name, row.bundle, "") for row in tx.endpoints.list() if row.state == "running"]
        rolling = [(row.endpoint, row.bundle, ", which is being rolled out") for row in tx.rollouts.active()]
    return tuple(f"{name}: {models[each]}{how}" for name, each, how in (*serving, *rolling) if each in models)


def _sources(system: "System", asked: _Asked) -> tuple[str, ...]:
    """The data sets whose source still holds the person: the next ingestion would bring them back."""
    from bedplate.data import sources
    from bedplate.data.deidentify_files import profile

    # Wherever it lies: nothing is kept, and a source that may not be read would count as one that holds nobody.
    reach = msgspec.structs.replace(inputs.reach(system.settings, asked.use_case), residency=())
    key, found = access.mask_key(system, asked.use_case.name), []
    for name, data in asked.use_case.data.items():
        if data.subject is None:
            continue
        try:
            safe = profile(data, key, safe_harbor=False)
            with sources.opened(data.source, asked.folder, reach, dataset=name, profile=safe) as files:
                for item in files.read([data.subject]):
                    lines = [item.text] if isinstance(item, sources.BadLine) else map(str, _column(item.table))
                    if not set(asked.values).isdisjoint(lines):
                        found.append(name)
                        break
        except BedplateError:
            continue  # a source that is gone holds nobody
    return tuple(found)


def _column(table: "pa.Table") -> list[Any]:
    return table.column(0).to_pylist()  # type: ignore[no-any-return]
