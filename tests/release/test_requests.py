"""Moving a version to a stage, or pointing an alias to it, is a request to release it: who may, what is answered."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bedplate import ids
from bedplate import store as stores
from bedplate.errors import ConflictError, InputError, StateError
from bedplate.records import Bundle, GateReport, GateResult
from bedplate.release import line
from bedplate.release.environments import parse_aliases
from bedplate.release.foreign import Findings
from bedplate.release.moves import Moved
from bedplate.release.registry import NewVersion
from tests.contract.registry import ANA, BO, Home, person
from tests.release.sample import FILE

ROOT = person("root", "administrators")
GROWTH, RISK = person("gita", "growth-leads"), person("rui", "risk")
CI = person("ci", "engineers", kind="service")
SAFE = Findings(safety="safe", flavors=("onnx",), content=ids.digest_bytes(b"onnx"))
UNSAFE = Findings(
    safety="unsafe", flavors=("sklearn",), reasons=("model.pkl holds a pickle",), content=ids.digest_bytes(b"pickle"),
    converter="sklearn", data="model.pkl",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A registry on SQLite, with people in it."""
    store = stores.open(tmp_path / "test.db")
    opened = Home(store, tmp_path)
    with store.transaction() as tx:
        for each in (ROOT, ANA, BO, GROWTH, RISK):
            tx.principals.add(each.kind, each.name, each.groups)
    yield opened
    opened.close()
    store.close()


def flow_version(home: Home, folder: Path, *, passed: bool = True, by=ANA, text: str = FILE) -> int:
    """A packaged version of a use case, as the flow leaves it."""
    (folder / "usecase.yaml").write_text(text)
    result = GateResult(
        gate="quality", name="recall", verdict="pass" if passed else "fail", measured=None, limit="x", reason="measured"
    )
    report = GateReport(results=(result,), passed=passed, summary="1 passed" if passed else "recall failed")
    with home.store.transaction() as tx:
        gates = tx.facts.put("gates", "retail", report)
        tx.use_cases.put(
            "retail", folder=str(folder), file="usecase.yaml", file_digest=gates.digest, objective=gates.digest
        )
        number = line.allot(home.ledger, tx, by, "retail", gates.digest)
        digest = ids.digest_of({"number": number})
        body = Bundle(
            name="retail", version=number, digest=digest, tenant="local", files={}, size=1, signature_digest=digest,
            bom_digest=digest,
        )  # fmt: skip
        tx.facts.put("bundle", "retail", body, (gates.digest,))
        line.bind(home.ledger, tx, by, "retail", number, digest)
    return number


def last_entry(home: Home) -> tuple[str, str, dict]:
    """Action, decision and payload of the newest entry of the ledger."""
    with home.store.read() as tx:
        entry, payload = home.ledger.entry(tx, tx.ledger.head()[0] - 1)
    return entry.action, entry.decision, payload or {}


def stage_of(home: Home, name: str, number: int) -> str:
    with home.store.read() as tx:
        return tx.versions.get(name, number).stage


# ------------------------------------------------------------------------------------------------ versions of the flow


def test_two_named_approvers_let_a_version_into_production_by_asking(home, tmp_path):
    """The first is told who is missing, and the asking counts; the second one's request goes through."""
    number = flow_version(home, tmp_path)

    first = home.move("retail", number, "Production", GROWTH)

    assert "1 of 2 approvals (growth-leads: gita); still needed from risk" in first.refused
    assert stage_of(home, "retail", number) == "None"
    action, decision, payload = last_entry(home)
    assert (action, decision, payload["version"]) == ("release.request", "deny", number)
    assert "still needed from risk" in payload["reason"]

    second = home.move("retail", number, "production", RISK)

    assert not second.refused
    assert stage_of(home, "retail", number) == "Production"
    action, decision, payload = last_entry(home)
    assert (action, decision) == ("model_version.stage", "allow")
    assert payload["approved by"] == ["gita", "rui"]
    assert payload["history"][0]["after"] == "Production"
    with home.store.read() as tx:
        fact = tx.facts.latest("retail", "approval")
        assert fact is not None
        assert (fact.body["state"], fact.body["environment"]) == ("approved", "production")
        assert tx.history.of(tx.models.find("default", "retail").id)[0].entry == second.entry


def test_votes_given_by_command_count(home, tmp_path):
    """What `bedplate approve` keeps is what a request looks at."""
    number = flow_version(home, tmp_path)
    with home.store.transaction() as tx:
        bundle = tx.versions.get("retail", number).bundle
        for each in (GROWTH, RISK):
            tx.approvals.add("retail", bundle, "production", state="approved", by=each.name, reason="fine")

    assert not home.move("retail", number, "Production", BO).refused


def test_a_refusal_ends_it(home, tmp_path):
    """Whoever else asks is told who refused, and why."""
    number = flow_version(home, tmp_path)
    with home.store.transaction() as tx:
        bundle = tx.versions.get("retail", number).bundle
        tx.approvals.add("retail", bundle, "production", state="refused", by="rui", reason="too slow")

    assert "rui: too slow" in home.move("retail", number, "Production", GROWTH).refused


@pytest.mark.parametrize("who", [ANA, ROOT, CI], ids=lambda who: who.name)
def test_nobody_else_gets_a_version_into_production(home, tmp_path, who):
    """Neither who made it, nor an administrator, nor a service: they are not those whom the file names."""
    number = flow_version(home, tmp_path)

    assert "0 of 2 approvals" in home.move("retail", number, "Production", who).refused
    assert "0 of 2 approvals" in home.alias("retail", "champion", number, who).refused


def test_who_made_it_does_not_approve_it(home, tmp_path):
    """Four eyes: the maker's own request is no approval, though the file names the maker's group."""
    maker = person("gita", "growth-leads", "engineers")
    number = flow_version(home, tmp_path, by=maker)

    refused = home.move("retail", number, "Production", maker).refused

    assert "0 of 2 approvals" in refused
    assert "gita made it and cannot approve it" in refused


def test_a_failed_gate_is_the_reason(home, tmp_path):
    """The named approvers cannot let it through either."""
    number = flow_version(home, tmp_path, passed=False)

    for who in (GROWTH, RISK):
        assert (
            "the gates did not let it through: recall failed" in home.move("retail", number, "Production", who).refused
        )


def test_an_environment_that_the_file_does_not_name_is_closed(home, tmp_path):
    """As in the flow: outside dev nobody releases by policy alone. The answer says where approvers are named."""
    number = flow_version(home, tmp_path)

    refused = home.move("retail", number, "Staging", ROOT).refused

    assert "outside dev" in refused
    assert "release.approvals.staging" in refused


def test_a_file_that_is_gone_names_nobody(home, tmp_path):
    """Then nothing is released, and nothing is half done."""
    number = flow_version(home, tmp_path)
    (tmp_path / "usecase.yaml").unlink()

    with pytest.raises(StateError, match="nobody knows who must agree"):
        home.move("retail", number, "Production", GROWTH)


def test_a_version_that_is_not_packaged_is_not_released(home, tmp_path):
    """There is nothing to approve yet."""
    with home.store.transaction() as tx:
        number = line.allot(home.ledger, tx, ANA, "retail", ids.digest_bytes(b"gates"))

    with pytest.raises(StateError, match="not packaged"):
        home.move("retail", number, "Production", GROWTH)


def test_taking_back_needs_nobody(home, tmp_path):
    """Archived and None are withdrawals; the alias can be removed."""
    number = flow_version(home, tmp_path)
    home.move("retail", number, "Production", GROWTH)
    home.move("retail", number, "Production", RISK)
    home.alias("retail", "champion", number, ANA)

    for stage in ("Archived", "None"):
        assert not home.move("retail", number, stage, ANA).refused
    with home.store.transaction() as tx:
        home.moves.delete_alias(tx, ANA, "default", "retail", "champion")
        assert tx.models.aliases("default", ["retail"])["retail"] == {}


def test_an_approval_holds_for_stage_and_alias_alike(home, tmp_path):
    """Both ask for the environment, so what was approved for production goes through under either name."""
    number = flow_version(home, tmp_path)
    home.move("retail", number, "Production", GROWTH)

    assert not home.alias("retail", "Champion", number, RISK).refused
    assert not home.move("retail", number, "Production", BO).refused


# ------------------------------------------------------------------------------------------------- versions of clients


@pytest.mark.parametrize("seen", [SAFE, UNSAFE, None], ids=["safe", "unsafe", "unread"])
@pytest.mark.parametrize("who", [ANA, ROOT, CI], ids=lambda who: who.name)
def test_a_model_of_nobodys_use_case_goes_to_staging_by_policy(home, seen, who):
    """Engineers and administrators may."""
    home.model("fraud")
    number = home.logged("fraud", seen)

    assert not home.move("fraud", number, "Staging", who).refused


def test_a_stranger_gets_a_model_nowhere(home):
    """Who is in no group that may."""
    home.model("fraud")
    number = home.logged("fraud", SAFE)

    assert "no policy allows it" in home.move("fraud", number, "Staging", person("eve")).refused


@pytest.mark.parametrize("who", [ANA, ROOT, CI], ids=lambda who: who.name)
def test_into_production_only_named_approvers_let_it(home, who):
    """By default nobody is named, so the answer is no, and says what to do."""
    home.model("fraud")
    number = home.logged("fraud", SAFE)

    refused = home.move("fraud", number, "Production", who).refused

    assert "bedplate models approvers fraud" in refused
    assert stage_of(home, "fraud", number) == "None"
    assert last_entry(home)[:2] == ("release.request", "deny")


def test_approvers_of_a_model_release_it(home):
    """One of the group asks, and it goes through; who registered it cannot let it in."""
    home.model("fraud")
    number = home.logged("fraud", SAFE, by=person("rui", "risk"))
    with home.store.transaction() as tx:
        home.registry.name_approvers(tx, ROOT, "default", "fraud", "production", "1 of [risk]")
        tx.principals.add("user", "iva", ("risk",))

    assert "0 of 1 approvals" in home.move("fraud", number, "Production", RISK).refused
    assert not home.move("fraud", number, "Production", person("iva", "risk")).refused


def test_approvers_may_be_taken_back_and_must_be_well_formed(home):
    """An empty rule names nobody; a quorum that nobody could reach is refused."""
    home.model("fraud")
    number = home.logged("fraud", SAFE)
    with home.store.transaction() as tx:
        with pytest.raises(InputError):
            home.registry.name_approvers(tx, ROOT, "default", "fraud", "production", "3 of [risk]")
        home.registry.name_approvers(tx, ROOT, "default", "fraud", "production", "risk")
        home.registry.name_approvers(tx, ROOT, "default", "fraud", "production", "")

    assert "Nobody is named" in home.move("fraud", number, "Production", RISK).refused


def test_a_policy_of_the_home_may_open_production(home, tmp_path):
    """An administrator's policy takes the place of named approvers, for what is safe."""
    rule = """@id("ml-platform")
    permit (principal in Group::"engineers", action == Action::"approve", resource is Model)
    when { context.environment == "production" };"""
    opened = Home(home.store, tmp_path, policy=rule)
    home.model("fraud")
    safe, unsafe = opened.logged("fraud", SAFE), opened.logged("fraud", UNSAFE, run="r2")

    assert not opened.move("fraud", safe, "Production", BO).refused
    assert "model.pkl holds a pickle" in opened.move("fraud", unsafe, "Production", BO).refused
    opened.close()


@pytest.mark.parametrize(("seen", "reason"), [(UNSAFE, "model.pkl holds a pickle"), (None, "cannot be read")])
def test_what_is_not_known_to_be_safe_never_becomes_production(home, seen, reason):
    """Not even with the approvers' word; and the answer names the command that converts it."""
    home.model("fraud")
    number = home.logged("fraud", seen)
    with home.store.transaction() as tx:
        home.registry.name_approvers(tx, ROOT, "default", "fraud", "production", "risk")

    refused = home.move("fraud", number, "Production", RISK).refused

    assert reason in refused
    assert ("bedplate models convert" in refused) == (seen is UNSAFE)
    assert home.alias("fraud", "live", number, RISK).refused


def test_a_converted_version_may(home):
    """Once ONNX was made of it."""
    home.model("fraud")
    number = home.logged("fraud", UNSAFE)
    with home.store.transaction() as tx:
        home.registry.name_approvers(tx, ROOT, "default", "fraud", "production", "risk")
        row = tx.versions.get("fraud", number)
        home.registry.keep_conversion(tx, BO, row, UNSAFE, ids.digest_bytes(b"made"), {"compared": {}})

    assert not home.move("fraud", number, "Production", RISK).refused


def test_files_that_changed_after_registration_are_another_model(home):
    """What was looked at is not what lies there now."""
    home.model("fraud")
    number = home.logged("fraud", SAFE)
    with home.store.transaction() as tx:
        home.registry.name_approvers(tx, ROOT, "default", "fraud", "production", "risk")
    home.tracked.contents = dict.fromkeys(home.tracked.contents, ids.digest_bytes(b"other"))

    assert "changed after it was registered" in home.move("fraud", number, "Production", RISK).refused


def test_an_approval_is_for_one_version(home):
    """The same files under the next number need their own."""
    home.model("fraud")
    first, second = home.logged("fraud", SAFE), home.logged("fraud", SAFE)
    with home.store.transaction() as tx:
        home.registry.name_approvers(tx, ROOT, "default", "fraud", "production", "risk")
    home.move("fraud", first, "Production", RISK)

    assert not home.move("fraud", first, "Production", BO).refused
    assert "0 of 1 approvals" in home.move("fraud", second, "Production", BO).refused


# ------------------------------------------------------------------------------------------------------ aliases, stages


@pytest.mark.parametrize("alias", ["champion", "Champion", "production", "PROD", "live"])
def test_aliases_that_stand_for_production_ask_for_it(home, alias):
    """Whatever their case."""
    home.model("fraud", versions=1)

    assert home.alias("fraud", alias, 1, ANA).refused


@pytest.mark.parametrize("alias", ["challenger", "baseline", "champion-2", "staging"])
def test_other_aliases_are_labels(home, alias):
    """Whoever may write may set them."""
    home.model("fraud", versions=1)

    moved = home.alias("fraud", alias, 1, person("eve"))

    assert (moved.refused, moved.ruling) == ("", None)


def test_the_table_of_aliases_can_be_changed(home, tmp_path):
    """`BEDPLATE_ALIASES` adds aliases that stand for an environment, and makes labels of others."""
    table = parse_aliases("canary = staging, live=")
    opened = Home(home.store, tmp_path, aliases=table)
    home.model("fraud", versions=1)

    assert opened.alias("fraud", "canary", 1, person("eve")).refused
    assert not opened.alias("fraud", "canary", 1, ANA).refused
    assert not opened.alias("fraud", "live", 1, person("eve")).refused
    assert opened.alias("fraud", "champion", 1, ANA).refused
    with pytest.raises(InputError, match="BEDPLATE_ALIASES"):
        parse_aliases("canary")
    opened.close()


def test_pointing_again_to_the_same_version_asks_nobody(home):
    """It changes nothing, so it is no request, and no line of the history."""
    home.model("fraud", versions=1)
    home.alias("fraud", "blue", 1, ANA)
    with home.store.read() as tx:
        before = tx.history.last()

    home.alias("fraud", "blue", 1, ANA)
    home.move("fraud", 1, "None", ANA)

    with home.store.read() as tx:
        assert tx.history.last() == before


def test_sending_others_away_goes_with_staging_and_production_alone(home):
    """And what was sent away is in the history, too."""
    home.model("fraud", versions=2)
    home.move("fraud", 1, "Staging")

    home.move("fraud", 2, "Staging", archive=True)

    assert [stage_of(home, "fraud", n) for n in (1, 2)] == ["Archived", "Staging"]
    for stage in ("Archived", "None"):
        with pytest.raises(InputError):
            home.move("fraud", 1, stage, archive=True)


def test_a_refused_request_sends_nobody_away(home, tmp_path):
    """What is in production stays there."""
    one, two = flow_version(home, tmp_path), None
    home.move("retail", one, "Production", GROWTH)
    home.move("retail", one, "Production", RISK)
    with home.store.transaction() as tx:
        gates = tx.facts.put("gates", "retail", GateReport(results=(), passed=True, summary="again"))
        two = line.allot(home.ledger, tx, ANA, "retail", gates.digest)
        line.bind(home.ledger, tx, ANA, "retail", two, ids.digest_bytes(b"two"))

    assert home.move("retail", two, "Production", ANA, archive=True).refused
    assert [stage_of(home, "retail", n) for n in (one, two)] == ["Production", "None"]


@pytest.mark.parametrize("stage", ["Retired", "", "production ", "Deleted_Internal"])
def test_there_are_four_stages(home, stage):
    """No other word is taken for one."""
    home.model("fraud", versions=1)

    with pytest.raises(InputError):
        home.move("fraud", 1, stage)


def test_moves_compare_and_set(home):
    """`expected` is what the mover believes; the belief must be true."""
    home.model("fraud", versions=2)
    with home.store.transaction() as tx:
        home.moves.set_alias(tx, ANA, "default", "fraud", "blue", 1, expected=None)
        home.moves.set_alias(tx, ANA, "default", "fraud", "blue", 2, expected=1)
        for wrong in (1, None):
            with pytest.raises(ConflictError):
                home.moves.set_alias(tx, ANA, "default", "fraud", "blue", 1, expected=wrong)
        with pytest.raises(ConflictError):
            home.moves.delete_alias(tx, ANA, "default", "fraud", "blue", expected=1)
        with pytest.raises(ConflictError):
            home.moves.transition(tx, ANA, "default", "fraud", 1, "Staging", expected="Archived")
        moved = home.moves.transition(tx, ANA, "default", "fraud", 1, "Staging", expected="none")
    assert isinstance(moved, Moved)
    assert moved.version.stage == "Staging"


def test_prompts_are_not_released(home):
    """A prompt has no files; an alias of it is a label, also where its name stands for production."""
    tags = {"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": "hello"}
    with home.store.transaction() as tx:
        home.registry.create_model(tx, ANA, "default", "greeting", {"mlflow.prompt.is_prompt": "true"}, None)
        new = NewVersion(source="prompt-template", tags=tags)
        number = home.registry.create_version(tx, ANA, "default", "greeting", new).number
        with pytest.raises(InputError):
            home.registry.create_version(
                tx, ANA, "default", "greeting", msgspec.structs.replace(new, source="s3://a/b")
            )

    assert not home.alias("greeting", "production", number, ANA).refused
