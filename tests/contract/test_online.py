"""What every store of online features must do."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from bedplate import online
from bedplate.errors import InputError, StorageError, UnavailableError
from bedplate.online import LmdbOnline, Online, Scoped, lmdb_store
from tests.laws import examples
from tests.servers import Redis

Opener = Callable[..., Online]


@pytest.fixture(params=["lmdb", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    opened: list[Online] = []
    where: Path | str = tmp_path / "online"
    if request.param == "redis":
        where = request.getfixturevalue("redis").empty()

    def make(*, read_only: bool = False) -> Online:
        opened.append(online.open(where, read_only=read_only))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def test_values_come_back_by_namespace_and_key(opener: Opener) -> None:
    store = opener()
    store.put_many("a", {b"k": b"1", b"empty": b""})
    store.put_many("b", [(b"k", b"2")])

    assert (store.get("a", b"k"), store.get("b", b"k"), store.get("a", b"missing")) == (b"1", b"2", None)
    assert store.get_many("a", [b"missing", b"k", b"empty", b"k"]) == [None, b"1", b"", b"1"]
    assert (store.count("a"), store.count("b"), store.count("c")) == (2, 1, 0)
    assert [dict(store.items(each)) for each in "abc"] == [{b"k": b"1", b"empty": b""}, {b"k": b"2"}, {}]


def test_each_batch_counts_up_the_version_of_its_namespace_only(opener: Opener) -> None:
    store = opener()

    assert [store.version("a"), store.put_many("a", {b"k": b"1"}), store.put_many("a", {}), store.version("b")] == [
        0,
        1,
        2,
        0,
    ]
    assert (store.delete("a", [b"k", b"missing"]), store.get("a", b"k")) == (3, None)


def test_replace_leaves_nothing_else_in_the_namespace(opener: Opener) -> None:
    store = opener()
    store.put_many("a", {b"%d" % i: b"old" for i in range(50)})
    store.put_many("b", {b"1": b"other"})
    store.put_many("a", {b"1": b"new", b"x": b"new"}, replace=True)

    assert (store.count("a"), store.get("a", b"1"), store.get("a", b"2")) == (2, b"new", None)
    assert store.get("b", b"1") == b"other"


@pytest.mark.parametrize("key", [b"", b"k" * 401])
def test_a_bad_key_stores_nothing_of_its_batch(opener: Opener, key: bytes) -> None:
    store = opener()

    with pytest.raises(InputError):
        store.put_many("a", {b"good": b"1", key: b"2"})
    assert (store.get("a", b"good"), store.version("a")) == (None, 0)


def test_a_reader_sees_what_was_written_after_it_opened_and_writes_nothing(opener: Opener) -> None:
    writer, reader = opener(), opener(read_only=True)
    writer.put_many("a", {b"k": b"1"})

    assert reader.get("a", b"k") == b"1"
    with pytest.raises(StorageError):
        reader.put_many("a", {b"k": b"2"})


def test_a_batch_is_seen_whole_or_not_at_all(opener: Opener) -> None:
    store, reader = opener(), opener(read_only=True)
    keys = [b"%d" % i for i in range(50)]
    seen: set[int] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.add(len(set(reader.get_many("a", keys))))

    thread = threading.Thread(target=look)
    thread.start()
    for round_ in range(100):
        store.put_many("a", dict.fromkeys(keys, b"%d" % round_))
    stop.set()
    thread.join()

    assert seen == {1}


@examples(10, suppress=(HealthCheck.function_scoped_fixture,))
@given(st.lists(st.dictionaries(st.binary(min_size=1, max_size=8), st.binary(max_size=8), max_size=5), max_size=4))
def test_it_is_a_dictionary(opener: Opener, batches: list[dict[bytes, bytes]]) -> None:
    store = opener()
    store.put_many("d", {}, replace=True)
    model: dict[bytes, bytes] = {}
    for batch in batches:
        store.put_many("d", batch)
        model |= batch

    assert {key: store.get("d", key) for key in model} == model
    assert store.count("d") == len(model)


def test_another_process_reads_through_a_growing_map(tmp_path: Path) -> None:
    """LMDB: the writer outgrows the map that the reader opened with."""
    code = (
        "import pathlib, sys; from bedplate.online import LmdbOnline;"
        "s = LmdbOnline(pathlib.Path(sys.argv[1]), read_only=True, map_size=1 << 20);"
        "print(s.get('a', b'0'), flush=True);"
        "sys.stdin.readline(); print(s.get('a', b'49'), s.count('a'), flush=True)"
    )
    store = LmdbOnline(tmp_path, map_size=1 << 20)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline().strip() == "None"
        store.put_many("a", {b"%d" % i: bytes(100_000) for i in range(48)})
        store.put_many("a", {b"48": b"x", b"49": b"y"})
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline().strip() == "b'y' 50"
    store.close()


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)

    with pytest.raises(StorageError, match="cannot be opened"):
        online.open(tmp_path)


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_what_is_erased_leaves_no_byte_in_any_file(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder: Path = tmp_path / "online"
    if kind == "lmdb":
        store = online.open(folder)
    else:
        server: Redis = request.getfixturevalue("redis")
        store, folder = online.open(server.empty()), server.folder
    keys = [f"person-{number:06d}-{'x' * 40}".encode() for number in range(500)]
    values = {key: b"v" * (200 if number % 5 else 3000) for number, key in enumerate(keys)}
    store.put_many("other", dict.fromkeys(keys[1::2], b"o") | {keys[1]: b"what-was-told-of-somebody" * 9})
    store.put_many("view", values)
    store.put_many("view", dict.fromkeys(keys[:50], b"w" * 300))
    before, values = store.version("view"), values | dict.fromkeys(keys[:50], b"w" * 300)
    for number in (0, 7, 14):
        store.erase("view", {keys[number]: None})
    store.erase("view", dict.fromkeys(keys[::7]))
    store.erase("other", dict.fromkeys(keys[::7]) | {keys[1]: b"left"})
    assert store.version("view") > before
    for number, key in enumerate(keys):
        assert store.get("view", key) == (values[key] if number % 7 else None)
        left = b"left" if number == 1 else b"o"
        assert store.get("other", key) == (left if number % 2 and number % 7 else None)
    for number in range(3):  # nor does it come back from what a store keeps at hand
        held = [path.read_bytes() for path in folder.iterdir()]
        assert not any(b"told-of-somebody" in each for each in held)
        assert all(any(key in each for each in held) == (n % 7 != 0) for n, key in enumerate(keys))
        store.put_many(f"new-{number}", {b"%d" % i: b"n" * i for i in range(0, 3000, 50)})
    store.close()


WRITER = """
import sys
from pathlib import Path
from bedplate.online import LmdbOnline

store = LmdbOnline(Path(sys.argv[1]))
store.put_many("view", {b"person-%06d" % number: b"v" * 500 for number in range(300)})
store.put_many("view", {b"kept-%06d" % number: b"k" * 500 for number in range(300)}, replace=True)
print("wrote", flush=True)
for line in sys.stdin:
    store.put_many(line, {b"%d" % number: b"n" * number for number in range(0, 3000, 20)})
    print("wrote", flush=True)
"""


def test_lmdb_another_process_that_wrote_does_not_write_again_what_was_erased(tmp_path: Path) -> None:
    """It has pages of its earlier changes in memory, and puts new ones into them."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "wrote\n"
        store = LmdbOnline(tmp_path)
        store.erase("view", {b"person-%06d" % number: None for number in range(300)})
        for name in ("one", "two"):
            writer.stdin.write(f"{name}\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "wrote\n"
            assert b"person-" not in (tmp_path / "data.mdb").read_bytes()
        assert (store.count("view"), store.get("view", b"kept-000299")) == (300, b"k" * 500)
        store.close()
        writer.stdin.close()


def test_lmdb_an_old_state_that_is_read_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "_PATIENCE", 0.05)
    store = LmdbOnline(tmp_path)
    store.put_many("view", {b"person": b"1", b"other": b"2"})
    with store._begin() as transaction:
        with pytest.raises(StorageError, match="somebody reads an old state"):
            store.erase("view", {b"person": None})
        assert transaction.get(store._prefixes["view"] + b"person") == b"1"
    store.erase("view", {b"person": None})
    assert b"person" not in (tmp_path / "data.mdb").read_bytes()
    assert store.get("view", b"other") == b"2"
    store.close()


def test_lmdb_others_write_while_an_old_state_is_waited_for(tmp_path: Path) -> None:
    store = LmdbOnline(tmp_path)
    store.put_many("view", {b"person": b"1"})
    with store._begin() as transaction:
        erasing = threading.Thread(target=store.erase, args=("view", {b"person": None}))
        erasing.start()
        while store.version("view") == 1:  # until it is erased, and what it left behind is not
            time.sleep(0.001)
        store.put_many("view", {b"other": b"2"})
        assert erasing.is_alive()
        assert transaction.get(store._prefixes["view"] + b"person") == b"1"
    erasing.join()
    assert b"person" not in (tmp_path / "data.mdb").read_bytes()
    assert dict(store.items("view")) == {b"other": b"2"}
    store.close()


def test_small_numbers_are_erased_one_after_the_other(tmp_path: Path) -> None:
    with closing(online.open(tmp_path)) as store:
        keys = [number.to_bytes(8, "little") for number in range(1, 6)]
        for view in ("recent", "visits"):  # a version in the stamp of a view looks like a small number
            store.put_many(view, [(key, key * 4) for key in keys])
        for view in ("recent", "visits", "visits"):
            store.erase(view, dict.fromkeys(keys[1:3] if store.get(view, keys[1]) else keys[:1]))
        data = (tmp_path / "data.mdb").read_bytes()
        assert not any(key * 4 in data for key in keys[1:3])
        assert dict(store.items("recent")) == {key: key * 4 for key in (keys[0], *keys[3:])}
        assert dict(store.items("visits")) == {key: key * 4 for key in keys[3:]}


def test_views_of_two_use_cases_are_two_namespaces(opener: Opener) -> None:
    store = opener()
    one, other = Scoped(store, "shop"), Scoped(store, "bank")
    one.put_many("recent", {b"k": b"1"})
    other.put_many("recent", {b"k": b"2"}, replace=True)

    assert (one.get("recent", b"k"), other.get_many("recent", [b"k"])) == (b"1", [b"2"])
    assert (one.count("recent"), one.version("recent"), store.get("recent", b"k")) == (1, 1, None)


@pytest.mark.parametrize(
    ("address", "error", "found"),
    [
        ("redis://127.0.0.1:1/0", UnavailableError, "does not answer"),
        ("redis://127.0.0.1:port/0", InputError, "no address"),
    ],
)
def test_a_server_that_cannot_be_asked_says_so(address: str, error: type[Exception], found: str) -> None:
    with pytest.raises(error, match=found):
        online.open(address)


def test_a_refused_password_is_told_without_it(redis: Redis) -> None:
    with pytest.raises(StorageError, match="refuses") as caught:
        online.open(redis.address.replace("redis://", "redis://somebody:secret-word@"))
    assert "secret-word" not in f"{caught.value} {caught.value.where}"


def test_a_reader_bears_a_server_that_is_away(tmp_path: Path) -> None:
    reader = online.open("redis://127.0.0.1:1/0", read_only=True)
    with pytest.raises(UnavailableError, match="does not answer"):
        reader.get("a", b"k")
    reader.close()
