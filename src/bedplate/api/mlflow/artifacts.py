"""Artifacts over MLflow's API: the proxy that its clients put, list and get files through, uploads in parts, and what
its pages ask for.

A client puts a part of an upload to the address that it was given, without its key. With the address comes a header
with a ticket for that one request.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import msgspec

from bedplate.api.mlflow import wire
from bedplate.app import transfer
from bedplate.app.session import TICKET_HEADER
from bedplate.app.site import Site
from bedplate.blobs import Incoming
from bedplate.errors import InputError, NotFoundError
from bedplate.http import CHANGE, Limits, Request, Response, Route, unaudited
from bedplate.ids import Digest
from bedplate.release import changes, checks
from bedplate.store import pages
from bedplate.store.artifacts import ArtifactRow
from bedplate.tracking import logged_models, paths
from bedplate.tracking.artifacts import folder_of
from bedplate.tracking.uploads import Part

PREFIXES = ("/api/2.0", "/ajax-api/2.0")
TICKET_LIFE = timedelta(hours=6)

HOURS = 6 * 3600.0
WHOLE = Limits(body=1 << 40, depth=1, receipt=60.0, deadline=HOURS, stream=True)
PART = Limits(body=5 << 30, depth=1, receipt=60.0, deadline=HOURS, stream=True)
READING = Limits(body=1 << 20, depth=4, receipt=10.0, deadline=60.0)
MULTIPART = Limits(body=4 << 20, depth=4, receipt=30.0, deadline=3600.0)
FORM_BYTES = 10 * 1024 * 1024
"""What MLflow's pages may send in one go."""
LISTED = 10_000

HANDED_OVER = unaudited("hands over what its author logged; rows of tables are read through governed scans")
PREPARED = unaudited("changes nothing that can be seen; completing the upload is the change")


class ListArtifacts(msgspec.Struct, kw_only=True):
    """Which folder."""

    path: str = ""


class ListOfRun(msgspec.Struct, kw_only=True):
    """Which folder of which run."""

    run_id: str | None = None
    run_uuid: str | None = None
    path: str = ""
    page_token: str | None = None


class FileOfRun(msgspec.Struct, kw_only=True):
    """Which file of which run."""

    run_id: str | None = None
    run_uuid: str | None = None
    path: str | None = None


class FileOfVersion(msgspec.Struct, kw_only=True):
    """Which file of which version of a registered model."""

    name: str | None = None
    version: str | None = None
    path: str | None = None


class ListOfModel(msgspec.Struct, kw_only=True):
    """Which folder of a model."""

    artifact_directory_path: str = ""
    page_token: str | None = None


class FileOfModel(msgspec.Struct, kw_only=True):
    """Which file of a model."""

    artifact_file_path: str = ""


class FileInfo(msgspec.Struct):
    """One file or folder; a folder has no size, and MLflow's messages leave out that of an empty file."""

    path: str
    is_dir: bool
    file_size: int | msgspec.UnsetType


class CreateUpload(msgspec.Struct, kw_only=True):
    """An upload to come: the client's own path of the file, of which the last part counts."""

    path: str | None = None
    num_parts: int = 0


class Credential(msgspec.Struct):
    """Where and how one part is to be sent."""

    url: str
    part_number: int
    headers: dict[str, str]


class CreatedUpload(msgspec.Struct):
    """An upload that was begun."""

    upload_id: str
    credentials: list[Credential]


class SentPart(msgspec.Struct, kw_only=True):
    """A part as it was answered."""

    part_number: int = 0
    etag: str = ""


class CompleteUpload(msgspec.Struct, kw_only=True):
    """The parts that make the whole, in order."""

    path: str | None = None
    upload_id: str | None = None
    parts: list[SentPart] = []


class AbortUpload(msgspec.Struct, kw_only=True):
    """Which upload."""

    path: str | None = None
    upload_id: str | None = None


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    yield from _proxy(site)
    yield from _in_parts(site)
    yield from _of_runs(site)
    yield from _of_models(site)
    yield from _of_versions(site)


def _proxy(site: Site) -> Iterator[Route]:
    def list_(request: Request) -> Response:
        folder = wire.decode(request, ListArtifacts).path
        rows = _all(site, request.params["workspace"], folder)
        return _files(rows)

    async def get(request: Request) -> Response:
        workspace, path = request.params["workspace"], request.params["path"]
        return await transfer.send(request, lambda: site.artifacts.find(workspace, path), site.artifacts.read)

    async def put(request: Request) -> Response:
        await _receive(site, request, request.params["path"])
        return Response()

    def delete(request: Request) -> Response:
        site.artifacts.delete(request.params["workspace"], request.params["path"], by=wire.actor(site, request))
        return wire.json({})

    base = "/mlflow-artifacts/artifacts"
    yield from wire.routes(
        "GET", base, "list", wire.SHOWS, list_,
        summary="Files and folders in a folder", limits=READING, request_type=ListArtifacts, prefixes=PREFIXES,
    )  # fmt: skip
    for method, action, audit, handler, limits, summary in (
        ("GET", "read", HANDED_OVER, get, READING, "The content of a file"),
        ("PUT", "write", CHANGE, put, WHOLE, "Keep a file"),
        ("DELETE", "write", CHANGE, delete, READING, "Delete a file, or a folder with all that is in it"),
    ):
        yield from wire.routes(
            method, f"{base}/{{path:path}}", action, audit, handler,
            summary=summary, limits=limits, prefixes=PREFIXES,
        )  # fmt: skip


def _in_parts(site: Site) -> Iterator[Route]:
    def create(request: Request) -> Response:
        message = wire.decode(request, CreateUpload)
        workspace = request.params["workspace"]
        path = _target(request, message.path)
        upload = site.uploads.begin(workspace, path, message.num_parts, by=wire.actor(site, request))
        prefix = request.path.partition("/mlflow-artifacts/")[0]
        credentials = []
        for number in range(1, message.num_parts + 1):
            address = f"{prefix}/mlflow-artifacts/mpu/part/{upload.id}/{number}"
            ticket = site.tickets.issue(request.principal, "PUT", address, TICKET_LIFE)
            headers = {TICKET_HEADER: ticket, wire.WORKSPACE.header: workspace}
            credentials.append(Credential(f"{_origin(request)}{address}", number, headers))
        return wire.json(CreatedUpload(upload.id, credentials))

    async def part(request: Request) -> Response:
        workspace, upload, number = (request.params[name] for name in ("workspace", "upload", "number"))

        def begin() -> Incoming:
            site.uploads.expect(workspace, upload, number)
            return site.artifacts.receive()

        digest = await transfer.receive(
            request, begin, lambda incoming: site.uploads.put_part(workspace, upload, number, incoming)
        )
        return Response(headers=[("etag", _etag(digest))])

    async def complete(request: Request) -> Response:
        message = wire.decode(request, CompleteUpload)
        path, upload = _target(request, message.path), wire.required("upload_id", message.upload_id)
        parts = [Part(sent.part_number, _digest(sent.etag)) for sent in wire.required("parts", message.parts)]
        workspace, by = request.params["workspace"], wire.actor(site, request)
        await transfer.in_thread(lambda: site.uploads.complete(workspace, path, upload, parts, by=by))
        return wire.json({})

    def abort(request: Request) -> Response:
        message = wire.decode(request, AbortUpload)
        path, upload = _target(request, message.path), wire.required("upload_id", message.upload_id)
        site.uploads.abort(request.params["workspace"], path, upload)
        return wire.json({})

    base = "/mlflow-artifacts/mpu"
    for name, audit, handler, message, limits, summary in (
        ("create", PREPARED, create, CreateUpload, READING, "Begin an upload in parts"),
        ("complete", CHANGE, complete, CompleteUpload, MULTIPART, "Name the parts of an upload as one file"),
        ("abort", PREPARED, abort, AbortUpload, READING, "Give an upload up"),
    ):
        yield from wire.routes(
            "POST", f"{base}/{name}/{{path:path}}", "write", audit, handler,
            summary=summary, limits=limits, request_type=message, prefixes=PREFIXES,
        )  # fmt: skip
    yield from wire.routes(
        "PUT", f"{base}/part/{{upload:id}}/{{number:int}}", "write", PREPARED, part,
        summary="Keep one part of an upload", limits=PART, prefixes=PREFIXES,
    )  # fmt: skip


def _of_runs(site: Site) -> Iterator[Route]:
    def list_(request: Request) -> Response:
        message = wire.decode(request, ListOfRun)
        run, workspace = wire.run_id(message), request.params["workspace"]
        inside = paths.check(message.path) if message.path else ""
        return _page(site, workspace, _of_run(site, workspace, run), inside, message.page_token)

    async def get(request: Request) -> Response:
        message = wire.decode(request, FileOfRun)
        run, workspace = wire.run_id(message), request.params["workspace"]
        inside = paths.check(wire.required("path", message.path))
        return await _hand_over(site, request, lambda: _of_run(site, workspace, run), inside)

    async def upload(request: Request) -> Response:
        query = request.query
        run, path = (_given(query.get(name), name) for name in ("run_uuid", "path"))
        inside = paths.check(path)
        _, root = await transfer.in_thread(_of_run, site, request.params["workspace"], run)
        await _receive(site, request, f"{root}/{inside}", most=FORM_BYTES)
        return Response(headers=[wire.JSON])

    yield from wire.routes(
        "GET", "/mlflow/artifacts/list", "list", wire.SHOWS, list_,
        summary="Files and folders of a run", limits=READING, request_type=ListOfRun,
    )  # fmt: skip
    yield from wire.routes(
        "GET", "/get-artifact", "read", HANDED_OVER, get,
        summary="The content of a file of a run", limits=READING, request_type=FileOfRun, prefixes=("",),
    )  # fmt: skip
    yield from wire.routes(
        "POST", "/mlflow/upload-artifact", "write", CHANGE, upload,
        summary="Keep a small file of a run", limits=WHOLE, prefixes=("/ajax-api/2.0",),
    )  # fmt: skip


def _of_models(site: Site) -> Iterator[Route]:
    def list_(request: Request) -> Response:
        message = wire.decode(request, ListOfModel)
        workspace, model = request.params["workspace"], request.params["model"]
        inside = paths.check(message.artifact_directory_path) if message.artifact_directory_path else ""
        return _page(site, workspace, _of_model(site, workspace, model), inside, message.page_token)

    async def get(request: Request) -> Response:
        message = wire.decode(request, FileOfModel)
        if not message.artifact_file_path:
            raise wire.BadRequestError("Request must specify artifact_file_path.", fix="add it to the query")
        workspace, model = request.params["workspace"], request.params["model"]
        inside = paths.check(message.artifact_file_path)
        return await _hand_over(site, request, lambda: _of_model(site, workspace, model), inside)

    base = "/mlflow/logged-models/{model}/artifacts"
    yield from wire.routes(
        "GET", f"{base}/directories", "list", wire.SHOWS, list_,
        summary="Files and folders of a model", limits=READING, request_type=ListOfModel,
    )  # fmt: skip
    yield from wire.routes(
        "GET", f"{base}/files", "read", HANDED_OVER, get,
        summary="The content of a file of a model", limits=READING, request_type=FileOfModel,
        prefixes=("/ajax-api/2.0",),
    )  # fmt: skip


async def _hand_over(site: Site, request: Request, place: Callable[[], tuple[str, str]], inside: str) -> Response:
    """The answer that carries a file of something that has a folder of artifacts."""
    workspace = request.params["workspace"]
    return await transfer.send(
        request, lambda: site.artifacts.find(workspace, f"{place()[1]}/{inside}"), site.artifacts.read
    )


async def _receive(site: Site, request: Request, path: str, most: int | None = None) -> None:
    workspace, by = request.params["workspace"], wire.actor(site, request)

    def begin() -> Incoming:
        site.artifacts.expect(workspace, path)
        return site.artifacts.receive()

    await transfer.receive(
        request, begin, lambda incoming: site.artifacts.put(workspace, path, incoming, by=by), most=most
    )


def _all(site: Site, workspace: str, folder: str) -> list[ArtifactRow]:
    """Everything in a folder: clients of the proxy know no pages."""
    rows = site.artifacts.list(workspace, folder, limit=LISTED)
    while len(rows) % LISTED == 0 and rows:
        more = site.artifacts.list(workspace, folder, after=rows[-1].name, limit=LISTED)
        if not more:
            break
        rows += more
    return rows


def _files(rows: Sequence[ArtifactRow], within: str = "", **also: str | None) -> Response:
    value: dict[str, object] = {name: text for name, text in also.items() if text is not None}
    if rows:
        value["files"] = [
            FileInfo(f"{within}{row.name}", row.digest is None, (row.digest and row.size) or msgspec.UNSET)
            for row in rows
        ]
    return wire.json(value)


def _page(site: Site, workspace: str, place: tuple[str, str], inside: str, token: str | None) -> Response:
    """One page of what lies in a folder of a run or a model."""
    location, root = place
    query = ("artifacts", workspace, root, inside)
    after = pages.position(query, token)
    folder = f"{root}/{inside}" if inside else root
    rows = site.artifacts.list(workspace, folder, after=str(after[0]) if after else "", limit=LISTED + 1)
    more = pages.token(query, (rows[LISTED - 1].name,)) if len(rows) > LISTED else None
    return _files(rows[:LISTED], f"{inside}/" if inside else "", root_uri=location, next_page_token=more)


def _of_run(site: Site, workspace: str, run: str) -> tuple[str, str]:
    """Where the artifacts of a run lie, as its clients know it and as a folder here.

    Raises:
        NotFoundError: the workspace has no such run, or its artifacts lie elsewhere.
    """
    with site.store.read() as tx:
        return _place(tx.runs.get(workspace, run).artifact_uri)


def _of_versions(site: Site) -> Iterator[Route]:
    async def get(request: Request) -> Response:
        message = wire.decode(request, FileOfVersion)
        inside = paths.check(wire.required("path", message.path))
        name = wire.required("name", message.name)
        number = checks.version_number(wire.required("version", message.version))
        workspace = request.params["workspace"]
        return await _hand_over(site, request, lambda: _of_version(site, workspace, name, number), inside)

    yield from wire.routes(
        "GET", "/model-versions/get-artifact", "read", HANDED_OVER, get,
        summary="The content of a file of a version", limits=READING, request_type=FileOfVersion, prefixes=("",),
    )  # fmt: skip


def _of_version(site: Site, workspace: str, name: str, number: int) -> tuple[str, str]:
    """Where the files of a version lie, as its clients know it and as a folder here.

    Raises:
        NotFoundError: there is no such version, or its files lie elsewhere.
    """
    with site.store.read() as tx:
        row, _ = changes.version(tx, workspace, name, number)
    return _place(row.folder or changes.location_of(row))


def _of_model(site: Site, workspace: str, model: str) -> tuple[str, str]:
    """Where the artifacts of a model lie, as its clients know it and as a folder here.

    Raises:
        NotFoundError: the workspace has no such model, or it is deleted, or its artifacts lie elsewhere.
    """
    with site.store.read() as tx:
        return _place(logged_models.active(tx, workspace, model).artifact_location)


def _place(location: str) -> tuple[str, str]:
    folder = folder_of(location)
    if folder is None:
        raise NotFoundError(f"these artifacts lie at {location}", fix="read them there")
    return location, paths.check(folder)


def _target(request: Request, file: str | None) -> str:
    name: str = wire.required("path", file)
    return paths.join(request.params["path"], paths.base(name))


def _origin(request: Request) -> str:
    """How the client reached this server: a proxy in front of it says so when it spoke another scheme."""
    scheme = "https" if request.headers.get("x-forwarded-proto") == "https" else "http"
    return f"{scheme}://{request.host}"


def _given(value: str | None, name: str) -> str:
    if not value:
        raise InputError(f"Request must specify {name}.", fix=f"add {name} to the query")
    return value


def _etag(digest: Digest) -> str:
    return f'"{digest.removeprefix("sha256:")}"'


def _digest(etag: str) -> str:
    return f"sha256:{etag.strip().strip(chr(34))}"
