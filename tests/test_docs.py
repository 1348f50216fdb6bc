"""The documentation says what the product does: everything a user can name has a heading, and examples load."""

import re
import shlex
from pathlib import Path

import pytest
from scripts import reference

from bedplate import settings, usecase
from bedplate.cli.surface import commands
from bedplate.usecase.starter import starter

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"])


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_reference_is_what_the_code_says():
    for name, text in reference.texts().items():
        assert (reference.FOLDER / name).read_text("utf-8") == text, f"{name}: run `make docs`"


def test_every_command_setting_and_error_has_a_heading():
    headings = {
        name: re.findall(r"^## (.+)$", (reference.FOLDER / name).read_text("utf-8"), re.MULTILINE)
        for name in ("cli.md", "settings.md", "errors.md")
    }

    assert headings["cli.md"] == [f"bedplate {command.name}" for command in commands()]
    assert headings["settings.md"] == [setting.variable for setting in settings.SETTINGS]
    assert {"not_found", "gate_refused", "invalid_use_case"} <= set(headings["errors.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_the_tests_that_a_promise_rests_on_are_there():
    tests = "".join(path.read_text("utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    there = set(re.findall(r"^(?:async )?def (test_\w+)", tests, re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`(test_\w+)`", page.read_text("utf-8")))
        assert named <= there, (page.name, named - there)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_in_examples_exist_with_their_options(page):
    known = {command.name: {option.name for option in command.options} for command in commands()}
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] != "bedplate":
                continue
            name = " ".join(words[1:3]) if " ".join(words[1:3]) in known else words[1]
            assert name in known, line
            assert {word for word in words if word.startswith("--")} <= known[name], line


def test_the_use_case_in_the_readme_is_in_order_and_short(tmp_path):
    (block,) = blocks(ROOT / "README.md", "yaml")
    starter(tmp_path / "late-invoices", "late-invoices")
    (tmp_path / "late-invoices" / "usecase.yaml").write_text(block)

    assert usecase.load(tmp_path / "late-invoices").use_case.name == "late-invoices"
    assert len(block.splitlines()) <= 20


def test_no_word_that_the_style_bans():
    for page in PAGES:
        text = page.read_text("utf-8").lower()
        for word in ("simply", "obviously", "just run"):
            assert word not in text, f"{page.name}: {word}"
