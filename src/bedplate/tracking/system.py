"""What a run depended on beside its data: code, commit, libraries."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from bedplate.bundle.environment import environment_digest
from bedplate.errors import NotFoundError
from bedplate.ids import Digest, digest_file, digest_of
from bedplate.tracking.validation import Metric

__all__ = ["Code", "SystemMetrics", "code_of", "environment_digest"]

_GIT_SECONDS = 5.0


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a use case. ``digest`` covers its files alone; commit and diff say where they came from.

    ``changes`` is ``git diff`` for these files, or None when they are as committed.
    """

    digest: Digest
    files: dict[str, Digest]
    commit: str | None = None
    changes: str | None = None


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
    return Code(digest=digest_of(files), files=files, commit=commit, changes=diff)


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


class Usage(Protocol):
    """What a process used at one moment."""

    @property
    def seconds(self) -> float:
        """Since it began."""
        ...

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds so far."""
        ...

    @property
    def memory(self) -> int:
        """Private memory in bytes."""
        ...


class SystemMetrics:
    """What a process used, as metrics of its run: few enough to keep, however long it runs."""

    def __init__(self, most: int = 2_000) -> None:
        """At most ``most`` moments are kept, evenly apart."""
        self._most = most
        self._every, self._seen = 1, 0
        self._kept: list[Usage] = []
        self.peak = 0
        """The most private memory at any moment, in bytes; 0 before the first."""

    def add(self, usage: Usage) -> None:
        """Take note of one moment."""
        self.peak = max(self.peak, usage.memory)
        if self._seen % self._every == 0:
            self._kept.append(usage)
            if len(self._kept) > self._most:
                self._kept, self._every = self._kept[::2], self._every * 2
        self._seen += 1

    def metrics(self, began: int) -> list[Metric]:
        """Under MLflow's names; ``began`` is when the process did, in milliseconds since 1970.

        Processor use is that of the time since the moment before, in per cent of one core.
        """
        found: list[Metric] = []
        before, used = 0.0, 0.0
        for step, usage in enumerate(self._kept):
            moment = began + int(usage.seconds * 1000)
            share = 100 * (usage.cpu_seconds - used) / max(usage.seconds - before, 1e-9)
            found.append(Metric("system/cpu_utilization_percentage", round(share, 1), moment, step))
            found.append(Metric("system/system_memory_usage_megabytes", round(usage.memory / 1e6, 1), moment, step))
            before, used = usage.seconds, usage.cpu_seconds
        return found
