"""From the words of a use case to files on this disk: local ones, those of a package, of a web server, of a store."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from bedplate.data.parsing.profile import Profile
from bedplate.data.sources import databases
from bedplate.data.sources.databases import Window
from bedplate.data.sources.port import MEMORY, Opened, Reach
from bedplate.egress import Broker, Limits, allow, targets
from bedplate.errors import DeniedError, InputError, NotFoundError, StorageError, UnavailableError
from bedplate.ids import Digest, digest_of
from bedplate.policy.residency import Place, refusal
from bedplate.usecase.files import is_local
from bedplate.usecase.types import Source

MAX_FILE = 64 << 30
"""Largest source file, in bytes as stored."""
MAX_FILES = 1_000_000
PATIENCE = 3600.0
"""Seconds that one file may take to come."""
_STORES = ("s3", "gs", "az", "abfs", "abfss")


@contextmanager
def opened(
    source: Source,
    folder: Path,
    reach: Reach | None = None,
    window: Window | None = None,
    *,
    dataset: str = "",
    memory: int = MEMORY,
    profile: Profile | None = None,
) -> Iterator[Opened]:
    """The rows that ``source`` names; paths are relative to ``folder``. What had to be fetched is gone after the block.

    ``window`` bounds what a query asks a database for. ``dataset`` is what the source is one of. Pictures are
    de-identified under a ``profile``.

    Raises:
        NotFoundError: nothing is there.
        InputError: the path leaves its package, a file is too large, or the connection is not one of the home.
        DeniedError: the web server may not be called; rows have to stay where the source or this home is not; or, where
            rows are asked for, the kernel cannot confine their parsing and ``reach`` wants it confined.
        UnavailableError: it does not answer.
    """
    reach = reach or Reach()
    _may_come(source, reach, dataset)
    with tempfile.TemporaryDirectory(prefix="bedplate-source-") as name:
        scratch = Path(name)
        if source.kind == "sql":
            files = databases.fetch(source, folder, reach, window or Window(), scratch, _named(dataset))
        elif source.kind == "rows":
            made = databases.produce(source, reach.connections, scratch, _named(dataset))
            files = Opened("json", source.connection, made, isolated=reach.isolated)
        else:
            paths = _paths(source, folder, reach, scratch)
            files = Opened(
                source.kind, _label(source), paths, memory=memory, isolated=reach.isolated, profile=profile
            )  # fmt: skip
        try:
            yield files
        finally:
            files.close()


def version(source: Source, folder: Path, reach: Reach | None = None, *, dataset: str = "") -> Digest:
    """A digest that changes when the rows do: of the content, or of what a server says of it where it says enough.

    Raises as :func:`opened`.
    """
    reach = reach or Reach()
    _may_come(source, reach, dataset)
    scheme = urlsplit(source.path).scheme
    if scheme in ("http", "https"):
        answer = _broker(source.path, reach).request("HEAD", source.path)
        told = [answer.header(name) for name in ("etag", "last-modified", "content-length")]
        if answer.status == 200 and told[0]:
            return digest_of([source.path, told])
    elif scheme in _STORES:
        _, found = _listed(source, reach)
        return digest_of([[str(each["path"]), each["size"], str(each["e_tag"])] for each in found])
    with opened(source, folder, reach, dataset=dataset) as files:
        return files.digest()


def where(source: Source, dataset: str) -> tuple[Place, ...]:
    """Where a source lies, as its use case says; a file of this machine lies where the home does, unless it says so."""
    if is_local(source) and not source.region:
        return ()
    return (Place(f"the source of {dataset or _label(source)}", source.region, f"{_named(dataset)}.region"),)


def _may_come(source: Source, reach: Reach, dataset: str) -> None:
    """Ask before a byte of what lies elsewhere is fetched, even for a moment."""
    places = where(source, dataset)
    refused = refusal(reach.residency, (*places, *reach.here)) if places else None
    if refused is not None:
        named = dataset or _label(source)
        raise DeniedError(f"{named} may not be read: {refused.reason}", where=refused.where, fix=refused.fix)


def _named(dataset: str) -> str:
    return f"data.{dataset}.source" if dataset else "source"


def _label(source: Source) -> str:
    if source.connection:
        return source.connection
    return f"{source.package}/{source.path}" if source.package is not None else source.path


def _paths(source: Source, folder: Path, reach: Reach, scratch: Path) -> tuple[Path, ...]:
    scheme = urlsplit(source.path).scheme if "://" in source.path else ""
    if scheme in ("http", "https"):
        return (_download(source.path, reach, scratch),)
    if scheme in _STORES:
        return _copied(source, reach, scratch)
    if scheme:
        raise InputError(
            f"a source of rows does not lie at {scheme}://",
            where=source.path,
            fix=f"use a path, https://, http:// or {', '.join(f'{each}://' for each in _STORES)}",
        )
    return _local(source, folder)


def _local(source: Source, folder: Path) -> tuple[Path, ...]:
    if source.package is not None:
        root = _package(source.package)
        path = (root / source.path).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"{source.path} leaves the package {source.package}", fix="name a file inside the package")
    else:
        path = (folder / source.path).expanduser()
    if path.is_dir():
        paths = tuple(sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith(".")))
    else:
        paths = (path,) if path.is_file() else ()
    if not paths:
        raise NotFoundError(
            f"the source {_label(source)} does not exist", where=str(path), fix="correct the path in usecase.yaml"
        )
    if len(paths) > MAX_FILES:
        raise InputError(f"the source has more than {MAX_FILES:,} files", where=str(path), fix="split the folder")
    for item in paths:
        _bounded(item.name, item.stat().st_size, str(item))
    return paths


def _bounded(name: str, size: int, where: str) -> None:
    if size > MAX_FILE:
        raise InputError(f"{name} is larger than {MAX_FILE >> 30} GiB", where=where, fix="split the file")


def _package(name: str) -> Path:
    # The package is located, not imported: importing would run its code here.
    if not name.isidentifier():
        raise InputError(f"{name!r} is not the name of a top-level package", fix="name the package alone")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(
            f"the package {name} that holds the data is not installed", fix=f"pip install {name.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


# ------------------------------------------------------------------------------------------------------------- the web


def _broker(url: str, reach: Reach) -> Broker:
    origin, _ = targets.parse(url)
    return Broker([allow(str(origin), networks=reach.networks)], limits=Limits(total=PATIENCE, body=MAX_FILE))


def _download(url: str, reach: Reach, scratch: Path) -> Path:
    """One file of a web server, written down as it comes."""
    path = scratch / _file_name(urlsplit(url).path)
    with path.open("wb") as file:
        answer = _broker(url, reach).request("GET", url, into=file)
    if answer.status == 404:
        raise NotFoundError("there is no such file", where=url, fix="correct the address in usecase.yaml")
    if answer.status != 200:
        raise UnavailableError(f"the server answers with status {answer.status}", where=url, fix="try again later")
    return path


def _file_name(path: str) -> str:
    """A name for people, of what a server calls the file; only what is harmless in one."""
    name = PurePosixPath(unquote(path)).name
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)[-100:].lstrip(".")
    return kept or "source"


# ------------------------------------------------------------------------------------------------------- object stores


def _listed(source: Source, reach: Reach) -> tuple[Any, list[Any]]:
    """The store, and the objects under the address: the one of that name, or those directly below it."""
    import obstore.exceptions
    import obstore.store

    parts = urlsplit(source.path)
    options: dict[str, Any] = dict(reach.storage)
    client = {"allow_http": str(options.get("endpoint", "")).startswith("http://"), "timeout": f"{int(PATIENCE)}s"}
    key = unquote(parts.path).strip("/")
    try:
        store = obstore.store.from_url(
            f"{parts.scheme}://{parts.netloc}",
            config=options,
            client_options=client,  # type: ignore[call-overload]
        )
        try:
            return store, [obstore.head(store, key)] if key else []
        except FileNotFoundError:
            found: list[Any] = []
            for batch in obstore.list(store, prefix=key):
                found += (each for each in batch if not PurePosixPath(str(each["path"])).name.startswith("."))
                if len(found) > MAX_FILES:
                    raise InputError(
                        f"the source has more than {MAX_FILES:,} objects", where=source.path, fix="split it"
                    ) from None
            return store, sorted(found, key=lambda each: str(each["path"]))
    except obstore.exceptions.BaseError as error:
        raise UnavailableError(
            f"the object store cannot be read: {str(error).splitlines()[0][:300]}",
            where=source.path,
            fix="check the address, and what the AWS_ variables of the home say",
        ) from error


def _copied(source: Source, reach: Reach, scratch: Path) -> tuple[Path, ...]:
    """The objects under the address, each written down as it comes."""
    import obstore
    import obstore.exceptions

    store, found = _listed(source, reach)
    if not found:
        raise NotFoundError("there is no such object", where=source.path, fix="correct the address in usecase.yaml")
    paths = []
    for number, each in enumerate(found):
        _bounded(str(each["path"]), int(each["size"]), source.path)
        path = scratch / f"{number:06d}" / _file_name(str(each["path"]))
        path.parent.mkdir()
        try:
            with path.open("wb") as file:
                for block in obstore.get(store, str(each["path"])).stream(min_chunk_size=1 << 20):
                    file.write(block)
        except FileNotFoundError as error:
            raise UnavailableError("an object went while it was read", where=source.path, fix="try again") from error
        except obstore.exceptions.BaseError as error:
            raise UnavailableError(
                f"the object store broke off: {str(error).splitlines()[0][:300]}", where=source.path, fix="try again"
            ) from error
        except OSError as error:
            raise StorageError(f"the source cannot be written down: {os.strerror(error.errno or 5)}") from error
        paths.append(path)
    return tuple(paths)
