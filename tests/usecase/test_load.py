import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import BedplateError, NotFoundError, UseCaseError
from bedplate.ids import digest_file
from bedplate.usecase import Problem, load
from bedplate.usecase.nodes import MAX_BYTES
from bedplate.usecase.types import Money
from tests.laws import examples
from tests.usecase.conftest import VALID, write

Problems = Callable[[str, str], tuple[Problem, ...]]


def test_a_valid_file_is_read_in_base_units(folder: Path) -> None:
    loaded = load(folder / "usecase.yaml")
    case = loaded.use_case
    assert case.requirements.latency.p99 == 0.02
    assert case.requirements.throughput.peak == 500
    assert case.requirements.availability == 0.999
    assert case.workload.catalogue == 92_000
    assert case.train.resources.memory == 4 << 30
    assert case.governance.retention == 400 * 86400
    assert case.requirements.budget is not None
    assert case.requirements.budget.monthly == Money(amount=2000, currency="USD")
    assert case.serve.rollout.steps == (0.01, 0.1, 0.5, 1.0)
    assert case.retrain.if_ == "expected_gain > cost"
    assert case.train.schedule is None


def test_the_folder_may_be_named_instead_of_the_file(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.path == folder / "usecase.yaml"
    assert loaded.folder == folder
    assert loaded.digest == digest_file(loaded.path)
    assert loaded.text == VALID


def test_a_contract_in_place_of_a_use_case_is_told_apart(folder: Path) -> None:
    contract = folder / "invoices.odcs.yaml"
    contract.write_text("apiVersion: v3.1.0\nkind: DataContract\nid: a\nversion: 1.0.0\nstatus: active\n")
    with pytest.raises(UseCaseError, match=r"a data contract, not a use case\n.*usecase\.yaml"):
        load(contract)


def test_every_value_knows_its_line(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.line() == 1
    assert loaded.line("requirements", "latency") == 11
    assert loaded.line("requirements", "quality", 1) == 17
    assert loaded.line("requirements", "quality", 1, "not_worse_than", "margin") == 17
    assert loaded.line("requirements", "size") == 10, "what is left out has the line of its section"
    assert loaded.line("nothing") == 1


def test_all_problems_come_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = VALID.replace("limited", "limitd").replace("20 ms", "20").replace("unit: USD", "unt: USD")
    (folder / "usecase.yaml").write_text(text)
    with pytest.raises(UseCaseError) as caught:
        load(folder)
    problems = [p for p in caught.value.problems if isinstance(p, Problem)]
    assert [(p.line, p.column, p.nearest) for p in problems] == [
        (6, 8, None),
        (6, 29, "unit"),
        (8, 15, "limited"),
        (11, 18, None),
    ]
    assert "4 problems" in str(caught.value)
    assert "did you mean 'limited'?" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "path", "nearest", "message"),
    [
        ("kind: recommender", "kind: recomender", "workload.kind", "recommender", "not allowed"),
        ("p99: 20 ms", "p99: 20 msec", "requirements.latency.p99", "20 ms", "not a unit"),
        ("p99: 20 ms", "p99: fast", "requirements.latency.p99", None, "number"),
        ("p99: 20 ms", "p99: 0 ms", "requirements.latency.p99", None, "above zero"),
        ("p99: 20 ms", "p99: 20 ms, p50: 1 s", "requirements.latency.p50", None, "slower"),
        ("500/s", "500 rps", "requirements.throughput.peak", "500/s", "not a unit"),
        ("99.9 %", "99.9", "requirements.availability", "99.9 %", "no unit"),
        ("99.9 %", "100 %", "requirements.availability", "99.9 %", "cannot be promised"),
        ("4 GiB", "4 GIB", "train.resources.memory", "4 GiB", "not a unit"),
        ("2000 USD", "2000 $", "requirements.budget.monthly", "2000 USD", "not a currency"),
        ("40 USD", "40 EUR", "requirements.budget.training_run", "40 USD", "USD on line 18"),
        ("92000 items", "9.5 items", "workload.catalogue", None, "not whole"),
        ("direction: up", "direction: down", "objective.kpi.direction", "up", "is not down"),
        ("target: 29.30", "target: 28.40", "objective.kpi.target", None, "the same"),
        ("target: 29.30", "target: much", "objective.kpi.target", None, "not a number"),
        ("target: 29.30", "target: .inf", "objective.kpi.target", None, "not a number"),
        ("2 of [growth-leads, risk]", "3 of [growth-leads, risk]", "release.approvals.production", None, "nobody"),
        ("2 of [growth-leads, risk]", "two of them", "release.approvals.production", None, "who approves"),
        ("name: retail", "name: My Retail", "name", "my-retail", "not a name"),
        ("affects_people: true", "affects_people: yes", "risk.affects_people", "true", "neither true nor false"),
        ("team: growth", "team: no", "owner.team", '"no"', "true or false"),
        ('contact: "#growth-ml"', "contact: ''", "owner.contact", None, "empty"),
        ("residency: [eu]", "residency: eu", "requirements.residency", "[eu]", "must be a list"),
        ("residency: [eu]", "residency: [mars]", "requirements.residency[0]", None, "not a residency"),
        (
            "transactions.csv}",
            "transactions.csv, region: mars}",
            "data.transactions.source.region",
            None,
            "not a region",
        ),
        ("within: 14 d", "within: 500 d", "monitor.outcomes.within", None, "longer than data may be kept"),
        ("data: transactions}", "data: transaction}", "monitor.outcomes.data", "transactions", "not a data set"),
        ("[household_recent]", "[household_recnt]", "features[0]", "household_recent", "no feature view"),
        ("[household_recent]", "[household_recent, household_recent]", "features[1]", None, "twice"),
        ("transactions.odcs.yaml", "transaction.odcs.yaml", "data.transactions.contract", None, "no file"),
        ("contracts/transactions", "../transactions", "data.transactions.contract", None, "in the folder"),
        ("path: transactions.csv", "path: transaction.csv", "data.transactions.source.path", "transactions.csv", "no"),
        ("kind: csv", "kind: csv, package: not_there", "data.transactions.source.package", None, "not installed"),
        ("better_than: each baseline, ", "", "requirements.quality[0]", None, "says nothing"),
        ("better_than: each", "at_least: 0.1, better_than: each", "requirements.quality[0]", None, "together"),
        ("min: 0, max: 40", "min: 3, max: 2", "serve.replicas.min", None, "at least 3 but at most 2"),
        ("max: 40", "max: 4, zone: Europe/Atlantis", "serve.replicas.zone", None, "is not a time zone"),
        *(
            ("max: 40", f"max: 4, schedule: [{{{shift}}}]", f"serve.replicas.schedule[0].{key}", None, message)
            for shift, key, message in (
                ("from: '24:00', to: '07:00', min: 1", "from", "is not a time of day"),
                ("from: 7h, to: '19:00', min: 1", "from", "is not a time of day"),
                ("from: '07:00', to: '7:00', min: 1", "to", "is not a time of day"),
                ("from: '07:00', to: '19:00', min: 5", "min", "at least 5 but at most 4"),
                ("from: '07:00', to: '19:00', min: 1, days: []", "days", "it never begins"),
            )
        ),
        ("50 %, 100 %", "50 %", "serve.rollout.steps", "[1 %, 10 %, 50 %, 100 %]", "100 %"),
        ("features: [", "upkeep: { skew: 1 s }\nfeatures: [", "upkeep.skew", "1 d", "all the time"),
        (
            "features: [household_recent]",
            "features: [in_sql, household_recent]",
            "features[0]",
            None,
            "no feature view",
        ),
        ("features: [household_recent]", "upkeep: { skew: 1 d }", "upkeep.skew", None, "no feature could differ"),
        ("when: slo_burn", "when: skew", "alerts[0].when", None, "nothing measures skew"),
        ("when: slo_burn", "when: errors", "alerts[0].then", "nothing", "rolls nothing back"),
        ("gates: [quality", "gates: [size, quality", "release.gates[0]", None, "nothing to judge"),
        ("gates: [quality", "gates: [quality, quality", "release.gates[1]", None, "twice"),
        ("holdout: 28 d", "holdout: 95 %", "train.holdout", None, "leaves nothing"),
        ("risk: {level: limited", "risk: {level: high", "", None, ""),
        ("bedplate: 1", "bedplate: 2", "bedplate", "1", "not allowed"),
        ("bedplate: 1\n", "bedplate: 1\nname: again\n", "name", None, "given twice"),
        ("bedplate: 1\n", "bedplate: 1\n[a]: again\n", "", None, "key must be a word"),
        ("team: growth, ", "", "owner", None, "missing"),
        ("train: {resources", "train: {seed: 1e99, resources", "train.seed", None, "whole number"),
    ],
)
def test_each_mistake_is_found_where_it_stands(
    problems: Problems, old: str, new: str, path: str, nearest: str | None, message: str
) -> None:
    found = problems(old, new)
    if not message:  # allowed
        assert found == ()
        return
    match = next((p for p in found if p.path == path), None)
    assert match is not None, found
    assert message in match.message
    assert match.nearest == nearest or (nearest is None and "odcs" in new)
    line = VALID.replace(old, new).splitlines()[match.line - 1]
    assert match.column <= len(line) + 1


def test_what_a_kind_of_workload_needs_is_said_whole(problems: Problems) -> None:
    found = problems(
        "workload: {kind: recommender, catalogue: 92000 items, users: 2500}", "workload: {kind: embedding}"
    )
    wanted = {p.message: p.allowed for p in found if p.message.startswith("workload 'embedding' needs")}
    assert wanted == {
        f"workload 'embedding' needs {name!r}": "model and tokens_in given" for name in ("model", "tokens_in")
    }


def test_high_risk_does_not_buffer(problems: Problems) -> None:
    text = 'risk: {level: limited, affects_people: true, rationale: "..."}'
    assert problems(text, text.replace("limited", "high")) == ()
    found = problems("serve: {protocol: [rest],", "serve: {log: buffered, protocol: [rest],")
    assert found == ()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("a:\n\tb: 1\n", 2, "tab"),
        ("a: [1\nb: 2\n", 2, "not YAML"),
        ("a: &x [1]\n", 1, "anchors"),
        ("a: *x\n", 1, "anchors"),
        ("[" * 60, 1, "nested deeper"),
        ("a: \x07\n", 1, "not allowed in YAML"),
        ("--- 1\n--- 2\n", 2, "not YAML"),
        ("just words", 1, "must be a section"),
        ("- a\n", 1, "must be a section"),
    ],
)
def test_what_is_no_use_case_at_all_is_refused(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "usecase.yaml"
    path.write_text(text)
    with pytest.raises(UseCaseError, match=message) as caught:
        load(path)
    first = caught.value.problems[0]
    assert isinstance(first, Problem)
    assert first.line == line


def test_a_quorum_inside_braces_is_told_to_need_quotes(folder: Path) -> None:
    text = VALID.replace("\n    production: 2 of [growth-leads, risk]", " {production: 2 of [growth-leads, risk]}")
    (folder / "usecase.yaml").write_text(text)
    with pytest.raises(UseCaseError) as caught:
        load(folder)
    first = caught.value.problems[0]
    assert isinstance(first, Problem)
    assert first.nearest == '"2 of [growth-leads, risk]"'


def test_a_file_in_another_encoding_is_refused(folder: Path) -> None:
    (folder / "usecase.yaml").write_bytes(VALID.replace("ana.silva", "jürgen").encode("latin-1"))
    with pytest.raises(UseCaseError, match="not UTF-8") as caught:
        load(folder)
    first = caught.value.problems[0]
    assert isinstance(first, Problem)
    assert (first.line, first.column) == (3, 37)


def test_a_byte_order_mark_is_no_mistake(folder: Path) -> None:
    (folder / "usecase.yaml").write_bytes(b"\xef\xbb\xbf" + VALID.encode())
    assert load(folder).line("name") == 2


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "usecase.yaml"
    path.write_bytes(b"# " + b"x" * MAX_BYTES)
    with pytest.raises(UseCaseError, match="at most 262,144 bytes"):
        load(path)


def test_a_missing_file_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="bedplate init"):
        load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_an_error(folder: Path) -> None:
    (folder / "usecase.yaml").chmod(0)
    with pytest.raises(UseCaseError, match="cannot be read"):
        load(folder)


def test_sources_may_be_left_unchecked(folder: Path) -> None:
    (folder / "transactions.csv").unlink()
    with pytest.raises(UseCaseError, match="no file"):
        load(folder)
    assert load(folder, check_files=False).use_case.name == "retail"


def test_a_pipeline_that_does_not_parse_is_named(folder: Path) -> None:
    (folder / "pipeline.py").write_text("def broken(:\n")
    with pytest.raises(UseCaseError, match=r"pipeline\.py, line 1"):
        load(folder)


def test_a_view_may_be_a_file_of_sql_and_stands_in_one_place(folder: Path) -> None:
    (folder / "features").mkdir()
    (folder / "features" / "household_recent.sql").write_text("-- entity: household_id\n")
    with pytest.raises(UseCaseError, match=r"both pipeline\.py and features/household_recent\.sql define"):
        load(folder)
    (folder / "pipeline.py").unlink()
    assert load(folder).use_case.features == ("household_recent",)


def test_a_pipeline_is_read_but_never_run(folder: Path) -> None:
    pipeline = (folder / "pipeline.py").read_text()
    (folder / "pipeline.py").write_text(pipeline + "\nraise SystemExit('ran')\n")
    load(folder)


# ---------------------------------------------------------------------------------------------------------- the law


def _outcome(text: str) -> None:
    """Either it loads, or every problem lies inside the file; nothing else ever comes out."""
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name), text)
        try:
            load(path)
        except UseCaseError as error:
            problems = error.problems
        except BedplateError as error:
            pytest.fail(f"another error: {error!r}")
        else:
            return
    lines = text.splitlines() or [""]
    assert problems
    for problem in problems:
        assert isinstance(problem, Problem)
        assert 1 <= problem.line <= len(lines) + 1
        assert problem.column >= 1
        assert problem.message


_words = st.sampled_from(
    ["null", "~", "yes", "1", "-1", "1e999", "20 ms", "{}", "[]", "[[", "}", '"', "'", "&a", "*a",
     "!!python/object:os.x", "!x y", "|", ">", "%", "@", "`", "\t", "\u2028", "\x85", ": ", "- ", "#", "? ", "<<: ",
     "---", "...", "2 of [a]", "\u00e9", "\U0001f600"]
)  # fmt: skip


@examples(30)
@given(st.data())
def test_any_mutation_loads_or_gives_problems_inside_the_file(data: st.DataObject) -> None:
    text = VALID
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(st.one_of(_words, st.text(max_size=6), st.just(""))) + text[end:]
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    _outcome(text)


@given(st.data())
def test_any_value_may_be_replaced_by_any_other(data: st.DataObject) -> None:
    lines = VALID.splitlines()
    index = data.draw(st.integers(0, len(lines) - 1))
    key, _, _ = lines[index].partition(":")
    lines[index] = f"{key}: {data.draw(_words)}"
    _outcome("\n".join(lines) + "\n")
