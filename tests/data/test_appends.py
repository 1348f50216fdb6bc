"""Four processes append to one table at once: nothing is lost, nothing is there twice, and no file is left over."""

from pathlib import Path

import pytest

from bedplate.data.tables import Tables
from tests.forked import Program

APPENDING = Path(__file__).with_name("appending.py")
WRITERS = 4


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [40, pytest.param(10_000, marks=pytest.mark.crash)])
def test_no_append_of_four_writers_is_lost(tmp_path: Path, count: int) -> None:
    each = count // WRITERS
    writers = [Program(APPENDING, tmp_path, writer * each, each) for writer in range(WRITERS)]
    for writer in writers:
        code, out, err = writer.end(1800)
        assert (code, out) == (0, "done\n"), err
    tables = Tables(tmp_path)
    current = tables.current("t")
    rows = tables.scan(current).read_all().column("n").to_pylist()
    assert sorted(rows) == list(range(count))
    assert current.version == count - 1
    assert tables.collect("t") == 0
    assert tables.verify("t").sound
