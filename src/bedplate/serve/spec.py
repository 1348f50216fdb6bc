"""What a replica is told at its start, and nothing else: it reads no setting and no environment."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bedplate.errors import InputError
from bedplate.http.guards import LOOPBACK
from bedplate.identifiers import LogRules
from bedplate.ids import Digest
from bedplate.records import Quota, ReplicaPrice, Unit
from bedplate.serve.scaling import Scale

Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One endpoint as a replica serves it, and, in ``scale``, how many of them there are.

    ``bundle`` is the folder of the bundle with digest ``digest``, verified with ``public_key``; ``evidence`` is the
    digest of the fact that allowed serving it, written into every prediction. ``online`` is the folder of the online
    features, or the address of their server. ``port`` 0 lets the system choose at the
    first start; the supervisor keeps what was chosen. ``grpc`` is the same for gRPC, None without it. ``budget`` is the
    time in which a request must be answered: with ``batching``, requests are computed together as far as it allows.
    ``max_body`` and ``max_arriving`` (of all bodies that are still arriving) in bytes, times in seconds; ``streaming``
    is what an answer in pieces may take. The model takes as many of ``threads`` as a measurement at the start finds
    worth it, and computes where ``provider`` says. ``price`` is None where none is known. ``quota`` is each principal's
    for whom no other one is in force; all count ``unit``. ``log`` is what the prediction log of a use case that
    de-identifies may hold. With a ``socket`` it is a candidate, which answers what the
    endpoint's replicas pass on over it, and nobody else.
    """

    name: str
    use_case: str
    bundle: Path
    digest: Digest
    evidence: Digest
    public_key: Path
    snapshot: Path
    snapshot_key: Path
    journal: Path
    online: str
    mode: Literal["buffered", "durable"] = "buffered"
    host: str = "127.0.0.1"
    port: Port = 0
    grpc: Port | None = None
    threads: Count = 1
    provider: Literal["cpu", "cuda"] = "cpu"
    batching: bool = True
    budget: float | None = None
    hosts: tuple[str, ...] = LOOPBACK
    max_body: Count = 4 << 20
    max_depth: Count = 16
    max_in_flight: Count = 1024
    max_arriving: Count = 128 << 20
    receipt: float = 10.0
    drain: float = 10.0
    seal: float = 5.0
    streaming: float = 300.0
    quota: Quota = Quota()
    unit: Unit = "requests"
    price: ReplicaPrice | None = None
    scale: Scale = Scale()
    socket: Path | None = None
    log: LogRules | None = None


def encode(spec: ReplicaSpec) -> bytes:
    """The spec as JSON."""
    return msgspec.json.format(msgspec.json.encode(spec, enc_hook=str), indent=1)


def decode(data: bytes) -> ReplicaSpec:
    """The spec that :func:`encode` wrote.

    Raises:
        InputError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=ReplicaSpec, dec_hook=lambda kind, value: kind(value))
    except msgspec.DecodeError as error:
        raise InputError(f"the replica spec cannot be used: {error}") from error
