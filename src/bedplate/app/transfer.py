"""Carrying the bytes of artifacts over HTTP: into a file, out of one, in threads of their own, never as a page."""

import asyncio
import mimetypes
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote

from bedplate.blobs import Content, Incoming
from bedplate.errors import InputError
from bedplate.http import Request, Response
from bedplate.store.artifacts import ArtifactRow

T = TypeVar("T")

_POOL = ThreadPoolExecutor(8, thread_name_prefix="artifacts")
"""Reading and writing waits for disks and networks; the threads of all other requests do not wait with it."""
_SMALL = 1 << 20
"""Content of up to so many bytes is checked before its answer begins."""

_TEXT = frozenset({
    "txt", "log", "err", "cfg", "conf", "cnf", "cf", "ini", "properties", "prop", "hocon", "toml", "yaml", "yml", "xml",
    "json", "js", "py", "py3", "csv", "tsv", "md", "rst", "ipynb", "MLmodel", "MLproject",
})  # fmt: skip
"""Endings, and names without one, that MLflow's pages show as text."""
_TYPES = mimetypes.MimeTypes()  # the table of the language alone: the same type on every machine
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
# What somebody logged is handed over as a file. A browser that shows it all the same gives it no rights here.
_CONFINED = (
    ("content-security-policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Do ``work`` in a thread. It has ended when this returns, even if the request was given up meanwhile."""
    future = asyncio.get_running_loop().run_in_executor(_POOL, lambda: work(*arguments))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        # Whoever cleans up next must not find the thread still at work on the same file.
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue
        raise


async def receive(
    request: Request, begin: Callable[[], Incoming], keep: Callable[[Incoming], T], *, most: int | None = None
) -> T:
    """Take the body of a request in, piece by piece, then ``keep`` it. What breaks off leaves nothing.

    ``begin`` may refuse: it is called when the first piece is here. A body of one piece takes one turn of a thread.

    Raises:
        InputError: with ``most``, the body is empty or larger than so many bytes.
    """
    assert request.pieces is not None, "the route streams"
    pieces = aiter(request.pieces)
    first, second = await anext(pieces, b""), await anext(pieces, None)

    def start() -> Incoming:
        incoming = begin()
        try:
            write(incoming, first)
        except BaseException:
            incoming.discard()
            raise
        return incoming

    def write(incoming: Incoming, piece: bytes) -> None:
        if most is not None and incoming.size + len(piece) > most:
            raise InputError(f"Artifact size is too large. Max size is {most >> 20}MB.", fix="log it with a client")
        incoming.write(piece)

    def end(incoming: Incoming) -> T:
        with incoming:
            if most is not None and not incoming.size:
                raise InputError("Request must specify data.", fix="send the file as the body")
            return keep(incoming)

    if second is None:
        return await in_thread(lambda: end(start()))
    begun: list[Incoming] = []
    try:
        await in_thread(lambda: begun.append(start()))
        await in_thread(write, begun[0], second)
        async for piece in pieces:
            await in_thread(write, begun[0], piece)
        return await in_thread(end, begun[0])
    except BaseException:
        for incoming in begun:
            await in_thread(incoming.discard)
        raise


async def send(
    request: Request, find: Callable[[], ArtifactRow], read: Callable[[ArtifactRow, int, int | None], Content]
) -> Response:
    """The answer that carries a file, or the part of it that was asked for; 416 if there is no such part.

    Raises:
        BedplateError: what ``find`` raises.
        IntegrityError: the content is missing or damaged; what is found on the way breaks the answer off.
    """
    opened: list[Content] = []

    def answer() -> Response:
        row = find()
        etag = f'"{(row.digest or "").removeprefix("sha256:")}"'
        whole = request.headers.get("if-range", etag) != etag
        part = None if whole else _part(request.headers.get("range", ""), row.size)
        start, stop = part or (0, row.size)
        if part is not None and start >= stop:
            return Response(status=416, headers=[("content-range", f"bytes */{row.size}")])
        headers = _headers(row, etag)
        if part is not None:
            headers.append(("content-range", f"bytes {start}-{stop - 1}/{row.size}"))
        status, length = 200 if part is None else 206, ("content-length", str(stop - start))
        if request.method == "HEAD":
            nothing = Content(iter(()), row.size, digest=None, where=row.path, close=lambda: None)
            return Response(status=status, headers=[*headers, length], stream=Download(nothing))
        content = read(row, start, stop)
        opened.append(content)
        if stop - start <= _SMALL:
            return Response(status=status, headers=headers, body=b"".join(content))
        return Response(status=status, headers=[*headers, length], stream=Download(content))

    try:
        return await in_thread(answer)
    except BaseException:
        for content in opened:
            await in_thread(content.close)
        raise


def _headers(row: ArtifactRow, etag: str) -> list[tuple[str, str]]:
    kind, disposition = ("content-type", _type(row.name)), ("content-disposition", _attachment(row.name))
    return [kind, disposition, ("accept-ranges", "bytes"), ("etag", etag), *_CONFINED]


def inline(name: str) -> tuple[tuple[str, str], ...]:
    """Headers of content that a page of ours shows, such as a picture: opened by itself it has no rights here."""
    return (("content-disposition", _attachment(name).replace("attachment", "inline", 1)), *_CONFINED)


class Download:
    """Content as the stream of an answer. Closing it gives back what was opened."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def __aiter__(self) -> "Download":
        return self

    async def __anext__(self) -> bytes:
        """The next piece; the content is closed behind the last one, and when one cannot be had."""
        try:
            piece: bytes | None = await in_thread(next, self._content, None)
        except BaseException:
            await self.aclose()
            raise
        if piece is None:
            await self.aclose()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Close the content, if it is open."""
        await in_thread(self._content.close)


def _type(name: str) -> str:
    ending = name.rpartition(".")[2]
    if ending in _TEXT:
        return "text/plain"
    return _TYPES.guess_type(name)[0] or "application/octet-stream"


def _attachment(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    written = plain if _TOKEN.fullmatch(plain) else '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f"attachment; filename={written}{exact}"


def _part(header: str, size: int) -> tuple[int, int] | None:
    """Which bytes a ``Range`` header asks for; none if the start is not before the stop.

    What cannot be read, or names several parts, asks for all of them.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if found[1]:
        start = int(found[1])
        stop = min(int(found[2]) + 1, size) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    else:
        start, stop = max(0, size - int(found[2])), size
    return start, stop
