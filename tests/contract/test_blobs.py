"""What holds for artifacts, wherever they are kept."""

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
