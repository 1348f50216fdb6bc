"""A network that goes away in the middle of a run, and comes back: a clear error at once, then it carries on."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import retail
from tests.flow.test_bad_input import refused, whole
from tests.link import Link, link, to_postgresql
from tests.servers import S3, Postgresql

pytestmark = [pytest.mark.slow, pytest.mark.long]


class Far(NamedTuple):
    """A database and an object store behind networks that can be cut."""

    database: Link
    storage: Link
    settings: dict[str, str]


@pytest.fixture
def far(postgresql: Postgresql, s3: S3) -> Iterator[Far]:
    """Both, new and empty."""
    port = int(s3.endpoint.rpartition(":")[2])
    with to_postgresql(postgresql.database()) as (database, address), link(port) as storage:
        settings = {
            "BEDPLATE_DATABASE": address,
            "BEDPLATE_STORAGE": s3.address(),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{storage.port}",
            "AWS_REGION": s3.options["region"],
            "AWS_ACCESS_KEY_ID": s3.options["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": s3.options["secret_access_key"],
        }
        yield Far(database, storage, settings)


def cut(far: Far, lost: Link, home: Path, folder: Path, until: str, says: str) -> None:
    """Run, cut a network when a line begins like this, and see that it ends by itself, with these words."""
    process = retail.start(home, "run", str(folder), **far.settings)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if until in line:
            break
    else:
        pytest.fail("".join(seen))
    lost.cut()
    try:
        out, err = process.communicate(timeout=200)  # and does not wait for ever
    finally:
        process.kill()
        lost.mend()
    refused(retail.ended(process, out, err), 1, says)


def test_a_run_whose_network_goes_away(tmp_path: Path, far: Far, starter: Path):
    """The database goes in training, the object store after it, then each again under `up`, which stays up."""
    home = tmp_path / "home"
    cut(far, far.database, home, starter, "] train ", "the database does not answer")
    cut(far, far.storage, home, starter, "] gates ", "could not be read or written")

    assert retail.command(home, "up", "--detach", **far.settings).returncode == 0
    cut(far, far.database, home, starter, "] serve ", "the database does not answer")
    cut(far, far.storage, home, starter, "] observe ", "could not be read or written")
    whole(home, starter, **far.settings)
    assert "endpoints" in retail.command(home, "stop", **far.settings).stdout
