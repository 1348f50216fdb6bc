import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from bedplate.data import upkeep
from bedplate.data.tables import Tables
from bedplate.errors import ConflictError, NotFoundError
from bedplate.records import TableVersion
from tests.laws import examples


def _rows(*numbers: int) -> pa.Table:
    return pa.table({"n": pa.array(numbers, pa.int64())})


def _read(tables: Tables, version: TableVersion) -> list[int]:
    return tables.scan(version).read_all().column("n").to_pylist()


def test_four_writers_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        tables = Tables(tmp_path)  # its own, as another process would have
        try:
            for batch in range(4):
                row = _rows(writer * 100 + batch)
                tables.write("t", row, mode="append", key=f"{writer}/{batch}")
                tables.write("t", row, mode="append", key=f"{writer}/{batch}")  # a client that lost its answer
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    tables = Tables(tmp_path)
    current = tables.current("t")
    assert sorted(_read(tables, current)) == sorted(w * 100 + b for w in range(4) for b in range(4))
    assert current.version == 15
    compacted = upkeep.compact(tables, "t")
    assert len(tables.files(compacted)) == 1
    assert _read(tables, compacted) == _read(tables, current)


def test_the_history_says_what_was_done_and_any_moment_has_its_version(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    before = datetime.now(UTC)
    time.sleep(0.01)
    first = tables.write("t", _rows(1, 2), mode="overwrite")
    time.sleep(0.01)
    between = datetime.now(UTC)
    time.sleep(0.01)
    tables.write("t", _rows(3), mode="append")
    whole = upkeep.compact(tables, "t")
    assert upkeep.compact(tables, "t") == whole  # nothing to do
    back = upkeep.restore(tables, first)
    assert upkeep.restore(tables, first) == back  # it is the newest already
    assert (back.digest, back.rows, _read(tables, back)) == (first.digest, 2, [1, 2])
    found = [(c.version, c.what, c.rows, c.files) for c in upkeep.history(tables, "t")]
    assert found == [(3, "restore", 2, 1), (2, "compact", 3, 1), (1, "append", 3, 2), (0, "write", 2, 1)]
    assert upkeep.history(tables, "t", 1)[0].version == 3
    assert upkeep.as_of(tables, "t", between) == first
    assert upkeep.as_of(tables, "t", datetime.now(UTC)) == back
    with pytest.raises(NotFoundError, match="from before"):
        upkeep.as_of(tables, "t", before)
    with pytest.raises(NotFoundError, match="no table"):
        upkeep.history(tables, "other")
    place = next(path for path in tmp_path.iterdir() if path.is_dir())
    foreign = deltalake.DeltaTable(place)  # another reader sees the same
    assert foreign.to_pyarrow_dataset().to_table().column("n").to_pylist() == [1, 2]
    assert tables.collect("t") == 0
    assert tables.verify("t").sound


def test_what_was_written_meanwhile_is_never_lost(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write("t", _rows(1), mode="overwrite")
    seen = tables.write("t", _rows(2), mode="append")
    with tables.stage("t", tables.scan(seen)) as staged:
        tables.write("t", _rows(3), mode="append")
        with pytest.raises(ConflictError, match="meanwhile"):
            staged.commit(mode="overwrite", after=seen, what="compact")
    assert sorted(_read(tables, tables.current("t"))) == [1, 2, 3]
    assert len(list(tmp_path.rglob("*.parquet"))) == 3


class Table(RuleBasedStateMachine):
    """A table against a list of lists: every version stays what it was, whatever is done after it."""

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.tables = Tables(self.folder.name)
        self.versions: list[tuple[TableVersion, list[int]]] = []
        self.write([0], append=False)

    @rule(rows=st.lists(st.integers(0, 99), min_size=1, max_size=3), append=st.booleans())
    def write(self, rows: list[int], append: bool) -> None:
        made = self.tables.write("t", _rows(*rows), mode="append" if append else "overwrite")
        self.versions.append((made, [*self.versions[-1][1], *rows] if append else rows))

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        version, rows = data.draw(st.sampled_from(self.versions))
        made = upkeep.restore(self.tables, version)
        if made.version != self.versions[-1][0].version:
            self.versions.append((made, rows))

    @rule()
    def compact(self) -> None:
        made = upkeep.compact(self.tables, "t")
        if made.version != self.versions[-1][0].version:
            self.versions.append((made, self.versions[-1][1]))

    def teardown(self) -> None:
        for version, rows in getattr(self, "versions", []):
            assert _read(self.tables, version) == rows
        if hasattr(self, "folder"):
            assert self.tables.current("t") == self.versions[-1][0]
            self.folder.cleanup()


TestTable = Table.TestCase
TestTable.settings = examples(5, stateful_step_count=8)
