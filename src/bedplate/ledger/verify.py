"""Checking a ledger offline: from copies of its folder and database, its public key, a checkpoint kept elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from bedplate import ids, store
from bedplate.errors import BedplateError, InputError, IntegrityError
from bedplate.ledger import merkle
from bedplate.ledger.ledger import ERASE, Entry, erased_resource, payload_digest, split_frontier
from bedplate.ledger.notes import Checkpoint, Verifier
from bedplate.ledger.tiles import WIDTH, Tiles
from bedplate.settings import Home
from bedplate.store import Store
from bedplate.store.ledger import EntryRow


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What verification found. ``unsigned`` entries were appended after the last checkpoint (at most a minute ago)."""

    ok: bool
    entries: int
    signed: int
    unsigned: int
    erased: int
    root: str
    origin: str
    kept_checkpoint: int | None
    problems: tuple[str, ...]


def verify(
    folder_or_home: Path | Home,
    checkpoint: str | Path | None = None,
    *,
    database: Path | str | Store | None = None,
    key: str | None = None,
) -> Report:
    """Check every entry, hash, tile and signature of a ledger.

    ``folder_or_home`` is a home (or its path) or a copy of a ledger folder. ``checkpoint`` is a signed note, or a file
    with one, that was kept where whoever could change the home could not: with it, a ledger that was cut or wholly
    rebuilt is found out too. ``database`` replaces the home's own; ``key`` is the text of the public key.

    Returns a report; what is wrong stands in ``problems``, it is not raised.

    Raises:
        InputError: there is no ledger there.
    """
    folder, database, key = _locate(folder_or_home, database, key)
    return _Verification(folder, Verifier(key), _text(checkpoint)).run(database)


class _Verification:
    def __init__(self, folder: Path, verifier: Verifier, kept: str | None) -> None:
        self._folder, self._verifier = folder, verifier
        self._problems: list[str] = []
        self._kept = self._open(kept, "the checkpoint kept elsewhere") if kept is not None else None
        self._kept_given = kept is not None
        self._signed: dict[int, set[bytes]] = {}  # size -> roots that were signed for it

    def run(self, database: Path | str | Store | None) -> Report:
        path = self._folder / "checkpoint"
        current = None
        if path.exists():
            current = self._open(path.read_text(), str(path))
        else:
            self._problems.append(f"{path} is missing")
        for signed in (current, self._kept):
            if signed is not None:
                self._signed.setdefault(signed.size, set()).add(signed.root)
        size, erased, root = 0, 0, merkle.EMPTY
        try:
            if database is None:
                size, root = self._walk(self._bundles(current.size if current else 0), {})
            elif isinstance(database, Store):
                size, erased, root = self._database(database)
            else:
                opened = store.open(database, read_only=True)
                try:
                    size, erased, root = self._database(opened)
                finally:
                    opened.close()
        except BedplateError as error:
            self._problems.append(str(error).replace("\n", " "))
        for signed_size in sorted(self._signed):
            if signed_size > size:
                self._problems.append(f"{signed_size} entries were signed, {size} are here: the ledger was cut")
        if current is not None and database is not None and size >= current.size:
            self._tiles(current.size)
        return Report(
            ok=not self._problems,
            entries=size,
            signed=current.size if current else 0,
            unsigned=max(0, size - (current.size if current else 0)),
            erased=erased,
            root=root.hex(),
            origin=self._verifier.name,
            kept_checkpoint=self._kept.size if self._kept else None,
            problems=tuple(self._problems),
        )

    def _database(self, database: Store) -> tuple[int, int, bytes]:
        with database.read() as tx:
            for size, note in tx.ledger.checkpoints():
                signed = self._open(note, f"the stored checkpoint of {size} entries")
                if signed is not None:
                    self._signed.setdefault(size, set()).add(signed.root)
            head, joined = tx.ledger.head()
            payloads = {position: payload_digest(salt, body) for position, salt, body in tx.ledger.payloads()}
            size, root = self._walk(tx.ledger.entries(0, 1 << 62), payloads, check_payloads=True)
        if head != size or merkle.frontier_root(split_frontier(joined)) != root:
            self._problems.append(f"the head of the ledger says {head} entries and another root: {size} are here")
        return size, size - len(payloads), root

    def _walk(
        self, rows: Iterator[EntryRow], payloads: dict[int, str], *, check_payloads: bool = False
    ) -> tuple[int, bytes]:
        size = 0
        frontier: list[bytes] = []
        missing: set[int] = set()
        erased: set[str] = set()
        self._check_root(0, frontier)
        for row in rows:
            if row.position != size:
                self._problems.append(f"entry {size} is missing: entry {row.position} follows")
                return size, merkle.frontier_root(frontier)
            leaf = merkle.leaf_hash(row.entry)
            if leaf != row.leaf:
                self._problems.append(f"entry {row.position} was changed: it does not match its hash")
            entry = self._entry(row)
            if entry is not None:
                if check_payloads and payloads.get(row.position) is None:
                    missing.add(row.position)
                elif check_payloads and payloads[row.position] != entry.payload:
                    self._problems.append(f"the payload of entry {row.position} was changed")
                if entry.action == ERASE:
                    erased.add(entry.resource)
            size, frontier = merkle.extend(size, frontier, [leaf])
            self._check_root(size, frontier)
        for position in sorted(missing):
            if erased_resource(position) not in erased:
                self._problems.append(f"the payload of entry {position} is gone and no entry says who erased it")
        return size, merkle.frontier_root(frontier)

    def _entry(self, row: EntryRow) -> Entry | None:
        try:
            entry = msgspec.json.decode(row.entry, type=Entry)
        except msgspec.DecodeError:
            self._problems.append(f"entry {row.position} cannot be read")
            return None
        if entry.index != row.position:
            self._problems.append(f"entry {row.position} says it is entry {entry.index}")
        if ids.canonical(entry) != row.entry:
            self._problems.append(f"entry {row.position} is not written canonically")
        return entry

    def _check_root(self, size: int, frontier: list[bytes]) -> None:
        for root in self._signed.get(size, ()):
            if root != merkle.frontier_root(frontier):
                self._problems.append(f"the first {size} entries are not those that were signed")

    def _bundles(self, size: int) -> Iterator[EntryRow]:
        tiles = Tiles(self._folder)
        for number in range((size + WIDTH - 1) // WIDTH):
            width = min(WIDTH, size - number * WIDTH)
            leaves = tiles.hashes(0, number, width)
            for offset, entry in enumerate(tiles.entries(number, width)):
                yield EntryRow(number * WIDTH + offset, leaves[offset], entry)

    def _tiles(self, size: int) -> None:
        """The folder's own copy: entries against their hashes, each level against the one below, then the root."""
        try:
            tiles = Tiles(self._folder)
            below: list[bytes] = [merkle.leaf_hash(row.entry) for row in self._bundles(size)]
            level = 0
            while below:
                for number in range((len(below) + WIDTH - 1) // WIDTH):
                    part = below[number * WIDTH : (number + 1) * WIDTH]
                    if tiles.hashes(level, number, len(part)) != part:
                        self._problems.append(f"tile {level}/{number} was changed")
                below = [
                    merkle.frontier_root(merkle.extend(0, [], below[i : i + WIDTH])[1])
                    for i in range(0, len(below) - WIDTH + 1, WIDTH)
                ]
                level += 1
            root = merkle.frontier_root(merkle.frontier_of(size, tiles.node(size)))
            if root not in self._signed[size]:
                self._problems.append("the tiles are not those that were signed")
        except BedplateError as error:
            self._problems.append(str(error).replace("\n", " "))

    def _open(self, note: str, where: str) -> Checkpoint | None:
        try:
            return self._verifier.open(note, where)
        except IntegrityError as error:
            self._problems.append(str(error).replace("\n", " "))
            return None


def _locate(
    place: Path | Home, database: Path | str | Store | None, key: str | None
) -> tuple[Path, Path | str | Store | None, str]:
    home = place if isinstance(place, Home) else Home(Path(place))
    if home.manifest.exists() or isinstance(place, Home):
        folder = home.ledger
        database = database if database is not None else home.database
        public = home.keys / "ledger.pub"
    else:
        folder, public = Path(place), Path(place) / "ledger.pub"
    if key is None:
        if not public.exists():
            raise InputError(
                "there is no ledger here, or no public key", where=str(public), fix="name a home, or give the key"
            )
        key = public.read_text()
    if isinstance(database, Path) and not database.exists():
        raise InputError("there is no database here", where=str(database), fix="name a home, or give the database")
    return folder, database, key


def _text(checkpoint: str | Path | None) -> str | None:
    if isinstance(checkpoint, Path):
        try:
            return checkpoint.read_text()
        except OSError as error:
            raise InputError("the checkpoint cannot be read", where=str(checkpoint)) from error
    return checkpoint
