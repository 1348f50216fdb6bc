"""The tree as files, in the layout of C2SP tlog-tiles: static, so any web server or copy of the folder can be checked.

A tile holds up to 256 hashes; tile ``N`` of level ``L`` starts at hash ``256 * N``, and a hash of level ``L`` covers
``256**L`` leaves. A tile that is not full yet carries its width in its name. ``entries`` holds the entries themselves,
each behind its length (two bytes, big end first).
"""

import struct
from collections.abc import Sequence
from pathlib import Path

from bedplate import files
from bedplate.errors import IntegrityError
from bedplate.ledger.merkle import node_hash

WIDTH = 256
HASH = 32


class Tiles:
    """The tiles under ``<folder>/tile``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, size: int, leaves: Sequence[bytes], entries: Sequence[bytes]) -> None:
        """Write what leaves ``size`` onward add, and sync it. Doing it again after a crash writes the same bytes."""
        self._append_entries(size, entries)
        new, start, level = list(leaves), size, 0
        while new:
            completed: list[bytes] = []
            first = start // WIDTH
            hashes = self.hashes(level, first, start % WIDTH) + new
            for number, offset in enumerate(range(0, len(hashes), WIDTH), first):
                tile = hashes[offset : offset + WIDTH]
                self._write(str(level), number, len(tile), b"".join(tile))
                if len(tile) == WIDTH:
                    completed.append(_root(tile))
            new, start, level = completed, first, level + 1

    def hashes(self, level: int, number: int, width: int) -> list[bytes]:
        """The first ``width`` hashes of a tile.

        Raises:
            IntegrityError: the tile is missing or torn.
        """
        data = self._read(str(level), number, width) if width else b""
        if len(data) < width * HASH or len(data) % HASH:
            raise IntegrityError("the tile is torn", where=str(self._path(str(level), number, WIDTH)))
        return [data[i : i + HASH] for i in range(0, width * HASH, HASH)]

    def entries(self, number: int, width: int) -> list[bytes]:
        """The first ``width`` entries of a bundle of entries.

        Raises:
            IntegrityError: the bundle is missing or torn.
        """
        data = self._read("entries", number, width) if width else b""
        found: list[bytes] = []
        at = 0
        while at < len(data) and len(found) < width:
            if at + 2 > len(data) or at + 2 + struct.unpack_from(">H", data, at)[0] > len(data):
                break
            (length,) = struct.unpack_from(">H", data, at)
            found.append(data[at + 2 : at + 2 + length])
            at += 2 + length
        if len(found) != width:
            raise IntegrityError("the bundle of entries is torn", where=str(self._path("entries", number, WIDTH)))
        return found

    def node(self, size: int) -> "Node":
        """The node function of the tree of the first ``size`` leaves."""
        return Node(self, size)

    def _append_entries(self, size: int, entries: Sequence[bytes]) -> None:
        first = size // WIDTH
        known = self.entries(first, size % WIDTH) + list(entries)
        for number, offset in enumerate(range(0, len(known), WIDTH), first):
            bundle = known[offset : offset + WIDTH]
            self._write("entries", number, len(bundle), b"".join(struct.pack(">H", len(e)) + e for e in bundle))

    def _path(self, level: str, number: int, width: int) -> Path:
        digits = f"{number:03d}"
        digits = digits.zfill((len(digits) + 2) // 3 * 3)
        parts = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        path = self.folder.joinpath("tile", level, *(f"x{part}" for part in parts[:-1]), parts[-1])
        return path if width == WIDTH else path.with_name(f"{path.name}.p") / str(width)

    def _read(self, level: str, number: int, width: int) -> bytes:
        full = self._path(level, number, WIDTH)
        # A partial tile may be superseded by a wider one, or by the full tile, at any time.
        wider = sorted(full.with_name(f"{full.name}.p").glob("[0-9]*"), key=lambda p: int(p.name))
        for path in (self._path(level, number, width), *(p for p in wider if int(p.name) > width), full):
            if path.is_file():
                return path.read_bytes()
        raise IntegrityError("the tile is missing", where=str(full), fix="`bedplate audit verify` says what is missing")

    def _write(self, level: str, number: int, width: int, data: bytes) -> None:
        path = self._path(level, number, width)
        files.write(path, data)
        partial = self._path(level, number, 1).parent
        for old in partial.glob("[0-9]*"):
            if old != path:  # narrower, and repeated in what was just written: readers fall back to it
                old.unlink()
        if width == WIDTH and partial.is_dir():
            partial.rmdir()


class Node:
    """Hash of the perfect subtree at (level, index), read from tiles; each tile is read once."""

    def __init__(self, tiles: Tiles, size: int) -> None:
        self._tiles, self._size = tiles, size
        self._cache: dict[tuple[int, int], list[bytes]] = {}

    def __call__(self, level: int, index: int) -> bytes:
        tile_level, inside = divmod(level, 8)
        start = index << inside
        number = start // WIDTH
        key = (tile_level, number)
        if key not in self._cache:
            width = min(WIDTH, (self._size >> 8 * tile_level) - number * WIDTH)
            self._cache[key] = self._tiles.hashes(tile_level, number, width)
        return _root(self._cache[key][start % WIDTH : start % WIDTH + (1 << inside)])


def _root(hashes: Sequence[bytes]) -> bytes:
    """Root over a power of two of hashes."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]
