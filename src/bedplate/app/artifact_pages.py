"""Artifacts as pages show them: a folder at a time, and what is in a file, as far as it can be shown without harm.

What somebody logged is never trusted to be what its name says. Text is decoded here and escaped where it is shown.
Pictures are recognised by their first bytes, in formats that hold nothing but pixels. Everything else is a download.
"""

import csv
import io
import itertools
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from bedplate.errors import InputError, NotFoundError
from bedplate.http.messages import too_deep
from bedplate.store import Store
from bedplate.store.artifacts import ArtifactRow
from bedplate.tracking import logged_models, paths
from bedplate.tracking.artifacts import Artifacts, folder_of

LISTED = 500
"""Names of one folder that are shown on a page."""
TEXT = 256 << 10
"""Bytes of a text that are shown."""
PICTURE = 16 << 20
"""Bytes of a picture that is shown."""
ROWS, CELLS, CELL = 200, 50, 300
_DEEPEST = 60
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|NaN|-?inf")

Kind = Literal["text", "json", "table", "picture", "none"]
_PICTURES: Mapping[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where artifacts lie: ``root`` is the folder here, None where ``location`` names a place that is elsewhere."""

    location: str
    root: str | None


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """One level of a folder. ``path`` is below the root, empty for the root itself; ``more`` says it has more names."""

    place: Place
    path: str
    rows: tuple[ArtifactRow, ...] = ()
    more: bool = False


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """A file, and what can be shown of it. ``cut`` says that it goes on; ``why`` says why nothing is shown.

    The first row of ``table`` holds its heads; ``numeric`` says which of its columns hold numbers alone.
    """

    path: str
    row: ArtifactRow
    kind: Kind
    text: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    numeric: tuple[bool, ...] = ()
    cut: bool = False
    why: str = ""


def place_of_run(store: Store, workspace: str, run: str) -> Place:
    """Where the artifacts of a run lie.

    Raises:
        NotFoundError: the workspace has no such run.
    """
    with store.read() as tx:
        location = tx.runs.get(workspace, run).artifact_uri
    return Place(location=location, root=folder_of(location))


def place_of_logged_model(store: Store, workspace: str, model: str) -> Place:
    """Where the files of a logged model lie.

    Raises:
        NotFoundError: the workspace has no such model.
    """
    with store.read() as tx:
        location = logged_models.find(tx, workspace, model).artifact_location
    return Place(location=location, root=folder_of(location))


def folder(artifacts: Artifacts, workspace: str, place: Place, path: str = "") -> Folder:
    """What lies in a folder, by name, folders and files together; nothing if there is no such folder.

    Raises:
        InputError: no folder may have this name.
    """
    if place.root is None:
        return Folder(place=place, path=path)
    inside = f"{place.root}/{paths.check(path)}" if path else place.root
    rows = artifacts.list(workspace, inside, limit=LISTED + 1)
    return Folder(place=place, path=path, rows=tuple(rows[:LISTED]), more=len(rows) > LISTED)


def find(artifacts: Artifacts, workspace: str, place: Place, path: str) -> ArtifactRow:
    """The file of this name below a place.

    Raises:
        InputError: no artifact may have this name, or it is that of a folder.
        NotFoundError: nothing has this name here.
    """
    if place.root is None:
        raise NotFoundError(f"these artifacts lie at {place.location}", fix="read them there")
    return artifacts.find(workspace, f"{place.root}/{paths.check(path)}")


def is_folder(artifacts: Artifacts, workspace: str, place: Place, path: str) -> bool:
    """Whether a folder has this name below a place."""
    return place.root is not None and bool(artifacts.list(workspace, f"{place.root}/{paths.check(path)}", limit=1))


def preview(artifacts: Artifacts, workspace: str, place: Place, path: str) -> Preview:
    """What can be shown of a file.

    Raises:
        InputError, NotFoundError: as :func:`find`.
        IntegrityError: the content is missing or damaged.
    """
    row = find(artifacts, workspace, place, path)
    start = _read(artifacts, row, min(row.size, TEXT))
    if picture_type(start) is not None:
        if row.size > PICTURE:
            return Preview(path=path, row=row, kind="none", why=f"It is a picture of more than {PICTURE >> 20} MB.")
        return Preview(path=path, row=row, kind="picture")
    text = _text(start, whole=row.size <= TEXT)
    if text is None:
        return Preview(
            path=path, row=row, kind="none", why="It is neither text nor a picture that can be shown safely."
        )
    cut = row.size > TEXT
    ending = row.name.rpartition(".")[2].lower()
    if ending == "json" and not cut:
        return Preview(path=path, row=row, kind="json", text=_indented(text))
    if ending in ("csv", "tsv"):
        table, more = _table(text, "\t" if ending == "tsv" else ",")
        if table:
            numeric = tuple(_numeric(table, column) for column in range(len(table[0])))
            return Preview(path=path, row=row, kind="table", table=table, numeric=numeric, cut=cut or more)
    return Preview(path=path, row=row, kind="text", text=text, cut=cut)


def picture(artifacts: Artifacts, workspace: str, place: Place, path: str) -> tuple[str, bytes, ArtifactRow]:
    """The media type and the bytes of a picture.

    Raises:
        InputError: it is none, or larger than is shown; also as :func:`find`.
        NotFoundError: as :func:`find`.
        IntegrityError: the content is missing or damaged.
    """
    row = find(artifacts, workspace, place, path)
    if row.size > PICTURE:
        raise InputError(f"it has more than {PICTURE >> 20} MB", where=path, fix="download it")
    data = _read(artifacts, row, row.size)
    kind = picture_type(data)
    if kind is None:
        raise InputError("this is no picture that can be shown safely", where=path, fix="download it")
    return kind, data, row


def picture_type(data: bytes) -> str | None:
    """The media type of a picture by its first bytes; None if it is none of those that hold pixels alone."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _PICTURES.items() if data.startswith(magic)), None)


def _read(artifacts: Artifacts, row: ArtifactRow, size: int) -> bytes:
    content = artifacts.read(row, 0, size)
    try:
        return b"".join(content)
    finally:
        content.close()


def _text(data: bytes, *, whole: bool) -> str | None:
    """Bytes as text; None if they are none. What ends in the middle of a character ends before it."""
    for left_out in range(1 if whole else 4):
        try:
            text = data[: len(data) - left_out].decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        return None if "\0" in text else text
    return None


def _indented(text: str) -> str:
    """JSON with line breaks; as it is if it is no JSON, or nests too deep to be gone through."""
    try:
        if too_deep(text.encode(), _DEEPEST):
            return text
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return text


def _table(text: str, delimiter: str) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """The first rows of a table, and whether there is more of it; none if it cannot be read as one."""
    try:
        rows = list(itertools.islice(csv.reader(io.StringIO(text), delimiter=delimiter), ROWS + 1))
    except csv.Error:
        return (), False
    if not rows or max(len(row) for row in rows) < 2:
        return (), False
    more = len(rows) > ROWS or any(len(row) > CELLS for row in rows)
    return tuple(tuple(cell[:CELL] for cell in row[:CELLS]) for row in rows[:ROWS]), more


def _numeric(table: tuple[tuple[str, ...], ...], column: int) -> bool:
    cells = [row[column] for row in table[1:] if len(row) > column and row[column]]
    return bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells)
