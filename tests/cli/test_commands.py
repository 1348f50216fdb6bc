import json

import pytest

from bedplate import errors
from bedplate.cli import root
from bedplate.cli.summary import summary_lines
from bedplate.usecase.starter import starter
from tests import sample

FACTS = (
    ("check", "x"),
    ("init", "x"),
    ("plan", "x"),
    ("run", "x"),
    ("status",),
    ("up", "--detach"),
    ("up",),
    ("stop",),
    ("login",),
    ("load", sample.NAME, "--rate", "50", "--duration", "2"),
    ("trace", sample.PREDICTION),
    ("audit", "verify"),
    ("approve", sample.NAME, "--reason", "r"),
    ("refuse", sample.NAME, "--reason", "r"),
    ("waive", sample.NAME, "age", "--reason", "r"),
    ("contract", "test", "x"),
    ("backup", "b"),
    ("restore", "b", "h"),
    ("user", "add", "ana", "--group", "risk"),
    ("user", "list"),
    ("user", "groups", "ana", "risk", "growth"),
    ("user", "disable", "ana"),
    ("key", "create", "ana", "--label", "ci", "--expires", "90d"),
    ("key", "list"),
    ("key", "list", "ana"),
    ("key", "revoke", "k1"),
    ("workspace", "create", "growth", "--writer", "growth"),
    ("workspace", "list"),
    ("workspace", "update", "growth", "--shared"),
    ("workspace", "delete", "growth"),
    ("policy", "add", "x"),
    ("policy", "list"),
    ("policy", "remove", "freeze"),
    ("policy", "check", "x"),
    ("policy", "test", "--principal", "ana", "--action", "read", "--resource", "Home"),
)


@pytest.mark.parametrize("arguments", FACTS, ids=lambda a: " ".join(a[:2]))
def test_every_command_prints_text_and_one_json_document(command, arguments):
    text = command(*arguments)
    document = command(*arguments, "--json")

    assert (text.code, document.code) == (0, 0), text.err + document.err
    assert text.out.strip()
    assert isinstance(json.loads(document.out), dict)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("user", "add", "ci", "--service", "--group", "a", "--group", "b"),
         ("add", ("ci",), {"service": True, "groups": ["a", "b"]})),
        (("user", "groups", "ana"), ("set_groups", ("ana", ()), {})),
        (("key", "create", "ana", "--expires", "90d"), ("create", ("ana",), {"label": "", "expires": "90d"})),
        (("workspace", "update", "growth", "--closed", "--no-readers", "--writer", "a"),
         ("update", ("growth",), {"description": None, "shared": False, "readers": (), "writers": ["a"]})),
        (("workspace", "update", "growth", "--description", ""),
         ("update", ("growth",), {"description": "", "shared": None, "readers": None, "writers": None})),
    ],
)  # fmt: skip
def test_options_say_what_they_seem_to_say(command, answers, arguments, asked):
    assert command(*arguments).code == 0
    assert answers.asked == asked


def test_groups_and_no_groups_exclude_each_other(command):
    result = command("workspace", "update", "growth", "--reader", "a", "--no-readers")

    assert (result.code, "exclude" in result.err) == (2, True)


def test_a_key_is_printed_once_on_a_line_of_its_own(command):
    text = command("key", "create", "ana").out

    assert text.splitlines()[0] == "bp_k1_secret"
    assert text.count("bp_k1_secret") == 1
    assert "bp_" not in command("key", "list").out


def test_progress_of_a_run_is_plain_without_a_terminal(command):
    lines = command("run", "x").out.splitlines()

    assert lines[0] == "[ 3/13] ingest    transactions 1,469,307 rows  4.1 s"


def test_progress_goes_to_stderr_when_stdout_is_json(command):
    result = command("run", "x", "--json")

    assert result.err.startswith("[ 3/13] ingest")
    assert json.loads(result.out)["use_case"] == sample.NAME


def test_the_summary_fits_one_screen():
    lines = list(summary_lines(sample.run_summary()))

    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    for text in ("0.158 [0.152, 0.164]", "+0.021 [0.017, 0.025]", "50.00 USD a month", "p99 9.4 [8.6, 10.2] ms meets"):
        assert any(text in line for line in lines), text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("m", where="w", fix="f"), 2),
        (errors.GateError("m", where="w", fix="f"), 3),
        (errors.IntegrityError("m", where="w", fix="f"), 4),
        (errors.HomeError("m", where="w", fix="f"), 1),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "/x"), 1),
    ],
)
def test_errors_end_with_their_code_and_no_traceback(command, answers, error, code):
    answers.broken = error
    result = command("status")

    assert result.code == code
    assert "Traceback" not in result.out + result.err


def test_an_error_says_what_where_and_what_to_do(command, answers):
    answers.broken = errors.NotFoundError("no such stage", where="--only", fix="use ingest")

    assert command("status").err.splitlines() == ["Error: no such stage", "Where: --only", "Fix:   use ingest"]
    assert json.loads(command("status", "--json").out)["error"] == "not_found"


def test_why_an_endpoint_does_not_answer_is_said(command, answers):
    assert "does not answer" not in command("status").out
    answers.endpoint_error = "it ended: 1"
    assert f"{sample.NAME} does not answer: it ended: 1." in command("status").out.splitlines()


def test_a_fault_of_ours_becomes_text_and_a_file(command, answers):
    answers.broken = ZeroDivisionError("oops")
    result = command("status")

    assert result.code == 70
    assert "a fault in Bedplate: ZeroDivisionError: oops" in result.err
    assert "Traceback" not in result.err


def test_every_problem_of_a_use_case_is_shown_with_its_place(command, answers, tmp_path):
    file = tmp_path / "usecase.yaml"
    file.write_text("bedplate: 1\nnmae: x\nrisk: {level: hihg}\n")
    problems = (
        {"line": 2, "column": 1, "path": "nmae", "message": "unknown key 'nmae'", "nearest": "name", "allowed": None},
        {"line": 3, "column": 15, "path": "risk.level", "message": "'hihg' is not a level", "nearest": None,
         "allowed": ["minimal", "limited", "high"]},
    )  # fmt: skip
    answers.broken = errors.UseCaseError("2 problems", where=str(file), fix="correct them", problems=problems)
    result = command("check", str(file))

    assert result.code == 2
    assert "usecase.yaml:2:1: unknown key 'nmae'" in result.err
    assert "did you mean name?" in result.err
    assert "    3 | risk: {level: hihg}\n      | " + " " * 14 + "^" in result.err
    assert "allowed: minimal, limited, high" in result.err


def test_a_ledger_that_does_not_verify_ends_with_4(command, answers):
    answers.verified = False
    result = command("audit", "verify")

    assert result.code == 4
    assert "entry 3 was changed" in result.out


@pytest.mark.parametrize("arguments", [("nothing",), ("run", "--nothing"), ("trace",), ("completion", "tcsh")])
def test_a_wrong_command_line_ends_with_2(command, arguments):
    result = command(*arguments)

    assert result.code == 2
    assert "Traceback" not in result.err


@pytest.mark.parametrize(("line", "asked"), [(("load", sample.NAME), "load"), (("profile", sample.NAME), "profile")])
@pytest.mark.parametrize(("path", "code"), [(".", 2), ("file/page.html", 1)])
def test_a_page_that_cannot_be_written_is_refused_before_the_run(command, answers, tmp_path, line, asked, path, code):
    (tmp_path / "file").touch()

    result = command(*line, "--out", str(tmp_path / path))

    assert result.code == code
    assert "Fix:   give the path of a file" in result.err
    assert not answers.asked or answers.asked[0] != asked


def test_a_load_run_that_misses_its_requirement_ends_with_an_error(command, answers):
    answers.load_limit = 1.0

    done = command("load", sample.NAME)

    assert done.code == 1
    assert "MISSED: the p99 is above 1 ms" in done.out
    assert answers.asked[2] == {"rate": None, "seconds": 10.0, "connections": 32, "body": None}


def test_a_run_that_the_plan_refused_points_to_the_plan(tmp_path, capsys):
    folder = tmp_path / "starter"
    starter(folder, "starter")
    file = folder / "usecase.yaml"
    file.write_text(file.read_text().replace("p99: 50 ms", "p99: 1 us").replace("on_breach: warn", "on_breach: block"))

    assert root.execute(["run", str(folder), "--home", str(tmp_path / "home")]) != 0
    said = capsys.readouterr().err
    assert f"bedplate plan {folder}" in said
    assert "gates above" not in said


def test_a_test_of_contracts_says_whether_a_run_would_go_on(tmp_path, capsys):
    folder = tmp_path / "starter"
    starter(folder, "starter")
    data = folder / "data" / "invoices.csv"
    asked = ["contract", "test", str(folder), "--home", str(tmp_path / "home")]
    assert root.execute(asked) == 0
    assert capsys.readouterr().out.endswith("Every contract holds.\n")

    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines[:-1], lines[-1].replace("2025-12-31", "soon")]) + "\n")
    assert root.execute(asked) == 0
    said = capsys.readouterr().out
    assert "1 row: issued_on has values of another type" in said
    assert said.endswith("A run would go on: no rule of severity error is broken.\n")

    data.write_text("\n".join(lines[:900]) + "\n")
    assert root.execute(asked) == 2
    assert capsys.readouterr().out.endswith("A contract does not hold: a run would stop.\n")
