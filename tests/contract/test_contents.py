"""What holds for artifacts over both kinds of place for their content: a folder and an object store."""

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bedplate import blobs, clock, ids, store
from bedplate.errors import NotFoundError
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.tracking.uploads import Part
from tests.servers import S3
from tests.tracking.conftest import WORKSPACE, Kept

START = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(days=1)


@pytest.fixture(params=["disk", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """A small home, with its content in a folder or in an object store."""
    place = blobs.open(tmp_path / "blobs")
    if request.param == "s3":
        server: S3 = request.getfixturevalue("s3")
        place = blobs.open(server.address(), server.options, spool=tmp_path / "spool")
    with (
        closing(store.open(tmp_path / "bedplate.db")) as opened,
        closing(Ledger(opened, tmp_path / "ledger", Signer(new_key("test")))) as ledger,
    ):
        yield Kept(opened, place, ledger)


def test_large_content_goes_in_and_out_and_away(kept: Kept, tmp_path: Path) -> None:
    """Streamed in, read whole and in part, and gone a day after its last name; nothing is left in the spool."""
    data = random.Random(1).randbytes(9_000_000)
    with clock.frozen(START):
        kept.put("run/model.bin", data)
        row = kept.artifacts.find(WORKSPACE, "run/model.bin")
        assert kept.get("run/model.bin") == data
        assert b"".join(kept.artifacts.read(row, 1_000_000, 3_000_000)) == data[1_000_000:3_000_000]
        kept.delete("run")
    with clock.frozen(START + timedelta(hours=23)):
        assert kept.contents.collect(GRACE).removed == 0
    with clock.frozen(START + timedelta(hours=25)):
        sweep = kept.contents.collect(GRACE)

    assert (sweep.removed, sweep.bytes) == (1, len(data))
    assert not kept.place.has(ids.digest_bytes(data))
    assert list(tmp_path.glob("spool/*")) == []


def test_a_reader_in_the_middle_is_waited_for(kept: Kept) -> None:
    """A collection passes over what is being read."""
    data = random.Random(2).randbytes(6_000_000)
    with clock.frozen(START):
        kept.put("a", data)
        content = kept.artifacts.read(kept.artifacts.find(WORKSPACE, "a"))
        first = next(content)
        kept.delete("a")
    with clock.frozen(START + timedelta(hours=25)):
        assert kept.contents.collect(GRACE).removed == 0
        assert first + b"".join(content) == data
        content.close()
        assert kept.contents.collect(GRACE).removed == 1
    with pytest.raises(NotFoundError):
        kept.contents.read(ids.digest_bytes(data))


def test_an_upload_in_parts_becomes_one_artifact(kept: Kept) -> None:
    """Parts lie where content lies, and their bytes go when the whole is there."""
    pieces = [random.Random(number).randbytes(5 << 20) for number in range(2)]
    with clock.frozen(START):
        upload = kept.uploads.begin(WORKSPACE, "big", 2, by=kept.ana).id
        parts = [Part(number, kept.part(upload, number, data)) for number, data in enumerate(pieces, 1)]
        kept.uploads.complete(WORKSPACE, "big", upload, parts, by=kept.ana)
        assert kept.get("big") == b"".join(pieces)
    with clock.frozen(START + timedelta(hours=25)):
        assert kept.contents.collect(GRACE).removed == 2

    assert list(kept.place.digests()) == [ids.digest_bytes(b"".join(pieces))]


def test_writers_and_collections_at_once_lose_nothing(kept: Kept) -> None:
    """The same few contents are named, read and given up while others collect without any grace."""
    contents = [b"%d" % number * 100 for number in range(3)]
    stop = threading.Event()
    lost: list[str] = []

    def sweep() -> None:
        while not stop.is_set():
            kept.contents.collect(timedelta(0))

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for turn in range(15):
            data = chance.choice(contents)
            kept.put(f"{seed}/{turn % 2}", data)
            if kept.get(f"{seed}/{turn % 2}") != data:
                lost.append(f"{seed}/{turn}")
            kept.delete(f"{seed}/{turn % 2}")

    sweeper = threading.Thread(target=sweep)
    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in (sweeper, *writers):
        thread.start()
    for writer in writers:
        writer.join()
    stop.set()
    sweeper.join()

    assert lost == []
