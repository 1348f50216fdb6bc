"""Uploads in parts: parts are kept, replaced and put together; what nobody carries on is given up."""

from datetime import UTC, datetime, timedelta

import pytest

from bedplate import clock, ids
from bedplate.errors import ConflictError, InputError, NotFoundError
from bedplate.tracking.uploads import MOST_PARTS, Part
from tests.tracking.conftest import WORKSPACE, Kept

START = datetime(2026, 1, 1, tzinfo=UTC)


def begin(kept: Kept, path: str = "big.bin", parts: int = 3) -> str:
    return kept.uploads.begin(WORKSPACE, path, parts, by=kept.ana).id


def complete(kept: Kept, upload: str, parts: list[Part], path: str = "big.bin") -> None:
    kept.uploads.complete(WORKSPACE, path, upload, parts, by=kept.ana)


def test_parts_become_one_artifact_in_their_order(kept: Kept) -> None:
    upload = begin(kept)
    pieces = {3: b"c" * 10, 1: b"a" * 2_000_000, 2: b"b"}
    parts = [Part(number, kept.part(upload, number, data)) for number, data in pieces.items()]

    complete(kept, upload, sorted(parts))

    assert kept.get("big.bin") == pieces[1] + pieces[2] + pieces[3]
    assert kept.entries() == [("artifact.put", "workspace/default")]


def test_a_part_that_is_sent_again_replaces_the_first(kept: Kept) -> None:
    upload = begin(kept)
    old = kept.part(upload, 1, b"old")
    new = kept.part(upload, 1, b"new")

    with pytest.raises(InputError, match="part 1"):
        complete(kept, upload, [Part(1, old)])
    complete(kept, upload, [Part(1, new)])

    assert kept.get("big.bin") == b"new"


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [(1, "a"), (2, "x")],
        [(2, "b"), (1, "a")],
        [(1, "a"), (1, "a")],
        [(1, "a"), (2, "b"), (3, "c")],
        [(1, "a"), (2, "")],
        [(0, "a")],
        [(-1, "a")],
    ],
)
def test_only_the_parts_that_were_kept_can_be_put_together(kept: Kept, wrong: list[tuple[int, str]]) -> None:
    upload = begin(kept)
    known = {name: kept.part(upload, number, name.encode()) for number, name in ((1, "a"), (2, "b"))}

    with pytest.raises(InputError):
        complete(kept, upload, [Part(number, known.get(name, name)) for number, name in wrong])

    assert kept.artifacts.list(WORKSPACE) == []
    complete(kept, upload, [Part(1, known["a"]), Part(2, known["b"])])  # it can still be completed


def test_parts_that_are_not_named_are_left_out(kept: Kept) -> None:
    upload = begin(kept)
    known = [Part(number, kept.part(upload, number, b"%d" % number)) for number in (1, 2, 3)]

    complete(kept, upload, [known[0], known[2]])

    assert kept.get("big.bin") == b"13"


def test_completing_again_in_the_same_way_changes_nothing(kept: Kept) -> None:
    upload = begin(kept)
    parts = [Part(1, kept.part(upload, 1, b"a"))]
    complete(kept, upload, parts)

    complete(kept, upload, parts)
    with pytest.raises(InputError, match="other parts"):
        complete(kept, upload, [Part(1, ids.digest_bytes(b"x"))])
    with pytest.raises(ConflictError, match="complete"):
        kept.part(upload, 2, b"late")
    kept.uploads.abort(WORKSPACE, "big.bin", upload)

    assert kept.get("big.bin") == b"a"
    assert len(kept.entries()) == 1


def test_an_aborted_upload_is_gone_with_its_parts(kept: Kept) -> None:
    upload = begin(kept)
    digest = kept.part(upload, 1, b"a")

    kept.uploads.abort(WORKSPACE, "big.bin", upload)

    for ask in (
        lambda: kept.part(upload, 1, b"a"),
        lambda: complete(kept, upload, [Part(1, digest)]),
        lambda: kept.uploads.abort(WORKSPACE, "big.bin", upload),
        lambda: kept.uploads.expect(WORKSPACE, upload, 1),
    ):
        with pytest.raises(NotFoundError):
            ask()
    assert kept.entries() == []


def test_an_upload_is_of_one_name_in_one_workspace(kept: Kept) -> None:
    upload = begin(kept)
    parts = [Part(1, kept.part(upload, 1, b"a"))]

    with pytest.raises(NotFoundError):
        complete(kept, upload, parts, path="other.bin")
    with pytest.raises(NotFoundError):
        kept.uploads.complete("other", "big.bin", upload, parts, by=kept.ana)
    with pytest.raises(NotFoundError):
        kept.uploads.abort(WORKSPACE, "other.bin", upload)


@pytest.mark.parametrize("parts", [0, -1, MOST_PARTS + 1])
def test_the_number_of_parts_is_bounded(kept: Kept, parts: int) -> None:
    with pytest.raises(InputError):
        begin(kept, parts=parts)
    upload = begin(kept)
    with pytest.raises(InputError):
        kept.uploads.expect(WORKSPACE, upload, parts)


def test_a_name_that_is_taken_meanwhile_is_not_replaced_by_an_upload(kept: Kept) -> None:
    upload = begin(kept, path="a")
    parts = [Part(1, kept.part(upload, 1, b"x"))]
    kept.put("a/b", b"y")

    with pytest.raises(ConflictError):
        complete(kept, upload, parts, path="a")
    assert kept.get("a/b") == b"y"


def test_what_nobody_carries_on_is_given_up(kept: Kept) -> None:
    with clock.frozen(START):
        left, done, carried = begin(kept, "left"), begin(kept, "done"), begin(kept, "carried")
        parts = {upload: Part(1, kept.part(upload, 1, upload.encode())) for upload in (left, done, carried)}
        complete(kept, done, [parts[done]], path="done")
    with clock.frozen(START + timedelta(hours=20)):
        kept.part(carried, 2, b"more")
    with clock.frozen(START + timedelta(hours=25)):
        assert kept.uploads.forget(dry_run=True) == 2
        assert kept.uploads.forget() == 2
        assert kept.uploads.forget() == 0
        for upload, path in ((left, "left"), (done, "done")):
            with pytest.raises(NotFoundError):
                complete(kept, upload, [parts[upload]], path=path)
        complete(kept, carried, [parts[carried]], path="carried")

    assert kept.get("done") == done.encode()
    assert kept.get("carried") == carried.encode()
