"""Two homes in two regions: what is done in the one is refused in the other, and where nobody says where it is."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from bedplate import settings, store
from bedplate.app import endpoints, owned, residency
from bedplate.app.operations import Bedplate
from bedplate.app.system import System
from bedplate.errors import BedplateError, DeniedError, InputError
from bedplate.policy.residency import refusal
from bedplate.settings import Home

pytestmark = pytest.mark.slow

NAME = "starter"
TABLE = "starter.invoices"
KEPT = ("tables", "blobs", "bundles", "journal", "online", "keys")
"""Where a home keeps what it was told, and what it made of it."""


class Root(NamedTuple):
    """A home and the region that it declares, if any."""

    path: Path
    region: str

    @property
    def bedplate(self) -> Bedplate:
        environ = {"BEDPLATE_HOME": str(self.path), "BEDPLATE_PORT": "0", "BEDPLATE_REGION": self.region}
        return Bedplate(settings.load(environ))

    def files(self) -> dict[str, int]:
        """What is kept in the home, with its size; the journal's open segments come and go with replicas."""
        found = (path for name in KEPT for path in (self.path / name).rglob("*") if path.is_file())
        return {str(path.relative_to(self.path)): path.stat().st_size for path in found}

    def entries(self) -> list[dict[str, Any]]:
        """The whole ledger."""
        opened = store.open(Home(self.path).database)
        with opened.read() as tx:
            read = [msgspec.json.decode(row.entry) for row in tx.ledger.entries(0, tx.ledger.head()[0])]
        opened.close()
        return read

    def refuses(self, do: Callable[[Bedplate], object], *, action: str, says: str, do_this: str) -> None:
        """That ``do`` is refused, says why and what to do, is in the ledger once, and leaves nothing."""
        files, before = self.files(), len(self.entries())
        with pytest.raises(DeniedError) as raised:
            do(self.bedplate)
        assert says in raised.value.message
        assert do_this in f"{raised.value.where} {raised.value.fix}"
        denied = [entry["action"] for entry in self.entries()[before:] if entry["decision"] == "deny"]
        assert denied == [action]
        assert self.files() == files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter, whose rows have to stay in the EU."""
    folder = tmp_path_factory.mktemp("residency")
    Bedplate(settings.load({"BEDPLATE_HOME": str(folder / "none")})).init(folder / NAME, NAME)
    file = folder / NAME / "usecase.yaml"
    text, count = re.subn(r"# residency: \[eu\].*", "residency: [eu]", file.read_text())
    assert count == 1
    file.write_text(text)
    return folder


@pytest.fixture(scope="module")
def europe(folder: Path) -> Root:
    """A home in the EU, in which it ran from its file to a trace."""
    root = Root(folder / "europe", "eu")
    summary = root.bedplate.run(folder / NAME)
    assert {stage.state for stage in summary.stages} == {"finished"}
    assert summary.prediction
    return root


@pytest.fixture(params=["us", ""])
def abroad(request: pytest.FixtureRequest, europe: Root, tmp_path: Path) -> Root:
    """The same home, carried by hand to where it may not be, or to where nobody says."""
    shutil.copytree(europe.path, tmp_path / "abroad", ignore=shutil.ignore_patterns("run"))
    return Root(tmp_path / "abroad", request.param)


def words(root: Root) -> dict[str, str]:
    """What a refusal says of the home, and what to do."""
    if root.region:
        return {"says": f"the home says that it is in {root.region}", "do_this": "use the home in eu"}
    return {"says": "the home does not say where it is", "do_this": "set BEDPLATE_REGION to where the home is"}


@pytest.mark.parametrize("region", ["us", ""])
def test_nothing_comes_in_where_it_may_not_lie(folder: Path, tmp_path: Path, region: str) -> None:
    root = Root(tmp_path / "home", region)
    with pytest.raises(DeniedError):
        root.bedplate.run(folder / NAME)
    assert not [name for name in root.files() if not name.startswith("keys/")]
    entry = root.entries()[-1]
    assert (entry["action"], entry["resource"], entry["decision"]) == ("flow.ingest", f"use_case/{NAME}", "deny")
    root.refuses(lambda home: home.run(folder / NAME), action="flow.ingest", **words(root))
    asked: dict[str, Any] = {"path": str(folder / NAME), "dataset": "invoices"}
    root.refuses(lambda home: home._effect("replay_table", object, **asked), action="table.replay", **words(root))
    (note,) = root.bedplate.check(folder / NAME).notes
    assert words(root)["says"] in note
    assert words(root)["do_this"] in note


def test_where_places_say_that_they_are_is_kept_with_each_stage(europe: Root) -> None:
    opened = store.open(Home(europe.path).database)
    with opened.read() as tx:
        actions = [msgspec.json.decode(row.entry)["action"] for row in tx.ledger.entries(0, tx.ledger.head()[0])]
        payloads = {actions[index]: payload for index, _, payload in tx.ledger.payloads()}
    opened.close()
    told = {action: msgspec.json.decode(payload) for action, payload in payloads.items()}
    for stage in ("ingest", "train", "serve"):
        assert told[f"flow.{stage}"]["residency"] == ["eu"]
        assert told[f"flow.{stage}"]["places"] == {"the home": "eu"}
    assert "places" not in told["flow.plan"]


def test_one_that_declares_an_allowed_region_is_never_asked_again(folder: Path, europe: Root) -> None:
    before = len(europe.entries())
    assert {stage.state for stage in europe.bedplate.run(folder / NAME).stages} == {"skipped"}
    assert europe.bedplate.check(folder / NAME).notes == ()
    assert europe.bedplate.tables.read(TABLE, limit=1).rows
    assert europe.bedplate.tables.explain("administrator", TABLE).allowed
    assert europe.bedplate.score(NAME, TABLE, to="here").table.rows
    assert europe.bedplate.export_kubernetes(NAME).objects
    assert not [entry for entry in europe.entries()[before:] if entry["decision"] == "deny"]


def test_what_was_carried_abroad_is_neither_read_trained_on_nor_served(
    folder: Path, abroad: Root, europe: Root
) -> None:
    said = words(abroad)
    abroad.refuses(lambda home: home.run(folder / NAME), action="flow.ingest", **said)
    abroad.refuses(lambda home: home.tables.read(TABLE), action="table.read", **said)
    abroad.refuses(lambda home: home.tables.read(f"{NAME}/predictions"), action="table.read", **said)
    abroad.refuses(lambda home: home.score(NAME, TABLE, to="there"), action="endpoint.load", **said)
    abroad.refuses(lambda home: home.export_kubernetes(NAME), action="endpoint.load", **said)
    prediction = next(entry for entry in reversed(europe.entries()) if entry["action"] == "prediction.ship")
    assert prediction["resource"].startswith(f"table/{NAME}/predictions")

    view = abroad.bedplate.tables.explain("administrator", TABLE)
    assert not view.allowed
    assert any(said["says"] in reason for reason in view.reasons)

    before = len(abroad.entries())
    with System(abroad.bedplate.settings) as system:
        (failed,) = endpoints.restore(system)
        assert said["says"] in failed
        assert not system.supervisor.status()
    assert [entry["action"] for entry in abroad.entries()[before:]] == ["endpoint.load"]


@pytest.mark.parametrize(("region", "says"), [("us", "says that it is in us"), ("", "does not say where it is")])
def test_a_copy_lies_where_its_use_cases_allow(europe: Root, tmp_path: Path, region: str, says: str) -> None:
    to = tmp_path / "copy"
    europe.refuses(
        lambda home: home.backup(to, region), action="home.backup", says=f"the backup {says}",
        do_this="use the backup in eu" if region else "--region",
    )  # fmt: skip
    assert not [*tmp_path.iterdir()]
    with pytest.raises(InputError, match="is not a region"):
        europe.bedplate.backup(to, "mars")

    assert europe.bedplate.backup(to, "eu").files
    with pytest.raises(DeniedError, match=f"the home {says}"):
        Root(tmp_path / "other", region).bedplate.restore(to)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    restored = Root(tmp_path / "again", "eu")
    restored.bedplate.restore(to)
    assert restored.bedplate.tables.read(TABLE, limit=1).rows


def test_a_residency_that_is_added_holds_what_is_there_already(folder: Path, europe: Root, tmp_path: Path) -> None:
    shutil.copytree(folder / NAME, tmp_path / NAME)
    shutil.copytree(europe.path, tmp_path / "home", ignore=shutil.ignore_patterns("run"))
    file, root = tmp_path / NAME / "usecase.yaml", Root(tmp_path / "home", "us")
    text = file.read_text()
    file.write_text(text.replace("residency: [eu]", "residency: [eu, us]"))
    root.bedplate.run(tmp_path / NAME, only="check")
    assert root.bedplate.tables.read(TABLE, limit=1).rows
    file.write_text(text)
    with pytest.raises(DeniedError):
        root.bedplate.run(tmp_path / NAME)
    root.refuses(lambda home: home.tables.read(TABLE), action="table.read", **words(root))
    file.write_text(text.replace("  residency: [eu]\n", ""))
    root.bedplate.run(tmp_path / NAME, only="check")
    assert root.bedplate.tables.read(TABLE, limit=1).rows


def test_an_endpoint_goes_down_when_its_rows_may_not_lie_there_any_more(
    folder: Path, europe: Root, tmp_path: Path
) -> None:
    shutil.copytree(folder / NAME, tmp_path / NAME)
    shutil.copytree(europe.path, tmp_path / "home", ignore=shutil.ignore_patterns("run"))
    root = Root(tmp_path / "home", "eu")
    file = tmp_path / NAME / "usecase.yaml"
    file.write_text(file.read_text().replace("residency: [eu]", "residency: [us]"))
    start = len(root.entries())
    with owned.open_home(root.bedplate.settings) as owner:
        who = owner.system.identity.authenticate(owner.system.token)
        assert endpoints.restore(owner.system) == []
        (served,) = owner.system.supervisor.status()
        assert httpx.get(f"{served.url}/v2/health/ready", trust_env=False).status_code == 200
        with pytest.raises(DeniedError, match="the home says that it is in eu"):
            owner.run(who, lambda _: None, str(file.parent))
        assert owner.system.supervisor.status() == []
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/v2/health/ready", trust_env=False)
        assert len(endpoints.restore(owner.system)) == 1
    wanted = [("flow.ingest", "deny"), ("endpoint.withdraw", "allow"), ("endpoint.load", "deny")]
    seen = [(entry["action"], entry["decision"]) for entry in root.entries()[start:]]
    assert [each for each in seen if each in wanted] == wanted


def test_an_older_backup_that_names_no_residency_is_restored_and_says_so(europe: Root, tmp_path: Path) -> None:
    europe.bedplate.backup(tmp_path / "old", "eu")
    manifest = tmp_path / "old" / "backup.json"
    told = msgspec.json.decode(manifest.read_bytes())
    del told["residency"], told["region"]
    manifest.write_bytes(msgspec.json.encode(told))
    root = Root(tmp_path / "home", "us")
    assert "does not say where its rows may lie" in root.bedplate.restore(tmp_path / "old").warning
    root.refuses(lambda home: home.tables.read(TABLE), action="table.read", **words(root))


def test_each_place_of_a_home_counts(europe: Root) -> None:
    for name, at in (("DATABASE", "postgresql://x/x"), ("STORAGE", "s3://x"), ("ONLINE", "redis://x")):
        environ = {"BEDPLATE_HOME": str(europe.path), "BEDPLATE_REGION": "eu", f"BEDPLATE_{name}": at}
        for region, count in (("eu", 0), ("us", 1), ("", 1)):
            given = settings.load({**environ, f"BEDPLATE_{name}_REGION": region})
            child = settings.load({k: v for k, v in settings.child_environment(given).items() if "BEDPLATE" in k})
            assert child == given
            assert _refused(given) == count


def _refused(given: settings.Settings) -> int:
    return int(refusal(("eu",), residency.of_home(given)) is not None)


def test_a_region_is_one_of_those_that_files_may_name() -> None:
    for name in ("", "DATABASE_", "STORAGE_", "ONLINE_"):
        with pytest.raises(BedplateError, match="'mars' is not a region"):
            settings.load({f"BEDPLATE_{name}REGION": "mars"})
