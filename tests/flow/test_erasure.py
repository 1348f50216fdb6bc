"""A customer is erased from a home in which a whole use case ran: no byte of theirs is left that is not named."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from bedplate import settings
from bedplate.app.operations import Bedplate
from tests import retail

pytestmark = pytest.mark.slow

MARK = 1_987_654_321
"""A household number that stands nowhere by chance."""
TABLES = ("transactions", "demographics", "campaigns", "coupon_redemptions")


def mark(folder: Path) -> None:
    """Give one household of the sample this number, everywhere."""
    data = {name: folder / "data" / f"{name}.parquet" for name in TABLES}
    with duckdb.connect() as connection:
        common = "select household_id from '{}' intersect select household_id from '{}' order by all"
        first = connection.execute(common.format(data["demographics"], data["coupon_redemptions"])).fetchone()
        assert first is not None
        number = f"case household_id when {first[0]} then {MARK} else household_id end as household_id"
        for path in data.values():
            new = path.with_suffix(".new")
            connection.execute(f"copy (select * replace ({number}) from '{path}') to '{new}' (format parquet)")
            new.replace(path)  # the file may be a link to one that others read


def holding(home: Path) -> Iterator[str]:
    """The files in which the number stands: as text, as 64 bits, or in a row of a table."""
    forms = (str(MARK).encode(), MARK.to_bytes(8, "little"), MARK.to_bytes(8, "big"))
    for path in (path for path in home.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += str(pq.read_table(path).to_pydict()).encode()
        if any(form in data for form in forms):
            yield str(path.relative_to(home))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_customer_is_gone_from_every_byte_of_a_home_that_ran(sample: Path, tmp_path: Path) -> None:
    folder, home = retail.copy(sample, tmp_path / "retail"), tmp_path / "home"
    mark(folder)
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(home), "BEDPLATE_PORT": "0", **retail.REGION}))
    bedplate.run(folder)
    before = [*holding(home)]
    assert any(name.startswith("online/") for name in before)
    assert sum(name.startswith("tables/") for name in before) >= 8

    report = bedplate.erasure.subject(retail.NAME, str(MARK), "asked for in a letter")

    assert {f"{retail.NAME}.{name}" for name in TABLES} <= report.tables.keys()
    assert report.online
    assert report.models == (f"{retail.NAME} version 1",)
    assert set(report.sources) == {*TABLES}
    assert (report.left, [*holding(home)]) == ((), [])
    assert bedplate.audit_verify().problems == ()
