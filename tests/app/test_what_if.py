"""Plans beside what they would be, and questions whose answers go into the file."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bedplate.app import asking, planning, what_if
from bedplate.compute import probe
from bedplate.errors import InputError, UseCaseError
from bedplate.plan.compare import Comparison, compare
from bedplate.settings import Home
from bedplate.usecase import load
from tests.plan.conftest import PROBE, SETTINGS

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
NOWHERE = msgspec.structs.replace(SETTINGS, home=Path("/nowhere"))
OPEN = """\
# answers, at any hour
bedplate: 1
name: chat
owner: { team: a, accountable: b }
objective: { statement: c, kpi: { name: d, unit: e, direction: up, baseline: 0, target: 1 } }
risk: { level: minimal }
workload: # what it is
  kind: llm_inference
  model: llama-3-8b
  tokens_in: 300
requirements:
  latency: { p50: 5 s } # quick
governance: { purpose: f }
serve: { replicas: { max: 2 } } # not many
"""


def compared(name: str, *asked: str) -> Comparison:
    loaded = load(EXAMPLES / name)
    other, rows = what_if.changed(loaded, asked)
    return compare(planning.derive(loaded, PROBE, NOWHERE)[1], planning.derive(other, PROBE, NOWHERE)[1], rows)


def test_a_plan_stands_beside_what_it_would_be() -> None:
    found = compared("llm-chat", "throughput.peak=20/s", "requirements.residency=[eu, us]")
    assert [(row.what, row.before, row.after, row.line) for row in found.asked] == [
        ("requirements.throughput.peak", "8/s", "20/s", 27),
        ("requirements.residency", "[eu]", "[eu, us]", 30),
    ]
    needs = {row.what: row for row in found.needs}
    assert (needs["peak rate"].before, needs["peak rate"].after) == ("8 requests/s", "20 requests/s")
    assert needs["peak rate"].line == 27
    assert needs["residency"].after == "eu, us"
    assert "p99" not in needs
    choice = {row.what: row for row in found.choice}
    assert choice["machines"].differs
    assert found.dearer is not None
    assert found.dearer > 0
    assert "dearer" in found.words[0]
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


def test_a_need_that_nothing_meets_says_so_and_nothing_changes_costs_nothing() -> None:
    found = compared("llm-chat", "latency.p99=1 ms")
    assert found.dearer is None
    assert "Nothing would be chosen" in found.words[0]
    same = compared("chest-xray", "objective.kpi.name=other")
    assert same.dearer == 0
    assert same.needs == ()
    assert not any(row.differs for row in same.choice)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("throughput.peek=3/s", "'peek' is not known"),
        ("thruput.peak=3/s", "did you mean 'throughput'"),
        ("throughput.peak=3", "has no unit"),
        ("throughput.peak=3 ms", "not a unit of rate"),
        ("throughput.peak", "names no value"),
        ("a b=3", "is no path|not a path"),
        ("latency.p50=30 s", "half of the calls may be slower"),
        ("budget.monthly=3 EURO", "not a currency"),
        ("workload.images=3", "no meaning for workload 'llm_inference'"),
        ("throughput.peak=3/s }, x: { y: 1", "not one value"),
    ],
)
def test_a_wrong_path_or_unit_is_a_plain_error(asked: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        what_if.changed(load(EXAMPLES / "llm-chat"), [asked])


def answered(folder: Path, **given: str) -> list[str]:
    """Answer what is asked for, by the last word of its path, and leave the rest; the paths that were asked."""
    asked: list[str] = []
    while question := next((q for q in asking.questions(folder, PROBE, NOWHERE) if q.path not in asked), None):
        asked.append(question.path)
        value = given.get(question.path.rpartition(".")[2])
        if value is not None:
            asking.answer(folder, question, value)
    return asked


def test_answers_complete_a_file_and_leave_the_rest_of_it(tmp_path: Path) -> None:
    (tmp_path / "usecase.yaml").write_text(OPEN, "utf-8")
    with pytest.raises(UseCaseError):
        load(tmp_path)
    given = {
        "tokens_out": "20 tokens", "p99": "9 s", "peak": "2000/s", "daily_shape": "office", "max": "400",
        "residency": "[eu]", "monthly": "900 USD",
    }  # fmt: skip
    first, second = asking.questions(tmp_path, PROBE, NOWHERE)[:2]
    assert (first.line, second.line, second.example) == (0, 0, "20 s"), "there is no line of what is not there yet"
    asked = answered(tmp_path, **given)
    assert asked[:3] == ["workload.tokens_out", "requirements.latency.p99", "requirements.throughput.peak"]
    assert "serve.replicas.max" in asked, "two copies cannot answer so much"
    text = (tmp_path / "usecase.yaml").read_text("utf-8")
    for part in ("# answers, at any hour", "workload: # what it is\n", "5 s, p99: 9 s } # quick", "# not many"):
        assert part in text
    case = load(tmp_path).use_case
    assert case.serve.replicas.max == 400
    assert case.requirements.traffic.daily_shape == "office"
    assert case.requirements.residency == ("eu",)
    assert case.governance.retention is None, "what is not answered is not written"
    derived, plan = planning.derive(load(tmp_path), PROBE, NOWHERE)
    assert plan.requirements.item("peak rate").kind == "stated"
    assert derived.item("availability").kind == "assumed", "nor does the plan say that the file says it"


def test_what_contradicts_itself_is_asked_for_and_a_wrong_answer_changes_nothing(tmp_path: Path) -> None:
    slow = OPEN.replace("p50: 5 s", "p50: 5 s, p99: 1 s").replace(
        "requirements:\n", "requirements:\n  throughput: {peak: 1/s}\n"
    )
    file = tmp_path / "usecase.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + slow.replace("  tokens_in: 300", "  tokens_in: 300\n  tokens_out: 9").encode())
    first = asking.questions(tmp_path, PROBE, NOWHERE)[0]
    assert first.path == "requirements.latency.p50"
    assert "half of the calls may be slower" in first.because
    before = file.read_bytes()
    with pytest.raises(InputError, match="no unit"):
        asking.answer(tmp_path, first, "1")
    assert file.read_bytes() == before
    asking.answer(tmp_path, first, "500 ms")
    assert file.read_bytes() == before.replace(b"p50: 5 s", b"p50: 500 ms")


def test_a_budget_that_is_exceeded_is_asked_for_with_its_reason() -> None:
    loaded = load(EXAMPLES / "llm-chat")
    poor, _ = what_if.changed(loaded, ["budget.monthly=10 USD"])
    plan = planning.derive(poor, PROBE, NOWHERE)[1]
    question = next(asking._over_budget(plan))
    assert question.path == "requirements.budget.monthly"
    assert "the budget is 10" in question.because


def test_the_interview_needs_a_terminal_and_writes_what_is_said_there(tmp_path: Path) -> None:
    (tmp_path / "usecase.yaml").write_text(OPEN, "utf-8")
    kept = Home(tmp_path / "home").probe
    kept.parent.mkdir(mode=0o700)
    kept.write_bytes(msgspec.json.encode(msgspec.structs.replace(PROBE, code=probe.code())))
    command = [sys.executable, "-m", "bedplate", "--home", str(tmp_path / "home"), "plan", str(tmp_path), "--ask"]
    without = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert without.returncode == 2
    assert "questions need a terminal; open is: workload.tokens_out" in without.stderr
    leader, follower = pty.openpty()
    asked = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    os.write(leader, b"20 pears\n20 tokens\n2 s\n1/s\n" + b"\n" * 12)
    said = b""
    try:
        while part := os.read(leader, 4096):
            said += part
    except OSError:
        pass  # the other side has gone
    os.close(leader)
    asked.wait()
    text = said.decode()
    assert "How many tokens has an answer?" in text
    assert "That cannot stand there: 'pears' is not a unit" in text
    assert "Allowed: " in text or "Did you mean " in text
    written = (tmp_path / "usecase.yaml").read_text("utf-8")
    assert "  tokens_out: 20 tokens\n" in written
    assert "{ p50: 5 s, p99: 2 s } # quick" in written
