"""What stages depend on, as digests: sections of the file, contracts, sources, code. Equal digests, equal work."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bedplate import ids
from bedplate.app import residency
from bedplate.app.stage import Context
from bedplate.errors import NotFoundError
from bedplate.ids import Digest
from bedplate.settings import Settings
from bedplate.usecase import Loaded
from bedplate.usecase.files import is_local, source_file
from bedplate.usecase.types import DataSet, UseCase

if TYPE_CHECKING:
    from bedplate.data.sources import Reach


def section(context: Context, name: str) -> Digest:
    """The digest of one top-level section, as understood: comments and order of keys do not count."""
    return ids.digest_of(msgspec.to_builtins(getattr(context.use_case, name)))


def contract_digests(loaded: Loaded) -> dict[str, str]:
    """The digest of each contract file, by its path in the file."""
    paths = sorted({data.contract for data in loaded.use_case.data.values()})
    return {path: ids.digest_file(loaded.folder / path) for path in paths}


def model_digests(loaded: Loaded) -> dict[str, str]:
    """The digest of each model that training takes along, by its path in the file."""
    return {path: ids.digest_file(loaded.folder / path) for path in loaded.use_case.train.models}


def source_path(folder: Path, name: str, data: DataSet) -> Path:
    """Where the rows of a data set of that name lie.

    Raises:
        NotFoundError: the package or the file is not there.
    """
    path = source_file(data.source, folder)
    if path is None:
        package = data.source.package
        raise NotFoundError(
            f"the source {data.source.path} is not there",
            where=package or str(folder),
            fix="pip install 'bedplate[demo]'" if package else f"correct data.{name}.source.path",
        )
    return path


def source_digest(loaded: Loaded, name: str, settings: Settings) -> Digest:
    """The digest of the source of a data set: of its bytes, or of what a server says of them."""
    data, folder = loaded.use_case.data[name], loaded.folder
    if not is_local(data.source):
        from bedplate.data.sources import places

        return places.version(data.source, folder, reach(settings, loaded.use_case), dataset=name)
    path = source_path(folder, name, data)
    if path.is_dir():
        found = sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
        return ids.digest_of([[item.name, _digest_of_file(item)] for item in found])
    return _digest_of_file(path)


def reach(settings: Settings, use_case: UseCase | None = None) -> "Reach":
    """What sources of rows may reach: what the settings of the home name, and nothing that a use case says.

    One of high risk has its sources parsed in isolation or not at all.
    """
    from bedplate.data.sources import Reach

    storage = {"endpoint": settings.endpoint} if settings.endpoint else {}
    isolated = settings.isolation == "required" or (use_case is not None and use_case.risk.level == "high")
    return Reach(
        connections=settings.connections,
        networks=settings.networks,
        storage=storage,
        isolated=isolated,
        residency=() if use_case is None else use_case.requirements.residency,
        here=residency.of_home(settings),
    )


def _digest_of_file(path: Path) -> Digest:
    stat = path.stat()
    return _hashed(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hashed(path: Path, size: int, modified: int) -> Digest:
    return ids.digest_file(path)  # size and time of change are the key, so a changed file is read again


def pipeline_path(loaded: Loaded) -> Path | None:
    """``pipeline.py`` beside the file, if there is one."""
    path = loaded.folder / "pipeline.py"
    return path if path.is_file() else None


def pipeline_digest(loaded: Loaded) -> str:
    """The digest of ``pipeline.py``; ``none`` without one."""
    path = pipeline_path(loaded)
    return ids.digest_file(path) if path is not None else "none"
