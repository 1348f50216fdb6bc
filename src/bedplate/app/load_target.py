"""A load run against an endpoint of this home: the requests it sends, and the verdict on its use case's requirement."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bedplate import bundle as bundles
from bedplate.app import access, endpoints, load
from bedplate.app.read_models import LoadReport, LoadTarget
from bedplate.app.system import System
from bedplate.errors import InputError, NotFoundError, UnavailableError
from bedplate.identity import Principal, policy_principal
from bedplate.plan.types import Requirements
from bedplate.policy import values as policy
from bedplate.records import Event, LoadTest, ModelSignature
from bedplate.serve.spec import ReplicaSpec
from bedplate.stats import intervals
from bedplate.store.endpoints import EndpointRow

REQUESTS = 400
"""The most different requests that are made of logged predictions."""
_NEAR = 0.7
"""Part of what the client can send above which it may be the client that is slow."""
_LATE = 0.1
"""The client was late if its own lag, at the 99th percentile, is a greater part of the p99 than this."""


def find(system: System, principal: Principal, endpoint: str, *, logged: bool) -> LoadTarget:
    """Where an endpoint answers and what it must meet; with ``logged``, requests that it answered before as well.

    They are read as the principal may see them, for the purpose of the use case: one ledger entry.

    Raises:
        NotFoundError: there is no such endpoint.
        UnavailableError: it is not served now.
        InputError: it has no logged prediction that could be sent again.
        DeniedError: policy does not let the principal see the use case or its predictions.
    """
    with system.store.read() as tx:
        row = tx.endpoints.get(endpoint)
        found = tx.facts.latest(row.use_case, "requirements")
    access.demand(system, principal, "read", policy.use_case(row.use_case))
    url = next((seen.url for seen in system.supervisor.status() if seen.name == endpoint), None)
    if url is None:
        raise UnavailableError(f"endpoint {endpoint} is not served now", fix="start it: bedplate up")
    if found is None:
        raise NotFoundError(f"no plan says what {row.use_case} requires", fix="run the use case")
    required = msgspec.convert(found.body, Requirements)
    return LoadTarget(
        endpoint=endpoint,
        url=url,
        limit_p99_ms=required.value("p99") * 1e3,
        peak=required.value("peak rate"),
        bodies=_logged(system, principal, row) if logged else (),
    )


def _logged(system: System, principal: Principal, row: EndpointRow) -> tuple[dict[str, Any], ...]:
    spec: ReplicaSpec = endpoints.here(system, endpoints.spec_of(row))
    manifest = bundles.verify(spec.bundle, public_key=spec.public_key, digest=spec.digest)
    made = tuple(islice(_bodies(system, principal, row, manifest.signature), REQUESTS))
    if not made:
        raise InputError(
            f"endpoint {row.name} has no logged prediction that could be sent again",
            fix="give the body of a request: --body FILE",
        )
    return made


def _bodies(
    system: System, principal: Principal, row: EndpointRow, signature: ModelSignature
) -> Iterator[dict[str, Any]]:
    """Requests that this version answered, each once; those of which a value is withheld are left out."""
    try:
        version = system.tables.current(access.predictions_table(row.use_case))
    except NotFoundError:
        return
    with system.store.read() as tx:
        governance = access.governance(tx, row.use_case)
    rows = access.reader_for(system, row.use_case, governance, policy_principal(principal))
    seen = set()
    for batch in rows.read(version, ["inputs"], where={"endpoint": row.name, "bundle": row.bundle}):
        for text in batch.column(0).to_pylist():
            inputs = msgspec.json.decode(text)
            if text not in seen and all(inputs.get(spec.name) is not None for spec in signature.inputs):
                seen.add(text)
                yield body_of(signature, inputs)


def body_of(signature: ModelSignature, inputs: dict[str, Any]) -> dict[str, Any]:
    """The infer request of these values, flat or nested, marked as replayed.

    Raises:
        InputError: a value does not fit the shape of its input.
    """
    tensors = []
    for spec in signature.inputs:
        values = np.array(inputs[spec.name], object)
        try:
            shaped = values if values.ndim == len(spec.shape) else values.reshape(spec.shape)
        except ValueError as error:
            raise InputError(f"logged values of input {spec.name!r} do not have its shape {spec.shape}") from error
        tensors.append(
            {
                "name": spec.name,
                "datatype": spec.datatype,
                "shape": list(shaped.shape),
                "data": shaped.ravel().tolist(),
            }
        )
    return _replayed({"inputs": tensors})


def read_body(path: Path) -> dict[str, Any]:
    """The infer request in a file, marked as replayed.

    Raises:
        InputError: the file cannot be read, or holds no JSON object.
    """
    try:
        body = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(
            f"the body cannot be used: {error}", where=str(path), fix="give a file with one infer request as JSON"
        ) from error
    return _replayed(body)


def _replayed(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "parameters": {**(body.get("parameters") or {}), "replayed": True}}


def run(
    target: LoadTarget,
    bodies: tuple[dict[str, Any], ...],
    *,
    rate: float,
    seconds: float,
    connections: int,
    key: str,
    on_event: Callable[[Event], None],
) -> LoadReport:
    """The load run in an open loop, with its verdict; ``on_event`` hears of it each second.

    Raises:
        InputError, UnavailableError: as :func:`bedplate.app.load.run`.
    """

    def look(gone: float, answered: int, failed: int) -> None:
        message = f"{answered:,} answered, {failed:,} failed"
        on_event(Event(stage="load", state="progress", message=message, done=int(gone), total=math.ceil(seconds)))

    ceiling = load.ceiling(target.endpoint, bodies, connections)
    test = load.run(
        target.url,
        target.endpoint,
        bodies,
        seconds=seconds,
        connections=connections,
        rate=rate,
        key=key,
        limit_p99_ms=target.limit_p99_ms,
        on_look=look,
    )
    return report(target, test, rate=rate, requests=len(bodies), ceiling=ceiling)


def report(
    target: LoadTarget, test: LoadTest, *, rate: float, requests: int, ceiling: float | None = None
) -> LoadReport:
    """What a load run says about the requirement: missed for certain, met for certain, or still open.

    ``ceiling`` is how many requests a second the client sends at most: near it, a slow client looks like a slow server.
    """
    missed, undecided, warnings = [], [], []
    if test.failed:
        missed.append(f"{test.failed:,} of {test.requests:,} requests failed")
    if test.unsent:
        missed.append(f"{test.unsent:,} requests found no free connection: {rate:g}/s is more than it bears with these")
    if test.p99.low > test.limit_p99_ms:
        missed.append(f"the p99 is above {test.limit_p99_ms:g} ms")
    elif test.p99.high > test.limit_p99_ms:
        undecided.append(f"the interval of the p99 reaches above {test.limit_p99_ms:g} ms: run longer")
    if rate < target.peak:
        undecided.append(f"the run asked for {rate:g} requests/s, the use case expects {target.peak:g} at its peak")
    if test.lag_p99_ms is not None and test.lag_p99_ms > _LATE * test.p99.value:
        warnings.append(
            f"the client itself was late by {test.lag_p99_ms:.2f} ms at the 99th percentile: latencies hold that too"
        )
    if ceiling is not None and rate > _NEAR * ceiling:
        warnings.append(f"the client itself sends at most {ceiling:,.0f} requests/s: figures may be its own")
    met = f"p99 within {test.limit_p99_ms:g} ms at {rate:g} requests/s, none failed"
    return LoadReport(
        endpoint=target.endpoint,
        url=target.url,
        rate=rate,
        peak=target.peak,
        requests=requests,
        test=test,
        failures=intervals.wilson(test.failed, test.requests),
        verdict="missed" if missed else "open" if undecided else "met",
        because=tuple(missed + undecided) or (met,),
        warnings=tuple(warnings),
        ceiling=ceiling,
    )
