from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bedplate.data.tables import Tables
from bedplate.errors import FencedError, InputError, IntegrityError, NotFoundError
from bedplate.records import TableVersion

ROWS = pa.table({"a": pa.array([1, 2, 3], pa.int64()), "s": ["x", "y", None]})


def _folder(root: Path) -> Path:
    return next(path for path in root.iterdir() if path.is_dir())


def test_a_key_writes_once(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    first = tables.write("t", ROWS, mode="append", key="k")
    again = Tables(tmp_path).write("t", ROWS, mode="append", key="k")
    assert again == first
    assert tables.current("t").rows == 3


def test_versions_stay_readable_and_equal_rows_have_equal_digests(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    first = tables.write("t", ROWS, mode="overwrite")
    tables.write("t", ROWS.slice(0, 1), mode="overwrite")
    third = tables.write("t", ROWS, mode="overwrite")
    assert third.digest == first.digest
    assert tables.scan(first).read_all().equals(ROWS)


def test_the_log_holds_no_value_of_any_row(tmp_path: Path) -> None:
    Tables(tmp_path).write("t", pa.table({"subject": ["subject-4711"]}), mode="append")
    log = (_folder(tmp_path) / "_delta_log" / f"{0:020d}.json").read_text()
    assert "subject-4711" not in log


@pytest.mark.parametrize("damage", [b"", b'{"commitInfo":{"time'])
def test_a_torn_commit_that_was_never_acknowledged_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    tables = Tables(tmp_path)
    first = tables.write("t", ROWS, mode="append")
    (_folder(tmp_path) / "_delta_log" / f"{1:020d}.json").write_bytes(damage)
    assert Tables(tmp_path).current("t") == first
    assert tables.write("t", ROWS, mode="append").rows == 6
    assert len(list((_folder(tmp_path) / "_bedplate" / "quarantine").iterdir())) == 1


@pytest.mark.parametrize("damage", ["empty", "half", "gone"])
def test_damage_to_an_acknowledged_commit_is_reported_and_never_dropped(tmp_path: Path, damage: str) -> None:
    tables = Tables(tmp_path)
    tables.write("t", ROWS, mode="append")
    tables.write("t", ROWS, mode="append")
    log = _folder(tmp_path) / "_delta_log" / f"{1:020d}.json"
    if damage == "gone":
        log.unlink()
    else:
        log.write_bytes(b"" if damage == "empty" else log.read_bytes()[:40])
    with pytest.raises(IntegrityError):
        tables.current("t")


def test_a_whole_commit_without_acknowledgement_stands(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write("t", ROWS, mode="append", key="a")
    tables.write("t", ROWS, mode="append", key="b")
    (_folder(tmp_path) / "_bedplate" / "acknowledged").write_text("0")
    assert tables.write("t", ROWS, mode="append", key="b").rows == 6


def test_rot_is_found_by_scrub_and_by_reading(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    version = tables.write("t", pa.table({"a": list(range(10_000))}), mode="append")
    path = next(_folder(tmp_path).glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    assert tables.verify("t").damaged == (path.name,)
    with pytest.raises(IntegrityError):
        tables.scan(version).read_all()


@pytest.mark.parametrize("few", [False, True])
def test_a_filter_keeps_the_rows_it_holds_for_and_opens_no_file_that_can_have_none(tmp_path: Path, few: bool) -> None:
    tables = Tables(tmp_path)
    first = tables.write("t", pa.table({"stays": ["a", None, "b"], "n": [1, 2, 3]}), mode="append")
    tables.write("t", pa.table({"stays": ["b", "c", "b"], "n": [7, 8, None]}), mode="append")
    version = tables.write("t", pa.table({"stays": ["b"] * 5000, "n": [9] * 5000}), mode="append")

    def found(version: TableVersion, columns: list[str], filter: pc.Expression) -> pa.Table:
        return tables.scan(version, columns, filter, few=few).read_all()

    assert found(first, ["stays", "n"], pc.field("n") != 2).to_pylist() == [
        {"stays": "a", "n": 1},
        {"stays": "b", "n": 3},
    ]
    assert found(version, ["n"], pc.field("stays") == "b")["n"].to_pylist() == [3, 7, None, *[9] * 5000]
    assert found(version, ["n"], pc.field("n") > 20).num_rows == 0
    assert tables.scan(version, {}, pc.field("n") < 9, few=few).read_all().num_rows == 5
    damaged = max(_folder(tmp_path).glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:4] + bytes(64) + damaged.read_bytes()[68:])
    assert found(version, ["n"], pc.field("n") < 9)["n"].to_pylist() == [1, 2, 3, 7, 8]
    with pytest.raises(IntegrityError):
        found(version, ["stays"], pc.field("n") == 9)


def test_a_stream_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def batches():  # type: ignore[no-untyped-def]
        yield from ROWS.to_batches()
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        Tables(tmp_path).write("t", batches(), mode="append")
    assert not list(_folder(tmp_path).glob("*.parquet"))
    with pytest.raises(NotFoundError):
        Tables(tmp_path).current("t")


def test_names_never_become_paths(tmp_path: Path) -> None:
    tables = Tables(tmp_path / "tables")
    tables.write("../../etc/x", ROWS, mode="append")
    assert tables.names() == ["../../etc/x"]
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_appending_other_columns_is_refused(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write("t", ROWS, mode="append")
    with pytest.raises(InputError, match="other columns"):
        tables.write("t", pa.table({"b": [1]}), mode="append")
    assert tables.verify("t").files == 1


def test_what_is_asked_before_a_commit_can_stop_it(tmp_path: Path) -> None:
    allowed = Tables(tmp_path).write("t", ROWS, mode="append")

    def refuse() -> None:
        raise FencedError("another owner has taken over")

    refused = Tables(tmp_path, before_commit=refuse)
    with pytest.raises(FencedError):
        refused.write("t", ROWS, mode="append")
    with pytest.raises(FencedError):
        refused.write("new", ROWS, mode="append")
    assert refused.current("t") == allowed
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    with pytest.raises(NotFoundError):
        refused.current("new")
