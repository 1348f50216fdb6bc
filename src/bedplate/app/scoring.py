"""A table through a released model: a governed read, the predictor of the release, and one new table or none.

What is asked is a fact before a row is read: the release, the version of the table, the columns, the purpose. Its
digest is the key of the write, so that the same scoring, after a crash as well, is done once; and it stands in every
row, so that any row leads through ``trace`` to the objective.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from bedplate import bundle as bundles
from bedplate import online
from bedplate.app import access, endpoints
from bedplate.app.read_models import ScoreReport
from bedplate.app.system import System
from bedplate.data.scoring import Scorer, marked
from bedplate.errors import InputError
from bedplate.identity import Principal, policy_principal
from bedplate.ids import Digest
from bedplate.policy import values as policy
from bedplate.records import Event, Fact, Governance, TableVersion
from bedplate.serve import predictors
from bedplate.store.endpoints import EndpointRow

KIND = "scoring"
_EVERY = 1.0
"""Seconds between two words on progress."""
_MARKS = ("bundle", "evidence", "source", "scoring")
"""The columns that say of each row where it is from."""


class Asked(msgspec.Struct, frozen=True):
    """A scoring that was let in: what it reads, and how each row is answered; ``made``, where it was done before."""

    row: EndpointRow
    source: TableVersion
    evidence: Digest
    scorer: Scorer
    fact: Fact
    stream: pa.RecordBatchReader | None
    made: TableVersion | None


def score(
    system: System,
    principal: Principal,
    emit: Callable[[Event], None],
    *,
    endpoint: str,
    table: str,
    to: str,
    purpose: str | None = None,
    columns: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> ScoreReport:
    """Score the newest version of ``table`` with the release that ``endpoint`` serves, into ``<use case>/scores/<to>``.

    Raises as :func:`ask` and :func:`carry_out`.
    """
    asked = ask(
        system, principal, endpoint=endpoint, table=table, to=to, purpose=purpose, columns=columns, keep=keep
    )  # fmt: skip
    last = time.monotonic()

    def told(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            message = f"{done:,} of {asked.source.rows:,} rows"
            emit(Event(stage="score", state="progress", message=message, done=done, total=asked.source.rows))

    report = carry_out(system, principal, asked, told)
    emit(Event(stage="score", state="finished", message=f"{report.table.rows:,} rows in {report.table.name}"))
    return report


def ask(
    system: System,
    principal: Principal,
    *,
    endpoint: str,
    table: str,
    to: str,
    purpose: str | None = None,
    columns: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> Asked:
    """Let a scoring in: what is asked is a fact and an entry of the ledger, and nothing was read yet.

    Raises:
        DeniedError: policy does not let the principal ask the endpoint, or read the table for that purpose.
        NotFoundError: there is no such endpoint or table.
        InputError: the table does not fit the model, or is of another use case.
    """
    with system.store.read() as tx:
        row = tx.endpoints.get(endpoint)
        governance = access.governance(tx, row.use_case)
    decision = access.demand(system, principal, "predict", policy.endpoint(endpoint, use_case=row.use_case))
    source = system.tables.current(_own(table, row))
    spec = endpoints.here(system, endpoints.spec_of(row))
    manifest = bundles.verify(spec.bundle, public_key=spec.public_key, digest=spec.digest)
    scorer = Scorer(predictors.load(spec.bundle, manifest, spec.threads), system.tables.schema(source), columns, keep)
    asked: dict[str, Any] = {
        "endpoint": endpoint,
        "bundle": spec.digest,
        "source": {"name": source.name, "version": source.version, "digest": source.digest},
        "columns": list(scorer.columns),
        "keep": list(scorer.keep),
        "purpose": purpose or governance.purpose,
        "to": access.table_name(row.use_case, "scores", _checked(to)),
    }
    _unmasked(system, principal, row, governance, source, asked)
    with system.store.transaction() as tx:
        fact = tx.facts.put(KIND, row.use_case, asked, (spec.evidence,))
        system.ledger.record(
            tx, actor=principal.id, action="table.score", resource=f"table/{source.name}@{source.version}",
            payload={"scoring": fact.digest, **asked}, policies=decision.policies, auth=principal.auth,
            purpose=asked["purpose"],
        )  # fmt: skip
    made = system.tables.made_by(asked["to"], fact.digest)
    stream = None
    if made is None:
        rows = access.reader_for(system, row.use_case, governance, policy_principal(principal), asked["purpose"])
        stream = rows.read(source, scorer.read)
    return Asked(row, source, spec.evidence, scorer, fact, stream, made)


def carry_out(system: System, principal: Principal, asked: Asked, told: Callable[[int], None]) -> ScoreReport:
    """Score what was let in; ``told`` gets the number of rows that are done, now and then.

    What ``told`` raises ends it, and leaves no table.

    Raises:
        StorageError: the disk is full or refuses; there is no new table, nor a version of it.
    """
    began = time.monotonic()
    body, made = asked.fact.body, asked.made
    if made is None:
        made = _write(system, asked, told)
        with system.store.transaction() as tx:
            system.ledger.record(
                tx, actor=principal.id, action="table.scored", resource=f"table/{made.name}@{made.version}",
                payload={"scoring": asked.fact.digest, "rows": made.rows, "table": made.digest}, auth=principal.auth,
            )  # fmt: skip
    return ScoreReport(
        endpoint=body["endpoint"], bundle=body["bundle"], source=asked.source, table=made, scoring=asked.fact.digest,
        purpose=body["purpose"], seconds=time.monotonic() - began,
    )  # fmt: skip


def _write(system: System, asked: Asked, told: Callable[[int], None]) -> TableVersion:
    body, source, stream = asked.fact.body, asked.source, asked.stream
    assert stream is not None, "what was not made is read"
    values = (body["bundle"], asked.evidence, f"{source.name}@{source.version}", asked.fact.digest)
    features = online.Scoped(online.open(system.online_location, read_only=True), access.use_case_of(asked.source.name))
    try:
        scored = asked.scorer.score(stream, features, told)
        reader = marked(asked.scorer.schema, scored, dict(zip(_MARKS, values, strict=True)))
        return system.tables.write(body["to"], reader, mode="overwrite", key=asked.fact.digest)
    finally:
        features.close()


def _own(table: str, row: EndpointRow) -> str:
    """A table of the endpoint's use case: in the new one, the rules of another would not hold for its rows any more."""
    if access.use_case_of(table) != row.use_case:
        raise InputError(
            f"{table!r} is no table of {row.use_case}", where="TABLE", fix="score tables of the endpoint's use case"
        )
    return table


def _checked(to: str) -> str:
    if not to or len(to) > 100 or not all(part.isascii() and (part.isalnum() or part in "_-") for part in to):
        raise InputError(f"{to!r} cannot be the name of a table", where="to", fix="use letters, digits, - and _")
    return to


def _unmasked(
    system: System,
    principal: Principal,
    row: EndpointRow,
    governance: Governance,
    source: TableVersion,
    asked: dict[str, Any],
) -> None:
    """A model must not be asked about values that are hidden from who asks: it would answer about others.

    Raises:
        DeniedError: the principal may not see a column that the model takes.
    """
    taken = set(asked["columns"])
    tags = {tag for name in taken for tag in governance.tagged.get(name, ())}
    resource = policy.table(source.name, use_case=row.use_case, purposes=(governance.purpose,), sensitive=True)
    for tag in sorted(tags | ({""} if taken.intersection(governance.sensitive) else set())):
        access.demand(system, principal, "unmask", resource, purpose=asked["purpose"], tag=tag)
