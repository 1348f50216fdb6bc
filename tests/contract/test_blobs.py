"""What holds for artifacts, wherever they are kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bedplate import blobs, ids
from bedplate.blobs import Blobs
from bedplate.errors import InputError, IntegrityError, NotFoundError
from bedplate.ids import Digest
from tests.servers import S3

ABSENT = ids.digest_bytes(b"never put")


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """An empty place for artifacts."""
    if request.param == "disk":
        return blobs.open(tmp_path / "blobs")
    server: S3 = request.getfixturevalue("s3")
    return blobs.open(server.address(), server.options)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 50_000], ids=["empty", "one byte", "12 MB"])
def test_what_was_put_is_got(place: Blobs, data: bytes) -> None:
    """Any content comes back as it was, under the digest of it."""
    digest = place.put(data)

    assert digest == ids.digest_bytes(data)
    assert place.get(digest) == data
    assert place.has(digest)


def test_putting_again_changes_nothing(place: Blobs) -> None:
    """The same content is one artifact."""
    assert place.put(b"same") == place.put(b"same")
    assert list(place.digests()) == [ids.digest_bytes(b"same")]


def test_files_go_in_and_out(place: Blobs, tmp_path: Path) -> None:
    """A file is kept under the digest of its content and written back whole."""
    source, target = tmp_path / "in.bin", tmp_path / "deep" / "out.bin"
    source.write_bytes(b"abc" * 1_000_000)

    digest = place.put_file(source)
    place.fetch(digest, target)

    assert digest == ids.digest_file(source)
    assert target.read_bytes() == source.read_bytes()
    assert [p.name for p in target.parent.iterdir()] == ["out.bin"]


def test_what_was_never_put_is_not_found(place: Blobs, tmp_path: Path) -> None:
    """Asking for an unknown digest says so, and leaves no file."""
    assert not place.has(ABSENT)
    with pytest.raises(NotFoundError):
        place.get(ABSENT)
    with pytest.raises(NotFoundError):
        place.fetch(ABSENT, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_deleting(place: Blobs) -> None:
    """A deleted artifact is gone; deleting it again is nothing."""
    digest = place.put(b"short-lived")

    place.delete(digest)
    place.delete(digest)

    assert not place.has(digest)
    assert list(place.digests()) == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "sha256:", "sha256:../../x", "sha256:" + "A" * 64])
def test_only_digests_become_paths(place: Blobs, name: str) -> None:
    """What is no digest is refused before it is looked for."""
    with pytest.raises(InputError, match="not a digest"):
        place.get(Digest(name))


def test_other_content_under_a_digest_is_refused(place: Blobs, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What does not match its digest never passes as data, and is not left in a file."""
    digest = place.put(b"genuine")
    _overwrite(place, digest, b"forged!")

    with pytest.raises(IntegrityError):
        place.get(digest)
    with pytest.raises(IntegrityError):
        place.fetch(digest, tmp_path / "x")
    assert not (tmp_path / "x").exists()


# ------------------------------------------------------------------------------------------------------------ in pieces


@pytest.mark.parametrize("pieces", [[], [b""], [b"x"], [b"ab", b"", b"c" * 3_000_000, b"d"], [bytes(1 << 20)] * 20])
def test_pieces_go_in_and_come_out(place: Blobs, pieces: list[bytes]) -> None:
    """Content that comes in pieces is the artifact of their sum, whatever the pieces were."""
    whole = b"".join(pieces)

    digest = place.put_pieces(iter(pieces))

    assert digest == ids.digest_bytes(whole)
    assert place.get(digest) == whole
    content = place.read(digest)
    assert (b"".join(content), content.size, place.size(digest)) == (whole, len(whole), len(whole))


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 0), (0, 1), (5, 5), (7, 2_500_000), (1 << 20, None), (2_999_999, None), (3_000_000, None), (0, 3_000_000)],
)
def test_a_part_comes_out(place: Blobs, start: int, stop: int | None) -> None:
    """Any range of bytes can be read alone; the size is that of the whole."""
    whole = bytes(range(250)) * 12_000
    digest = place.put(whole)

    content = place.read(digest, start, stop)

    assert (b"".join(content), content.size) == (whole[start:stop], len(whole))


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (2, 1), (0, 8), (8, None), (8, 9)])
def test_a_part_that_is_not_there_is_refused(place: Blobs, start: int, stop: int | None) -> None:
    """A range beyond the content is an error, not a shorter answer."""
    digest = place.put(b"seven b")

    with pytest.raises(InputError):
        place.read(digest, start, stop)


def test_an_unknown_digest_has_no_content(place: Blobs) -> None:
    """It is said when reading begins, before any piece."""
    for ask in (place.read, place.size):
        with pytest.raises(NotFoundError):
            ask(ABSENT)


@pytest.mark.parametrize("forged", [b"forged!", b"", b"genuine and more", b"genu"])
def test_a_reader_never_gets_all_of_what_is_damaged(place: Blobs, forged: bytes) -> None:
    """The last piece of a damaged artifact is withheld, so nobody takes it for complete."""
    digest = place.put(b"genuine")
    _overwrite(place, digest, forged)
    got = []

    with pytest.raises(IntegrityError):
        got.extend(place.read(digest))

    assert got == []


def test_only_the_last_piece_of_what_is_damaged_is_withheld(place: Blobs) -> None:
    """Content of several pieces flows until the digest is known."""
    digest = place.put(bytes(4_500_000))
    _overwrite(place, digest, bytes(4_499_999) + b"x")
    got = []

    with pytest.raises(IntegrityError):
        got.extend(place.read(digest))

    assert 0 < sum(map(len, got)) < 4_500_000


def test_a_reader_in_the_middle_finishes_after_a_deletion(place: Blobs) -> None:
    """What was opened is read to its end, although nobody else can open it any more."""
    whole = bytes(range(250)) * 40_000
    content = place.read(place.put(whole))
    first = next(content)

    place.delete(ids.digest_bytes(whole))

    assert first + b"".join(content) == whole
    assert not place.has(ids.digest_bytes(whole))


def test_what_is_not_kept_is_not_there(place: Blobs) -> None:
    """Content that was received and sealed appears only when it is kept, and leaves nothing when it is not."""
    with place.receive() as incoming:
        incoming.write(b"half")
        digest = incoming.seal()
        assert not place.has(digest)

    assert not place.has(digest)
    assert list(place.digests()) == []
    assert place.tidy(0) == 0


def test_a_source_that_fails_leaves_nothing(place: Blobs) -> None:
    """A sender that breaks off is no content."""

    def broken() -> Iterator[bytes]:
        yield b"first"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        place.put_pieces(broken())

    assert list(place.digests()) == []
    assert place.tidy(0) == 0


def test_what_a_killed_writer_left_is_tidied_up(place: Blobs) -> None:
    """Files of writers that never finished go once they are old; artifacts and present writers stay."""
    kept = place.put(b"kept")
    left = place.receive()
    left.write(b"left")

    assert place.tidy(60) == 0
    assert place.tidy(0) == 1
    assert list(place.digests()) == [kept]


def test_putting_pieces_mends_what_was_torn(place: Blobs) -> None:
    """A torn artifact is written again when the same content comes again."""
    digest = place.put(b"halves")
    _overwrite(place, digest, b"hal")

    assert place.put_pieces([b"hal", b"ves"]) == digest
    assert place.get(digest) == b"halves"


def _overwrite(place: Blobs, digest: Digest, data: bytes) -> None:
    from bedplate.blobs.disk import DiskBlobs
    from bedplate.blobs.objects import ObjectBlobs
    from bedplate.blobs.port import key

    if isinstance(place, DiskBlobs):
        (place._root / key(digest)).write_bytes(data)
    else:
        import obstore

        assert isinstance(place, ObjectBlobs)
        obstore.put(place._store, f"blobs/{key(digest)}", data)
