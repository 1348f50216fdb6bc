"""Changing one value of a file changes nothing else of it, wherever it stands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.usecase import edit, nodes
from bedplate.usecase.nodes import Node
from bedplate.usecase.problems import Keys
from tests.usecase.conftest import VALID

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = [VALID, *(path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*/usecase.yaml")))]


def leaves(node: Node, keys: Keys = ()) -> Iterator[tuple[Keys, tuple[str, bool]]]:
    for key, child in (*node.entries.items(), *enumerate(node.items)):
        yield from leaves(child, (*keys, key))
    if not node.entries and not node.items:
        yield keys, (node.text, node.plain)


def tree(text: str) -> dict[Keys, tuple[str, bool]]:
    return dict(leaves(nodes.read(text.encode())[0]))


def comments(text: str) -> list[str]:
    return [line.partition(" #")[2] for line in text.splitlines() if " #" in line or line.startswith("#")]


@given(data=st.data(), text=st.sampled_from(TEXTS), value=st.sampled_from(["7", "20 ms", '"a: b,#c"', "[eu, us]"]))
def test_one_value_changes_and_nothing_else(data: st.DataObject, text: str, value: str) -> None:
    before = tree(text)
    keys = data.draw(st.sampled_from(sorted(before, key=str)))
    after = edit.put(text, keys, value)
    kept = {k: v for k, v in tree(after).items() if k[: len(keys)] != keys}
    assert kept == {k: v for k, v in before.items() if k != keys}
    assert dict(leaves(nodes.read(f"[{value}]".encode())[0].items[0], keys)).items() <= tree(after).items()
    assert comments(after) == comments(text)


@given(data=st.data(), text=st.sampled_from(TEXTS))
def test_what_is_missing_is_written_into_its_section(data: st.DataObject, text: str) -> None:
    sections = {keys[:i] for keys in tree(text) for i in range(len(keys)) if all(isinstance(k, str) for k in keys[:i])}
    root = nodes.read(text.encode())[0]
    maps = sorted((keys for keys in sections if (n := root.at(keys)) is not None and n.kind == "mapping"), key=str)
    keys = (*data.draw(st.sampled_from(maps)), "new", "deep")
    after = edit.put(text, keys, "4 GiB")
    assert tree(after) == tree(text) | {keys: ("4 GiB", True)}
    assert comments(after) == comments(text)


def test_blocks_comments_and_odd_ends_stay_in_their_places() -> None:
    text = "a:\n  b:\n  # c\nd: |\n  text\n  more\n# end\ne:\n- 1\n- 2\nf:"
    assert edit.put(text, ("a", "b", "x"), "1").startswith("a:\n  b: { x: 1 }\n  # c\n")
    assert edit.put(text, ("a", "z"), "2").startswith("a:\n  b:\n  z: 2\n  # c\n")
    assert "d: q\n# end" in edit.put(text, ("d",), "q")
    assert tree(edit.put(text, ("e",), "[3]"))["e", 0] == ("3", True)
    assert edit.put(text, ("g",), "1") == f"{text}\ng: 1\n"


@pytest.mark.parametrize("value", ["2, x: 1", "}", "# c", "1 # c", "", "1\nb: 2", "&a 1", "{a: 1, a: 2}"])
def test_a_value_cannot_break_out_of_its_place(value: str) -> None:
    with pytest.raises(InputError, match="is not one value"):
        edit.put(VALID, ("name",), value)


@pytest.mark.parametrize("keys", [("name", "x"), ("requirements", "quality", 9, "metric"), ("name", 0)])
def test_a_path_that_leads_nowhere_is_refused(keys: Keys) -> None:
    with pytest.raises(InputError, match="holds no"):
        edit.put(VALID, keys, "1")


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_a_quoted_text_reads_as_itself(text: str) -> None:
    node = nodes.read(f"a: {edit.quoted(text)}".encode())[0].at(("a",))
    assert node is not None
    assert node.text == text
