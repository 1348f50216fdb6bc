"""Commands run in the process, against a stand-in for the home that answers with the sample's figures."""

from types import SimpleNamespace

import msgspec
import pytest

from bedplate.app import load_target
from bedplate.app.people_models import Gain, Key, NewKey, Policy, PolicyChange, PolicyCheck, PolicyTest, User, Workspace
from bedplate.app.read_models import (
    AuditReport,
    BackupReport,
    CheckReport,
    DecisionReport,
    InitReport,
    LoadTarget,
    RestoreReport,
    StopReport,
    UpInfo,
)
from bedplate.app.table_reports import ContractResult, ContractTestReport
from bedplate.cli import root
from bedplate.records import Event
from tests import sample

DAY = sample.DAY.format(1)


class Team:
    """The facade's nouns for people, each method with a fixed answer; the last call is remembered."""

    def __init__(self, answers):
        self._answers = answers

    def __getattr__(self, name):
        def call(*arguments, **named):
            self._answers.asked = (name, arguments, named)
            return self._answers.give(self._made(name))

        return call


class Users(Team):
    def _made(self, name):
        user = User(id="prn_1", name="ana", kind="user", groups=("risk",), created=DAY, keys=1)
        return (user,) if name == "list" else user


class Keys(Team):
    def _made(self, name):
        if name == "create":
            return NewKey(id="k1", user="ana", label="ci", created=DAY, expires=DAY, key="bp_k1_secret")
        key = Key(id="k1", user="ana", label="", created=DAY, expires=DAY, revoked=None, state="in force")
        return (key,) if name == "list" else key


class Workspaces(Team):
    def _made(self, name):
        made = Workspace(
            name="growth", description="d", shared=False, readers=("risk",), writers=("growth",), created=DAY
        )
        return (made,) if name == "list" else made


class Policies(Team):
    def _made(self, name):
        gains = (Gain(who="ana", action="read", resource="Home/home", allowed=False),)
        change = PolicyChange(added=("freeze",), replaced=(), removed=(), gains=gains, compared_all=False)
        policy = Policy(id="freeze", effect="forbid", reason="frozen", text="...", by="ana", created=DAY)
        return {
            "list": (policy,),
            "check": PolicyCheck(policies=(policy,), change=change),
            "test": PolicyTest(
                principal="ana",
                action="read",
                resource="Home",
                allowed=False,
                policies=("freeze",),
                reasons=("frozen",),
            ),
        }.get(name, change)


class Answers:
    """The facade's methods, each with a fixed answer. ``broken`` is raised instead, where a test sets it."""

    broken: BaseException | None = None
    verified = True
    asked = None

    def __init__(self):
        self.users, self.keys = Users(self), Keys(self)
        self.workspaces, self.policies = Workspaces(self), Policies(self)

    def give(self, value):
        if self.broken is not None:
            raise self.broken
        return value

    _give = give

    def check(self, path):
        return self._give(
            CheckReport(
                name=sample.NAME, path=str(path), digest=sample.digest("f"), workload="recommender",
                data=("transactions",), features=("household_recent",), gates=("quality",),
            )
        )  # fmt: skip

    def schema(self):
        return {"type": "object"}

    def init(self, folder, name):
        return InitReport(name=name, folder=str(folder), files=("usecase.yaml", "pipeline.py"))

    def plan(self, path):
        return self._give(sample.plan())

    def run(self, path, only, on_event):
        on_event(Event(stage="ingest", state="started", message="never done"))
        on_event(Event(stage="ingest", state="progress", message="transactions", done=1, total=2))
        on_event(Event(stage="ingest", state="finished", message="transactions 1,469,307 rows", seconds=4.12))
        return self._give(sample.run_summary())

    endpoint_error = ""

    def status(self):
        found = sample.home_status()
        (endpoint,) = found.endpoints
        endpoint = msgspec.structs.replace(endpoint, error=self.endpoint_error)
        return self._give(msgspec.structs.replace(found, endpoints=(endpoint,)))

    load_limit = 10.0

    def load(self, endpoint, *, on_event, **named):
        self.asked = ("load", (endpoint,), named)
        on_event(Event(stage="load", state="progress", message="50 answered", done=1, total=2))
        test = sample.load_test(self.load_limit)
        target = LoadTarget(endpoint=endpoint, url=sample.ADDRESS, limit_p99_ms=self.load_limit, peak=50.0)
        return self._give(load_target.report(target, test, rate=50.0, requests=7))

    def up_detached(self):
        return UpInfo(address=sample.ADDRESS, link=f"{sample.ADDRESS}/login/x", pid=42)

    def serve_forever(self, on_ready):
        on_ready(self.up_detached())

    def stop(self):
        return StopReport(pid=42)

    def login_link(self):
        return f"{sample.ADDRESS}/login/x"

    def trace(self, prediction_id, purpose=None):
        return sample.trace()

    def audit_verify(self, checkpoint):
        problems = () if self.verified else ("entry 3 was changed",)
        return AuditReport(verified=self.verified, entries=12, root="ab", checkpoint="c", problems=problems)

    def _decision(self, action, use_case, subject, reason):
        return self._give(
            DecisionReport(use_case=use_case, action=action, subject=subject, by="ana", reason=reason, ledger_index=7)
        )

    def approve(self, use_case, environment, reason):
        return self._decision("approve", use_case, environment, reason)

    def refuse(self, use_case, environment, reason):
        return self._decision("refuse", use_case, environment, reason)

    def waive(self, use_case, gate, reason):
        return self._decision("waive", use_case, gate, reason)

    def backup(self, destination, region):
        return BackupReport(
            path=str(destination), home="home_1", created=sample.DAY.format(1), files=9, size=1200, warning="w"
        )

    def restore(self, source, home):
        return RestoreReport(home=str(home), files=9, size=1200, warning="w")

    def contract_test(self, path):
        return ContractTestReport(use_case=sample.NAME, passed=True, results=(self._result(),))

    @staticmethod
    def _result():
        made = sample.dataset("transactions", 10, 2)
        return ContractResult(dataset=made.dataset, contract=made.contract, outcomes=made.outcomes)


@pytest.fixture
def answers(monkeypatch):
    given = Answers()
    one_word = ("usecase", "plan", "run", "server", "trace", "audit", "release", "contract", "home", "load")
    for name in (*one_word, "user", "key", "workspace", "policy"):
        monkeypatch.setattr(f"bedplate.cli.{name}.connect", lambda home=None: given)
    return given


@pytest.fixture
def command(answers, capsys):
    def call(*arguments):
        code = root.execute(list(arguments))
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call
