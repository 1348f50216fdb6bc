"""What a run depended on beside its data: code, commit, libraries."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bedplate.bundle.environment import environment_digest
from bedplate.errors import NotFoundError
from bedplate.ids import Digest, digest_file, digest_of

__all__ = ["Code", "code_of", "environment_digest"]

_GIT_SECONDS = 5.0


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a use case. ``digest`` covers its files alone; commit and diff say where they came from.

    ``changed`` holds the digest of ``git diff`` for these files, or None when they are as committed.
    """

    digest: Digest
    files: dict[str, Digest]
    commit: str | None = None
    changed: Digest | None = None


def code_of(folder: Path, names: Iterable[str] = ("pipeline.py",)) -> Code:
    """The code in ``folder``: its files by digest, and the commit that it is checked out from, if there is one.

    Raises:
        NotFoundError: one of the files does not exist.
    """
    files: dict[str, Digest] = {}
    for name in names:
        if not (folder / name).is_file():
            raise NotFoundError("the file does not exist", where=str(folder / name), fix="write it")
        files[name] = digest_file(folder / name)
    commit = _git(folder, "rev-parse", "HEAD")
    diff = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "HEAD", "--", *files) if commit else None
    return Code(digest=digest_of(files), files=files, commit=commit, changed=digest_of(diff) if diff else None)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers, or None where there is no git, no repository or no commit: code is known by digest anyway."""
    git = shutil.which("git")
    if git is None:
        return None
    # A repository can name programs for git to run; neither they nor its hooks are started here.
    options = ["-c", "core.fsmonitor=false", "--no-optional-locks", "-C", str(folder)]
    command = [git, *options, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
