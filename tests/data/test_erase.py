import signal
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.data import erase, upkeep
from bedplate.data.folder import LocalFolder
from bedplate.data.tables import Tables
from bedplate.errors import NotFoundError
from tests import syscalls
from tests.forked import Program
from tests.laws import examples

SUBJECT = "cust-7c1e9d"
OTHERS = ["cust-000001", "cust-000002", None]
ROW = st.tuples(st.sampled_from([SUBJECT, *OTHERS]), st.integers(0, 9))


def _table(rows: list[tuple[str | None, int]]) -> pa.Table:
    names, numbers = [name for name, _ in rows], [number for _, number in rows]
    return pa.table({"who": pa.array(names, pa.string()), "n": pa.array(numbers, pa.int64())})


def _marked(schema: pa.Schema) -> pc.Expression | None:
    return pc.field("who") == SUBJECT if "who" in schema.names else None


def _holds(root: Path, text: str) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def _kept(rows: pa.Table) -> list[dict[str, object]]:
    return [row for row in rows.to_pylist() if row["who"] != SUBJECT]


@examples(6)
@given(st.lists(st.tuples(st.sampled_from(["append", "overwrite"]), st.lists(ROW, max_size=5)), min_size=1, max_size=4))
def test_every_version_is_what_it_was_without_the_rows(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[str, list[tuple[str | None, int]]]]
) -> None:
    root = tmp_path_factory.mktemp("erase")
    tables = Tables(root)
    versions = [tables.write("t", _table(rows), mode=mode) for mode, rows in writes]  # type: ignore[arg-type]
    before = [tables.scan(version).read_all() for version in versions]
    there = sum(name == SUBJECT for _, rows in writes for name, _ in rows)
    newest = sum(row["who"] == SUBJECT for row in before[-1].to_pylist())

    erased = erase.erase(tables, "t", _marked)
    assert erased.rows == there
    assert not _holds(root, SUBJECT)
    fresh = Tables(root)
    for version, rows in zip(versions, before, strict=True):
        assert fresh.scan(version).read_all().to_pylist() == _kept(rows)
        assert fresh.version("t", version.version) == version, "the log and its digest stay"
    assert (fresh.current("t").version - versions[-1].version) == (newest > 0)
    assert fresh.scan(fresh.current("t")).read_all().to_pylist() == _kept(before[-1])
    assert fresh.verify("t").sound
    assert fresh.collect("t") == 0
    assert erase.erase(fresh, "t", _marked) == erase.Erased(name="t")


def test_other_readers_see_the_newest_version_and_an_older_one_can_be_made_the_newest(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    first = tables.write("t", _table([(SUBJECT, 1), ("a", 2)]), mode="append")
    tables.write("t", _table([("b", 3)]), mode="append")
    erase.erase(tables, "t", _marked)
    found = deltalake.DeltaTable(tables.folder_of("t").url).to_pyarrow_table()
    assert sorted(found["who"].to_pylist()) == ["a", "b"]
    restored = upkeep.restore(tables, first)
    assert tables.scan(restored).read_all()["who"].to_pylist() == ["a"]
    second = erase.erase(tables, "t", lambda schema: pc.field("who") == "a")
    assert second.rows == 1
    assert tables.scan(first).read_all().num_rows == 0
    assert Tables(tmp_path).verify("t").sound


@pytest.mark.parametrize("step", ["put", "delete"])
def test_what_was_killed_half_way_is_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    tables = Tables(tmp_path)
    versions = [tables.write("t", _table([(SUBJECT, n), ("a", n)]), mode="append") for n in range(3)]
    calls = 0

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    done = False
    while not done:
        left = calls
        real = getattr(LocalFolder, step)

        def counted(self: LocalFolder, path: str, *rest: object, real: object = real) -> None:
            nonlocal left
            if left == 0:
                fail()
            left -= 1
            real(self, path, *rest)  # type: ignore[operator]

        monkeypatch.setattr(LocalFolder, step, counted)
        try:
            erase.erase(tables, "t", _marked)
            done = True
        except KeyboardInterrupt:
            calls += 1
        finally:
            monkeypatch.setattr(LocalFolder, step, real)
        for version in versions:
            assert [n for n in tables.scan(version).read_all()["who"].to_pylist() if n == "a"] == ["a"] * (
                version.version + 1
            )
    assert calls >= 2
    assert not _holds(tmp_path, SUBJECT)


@pytest.mark.parametrize(
    ("call", "when"),
    [
        ("link,linkat", 1),
        ("rename", 1),
        ("rename", 2),
        ("fsync", 1),
        ("fsync", 2),
        ("fsync", 3),
        ("unlink,unlinkat", 1),
        ("unlink,unlinkat", 2),
        ("unlink,unlinkat", 3),
    ],
)
def test_an_erasure_that_is_killed_at_any_call_is_finished_by_the_same_one(
    tmp_path: Path, call: str, when: int
) -> None:
    """Kill -9 at the call itself; what it leaves is read, and erased, by another process."""
    tables = Tables(tmp_path / "tables")
    rows = [[(SUBJECT, n), ("a", n)] for n in range(4)]
    versions = [tables.write("t", _table(each), mode="append") for each in rows]
    assert _holds(tmp_path, SUBJECT)
    eraser = Program(Path(__file__).with_name("erasing.py"), tmp_path, SUBJECT)
    try:
        assert eraser.stdout.readline() == "ready\n"
        with syscalls.refusing(eraser.pid, f"{call}:signal=SIGKILL:when={when}"):
            (tmp_path / "begin").touch()
            code, said, _ = eraser.end()
    finally:
        eraser.close()
    assert (code, said) == (-signal.SIGKILL, "")
    after = Tables(tmp_path / "tables")
    for version in versions:  # in between every version can be read, and lacks nothing of others
        held = after.scan(version).read_all().to_pylist()
        assert [row["n"] for row in held if row["who"] == "a"] == [*range(version.version + 1)]
    erase.erase(after, "t", _marked)
    after.collect("t")
    assert not _holds(tmp_path, SUBJECT)
    assert after.verify("t").sound
    assert erase.erase(after, "t", _marked) == erase.Erased(name="t")


def test_a_table_without_such_a_column_stays_as_it_is(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    version = tables.write("t", pa.table({"n": [1]}), mode="append")
    assert erase.erase(tables, "t", _marked).rows == 0
    assert tables.current("t") == version
    with pytest.raises(NotFoundError):
        erase.erase(tables, "none", _marked)
