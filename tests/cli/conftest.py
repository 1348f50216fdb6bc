"""Commands run in the process, against a stand-in for the home that answers with the sample's figures."""

from types import SimpleNamespace

import pytest

from bedplate.app.read_models import (
    AuditReport,
    BackupReport,
    CheckReport,
    ContractResult,
    ContractTestReport,
    DecisionReport,
    InitReport,
    RestoreReport,
    StopReport,
    UpInfo,
)
from bedplate.cli import root
from bedplate.records import Event
from tests import sample


class Answers:
    """The facade's methods, each with a fixed answer. ``broken`` is raised instead, where a test sets it."""

    broken: BaseException | None = None
    verified = True

    def _give(self, value):
        if self.broken is not None:
            raise self.broken
        return value

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

    def status(self):
        return self._give(sample.home_status())

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

    def backup(self, destination):
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
    for name in ("usecase", "plan", "run", "server", "trace", "audit", "release", "contract", "home"):
        monkeypatch.setattr(f"bedplate.cli.{name}.connect", lambda home=None: given)
    return given


@pytest.fixture
def command(answers, capsys):
    def call(*arguments):
        code = root.execute(list(arguments))
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return call
