import random
import time
from pathlib import Path

from bedplate.data.tables import Tables
from bedplate.errors import NotFoundError
from tests.data.endless_writer import rows
from tests.forked import Program

SCRIPT = Path(__file__).with_name("endless_writer.py")
KILLS = 10


def test_a_killed_write_happened_or_did_not(tmp_path: Path) -> None:
    """Whatever moment the kill meets, the newest version is one write, whole; its key again gives that version."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # shown where this fails
    choice = random.Random(seed)
    tables, number, versions = Tables(tmp_path), 0, 0
    for _ in range(KILLS):
        writer = Program(SCRIPT, tmp_path, number)
        writer.stdout.readline()
        time.sleep(choice.uniform(0, 0.25))
        writer.kill()
        _, said, _ = writer.end()
        done = [tuple(map(int, line.split())) for line in said.splitlines() if line.count(" ") == 1]
        acknowledged = done[-1][0] if done else number - 1

        try:
            current = tables.current("t")
        except NotFoundError:
            assert acknowledged < 0
            found = -1
        else:
            table = tables.scan(current).read_all()
            found = table.column("write")[0].as_py()
            assert table.equals(rows(found))
            versions = current.version + 1
            assert tables.write("t", rows(found), mode="overwrite", key=f"write {found}") == current
            assert tables.verify("t").sound
        assert found in (acknowledged, acknowledged + 1)
        assert versions == found + 1  # each write made one version
        number = found + 1
    assert versions
    assert tables.write("t", rows(number), mode="overwrite", key=f"write {number}").version == versions
    tables.collect("t")
    assert len(list(tmp_path.rglob("*.parquet"))) == versions + 1
