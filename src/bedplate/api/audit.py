"""The ledger over HTTP: entries, the signed checkpoint, tiles as C2SP lays them out, proofs."""

import re
from collections.abc import Iterator

import msgspec

from bedplate.api.use_cases import SMALL
from bedplate.app import queries
from bedplate.app.read_models import AuditPage
from bedplate.app.site import Site
from bedplate.errors import InputError, NotFoundError
from bedplate.http import Request, Response, Route, fixed, unaudited
from bedplate.settings import Home

_TILE = re.compile(r"(entries|[0-9]{1,2})/(x[0-9]{3}/){0,5}[0-9]{3}(\.p/[0-9]{1,3})?")
SHOWS = unaudited("shows the ledger itself; an entry about each look would never end")


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """That an entry is in the tree under ``checkpoint``: the sibling hashes from leaf to root, in hexadecimal."""

    index: int
    checkpoint: str
    hashes: tuple[str, ...]


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    ledger = fixed("Ledger", "ledger")

    def entries(request: Request) -> Response:
        return Response.json(queries.audit(site.store, _number(request, "before"), _number(request, "limit") or 50))

    def proof(request: Request) -> Response:
        index = request.params["index"]
        with site.store.read() as tx:
            size, _ = tx.ledger.head()
        if index >= size:
            raise NotFoundError(f"the ledger has no entry {index}")
        note, hashes = site.system.ledger.prove(index)
        return Response.json(Proof(index=index, checkpoint=note, hashes=tuple(h.hex() for h in hashes)))

    def checkpoint(request: Request) -> Response:
        return Response.text(site.system.ledger.checkpoint())

    def tile(request: Request) -> Response:
        name = "/".join(str(part) for part in request.params.values())
        path = Home(site.settings.home).ledger / "tile" / name
        # The name has matched digits only, so it cannot leave the folder.
        if not _TILE.fullmatch(name) or not path.is_file():
            raise NotFoundError("there is no such tile")
        return Response(headers=[("content-type", "application/octet-stream")], body=path.read_bytes())

    yield Route(
        "GET", "/api/v1/audit", "audit", ledger, SHOWS, SMALL, entries,
        name="list_audit", summary="Ledger entries, newest first", response_type=AuditPage,
    )  # fmt: skip
    yield Route(
        "GET", "/api/v1/audit/{index:int}/proof", "audit", ledger, SHOWS, SMALL, proof,
        name="prove_entry", summary="Proof that an entry is in the signed tree", response_type=Proof,
    )  # fmt: skip
    yield Route(
        "GET", "/checkpoint", "audit", ledger, SHOWS, SMALL, checkpoint,
        name="checkpoint", summary="The signed tree head, as a C2SP note",
    )  # fmt: skip
    for depth in range(1, 5):
        parts = "/".join(f"{{p{i}}}" for i in range(depth))
        yield Route(
            "GET", f"/tile/{{level}}/{parts}", "audit", ledger, SHOWS, SMALL, tile,
            name=f"tile_{depth}", summary="A tile of the ledger's tree, as C2SP tlog-tiles names it",
        )  # fmt: skip


def _number(request: Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InputError(f"{name} must be a whole number", where=f"?{name}=")
    return min(int(text), 500) if name == "limit" else int(text)
