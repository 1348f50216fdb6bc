"""The commit log of a local Delta table, made safe: what was acknowledged stays, what was torn before is set aside.

delta-rs syncs nothing on a local disk and accepts a zero-length newest commit in silence. So after each commit we sync
the log and then write down its number in ``_bedplate/acknowledged``. On opening, a newest commit that cannot be read
was torn by a power cut if its number is higher (it is moved aside), and is damage if it is not (it is reported, never
dropped).
"""

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bedplate.data.folder import Folder, make_folder, storage_error, sync_file, sync_folder
from bedplate.errors import IntegrityError, StorageError
from bedplate.ids import new_id

_LOG = logging.getLogger(__name__)


def _name(version: int) -> str:
    return f"_delta_log/{version:020d}.json"


def newest(folder: Folder) -> int:
    """The highest version in the log, whole or torn; -1 where there is none."""
    versions = [int(name[:20]) for name in folder.files("_delta_log") if len(name) == 25 and name[:20].isdigit()]
    return max(versions, default=-1)


def acknowledged(folder: Folder) -> int:
    """The highest version that was acknowledged; -1 where there is none."""
    data = folder.get("_bedplate/acknowledged")
    return -1 if data is None else int(data)


def exists(folder: Folder, version: int) -> bool:
    """Whether somebody committed ``version``."""
    return folder.size(_name(version)) is not None


def token(folder: Folder, version: int) -> str | None:
    """The token that the writer of ``version`` put into its commit."""
    for action in actions(folder, version) or []:
        if "commitInfo" in action:
            return str(action["commitInfo"].get("bedplate", {}).get("commit"))
    return None


def actions(folder: Folder, version: int) -> list[dict[str, Any]] | None:
    """The actions of a commit, None where it is missing or torn."""
    data = folder.get(_name(version))
    if not data:
        return None
    try:
        found = [json.loads(line) for line in data.splitlines() if line.strip()]
    except ValueError:
        return None
    return found if any("commitInfo" in action for action in found) else None


def paths(folder: Folder) -> set[str]:
    """Every data file that any version ever added."""
    return {
        str(action["add"]["path"])
        for version in range(newest(folder) + 1)
        for action in actions(folder, version) or []
        if "add" in action
    }


def settle(folder: Folder, *, locked: bool) -> None:
    """Bring the end of the log into a state that was acknowledged or can be. ``locked``: the caller holds the lock.

    Raises:
        IntegrityError: an acknowledged commit is gone or unreadable.
        StorageError: the disk is full or refuses.
    """
    last = newest(folder)
    known = acknowledged(folder)
    if last == known and (last < 0 or actions(folder, last) is not None):
        return
    if last < known or (actions(folder, known) is None and known >= 0):
        raise IntegrityError(
            f"commit {known} was acknowledged and is gone or damaged",
            where=folder.url,
            fix="restore the home from a backup",
        )
    with nullcontext() if locked else folder.lock():
        while (last := newest(folder)) > acknowledged(folder) and actions(folder, last) is None:
            _set_aside(folder, _name(last))
            _LOG.warning("set aside a torn commit %d of %s that was never acknowledged", last, folder.url)
        if last > acknowledged(folder):
            acknowledge(folder, last)  # killed between commit and acknowledgement: it is whole, so it stands


def acknowledge(folder: Folder, version: int) -> None:
    """Make commit ``version`` durable, then note that it is.

    Raises:
        StorageError: the disk is full or refuses.
    """
    try:
        sync_file(Path(folder.url) / _name(version))
        sync(folder)
    except OSError as error:
        raise storage_error(error, folder.url) from error
    if version > acknowledged(folder):
        folder.put("_bedplate/acknowledged", str(version).encode())


def take_back(folder: Folder, version: int) -> bool:
    """Whether commit ``version``, which could not be acknowledged, is gone for good: else it may stand.

    Somebody who opens the table meanwhile waits for the lock, which the caller holds.
    """
    try:
        if acknowledged(folder) >= version:
            return False
        folder.delete(_name(version))
        sync_folder(Path(folder.url) / "_delta_log")
    except (OSError, StorageError):
        return False
    return True


def sync(folder: Folder) -> None:
    """Make everything in the log folder durable, checkpoints too."""
    log = Path(folder.url) / "_delta_log"
    for path in log.iterdir():
        if "checkpoint" in path.name:
            sync_file(path)
    sync_folder(log)
    sync_folder(log.parent)


def drop_checkpoints(folder: Folder) -> bool:
    """Move checkpoints aside, if there are any: the commits they sum up are all kept, so nothing is lost."""
    found = [name for name in folder.files("_delta_log") if "checkpoint" in name]
    for name in found:
        _set_aside(folder, f"_delta_log/{name}")
    return bool(found)


def _set_aside(folder: Folder, path: str) -> None:
    source = Path(folder.url) / path
    target = Path(folder.url) / "_bedplate" / "quarantine"
    try:
        make_folder(target)
        source.rename(target / f"{new_id('torn')}-{source.name}")
        sync_folder(source.parent)
        sync_folder(target)
    except OSError as error:
        raise storage_error(error, str(source)) from error
