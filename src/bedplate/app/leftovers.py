"""What else of a home holds somebody's value, beside tables and online features: taken out, or named with its reason.

Runs are logged and artifacts are kept by whoever works here, and nobody says which of their texts mean a person. So a
value is looked for as a whole word; one that is short, like ``7``, would be found everywhere, and is looked for under
the names of the columns that hold it alone.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bedplate.app.table_reports import Left
from bedplate.identity import Principal, policy_principal
from bedplate.ids import Digest
from bedplate.records import Bundle
from bedplate.store.subjects import word
from bedplate.tracking import appends
from bedplate.tracking.actors import Actor

if TYPE_CHECKING:
    from bedplate.app.system import System

DISTINCT = 6
"""So many characters make a value one that is looked for in any text."""
_WHY = "a person was erased"
_CHUNK = 1 << 20
_MOST = 200
"""Places that are named at most, of each kind."""


def take_out(system: "System", principal: Principal, value: str, columns: Sequence[str]) -> tuple[int, list[Left]]:
    """Take params and tags of runs that name somebody out, and forget payloads of the ledger that do.

    Returns how many went, and what stays because it lies in a workspace that the principal may not write in.
    """
    anywhere, left, gone = len(value) >= DISTINCT, list[Left](), 0
    with system.store.read() as tx:
        found = tx.subjects.logged(value, columns, anywhere=anywhere)
        payloads = list(tx.subjects.payloads(value)) if anywhere else []
    by = Actor(ledger=system.ledger, name=principal.id, auth=principal.auth)
    closed: dict[str, int] = {}
    for logged in found:
        workspace = system.workspaces.resource(logged.workspace)
        if workspace is None or not system.policies.decide(policy_principal(principal), "write", workspace, {}).allowed:
            closed[logged.workspace] = closed.get(logged.workspace, 0) + 1
            continue
        kind = "tag" if logged.position is None else "param"
        with system.store.transaction() as tx:
            if logged.position is None:
                by.record(tx, "run.untag", f"run/{logged.run}", workspace=logged.workspace, reason=_WHY)
            else:
                action = f"{kind}{appends.ERASED}"
                appends.erase(tx, [logged.position], by, action, f"run/{logged.run}", workspace=logged.workspace)
            tx.subjects.remove(logged)
        gone += 1
    for index in payloads:
        with system.store.transaction() as tx:
            system.ledger.erase(tx, index, actor=principal.id, reason=_WHY)
        gone += 1
    if gone:
        system.appends.forget()
        system.store.vacuum()
    for name, count in closed.items():
        left.append(Left(where=f"workspace {name}", why=f"{count} params or tags: who may write there can remove them"))
    return gone, left


def remaining(system: "System", value: str) -> list[Left]:
    """Where somebody's value still stands, and why it stays. No text here repeats it."""
    if len(value) < DISTINCT:
        return [
            Left(where="free text of runs, artifacts and bundles", why="so short a value cannot be told apart there")
        ]
    found = [*_database(system, value), *_bundles(system, value), *_contents(system, value), *_others(system, value)]
    return [msgspec.structs.replace(left, where=left.where.replace(value, "…")) for left in found]


def _database(system: "System", value: str) -> Iterator[Left]:
    with system.store.read() as tx:
        held = tx.subjects.holding(value)
    for table, count in held.items():
        why = "what was recorded does not change" if table in ("facts", "ledger_entries") else "change it or delete it"
        yield Left(where=f"{count} rows of {table} in the database", why=why)


def _bundles(system: "System", value: str) -> Iterator[Left]:
    folder = system.home.bundles
    names: dict[str, list[str]] = {}
    with system.store.read() as tx:
        for row in tx.use_cases.list():
            for fact in tx.facts.list(row.name, "bundle", 1000):
                made = msgspec.convert(fact.body, Bundle)
                names.setdefault(made.digest.removeprefix("sha256:"), []).append(f"{made.name} version {made.version}")
    for path in _holding(folder, value):
        bundle = path.relative_to(folder).parts[0].partition(".")[0]
        where = f"{', '.join(sorted(names.get(bundle, [bundle[:12]])))}: {path.name}"
        yield Left(where=where, why="it is signed and stays as it is: train anew, release, and have the old one go")


def _contents(system: "System", value: str) -> Iterator[Left]:
    if system.settings.storage:
        yield Left(where="artifacts in object storage", why="they were not searched")
        return
    for path in _holding(system.home.blobs, value):
        with system.store.read() as tx:
            named = tx.subjects.artifacts(Digest(f"sha256:{path.name}"))
        for name in named or (path.name[:12],):
            yield Left(where=f"artifact {name}", why="delete it, or its run, then: bedplate gc")


def _others(system: "System", value: str) -> Iterator[Left]:
    for folder in (system.home.logs, system.home.run, system.home.journal, system.home.ledger):
        for path in _holding(folder, value):
            yield Left(where=str(path.relative_to(system.home.root)), why="remove the file once nothing writes it")


def _holding(folder: Path, value: str) -> Iterator[Path]:
    """The files below a folder that hold a value as a word or, where it is a large number, as 64 bits."""
    wanted = word(value)
    if value.isascii() and value.isdigit() and 1 << 20 <= int(value) < 1 << 63:
        wanted = re.compile(wanted.pattern + b"|" + re.escape(int(value).to_bytes(8, "little")))
    found = 0
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and _holds(path, wanted, len(value.encode()) + 2):
            found += 1
            yield path
            if found == _MOST:
                return


def _holds(path: Path, wanted: re.Pattern[bytes], overlap: int) -> bool:
    try:
        with path.open("rb") as file:
            before = b""
            while chunk := file.read(_CHUNK):
                if wanted.search(before + chunk):
                    return True
                before = chunk[-max(overlap, 10) :]
    except OSError:
        return False  # it went meanwhile
    return False
